//! Key URIs: the names of keys, in the form of RFC 7512.
//!
//! `soft:name=web`, `tpm:name=web;hierarchy=owner`, `pkcs11:token=t;object=web?pin-source=file:/p`.
//! Attributes are percent-encoded (RFC 3986 §2.1); a PKCS#11 `id` is bytes, all others are UTF-8.
//! Vendor attributes of PKCS#11 (`x-…`) are kept and mean nothing to us. `pin-value` is refused: a PIN in a name ends up
//! in shell histories and logs.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The keystore that a URI names by its scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KeystoreKind {
    /// The software enclave: software keys inside the agent.
    Soft,
    /// A TPM 2.0.
    Tpm,
    /// A PKCS#11 token or HSM.
    Pkcs11,
    /// Apple's keychain and Secure Enclave.
    Apple,
    /// Windows CNG.
    Windows,
    /// A signer that a program brings along: only that program can open its keys.
    Signer,
}

impl KeystoreKind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Soft, Self::Tpm, Self::Pkcs11, Self::Apple, Self::Windows, Self::Signer];

    /// The scheme of its URIs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Soft => "soft",
            Self::Tpm => "tpm",
            Self::Pkcs11 => "pkcs11",
            Self::Apple => "apple",
            Self::Windows => "windows",
            Self::Signer => "signer",
        }
    }
}

impl fmt::Display for KeystoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A parsed key URI. Its `Display` form parses back to an equal value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyUri {
    kind: KeystoreKind,
    path: Vec<(String, String)>,
    query: Vec<(String, String)>,
}

/// A URI longer than this is refused unread.
const MAX_LENGTH: usize = 4096;

/// What tells a PKCS#11 key from others (RFC 7512 §2.3).
const PKCS11_PATH: [&str; 8] =
    ["token", "manufacturer", "model", "serial", "slot-id", "object", "id", "type"];

/// How to get at it (RFC 7512 §2.4).
const PKCS11_QUERY: [&str; 2] = ["module-path", "pin-source"];

/// What an `apple:` key can demand of a person.
const APPLE_PRESENCE: [&str; 4] = ["none", "user", "biometry", "passcode"];

/// Where a `windows:` key can be.
const WINDOWS_PROVIDERS: [&str; 3] = ["platform", "software", "smartcard"];

/// The longest name of a soft or TPM key, in bytes.
const MAX_NAME: usize = 64;

impl KeyUri {
    /// `soft:name=NAME`.
    ///
    /// # Errors
    /// [`Error::Uri`] if `name` is not 1 to 64 of `A-Z a-z 0-9 . _ -`, or begins with a dot.
    pub fn soft(name: &str) -> Result<Self> {
        format!("soft:name={}", Encoded { text: name, query: false }).parse()
    }

    /// `signer:name=NAME`.
    ///
    /// # Errors
    /// As [`soft`](Self::soft).
    pub fn signer(name: &str) -> Result<Self> {
        format!("signer:name={}", Encoded { text: name, query: false }).parse()
    }

    /// `tpm:name=NAME`, and which TPM if that is said.
    ///
    /// # Errors
    /// As [`soft`](Self::soft).
    pub fn tpm(name: &str, tcti: Option<&str>) -> Result<Self> {
        let encoded = |text| Encoded { text, query: false };
        let tcti = tcti.map(|tcti| format!(";tcti={}", encoded(tcti))).unwrap_or_default();
        format!("tpm:name={}{tcti}", encoded(name)).parse()
    }

    /// `apple:label=LABEL`.
    ///
    /// # Errors
    /// [`Error::Uri`] if the label is empty.
    pub fn apple(label: &str) -> Result<Self> {
        format!("apple:label={}", Encoded { text: label, query: false }).parse()
    }

    /// `windows:name=NAME`, and its provider if that is said.
    ///
    /// # Errors
    /// [`Error::Uri`] if the name is empty, or the provider is not one of `platform`, `software` and
    /// `smartcard`.
    pub fn windows(name: &str, provider: Option<&str>) -> Result<Self> {
        let provider = provider.map(|provider| format!(";provider={provider}")).unwrap_or_default();
        format!("windows:name={}{provider}", Encoded { text: name, query: false }).parse()
    }

    /// `pkcs11:…` with these path attributes, the CKA_ID if any, and the path of the module.
    #[cfg(feature = "pkcs11")]
    pub(crate) fn pkcs11(path: Vec<(&str, String)>, id: Option<&[u8]>, module: &Path) -> Self {
        let mut path: Vec<_> = path.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        path.extend(id.map(|id| ("id".to_owned(), one_char_per_byte(id))));
        let module = module.to_str().map(|module| ("module-path".to_owned(), module.to_owned()));
        Self { kind: KeystoreKind::Pkcs11, path, query: module.into_iter().collect() }
    }

    /// `pkcs11:token=LABEL?module-path=MODULE`: all keys of the token, or without a label of all
    /// tokens of the module.
    ///
    /// # Errors
    /// [`Error::Uri`] if the path is not UTF-8.
    pub fn pkcs11_token(label: Option<&str>, module: &Path) -> Result<Self> {
        let path = label.map(|label| ("token".to_owned(), label.to_owned())).into_iter().collect();
        let module = utf8(module)?;
        Ok(Self { kind: KeystoreKind::Pkcs11, path, query: vec![("module-path".to_owned(), module)] })
    }

    /// The same PKCS#11 key with the file that holds its PIN (RFC 7512 §2.4), given by its full path.
    ///
    /// # Errors
    /// [`Error::Uri`] if the path is not UTF-8.
    pub fn with_pin_source(mut self, file: &Path) -> Result<Self> {
        let file = utf8(file)?;
        self.query.retain(|(key, _)| key != "pin-source");
        self.query.push(("pin-source".to_owned(), file));
        Ok(self)
    }

    /// The bytes of a PKCS#11 `id` (CKA_ID), which are no text.
    pub fn id(&self) -> Option<Vec<u8>> {
        // Each char stands for one byte.
        self.attribute("id").map(|id| id.chars().map(|c| c as u8).collect())
    }

    /// Which keystore the key is in.
    pub fn kind(&self) -> KeystoreKind {
        self.kind
    }

    /// A path attribute, decoded: `attribute("token")`. See [`id`](Self::id) for `id`.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        find(&self.path, name)
    }

    /// A query attribute, decoded: `query("pin-source")`.
    pub fn query(&self, name: &str) -> Option<&str> {
        find(&self.query, name)
    }

    /// The URI of the key that follows this one in a rekey: `soft:name=web` is followed by
    /// `soft:name=web-r2`, that by `soft:name=web-r3`. It names the new key by its name only, so a
    /// PKCS#11 `id` is left out, and so are the attributes of an existing TPM key.
    pub fn successor(&self) -> Self {
        let mut next = self.clone();
        next.path.retain(|(key, _)| !matches!(key.as_str(), "id" | "handle" | "file"));
        for (key, value) in &mut next.path {
            if matches!(key.as_str(), "name" | "object" | "label") {
                let numbered =
                    value.rsplit_once("-r").and_then(|(stem, n)| Some((stem, n.parse::<u32>().ok()?)));
                *value = match numbered {
                    Some((stem, number)) => format!("{stem}-r{}", number.saturating_add(1)),
                    None => format!("{value}-r2"),
                };
            }
        }
        next
    }

    /// The URI of the key called `name` in the same keystore, whose PIN comes from where this one says.
    ///
    /// # Errors
    /// [`Error::Uri`] if that kind of keystore has no such names.
    pub fn with_name(&self, name: &str) -> Result<Self> {
        let attribute = self.name_attribute();
        let mut named = self.clone();
        named.path.retain(|(key, _)| !matches!(key.as_str(), "id" | "handle" | "file") && key != attribute);
        named.path.push((attribute.to_owned(), name.to_owned()));
        named.to_string().parse()
    }

    /// What it calls its key: a `name`, an `object` or a `label`, as its kind has it.
    pub fn key_name(&self) -> Option<&str> {
        self.attribute(self.name_attribute())
    }

    fn name_attribute(&self) -> &'static str {
        match self.kind {
            KeystoreKind::Soft | KeystoreKind::Tpm | KeystoreKind::Windows | KeystoreKind::Signer => "name",
            KeystoreKind::Pkcs11 => "object",
            KeystoreKind::Apple => "label",
        }
    }

    /// The `name` attribute, which the kinds that need one are sure to have; "" elsewhere.
    pub fn name(&self) -> &str {
        self.attribute("name").unwrap_or("")
    }
}

fn utf8(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| Error::Uri {
        uri: "pkcs11:…".to_owned(),
        reason: format!("the path {} is not UTF-8", path.display()),
    })
}

fn find<'a>(attributes: &'a [(String, String)], name: &str) -> Option<&'a str> {
    attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

impl FromStr for KeyUri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let error = |reason: String| Error::Uri { uri: text.chars().take(200).collect(), reason };
        if text.len() > MAX_LENGTH {
            return Err(error(format!("longer than {MAX_LENGTH} bytes")));
        }
        let (scheme, rest) = text
            .split_once(':')
            .ok_or_else(|| error("it does not begin with a keystore and a colon".into()))?;
        let kind = KeystoreKind::ALL.into_iter().find(|kind| kind.name() == scheme).ok_or_else(|| {
            let known = KeystoreKind::ALL.map(KeystoreKind::name).join(", ");
            error(format!("no keystore is called `{scheme}` (there are {known})"))
        })?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = attributes(path, ';').map_err(error)?;
        let query = attributes(query, '&').map_err(error)?;
        // Of these, what names no key names all of a keystore.
        let names_all = matches!(kind, KeystoreKind::Pkcs11 | KeystoreKind::Tpm);
        if path.is_empty() && !names_all {
            return Err(error("it names no key".into()));
        }
        if find(&path, "pin-value").or(find(&query, "pin-value")).is_some() {
            // The URI is not repeated here: it holds the PIN.
            return Err(Error::Uri {
                uri: format!("{scheme}:…"),
                reason: "`pin-value` would put the PIN where others can read it; use pin-source=file:PATH"
                    .into(),
            });
        }
        let known: &[&str] = match kind {
            KeystoreKind::Soft | KeystoreKind::Signer => &["name"],
            KeystoreKind::Tpm => &["name", "tcti", "hierarchy", "handle", "file"],
            KeystoreKind::Apple => &["label", "presence"],
            KeystoreKind::Windows => &["name", "provider"],
            KeystoreKind::Pkcs11 => &PKCS11_PATH,
        };
        let is_vendors = |key: &str| kind == KeystoreKind::Pkcs11 && key.starts_with("x-");
        let is_unknown = |key: &str, known: &[&str]| !known.contains(&key) && !is_vendors(key);
        if let Some((unknown, _)) = path.iter().find(|(key, _)| is_unknown(key, known)) {
            let known = known.join(", ");
            return Err(error(format!("a {kind} key has no attribute `{unknown}` (it has {known})")));
        }
        if kind == KeystoreKind::Pkcs11 {
            if let Some((unknown, _)) = query.iter().find(|(key, _)| is_unknown(key, &PKCS11_QUERY)) {
                let known = PKCS11_QUERY.join(", ");
                return Err(error(format!("after `?`, `{unknown}` is not known (but {known} are)")));
            }
            if let Some(other) = find(&path, "type").filter(|value| *value != "private") {
                return Err(error(format!("`type={other}` is no private key")));
            }
        } else if !query.is_empty() {
            return Err(error(format!("a {kind} key takes nothing after `?`")));
        }
        for (attribute, values) in [("presence", &APPLE_PRESENCE[..]), ("provider", &WINDOWS_PROVIDERS[..])] {
            if let Some(other) = find(&path, attribute).filter(|value| !values.contains(value)) {
                return Err(error(format!("`{attribute}={other}` is not one of {}", values.join(", "))));
            }
        }
        match (kind, find(&path, "name")) {
            (KeystoreKind::Soft | KeystoreKind::Signer, name) => {
                check_name(name.unwrap_or("")).map_err(error)?;
            }
            (KeystoreKind::Tpm, Some(name)) => check_name(name).map_err(error)?,
            (KeystoreKind::Windows, name) if name.unwrap_or("").is_empty() => {
                return Err(error("it has no name".into()));
            }
            (KeystoreKind::Apple, _) if find(&path, "label").unwrap_or("").is_empty() => {
                return Err(error("it has no label".into()));
            }
            _ => {}
        }
        Ok(Self { kind, path, query })
    }
}

/// Names of soft and TPM keys become file names, so they are kept plain.
fn check_name(name: &str) -> std::result::Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() {
        Err("it has no name".into())
    } else if name.len() > MAX_NAME {
        Err(format!("its name is longer than {MAX_NAME} bytes"))
    } else if name.starts_with('.') || !name.chars().all(plain) {
        Err("a name is made of letters, digits, `.`, `_` and `-`, and does not begin with a dot".into())
    } else {
        Ok(())
    }
}

fn attributes(text: &str, separator: char) -> std::result::Result<Vec<(String, String)>, String> {
    let mut found: Vec<(String, String)> = Vec::new();
    for part in text.split(separator).filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').ok_or_else(|| format!("`{part}` has no `=`"))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if key.is_empty() || !key.chars().all(plain) {
            return Err(format!("`{key}` is not the name of an attribute"));
        }
        if find(&found, key).is_some() {
            return Err(format!("`{key}` is given twice"));
        }
        let bytes = decode(value)?;
        let value = match key {
            "id" => one_char_per_byte(&bytes),
            _ => String::from_utf8(bytes).map_err(|_| format!("`{value}` is not UTF-8 when decoded"))?,
        };
        found.push((key.to_owned(), value));
    }
    Ok(found)
}

fn one_char_per_byte(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn decode(value: &str) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|c| char::from(c).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => return Err(format!("`{value}` has a `%` without two hexadecimal digits")),
        }
    }
    Ok(bytes)
}

struct Encoded<'a> {
    text: &'a str,
    query: bool,
}

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.text.bytes() {
            let plain = byte.is_ascii_alphanumeric()
                || b"-._~:[]@!$'()*+,=/".contains(&byte)
                || (byte == b'&' && !self.query)
                || (matches!(byte, b'?' | b'|') && self.query);
            if plain {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind)?;
        for (i, (key, text)) in self.path.iter().enumerate() {
            let separator = if i == 0 { "" } else { ";" };
            if key == "id" {
                write!(f, "{separator}{key}=")?;
                text.chars().try_for_each(|c| write!(f, "%{:02X}", c as u8))?;
            } else {
                write!(f, "{separator}{key}={}", Encoded { text, query: false })?;
            }
        }
        for (i, (key, text)) in self.query.iter().enumerate() {
            let separator = if i == 0 { "?" } else { "&" };
            write!(f, "{separator}{key}={}", Encoded { text, query: true })?;
        }
        Ok(())
    }
}

impl fmt::Debug for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyUri({self})")
    }
}

impl TryFrom<String> for KeyUri {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<KeyUri> for String {
    fn from(uri: KeyUri) -> Self {
        uri.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_a_name() {
        for (text, reason) in [
            ("web", "colon"),
            ("sofd:name=web", "no keystore is called `sofd`"),
            ("soft:", "names no key"),
            ("soft:name=", "no name"),
            ("soft:name=../x", "letters"),
            ("soft:name=.x", "dot"),
            ("soft:nam=web", "no attribute `nam`"),
            ("soft:name=a;name=b", "twice"),
            ("soft:name=a%2", "hexadecimal"),
            ("soft:name=a?x=y", "after `?`"),
            ("tpm:name=a/b", "letters"),
            ("signer:name=a/b", "letters"),
            ("signer:name=a;label=b", "it has name"),
            ("pkcs11:object=%FF", "UTF-8"),
            ("pkcs11:object=a?pin-value=1234", "pin-source"),
            ("pkcs11:objekt=a", "it has token, manufacturer"),
            ("pkcs11:object=a;type=cert", "no private key"),
            ("apple:presence=user", "no label"),
            ("apple:label=web;presence=face", "none, user, biometry, passcode"),
            ("windows:provider=platform", "no name"),
            ("windows:name=web;provider=tpm", "platform, software, smartcard"),
            ("pkcs11:object=a?module-name=p11", "module-path"),
        ] {
            let error = text.parse::<KeyUri>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("1234"), "a PIN must not be repeated: {error}");
        }
    }

    #[test]
    fn a_rekey_goes_on_counting() {
        for (key, next) in [
            ("soft:name=web", "soft:name=web-r2"),
            ("soft:name=web-r9", "soft:name=web-r10"),
            ("soft:name=web-rx", "soft:name=web-rx-r2"),
            (
                "pkcs11:token=t;object=k;id=%01?module-path=/m.so",
                "pkcs11:token=t;object=k-r2?module-path=/m.so",
            ),
        ] {
            assert_eq!(key.parse::<KeyUri>().unwrap().successor().to_string(), next);
        }
    }

    #[test]
    fn display_parses_back() {
        for text in [
            "soft:name=web",
            "pkcs11:token=my%20token;object=web%3Bkey;id=%01%02?module-path=/usr/lib/x.so&pin-source=file:/p",
            "tpm:name=web;hierarchy=owner",
            "apple:label=Alice%20Smith%3B;presence=biometry",
            "windows:name=web;provider=smartcard",
            "signer:name=web",
            "tpm:",
            "pkcs11:?module-path=/usr/lib/x.so",
        ] {
            let uri: KeyUri = text.parse().unwrap();
            assert_eq!(uri.to_string().parse::<KeyUri>().unwrap(), uri, "{text}");
        }
        let uri: KeyUri = "pkcs11:token=my%20token;object=a%3Bb".parse().unwrap();
        assert_eq!(uri.attribute("token"), Some("my token"));
        assert_eq!(uri.attribute("object"), Some("a;b"));
        let uri: KeyUri = "pkcs11:id=%ff%00a;x-vendor=1".parse().unwrap();
        assert_eq!(uri.id(), Some(vec![0xff, 0, b'a']));
        assert_eq!(uri.to_string(), "pkcs11:id=%FF%00%61;x-vendor=1");
        assert_eq!(uri.to_string().parse::<KeyUri>().unwrap(), uri);
        assert_eq!(KeyUri::soft("web").unwrap().to_string(), "soft:name=web");
        let uri = KeyUri::apple("Alice;Smith").unwrap();
        assert_eq!(
            (uri.to_string().as_str(), uri.attribute("label")),
            ("apple:label=Alice%3BSmith", Some("Alice;Smith"))
        );
        let uri = KeyUri::windows("te-{1}", Some("software")).unwrap();
        assert_eq!(uri.to_string(), "windows:name=te-%7B1%7D;provider=software");
    }
}
