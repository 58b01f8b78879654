//! `enclasp renew`: a new certificate for an identity, with its key or with a new one; once, or whenever one
//! is due.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use enclasp_enroll::duration;
use enclasp_identity::{Identity, State};
use serde_json::json;

use crate::args::Global;
use crate::command::blocking;
use crate::failure::{Failure, Outcome};
use crate::{output, session};

mod daemon;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp renew laptop             a new certificate for the same key
  enclasp renew laptop --rekey     a new key in the same keystore, and a certificate for it
  enclasp renew --due              whatever is due, for a timer
  enclasp renew --daemon --exec 'systemctl reload nginx'

The authority is the one that enrolled the identity; the present certificate authenticates the
renewal, or that of the identity that was given to `enclasp enroll --with`, so it must not have
expired. Tunnels that use the identity take up the new one by
themselves. If this is interrupted, run it again: the identity is the old or the new one, never
none.

A certificate is due at two thirds of its life, or up to a tenth later, so that not all devices come
at once. If the authority cannot be reached, it is tried again, ever more rarely, and the log says until
when the certificate is good.

After a rekey the old key is kept until the new one has been used, then deleted.")]
pub(crate) struct Renew {
    /// The identity [with --due or --daemon, default: all that an authority can renew].
    #[arg(value_name = "NAME", required_unless_present = "plan")]
    identity: Option<String>,
    /// Make a new key, too.
    #[arg(long)]
    rekey: bool,
    /// Renew what is due, and end.
    #[arg(long, group = "plan")]
    due: bool,
    /// Renew each when it is due, until told to end.
    #[arg(long, group = "plan")]
    daemon: bool,
    /// How long before its end a certificate is due [default: about a third of its life].
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, requires = "plan")]
    before: Option<Duration>,
    /// A command for the shell after each renewal; ENCLASP_IDENTITY says of which identity.
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
}

impl Renew {
    /// Whether it decides itself what to renew.
    pub(crate) fn keeps_to_a_plan(&self) -> bool {
        self.due || self.daemon
    }
}

pub(crate) async fn run(global: &Global, renew: Renew) -> Outcome {
    let state = global.state()?;
    if renew.daemon {
        return daemon::forever(&state, &renew).await;
    }
    if renew.due {
        return daemon::once(&state, &renew).await;
    }
    let identity = state.identities()?.get(renew.identity.as_deref().unwrap_or_default())?;
    let spinner =
        output::Spinner::start(format!("asking {}", identity.authority.as_deref().unwrap_or("nobody")));
    let renewed = renewed(&state, &identity, renew.rekey).await.map_err(|not| not.failure)?;
    drop(spinner);
    let leaf = renewed.leaf()?;
    if global.json {
        output::json(&json!({
            "identity": renewed.name,
            "key": renewed.key,
            "retired_key": renewed.retired,
            "serial": leaf.serial(),
            "not_after": output::time(leaf.not_after()),
        }))?;
    } else {
        output::note(format_args!("renewed `{}`: {}", renewed.name, leaf.describe()));
        if let Some(retired) = &renewed.retired {
            output::note(format_args!(
                "its key is now `{}`; `{retired}` stays until that one has been used",
                renewed.key
            ));
        }
    }
    announce(renew.exec.as_deref(), &renewed).await
}

/// Renews an identity whenever it is due, for ever.
pub(crate) async fn keep(state: &State, identity: String) -> Outcome {
    let (due, daemon, rekey) = (false, true, false);
    let renew = Renew { identity: Some(identity), rekey, due, daemon, before: None, exec: None };
    daemon::rounds(state, &renew).await
}

/// Why an identity was not renewed.
struct NotRenewed {
    failure: Failure,
    /// How long the authority asks to wait.
    retry_after: Option<Duration>,
}

impl From<Failure> for NotRenewed {
    fn from(failure: Failure) -> Self {
        Self { failure, retry_after: None }
    }
}

async fn renewed(state: &State, identity: &Identity, rekey: bool) -> Result<Identity, NotRenewed> {
    let store = state.identities().map_err(Failure::from)?;
    let sponsor = identity.certified_by.as_deref().map(|name| session::sponsor(state, name)).transpose()?;
    let renewed = if rekey {
        let keystore = Arc::new(state.keystore(&identity.key).map_err(Failure::from)?);
        enclasp_enroll::rekey(identity, keystore, sponsor, &store, &state.enrolling()).await
    } else {
        let key = state.open_key(&identity.key).map_err(Failure::from)?;
        enclasp_enroll::renew(identity, key, sponsor, &store).await
    };
    renewed.map_err(|error| NotRenewed { retry_after: error.retry_after(), failure: error.into() })
}

/// Runs the command that was given for after a renewal.
async fn announce(command: Option<&str>, renewed: &Identity) -> Outcome {
    let Some(command) = command.map(str::to_owned) else { return Ok(()) };
    let name = renewed.name.clone();
    blocking(move || {
        let status = Command::new("/bin/sh").arg("-c").arg(&command).env("ENCLASP_IDENTITY", name).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::new(format!("`{command}` ended with {status}"))),
            Err(error) => Err(Failure::new(format!("cannot run `{command}`: {error}"))),
        }
    })
    .await
}
