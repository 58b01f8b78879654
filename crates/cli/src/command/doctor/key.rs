//! `enclasp doctor key`.

use std::time::{Duration, Instant};

use enclasp_doctor::{KeyObservation, examine_key};
use enclasp_keystore::{Input, KeyUri, Keystore, SignContext, prove};

use super::conclude;
use crate::args::Global;
use crate::failure::Outcome;
use crate::output;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp doctor key soft:name=web
  enclasp doctor key 'pkcs11:token=HSM;object=web?module-path=/usr/lib/softhsm/libsofthsm2.so'")]
pub(crate) struct Key {
    /// The key URI.
    uri: KeyUri,
}

/// How many signatures are timed, unless each asks a person.
const SAMPLES: usize = 20;

/// No more time than this is spent on them.
const ENOUGH: Duration = Duration::from_secs(10);

pub(crate) fn run(global: &Global, key: Key) -> Outcome {
    let mut seen = KeyObservation {
        key: key.uri.to_string(),
        info: Err(enclasp_keystore::Error::Absent { key: key.uri.to_string() }),
        proofs: Vec::new(),
        latencies: Vec::new(),
    };
    match global.state()?.keystore(&key.uri)?.open(&key.uri) {
        Err(error) => seen.info = Err(error),
        Ok(key) => try_key(&*key, &mut seen)?,
    }
    conclude(global, &examine_key(&seen))
}

fn try_key(key: &dyn enclasp_keystore::Key, seen: &mut KeyObservation) -> Outcome {
    let info = key.info();
    let prompts = info.policy.prompts();
    if prompts {
        output::note(format_args!(
            "`{}` asks a person: you will be asked {} time(s)",
            info.uri,
            info.algorithm.schemes().len()
        ));
    }
    seen.proofs = prove(key, &SignContext::new("the doctor tries what the key can do"))?;
    if let Some(proved) = seen.proofs.iter().find(|proof| proof.outcome.is_ok()).filter(|_| !prompts) {
        let started = Instant::now();
        while seen.latencies.len() < SAMPLES && started.elapsed() < ENOUGH {
            let before = Instant::now();
            let context = SignContext::new("the doctor measures the key");
            if key.sign(proved.scheme, Input::Message(b"how long does this take?"), &context).is_err() {
                break;
            }
            seen.latencies.push(before.elapsed());
        }
    }
    seen.info = Ok(info.clone());
    Ok(())
}
