//! Making an authority.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::SystemTime;

use aws_lc_rs::rand;
use enclasp_enroll::{Endpoint, subject_of};
use enclasp_keystore::{Key, KeySpec, KeyUri, Keystore, SignContext, durable};
use enclasp_pki::{
    Certificate, DEFAULT_INTERMEDIATE_LIFETIME, DEFAULT_ROOT_LIFETIME, Intermediate, Issuer, create_root,
};

use crate::authority::{CONFIG, ISSUING, ROOT};
use crate::config::many;
use crate::profile::BUILT_IN;
use crate::{Config, DatabaseUrl, Error, HttpUrl, Profile, Result};

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
}

/// The longest name, so that the common names made of it fit X.520's 64 characters.
const MAX_NAME: usize = 40;

/// Makes an authority in `folder`: keys for a root, for issuing, for its server, for OCSP and for the audit log in `keystore`,
/// the root certificate, and an issuing certificate that can sign for no other CA.
///
/// It exists when its `authority.toml` does, which is written last. If anything fails before that,
/// the keys are deleted again, and the same call can be made once more.
///
/// # Errors
/// [`Error::Exists`]; [`Error::Setting`] for the name; what the keystore says.
pub fn init(folder: &Path, new: &NewAuthority, keystore: &dyn Keystore) -> Result<Config> {
    let length = new.name.chars().count();
    if length == 0 || length > MAX_NAME || new.name.chars().any(char::is_control) {
        return Err(Error::Setting {
            what: "the name of an authority",
            value: format!("`{}`", new.name.escape_debug()),
            reason: format!("it has 1 to {MAX_NAME} characters, none of them a control character"),
        });
    }
    durable::private_folder(folder)?;
    let _one_at_a_time = lock(folder)?;
    let exists = || Error::Exists { dir: folder.display().to_string() };
    if folder.join(CONFIG).exists() {
        return Err(exists());
    }
    let stem = key_stem(&new.name)?;
    let mut keys = Keys { keystore, made: Vec::new() };
    let mut key = |place: Option<&KeyUri>, role: &str| keys.make(place, &stem, role);
    let place = new.keys.as_ref();
    let root_key = key(new.root_key.as_ref().or(place), "root")?;
    let (issuing_key, audit_key) = (key(place, "issuing")?, key(place, "audit")?);
    let (server_key, ocsp_key) = (key(None, "server")?, key(None, "ocsp")?);
    let (root, issuing) = certificates(&new.name, &*root_key, &*issuing_key)?;
    let profiles =
        BUILT_IN.iter().filter_map(|name| Some(((*name).to_owned(), Profile::built_in(name)?.settings())));
    let config = Config {
        name: new.name.clone(),
        url: new.url.clone(),
        database: new.database.as_ref().map(DatabaseUrl::without_password),
        root_key: Some(root_key.info().uri.clone()),
        issuing_key: issuing_key.info().uri.clone(),
        server_key: server_key.info().uri.clone(),
        ocsp_key: Some(ocsp_key.info().uri.clone()),
        audit_key: Some(audit_key.info().uri.clone()),
        http_url: new.http_url.clone(),
        crl_shards: 1,
        requests_at_once: many(),
        profiles: profiles.collect(),
        labels: BTreeMap::new(),
    };
    durable::replace(&folder.join(ROOT), root.to_pem().as_bytes())?;
    durable::replace(&folder.join(ISSUING), issuing.to_pem().as_bytes())?;
    if !durable::create(&folder.join(CONFIG), config.to_toml()?.as_bytes())? {
        return Err(exists());
    }
    keys.made.clear();
    Ok(config)
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

fn certificates(name: &str, root_key: &dyn Key, issuing_key: &dyn Key) -> Result<(Certificate, Certificate)> {
    let now = SystemTime::now();
    let ctx = SignContext::new(format!("certificates of the new authority {name}"));
    let subject = subject_of(&format!("{name} Root CA"))?;
    let root = create_root(root_key, &subject, DEFAULT_ROOT_LIFETIME, now, &ctx)?;
    let intermediate = Intermediate {
        subject: &subject_of(&format!("{name} Issuing CA"))?,
        spki: &issuing_key.info().spki,
        lifetime: DEFAULT_INTERMEDIATE_LIFETIME,
    };
    let issuing = Issuer::new(root.clone(), root_key)?.issue_intermediate(&intermediate, now, &ctx)?;
    Ok((root, issuing))
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
