//! Which identity a connection is made with.

use std::time::SystemTime;

use enclasp_identity::{Criteria, Identity, State, select};
use enclasp_pki::{DistinguishedName, Purpose};

use crate::failure::{Failure, Outcome};
use crate::output;

/// Which identity a client presents.
#[derive(clap::Args)]
pub(crate) struct Choice {
    /// The identity to present [default: the one that fits best; -v says why].
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Choose among the identities whose chain this issuer is part of: CN=Acme Issuing CA.
    #[arg(long, value_name = "NAME", conflicts_with = "identity")]
    issuer: Option<DistinguishedName>,
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
