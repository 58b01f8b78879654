//! The flags about revoked certificates.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use enclasp_enroll::duration;
use enclasp_tunnel::{Error, HttpUrl};

use crate::failure::{Failure, Outcome};

/// Which certificates were revoked.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Revoked certificates")]
pub(super) struct RevocationFlags {
    /// A list of revoked certificates: a file (PEM or DER), or an http:// URL, which is fetched ahead and at
    /// no handshake. Repeatable.
    #[arg(long, value_name = "FILE|URL")]
    crl: Vec<ListSource>,
    /// How often URLs are fetched again [default: as often as the server says, 5s to 1h; 1h if it does not].
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    crl_refresh: Option<Duration>,
    /// Refuse certificates of whose issuer there is no list, or an outdated one [default: refuse
    /// those that a list names].
    #[arg(long)]
    crl_strict: bool,
}

/// Where lists come from.
#[derive(Clone, PartialEq)]
pub(super) enum ListSource {
    File(PathBuf),
    Url(HttpUrl),
}

impl FromStr for ListSource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.contains("://") {
            true => text.parse().map(Self::Url),
            false => Ok(Self::File(text.into())),
        }
    }
}

impl fmt::Display for ListSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(url) => write!(f, "{url}"),
        }
    }
}

impl RevocationFlags {
    /// Checks what can be checked beforehand.
    pub(super) fn check(&self) -> Outcome {
        if self.crl_strict && self.crl.is_empty() {
            return Err(Failure::usage("--crl-strict without a list would refuse everybody")
                .hint("name a list with --crl FILE, or leave out --crl-strict"));
        }
        if self.crl_refresh.is_some_and(|every| every.is_zero()) {
            return Err(Failure::usage("--crl-refresh is 0").hint("for example 1m"));
        }
        Ok(())
    }

    pub(super) fn sources(&self) -> &[ListSource] {
        &self.crl
    }

    pub(super) fn is_strict(&self) -> bool {
        self.crl_strict
    }

    /// How often to fetch lists again, if that was said.
    pub(super) fn refresh(&self) -> Option<Duration> {
        self.crl_refresh
    }
}
