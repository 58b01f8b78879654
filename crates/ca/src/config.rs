//! `authority.toml`: what an authority is, apart from its certificates and its records.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use enclasp_enroll::{Endpoint, duration};
use enclasp_keystore::{KeyUri, durable};
use enclasp_pki::{Pointers, Profile, sha256};
use serde::{Deserialize, Serialize};

use crate::publication::{crl_name, issuer_name};
use crate::{DatabaseUrl, Error, HttpUrl, Result};

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
    /// Among how many CRLs each issuer's certificates are divided: 1 to 1024. It may grow.
    #[serde(default = "one")]
    pub crl_shards: u32,
    /// Lifetimes, by the name of the profile.
    #[serde(default)]
    pub profiles: BTreeMap<String, Lifetimes>,
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
    #[serde(default)]
    pub(crate) profiles: BTreeMap<String, Lifetimes>,
}

/// How long the certificates of a profile live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lifetimes {
    /// If nobody says otherwise.
    #[serde(with = "duration::text")]
    pub default_lifetime: Duration,
    /// At most.
    #[serde(with = "duration::text")]
    pub max_lifetime: Duration,
}

fn one() -> u32 {
    1
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
        for (name, lifetimes) in &config.profiles {
            Profile::by_name(name).map_err(|e| error(e.to_string()))?;
            if lifetimes.default_lifetime.is_zero() || lifetimes.default_lifetime > lifetimes.max_lifetime {
                return Err(error(format!(
                    "profile {name}: default-lifetime is not between 1s and max-lifetime"
                )));
            }
        }
        if !(1..=MAX_SHARDS).contains(&config.crl_shards) {
            return Err(error(format!("crl-shards is not between 1 and {MAX_SHARDS}")));
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

    pub(crate) fn shared(&self) -> SharedSettings {
        SharedSettings {
            name: self.name.clone(),
            url: self.url.clone(),
            http_url: self.http_url.clone(),
            crl_shards: self.crl_shards,
            profiles: self.profiles.clone(),
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

    /// The profile called `name`, with the lifetimes that are set here.
    ///
    /// # Errors
    /// [`Error::Pki`] if there is none.
    pub fn profile(&self, name: &str) -> Result<Profile> {
        let mut profile = Profile::by_name(name)?;
        if let Some(lifetimes) = self.profiles.get(name) {
            profile.default_lifetime = lifetimes.default_lifetime;
            profile.max_lifetime = lifetimes.max_lifetime;
        }
        Ok(profile)
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
            ("[profiles.client]", "[profiles.clint]", "clint"),
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
        assert_eq!(config.profile("client").unwrap().default_lifetime, Duration::from_secs(7 * 86_400));
        assert_eq!(config.profile("server").unwrap(), Profile::server());
    }
}
