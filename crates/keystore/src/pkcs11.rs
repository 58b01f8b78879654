//! Keys on PKCS#11 tokens: smart cards, USB tokens, HSMs, and software that speaks for them.
//!
//! A module (a shared library of the token's maker) is loaded into this process and called as it
//! is: it can crash it, hang in a call that nothing can interrupt, or read its memory. So it
//! belongs in a process that holds nothing else.
//!
//! Keys are named by RFC 7512 URIs: `pkcs11:token=t;object=web?module-path=/usr/lib/x.so`. The
//! token attributes must fit exactly one token, so that no PIN goes to one that was not meant; the
//! object attributes exactly one private key of it. `token`, `manufacturer`, `model`, `serial`,
//! `slot-id`, `object`, `id` and `type=private` are known.
//!
//! The PIN is asked for once for each token and time that it is plugged in, and for each signature
//! with a key that has CKA_ALWAYS_AUTHENTICATE, whose policy is then
//! [`Presence::Confirm`]. A PIN that a token refused is never given to it again. A token that was
//! pulled and is back is logged in to anew and its keys are found again.

mod certificate;
mod failure;
mod key;
mod module;
mod name;
mod object;
mod single_part;
mod token;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::rand;
use cryptoki::object::ObjectClass;
use cryptoki::session::Session;

use self::failure::Attempt;
use self::key::Pkcs11Key;
use self::module::Module;
use self::object::{Found, Request};
use self::token::{Token, TokenId};
use crate::certificate::Certificate;
use crate::prove::capabilities;
use crate::{
    Access, Capabilities, Describe, Device, Error, GivePin, Key, KeyInfo, KeySpec, KeyUri, Keystore,
    KeystoreKind, Origin, Policy, Presence, ProofStore, Result, SignContext, StoreCertificate,
};

/// The keys on the tokens of one PKCS#11 module.
pub struct Pkcs11Keystore(Arc<Shared>);

struct Shared {
    module: Arc<Module>,
    /// The module's path as it was given, which is that in the URIs of its keys.
    path: PathBuf,
    proofs: ProofStore,
    pins: Box<dyn GivePin>,
    /// Held while a key is made: a token does not mind several of one name.
    creating: Mutex<()>,
}

/// On whose behalf a token is used: what messages name, and who can answer for a PIN.
struct Caller<'a> {
    key: &'a KeyUri,
    operation: &'static str,
    ctx: &'a SignContext,
    module: &'a Module,
    pins: &'a dyn GivePin,
}

impl Pkcs11Keystore {
    /// Loads the PKCS#11 module in the file `module`. Proofs of what its keys can do are recorded
    /// in the folder `proofs`; `pins` gives the PINs of its tokens, when one is first needed.
    ///
    /// A module is loaded once in a process, and stays.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the file cannot be loaded as a PKCS#11 module, [`Error::Storage`].
    pub fn open(module: &Path, proofs: &Path, pins: impl GivePin + 'static) -> Result<Self> {
        Ok(Self(Arc::new(Shared {
            path: module.to_owned(),
            module: Module::load(module)?,
            proofs: ProofStore::open(proofs)?,
            pins: Box::new(pins),
            creating: Mutex::default(),
        })))
    }

    /// Finds the one private key that the caller's URI names, and does something with it.
    fn with_key<T>(
        &self,
        caller: &Caller<'_>,
        act: impl Fn(&Token, &Session, &Found) -> Attempt<T>,
    ) -> Result<T> {
        self.0.check(caller)?;
        self.0.on_token(
            caller,
            |module| select(module, caller.key),
            |token| {
                let session = token.session(caller)?;
                token.log_in(&session, caller)?;
                let template = name::template(caller.key, ObjectClass::PRIVATE_KEY);
                let mut keys = object::private_keys(&session, &template)?;
                match keys.len() {
                    0 => return Err(Error::Absent { key: caller.key.to_string() }.into()),
                    1 => {}
                    _ => {
                        let found: Vec<Found> = keys.into_iter().flatten().collect();
                        let with_serial = caller.key.attribute("serial").is_some();
                        let uris = self.0.uris(token, with_serial, &found);
                        let matches = uris.iter().map(KeyUri::to_string).collect();
                        return Err(Error::Ambiguous { key: caller.key.to_string(), matches }.into());
                    }
                }
                act(token, &session, &keys.remove(0)?)
            },
        )
    }

    fn key(&self, uri: &KeyUri, token: TokenId, found: &Found) -> Result<Pkcs11Key> {
        Ok(Pkcs11Key {
            info: self.0.info(uri.clone(), found)?,
            shared: self.0.clone(),
            token,
            always_authenticate: found.always_authenticate,
            handle: Mutex::default(),
        })
    }

    /// Proves what a key can do and records it, unless that was done or would prompt.
    fn proved(&self, mut key: Pkcs11Key) -> Result<Pkcs11Key> {
        if key.info.policy.prompts() || !key.info.capabilities.proved.is_empty() {
            return Ok(key);
        }
        key.info.capabilities = capabilities(&key)?;
        Ok(key)
    }
}

impl Keystore for Pkcs11Keystore {
    /// Generates the pair on the token, sensitive and not extractable, and reads back that the
    /// token kept to it; otherwise the pair is destroyed. The URI needs an `object`.
    fn create(&self, spec: &KeySpec) -> Result<Box<dyn Key>> {
        let ctx = SignContext::new(format!("making the key `{}`", spec.uri));
        let caller = self.0.caller(&spec.uri, "create", &ctx);
        self.0.check(&caller)?;
        if spec.access != Access::default() {
            return Err(caller.unsupported("a token has no place for who else may use a key".into()));
        }
        if spec.policy.pin {
            let reason = "a PIN opens the whole token; `presence=confirm` asks for it at each signature";
            return Err(caller.unsupported(reason.into()));
        }
        let label = spec.uri.attribute("object").filter(|label| !label.is_empty());
        let label =
            label.ok_or_else(|| caller.unsupported("a new key needs a label: `object=NAME`".into()))?;
        let mut random = [0; 16];
        rand::fill(&mut random)
            .map_err(|_| caller.unsupported("there is no random number to be had".into()))?;
        let id = spec.uri.id().unwrap_or_else(|| random.to_vec());
        let request = Request {
            uri: &spec.uri.to_string(),
            label,
            id: &id,
            algorithm: spec.algorithm,
            always_authenticate: spec.policy.presence == Presence::Confirm,
        };
        let creating = self.0.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let (token, found) = self.0.on_token(
            &caller,
            |module| select(module, &spec.uri),
            |token| {
                let session = token.session(&caller)?;
                token.log_in(&session, &caller)?;
                let template = name::template(&spec.uri, ObjectClass::PRIVATE_KEY);
                if !session.find_objects(&template)?.is_empty() {
                    return Err(Error::Exists { key: spec.uri.to_string() }.into());
                }
                let found = object::generate(self.0.module.pkcs11(), token.slot, &session, &request)?;
                Ok((token.id.clone(), found))
            },
        )?;
        drop(creating);
        let mut key = self.key(&spec.uri, token, &found)?;
        key.info.created = SystemTime::now();
        match self.proved(key) {
            Ok(key) => Ok(Box::new(key)),
            Err(error) => {
                // A key that proved to be of no use must not stay in the way of its name.
                let _ = self.delete(&spec.uri);
                Err(error)
            }
        }
    }

    fn open(&self, uri: &KeyUri) -> Result<Box<dyn Key>> {
        let ctx = SignContext::new(format!("opening the key `{uri}`"));
        let caller = self.0.caller(uri, "open", &ctx);
        let key = self.with_key(&caller, |token, _, found| Ok(self.key(uri, token.id.clone(), found)?))?;
        Ok(Box::new(self.proved(key)?))
    }

    /// The keys on all tokens. Nobody is asked for a PIN for it: of a token that was not logged in
    /// to, what is listed are its public keys, as keys of unknown policy and origin.
    fn list(&self) -> Result<Vec<KeyInfo>> {
        let ctx = SignContext::new("listing keys");
        let whole = KeyUri::pkcs11(vec![], None, &self.0.path);
        let present = self
            .0
            .on_module(&self.0.caller(&whole, "list the keys of", &ctx), |_| self.0.module.present())?;
        let mut labels: HashMap<&str, usize> = HashMap::new();
        for token in &present {
            *labels.entry(&token.id.label).or_default() += 1;
        }
        let mut keys = Vec::new();
        for listed in &present {
            let with_serial = labels.get(listed.id.label.as_str()).is_some_and(|count| *count > 1);
            let whole = name::uri(&self.0.path, &listed.id, with_serial, "", None);
            let caller = self.0.caller(&whole, "list the keys of", &ctx);
            keys.extend(self.0.on_token(
                &caller,
                |module| module.token(&listed.id),
                |token| {
                    let session = token.session(&caller)?;
                    let found = if token.is_logged_in() {
                        let template = name::template(&whole, ObjectClass::PRIVATE_KEY);
                        object::private_keys(&session, &template)?.into_iter().flatten().collect()
                    } else {
                        object::public_keys(&session)?
                    };
                    let named = self.0.uris(token, with_serial, &found).into_iter().zip(&found);
                    Ok(named.map(|(uri, found)| self.0.info(uri, found)).collect::<Result<Vec<_>>>()?)
                },
            )?);
        }
        keys.sort_by(|a, b| a.uri.cmp(&b.uri));
        Ok(keys)
    }

    /// Destroys the private key, its public key and the certificates of it that are beside it.
    fn delete(&self, uri: &KeyUri) -> Result<()> {
        let ctx = SignContext::new(format!("deleting the key `{uri}`"));
        let caller = self.0.caller(uri, "delete", &ctx);
        let spki = self.with_key(&caller, |_, session, found| {
            let mut doomed = vec![found.handle];
            for public in object::beside(session, found, ObjectClass::PUBLIC_KEY)? {
                if object::public_spki(session, public)?.as_ref() == Some(&found.spki) {
                    doomed.push(public);
                }
            }
            doomed.extend(certificate::of_key(session, found)?.into_iter().map(|(handle, _)| handle));
            for handle in doomed {
                session.destroy_object(handle)?;
            }
            Ok(found.spki.clone())
        })?;
        self.0.proofs.forget(&spki)
    }
}

impl StoreCertificate for Pkcs11Keystore {
    fn store_certificate(&self, uri: &KeyUri, certificate: &[u8]) -> Result<()> {
        let certificate = Certificate::parse(certificate)?;
        let ctx = SignContext::new(format!("storing the certificate of `{uri}`"));
        let caller = self.0.caller(uri, "store a certificate beside", &ctx);
        self.with_key(&caller, |_, session, found| {
            if certificate.spki != found.spki {
                return Err(caller.denied("the certificate is for another key".into()).into());
            }
            certificate::replace(session, found, &certificate)
        })
    }

    fn certificate(&self, uri: &KeyUri) -> Result<Option<Vec<u8>>> {
        let ctx = SignContext::new(format!("reading the certificate of `{uri}`"));
        let caller = self.0.caller(uri, "read the certificate of", &ctx);
        self.with_key(&caller, |_, session, found| certificate::find(session, found))
    }
}

impl Describe for Pkcs11Keystore {
    fn device(&self, uri: &KeyUri) -> Result<Device> {
        let ctx = SignContext::new(format!("describing the token of `{uri}`"));
        let caller = self.0.caller(uri, "describe the token of", &ctx);
        self.0.check(&caller)?;
        self.0.on_token(
            &caller,
            |module| select(module, uri),
            |token| Ok(token::describe(&self.0.module.pkcs11().get_token_info(token.slot)?)),
        )
    }
}

impl Shared {
    fn caller<'a>(&'a self, key: &'a KeyUri, operation: &'static str, ctx: &'a SignContext) -> Caller<'a> {
        Caller { key, operation, ctx, module: &self.module, pins: &*self.pins }
    }

    /// Refuses the keys of other keystores and modules.
    fn check(&self, caller: &Caller<'_>) -> Result<()> {
        if caller.key.kind() != KeystoreKind::Pkcs11 {
            return Err(caller.unsupported("this keystore holds `pkcs11:` keys only".into()));
        }
        let other = caller
            .key
            .query("module-path")
            .map(Path::new)
            .filter(|path| !path.canonicalize().is_ok_and(|path| path == self.module.path()));
        if other.is_some() {
            let reason = format!("this keystore is that of the module {}", self.module.path().display());
            return Err(caller.unsupported(reason));
        }
        Ok(())
    }

    /// Does something with a token.
    fn on_token<T>(
        &self,
        caller: &Caller<'_>,
        select: impl Fn(&Module) -> Attempt<Arc<Token>>,
        act: impl Fn(&Token) -> Attempt<T>,
    ) -> Result<T> {
        self.on_module(caller, |device| {
            let token = select(&self.module)?;
            *device = token.id.uri(&self.path);
            act(&token).inspect_err(|failure| {
                if failure.is_stale() {
                    self.module.forget(&token);
                }
            })
        })
    }

    /// Does something with the module. If that fails because what we hold of it or of a token is
    /// stale, it is done again with new sessions, a new login and new handles, and once more after
    /// the module was initialised anew. `act` may say what it was doing it with (a URI).
    fn on_module<T>(&self, caller: &Caller<'_>, act: impl Fn(&mut String) -> Attempt<T>) -> Result<T> {
        let mut attempt = 0;
        loop {
            caller.ctx.check(caller.key)?;
            let mut device = KeyUri::pkcs11(vec![], None, &self.path).to_string();
            let outcome = {
                let _calling = self.module.calling();
                act(&mut device)
            };
            let failure = match outcome {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            attempt += 1;
            let again = failure.is_stale() && (attempt == 1 || attempt == 2 && self.module.restart());
            if !again {
                return Err(failure.into_error(&device, &caller.key.to_string(), caller.operation));
            }
        }
    }

    /// The URIs of keys of one token: by label where that is enough, else with the CKA_ID.
    fn uris(&self, token: &Token, with_serial: bool, keys: &[Found]) -> Vec<KeyUri> {
        let mut labels: HashMap<&str, usize> = HashMap::new();
        for key in keys {
            *labels.entry(&key.label).or_default() += 1;
        }
        let uri = |key: &Found| {
            let unique = !key.label.is_empty() && labels.get(key.label.as_str()) == Some(&1);
            let id = if unique { None } else { Some(&key.id[..]) };
            name::uri(&self.path, &token.id, with_serial, &key.label, id)
        };
        keys.iter().map(uri).collect()
    }

    fn info(&self, uri: KeyUri, found: &Found) -> Result<KeyInfo> {
        let presence = if found.always_authenticate { Presence::Confirm } else { Presence::None };
        Ok(KeyInfo {
            uri,
            spki: found.spki.clone(),
            algorithm: found.algorithm,
            policy: Policy { presence, ..Policy::default() },
            capabilities: Capabilities { proved: self.proofs.proved(&found.spki)? },
            access: Access::default(),
            // A key of which copies may exist is not as good as one that the token vouches for.
            origin: if found.doubt.is_none() { Origin::Generated } else { Origin::Imported },
            // A token does not say. 1970 is "unknown".
            created: self.proofs.since(&found.spki)?.unwrap_or(SystemTime::UNIX_EPOCH),
        })
    }
}

impl Caller<'_> {
    fn unsupported(&self, reason: String) -> Error {
        Error::Unsupported { key: self.key.to_string(), operation: self.operation.into(), reason }
    }

    fn denied(&self, reason: String) -> Error {
        Error::Denied { key: self.key.to_string(), operation: self.operation.into(), reason }
    }

    fn wrong_pin(&self, reason: String) -> Error {
        Error::WrongPin { key: self.key.to_string(), operation: self.operation.into(), reason }
    }

    fn locked(&self, reason: String) -> Error {
        Error::Locked { key: self.key.to_string(), operation: self.operation.into(), reason }
    }
}

/// The one token that the URI fits. Several are refused, before any of them is given a PIN.
fn select(module: &Module, uri: &KeyUri) -> Attempt<Arc<Token>> {
    let present = module.present()?;
    let fitting: Vec<_> =
        present.iter().filter(|token| name::names_token(uri, &token.id, token.slot)).collect();
    match fitting[..] {
        [] => Err(module.no_token(uri.to_string(), &present)),
        [token] => Ok(token.clone()),
        _ => {
            let matches = fitting.iter().map(|token| token.id.to_string()).collect();
            Err(Error::Ambiguous { key: uri.to_string(), matches }.into())
        }
    }
}
