//! The authority as its operator sees it: a folder.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use enclasp_enroll::{Token, TokenContents, duration, subject_of};
use enclasp_keystore::{KeyUri, Keystore, durable};
use enclasp_pki::{
    Certificate, CertificationRequest, DistinguishedName, RevocationReason, Revoked, SubjectAltName,
};
use rustls_pki_types::CertificateDer;

use crate::hierarchy::Hierarchy;
use crate::issuance::{Issuance, Wanted};
use crate::store::{Location, Shared, Store, TokenRecord};
use crate::{Config, DatabaseUrl, Error, Filter, IssuedBy, Record, Result, rotation};

/// The files in the folder of an authority.
pub(crate) const CONFIG: &str = "authority.toml";
pub(crate) const ROOT: &str = "root.pem";
pub(crate) const ISSUING: &str = "issuing.pem";
pub(crate) const SERVER: &str = "server.pem";
pub(crate) const DATABASE: &str = "authority.db";

/// The longest lifetime of a token.
const MAX_TOKEN_LIFETIME: Duration = Duration::from_secs(90 * 86_400);

/// An authority: its settings, certificates and records, without its keys. Several processes may
/// have the same one open, as `ca serve` and `ca token` do.
#[derive(Clone, Debug)]
pub struct Authority {
    folder: PathBuf,
    config: Config,
    hierarchy: Hierarchy,
    location: Location,
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
    /// Opens the authority in `folder`, whose records are where its settings say.
    ///
    /// # Errors
    /// [`Error::Absent`]; [`Error::Config`] if a file cannot be read or does not fit the others;
    /// [`Error::Database`], [`Error::NewerDatabase`], [`Error::OtherAuthority`].
    pub async fn open(folder: &Path) -> Result<Self> {
        Self::open_with(folder, None).await
    }

    /// The same with the records in `database`, if one is given, whatever the settings say.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(folder: &Path, database: Option<&DatabaseUrl>) -> Result<Self> {
        let config = Config::read(&folder.join(CONFIG))?
            .ok_or_else(|| Error::Absent { dir: folder.display().to_string() })?;
        rotation::tidy(folder, &config)?;
        let hierarchy = Hierarchy::read(folder, &config)?;
        let location = match database.or(config.database.as_ref()) {
            Some(url) => Location::Postgres(url.clone()),
            None => Location::Sqlite(folder.join(DATABASE)),
        };
        let store = Store::open(&location, &hierarchy.issuing.fingerprint_hex()).await?;
        let authority = Self { folder: folder.to_owned(), config, hierarchy, location, store };
        authority.belongs().await?;
        Ok(authority)
    }

    /// Sees to it that the database is of this authority, and lists it as an issuer.
    async fn belongs(&self) -> Result<()> {
        if let Some(shared) = self.store.shared().await? {
            // The root may have changed, here or at another replica.
            if shared.root != *self.root() && !self.store.published().await?.contains(self.root()) {
                return Err(Error::OtherAuthority {
                    database: self.database(),
                    root: shared.root.fingerprint_hex(),
                });
            }
            if self.store.issuers().await?.contains(self.issuing()) {
                return Ok(());
            }
        } else if let Location::Postgres(url) = &self.location {
            let file = self.path(DATABASE);
            if file.exists() && !Store::open(&Location::Sqlite(file.clone()), "").await?.is_unused().await? {
                let records = file.display().to_string();
                return Err(Error::NotMoved { database: url.to_string(), records });
            }
        }
        let shared = Shared { root: self.root().clone(), settings: self.config.shared().to_toml()? };
        self.store.found(&shared, self.issuing(), SystemTime::now()).await
    }

    /// Moves the records from SQLite to `database`, which must be empty or of this authority, and
    /// notes there in the settings where they are. From the first moment on nobody can write to
    /// the old database: a server that still uses it refuses requests, which can be repeated, until it is
    /// started again. If anything fails, the same call goes on. Returns how many certificates there
    /// are.
    ///
    /// # Errors
    /// [`Error::Moved`], [`Error::OtherAuthority`], [`Error::Database`], [`Error::Config`].
    pub async fn move_to(&self, database: &DatabaseUrl) -> Result<u64> {
        if let Location::Postgres(url) = &self.location {
            return Err(Error::Moved { database: url.to_string() });
        }
        let target =
            Store::open(&Location::Postgres(database.clone()), &self.issuing().fingerprint_hex()).await?;
        if let Some(shared) = target.shared().await?.filter(|shared| shared.root != *self.root()) {
            let root = shared.root.fingerprint_hex();
            return Err(Error::OtherAuthority { database: database.to_string(), root });
        }
        self.store.fence().await?;
        let count = self.store.copy_snapshot_to(&target).await?;
        target.close().await;
        // A password in the settings would be one more place to keep it.
        let config = Config { database: Some(database.without_password()), ..self.config.clone() };
        durable::replace(&self.path(CONFIG), config.to_toml()?.as_bytes())?;
        Ok(count)
    }

    /// Where its records are, as people call it.
    pub fn database(&self) -> String {
        match &self.location {
            Location::Sqlite(path) => path.display().to_string(),
            Location::Postgres(url) => url.to_string(),
        }
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The root certificate, whose fingerprint tokens carry.
    pub fn root(&self) -> &Certificate {
        &self.hierarchy.root
    }

    /// The certificate that signs those of devices.
    pub fn issuing(&self) -> &Certificate {
        &self.hierarchy.issuing
    }

    /// All CA certificates that are good: this replica's chain, the issuing certificates of the others and of before,
    /// and while one root follows on another, both, and what vouches for either (RFC 7030 §4.1.3). In that order,
    /// somebody who takes the first issuer that fits finds the way to the oldest root.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn authorities(&self) -> Result<Vec<CertificateDer<'static>>> {
        let mut all = self.hierarchy.chain();
        all.extend(self.store.issuers().await?);
        let (roots, vouching): (Vec<_>, Vec<_>) =
            self.store.published().await?.into_iter().partition(Certificate::is_self_issued);
        all.extend(roots);
        all.extend(vouching);
        all.extend(self.store.shared().await?.map(|shared| shared.root));
        let (now, mut known) = (SystemTime::now(), HashSet::new());
        all.retain(|one| one.not_after() > now && known.insert(one.fingerprint()));
        Ok(all.iter().map(|one| one.der().clone()).collect())
    }

    /// The CA certificates, from the issuing one up to the root.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.hierarchy.chain().iter().map(|one| one.der().clone()).collect()
    }

    /// What a server of this authority sends after its certificate: the chain, and the roots of before, which are all
    /// that older tokens know.
    pub(crate) async fn chain_for_devices(&self) -> Result<Vec<CertificateDer<'static>>> {
        let mut chain = self.chain();
        let now = SystemTime::now();
        let published = self.store.published().await?;
        let old = published.iter().filter(|one| one.is_self_issued() && one.not_after() > now);
        chain.extend(old.filter(|one| *one != self.root()).map(|one| one.der().clone()));
        Ok(chain)
    }

    /// The certificates that peers of a device need: from the issuing one upwards, without the root.
    pub fn intermediates(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(self.issuing()).chain(&self.hierarchy.above)
    }

    /// All issuers that are known, of replicas and of before, the oldest first.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn issuers(&self) -> Result<Vec<Certificate>> {
        self.store.issuers().await
    }

    /// The issuing certificates of before that have something to answer for, and their keys.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn former_issuers(&self) -> Result<Vec<(Certificate, KeyUri)>> {
        let (issuers, now) = (self.store.issuers().await?, SystemTime::now());
        let mut former = Vec::new();
        for one in &self.config.former_issuers {
            let issuer = issuers.iter().find(|issuer| issuer.fingerprint_hex() == one.sha256);
            if let Some(issuer) = issuer
                && issuer.not_after() > now
                && self.store.is_in_use(&one.sha256, now).await?
            {
                former.push((issuer.clone(), one.key.clone()));
            }
        }
        Ok(former)
    }

    /// Checks that the issuing CA and those above it may certify these names.
    ///
    /// # Errors
    /// [`Error::Constrained`].
    pub(crate) fn check_constraints(
        &self,
        subject: &DistinguishedName,
        names: &[SubjectAltName],
    ) -> Result<()> {
        self.hierarchy.check(subject, names)
    }

    /// Makes a one-time token and records it; a running server knows it at once.
    ///
    /// # Errors
    /// [`Error::Setting`] if the lifetime is out of its range; [`Error::NoProfile`], [`Error::NotAllowed`];
    /// [`Error::Pki`] if a name is not good; [`Error::Enroll`] if the names make the token too long.
    pub async fn token(&self, request: TokenRequest) -> Result<Token> {
        self.check_token(&request)?;
        let now = SystemTime::now();
        let token = Token::generate(TokenContents {
            authority: self.config.url.clone(),
            root: self.root().fingerprint(),
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

    /// Whether such a token can be made.
    ///
    /// # Errors
    /// As [`token`](Self::token).
    pub(crate) fn check_token(&self, request: &TokenRequest) -> Result<()> {
        if request.lifetime < Duration::from_secs(1) || request.lifetime > MAX_TOKEN_LIFETIME {
            return Err(Error::Setting {
                what: "the lifetime of a token",
                value: duration::format(request.lifetime),
                reason: format!("it is between 1s and {}", duration::format(MAX_TOKEN_LIFETIME)),
            });
        }
        self.config.profile(&request.profile)?.check_names(&request.subject_alt_names)?;
        self.check_constraints(&subject_of(&request.common_name)?, &request.subject_alt_names)
    }

    /// Issues a certificate for a request by hand, and records it. Subject, alternative names and
    /// key are those of the request, in PEM or DER; whether its sender may have them is the
    /// caller's decision. A lifetime over the profile's maximum is refused.
    ///
    /// # Errors
    /// [`Error::Pki`] if the request is not good; [`Error::Setting`] for the lifetime; [`Error::NoProfile`],
    /// [`Error::NotAllowed`]; what the keystore says.
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
        let longest = profile.certificate.max_lifetime;
        if let Some(lifetime) = lifetime.filter(|lifetime| *lifetime > longest) {
            return Err(Error::Setting {
                what: "the lifetime of a certificate",
                value: duration::format(lifetime),
                reason: format!("the profile {} allows {}", profile.name(), duration::format(longest)),
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

    /// What was issued, by whichever replica, in the order of issuance: the first `limit` that
    /// follow on `after`.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn certificates(
        &self,
        filter: &Filter,
        after: Option<&Record>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        self.store.certificates(filter, after, limit).await
    }

    /// Revokes the certificate of that serial number (hexadecimal, with colons or without), or all
    /// valid ones whose subject is `what` or has it as its common name. Whoever asks for their
    /// CRL or OCSP answer learns it within a second or two; they are renewed no more. Returns
    /// them, with those that were revoked before.
    ///
    /// # Errors
    /// [`Error::NotIssued`], [`Error::Database`].
    pub async fn revoke(&self, what: &str, reason: RevocationReason) -> Result<Vec<Record>> {
        let (at, mut revoked) = (SystemTime::now(), Vec::<Record>::new());
        // A renewal that was under way leaves one more certificate.
        loop {
            let mut found = self.named(what, at).await?;
            found.retain(|record| !revoked.iter().any(|known| known.serial == record.serial));
            if found.is_empty() {
                break;
            }
            for mut record in found {
                let revocation = Revoked { serial: record.serial.clone(), at, reason };
                if record.revoked.is_none() && self.store.revoke(&revocation).await? {
                    tracing::info!(serial = %record.serial, subject = %record.subject, %reason, "revoked");
                    record.revoked = Some(revocation);
                }
                revoked.push(record);
            }
        }
        if revoked.is_empty() {
            return Err(Error::NotIssued { what: what.to_owned() });
        }
        Ok(revoked)
    }

    /// The certificate of that serial number, or the valid ones of that subject or common name.
    async fn named(&self, what: &str, now: SystemTime) -> Result<Vec<Record>> {
        let serial = what.replace(':', "").to_lowercase();
        let serial = if serial.len().is_multiple_of(2) { serial } else { format!("0{serial}") };
        if let Some(record) = self.store.certificate(&serial).await? {
            return Ok(vec![record]);
        }
        let mut found = self.store.certificates_of(what, now).await?;
        if let Ok(subject) = subject_of(what) {
            found.extend(self.store.certificates_of(&subject.to_string(), now).await?);
        }
        Ok(found)
    }

    /// The same authority, whose audit log says that `operator` does what is done by this handle, in place of
    /// this process's user.
    #[must_use]
    pub fn operated_by(&self, operator: &str) -> Self {
        Self { store: self.store.operated_by(operator.to_owned()), ..self.clone() }
    }

    /// Writes what this process appends to the audit log from now on to `file`, too: lines of JSON as
    /// [`export_audit`](Self::export_audit) gives them, each after its record is committed. If that fails, the log
    /// of the process says so, and the record stays.
    pub fn mirror_audit(&self, file: File) {
        self.store.mirror_audit(file);
    }

    /// Closes the database. Dropping the authority does so too, but does not wait for it.
    pub async fn close(&self) {
        self.store.close().await;
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }
}
