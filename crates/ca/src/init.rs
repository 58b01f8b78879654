//! Making an authority.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::SystemTime;

use aws_lc_rs::rand;
use enclasp_enroll::{Endpoint, subject_of};
use enclasp_keystore::{Key, KeySpec, KeyUri, Keystore, SignContext, durable};
use enclasp_pki::{
    Certificate, DEFAULT_INTERMEDIATE_LIFETIME, DEFAULT_ROOT_LIFETIME, DistinguishedName, Intermediate,
    Issuer, NameConstraints, create_root,
};

use crate::authority::{CONFIG, ISSUING, ROOT};
use crate::config::many;
use crate::hierarchy::{Hierarchy, check_settings};
use crate::profile::BUILT_IN;
use crate::{Config, DatabaseUrl, Error, HttpUrl, Profile, Result, rotation};

/// What an authority shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAuthority {
    /// Its name: 1 to 40 characters, which the subjects of its certificates begin with.
    pub name: String,
    /// Where devices will reach it.
    pub url: Endpoint,
    /// The keystore for the keys that sign for it: the root's, and those for issuing and for the audit log. If
    /// it has the name of a key, theirs begin with it; if not, with the authority's. `None` is software.
    ///
    /// The keys of its server and of its OCSP responder are software keys in any case: whoever connects can
    /// have them sign, hundreds of times a second. Their certificates live for weeks only.
    pub keys: Option<KeyUri>,
    /// Another keystore for the root's key, which is hardly ever needed.
    pub root_key: Option<KeyUri>,
    /// Where everybody will fetch its CRLs and ask its OCSP responder.
    pub http_url: Option<HttpUrl>,
    /// Where its records go, if not to SQLite in its folder.
    pub database: Option<DatabaseUrl>,
    /// What its issuing certificate permits and excludes.
    pub name_constraints: NameConstraints,
}

/// The longest name, so that the common names made of it fit X.520's 64 characters.
const MAX_NAME: usize = 40;

/// The settings of an authority whose certificate another one has been asked for.
const REQUESTED: &str = "requested.toml";

/// Makes an authority in `folder`: keys for a root, for issuing, for its server, for OCSP and for the audit log in
/// `keystore`, the root certificate, and an issuing certificate that can sign for no other CA.
///
/// It exists when its `authority.toml` does, which is written last. If anything fails before that,
/// the keys are deleted again, and the same call can be made once more.
///
/// # Errors
/// [`Error::Exists`]; [`Error::Setting`] for the name; [`Error::Unfit`] for the name constraints; what the keystore
/// says.
pub fn init(folder: &Path, new: &NewAuthority, keystore: &dyn Keystore) -> Result<Config> {
    let _one_at_a_time = begin(folder, &new.name)?;
    if folder.join(REQUESTED).exists() {
        return Err(Error::Requested { dir: folder.display().to_string() });
    }
    let mut keys = Keys { keystore, made: Vec::new() };
    let (mut config, issuing_key) = prepare(new, &mut keys)?;
    let place = new.root_key.as_ref().or(new.keys.as_ref());
    let root_key = keys.make(place, &key_stem(&new.name)?, "root")?;
    config.root_key = Some(root_key.info().uri.clone());
    let constraints = config.name_constraints();
    if let Some(constraints) = &constraints {
        check_settings(constraints, &config, "the new authority")?;
    }
    let (now, ctx) =
        (SystemTime::now(), SignContext::new(format!("certificates of the new authority {}", new.name)));
    let root = create_root(
        &*root_key,
        &subject_of(&format!("{} Root CA", new.name))?,
        DEFAULT_ROOT_LIFETIME,
        now,
        &ctx,
    )?;
    let intermediate = Intermediate {
        subject: &issuing_subject(&new.name)?,
        spki: &issuing_key.info().spki,
        lifetime: DEFAULT_INTERMEDIATE_LIFETIME,
        path_length: Some(0),
        name_constraints: constraints.as_ref(),
    };
    let issuing = Issuer::new(root.clone(), &*root_key)?.issue_intermediate(&intermediate, now, &ctx)?;
    finish(folder, &config, &Hierarchy { issuing, above: Vec::new(), root })?;
    keys.made.clear();
    Ok(config)
}

/// Begins an authority whose issuing certificate another one signs: makes its keys, without one for a root, and
/// returns the request in DER. [`import`] goes on. The same call gives a request for the same key, and keeps the
/// settings of the first.
///
/// # Errors
/// As [`init`].
pub fn request(folder: &Path, new: &NewAuthority, keystore: &dyn Keystore) -> Result<Vec<u8>> {
    let _one_at_a_time = begin(folder, &new.name)?;
    let path = folder.join(REQUESTED);
    let (name, key) = match Config::read(&path)? {
        Some(config) => (config.name, keystore.open(&config.issuing_key)?),
        None => {
            let mut keys = Keys { keystore, made: Vec::new() };
            let (config, key) = prepare(new, &mut keys)?;
            durable::replace(&path, config.to_toml()?.as_bytes())?;
            keys.made.clear();
            (config.name, key)
        }
    };
    rotation::request(&*key, &issuing_subject(&name)?)
}

/// Makes the authority that [`request`] began, with what another one made of the request: the certificate, and those
/// above it up to the root, in whatever order.
///
/// # Errors
/// [`Error::NotRequested`]; [`Error::Unfit`] if a certificate is not what is needed; what the keystore says.
pub fn import(folder: &Path, certificates: &[Certificate], keystore: &dyn Keystore) -> Result<Config> {
    let path = folder.join(REQUESTED);
    if !path.exists() && !folder.join(CONFIG).exists() {
        return Err(Error::NotRequested);
    }
    let _one_at_a_time = lock(folder)?;
    if folder.join(CONFIG).exists() {
        return Err(Error::Exists { dir: folder.display().to_string() });
    }
    let config = Config::read(&path)?.ok_or(Error::NotRequested)?;
    let key = keystore.open(&config.issuing_key)?;
    let hierarchy = Hierarchy::imported(certificates, &key.info().spki, &config, SystemTime::now())?;
    finish(folder, &config, &hierarchy)?;
    durable::remove(&path)?;
    Ok(config)
}

/// Makes the folder, alone.
fn begin(folder: &Path, name: &str) -> Result<File> {
    let length = name.chars().count();
    if length == 0 || length > MAX_NAME || name.chars().any(char::is_control) {
        return Err(Error::Setting {
            what: "the name of an authority",
            value: format!("`{}`", name.escape_debug()),
            reason: format!("it has 1 to {MAX_NAME} characters, none of them a control character"),
        });
    }
    durable::private_folder(folder)?;
    let alone = lock(folder)?;
    if folder.join(CONFIG).exists() {
        return Err(Error::Exists { dir: folder.display().to_string() });
    }
    Ok(alone)
}

/// The settings and the keys of an authority, but for the root's.
fn prepare(new: &NewAuthority, keys: &mut Keys<'_>) -> Result<(Config, Box<dyn Key>)> {
    let stem = key_stem(&new.name)?;
    let mut key = |place: Option<&KeyUri>, role: &str| keys.make(place, &stem, role);
    let place = new.keys.as_ref();
    let (issuing_key, audit_key) = (key(place, "issuing")?, key(place, "audit")?);
    let (server_key, ocsp_key) = (key(None, "server")?, key(None, "ocsp")?);
    let profiles =
        BUILT_IN.iter().filter_map(|name| Some(((*name).to_owned(), Profile::built_in(name)?.settings())));
    let config = Config {
        name: new.name.clone(),
        url: new.url.clone(),
        database: new.database.as_ref().map(DatabaseUrl::without_password),
        root_key: None,
        issuing_key: issuing_key.info().uri.clone(),
        root_certificate: ROOT.to_owned(),
        issuing_certificate: ISSUING.to_owned(),
        server_key: server_key.info().uri.clone(),
        ocsp_key: Some(ocsp_key.info().uri.clone()),
        audit_key: Some(audit_key.info().uri.clone()),
        http_url: new.http_url.clone(),
        permitted_names: new.name_constraints.permitted.clone(),
        excluded_names: new.name_constraints.excluded.clone(),
        crl_shards: 1,
        requests_at_once: many(),
        profiles: profiles.collect(),
        labels: BTreeMap::new(),
        former_issuers: Vec::new(),
    };
    Ok((config, issuing_key))
}

/// The last step: from then on, the authority exists.
fn finish(folder: &Path, config: &Config, hierarchy: &Hierarchy) -> Result<()> {
    durable::replace(&folder.join(ROOT), hierarchy.root.to_pem().as_bytes())?;
    durable::replace(&folder.join(ISSUING), hierarchy.issuing_pem().as_bytes())?;
    if durable::create(&folder.join(CONFIG), config.to_toml()?.as_bytes())? {
        Ok(())
    } else {
        Err(Error::Exists { dir: folder.display().to_string() })
    }
}

fn issuing_subject(name: &str) -> Result<DistinguishedName> {
    Ok(subject_of(&format!("{name} Issuing CA"))?)
}

/// Keeps two processes from making an authority in the same folder; it ends with the handle.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let dir = folder.display().to_string();
    let handle =
        File::open(folder).map_err(|e| Error::Config { path: dir.clone(), reason: e.to_string() })?;
    handle.try_lock().map_err(|_| Error::Busy { dir })?;
    Ok(handle)
}

/// What the names of its keys begin with: readable, and of this authority alone.
pub(crate) fn key_stem(name: &str) -> Result<String> {
    let mut random = [0; 4];
    rand::fill(&mut random).map_err(|_| Error::Random)?;
    let plain: String =
        name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let plain = plain.trim_matches('-');
    let plain = if plain.is_empty() { "ca" } else { plain };
    Ok(format!("{plain}-{:08x}", u32::from_be_bytes(random)))
}

/// Keys that go away again with this, unless they are forgotten first.
pub(crate) struct Keys<'a> {
    pub(crate) keystore: &'a dyn Keystore,
    pub(crate) made: Vec<KeyUri>,
}

impl Keys<'_> {
    /// Makes one in the keystore `place`, or in that of software keys.
    pub(crate) fn make(&mut self, place: Option<&KeyUri>, stem: &str, role: &str) -> Result<Box<dyn Key>> {
        let uri = match place {
            None => KeyUri::soft(&format!("{stem}-{role}"))?,
            Some(place) => place.with_name(&format!("{}-{role}", place.key_name().unwrap_or(stem)))?,
        };
        let key = self.keystore.create(&KeySpec::new(uri))?;
        self.made.push(key.info().uri.clone());
        Ok(key)
    }
}

impl Drop for Keys<'_> {
    fn drop(&mut self) {
        for key in &self.made {
            if let Err(error) = self.keystore.delete(key) {
                tracing::warn!(%key, %error, "a key of an authority that was not made is left behind");
            }
        }
    }
}
