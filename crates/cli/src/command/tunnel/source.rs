//! What a tunnel presents, and where that comes from: an identity, files, a token.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use enclasp_identity::{Identity, Pkcs12, match_key};
use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{KeyUri, Keystore};
use enclasp_pki::Certificate;
use enclasp_tls::Credential;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::{input, output, session};

/// A certificate and a key that are no identity of ours.
#[derive(clap::Args)]
#[command(next_help_heading = "Certificates and keys that are no identity")]
pub(super) struct KeyFlags {
    /// PKCS#12 or PEM file with certificate chain and private key, which is then a *software* key
    /// in this process (or KEYSTORE_PATH).
    #[arg(long, value_name = "FILE")]
    keystore: Option<PathBuf>,
    /// Certificate chain, PEM, leaf first (or CERT_PATH).
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its private key, PEM; a *software* key in this process (or KEY_PATH).
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Passphrase of --keystore, which everybody on this machine can read here (or KEYSTORE_PASS).
    #[arg(long, value_name = "PASS")]
    storepass: Option<String>,
    /// The file of that passphrase.
    #[arg(long, value_name = "FILE")]
    storepass_file: Option<PathBuf>,
    /// PKCS#11 module with the key of --cert (or PKCS11_MODULE).
    #[arg(long, value_name = "PATH")]
    pkcs11_module: Option<PathBuf>,
    /// The token that holds it (or PKCS11_TOKEN_LABEL).
    #[arg(long, value_name = "LABEL")]
    pkcs11_token_label: Option<String>,
    /// Its PIN, which everybody on this machine can read here (or PKCS11_PIN).
    #[arg(long, value_name = "PIN")]
    pkcs11_pin: Option<String>,
    /// The file of that PIN.
    #[arg(long, value_name = "FILE")]
    pkcs11_pin_file: Option<PathBuf>,
}

/// Where what a tunnel presents comes from.
#[derive(Clone)]
pub(crate) enum Source {
    /// An identity of ours.
    Identity(session::Choice),
    /// One file with chain and key.
    Keystore { file: PathBuf, passphrase: Secret },
    /// A file of each.
    Files { cert: PathBuf, key: PathBuf },
    /// A chain whose key is on a PKCS#11 token.
    Token { cert: PathBuf, token: KeyUri, pin: Option<Zeroizing<String>> },
    /// Nothing is presented.
    Nothing,
}

/// Where a secret comes from, if there is one.
#[derive(Clone)]
pub(crate) enum Secret {
    None,
    Given(Zeroizing<String>),
    File(PathBuf),
}

impl Secret {
    /// Of a flag, of a file, and of a variable, the first that is given.
    fn of(flag: Option<String>, file: Option<PathBuf>, from_environment: Option<String>) -> Self {
        match (flag, file, from_environment) {
            (Some(given), ..) => Self::Given(given.into()),
            (None, Some(file), _) => Self::File(file),
            (None, None, Some(given)) => Self::Given(given.into()),
            (None, None, None) => Self::None,
        }
    }

    fn read(&self) -> Outcome<Zeroizing<String>> {
        match self {
            Self::None => Ok(Zeroizing::default()),
            Self::Given(secret) => Ok(secret.clone()),
            Self::File(path) => input::secret_file("passphrase", path),
        }
    }
}

impl KeyFlags {
    /// Whether any is given on the command line.
    pub(super) fn is_given(&self) -> bool {
        self.keystore.is_some() || self.cert.is_some() || self.key.is_some() || self.pkcs11_module.is_some()
    }

    /// What `identity` or these flags name, with the environment's help; none if nobody does.
    pub(super) fn source(&self, identity: Option<session::Choice>) -> Outcome<Option<Source>> {
        if identity.is_some() && self.is_given() {
            return Err(Failure::usage("--identity excludes --keystore, --cert, --key and --pkcs11-module")
                .hint("name what to present in one way only"));
        }
        for (flag, twin, given) in [
            ("--storepass", "--storepass-file", self.storepass.is_some() && self.storepass_file.is_some()),
            (
                "--pkcs11-pin",
                "--pkcs11-pin-file",
                self.pkcs11_pin.is_some() && self.pkcs11_pin_file.is_some(),
            ),
        ] {
            if given {
                return Err(Failure::usage(format!("{flag} and {twin} exclude each other"))
                    .hint(format!("{twin} keeps the secret from other users")));
            }
        }
        if let Some(choice) = identity {
            return Ok(Some(Source::Identity(choice)));
        }
        // A variable stands in for a flag unless the command line has said it in another way.
        let path = |flag: &Option<PathBuf>, name, said_otherwise: bool| {
            flag.clone().or_else(|| variable(name).map(PathBuf::from).filter(|_| !said_otherwise))
        };
        let in_one_file = self.keystore.is_some();
        let on_token = self.pkcs11_module.is_some();
        let in_files = self.cert.is_some() || self.key.is_some();
        let module = path(&self.pkcs11_module, "PKCS11_MODULE", in_one_file || self.key.is_some());
        let keystore = path(&self.keystore, "KEYSTORE_PATH", in_files || on_token);
        let cert = path(&self.cert, "CERT_PATH", in_one_file);
        let key = path(&self.key, "KEY_PATH", in_one_file || on_token);
        if module.is_none()
            && (self.pkcs11_token_label.is_some()
                || self.pkcs11_pin.is_some()
                || self.pkcs11_pin_file.is_some())
        {
            return Err(Failure::usage("--pkcs11-token-label and --pkcs11-pin need --pkcs11-module")
                .hint("for example --pkcs11-module /usr/lib/softhsm/libsofthsm2.so"));
        }
        if (self.storepass.is_some() || self.storepass_file.is_some()) && keystore.is_none() {
            return Err(Failure::usage("--storepass is for --keystore, which is not given")
                .hint("the key of --key must not be encrypted"));
        }
        Ok(Some(match (module, keystore, cert, key) {
            (Some(_), _, _, Some(_)) => {
                return Err(Failure::usage("--pkcs11-module and --key exclude each other")
                    .hint("the key is on the token; leave out --key"));
            }
            (Some(module), None, Some(cert), None) | (Some(module), Some(cert), None, None) => {
                self.token(&module, cert)?
            }
            (Some(_), ..) => {
                return Err(Failure::usage("--pkcs11-module needs the certificate in one file")
                    .hint("give it with --cert FILE"));
            }
            (None, Some(file), None, None) => {
                if self.storepass.is_some() {
                    visible("--storepass", "--storepass-file FILE or KEYSTORE_PASS");
                }
                let from_environment = variable("KEYSTORE_PASS");
                let passphrase =
                    Secret::of(self.storepass.clone(), self.storepass_file.clone(), from_environment);
                Source::Keystore { file, passphrase }
            }
            (None, Some(_), ..) => {
                return Err(Failure::usage("--keystore excludes --cert and --key")
                    .hint("a keystore holds both certificate and key"));
            }
            (None, None, Some(cert), Some(key)) => Source::Files { cert, key },
            (None, None, Some(_), None) => {
                return Err(Failure::usage("--cert needs the private key")
                    .hint("give it with --key FILE, or name its token with --pkcs11-module"));
            }
            (None, None, None, Some(_)) => {
                return Err(Failure::usage("--key needs the certificate").hint("give it with --cert FILE"));
            }
            (None, None, None, None) => return Ok(None),
        }))
    }

    fn token(&self, module: &Path, cert: PathBuf) -> Outcome<Source> {
        if self.pkcs11_pin.is_some() {
            visible("--pkcs11-pin", "--pkcs11-pin-file FILE or PKCS11_PIN");
        }
        let module = std::path::absolute(module)?;
        let label = self.pkcs11_token_label.clone().or_else(|| variable("PKCS11_TOKEN_LABEL"));
        let token = KeyUri::pkcs11_token(label.as_deref(), &module)?;
        let pin = Secret::of(self.pkcs11_pin.clone(), self.pkcs11_pin_file.clone(), variable("PKCS11_PIN"));
        Ok(match pin {
            // Named by the URI, the file is read again when the agent has been started again.
            Secret::File(file) => {
                let token = token.with_pin_source(&std::path::absolute(file)?)?;
                Source::Token { cert, token, pin: None }
            }
            Secret::Given(pin) => Source::Token { cert, token, pin: Some(pin) },
            Secret::None => Source::Token { cert, token, pin: None },
        })
    }
}

/// What a source holds at the moment.
pub(super) struct Loaded {
    pub(super) credential: Option<Credential>,
    /// By which peers are trusted if nothing else says.
    pub(super) roots: Vec<CertificateDer<'static>>,
    pub(super) identity: Option<Identity>,
}

impl Source {
    /// Reads what there is to present. May wait for an agent.
    pub(super) fn load(&self, agents: &Agents) -> Outcome<Loaded> {
        let of_files = |credential| Loaded { credential, roots: Vec::new(), identity: None };
        Ok(match self {
            Self::Nothing => of_files(None),
            Self::Files { cert, key } => {
                let pem = Zeroizing::new(input::file(key)?);
                of_files(Some(Credential::new(input::certificate_ders(cert)?, key_of_pem(key, &pem)?)?))
            }
            Self::Keystore { file, passphrase } => of_files(Some(keystore(file, passphrase)?)),
            Self::Token { cert, token, pin } => of_files(Some(on_token(agents, cert, token, pin.as_ref())?)),
            Self::Identity(choice) => {
                let state = agents.state()?;
                let identity =
                    session::client_identity(&state, choice, agents.is_verbose())?.ok_or_else(|| {
                        Failure::new("there is no identity to present").hint(
                            "make one with `enclasp enroll`, give --cert and --key, or say --disable-authentication",
                        )
                    })?;
                Loaded {
                    credential: Some(Credential::open(&agents.state_of(&identity.key)?, &identity)?),
                    roots: identity.roots.clone(),
                    identity: Some(identity),
                }
            }
        })
    }

    /// The keys that an agent holds for it, as far as is known now.
    pub(super) fn keys(&self, agents: &Agents) -> Vec<KeyUri> {
        match self {
            Self::Token { token, .. } => vec![token.clone()],
            Self::Identity(choice) => {
                let of_identities = || -> Outcome<Vec<KeyUri>> {
                    let state = agents.state()?;
                    let Some(identity) = session::client_identity(&state, choice, false)? else {
                        return Ok(Vec::new());
                    };
                    // Another one's key may pay for its renewals.
                    let sponsor = identity.certified_by.as_deref().map(|name| state.identities()?.get(name));
                    let sponsor = sponsor.and_then(Result::ok).map(|sponsor| sponsor.key);
                    Ok(sponsor.into_iter().chain([identity.key]).collect())
                };
                // What is wrong with it is said when it is loaded.
                of_identities().unwrap_or_default()
            }
            Self::Keystore { .. } | Self::Files { .. } | Self::Nothing => Vec::new(),
        }
    }

    /// The file of its passphrase.
    pub(super) fn secret_file(&self) -> Option<&Path> {
        match self {
            Self::Keystore { passphrase: Secret::File(path), .. } => Some(path),
            _ => None,
        }
    }

    /// The files that it is read from.
    pub(super) fn files(&self) -> Vec<&Path> {
        match self {
            Self::Identity(_) | Self::Nothing => Vec::new(),
            Self::Keystore { file, .. } => vec![file],
            Self::Files { cert, key } => vec![cert, key],
            Self::Token { cert, .. } => vec![cert],
        }
    }
}

/// An environment variable that is set and not empty.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn visible(flag: &str, instead: &str) {
    output::warn(format_args!("{flag} can be read by everybody on this machine; use {instead}"));
}

fn key_of_pem(path: &Path, pem: &[u8]) -> Outcome<Arc<SoftKey>> {
    let unreadable = |reason: String| {
        Failure::new(format!("{}: {reason}", path.display())).hint(format!(
            "a private key in PEM that is not encrypted is read: openssl pkey -in {} -out key.pem",
            path.display()
        ))
    };
    let key = PrivateKeyDer::from_pem_slice(pem)
        .map_err(|e| unreadable(format!("there is no private key in it that can be read ({e})")))?;
    let key = SoftKey::from_der(KeyUri::soft("key-file")?, key.secret_der());
    Ok(Arc::new(key.map_err(|e| unreadable(e.to_string()))?))
}

fn keystore(path: &Path, passphrase: &Secret) -> Outcome<Credential> {
    /// How a Java keystore begins: JKS, JCEKS.
    const JAVA: [[u8; 4]; 2] = [[0xfe, 0xed, 0xfe, 0xed], [0xce, 0xce, 0xce, 0xce]];
    let bytes = Zeroizing::new(input::file(path)?);
    if JAVA.iter().any(|magic| bytes.starts_with(magic)) {
        return Err(Failure::new(format!("{} is a Java keystore, which is not read", path.display())).hint(
            format!(
                "keytool -importkeystore -srckeystore {} -destkeystore store.p12 -deststoretype PKCS12",
                path.display()
            ),
        ));
    }
    // A binary file of DER begins with SEQUENCE.
    if bytes.first() != Some(&0x30) {
        return Ok(Credential::new(input::certificate_ders(path)?, key_of_pem(path, &bytes)?)?);
    }
    let opened = Pkcs12::open(&bytes, &passphrase.read()?).map_err(|e| {
        Failure::new(format!("{}: {e}", path.display()))
            .hint("its passphrase is given with --storepass-file FILE or KEYSTORE_PASS")
    })?;
    let key = SoftKey::from_der(KeyUri::soft("key-file")?, &opened.private_key)?;
    let chain = opened.certificates.iter().map(|certificate| certificate.der().clone()).collect();
    Ok(Credential::new(chain, Arc::new(key))?)
}

fn on_token(
    agents: &Agents,
    cert: &Path,
    token: &KeyUri,
    pin: Option<&Zeroizing<String>>,
) -> Outcome<Credential> {
    let chain = input::certificate_ders(cert)?;
    let no_leaf = || Failure::new(format!("there is no certificate in {}", cert.display()));
    let leaf = Certificate::from_der(chain.first().ok_or_else(no_leaf)?)?;
    let keystore = agents.state_of(token)?.keystore(token)?;
    let mut keys = keystore.list()?;
    let label = token.attribute("token");
    keys.retain(|key| label.is_none_or(|label| key.uri.attribute("token") == Some(label)));
    let found = match_key(&leaf, &keys)?.uri.clone();
    if let Some(pin) = pin {
        keystore.unlock(&found, pin.clone())?;
    }
    let uri = match token.query("pin-source") {
        Some(file) => found.with_pin_source(Path::new(file))?,
        None => found,
    };
    Ok(Credential::new(chain, Arc::from(keystore.open(&uri)?))?)
}
