//! Which identity a connection is made with, and what its use means for the key before it.

use std::time::{Duration, SystemTime};

use enclasp_enroll::Sponsor;
use enclasp_identity::{Criteria, Identity, State, select};
use enclasp_pki::{DistinguishedName, Purpose};

use crate::failure::{Failure, Outcome};
use crate::output;

/// Which identity a client presents.
#[derive(clap::Args, Clone)]
pub(crate) struct Choice {
    /// The identity to present [default: the one that fits best; -v says why].
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Choose among the identities whose chain this issuer is part of: CN=Acme Issuing CA.
    #[arg(long, value_name = "NAME", conflicts_with = "identity")]
    issuer: Option<DistinguishedName>,
}

impl Choice {
    /// The identity of that name.
    pub(crate) fn of(name: String) -> Self {
        Self { identity: Some(name), issuer: None }
    }

    /// Whether anything was said.
    pub(crate) fn is_given(&self) -> bool {
        self.identity.is_some() || self.issuer.is_some()
    }
}

/// The identity that was named; without a name the one that fits a client best, or none if there
/// are none at all. With `explain`, the choice is explained on standard error.
pub(crate) fn client_identity(state: &State, choice: &Choice, explain: bool) -> Outcome<Option<Identity>> {
    let store = state.identities()?;
    if let Some(name) = &choice.identity {
        return Ok(Some(store.get(name)?));
    }
    let identities: Vec<Identity> = store.list()?.into_iter().filter_map(Result::ok).collect();
    if identities.is_empty() {
        return Ok(None);
    }
    let criteria = Criteria {
        purpose: Purpose::Client,
        issuers: choice.issuer.iter().cloned().collect(),
        now: SystemTime::now(),
    };
    let selection = select(&identities, &criteria);
    if explain {
        for line in selection.explain() {
            output::note(line);
        }
    }
    match selection.chosen {
        Some(identity) => Ok(Some(identity)),
        None => Err(Failure::new("none of the identities fits a client").hint(format!(
            "{}; name one with --identity to use it all the same",
            selection.explain().join("; ")
        ))),
    }
}

/// The identity that pays for the certificates of another.
pub(crate) fn sponsor(state: &State, name: &str) -> Outcome<Sponsor> {
    let identity = state.identities()?.get(name)?;
    let key = state.open_key(&identity.key)?;
    Ok(Sponsor { identity, key })
}

/// How long a key that a rekey put out of service stays after the new one has been used, for other
/// programs to notice the new identity.
const ROLLOVER: Duration = Duration::from_secs(60);

/// Deletes the key that a rekey of `identity` put out of service, now that the new one has been
/// used. What goes wrong is logged: the connection is good all the same.
pub(crate) fn used(state: &State, identity: &Identity) {
    let Some(retired) = &identity.retired else { return };
    if identity.updated.elapsed().is_ok_and(|age| age < ROLLOVER) {
        return;
    }
    let done = || -> Outcome {
        let store = state.identities()?;
        // Not if it was renewed once more since it was opened here.
        if store.get(&identity.name)? == *identity {
            enclasp_enroll::retire(identity, &state.keystore(retired)?, &store)?;
            tracing::info!(key = %retired, identity = identity.name, "deleted the key before the rekey");
        }
        Ok(())
    };
    if let Err(failure) = done() {
        tracing::warn!(key = %retired, cause = failure.message(), "the key before the rekey stays");
    }
}
