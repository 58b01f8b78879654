//! `enclasp identity`: certificate chains and the keys that they are for.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Subcommand;
use enclasp_identity::{self as identity, Pkcs12, State, examine, match_key};
use enclasp_keystore::{Import, Key, KeyUri, Keystore, KeystoreKind, StoreCertificate};
use enclasp_pki::{Certificate, pem};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::args::Global;
use crate::failure::{Failure, Outcome};
use crate::{input, output};

#[derive(clap::Args)]
pub(crate) struct Identity {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Take in a certificate for a key that is here, or a PKCS#12 file with both.
    #[command(after_help = "Examples:
  enclasp identity import --name web --cert web.pem            finds the key that it is for
  enclasp identity import --name web --cert web.pem --cacert ca.pem
  enclasp identity import --name web --cert web.pem --key tpm:name=web     for a key in hardware
  enclasp identity import --name card --key 'pkcs11:token=card;object=k?module-path=/usr/lib/x.so'
                                                       with the certificate on the card
  enclasp identity import --name test --p12 test.p12 --password-file pw    a *software* identity

A PKCS#12 file's private key is moved into the agent. Copies of it may exist, so the identity is
marked as software: it is for finding faults, not for service.")]
    Import {
        /// The name that the identity shall have.
        #[arg(long)]
        name: String,
        /// Certificate, PEM or DER, with or without its chain.
        #[arg(long, value_name = "FILE", required_unless_present_any = ["p12", "key"], conflicts_with = "p12")]
        cert: Option<PathBuf>,
        /// The key that the certificate is for [default: the software key that has its public key].
        /// A PKCS#11 token gets the certificate, too; without --cert, the one on it is taken.
        #[arg(long, value_name = "URI", conflicts_with = "p12")]
        key: Option<KeyUri>,
        /// PKCS#12 file.
        #[arg(long, value_name = "FILE")]
        p12: Option<PathBuf>,
        /// File with the passphrase of the PKCS#12 file [env: ENCLASP_P12_PASSWORD].
        #[arg(long, value_name = "FILE", requires = "p12")]
        password_file: Option<PathBuf>,
        /// Roots to trust when this identity connects, and to check its chain against.
        #[arg(long, value_name = "FILE")]
        cacert: Option<PathBuf>,
        /// Put it in the place of an identity of that name.
        #[arg(long)]
        replace: bool,
    },
    /// List the identities.
    List,
    /// Show an identity with its chain.
    Show {
        /// Its name.
        name: String,
        /// Print the chain as PEM, and nothing else.
        #[arg(long)]
        pem: bool,
    },
    /// Forget an identity. Its key stays in its keystore.
    Delete {
        /// Its name.
        name: String,
    },
}

pub(crate) fn run(global: &Global, identity: Identity) -> Outcome {
    let state = global.state()?;
    match identity.verb {
        Verb::Import { name, cert, key, p12, password_file, cacert, replace } => {
            let roots = cacert.map(|path| input::certificates(&path)).transpose()?.unwrap_or_default();
            identity::Store::check_name(&name)?;
            let store = state.identities()?;
            if !replace && store.get(&name).is_ok() {
                return Err(identity::Error::Exists { name }.into());
            }
            let (certificates, private_key) = match (cert, p12, &key) {
                (Some(path), ..) => (input::certificates(&path)?, None),
                (None, Some(path), _) => {
                    let bytes = input::file(&path)?;
                    let passphrase = input::secret(
                        "passphrase of the PKCS#12 file",
                        password_file.as_deref(),
                        "ENCLASP_P12_PASSWORD",
                        "--password-file",
                    )?;
                    let p12 = Pkcs12::open(&bytes, &passphrase)?;
                    (p12.certificates, Some(p12.private_key))
                }
                (None, None, Some(uri)) => (vec![certificate_beside(&state, uri)?], None),
                (None, None, None) => return Err(Failure::usage("--cert FILE or --p12 FILE is needed")),
            };
            let examined = examine(&certificates, &roots, SystemTime::now())?;
            let software = private_key.is_some();
            let before = if replace { store.get(&name).ok() } else { None };
            let key = match private_key {
                Some(pkcs8) => import_key(&state, &name, before.as_ref(), pkcs8)?,
                None => find_key(&state, &examined.chain[0], key)?,
            };
            let identity = identity::Identity {
                name,
                key,
                chain: ders(&examined.chain),
                roots: ders(&roots),
                authority: None,
                software,
                updated: SystemTime::now(),
                retired: None,
                certified_by: None,
            };
            let stored = if replace { store.put(&identity) } else { store.add(&identity) };
            if let Err(error) = stored {
                if software {
                    state.keystore(&identity.key)?.delete(&identity.key)?;
                }
                return Err(error.into());
            }
            if let Some(before) = before {
                replaced(&state, &before, &identity)?;
            }
            for note in &examined.notes {
                output::note(note);
            }
            for warning in &examined.warnings {
                output::warn(warning);
            }
            print(global, &identity)
        }
        Verb::List => list(global, &state),
        Verb::Show { name, pem: as_pem } => {
            let identity = state.identities()?.get(&name)?;
            if as_pem {
                let chain: String =
                    identity.chain.iter().map(|der| pem::encode("CERTIFICATE", der)).collect();
                return output::raw(chain.as_bytes());
            }
            print(global, &identity)
        }
        Verb::Delete { name } => {
            let identity = state.identities()?.get(&name).ok();
            state.identities()?.delete(&name)?;
            output::note(format_args!("deleted the identity `{name}`"));
            let of_rekey = enclasp_enroll::forget_rekey(&name, &state.enrolling())?;
            let keys = identity.into_iter().flat_map(|identity| [Some(identity.key), identity.retired]);
            for key in keys.flatten().chain(of_rekey) {
                output::note(format_args!("its key is still there: `enclasp key delete {key}`"));
            }
            Ok(())
        }
    }
}

/// Imports a private key under the name of its identity, or one derived from that: the key of the
/// identity `before` stays until its successor is in place.
fn import_key(
    state: &State,
    name: &str,
    before: Option<&identity::Identity>,
    pkcs8: Zeroizing<Vec<u8>>,
) -> Outcome<KeyUri> {
    let mut uri = KeyUri::soft(name)?;
    let keystore = state.keystore(&uri)?;
    if before.is_some() {
        let taken: Vec<KeyUri> = keystore.list()?.into_iter().map(|key| key.uri).collect();
        while taken.contains(&uri) {
            uri = uri.successor();
        }
    }
    Ok(keystore.import(&uri, pkcs8)?.info().uri.clone())
}

/// An imported key goes with its identity, unless it has another use; others stay where they are.
fn replaced(state: &State, before: &identity::Identity, now: &identity::Identity) -> Outcome {
    let in_use = |identity: &identity::Result<identity::Identity>| {
        identity.as_ref().map_or(true, |identity| identity.key == before.key)
    };
    if before.key == now.key {
        return Ok(());
    }
    let imported = before.software && before.key.kind() == KeystoreKind::Soft;
    if imported && !state.identities()?.list()?.iter().any(in_use) {
        state.keystore(&before.key)?.delete(&before.key)?;
        output::note(format_args!("deleted `{}`, the key before", before.key));
    } else {
        output::note(format_args!("the key before is still there: `enclasp key delete {}`", before.key));
    }
    Ok(())
}

/// The key that the certificate is for: the one that was named, if it is, or one in software.
fn find_key(state: &State, leaf: &Certificate, named: Option<KeyUri>) -> Outcome<KeyUri> {
    let Some(uri) = named else {
        return Ok(match_key(leaf, &state.agent().list()?)?.uri.clone());
    };
    let keystore = state.keystore(&uri)?;
    let key = keystore.open_key(&uri)?;
    match_key(leaf, std::slice::from_ref(key.info()))?;
    if uri.kind() == KeystoreKind::Pkcs11
        && let Err(error) = keystore.store_certificate(&uri, leaf.der())
    {
        output::warn(format_args!("the certificate is not written to the token: {error}"));
    }
    Ok(uri)
}

fn certificate_beside(state: &State, uri: &KeyUri) -> Outcome<Certificate> {
    let found = state.keystore(uri)?.certificate(uri)?.ok_or_else(|| {
        Failure::new(format!("there is no certificate beside `{uri}`")).hint("give it with --cert FILE")
    })?;
    Ok(Certificate::from_der(&found)?)
}

fn ders(certificates: &[Certificate]) -> Vec<rustls_pki_types::CertificateDer<'static>> {
    certificates.iter().map(|certificate| certificate.der().clone()).collect()
}

/// The facts about an identity, as `--json` prints them.
#[derive(Serialize)]
struct IdentityFacts {
    name: String,
    key: KeyUri,
    software: bool,
    subject: String,
    issuer: String,
    serial: String,
    not_before: String,
    not_after: String,
    subject_alt_names: Vec<String>,
    extended_key_usages: Vec<String>,
    sha256: String,
    authority: Option<String>,
    chain_pem: Vec<String>,
}

impl IdentityFacts {
    fn of(identity: &identity::Identity) -> Outcome<Self> {
        let leaf = identity.leaf()?;
        Ok(Self {
            name: identity.name.clone(),
            key: identity.key.clone(),
            software: identity.software,
            subject: leaf.subject().to_string(),
            issuer: leaf.issuer().to_string(),
            serial: leaf.serial().to_string(),
            not_before: output::time(leaf.not_before()),
            not_after: output::time(leaf.not_after()),
            subject_alt_names: leaf.subject_alt_names().iter().map(ToString::to_string).collect(),
            extended_key_usages: leaf.extended_key_usages().iter().map(ToString::to_string).collect(),
            sha256: leaf.fingerprint_hex(),
            authority: identity.authority.clone(),
            chain_pem: identity.chain.iter().map(|der| pem::encode("CERTIFICATE", der)).collect(),
        })
    }
}

fn print(global: &Global, identity: &identity::Identity) -> Outcome {
    let facts = IdentityFacts::of(identity)?;
    if global.json {
        return output::json(&facts);
    }
    let key = if facts.software {
        format!("{} (software: copies may exist)", facts.key)
    } else {
        facts.key.to_string()
    };
    let mut rows = vec![
        ("identity", facts.name),
        ("key", key),
        ("subject", facts.subject),
        ("names", facts.subject_alt_names.join(" ")),
        ("usage", facts.extended_key_usages.join(" ")),
        ("issuer", facts.issuer),
        ("serial", facts.serial),
        ("valid", format!("{} to {}", facts.not_before, facts.not_after)),
        ("SHA-256", facts.sha256),
    ];
    if let Some(authority) = facts.authority {
        rows.push(("authority", authority));
    }
    rows.retain(|(_, value)| !value.is_empty());
    output::table(&rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect::<Vec<_>>())
}

fn list(global: &Global, state: &State) -> Outcome {
    let listed = state.identities()?.list()?;
    let mut facts = Vec::new();
    for identity in listed {
        match identity.map_err(Failure::from).and_then(|identity| IdentityFacts::of(&identity)) {
            Ok(fact) => facts.push(fact),
            // One damaged file hides no other identity.
            Err(failure) => output::warn(failure.message()),
        }
    }
    if global.json {
        return output::json(&facts);
    }
    if facts.is_empty() {
        output::note("there are no identities yet; `enclasp enroll` or `enclasp identity import` makes one");
        return Ok(());
    }
    let mut rows = vec![["IDENTITY", "SUBJECT", "EXPIRES", "KEY"].map(str::to_owned).to_vec()];
    rows.extend(facts.into_iter().map(|fact| {
        let key = if fact.software { format!("{} (software)", fact.key) } else { fact.key.to_string() };
        vec![fact.name, fact.subject, fact.not_after, key]
    }));
    output::table(&rows)
}
