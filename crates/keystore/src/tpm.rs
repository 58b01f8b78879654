//! Keys that are born in a TPM 2.0 and cannot leave it.
//!
//! A key lives outside the TPM as a *TPM 2.0 key file* (`TSS2 PRIVATE KEY`), which only the TPM
//! that made it can use and which tpm2-openssl reads too, or inside at a persistent handle. Its
//! parent is the storage root key in the TCG's standard template (ECC P-256). Its [`KeyUri`]:
//!
//! | URI | the key |
//! |---|---|
//! | `tpm:name=web` | the key file `web.tss2.pem` in the keystore's folder |
//! | `tpm:name=web;handle=0x81000010` | at that persistent handle; keys of other tools are found there too |
//! | `tpm:name=web;file=/path/key.pem` | that key file; files of other tools are read too |
//!
//! Only making a key takes a name beside the handle or file. `hierarchy=owner` may be said, and is
//! the only one; a `tcti=` has to be the keystore's.
//!
//! **PINs.** A key can have an auth value ([`Policy::pin`]). It is asked for when the key is made or
//! first signs, kept in memory for the keystore's life, and sent to the TPM only inside a session
//! whose keys are encrypted for the storage root key, so that it does not cross the bus in the
//! clear. The public part of the storage root key is remembered in the folder when it is first
//! used, and has to be the same ever after. The TPM counts the wrong PINs of all keys together, and
//! locks itself when there are too many.
//!
//! **One at a time.** A TPM does one thing at a time. A thread of its own has its commands, behind
//! a queue of bounded length; callers wait no longer than their deadline.
//!
//! libtss2 writes what goes wrong to standard error by itself; `TSS2_LOG=all+none` in the
//! environment of the process turns that off.

mod device;
mod failure;
mod folder;
mod key;
mod key_file;
mod link;
mod lockout;
mod pin;
mod public;
mod queue;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tss_esapi::structures::Public;
use zeroize::Zeroizing;

use crate::{
    Access, Algorithm, Capabilities, Describe, Device, Error, GivePin, Key, KeyInfo, KeySpec, KeyUri,
    Keystore, KeystoreKind, PinWanted, Policy, Presence, Result, SignContext, durable,
};
use device::{Repeat, Tpm};
use folder::{Folder, read_key_file, storage, write_key_file};
use key::{Opened, TpmKey};
use link::{Link, Material, Place};
use queue::{Job, Queue};

/// The TCTI of the kernel's resource manager, which every program may use at the same time.
pub const DEFAULT_TCTI: &str = "device:/dev/tpmrm0";

/// The time for what has no deadline of its own: a TPM may take half a minute for an RSA key.
const PATIENCE: Duration = Duration::from_secs(120);

/// Which TPM, and where its key files are.
#[derive(Clone, Debug)]
pub struct TpmConfig {
    /// How the TPM is reached, as in `TPM2TOOLS_TCTI`: `device:/dev/tpmrm0`,
    /// `swtpm:host=127.0.0.1,port=2321`, `tabrmd`.
    pub tcti: String,
    /// The folder of key files and proofs. It belongs to one TPM.
    pub folder: PathBuf,
}

impl TpmConfig {
    /// The machine's own TPM.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { tcti: DEFAULT_TCTI.into(), folder: folder.into() }
    }
}

/// The keys of one TPM.
pub struct TpmKeystore(Arc<Shared>);

struct Shared {
    tcti: String,
    folder: Folder,
    queue: Queue,
    ask: Box<dyn GivePin>,
    /// The keys that were opened.
    opened: Mutex<HashMap<KeyUri, Arc<Opened>>>,
    /// Held while keys are made and destroyed.
    changing: Mutex<()>,
}

impl TpmKeystore {
    /// Opens the TPM and the folder, which is made if it is missing. `pins` is asked for the PIN of
    /// a key that has one, when it is made and when it first signs.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there is no TPM, it may not be used, or it is not the one that the
    /// folder belongs to; [`Error::Denied`] if its owner hierarchy has an auth value and there is
    /// no storage root key at 0x81000001; [`Error::Storage`].
    pub fn open(config: TpmConfig, pins: impl GivePin + 'static) -> Result<Self> {
        let folder = Folder::open(&config.folder)?;
        let tpm = Tpm::new(config.tcti.clone(), folder.storage_root());
        let job = Job { key: tpm.at(), operation: "open", ctx: patient("open") };
        let shared = Shared {
            tcti: config.tcti,
            folder,
            queue: Queue::start(tpm)?,
            ask: Box::new(pins),
            opened: Mutex::default(),
            changing: Mutex::new(()),
        };
        // Reaching it now, not at the first signature, says at once what is wrong.
        shared.queue.run(&job, |tpm, job| tpm.run(job, Repeat::Harmless, |_| Ok(())))?;
        Ok(Self(Arc::new(shared)))
    }

    /// Opens a key for the first time, and has the TPM load it.
    fn open_anew(&self, uri: &KeyUri) -> Result<TpmKey> {
        let shared = &self.0;
        let job = shared.job(uri, "open")?;
        let record = shared.record(uri)?;
        let location = shared.location(uri, record.as_ref())?;
        let found = shared.find(&job, &location)?.ok_or_else(|| Error::Absent { key: job.key.clone() })?;
        if let Some(record) = record.as_ref().filter(|record| record.spki != found.material.spki) {
            let reason = format!("the key there is not the one that was made as `{}`", record.uri);
            return Err(storage("use", location, reason));
        }
        let known_pin = found.pin.or(record.as_ref().map(|record| record.policy.pin));
        let mut info = found.info(uri.clone(), record)?;
        info.policy.pin = known_pin.unwrap_or(false);
        info.capabilities.proved = shared.folder.proofs.proved(&info.spki)?;
        let material = found.material.clone();
        let mut key = shared.key(info, found.material, found.counted);
        shared.queue.run(&job, move |tpm, job| {
            tpm.run(job, Repeat::Harmless, |link| link.load(&material).map(|_| ()))
        })?;
        if known_pin.is_none() {
            key.find_out_about_pin()?;
            if let Some(name) = record_name(uri) {
                shared.folder.add_record(&name, key.info())?;
            }
        }
        if key.info().capabilities.proved.is_empty() && !key.info().policy.prompts() {
            key.prove()?;
        }
        key.remember();
        Ok(key)
    }
}

impl Keystore for TpmKeystore {
    fn create(&self, spec: &KeySpec) -> Result<Box<dyn Key>> {
        let shared = &self.0;
        let job = shared.job(&spec.uri, "create")?;
        let unsupported = |reason: &str| Error::Unsupported {
            key: job.key.clone(),
            operation: job.operation.into(),
            reason: reason.into(),
        };
        if spec.uri.name().is_empty() {
            return Err(unsupported("a new key needs a name: tpm:name=NAME"));
        }
        if spec.policy.presence != Presence::None {
            return Err(unsupported("a TPM cannot ask a person to agree; it can ask for a PIN"));
        }
        let _changing = shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let location = shared.location(&spec.uri, None)?;
        if shared.record(&spec.uri)?.is_some() || shared.find(&job, &location)?.is_some() {
            return Err(Error::Exists { key: job.key });
        }
        let pin = spec.policy.pin.then(|| shared.new_pin(&spec.uri, &job)).transpose()?;
        let (algorithm, given) = (spec.algorithm, pin.clone());
        let file = shared.queue.run(&job, move |tpm, job| {
            let pin = given.as_ref().map(|pin| pin.as_str());
            tpm.run(job, Repeat::Harmless, |link| link.create(algorithm, pin))
        })?;
        let file = file.ok_or_else(|| unsupported("TPMs make P-256, P-384 and RSA keys"))?;
        let found = Found::in_file(file.clone(), SystemTime::now())?;
        let mut info = found.info(spec.uri.clone(), None)?;
        info.policy = spec.policy;
        info.access = spec.access.clone();
        let material = found.material.clone();
        let mut key = shared.key(info, found.material, found.counted);
        match pin {
            Some(pin) => key.opened.pin.is_known(pin),
            None => key.prove()?,
        }
        match &location {
            Location::File(path) => {
                if !write_key_file(path, &file)? {
                    return Err(Error::Exists { key: job.key });
                }
            }
            &Location::Handle(at) => {
                key.is_at(Place::Persistent(at));
                shared.queue.run(&job, move |tpm, job| {
                    tpm.run(job, Repeat::Costly, |link| link.persist(job, &material, at))
                })?;
            }
        }
        if let Err(error) = shared.folder.add_record(spec.uri.name(), key.info()) {
            // What is not recorded was not made.
            let _ = shared.remove(&job, &location);
            return Err(error);
        }
        key.remember();
        Ok(Box::new(key))
    }

    fn open(&self, uri: &KeyUri) -> Result<Box<dyn Key>> {
        let opened = self.0.opened().get(uri).cloned();
        Ok(Box::new(match opened {
            Some(opened) => TpmKey { opened, shared: self.0.clone() },
            None => self.open_anew(uri)?,
        }))
    }

    /// The keys that have a record or a key file in the folder. The TPM is not asked.
    fn list(&self) -> Result<Vec<KeyInfo>> {
        let shared = &self.0;
        let mut keys = Vec::new();
        for name in shared.folder.names()? {
            let record = shared.folder.record(&name)?;
            let file = read_key_file(&shared.folder.key_file(&name))?;
            let mut info = match (record, file) {
                (Some(record), file) => {
                    let elsewhere = record.uri.attribute("handle").or(record.uri.attribute("file"));
                    if file.is_none() && elsewhere.is_none() {
                        continue;
                    }
                    record
                }
                (None, Some((file, written))) => {
                    let tcti = Some(shared.tcti.as_str()).filter(|tcti| *tcti != DEFAULT_TCTI);
                    // A file whose name is none of ours is opened by `file=`.
                    let Ok(uri) = KeyUri::tpm(&name, tcti) else { continue };
                    Found::in_file(file, written)?.info(uri, None)?
                }
                (None, None) => continue,
            };
            info.capabilities.proved = shared.folder.proofs.proved(&info.spki)?;
            keys.push(info);
        }
        keys.sort_by(|one, other| one.uri.cmp(&other.uri));
        Ok(keys)
    }

    fn delete(&self, uri: &KeyUri) -> Result<()> {
        let shared = &self.0;
        let job = shared.job(uri, "delete")?;
        let _changing = shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let record = shared.record(uri)?;
        let location = shared.location(uri, record.as_ref())?;
        let removed = shared.remove(&job, &location)?;
        let recorded = match record_name(uri) {
            Some(name) => shared.folder.remove_record(&name)?,
            None => false,
        };
        let spki = removed.clone().or(record.map(|record| record.spki));
        shared.opened().retain(|name, opened| name != uri && Some(&opened.info.spki) != spki.as_ref());
        if let Some(spki) = spki {
            shared.folder.proofs.forget(&spki)?;
        }
        if removed.is_some() || recorded { Ok(()) } else { Err(Error::Absent { key: job.key }) }
    }
}

/// Where a URI says that its key is.
enum Location {
    File(PathBuf),
    Handle(u32),
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Handle(at) => write!(f, "the handle {at:#x}"),
        }
    }
}

/// A key as it is found, without what a record says of it.
struct Found {
    material: Material,
    public: Public,
    /// Whether it has a PIN, where that can be seen.
    pin: Option<bool>,
    /// Whether the TPM counts wrong PINs.
    counted: bool,
    created: SystemTime,
}

impl Found {
    fn new(public: Public, place: Place, pin: Option<bool>, created: SystemTime) -> Result<Self> {
        let material = Material { spki: public::spki(&public)?, place };
        let counted = !public.object_attributes().no_da();
        Ok(Self { material, public, pin, counted, created })
    }

    fn in_file(file: key_file::KeyFile, created: SystemTime) -> Result<Self> {
        let (public, pin) = (file.public.clone(), Some(!file.empty_auth));
        Self::new(public, Place::File(Box::new(file)), pin, created)
    }

    /// What is known of it, under the name `uri`, with access and time as the record has them.
    fn info(&self, uri: KeyUri, record: Option<KeyInfo>) -> Result<KeyInfo> {
        let (access, created) =
            record.map_or((Access::default(), self.created), |record| (record.access, record.created));
        Ok(KeyInfo {
            uri,
            algorithm: Algorithm::of_spki(&self.material.spki)?,
            spki: self.material.spki.clone(),
            policy: Policy { pin: self.pin.unwrap_or(false), ..Policy::default() },
            capabilities: Capabilities::default(),
            access,
            origin: public::origin(&self.public),
            created,
        })
    }
}

impl Describe for TpmKeystore {
    fn device(&self, uri: &KeyUri) -> Result<Device> {
        let job = self.0.job(uri, "describe the TPM of")?;
        self.0.queue.run(&job, |tpm, job| tpm.run(job, Repeat::Harmless, Link::describe))
    }
}

impl Shared {
    /// A job about a key that this keystore may have.
    fn job(&self, uri: &KeyUri, operation: &'static str) -> Result<Job> {
        let job = Job { key: uri.to_string(), operation, ctx: patient(operation) };
        let unsupported = |reason: String| {
            Err(Error::Unsupported { key: job.key.clone(), operation: operation.into(), reason })
        };
        if uri.kind() != KeystoreKind::Tpm {
            return unsupported("this keystore holds `tpm:` keys only".into());
        }
        if uri.attribute("tcti").is_some_and(|tcti| tcti != self.tcti) {
            return unsupported(format!("this keystore is the TPM at {}", self.tcti));
        }
        if uri.attribute("hierarchy").is_some_and(|hierarchy| hierarchy != "owner") {
            return unsupported("keys are in the owner hierarchy".into());
        }
        Ok(job)
    }

    fn record(&self, uri: &KeyUri) -> Result<Option<KeyInfo>> {
        record_name(uri).map_or(Ok(None), |name| self.folder.record(&name))
    }

    fn location(&self, uri: &KeyUri, record: Option<&KeyInfo>) -> Result<Location> {
        for uri in [Some(uri), record.map(|record| &record.uri)].into_iter().flatten() {
            if let Some(text) = uri.attribute("handle") {
                return handle(text).map(Location::Handle).ok_or_else(|| Error::Uri {
                    uri: uri.to_string(),
                    reason: "a persistent handle is one of 0x81000000 to 0x81ffffff".into(),
                });
            }
            if let Some(path) = uri.attribute("file") {
                return Ok(Location::File(path.into()));
            }
        }
        if uri.name().is_empty() {
            let reason = "it names no key: it has neither name nor handle nor file".into();
            return Err(Error::Uri { uri: uri.to_string(), reason });
        }
        Ok(Location::File(self.folder.key_file(uri.name())))
    }

    /// The key at a location, if there is one.
    fn find(&self, job: &Job, location: &Location) -> Result<Option<Found>> {
        let found = match location {
            Location::File(path) => {
                read_key_file(path)?.map(|(file, written)| Found::in_file(file, written)).transpose()?
            }
            &Location::Handle(at) => {
                let public = self
                    .queue
                    .run(job, move |tpm, job| tpm.run(job, Repeat::Harmless, |link| link.public_at(at)))?;
                public
                    .map(|public| Found::new(public, Place::Persistent(at), None, SystemTime::now()))
                    .transpose()?
            }
        };
        match found.as_ref().and_then(|found| public::objection(&found.public)) {
            Some(reason) => Err(Error::Unsupported {
                key: job.key.clone(),
                operation: job.operation.into(),
                reason: reason.into(),
            }),
            None => Ok(found),
        }
    }

    /// Removes what is at a location; its SPKI if there was a key.
    fn remove(&self, job: &Job, location: &Location) -> Result<Option<Vec<u8>>> {
        let Some(found) = self.find(job, location)? else { return Ok(None) };
        match location {
            Location::File(path) => {
                durable::remove(path)?;
            }
            &Location::Handle(at) => {
                self.queue
                    .run(job, move |tpm, job| tpm.run(job, Repeat::Harmless, |link| link.evict(job, at)))?;
            }
        }
        Ok(Some(found.material.spki))
    }

    fn opened(&self) -> MutexGuard<'_, HashMap<KeyUri, Arc<Opened>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A key, which has its PIN in common with the same key under another name.
    fn key(self: &Arc<Self>, info: KeyInfo, material: Material, counted: bool) -> TpmKey {
        let same = self.opened().values().find(|other| other.info.spki == info.spki).cloned();
        let pin = same.map(|other| other.pin.clone()).unwrap_or_default();
        TpmKey { opened: Arc::new(Opened { info, material, counted, pin }), shared: self.clone() }
    }

    /// Asks for the PIN that a new key shall have.
    fn new_pin(&self, uri: &KeyUri, job: &Job) -> Result<Zeroizing<String>> {
        let wanted = PinWanted { key: uri, what: "the new TPM key", tries_left: None, new: true };
        let pin = self.ask.pin(&wanted, &job.ctx)?;
        let refused = |reason: String| {
            Err(Error::Denied { key: job.key.clone(), operation: job.operation.into(), reason })
        };
        match pin.len() {
            0 => refused("an empty PIN protects nothing".into()),
            1..=public::MAX_PIN => Ok(pin),
            _ => refused(format!("a PIN has at most {} bytes", public::MAX_PIN)),
        }
    }
}

/// The name that the record of a key has: its own, or that of its handle, which no key's name is.
fn record_name(uri: &KeyUri) -> Option<String> {
    match uri.name() {
        "" => uri.attribute("handle").and_then(handle).map(|at| format!("@{at:#x}")),
        name => Some(name.to_owned()),
    }
}

/// A persistent handle, in hexadecimal.
fn handle(text: &str) -> Option<u32> {
    let at = u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()?;
    (at >> 24 == 0x81).then_some(at)
}

fn patient(reason: &str) -> SignContext {
    SignContext::new(format!("to {reason} a key")).with_deadline(Instant::now() + PATIENCE)
}
