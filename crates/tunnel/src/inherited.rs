//! Listeners that the service manager passes on (sd_listen_fds(3)).

use std::sync::{Mutex, PoisonError};

use listenfd::ListenFd;

use crate::endpoint::Listener;
use crate::{Error, Result};

/// What was passed on and nobody has taken yet, with its names. It is the process's, not a tunnel's.
static PASSED_ON: Mutex<Option<PassedOn>> = Mutex::new(None);

struct PassedOn {
    listeners: ListenFd,
    names: Vec<String>,
}

/// Takes the listener of that name. One that was passed on without a name is called `unknown`, as
/// systemd calls it.
pub(crate) fn take(name: &str) -> Result<Listener> {
    let error = |reason: String| Error::Inherited { name: format!("systemd:{name}"), reason };
    let mut passed_on = PASSED_ON.lock().unwrap_or_else(PoisonError::into_inner);
    let PassedOn { listeners, names } = passed_on.get_or_insert_with(PassedOn::from_environment);
    let Some(index) = names.iter().position(|given| given == name) else {
        let given = if names.is_empty() { "none at all".to_owned() } else { names.join(", ") };
        return Err(error(format!("no listener of that name was passed on (but {given})")));
    };
    let listener = match listeners.take_tcp_listener(index) {
        Ok(taken) => taken.map(Listener::of_tcp),
        Err(_) => {
            listeners.take_unix_listener(index).map_err(|e| error(e.to_string()))?.map(Listener::of_unix)
        }
    };
    listener.ok_or_else(|| error("it is in use already".into()))?.map_err(|e| error(e.to_string()))
}

impl PassedOn {
    fn from_environment() -> Self {
        let listeners = ListenFd::from_env();
        let named = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names: Vec<String> =
            named.split(':').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        names.resize(listeners.len(), "unknown".to_owned());
        Self { listeners, names }
    }
}
