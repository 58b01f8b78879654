//! `authority.toml`: what an authority is, apart from its certificates and its records.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use enclasp_enroll::{Endpoint, duration};
use enclasp_keystore::{KeyUri, durable};
use enclasp_pki::Profile;
use serde::{Deserialize, Serialize};

use crate::{DatabaseUrl, Error, Result};

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
        SharedSettings { name: self.name.clone(), url: self.url.clone(), profiles: self.profiles.clone() }
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
