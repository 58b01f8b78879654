//! What certificates are for, and the rules that they are issued by.

use std::fmt;
use std::time::Duration;

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};

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

/// The rules of one kind of end-entity certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What it is called on the command line.
    pub name: String,
    /// What its certificates are good for; a profile may have both purposes.
    pub extended_key_usages: Vec<Purpose>,
    /// How long a certificate lives if nobody says otherwise.
    pub default_lifetime: Duration,
    /// How long a certificate lives at most; more than that is cut to it.
    pub max_lifetime: Duration,
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

    /// The built-in profile of that name.
    ///
    /// # Errors
    /// [`Error::Name`] if there is none.
    pub fn by_name(name: &str) -> Result<Self> {
        match name {
            "client" => Ok(Self::client()),
            "server" => Ok(Self::server()),
            _ => Err(Error::Name {
                what: "profile",
                text: name.to_owned(),
                reason: "there are client and server".into(),
                hint: None,
            }),
        }
    }

    fn of(name: &str, purpose: Purpose) -> Self {
        Self {
            name: name.to_owned(),
            extended_key_usages: vec![purpose],
            default_lifetime: 30 * DAY,
            max_lifetime: 90 * DAY,
        }
    }
}
