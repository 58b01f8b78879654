//! The certificate that the authority's own server presents.

use std::sync::Arc;
use std::time::SystemTime;

use enclasp_enroll::schedule::due;
use enclasp_enroll::{Endpoint, subject_of};
use enclasp_keystore::{Key, Keystore, durable};
use enclasp_pki::{Certificate, SubjectAltName};
use enclasp_tls::{Access, Clients, Credential, Options, Revocation};

use crate::authority::SERVER;
use crate::issuance::{Issuance, Wanted, blocking};
use crate::{Authority, Error, IssuedBy, Result};

/// The profile that it is issued under.
const PROFILE: &str = "server";

/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// What keeps the server's certificate fresh.
pub(crate) struct OwnCertificate {
    issuance: Arc<Issuance>,
    key: Arc<dyn Key>,
}

impl OwnCertificate {
    /// Opens the server's key.
    pub(crate) async fn open(issuance: Arc<Issuance>, keystore: Arc<dyn Keystore>) -> Result<Self> {
        let uri = issuance.authority().config().server_key.clone();
        let key = Arc::from(blocking(move || Ok(keystore.open(&uri)?)).await?);
        Ok(Self { issuance, key })
    }

    /// What issues it.
    pub(crate) fn issuance(&self) -> Arc<Issuance> {
        self.issuance.clone()
    }

    /// Whose it is.
    pub(crate) fn authority(&self) -> &Authority {
        self.issuance.authority()
    }

    /// The TLS server with a certificate that is not due, a new one if need be; and when it will be
    /// due, which is at about two thirds of its life.
    pub(crate) async fn fresh(&self) -> Result<(enclasp_tls::Server, SystemTime)> {
        let leaf = match self.stored()? {
            Some(leaf) => leaf,
            None => self.renew().await?,
        };
        let authority = self.issuance.authority();
        let mut chain = authority.chain_for_devices().await?;
        // A device that knows only the root's fingerprint needs the root itself.
        chain.insert(0, leaf.der().clone());
        let credential = Credential::new(chain, self.key.clone())?;
        let clients = Clients {
            // The issuing certificates too, for clients that send a leaf alone.
            roots: authority.authorities().await?,
            certificate_demanded: false,
            server_certificates: true,
            access: Access::everyone(),
            revocation: Revocation::default(),
        };
        let grace = authority.config().longest_grace();
        let server = enclasp_tls::Server::with_grace(credential, clients, Options::default(), grace)?;
        Ok((server, due(&leaf)))
    }

    /// The stored certificate, unless it is due or for another key, host or issuer.
    fn stored(&self) -> Result<Option<Certificate>> {
        let authority = self.issuance.authority();
        let Some(bytes) = durable::read(&authority.path(SERVER), MAX_FILE)? else {
            return Ok(None);
        };
        let certificates = enclasp_pki::certificates_from(&bytes).unwrap_or_default();
        let names = names(&authority.config().url)?;
        Ok(certificates.into_iter().next().filter(|leaf| {
            due(leaf) > SystemTime::now()
                && leaf.spki() == self.key.info().spki
                && leaf.subject_alt_names() == names
                && leaf.verify_signed_by(authority.issuing()).is_ok()
        }))
    }

    async fn renew(&self) -> Result<Certificate> {
        let authority = self.issuance.authority();
        let config = authority.config();
        let wanted = Wanted {
            profile: config.profile(PROFILE)?,
            subject: subject_of(&format!("{} CA server", config.name))?,
            subject_alt_names: names(&config.url)?,
            spki: self.key.info().spki.clone(),
            lifetime: None,
            issued_by: IssuedBy::Server,
        };
        let leaf = self.issuance.issue_and_record(wanted).await?.certificate()?;
        durable::replace(&authority.path(SERVER), leaf.to_pem().as_bytes())?;
        Ok(leaf)
    }
}

/// The names that devices call the server by: the URL's host and, if that is this machine, all
/// names of the loopback.
pub(crate) fn names(url: &Endpoint) -> Result<Vec<SubjectAltName>> {
    let name = |host: &str| {
        let kind = if host.parse::<std::net::IpAddr>().is_ok() { "ip" } else { "dns" };
        format!("{kind}:{host}").parse::<SubjectAltName>().map_err(Error::from)
    };
    let mut names = vec![name(url.host())?];
    let loopback = ["localhost", "127.0.0.1", "::1"];
    if loopback.contains(&url.host()) {
        for other in loopback {
            let other = name(other)?;
            if !names.contains(&other) {
                names.push(other);
            }
        }
    }
    Ok(names)
}
