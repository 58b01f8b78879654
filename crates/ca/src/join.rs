//! Further replicas: each joins with an issuing key of its own, which the root's key certifies.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use enclasp_enroll::subject_of;
use enclasp_keystore::{KeyUri, Keystore, SignContext, durable};
use enclasp_pki::{
    Certificate, DEFAULT_INTERMEDIATE_LIFETIME, DistinguishedName, Intermediate, Issuer, hex, sha256,
};

use crate::authority::{CONFIG, ISSUING, ROOT};
use crate::config::SharedSettings;
use crate::hierarchy::Hierarchy;
use crate::init::{Keys, key_stem, lock};
use crate::issuance::blocking;
use crate::rotation::{request, vouches_for};
use crate::store::{Location, Store};
use crate::{Authority, Config, DatabaseUrl, Error, Result};

/// The settings of a replica that is not admitted yet.
const JOINING: &str = "joining.toml";

/// How long the root's key may take to sign.
const SIGN_TIMEOUT: Duration = Duration::from_secs(60);

/// A replica that has asked to join, and waits.
#[derive(Debug)]
pub struct NewReplica {
    folder: std::path::PathBuf,
    config: Config,
    store: Store,
    id: String,
    root: Certificate,
}

/// Asks to join the authority whose records are in `database`, from the new folder `folder`: makes
/// its keys, those for issuing and for the audit log in `place`, and leaves a request in the database. The same
/// call on the same folder goes on with the same keys.
///
/// # Errors
/// [`Error::Exists`], [`Error::EmptyDatabase`], [`Error::Database`]; what the keystore says.
pub async fn ask_to_join(
    folder: &Path,
    database: &DatabaseUrl,
    place: Option<KeyUri>,
    keystore: Arc<dyn Keystore>,
) -> Result<NewReplica> {
    let store = Store::open(&Location::Postgres(database.clone()), "").await?;
    let shared =
        store.shared().await?.ok_or_else(|| Error::EmptyDatabase { database: database.to_string() })?;
    let settings = SharedSettings::from_toml(&shared.settings)?;
    let (path, url) = (folder.to_owned(), database.without_password());
    let (config, id, request) =
        blocking(move || prepare(&path, settings, url, place.as_ref(), &*keystore)).await?;
    store.ask_to_join(&id, &request, SystemTime::now()).await?;
    Ok(NewReplica { folder: folder.to_owned(), config, store, id, root: shared.root })
}

impl NewReplica {
    /// What its approver compares: see [`Waiting::id`](crate::Waiting::id).
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The root of the authority, as the database says; to be compared with the real one's
    /// fingerprint.
    pub fn root(&self) -> &Certificate {
        &self.root
    }

    /// Whether it has been admitted. If so, its folder is that of an authority now.
    ///
    /// # Errors
    /// [`Error::TurnedAway`]; [`Error::Pki`] if the certificate is not for its key or not of the
    /// root; [`Error::Database`].
    pub async fn admitted(&self) -> Result<bool> {
        let asked = self.store.joining(&self.id).await?;
        let Some(issuing) = asked.ok_or_else(|| Error::TurnedAway { id: self.id.clone() })?.certificate
        else {
            return Ok(false);
        };
        issuing.verify_signed_by(&self.root)?;
        if hex(&sha256(issuing.spki())) != self.id {
            let key = self.config.issuing_key.to_string();
            return Err(Error::WrongKey { certificate: "issuing", key });
        }
        durable::replace(&self.folder.join(ROOT), self.root.to_pem().as_bytes())?;
        let published = self.store.published().await?;
        let above = published.into_iter().filter(|one| vouches_for(one, &self.root)).take(1).collect();
        let hierarchy = Hierarchy { issuing, above, root: self.root.clone() };
        durable::replace(&self.folder.join(ISSUING), hierarchy.issuing_pem().as_bytes())?;
        durable::replace(&self.folder.join(CONFIG), self.config.to_toml()?.as_bytes())?;
        durable::remove(&self.folder.join(JOINING))?;
        self.store.close().await;
        Ok(true)
    }
}

impl Authority {
    /// Lets a replica join: signs its issuing certificate with the root's key.
    pub(crate) async fn let_join(&self, keystore: Arc<dyn Keystore>, id: &str) -> Result<()> {
        let not_waiting = || Error::NotWaiting { id: id.to_owned() };
        let joining = self.store().joining(id).await?.filter(|joining| joining.certificate.is_none());
        let request = joining.ok_or_else(not_waiting)?.request;
        let root_key = self.config().root_key.clone().ok_or(Error::NoRootKey)?;
        let (root, name) = (self.root().clone(), self.config().name.clone());
        let constraints = self.config().name_constraints();
        let issuing = blocking(move || {
            request.verify()?;
            let subject = issuing_subject(&name, request.spki())?;
            let intermediate = Intermediate {
                subject: &subject,
                spki: request.spki(),
                lifetime: DEFAULT_INTERMEDIATE_LIFETIME,
                path_length: Some(0),
                name_constraints: constraints.as_ref(),
            };
            let key = keystore.open(&root_key)?;
            let reason = format!("issuing certificate of a replica: {subject}");
            let ctx = SignContext::new(reason).with_deadline(Instant::now() + SIGN_TIMEOUT);
            Ok(Issuer::new(root, &*key)?.issue_intermediate(&intermediate, SystemTime::now(), &ctx)?)
        })
        .await?;
        let admitted = self.store().admit(id, &issuing, SystemTime::now()).await?;
        if admitted { Ok(()) } else { Err(not_waiting()) }
    }
}

/// The keys and the request, new or of an earlier attempt.
fn prepare(
    folder: &Path,
    shared: SharedSettings,
    database: DatabaseUrl,
    place: Option<&KeyUri>,
    keystore: &dyn Keystore,
) -> Result<(Config, String, Vec<u8>)> {
    durable::private_folder(folder)?;
    let _one_at_a_time = lock(folder)?;
    if folder.join(CONFIG).exists() {
        return Err(Error::Exists { dir: folder.display().to_string() });
    }
    let (config, key) = match Config::read(&folder.join(JOINING))? {
        Some(config) => {
            let key = keystore.open(&config.issuing_key)?;
            (config, key)
        }
        None => {
            let stem = key_stem(&shared.name)?;
            let mut keys = Keys { keystore, made: Vec::new() };
            let mut key = |place: Option<&KeyUri>, role: &str| keys.make(place, &stem, role);
            let (issuing, audit) = (key(place, "issuing")?, key(place, "audit")?);
            let (server, ocsp) = (key(None, "server")?, key(None, "ocsp")?);
            let config = Config {
                name: shared.name,
                url: shared.url,
                database: Some(database),
                root_key: None,
                issuing_key: issuing.info().uri.clone(),
                root_certificate: ROOT.to_owned(),
                issuing_certificate: ISSUING.to_owned(),
                server_key: server.info().uri.clone(),
                ocsp_key: Some(ocsp.info().uri.clone()),
                audit_key: Some(audit.info().uri.clone()),
                http_url: shared.http_url,
                permitted_names: Vec::new(),
                excluded_names: Vec::new(),
                crl_shards: shared.crl_shards,
                requests_at_once: shared.requests_at_once,
                profiles: shared.profiles,
                labels: shared.labels,
                former_issuers: Vec::new(),
            };
            durable::replace(&folder.join(JOINING), config.to_toml()?.as_bytes())?;
            keys.made.clear();
            (config, issuing)
        }
    };
    let spki = &key.info().spki;
    let request = request(&*key, &issuing_subject(&config.name, spki)?)?;
    let id = hex(&sha256(spki));
    Ok((config, id, request))
}

/// By its key, since no two issuers may have one name: a CRL is found by it.
pub(crate) fn issuing_subject(name: &str, spki: &[u8]) -> Result<DistinguishedName> {
    let id = hex(&sha256(spki));
    Ok(subject_of(&format!("{name} Issuing CA {}", id.get(..8).unwrap_or(&id)))?)
}
