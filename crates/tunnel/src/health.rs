//! How a tunnel is: what it listens on, whether its target answers, when it was reloaded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use enclasp_pki::rfc3339;
use serde::Serialize;

use crate::http::{HttpUrl, Method};
use crate::{Endpoint, Result};

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
}

/// How to find out whether the target is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetCheck {
    /// By connecting to it.
    Connect,
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
}

impl Health {
    /// Of a tunnel that has just begun to listen.
    pub fn new(listen: Endpoint, target: Endpoint, check: TargetCheck) -> Self {
        let state = State { message: LISTENING, last_reload: SystemTime::now() };
        Self(Arc::new(Inner { listen, target, check, state: Mutex::new(state) }))
    }

    /// It was reloaded now.
    pub fn reloaded(&self) {
        self.state().last_reload = SystemTime::now();
    }

    /// It does not listen any more.
    pub fn stopping(&self) {
        self.state().message = "stopping";
    }

    /// Looks at the target and says how everything is.
    pub async fn report(&self) -> HealthReport {
        let backend_error = self.check().await.err();
        let State { message, last_reload } = *self.state();
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
        }
    }

    async fn check(&self) -> std::result::Result<(), String> {
        match &self.0.check {
            TargetCheck::Connect => self.connect().await.map_err(|e| e.to_string()),
            TargetCheck::Http(url) => match url.request(Method::Get, None, CHECK_TIMEOUT).await {
                Ok(200) => Ok(()),
                Ok(code) => Err(format!("{url} answers {code}")),
                Err(error) => Err(error.to_string()),
            },
        }
    }

    async fn connect(&self) -> Result<()> {
        self.0.target.connect(CHECK_TIMEOUT).await.map(drop)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const LISTENING: &str = "listening";

fn in_a_word(ok: bool) -> &'static str {
    if ok { "ok" } else { "critical" }
}
