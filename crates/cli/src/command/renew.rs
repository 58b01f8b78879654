//! `enclasp renew`: a new certificate for an identity, with its key or with a new one.

use std::sync::Arc;

use serde_json::json;

use crate::args::Global;
use crate::failure::Outcome;
use crate::{output, session};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp renew laptop             a new certificate for the same key
  enclasp renew laptop --rekey     a new key in the same keystore, and a certificate for it

The authority is the one that enrolled the identity; the present certificate authenticates the
renewal, or that of the identity that was given to `enclasp enroll --with`, so it must not have
expired. Tunnels that use the identity take up the new one by
themselves. If this is interrupted, run it again: the identity is the old or the new one, never
none.

After a rekey the old key is kept until the new one has been used, then deleted.")]
pub(crate) struct Renew {
    /// The identity.
    #[arg(value_name = "NAME")]
    identity: String,
    /// Make a new key, too.
    #[arg(long)]
    rekey: bool,
}

pub(crate) async fn run(global: &Global, renew: Renew) -> Outcome {
    let state = global.state()?;
    let store = state.identities()?;
    let identity = store.get(&renew.identity)?;
    let spinner =
        output::Spinner::start(format!("asking {}", identity.authority.as_deref().unwrap_or("nobody")));
    let sponsor = identity.certified_by.as_deref().map(|name| session::sponsor(&state, name)).transpose()?;
    let renewed = if renew.rekey {
        let keystore = Arc::new(state.keystore(&identity.key)?);
        enclasp_enroll::rekey(&identity, keystore, sponsor, &store, &state.enrolling()).await?
    } else {
        enclasp_enroll::renew(&identity, state.open_key(&identity.key)?, sponsor, &store).await?
    };
    drop(spinner);
    let leaf = renewed.leaf()?;
    if global.json {
        return output::json(&json!({
            "identity": renewed.name,
            "key": renewed.key,
            "retired_key": renewed.retired,
            "serial": leaf.serial(),
            "not_after": output::time(leaf.not_after()),
        }));
    }
    output::note(format_args!("renewed `{}`: {}", renewed.name, leaf.describe()));
    if let Some(retired) = renewed.retired {
        output::note(format_args!(
            "its key is now `{}`; `{retired}` stays until that one has been used",
            renewed.key
        ));
    }
    Ok(())
}
