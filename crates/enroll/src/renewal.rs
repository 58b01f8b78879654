//! Renewal: a new certificate for the same key and names, paid for with the old certificate.

use std::sync::Arc;
use std::time::SystemTime;

use enclasp_identity::{Identity, Store};
use enclasp_keystore::{Key, SignContext};
use enclasp_pki::{Purpose, create_csr};
use enclasp_tls::Credential;

use crate::enrolment::{blocking, checked_chain, same_names};
use crate::trust::parsed;
use crate::{Client, Endpoint, Error, Result, Trust};

/// Gets a new certificate for `identity` from the authority that issued the present one, over a
/// connection that the present one authenticates, and stores it in place of the old (RFC 7030
/// §4.2.2). `key` is the identity's key.
///
/// # Errors
/// [`Error::NotRenewable`] if no authority is known, or if the present certificate has expired or is
/// not for clients; what the key, the connection and the authority
/// say; [`Error::WrongCertificate`]. The identity then stays as it was.
pub async fn renew(identity: &Identity, key: Arc<dyn Key>, store: &Store) -> Result<Identity> {
    let not_renewable =
        |reason: &str| Error::NotRenewable { identity: identity.name.clone(), reason: reason.to_owned() };
    let authority = identity.authority.as_ref().ok_or_else(|| not_renewable("it was imported"))?;
    let endpoint: Endpoint = authority.parse()?;
    let roots = parsed(&identity.roots)?;
    let old = identity.leaf()?;
    if old.not_after() < SystemTime::now() {
        return Err(not_renewable("its certificate has expired, and cannot authenticate the renewal"));
    }
    if !old.is_for(Purpose::Client) {
        return Err(not_renewable("its certificate is not for clients, and cannot authenticate the renewal"));
    }
    let csr = blocking({
        let (old, key) = (old.clone(), key.clone());
        let ctx = SignContext::new(format!("certificate request for {} to {endpoint}", old.name()));
        move || Ok(create_csr(&*key, old.subject(), old.subject_alt_names(), &ctx)?)
    })
    .await?;
    let credential = Credential::new(identity.chain.clone(), key)?;
    let client = Client::new(endpoint, Trust::Roots(identity.roots.clone()))?;
    let issued = client.simplereenroll(&csr, &credential).await?;
    let authorities = client.cacerts().await?;
    let wrong = |reason: String| Error::WrongCertificate { url: authority.clone(), reason };
    let leaf = issued
        .iter()
        .find(|certificate| certificate.spki() == old.spki())
        .ok_or_else(|| wrong(format!("it is not for the key `{}`", identity.key)))?;
    if leaf.subject() != old.subject()
        || !same_names(leaf, old.subject_alt_names().iter().map(ToString::to_string))
    {
        return Err(wrong(format!("it is for {}", leaf.describe())));
    }
    let chain = checked_chain(leaf, &authorities, &roots).map_err(wrong)?;
    let renewed = Identity {
        chain: chain.iter().map(|certificate| certificate.der().clone()).collect(),
        updated: SystemTime::now(),
        ..identity.clone()
    };
    store.put(&renewed)?;
    Ok(renewed)
}
