//! Lists of revoked certificates, from files and URLs.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use enclasp_enroll::duration;
use enclasp_tls::Revocation;
use enclasp_tunnel::{Error, HttpUrl};
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use tokio::runtime::Handle;

use crate::failure::{Failure, Outcome};
use crate::input;

/// How long a list may take to come.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);

/// No list is larger.
const MAX_LIST: usize = 64 << 20;

/// Which certificates were revoked.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Revoked certificates")]
pub(super) struct RevocationFlags {
    /// A list of revoked certificates: a file (PEM or DER), or an http:// URL, which is fetched when the
    /// tunnel starts, every --crl-refresh, and at no handshake. Repeatable.
    #[arg(long, value_name = "FILE|URL")]
    crl: Vec<ListSource>,
    /// How often lists are fetched again.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration::parse)]
    crl_refresh: Duration,
    /// Refuse certificates of whose issuer there is no list, or an outdated one [default: refuse
    /// those that a list names].
    #[arg(long)]
    crl_strict: bool,
}

#[derive(Clone)]
enum ListSource {
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
        Ok(())
    }

    /// How often to read all again, if lists are fetched.
    pub(super) fn refresh(&self) -> Option<Duration> {
        let fetched = self.crl.iter().any(|list| matches!(list, ListSource::Url(_)));
        (fetched && !self.crl_refresh.is_zero()).then_some(self.crl_refresh)
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.crl.iter().filter_map(|list| match list {
            ListSource::File(path) => Some(path),
            ListSource::Url(_) => None,
        })
    }

    /// Reads and fetches the lists. Not for async workers.
    ///
    /// # Errors
    /// If one of them cannot be had.
    pub(super) fn load(&self) -> Outcome<Revocation> {
        let mut lists = Vec::new();
        for source in &self.crl {
            let bytes = match source {
                ListSource::File(path) => input::file(path)?,
                ListSource::Url(url) => Handle::current().block_on(url.get(FETCH_TIMEOUT, MAX_LIST))?,
            };
            lists.extend(parse(&bytes).map_err(|reason| Failure::new(format!("{source}: {reason}")))?);
        }
        Ok(Revocation { lists, strict: self.crl_strict })
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    // DER begins with SEQUENCE.
    if bytes.first() == Some(&0x30) {
        return Ok(vec![bytes.to_vec().into()]);
    }
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
    match lists {
        Ok(lists) if !lists.is_empty() => Ok(lists),
        Ok(_) => Err("there is no list of revoked certificates (X509 CRL) in it".into()),
        Err(error) => Err(format!("it cannot be read as PEM: {error}")),
    }
}
