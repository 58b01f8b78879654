//! `authority.toml`: what an authority is, apart from its certificates and its records.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use enclasp_enroll::{Endpoint, est};
use enclasp_keystore::{KeyUri, durable};
use enclasp_pki::{NameConstraint, NameConstraints, Pointers, sha256};
use serde::{Deserialize, Serialize};

use crate::authority::{ISSUING, ROOT};
use crate::profile::{BUILT_IN, check_name};
use crate::publication::{crl_name, issuer_name};
use crate::{DatabaseUrl, Error, HttpUrl, Profile, ProfileSettings, Result};

/// The settings of an authority. Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The name in its certificates.
    pub name: String,
    /// Where devices reach it; tokens and its own server certificate say so.
    pub url: Endpoint,
    /// Where its records are, if not in SQLite in its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseUrl>,
    /// The key of the root certificate. A replica that joined has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_key: Option<KeyUri>,
    /// The key that signs certificates of devices.
    pub issuing_key: KeyUri,
    /// The file with the root certificate, in the folder.
    #[serde(default = "root_file")]
    pub root_certificate: String,
    /// The file with the issuing certificate, and with those that peers need between it and a root.
    #[serde(default = "issuing_file")]
    pub issuing_certificate: String,
    /// The key of its own server certificate.
    pub server_key: KeyUri,
    /// The key that answers OCSP requests, if any does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ocsp_key: Option<KeyUri>,
    /// The key that signs the heads of the audit log, if any does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_key: Option<KeyUri>,
    /// Where everybody fetches CRLs and asks OCSP; certificates say so. Without it they say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_url: Option<HttpUrl>,
    /// What issuing certificates shall permit (RFC 5280 §4.2.1.10); of kinds that do not occur, everything. It
    /// counts from the next issuing certificate on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permitted_names: Vec<NameConstraint>,
    /// What they shall exclude.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded_names: Vec<NameConstraint>,
    /// Among how many CRLs each issuer's certificates are divided: 1 to 1024. It may grow.
    #[serde(default = "one")]
    pub crl_shards: u32,
    /// How many devices are issued certificates at the same time; more are told to come back in up to a minute.
    #[serde(default = "many")]
    pub requests_at_once: usize,
    /// The rules of certificates, by the name of the profile. Those that every authority has are `client`,
    /// `device`, `server`, `user`, `short-lived`, `admin` and `viewer`.
    #[serde(default)]
    pub profiles: BTreeMap<String, ProfileSettings>,
    /// The labels of EST.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Label>,
    /// The issuing certificates of before `ca rotate`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_issuers: Vec<Former>,
}

/// An issuing certificate that answers for what it issued, and issues nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Former {
    /// Its key.
    pub key: KeyUri,
    /// Its SHA-256 in lower-case hexadecimal, by which it is in the database.
    pub sha256: String,
}

/// Those of the settings that all replicas have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct SharedSettings {
    pub(crate) name: String,
    pub(crate) url: Endpoint,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) http_url: Option<HttpUrl>,
    #[serde(default = "one")]
    pub(crate) crl_shards: u32,
    /// How many devices are issued certificates at the same time; more are told to come back in up to a minute.
    #[serde(default = "many")]
    pub(crate) requests_at_once: usize,
    #[serde(default)]
    pub(crate) profiles: BTreeMap<String, ProfileSettings>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, Label>,
}

/// A label of EST: `/.well-known/est/NAME/…` issues under one profile (RFC 7030 §3.2.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Label {
    /// The profile; tokens and certificates of others are refused there.
    pub profile: String,
    /// Whether answers are in lines of 64 characters, which libest needs and strongSwan cannot read.
    #[serde(default)]
    pub wrap_base64: bool,
}

fn one() -> u32 {
    1
}

fn root_file() -> String {
    ROOT.to_owned()
}

fn issuing_file() -> String {
    ISSUING.to_owned()
}

pub(crate) fn many() -> usize {
    256
}

/// More CRLs than that are of no use.
const MAX_SHARDS: u32 = 1024;

/// Longer files are not read.
const MAX_LENGTH: u64 = 64 * 1024;

impl Config {
    /// Reads and checks the file at `path`; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Config`] with the line that is wrong.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let error = |reason: String| Error::Config { path: path.display().to_string(), reason };
        let Some(bytes) = durable::read(path, MAX_LENGTH)? else {
            return Ok(None);
        };
        let text = String::from_utf8(bytes).map_err(|_| error("it is not UTF-8".into()))?;
        let config: Self = toml::from_str(&text).map_err(|e| error(e.to_string().trim_end().to_owned()))?;
        for (name, settings) in &config.profiles {
            Profile::of(name, settings).map_err(|e| error(format!("profile {name}: {e}")))?;
        }
        for (name, label) in &config.labels {
            let wrong = |e: String| error(format!("label {name}: {e}"));
            check_name(name).map_err(wrong)?;
            if est::is_operation(name) || name == est::BISECT {
                return Err(wrong("it is the name of an operation of EST, or of ours".into()));
            }
            config.profile(&label.profile).map_err(|e| wrong(e.to_string()))?;
        }
        if !(1..=MAX_SHARDS).contains(&config.crl_shards) {
            return Err(error(format!("crl-shards is not between 1 and {MAX_SHARDS}")));
        }
        if config.requests_at_once == 0 {
            return Err(error("requests-at-once is 0, which would let nobody in".into()));
        }
        if config.crl_shards > 1 && config.http_url.is_none() {
            return Err(error("crl-shards needs http-url, which tells the CRLs apart".into()));
        }
        Ok(Some(config))
    }

    /// The file's text.
    ///
    /// # Errors
    /// [`Error::Config`] if it cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml_of(self)
    }

    /// What the next issuing certificate permits and excludes, if it is not everything.
    pub(crate) fn name_constraints(&self) -> Option<NameConstraints> {
        let constraints = NameConstraints {
            permitted: self.permitted_names.clone(),
            excluded: self.excluded_names.clone(),
        };
        Some(constraints).filter(|constraints| *constraints != NameConstraints::default())
    }

    pub(crate) fn shared(&self) -> SharedSettings {
        SharedSettings {
            name: self.name.clone(),
            url: self.url.clone(),
            http_url: self.http_url.clone(),
            crl_shards: self.crl_shards,
            requests_at_once: self.requests_at_once,
            profiles: self.profiles.clone(),
            labels: self.labels.clone(),
        }
    }

    /// The CRL that the certificate of this key is listed on, if it is revoked.
    pub(crate) fn shard_of(&self, spki: &[u8]) -> u32 {
        let digest = sha256(spki);
        u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % self.crl_shards.max(1)
    }

    /// The URL of a CRL. `issuer` is the fingerprint of the issuing certificate in hexadecimal.
    pub(crate) fn crl_url(&self, issuer: &str, shard: u32) -> Option<String> {
        self.http_url.as_ref().map(|base| format!("{base}/crl/{}", crl_name(issuer, shard)))
    }

    /// What a certificate of that issuer says of where to ask.
    pub(crate) fn pointers(&self, issuer: &str, shard: u32) -> Option<Pointers> {
        let base = self.http_url.as_ref()?;
        Some(Pointers {
            crl: self.crl_url(issuer, shard)?,
            ocsp: self.ocsp_key.as_ref().map(|_| format!("{base}/ocsp")),
            issuer: format!("{base}/ca/{}", issuer_name(issuer)),
        })
    }

    /// The profile called `name`.
    ///
    /// # Errors
    /// [`Error::NoProfile`].
    pub fn profile(&self, name: &str) -> Result<Profile> {
        let known = match self.profiles.get(name) {
            Some(settings) => Profile::of(name, settings).ok(),
            None => Profile::built_in(name),
        };
        known.ok_or_else(|| {
            let known = self.profile_names().collect::<Vec<_>>().join(", ");
            Error::NoProfile { name: name.escape_debug().to_string(), known }
        })
    }

    /// The longest time after its end in which a certificate of some profile can be renewed.
    pub(crate) fn longest_grace(&self) -> Duration {
        self.profiles.values().map(|settings| settings.renewal_grace).max().unwrap_or_default()
    }

    /// The names of all profiles: those that are built in, then the others.
    pub fn profile_names(&self) -> impl Iterator<Item = &str> {
        let others = self.profiles.keys().map(String::as_str).filter(|name| !BUILT_IN.contains(name));
        BUILT_IN.into_iter().chain(others)
    }
}

impl SharedSettings {
    pub(crate) fn from_toml(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|e| Error::Record { reason: e.to_string().trim_end().to_owned() })
    }

    pub(crate) fn to_toml(&self) -> Result<String> {
        toml_of(self)
    }
}

fn toml_of(settings: &impl Serialize) -> Result<String> {
    toml::to_string(settings)
        .map_err(|e| Error::Config { path: "authority.toml".into(), reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        name = "Acme"
        url = "https://127.0.0.1:8443"
        root-key = "soft:name=acme-root"
        issuing-key = "soft:name=acme-issuing"
        server-key = "soft:name=acme-server"

        [profiles.client]
        default-lifetime = "7d"
        max-lifetime = "30d"
    "#;

    fn read(text: &str) -> Result<Option<Config>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authority.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path)
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (from, to, reason) in [
            ("name =", "nmae =", "nmae"),
            ("url = \"https", "url = \"http", "https://"),
            ("[profiles.client]", "[profiles.clint]", "profile clint: extended-key-usages is missing"),
            ("[profiles.client]", "[profiles.Clint]", "lower-case"),
            ("max-lifetime", "key-types = [\"dsa\"]\nmax-lifetime", "dsa"),
            ("max-lifetime", "key-types = []\nmax-lifetime", "key-types is empty"),
            ("max-lifetime", "names = [\"host\"]\nmax-lifetime", "not a rule for names"),
            ("max-lifetime", "no-rev-avail = true\nmax-lifetime", "live 7d at most"),
            ("max-lifetime", "extended-key-usages = [\"OCSPSigning\"]\nmax-lifetime", "speak for"),
            ("name =", "requests-at-once = 0\nname =", "let nobody in"),
            ("[profiles.client]", "[labels.cacerts]\nprofile = \"client\"\n[profiles.client]", "operation"),
            ("[profiles.client]", "[labels.a]\nprofile = \"none\"\n[profiles.client]", "no profile `none`"),
            ("\"7d\"", "\"7\"", "duration"),
            ("\"7d\"", "\"31d\"", "max-lifetime"),
            ("\"7d\"", "\"0s\"", "max-lifetime"),
            ("soft:name=acme-root", "soft:nme=acme-root", "nme"),
        ] {
            let error = read(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(reason), "{to}: {error}");
        }
    }

    #[test]
    fn reads_what_it_writes() {
        let config = read(GOOD).unwrap().unwrap();
        assert_eq!(read(&config.to_toml().unwrap()).unwrap().unwrap(), config);
        let client = config.profile("client").unwrap();
        assert_eq!(client.certificate.default_lifetime, Duration::from_secs(7 * 86_400));
        assert_eq!(client.names, Profile::built_in("client").unwrap().names);
        assert_eq!(config.profile("server").unwrap(), Profile::built_in("server").unwrap());
        assert!(config.profile("root").unwrap_err().to_string().contains("short-lived"));
    }
}
