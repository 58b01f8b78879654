//! How a tunnel is: what it listens on, whether its target answers, when it was reloaded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use enclasp_pki::rfc3339;
use serde::Serialize;

use crate::{Endpoint, HttpUrl, Proxy};

/// How long the target has to answer a check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The state of one tunnel. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    listen: Endpoint,
    target: Endpoint,
    check: TargetCheck,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    message: &'static str,
    last_reload: SystemTime,
    revocation: Option<RevocationReport>,
}

/// How to find out whether the target is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetCheck {
    /// By connecting to it.
    Connect,
    /// By connecting to it through a proxy.
    Through(Proxy),
    /// By a GET request that has to be answered with 200.
    Http(HttpUrl),
}

/// A tunnel's state, with the field names that ghostunnel uses.
#[derive(Clone, Debug, Serialize)]
pub struct HealthReport {
    /// Whether it listens and its target answers.
    pub ok: bool,
    /// `ok` or `critical`.
    pub status: &'static str,
    /// Where it listens.
    pub listen_address: String,
    /// Its target.
    pub forward_address: String,
    /// Whether the target answers.
    pub backend_ok: bool,
    /// `ok` or `critical`.
    pub backend_status: &'static str,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_error: Option<String>,
    /// RFC 3339, UTC, as all times.
    pub time: String,
    /// When what it presents and trusts was read last.
    pub last_reload: String,
    /// `listening`, `stopping`.
    pub message: &'static str,
    /// Where it looks up whether certificates were revoked, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation: Option<RevocationReport>,
}

/// Where a tunnel looks up whether certificates were revoked.
#[derive(Clone, Debug, Serialize)]
pub struct RevocationReport {
    /// What happens to a certificate of whose issuer there is no list, or an outdated one: `open`, it
    /// passes; `strict`, it is refused.
    pub fail_mode: &'static str,
    /// The lists, and the sources that have yielded none.
    pub lists: Vec<ListReport>,
}

/// A list of revoked certificates, or its absence.
#[derive(Clone, Debug, Serialize)]
pub struct ListReport {
    /// The file or URL.
    pub source: String,
    /// When it was read from there last, or found unchanged.
    pub last_fetch: Option<String>,
    /// Why it could not be had since.
    pub error: Option<String>,
    /// What it says of itself.
    #[serde(flatten)]
    pub list: Option<ListFacts>,
}

/// What a list of revoked certificates says of itself.
#[derive(Clone, Debug, Serialize)]
pub struct ListFacts {
    /// Whose certificates it is about (RFC 4514).
    pub issuer: String,
    /// Its CRL number in hexadecimal.
    pub number: Option<String>,
    /// When it was signed.
    pub this_update: String,
    /// By when there is a newer one.
    pub next_update: Option<String>,
    /// How many certificates it names.
    pub revoked: usize,
}

impl Health {
    /// Of a tunnel that has just begun to listen.
    pub fn new(listen: Endpoint, target: Endpoint, check: TargetCheck) -> Self {
        let state = State { message: LISTENING, last_reload: SystemTime::now(), revocation: None };
        Self(Arc::new(Inner { listen, target, check, state: Mutex::new(state) }))
    }

    /// It was reloaded now.
    pub fn reloaded(&self) {
        self.state().last_reload = SystemTime::now();
    }

    /// This is where it looks up whether certificates were revoked, from now on.
    pub fn looks_up_in(&self, revocation: RevocationReport) {
        self.state().revocation = Some(revocation);
    }

    /// It does not listen any more.
    pub fn stopping(&self) {
        self.state().message = "stopping";
    }

    /// Looks at the target and says how everything is.
    pub async fn report(&self) -> HealthReport {
        let backend_error = self.check().await.err();
        let (message, last_reload, revocation) = {
            let state = self.state();
            (state.message, state.last_reload, state.revocation.clone())
        };
        let backend_ok = backend_error.is_none();
        let ok = backend_ok && message == LISTENING;
        HealthReport {
            ok,
            status: in_a_word(ok),
            listen_address: self.0.listen.to_string(),
            forward_address: self.0.target.to_string(),
            backend_ok,
            backend_status: in_a_word(backend_ok),
            backend_error,
            time: rfc3339(SystemTime::now()),
            last_reload: rfc3339(last_reload),
            message,
            revocation,
        }
    }

    async fn check(&self) -> std::result::Result<(), String> {
        let answered = match &self.0.check {
            TargetCheck::Connect => self.0.target.connect(CHECK_TIMEOUT).await.map(drop),
            TargetCheck::Through(proxy) => proxy.connect(&self.0.target, CHECK_TIMEOUT).await.map(drop),
            TargetCheck::Http(url) => match url.ask(CHECK_TIMEOUT).await {
                Ok(200) => Ok(()),
                Ok(code) => return Err(format!("{url} answers {code}")),
                Err(error) => Err(error),
            },
        };
        answered.map_err(|error| error.to_string())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const LISTENING: &str = "listening";

fn in_a_word(ok: bool) -> &'static str {
    if ok { "ok" } else { "critical" }
}
