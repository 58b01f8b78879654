//! The authority as its operator sees it: a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use enclasp_enroll::{Token, TokenContents, duration, subject_of};
use enclasp_keystore::{Keystore, durable};
use enclasp_pki::{Certificate, CertificationRequest, SubjectAltName};
use rustls_pki_types::CertificateDer;

use crate::issuance::{Issuance, Wanted};
use crate::store::{Store, TokenRecord};
use crate::{Config, Error, Filter, IssuedBy, Record, Result};

/// The files in the folder of an authority.
pub(crate) const CONFIG: &str = "authority.toml";
pub(crate) const ROOT: &str = "root.pem";
pub(crate) const ISSUING: &str = "issuing.pem";
pub(crate) const SERVER: &str = "server.pem";
const DATABASE: &str = "authority.db";

/// The longest certificate file that is read, in bytes.
const MAX_CERTIFICATE: u64 = 1024 * 1024;

/// The longest lifetime of a token.
const MAX_TOKEN_LIFETIME: Duration = Duration::from_secs(90 * 86_400);

/// An authority: its settings, certificates and records, without its keys. Several processes may
/// have the same one open, as `ca serve` and `ca token` do.
#[derive(Clone, Debug)]
pub struct Authority {
    folder: PathBuf,
    config: Config,
    root: Certificate,
    issuing: Certificate,
    store: Store,
}

/// What a token shall be good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The common name of the certificate to be.
    pub common_name: String,
    /// Its alternative names.
    pub subject_alt_names: Vec<SubjectAltName>,
    /// The profile that it will be issued under.
    pub profile: String,
    /// How long the token is good: a second to 90 days.
    pub lifetime: Duration,
}

impl Authority {
    /// Opens the authority in `folder`.
    ///
    /// # Errors
    /// [`Error::Absent`]; [`Error::Config`] if a file cannot be read or does not fit the others;
    /// [`Error::Database`], [`Error::NewerDatabase`].
    pub async fn open(folder: &Path) -> Result<Self> {
        let config = Config::read(&folder.join(CONFIG))?
            .ok_or_else(|| Error::Absent { dir: folder.display().to_string() })?;
        let root = certificate(&folder.join(ROOT))?;
        let issuing = certificate(&folder.join(ISSUING))?;
        issuing.verify_signed_by(&root).map_err(|e| Error::Config {
            path: folder.join(ISSUING).display().to_string(),
            reason: format!("it was not issued by {ROOT}: {e}"),
        })?;
        let store = Store::open(&folder.join(DATABASE)).await?;
        Ok(Self { folder: folder.to_owned(), config, root, issuing, store })
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The root certificate, whose fingerprint tokens carry.
    pub fn root(&self) -> &Certificate {
        &self.root
    }

    /// The certificate that signs those of devices.
    pub fn issuing(&self) -> &Certificate {
        &self.issuing
    }

    /// The CA certificates, from the issuing one up to the root.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.issuing.der().clone(), self.root.der().clone()]
    }

    /// Makes a one-time token and records it; a running server knows it at once.
    ///
    /// # Errors
    /// [`Error::Setting`] if the lifetime is out of its range; [`Error::Pki`] if a name or the
    /// profile is not good; [`Error::Enroll`] if the names make the token too long.
    pub async fn token(&self, request: TokenRequest) -> Result<Token> {
        let now = SystemTime::now();
        if request.lifetime < Duration::from_secs(1) || request.lifetime > MAX_TOKEN_LIFETIME {
            return Err(Error::Setting {
                what: "the lifetime of a token",
                value: duration::format(request.lifetime),
                reason: format!("it is between 1s and {}", duration::format(MAX_TOKEN_LIFETIME)),
            });
        }
        self.config.profile(&request.profile)?;
        subject_of(&request.common_name)?;
        let token = Token::generate(TokenContents {
            authority: self.config.url.clone(),
            root: self.root.fingerprint(),
            common_name: request.common_name.clone(),
            subject_alt_names: request.subject_alt_names.clone(),
            expires: now + request.lifetime,
        })?;
        let record = TokenRecord {
            id: token.id(),
            secret_hash: token.secret().hash().to_vec(),
            common_name: request.common_name,
            subject_alt_names: request.subject_alt_names,
            profile: request.profile,
            expires: token.contents().expires,
        };
        self.store.add_token(&record, now).await?;
        Ok(token)
    }

    /// Issues a certificate for a request by hand, and records it. Subject, alternative names and
    /// key are those of the request, in PEM or DER; whether its sender may have them is the
    /// caller's decision. A lifetime over the profile's maximum is refused.
    ///
    /// # Errors
    /// [`Error::Pki`] if the request is not good; [`Error::Setting`] for the lifetime; what the
    /// keystore says.
    pub async fn sign(
        &self,
        keystore: Arc<dyn Keystore>,
        request: &[u8],
        profile: &str,
        lifetime: Option<Duration>,
    ) -> Result<Record> {
        let request = CertificationRequest::from_pem_or_der(request)?;
        request.verify()?;
        let profile = self.config.profile(profile)?;
        if let Some(lifetime) = lifetime.filter(|lifetime| *lifetime > profile.max_lifetime) {
            return Err(Error::Setting {
                what: "the lifetime of a certificate",
                value: duration::format(lifetime),
                reason: format!(
                    "the profile {} allows {}",
                    profile.name,
                    duration::format(profile.max_lifetime)
                ),
            });
        }
        let wanted = Wanted {
            profile,
            subject: request.subject().clone(),
            subject_alt_names: request.subject_alt_names().to_vec(),
            spki: request.spki().to_vec(),
            lifetime,
            issued_by: IssuedBy::Hand,
        };
        let issuance = Issuance::open(self.clone(), keystore).await?;
        issuance.issue_and_record(wanted).await
    }

    /// What was issued, the oldest second first.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn certificates(&self, filter: &Filter) -> Result<Vec<Record>> {
        let mut records = self.store.certificates().await?;
        records.retain(|record| filter.admits(record));
        Ok(records)
    }

    /// Closes the database. Dropping the authority does so too, but does not wait for it.
    pub async fn close(&self) {
        self.store.close().await;
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }
}

fn certificate(path: &Path) -> Result<Certificate> {
    let error = |reason: String| Error::Config { path: path.display().to_string(), reason };
    let bytes = durable::read(path, MAX_CERTIFICATE)?.ok_or_else(|| error("it is missing".into()))?;
    let certificates = enclasp_pki::certificates_from(&bytes).map_err(|e| error(e.to_string()))?;
    certificates.into_iter().next().ok_or_else(|| error("it holds no certificate".into()))
}
