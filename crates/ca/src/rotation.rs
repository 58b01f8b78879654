//! A new issuing certificate, and a new root: from then on they are used, and those of before answer for what they
//! issued until that has ended.
//!
//! The last step replaces `authority.toml`. A rotation that was interrupted before it has changed nothing, and the
//! same call goes on with the keys and the certificates that were made.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use enclasp_enroll::subject_of;
use enclasp_keystore::{Key, KeySpec, KeyUri, Keystore, SignContext, durable};
use enclasp_pki::{
    Certificate, DEFAULT_INTERMEDIATE_LIFETIME, DEFAULT_ROOT_LIFETIME, DistinguishedName, Intermediate,
    Issuer, create_csr, create_root, hex, sha256,
};
use serde::{Deserialize, Serialize};

use crate::authority::CONFIG;
use crate::hierarchy::Hierarchy;
use crate::init::{key_stem, lock};
use crate::issuance::blocking;
use crate::join::issuing_subject;
use crate::store::NewIssuer;
use crate::{Authority, Config, Error, Former, Result};

/// What was planned, while it is under way.
const ROTATING: &str = "rotating.toml";

/// How long a key may take to sign.
const SIGN_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest such file, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Which keys will be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Plan {
    issuing_key: KeyUri,
    /// If the root changes, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root_key: Option<KeyUri>,
    /// Whether another authority signs the issuing certificate.
    #[serde(default)]
    by_another: bool,
}

/// What shall be new.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Whether the root is, too.
    pub root: bool,
    /// Another keystore for the new keys, as in [`NewAuthority::keys`](crate::NewAuthority::keys).
    pub keys: Option<KeyUri>,
}

impl Authority {
    /// Makes a new issuing key and has the root's key certify it. From its next start on, a server issues with it;
    /// the one of before signs CRLs and certifies OCSP responders until all that it issued has ended.
    ///
    /// With a new root, whoever knows only the old one follows by what vouches for the new one with the old one's key
    /// (`NewWithOld`, RFC 4210 §4.4), which is in `cacerts` and in the chains of servers and devices.
    ///
    /// # Errors
    /// [`Error::NoRootKey`]; [`Error::Rotating`] if another rotation is under way; what the keystore says.
    pub async fn rotate(&self, keystore: Arc<dyn Keystore>, rotation: &Rotation) -> Result<Certificate> {
        let _one_at_a_time = lock(self.folder())?;
        if self.config().root_key.is_none() {
            return Err(Error::NoRootKey);
        }
        let plan = self.plan(rotation, false)?;
        let known = self.store().published().await?;
        let (hierarchy, vouching) = {
            let (authority, plan) = (self.clone(), plan.clone());
            blocking(move || authority.certified(&*keystore, &plan, &known)).await?
        };
        self.commit(&plan, hierarchy, vouching).await
    }

    /// Makes a new issuing key, and a request that another authority has to sign: its DER. The same call gives a
    /// request for the same key.
    ///
    /// # Errors
    /// [`Error::Rotating`]; what the keystore says.
    pub async fn request_rotation(
        &self,
        keystore: Arc<dyn Keystore>,
        keys: Option<KeyUri>,
    ) -> Result<Vec<u8>> {
        let _one_at_a_time = lock(self.folder())?;
        let plan = self.plan(&Rotation { root: false, keys }, true)?;
        let name = self.config().name.clone();
        blocking(move || {
            let key = keystore.open_or_create(&KeySpec::new(plan.issuing_key.clone()))?;
            request(&*key, &issuing_subject(&name, &key.info().spki)?)
        })
        .await
    }

    /// Takes into use what another authority made of that request: the certificate, and those above it up to the root.
    ///
    /// # Errors
    /// [`Error::NotRequested`]; [`Error::Unfit`] if it is not what is needed; what the keystore says.
    pub async fn import_rotation(
        &self,
        keystore: Arc<dyn Keystore>,
        certificates: &[Certificate],
    ) -> Result<Certificate> {
        let _one_at_a_time = lock(self.folder())?;
        let plan = read(self.folder())?.filter(|plan| plan.by_another).ok_or(Error::NotRequested)?;
        let uri = plan.issuing_key.clone();
        let key = blocking(move || Ok(keystore.open(&uri)?)).await?;
        let now = SystemTime::now();
        let hierarchy = Hierarchy::imported(certificates, &key.info().spki, self.config(), now)?;
        self.commit(&plan, hierarchy, Vec::new()).await
    }

    /// The plan that is under way, or a new one.
    fn plan(&self, rotation: &Rotation, by_another: bool) -> Result<Plan> {
        // What another process did since these settings were read.
        if Config::read(&self.path(CONFIG))?.as_ref() != Some(self.config()) {
            return Err(Error::Rotating);
        }
        if let Some(plan) = read(self.folder())? {
            let same = plan.root_key.is_some() == rotation.root && plan.by_another == by_another;
            return if same { Ok(plan) } else { Err(Error::Rotating) };
        }
        let config = self.config();
        let stem = key_stem(&config.name)?;
        let named = |old: &KeyUri, role: &str| match &rotation.keys {
            None => Ok(old.successor()),
            Some(place) => place.with_name(&format!("{}-{role}", place.key_name().unwrap_or(&stem))),
        };
        let root_key = config.root_key.as_ref().filter(|_| rotation.root);
        let plan = Plan {
            issuing_key: named(&config.issuing_key, "issuing")?,
            root_key: root_key.map(|old| named(old, "root")).transpose()?,
            by_another,
        };
        let text = toml::to_string(&plan)
            .map_err(|e| Error::Config { path: ROTATING.into(), reason: e.to_string() })?;
        durable::replace(&self.path(ROTATING), text.as_bytes())?;
        Ok(plan)
    }

    /// The new certificates, of this call or of one before, and those with which the two roots vouch for one another.
    /// `known` is what an earlier call may have published.
    fn certified(
        &self,
        keystore: &dyn Keystore,
        plan: &Plan,
        known: &[Certificate],
    ) -> Result<(Hierarchy, Vec<Certificate>)> {
        let (config, now) = (self.config(), SystemTime::now());
        let ctx = |what: &str| SignContext::new(what).with_deadline(Instant::now() + SIGN_TIMEOUT);
        let old_key = keystore.open(config.root_key.as_ref().ok_or(Error::NoRootKey)?)?;
        let old = self.root();
        let mut vouching = Vec::new();
        let (root, root_key) = match &plan.root_key {
            None => (old.clone(), old_key),
            Some(uri) => {
                let key = keystore.open_or_create(&KeySpec::new(uri.clone()))?;
                let id = key_id(&key.info().spki);
                let path = self.path(&format!("root-{id}.pem"));
                let root = match earlier(&path, &key.info().spki)? {
                    Some(mut earlier) => earlier.remove(0),
                    None => {
                        let subject = subject_of(&format!("{} Root CA {id}", config.name))?;
                        let root =
                            create_root(&*key, &subject, DEFAULT_ROOT_LIFETIME, now, &ctx("a new root"))?;
                        durable::replace(&path, root.to_pem().as_bytes())?;
                        root
                    }
                };
                let old_issuer = Issuer::new(old.clone(), &*old_key)?;
                let new_issuer = Issuer::new(root.clone(), &*key)?;
                // Both end with the old root.
                let lifetime = old.not_after().duration_since(now).unwrap_or_default();
                for (issuer, vouched) in [(&old_issuer, &root), (&new_issuer, old)] {
                    let earlier = known.iter().find(|one| {
                        one.spki() == vouched.spki() && one.issuer() == issuer.certificate().subject()
                    });
                    vouching.push(match earlier {
                        Some(earlier) => earlier.clone(),
                        None => {
                            let cross = Intermediate {
                                subject: vouched.subject(),
                                spki: vouched.spki(),
                                lifetime,
                                path_length: None,
                                name_constraints: None,
                            };
                            issuer.issue_intermediate(&cross, now, &ctx("a root that vouches for another"))?
                        }
                    });
                }
                (root, key)
            }
        };
        let key = keystore.open_or_create(&KeySpec::new(plan.issuing_key.clone()))?;
        let spki = &key.info().spki;
        let path = self.path(&issuing_file(spki));
        if let Some(mut above) = earlier(&path, spki)?
            && above[0].verify_signed_by(&root).is_ok()
        {
            return Ok((Hierarchy { issuing: above.remove(0), above, root }, vouching));
        }
        let constraints = config.name_constraints();
        let intermediate = Intermediate {
            subject: &issuing_subject(&config.name, spki)?,
            spki,
            lifetime: DEFAULT_INTERMEDIATE_LIFETIME,
            path_length: Some(0),
            name_constraints: constraints.as_ref(),
        };
        let issuing = Issuer::new(root.clone(), &*root_key)?.issue_intermediate(
            &intermediate,
            now,
            &ctx("a new issuing certificate"),
        )?;
        let above = vouching.iter().chain(known).filter(|one| vouches_for(one, &root)).take(1).cloned();
        let hierarchy = Hierarchy { issuing, above: above.collect(), root };
        hierarchy.check_settings(config)?;
        Ok((hierarchy, vouching))
    }

    /// Records the new issuer, and takes it into use.
    async fn commit(
        &self,
        plan: &Plan,
        hierarchy: Hierarchy,
        mut published: Vec<Certificate>,
    ) -> Result<Certificate> {
        let file = issuing_file(hierarchy.issuing.spki());
        durable::replace(&self.path(&file), hierarchy.issuing_pem().as_bytes())?;
        let mut config = Config { issuing_certificate: file, ..self.config().clone() };
        if hierarchy.root != *self.root() {
            let file = format!("root-{}.pem", key_id(hierarchy.root.spki()));
            durable::replace(&self.path(&file), hierarchy.root.to_pem().as_bytes())?;
            config.root_certificate = file;
            config.root_key = plan.root_key.clone();
            published.push(self.root().clone());
        }
        let sha256 = self.issuing().fingerprint_hex();
        config.former_issuers.push(Former { key: self.config().issuing_key.clone(), sha256 });
        config.issuing_key = plan.issuing_key.clone();
        let (issuing, root) = (hierarchy.issuing, hierarchy.root);
        let new = NewIssuer { issuing: issuing.clone(), root, published };
        self.store().add_issuer(new, SystemTime::now()).await?;
        durable::replace(&self.path(CONFIG), config.to_toml()?.as_bytes())?;
        durable::remove(&self.path(ROTATING))?;
        Ok(issuing)
    }
}

/// Removes the plan of a rotation that is done: its last step was interrupted.
pub(crate) fn tidy(folder: &Path, config: &Config) -> Result<()> {
    match read(folder)? {
        Some(plan) if plan.issuing_key == config.issuing_key => {
            durable::remove(&folder.join(ROTATING))?;
        }
        _ => {}
    }
    Ok(())
}

/// Whether somebody who trusts another root can follow this certificate to `root`.
pub(crate) fn vouches_for(certificate: &Certificate, root: &Certificate) -> bool {
    certificate.subject() == root.subject()
        && certificate.spki() == root.spki()
        && !certificate.is_self_issued()
        && certificate.not_after() > SystemTime::now()
}

/// The request for an issuing certificate, in DER.
pub(crate) fn request(key: &dyn Key, subject: &DistinguishedName) -> Result<Vec<u8>> {
    let ctx = SignContext::new(format!("request for the issuing certificate {subject}"))
        .with_deadline(Instant::now() + SIGN_TIMEOUT);
    Ok(create_csr(key, subject, &[], &ctx)?)
}

fn read(folder: &Path) -> Result<Option<Plan>> {
    let path = folder.join(ROTATING);
    let failed = |reason: String| Error::Config { path: path.display().to_string(), reason };
    let Some(bytes) = durable::read(&path, MAX_FILE)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8".into()))?;
    toml::from_str(&text).map(Some).map_err(|e| failed(e.to_string().trim_end().to_owned()))
}

/// The certificates in a file of an earlier attempt, if the first one is for this key.
fn earlier(path: &Path, spki: &[u8]) -> Result<Option<Vec<Certificate>>> {
    let Some(bytes) = durable::read(path, MAX_FILE)? else { return Ok(None) };
    let certificates = enclasp_pki::certificates_from(&bytes)?;
    Ok(Some(certificates).filter(|all| all.first().is_some_and(|first| first.spki() == spki)))
}

fn issuing_file(spki: &[u8]) -> String {
    format!("issuing-{}.pem", key_id(spki))
}

fn key_id(spki: &[u8]) -> String {
    hex(&sha256(spki)[..4])
}
