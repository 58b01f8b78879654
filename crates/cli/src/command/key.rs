//! `enclasp key`: make, list, show, prove and delete keys.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Subcommand;
use enclasp_identity::State;
use enclasp_keystore::{
    Access, Algorithm, KeyInfo, KeySpec, KeyUri, Keystore, KeystoreKind, Origin, Policy, Presence,
    SignContext, prove,
};
use enclasp_pki::pem;
use serde::Serialize;

use crate::args::Global;
use crate::failure::{Failure, Outcome};
use crate::{input, output};

#[derive(clap::Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a key pair. The private key never leaves its keystore.
    #[command(after_help = "Examples:
  enclasp key create soft:name=web
  enclasp key create soft:name=signer --algorithm p384 --presence confirm
  enclasp key create soft:name=web --allow-uid 33      user 33 may sign with it too
  enclasp key create tpm:name=web                      in this machine's TPM
  enclasp key create 'pkcs11:token=HSM;object=web?module-path=/usr/lib/x.so&pin-source=file:/etc/hsm.pin'

The PIN of a token is asked for by pinentry, unless `pin-source`, ENCLASP_PIN_FILE or ENCLASP_PIN
gives it.")]
    Create {
        /// The key URI that it shall have: soft:name=NAME, tpm:name=NAME or pkcs11:token=TOKEN;object=NAME.
        uri: KeyUri,
        /// Type of the key: p256, p384, ed25519 or, in hardware, rsa.
        #[arg(long, default_value = "p256")]
        algorithm: Algorithm,
        /// What it demands before each signature: none, or confirm (a person agrees).
        #[arg(long, default_value_t)]
        presence: Presence,
        /// Give the key a PIN of its own (TPM), which pinentry asks for now and when it first signs.
        #[arg(long)]
        pin: bool,
        /// The same, and read the new PIN from a file.
        #[arg(long, value_name = "FILE")]
        pin_file: Option<PathBuf>,
        /// A user, by number, who may see and use it besides the owner of the keystore. Repeatable.
        #[arg(long, value_name = "UID")]
        allow_uid: Vec<u32>,
        /// The same for a group.
        #[arg(long, value_name = "GID")]
        allow_gid: Vec<u32>,
    },
    /// List the keys: the software keys, or those of the keystore that a URI names.
    #[command(after_help = "Examples:
  enclasp key list
  enclasp key list tpm:
  enclasp key list 'pkcs11:?module-path=/usr/lib/softhsm/libsofthsm2.so'
  enclasp key list 'pkcs11:token=HSM?module-path=/usr/lib/softhsm/libsofthsm2.so'")]
    List {
        /// A keystore, or some of its keys: tpm:, pkcs11:?module-path=PATH.
        uri: Option<KeyUri>,
    },
    /// Show a key: public key, policy, and the schemes it was proved to sign with.
    Show {
        /// The key URI.
        uri: KeyUri,
    },
    /// Have a key sign with every scheme that fits it, and record which ones it can do.
    Probe {
        /// The key URI.
        uri: KeyUri,
    },
    /// Destroy a key for good.
    #[command(after_help = "Examples:
  enclasp key delete soft:name=web
  enclasp key delete soft:name=web --yes     in a script, where nobody can be asked

The keys of an authority are keys like others: without them it can issue nothing any more.")]
    Delete {
        /// The key URI.
        uri: KeyUri,
        /// Do not ask, and delete it although an identity uses it.
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) fn run(global: &Global, key: Key) -> Outcome {
    let state = global.state()?;
    match key.verb {
        Verb::Create { uri, algorithm, presence, pin, pin_file, allow_uid, allow_gid } => {
            let spec = KeySpec {
                algorithm,
                policy: Policy { presence, pin: pin || pin_file.is_some() },
                access: Access { uids: allow_uid, gids: allow_gid },
                uri,
            };
            let keystore = state.keystore(&spec.uri)?;
            if let Some(file) = pin_file {
                keystore
                    .unlock(&spec.uri, input::secret("PIN", Some(&file), "ENCLASP_PIN", "--pin-file")?)?;
            }
            let key = keystore.create(&spec)?;
            print(global, key.info())
        }
        Verb::List { uri } => list(global, &state, uri.as_ref()),
        Verb::Show { uri } => print(global, state.open_key(&uri)?.info()),
        Verb::Probe { uri } => probe(global, &state, &uri),
        Verb::Delete { uri, yes } => delete(&state, &uri, yes),
    }
}

/// The facts about a key, as `--json` prints them.
#[derive(Serialize)]
pub(crate) struct KeyFacts {
    uri: KeyUri,
    algorithm: Algorithm,
    presence: Presence,
    /// Whether it has a PIN of its own.
    pin: bool,
    /// Schemes that may be used, the natural one first.
    schemes: Vec<&'static str>,
    origin: Origin,
    /// `null` where the hardware does not say.
    created: Option<String>,
    /// SHA-256 of the DER SubjectPublicKeyInfo, in hexadecimal.
    public_key_sha256: String,
    public_key_pem: String,
    allowed_uids: Vec<u32>,
    allowed_gids: Vec<u32>,
}

impl From<&KeyInfo> for KeyFacts {
    fn from(info: &KeyInfo) -> Self {
        Self {
            uri: info.uri.clone(),
            algorithm: info.algorithm,
            presence: info.policy.presence,
            pin: info.policy.pin,
            schemes: info.usable_schemes().into_iter().map(|scheme| scheme.name()).collect(),
            origin: info.origin,
            created: (info.created != SystemTime::UNIX_EPOCH).then(|| output::time(info.created)),
            public_key_sha256: enclasp_pki::hex(&enclasp_pki::sha256(&info.spki)),
            public_key_pem: pem::encode("PUBLIC KEY", &info.spki),
            allowed_uids: info.access.uids.clone(),
            allowed_gids: info.access.gids.clone(),
        }
    }
}

fn print(global: &Global, info: &KeyInfo) -> Outcome {
    let facts = KeyFacts::from(info);
    if global.json {
        return output::json(&facts);
    }
    let origin = match info.origin {
        Origin::Generated => "made in its keystore; it has never been anywhere else",
        Origin::Imported if info.uri.kind() == KeystoreKind::Soft => {
            "imported: a software key, copies may exist"
        }
        Origin::Imported => "not vouched for by its keystore: copies may exist",
    };
    let mut rows = vec![
        ("key", facts.uri.to_string()),
        ("algorithm", info.algorithm.to_string()),
        ("presence", facts.presence.to_string()),
        ("PIN", if facts.pin { "its own" } else { "none of its own" }.to_owned()),
        ("schemes", facts.schemes.join(" ")),
        ("origin", origin.to_owned()),
        ("created", facts.created.unwrap_or_else(|| UNKNOWN.to_owned())),
        ("SHA-256", facts.public_key_sha256),
    ];
    let others = [("uid", &facts.allowed_uids), ("gid", &facts.allowed_gids)];
    let others: Vec<String> =
        others.iter().flat_map(|(kind, ids)| ids.iter().map(move |id| format!("{kind} {id}"))).collect();
    if !others.is_empty() {
        rows.push(("allowed", others.join(", ")));
    }
    output::table(&rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect::<Vec<_>>())?;
    output::raw(facts.public_key_pem.as_bytes())
}

/// What is shown where the hardware does not say.
const UNKNOWN: &str = "unknown";

fn list(global: &Global, state: &State, which: Option<&KeyUri>) -> Outcome {
    let keys = match which {
        None => state.agent().list()?,
        Some(uri) => {
            let mut keys = state.keystore(uri)?.list()?;
            keys.retain(|key| names(uri, &key.uri));
            keys
        }
    };
    if global.json {
        return output::json(&keys.iter().map(KeyFacts::from).collect::<Vec<_>>());
    }
    if keys.is_empty() {
        output::note(match which {
            None => "there are no keys yet; `enclasp key create soft:name=web` makes one".to_owned(),
            Some(uri) => format!("there are no keys in `{uri}`"),
        });
        return Ok(());
    }
    let mut rows = vec![["KEY", "ALGORITHM", "PRESENCE", "ORIGIN", "CREATED"].map(str::to_owned).to_vec()];
    rows.extend(keys.iter().map(|key| {
        let origin = match key.origin {
            Origin::Generated => "generated",
            Origin::Imported if key.uri.kind() == KeystoreKind::Soft => "imported",
            Origin::Imported => UNKNOWN,
        };
        let presence = key.policy.presence.to_string();
        let created = KeyFacts::from(key).created.unwrap_or_else(|| UNKNOWN.to_owned());
        vec![key.uri.to_string(), key.algorithm.to_string(), presence, origin.to_owned(), created]
    }));
    output::table(&rows)
}

/// Whether what `wanted` says of a key fits `key`.
fn names(wanted: &KeyUri, key: &KeyUri) -> bool {
    ["name", "token", "serial", "object"].iter().all(|attribute| {
        let (wanted, of_key) = (wanted.attribute(attribute), key.attribute(attribute));
        wanted.is_none() || of_key.is_none() || wanted == of_key
    })
}

#[derive(Serialize)]
struct Probed {
    scheme: &'static str,
    proved: bool,
    reason: Option<String>,
    elapsed_us: u128,
}

fn probe(global: &Global, state: &State, uri: &KeyUri) -> Outcome {
    let key = state.open_key(uri)?;
    let schemes = key.info().algorithm.schemes().len();
    if key.info().policy.prompts() {
        output::note(format_args!("`{uri}` asks a person: you will be asked {schemes} time(s)"));
    }
    let proofs: Vec<Probed> = prove(&*key, &SignContext::new("proof of what the key can do"))?
        .into_iter()
        .map(|proof| Probed {
            scheme: proof.scheme.name(),
            proved: proof.outcome.is_ok(),
            reason: proof.outcome.err().map(|e| e.to_string()),
            elapsed_us: proof.elapsed.as_micros(),
        })
        .collect();
    if global.json {
        output::json(&proofs)?;
    } else {
        let row = |proof: &Probed| {
            let result = match &proof.reason {
                None => format!("proved in {} µs", proof.elapsed_us),
                Some(reason) => format!("failed: {reason}"),
            };
            vec![proof.scheme.to_owned(), result]
        };
        output::table(&proofs.iter().map(row).collect::<Vec<_>>())?;
    }
    if proofs.iter().any(|proof| proof.proved) {
        Ok(())
    } else {
        Err(Failure::new(format!("`{uri}` was proved to do nothing")))
    }
}

fn delete(state: &State, uri: &KeyUri, yes: bool) -> Outcome {
    let users: Vec<String> = state
        .identities()?
        .list()?
        .into_iter()
        .filter_map(|identity| identity.ok().filter(|identity| identity.key == *uri).map(|i| i.name))
        .collect();
    if !yes {
        if !users.is_empty() {
            return Err(Failure::new(format!("`{uri}` is the key of the identity {}", users.join(", ")))
                .hint("delete the identity first, or say --yes"));
        }
        if !input::confirm(&format!("destroy `{uri}` for good?"), "--yes")? {
            return Err(Failure::new(format!("`{uri}` was kept")));
        }
    }
    state.keystore(uri)?.delete(uri)?;
    output::note(format_args!("deleted `{uri}`"));
    Ok(())
}
