//! An open way to a TPM, and what can be done over it.

use std::time::Duration;

use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::{CapabilityType, PropertyTag, SessionType, tss};
use tss_esapi::handles::{KeyHandle, ObjectHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Auth, CapabilityData, Digest, HashcheckTicket, Public, Signature, SignatureScheme, SymmetricDefinition,
};
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;
use tss_esapi::{Context, WrapperErrorKind};

use super::failure::{Failure, Meaning, Outcome, is_not_started};
use super::key_file::KeyFile;
use super::lockout::Lockout;
use super::public;
use super::queue::Job;
use crate::{Algorithm, Device, Error};

/// Where the TCG's provisioning guidance has the storage root key.
pub(super) const STORAGE_ROOT: u32 = 0x8100_0001;

/// Where handles of NV indices begin (TPM 2.0 part 2, TPM_HT_NV_INDEX).
const FIRST_NV_INDEX: u32 = 0x0100_0000;
/// TPMs have few; more are not looked at.
const MAX_NV_INDICES: u32 = 64;
/// Of RSA 2048, P-256, and the high range: RSA, P-256, P-384, P-521 and their like.
const ENDORSEMENT_CERTIFICATES: [u32; 8] =
    [0x01c0_0002, 0x01c0_000a, 0x01c0_0012, 0x01c0_0014, 0x01c0_0016, 0x01c0_0018, 0x01c0_001c, 0x01c0_001e];

/// What it takes to use a key.
#[derive(Clone, Debug)]
pub(super) struct Material {
    /// What the public key has to be.
    pub(super) spki: Vec<u8>,
    pub(super) place: Place,
}

/// Where a key is kept.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// Outside, encrypted by its parent.
    File(Box<KeyFile>),
    /// In the TPM, at this handle.
    Persistent(u32),
}

/// An open way to the TPM. Dropping it flushes what it left there.
pub(super) struct Link {
    context: Context,
    storage_root: StorageRoot,
    /// The salted session, started when it is first needed.
    session: Option<AuthSession>,
    /// The keys that are loaded, the one used last at the end.
    loaded: Vec<Loaded>,
    /// Whether a resource manager gives us slots of our own. Without one there are as few as three
    /// for everybody: one key is kept loaded, and the storage root key only while it is needed.
    managed: bool,
}

/// The storage root key.
pub(super) struct StorageRoot {
    pub(super) handle: KeyHandle,
    pub(super) public: Public,
    pub(super) kept: Kept,
}

/// Where the storage root key is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// At its persistent handle.
    Persistent,
    /// In a slot.
    Loaded,
    /// Nowhere, until it is made again.
    Flushed,
}

struct Loaded {
    spki: Vec<u8>,
    handle: KeyHandle,
    /// Its persistent handle, if it has one and so takes no slot.
    persistent: Option<u32>,
}

/// How many keys are kept loaded behind a resource manager.
const LOADED: usize = 8;

impl Link {
    pub(super) fn new(context: Context, storage_root: StorageRoot, managed: bool) -> Outcome<Self> {
        let mut link = Self { context, storage_root, session: None, loaded: Vec::new(), managed };
        link.release_parent()?;
        Ok(link)
    }

    /// Makes a key under the storage root key. `Ok(None)` if TPMs have no keys of that type.
    pub(super) fn create(&mut self, algorithm: Algorithm, pin: Option<&str>) -> Outcome<Option<KeyFile>> {
        let Some(template) = public::signing_key(algorithm, pin.is_some())? else { return Ok(None) };
        let auth = pin.map(auth_value).transpose()?;
        // The session keeps the PIN from who listens, and the public key from who would change it.
        let session = self.session()?;
        let parent = self.parent()?;
        let made = self.context.execute_with_session(Some(session), |context| {
            context.create(parent, template, auth, None, None, None)
        });
        self.release_parent()?;
        let made = made?;
        let persistent = self.storage_root.kept == Kept::Persistent;
        Ok(Some(KeyFile {
            empty_auth: pin.is_none(),
            parent: if persistent { STORAGE_ROOT } else { tss::TPM2_RH_OWNER },
            public: made.out_public,
            private: made.out_private,
        }))
    }

    /// Loads the key, if it is not loaded.
    pub(super) fn load(&mut self, key: &Material) -> Outcome<KeyHandle> {
        if let Some(at) = self.loaded.iter().position(|loaded| loaded.spki == key.spki) {
            let loaded = self.loaded.remove(at);
            let handle = loaded.handle;
            self.loaded.push(loaded);
            return Ok(handle);
        }
        while self.loaded.len() >= if self.managed { LOADED } else { 1 } {
            let oldest = self.loaded.remove(0);
            self.unload(oldest)?;
        }
        let (handle, persistent) = match &key.place {
            Place::File(file) => (self.load_file(file)?, None),
            &Place::Persistent(at) => {
                let spki = self.public_at(at)?.map(|public| public::spki(&public)).transpose()?;
                if spki.is_some_and(|spki| spki != key.spki) {
                    let reason = format!("the TPM holds another key at {at:#x} now");
                    return Err(Error::PublicKey { reason }.into());
                }
                let object = persistent(&mut self.context, at)?;
                (KeyHandle::from(object.ok_or_else(|| nothing_at(at))?), Some(at))
            }
        };
        self.loaded.push(Loaded { spki: key.spki.clone(), handle, persistent });
        Ok(handle)
    }

    /// Signs a digest.
    pub(super) fn sign(
        &mut self,
        key: &Material,
        scheme: SignatureScheme,
        digest: &[u8],
        pin: Option<&str>,
    ) -> Outcome<Signature> {
        // Without a PIN there is nothing to hide, and the signature will be verified; a session
        // would cost libtss2 3 some milliseconds.
        let session = if pin.is_some() { self.session()? } else { AuthSession::Password };
        let handle = self.load(key)?;
        self.context.tr_set_auth(handle.into(), auth_value(pin.unwrap_or_default())?)?;
        let digest = Digest::try_from(digest)?;
        // The null ticket: a digest from outside, which only a restricted key would refuse.
        let ticket = HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
            tag: tss::TPM2_ST_HASHCHECK,
            hierarchy: tss::TPM2_RH_NULL,
            digest: Default::default(),
        })?;
        let signature = self
            .context
            .execute_with_session(Some(session), |context| context.sign(handle, digest, scheme, ticket));
        Ok(signature?)
    }

    /// The public area of the key at a persistent handle, if there is one.
    pub(super) fn public_at(&mut self, at: u32) -> Outcome<Option<Public>> {
        if at == STORAGE_ROOT && self.storage_root.kept == Kept::Persistent {
            return Ok(Some(self.storage_root.public.clone()));
        }
        // libtss2 has one object for each handle, which is to be read anew, and closed once.
        if let Some(loaded) = self.loaded.iter().position(|loaded| loaded.persistent == Some(at)) {
            let loaded = self.loaded.remove(loaded);
            self.unload(loaded)?;
        }
        let Some(mut object) = persistent(&mut self.context, at)? else { return Ok(None) };
        let public = self.context.execute_without_session(|context| context.read_public(object.into()));
        self.context.tr_close(&mut object)?;
        Ok(Some(public?.0))
    }

    /// Makes a key persistent.
    pub(super) fn persist(&mut self, job: &Job, key: &Material, at: u32) -> Outcome<()> {
        let handle = self.load(key)?;
        let mut object = self.evict_control(job, handle.into(), at)?;
        self.context.tr_close(&mut object)?;
        // From now on it is used where it is.
        self.unload_all();
        Ok(())
    }

    /// Removes a persistent key. `Ok(false)` if there is none.
    pub(super) fn evict(&mut self, job: &Job, at: u32) -> Outcome<bool> {
        self.unload_all();
        let Some(object) = persistent(&mut self.context, at)? else { return Ok(false) };
        self.evict_control(job, object, at)?;
        Ok(true)
    }

    /// The counters of the protection against guessing.
    pub(super) fn lockout(&mut self) -> Outcome<Lockout> {
        let (properties, _) = self.context.execute_without_session(|context| {
            context.get_capability(CapabilityType::TpmProperties, PropertyTag::LockoutCounter.into(), 3)
        })?;
        let property = |tag| match &properties {
            CapabilityData::TpmProperties(list) => list.find(tag).map(|property| property.value()),
            _ => None,
        };
        Ok(Lockout {
            failed: property(PropertyTag::LockoutCounter).unwrap_or(0),
            allowed: property(PropertyTag::MaxAuthFail).unwrap_or(0),
            interval: Duration::from_secs(property(PropertyTag::LockoutInterval).unwrap_or(0).into()),
        })
    }

    /// What the TPM says of itself.
    pub(super) fn describe(&mut self) -> Outcome<Device> {
        let lockout = self.lockout()?;
        let manufacturer = self.property(PropertyTag::Manufacturer)?.to_be_bytes();
        let firmware = self.property(PropertyTag::FirmwareVersion1)?;
        let name = format!(
            "TPM 2.0 by {}, firmware {}.{}",
            String::from_utf8_lossy(&manufacturer).trim_end_matches(['\0', ' ']),
            firmware >> 16,
            firmware & 0xffff
        );
        let certificates = self.endorsement_certificates()?;
        let attestation = if certificates.is_empty() {
            "no endorsement certificate in the TPM: its maker does not vouch for it here".into()
        } else {
            let at: Vec<String> = certificates.iter().map(|index| format!("0x{index:08x}")).collect();
            format!("endorsement certificates by its maker at {}", at.join(", "))
        };
        Ok(Device {
            name,
            tries_left: Some(lockout.tries_left()),
            tries: lockout.counters_text(),
            attestation,
        })
    }

    fn property(&mut self, tag: PropertyTag) -> Outcome<u32> {
        let value = self.context.execute_without_session(|context| context.get_tpm_property(tag))?;
        Ok(value.unwrap_or(0))
    }

    /// The NV indices of the certificates of endorsement keys (TCG EK Credential Profile §2.2.1.4, §2.2.1.5).
    fn endorsement_certificates(&mut self) -> Outcome<Vec<u32>> {
        let (indices, _) = self.context.execute_without_session(|context| {
            context.get_capability(CapabilityType::Handles, FIRST_NV_INDEX, MAX_NV_INDICES)
        })?;
        let CapabilityData::Handles(indices) = indices else { return Ok(Vec::new()) };
        let numbers = indices.iter().map(|handle| u32::from(*handle));
        Ok(numbers.filter(|index| ENDORSEMENT_CERTIFICATES.contains(index)).collect())
    }

    fn load_file(&mut self, file: &KeyFile) -> Outcome<KeyHandle> {
        let hierarchy = match file.parent {
            tss::TPM2_RH_OWNER => None,
            tss::TPM2_RH_ENDORSEMENT => Some(Hierarchy::Endorsement),
            tss::TPM2_RH_PLATFORM => Some(Hierarchy::Platform),
            tss::TPM2_RH_NULL => Some(Hierarchy::Null),
            at => return self.load_under_persistent(at, file),
        };
        let Some(hierarchy) = hierarchy else { return self.load_under_storage_root(file) };
        let (parent, _) = create_primary(&mut self.context, hierarchy, public::storage_root()?)?;
        let handle = self.load_under(parent, file);
        self.context.flush_context(parent.into())?;
        handle
    }

    fn load_under_persistent(&mut self, at: u32, file: &KeyFile) -> Outcome<KeyHandle> {
        if at == STORAGE_ROOT && self.storage_root.kept == Kept::Persistent {
            return self.load_under_storage_root(file);
        }
        match persistent(&mut self.context, at)? {
            Some(mut parent) => {
                let handle = self.load_under(parent.into(), file);
                self.context.tr_close(&mut parent)?;
                handle
            }
            // It was evicted, and is made anew from the same seed.
            None if at == STORAGE_ROOT => self.load_under_storage_root(file),
            None => Err(nothing_at(at).into()),
        }
    }

    fn load_under_storage_root(&mut self, file: &KeyFile) -> Outcome<KeyHandle> {
        let parent = self.parent()?;
        let handle = self.load_under(parent, file);
        self.release_parent()?;
        handle
    }

    fn load_under(&mut self, parent: KeyHandle, file: &KeyFile) -> Outcome<KeyHandle> {
        let (private, public) = (file.private.clone(), file.public.clone());
        let loaded = without_auth(&mut self.context, |context| context.load(parent, private, public));
        Ok(loaded?)
    }

    /// The handle of the storage root key, made again if it was flushed.
    fn parent(&mut self) -> Outcome<KeyHandle> {
        if self.storage_root.kept == Kept::Flushed {
            let (handle, public) =
                create_primary(&mut self.context, Hierarchy::Owner, public::storage_root()?)?;
            self.storage_root.handle = handle;
            self.storage_root.kept = Kept::Loaded;
            if public != self.storage_root.public {
                self.release_parent()?;
                return Err(
                    Error::PublicKey { reason: "the TPM has another storage root key now".into() }.into()
                );
            }
        }
        Ok(self.storage_root.handle)
    }

    /// Frees the slot of the storage root key, if slots are scarce.
    fn release_parent(&mut self) -> Outcome<()> {
        if !self.managed && self.storage_root.kept == Kept::Loaded {
            self.context.flush_context(self.storage_root.handle.into())?;
            self.storage_root.kept = Kept::Flushed;
        }
        Ok(())
    }

    fn evict_control(&mut self, job: &Job, object: ObjectHandle, at: u32) -> Outcome<ObjectHandle> {
        let at = Persistent::Persistent(PersistentTpmHandle::new(at)?);
        without_auth(&mut self.context, |context| context.evict_control(Provision::Owner, object, at))
            .map_err(|error| owner_auth(job, error.into()))
    }

    /// Unloads every key; whether there was one.
    pub(super) fn unload_all(&mut self) -> bool {
        let loaded = std::mem::take(&mut self.loaded);
        let any = !loaded.is_empty();
        for key in loaded {
            // One that cannot be flushed is not there.
            let _ = self.unload(key);
        }
        any
    }

    fn unload(&mut self, loaded: Loaded) -> tss_esapi::Result<()> {
        let mut object = ObjectHandle::from(loaded.handle);
        if loaded.persistent.is_some() {
            self.context.tr_close(&mut object)
        } else {
            self.context.flush_context(object)
        }
    }

    /// A session that is salted with the storage root key, so that only its TPM can take part, and
    /// encrypts the first parameter both ways.
    fn session(&mut self) -> Outcome<AuthSession> {
        if let Some(session) = self.session {
            return Ok(session);
        }
        let salt = self.parent()?;
        let session = self.context.start_auth_session(
            Some(salt),
            None,
            None,
            SessionType::Hmac,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        );
        self.release_parent()?;
        let session = session?.ok_or(tss_esapi::Error::WrapperError(WrapperErrorKind::WrongValueFromTpm))?;
        self.session = Some(session);
        let (attributes, mask) = SessionAttributesBuilder::new()
            .with_continue_session(true)
            .with_decrypt(true)
            .with_encrypt(true)
            .build();
        self.context.tr_sess_set_attributes(session, attributes, mask)?;
        Ok(session)
    }
}

/// Runs a command on an object without an auth value.
fn without_auth<T>(
    context: &mut Context,
    command: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
) -> tss_esapi::Result<T> {
    context.execute_with_session(Some(AuthSession::Password), command)
}

fn auth_value(pin: &str) -> tss_esapi::Result<Auth> {
    Auth::try_from(pin.as_bytes())
}

fn nothing_at(handle: u32) -> Error {
    Error::Absent { key: format!("tpm:handle={handle:#x}") }
}

/// The object at a persistent handle, if there is one.
pub(super) fn persistent(context: &mut Context, at: u32) -> Outcome<Option<ObjectHandle>> {
    let handle = TpmHandle::Persistent(PersistentTpmHandle::new(at)?);
    match context.execute_without_session(|context| context.tr_from_tpm_public(handle)) {
        Ok(object) => Ok(Some(object)),
        Err(error) if Meaning::of(&error) == Meaning::Stale && !is_not_started(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a primary key, which is the same one each time.
pub(super) fn create_primary(
    context: &mut Context,
    hierarchy: Hierarchy,
    template: Public,
) -> Outcome<(KeyHandle, Public)> {
    let made =
        without_auth(context, |context| context.create_primary(hierarchy, template, None, None, None, None))?;
    Ok((made.key_handle, made.out_public))
}

/// Says of a wrong auth value that it is the owner's, which we never have.
pub(super) fn owner_auth(job: &Job, failure: Failure) -> Failure {
    match failure {
        Failure::Tpm(error) if matches!(Meaning::of(&error), Meaning::WrongAuth { .. }) => {
            Failure::Final(Error::Denied {
                key: job.key.clone(),
                operation: job.operation.into(),
                reason: format!(
                    "the TPM's owner hierarchy has an auth value; its owner can put a storage root key at \
                     {STORAGE_ROOT:#x}, and keys at their handles"
                ),
            })
        }
        other => other,
    }
}
