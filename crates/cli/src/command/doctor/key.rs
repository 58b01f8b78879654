//! `enclasp doctor key`.

use std::time::{Duration, Instant};

use enclasp_doctor::{KeyObservation, examine_key};
use enclasp_keystore::{Describe, Input, KeyUri, Keystore, SignContext, prove};

use super::conclude;
use super::file::{self, KeyFile, KeyOrFile};
use crate::args::Global;
use crate::failure::{Failure, Outcome};
use crate::output;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp doctor key soft:name=web
  enclasp doctor key 'pkcs11:token=HSM;object=web?module-path=/usr/lib/softhsm/libsofthsm2.so'
  enclasp doctor key web.key --cert web.pem            a key file, and whether it is for that certificate")]
pub(crate) struct Key {
    /// The key in a keystore, or the file that holds one.
    #[arg(value_name = "URI|FILE")]
    key: KeyOrFile,
    #[command(flatten)]
    file: KeyFile,
}

/// How many signatures are timed, unless each asks a person.
const SAMPLES: usize = 20;

/// No more time than this is spent on them.
const ENOUGH: Duration = Duration::from_secs(10);

pub(crate) fn run(global: &Global, key: Key) -> Outcome {
    match key.key {
        KeyOrFile::File(path) => file::key(global, path, key.file),
        KeyOrFile::Uri(_) if key.file.is_wanted() => Err(Failure::usage(
            "--cert, --password-file and --fix are for key files, not for keys in a keystore",
        )),
        KeyOrFile::Uri(uri) => keystore(global, &uri),
    }
}

fn keystore(global: &Global, uri: &KeyUri) -> Outcome {
    let mut seen = KeyObservation {
        key: uri.to_string(),
        info: Err(enclasp_keystore::Error::Absent { key: uri.to_string() }),
        proofs: Vec::new(),
        latencies: Vec::new(),
        device: None,
    };
    let keystore = global.state()?.keystore(uri)?;
    // Before a PIN is asked for. Why there is none, the key itself says better.
    seen.device = keystore.device(uri).ok();
    match keystore.open(uri) {
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
