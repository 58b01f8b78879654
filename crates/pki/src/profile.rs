//! What certificates are for, and the rules that they are issued by.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use const_oid::ObjectIdentifier;
use const_oid::db::DB;
use const_oid::db::rfc5280::{
    ANY_EXTENDED_KEY_USAGE, ID_KP_CLIENT_AUTH, ID_KP_OCSP_SIGNING, ID_KP_SERVER_AUTH,
};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A side of a TLS connection, for which a certificate has to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To authenticate a client: id-kp-clientAuth.
    Client,
    /// To authenticate a server: id-kp-serverAuth.
    Server,
}

impl Purpose {
    pub(crate) fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Client => ID_KP_CLIENT_AUTH,
            Self::Server => ID_KP_SERVER_AUTH,
        }
    }
}

/// The name of its extended key usage (RFC 5280 §4.2.1.12): `clientAuth`, `serverAuth`.
impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "clientAuth",
            Self::Server => "serverAuth",
        })
    }
}

/// One of the purposes that extendedKeyUsage lists (KeyPurposeId, RFC 5280 §4.2.1.12).
///
/// Its text form, which serde uses too, is its name without `id-kp-`, or its OID if it has no name
/// here: `clientAuth`, `emailProtection`, `1.3.6.1.4.1.311.20.2.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyPurpose(pub(crate) ObjectIdentifier);

impl From<Purpose> for KeyPurpose {
    fn from(purpose: Purpose) -> Self {
        Self(purpose.oid())
    }
}

impl FromStr for KeyPurpose {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |reason: &str, hint: Option<&str>| Error::Name {
            what: "extended key usage",
            text: text.escape_debug().to_string(),
            reason: reason.into(),
            hint: hint.map(str::to_owned),
        };
        let named = DB.by_name(&format!("id-kp-{text}")).copied();
        let oid = named.or_else(|| text.parse().ok()).ok_or_else(|| {
            refuse("it is neither a known name nor an OID", Some("clientAuth, serverAuth or emailProtection"))
        })?;
        if [ANY_EXTENDED_KEY_USAGE, ID_KP_OCSP_SIGNING].contains(&oid) {
            return Err(refuse("whoever has it could speak for the authority", None));
        }
        Ok(Self(oid))
    }
}

impl fmt::Display for KeyPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DB.by_oid(&self.0) {
            Some(name) => f.write_str(name.strip_prefix("id-kp-").unwrap_or(name)),
            None => write!(f, "{}", self.0),
        }
    }
}

impl TryFrom<String> for KeyPurpose {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<KeyPurpose> for String {
    fn from(purpose: KeyPurpose) -> Self {
        purpose.to_string()
    }
}

/// The rules of one kind of end-entity certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What it is called on the command line.
    pub name: String,
    /// What its certificates are good for.
    pub extended_key_usages: Vec<KeyPurpose>,
    /// How long a certificate lives if nobody says otherwise.
    pub default_lifetime: Duration,
    /// How long a certificate lives at most; more than that is cut to it.
    pub max_lifetime: Duration,
    /// Whether its certificates say that nobody publishes their revocation (noRevAvail, RFC 9608), as they
    /// end soon anyway. Then they name neither a CRL nor an OCSP responder.
    pub no_rev_avail: bool,
    /// What its certificates tell whoever reads them, in at most 200 characters: the explicit text of a
    /// userNotice (RFC 5280 §4.2.1.4). Nothing is decided by it.
    pub notice: Option<String>,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Profile {
    /// `client`: clientAuth, for 30 days by default and at most 90.
    pub fn client() -> Self {
        Self::of("client", Purpose::Client)
    }

    /// `server`: serverAuth, for 30 days by default and at most 90.
    pub fn server() -> Self {
        Self::of("server", Purpose::Server)
    }

    fn of(name: &str, purpose: Purpose) -> Self {
        Self {
            name: name.to_owned(),
            extended_key_usages: vec![purpose.into()],
            default_lifetime: 30 * DAY,
            max_lifetime: 90 * DAY,
            no_rev_avail: false,
            notice: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_have_names_or_oids() {
        for text in ["clientAuth", "serverAuth", "emailProtection", "1.3.6.1.4.1.311.20.2.2"] {
            assert_eq!(text.parse::<KeyPurpose>().unwrap().to_string(), text);
        }
        assert_eq!("1.3.6.1.5.5.7.3.2".parse::<KeyPurpose>().unwrap(), Purpose::Client.into());
        for (text, reason) in [
            ("clientauthentication", "neither"),
            ("", "neither"),
            ("OCSPSigning", "speak for the authority"),
            ("2.5.29.37.0", "speak for the authority"),
        ] {
            assert!(text.parse::<KeyPurpose>().unwrap_err().to_string().contains(reason), "{text}");
        }
    }
}
