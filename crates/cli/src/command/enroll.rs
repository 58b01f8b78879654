//! `enclasp enroll`: from a token to an identity in one step.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use enclasp_enroll::{Enrolment, Step, Token, duration};
use enclasp_keystore::{Access, Algorithm, KeySpec, KeyUri, Policy, Presence};
use serde_json::json;

use crate::args::Global;
use crate::failure::{Failure, Outcome};
use crate::{input, output, session};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp enroll --token-file token --identity laptop
  enclasp enroll --token-file - --identity laptop --key soft:name=laptop-key < token

  enclasp enroll --token-file token --identity printer --wait 1h     a person approves in that time

  enclasp enroll --with srv-tpm --identity srv     a software key for a server whose own key is slow

The token says where the authority is and which root to expect there. If this is interrupted,
run it again with the same token: it goes on where it stopped. With --with, the authority is that
of the other identity, which authenticates the renewals of the new one, too.")]
pub(crate) struct Enroll {
    /// File with the token that `enclasp ca token` printed; `-` is standard input.
    #[arg(long, value_name = "FILE", required_unless_present = "with")]
    token_file: Option<PathBuf>,
    /// In place of a token: an identity of an authority of Enclasp's, whose key authenticates the
    /// request. The new identity gets its names.
    #[arg(long, value_name = "IDENTITY", conflicts_with = "token_file")]
    with: Option<String>,
    /// The name that the identity shall have.
    #[arg(long, value_name = "NAME")]
    identity: String,
    /// The key; made if it is not there [default: soft:name=IDENTITY].
    #[arg(long, value_name = "URI")]
    key: Option<KeyUri>,
    /// Type of a key that is made: p256, p384 or ed25519.
    #[arg(long, default_value = "p256")]
    algorithm: Algorithm,
    /// What a key that is made demands before each signature: none, or confirm.
    #[arg(long, default_value_t)]
    presence: Presence,
    /// How long to wait for a person's approval, if the authority demands one.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::parse)]
    wait: Duration,
}

pub(crate) async fn run(global: &Global, enroll: Enroll) -> Outcome {
    let token = enroll.token_file.as_deref().map(token).transpose()?;
    let state = global.state()?;
    enclasp_identity::Store::check_name(&enroll.identity)?;
    let uri = match enroll.key {
        Some(uri) => uri,
        None => KeyUri::soft(&enroll.identity)?,
    };
    let enrolment = Enrolment {
        identity: enroll.identity,
        keystore: Arc::new(state.keystore(&uri)?),
        key: KeySpec {
            uri,
            algorithm: enroll.algorithm,
            policy: Policy { presence: enroll.presence, ..Policy::default() },
            access: Access::default(),
        },
        store: state.identities()?,
        pending: state.enrolling(),
        patience: enroll.wait,
    };
    // What a person has to compare stays on the screen, once.
    let mut said = String::new();
    let spinner = output::Spinner::start("opening the key");
    let identity = match token {
        Some(token) => {
            let progress = |step: Step| match step {
                Step::Waiting { reason } if reason != said => {
                    spinner.note(&reason);
                    said = reason;
                }
                step => spinner.say(describe(&step)),
            };
            enclasp_enroll::enroll(&token, &enrolment, progress).await?
        }
        None => {
            let sponsor = session::sponsor(&state, enroll.with.as_deref().unwrap_or_default())?;
            enclasp_enroll::certify(sponsor, &enrolment).await?
        }
    };
    drop(spinner);
    let leaf = identity.leaf()?;
    if global.json {
        return output::json(&json!({
            "identity": identity.name,
            "key": identity.key,
            "subject": leaf.subject().to_string(),
            "serial": leaf.serial(),
            "not_after": output::time(leaf.not_after()),
            "authority": identity.authority,
        }));
    }
    output::note(format_args!("enrolled `{}`: {}", identity.name, leaf.describe()));
    output::note(format_args!("its key is `{}`", identity.key));
    Ok(())
}

fn token(file: &Path) -> Outcome<Token> {
    let bytes = zeroize::Zeroizing::new(input::file(file)?);
    let text =
        std::str::from_utf8(&bytes).map_err(|_| Failure::new(format!("{} is not text", file.display())))?;
    Ok(Token::parse(text.trim())?)
}

fn describe(step: &Step) -> String {
    match step {
        Step::Resumed { key } => format!("going on with the key `{key}`"),
        Step::KeyMade(key) => format!("made the key `{key}`"),
        Step::KeyFound(key) => format!("found the key `{key}`"),
        Step::Requesting { authority } => format!("asking {authority} for a certificate"),
        Step::Waiting { .. } => "waiting for a person's approval".to_owned(),
        Step::Certified { subject, .. } => format!("got a certificate for {subject}"),
        Step::Stored { identity } => format!("stored the identity `{identity}`"),
        _ => "working".to_owned(),
    }
}
