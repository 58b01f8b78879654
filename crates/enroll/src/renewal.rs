//! Renewal: a new certificate for the same names, paid for with the old certificate (RFC 7030
//! §4.2.2). The key stays ([`renew`]) or is replaced ([`rekey`]). [`certify`] begins an identity whose
//! renewals another one pays for.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use enclasp_identity::{Identity, Store};
use enclasp_keystore::{Key, KeySpec, KeyUri, Keystore, Origin, SignContext};
use enclasp_pki::{Certificate, create_csr, rfc3339};
use enclasp_tls::Credential;
use rustls_pki_types::CertificateDer;

use crate::enrolment::{Enrolment, blocking, checked_chain, same_names};
use crate::pending::{Pending, of_rekey};
use crate::trust::{parsed, with_successors};
use crate::{Client, Endpoint, Error, Result, Trust};

/// An identity whose certificate pays for that of another, and its key.
pub struct Sponsor {
    /// Which authority, and which names.
    pub identity: Identity,
    /// What authenticates to the authority.
    pub key: Arc<dyn Key>,
}

/// Makes an identity with the names of the `sponsor`, whose certificate authenticates the request for
/// it, in place of a token, and for its renewals. So a server whose key in hardware is slow has
/// short-lived certificates for a key in software. A call that was interrupted is made again.
///
/// # Errors
/// [`Error::IdentityExists`]; as [`renew`].
pub async fn certify(sponsor: Sponsor, enrolment: &Enrolment) -> Result<Identity> {
    let renewal = Renewal::of(&sponsor.identity, None)?;
    let key: Arc<dyn Key> = blocking({
        let enrolment = enrolment.clone();
        move || Ok(Arc::from(enrolment.new_key()?.0))
    })
    .await?;
    let Certified { chain, roots } = renewal.certify(&key, sponsor.key).await?;
    let identity = Identity {
        name: enrolment.identity.clone(),
        key: key.info().uri.clone(),
        chain,
        roots,
        software: key.info().origin == Origin::Imported,
        updated: SystemTime::now(),
        retired: None,
        certified_by: Some(sponsor.identity.name.clone()),
        ..sponsor.identity
    };
    enrolment.store.add(&identity)?;
    Ok(identity)
}

/// Gets a new certificate for `identity` from the authority that issued the present one, over a
/// connection that the present one authenticates, or that of its sponsor
/// ([`Identity::certified_by`]), and stores it in place of the old. `key` is the identity's key, and
/// stays it.
///
/// # Errors
/// [`Error::NotRenewable`] if no authority is known, or if the present certificate has expired and the authority
/// takes it no more; what
/// the key, the connection and the authority say; [`Error::WrongCertificate`]. The identity then
/// stays as it was.
pub async fn renew(
    identity: &Identity,
    key: Arc<dyn Key>,
    sponsor: Option<Sponsor>,
    store: &Store,
) -> Result<Identity> {
    let renewal = Renewal::of(identity, sponsor.as_ref())?;
    let paying = sponsor.map_or_else(|| key.clone(), |sponsor| sponsor.key);
    let Certified { chain, roots } = renewal.certify(&key, paying).await?;
    let renewed = Identity { chain, roots, updated: SystemTime::now(), ..identity.clone() };
    store.put(&renewed)?;
    Ok(renewed)
}

/// The same with a new key of the old one's type and policy, made in `keystore`, which holds the
/// old one. The old key is kept, as [`Identity::retired`], until [`retire`] is called.
///
/// The new key and its request are recorded in the folder `pending` before anything is sent. If
/// this process ends at any moment, the identity is the old or the new one, with its key, and the
/// same call goes on where it stopped.
///
/// # Errors
/// As [`renew`]. A new key that has no certificate yet is used by the next call.
pub async fn rekey(
    identity: &Identity,
    keystore: Arc<dyn Keystore>,
    sponsor: Option<Sponsor>,
    store: &Store,
    pending: &Path,
) -> Result<Identity> {
    let renewal = Renewal::of(identity, sponsor.as_ref())?;
    let name = of_rekey(&identity.name);
    let (old, new, csr) = blocking({
        let (keystore, name) = (keystore.clone(), name.clone());
        let (renewal, identity, pending) = (renewal.clone(), identity.clone(), pending.to_owned());
        move || {
            let old: Arc<dyn Key> = Arc::from(keystore.open(&identity.key)?);
            // One of another identity that had this name, or of a certificate that was renewed since,
            // asks for other names or is of no use any more.
            let replaces = Some(renewal.old.fingerprint_hex());
            let begun = Pending::read(&pending, &name)?
                .filter(|begun| begun.key != identity.key && begun.replaces == replaces);
            if let Some(begun) = begun {
                return Ok((old, keystore.open(&begun.key)?, begun.csr));
            }
            let uri = identity.key.successor();
            let spec = KeySpec {
                uri: uri.clone(),
                algorithm: old.info().algorithm,
                policy: old.info().policy,
                access: old.info().access.clone(),
            };
            let new = keystore.open_or_create(&spec)?;
            let csr = renewal.request(&*new)?;
            let begun =
                Pending { identity: identity.name.clone(), key: uri, csr: csr.clone(), made: true, replaces };
            begun.write(&pending, &name)?;
            Ok((old, new, csr))
        }
    })
    .await?;
    let paying = sponsor.map_or(old, |sponsor| sponsor.key);
    let Certified { chain, roots } = renewal.exchange(&csr, paying, &new.info().spki).await?;
    // The present identity was used, so the rekey before this one ends here.
    if let Some(retired) = identity.retired.clone() {
        blocking(move || delete(&*keystore, &retired)).await?;
    }
    let renewed = Identity {
        key: new.info().uri.clone(),
        chain,
        roots,
        updated: SystemTime::now(),
        retired: Some(identity.key.clone()),
        ..identity.clone()
    };
    store.put(&renewed)?;
    Pending::remove(pending, &name)?;
    Ok(renewed)
}

/// A chain with the names of `identity` for the software key `key`, to compare the identity's key with. The
/// authority issues it for minutes if the profile allows it, and marks it. `hardware` is the identity's own
/// credential, which authenticates the request.
///
/// # Errors
/// As [`renew`].
pub async fn bisect(
    identity: &Identity,
    hardware: &Credential,
    key: Arc<dyn Key>,
) -> Result<Vec<CertificateDer<'static>>> {
    let renewal = Renewal::of(identity, None)?;
    let csr = renewal.request(&*key)?;
    let client = renewal.client()?;
    let issued = client.bisect(&csr, hardware).await?;
    Ok(renewal.checked(&client, &issued, &key.info().spki).await?.chain)
}

/// Deletes the key that a rekey put out of service, once the new one has proved itself.
///
/// # Errors
/// What the keystore says, but for a key that is gone already.
pub fn retire(identity: &Identity, keystore: &dyn Keystore, store: &Store) -> Result<()> {
    let Some(retired) = &identity.retired else { return Ok(()) };
    delete(keystore, retired)?;
    Ok(store.put(&Identity { retired: None, ..identity.clone() })?)
}

/// Forgets the rekey of `identity` that is under way, if there is one, and returns the key that was
/// made for it.
///
/// # Errors
/// [`Error::Keystore`] with what the file system said; [`Error::Pending`].
pub fn forget_rekey(identity: &str, pending: &Path) -> Result<Option<KeyUri>> {
    let name = of_rekey(identity);
    let begun = Pending::read(pending, &name)?;
    Pending::remove(pending, &name)?;
    Ok(begun.map(|begun| begun.key))
}

fn delete(keystore: &dyn Keystore, key: &KeyUri) -> Result<()> {
    match keystore.delete(key) {
        Ok(()) | Err(enclasp_keystore::Error::Absent { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What a renewal yields.
struct Certified {
    chain: Vec<CertificateDer<'static>>,
    /// Those of before, and new ones that they vouch for.
    roots: Vec<CertificateDer<'static>>,
}

/// What a renewal takes over from the identity, and from who pays for it.
#[derive(Clone)]
struct Renewal {
    /// The name of the identity that authenticates, and when its certificate ends.
    payer: String,
    end: SystemTime,
    /// Whose names.
    old: Certificate,
    /// What authenticates.
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    endpoint: Endpoint,
}

impl Renewal {
    fn of(identity: &Identity, sponsor: Option<&Sponsor>) -> Result<Self> {
        let paying = sponsor.map_or(identity, |sponsor| &sponsor.identity);
        let not_renewable =
            |reason: &str| Error::NotRenewable { identity: paying.name.clone(), reason: reason.to_owned() };
        let authority = identity.authority.as_ref().ok_or_else(|| not_renewable("it was imported"))?;
        Ok(Self {
            payer: paying.name.clone(),
            end: paying.leaf()?.not_after(),
            old: identity.leaf()?,
            chain: paying.chain.clone(),
            roots: identity.roots.clone(),
            endpoint: authority.parse()?,
        })
    }

    /// A new chain for `key`, to which `paying` authenticates.
    async fn certify(&self, key: &Arc<dyn Key>, paying: Arc<dyn Key>) -> Result<Certified> {
        let csr = blocking({
            let (renewal, key) = (self.clone(), key.clone());
            move || renewal.request(&*key)
        })
        .await?;
        self.exchange(&csr, paying, &key.info().spki).await
    }

    /// The old certificate's names, for `key`. Blocks as long as the key takes.
    fn request(&self, key: &dyn Key) -> Result<Vec<u8>> {
        let ctx =
            SignContext::new(format!("certificate request for {} to {}", self.old.name(), self.endpoint));
        Ok(create_csr(key, self.old.subject(), self.old.subject_alt_names(), &ctx)?)
    }

    /// Sends the request, authenticated with the certificate that pays for it and its key, and checks
    /// what comes back to be for `spki` and for the old names.
    async fn exchange(&self, csr: &[u8], paying: Arc<dyn Key>, spki: &[u8]) -> Result<Certified> {
        let credential = Credential::new(self.chain.clone(), paying)?;
        let client = self.client()?;
        // An authority may take an expired certificate for a while.
        let issued = client.simplereenroll(csr, &credential).await.map_err(|error| match error {
            Error::Handshake { .. } | Error::Tls(_) | Error::Interrupted { .. } | Error::Refused { .. }
                if self.end < SystemTime::now() =>
            {
                let at = rfc3339(self.end);
                let reason =
                    format!("its certificate expired at {at}, and the authority does not take it any more");
                Error::NotRenewable { identity: self.payer.clone(), reason }
            }
            other => other,
        })?;
        self.checked(&client, &issued, spki).await
    }

    fn client(&self) -> Result<Client> {
        Client::new(self.endpoint.clone(), Trust::Roots(self.roots.clone()))
    }

    /// The chain of what was issued, if it is for `spki` and for the old names.
    async fn checked(&self, client: &Client, issued: &[Certificate], spki: &[u8]) -> Result<Certified> {
        let authorities = client.cacerts().await?;
        let wrong = |reason: String| Error::WrongCertificate { url: self.endpoint.to_string(), reason };
        let leaf = issued.iter().find(|certificate| certificate.spki() == spki);
        let leaf = leaf.ok_or_else(|| wrong("it is not for the key of the request".into()))?;
        if leaf.subject() != self.old.subject()
            || !same_names(leaf, self.old.subject_alt_names().iter().map(ToString::to_string))
        {
            return Err(wrong(format!("it is for {}", leaf.describe())));
        }
        let roots = with_successors(&parsed(&self.roots)?, &authorities);
        let chain = checked_chain(leaf, &authorities, &roots).map_err(wrong)?;
        let ders = |all: &[Certificate]| all.iter().map(|one| one.der().clone()).collect();
        Ok(Certified { chain: ders(&chain), roots: ders(&roots) })
    }
}
