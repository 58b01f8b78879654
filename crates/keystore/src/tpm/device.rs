//! The way to one TPM: its storage root key, an encrypted session, and the keys that are loaded.
//!
//! What a resource manager, a reset or another program takes away is fetched anew, so that a job
//! sees a TPM that always works, or an error that says what to do.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tss_esapi::Context;
use tss_esapi::constants::StartupType;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::structures::Public;
use tss_esapi::tcti_ldr::TctiNameConf;
use tss_esapi::traits::{Marshall, UnMarshall};

use super::failure::{Failure, Meaning, Outcome, is_failed, is_not_started};
use super::key_file::{contents, tpm2b};
use super::link::{Kept, Link, STORAGE_ROOT, StorageRoot, create_primary, owner_auth, persistent};
use super::public;
use super::queue::Job;
use crate::{Error, Result, durable};

/// How often a broken way is tried again, and a busy TPM asked again, at most. The pause doubles
/// each time: 20 ms to 640 ms.
const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// A public area is some hundred bytes.
const MAX_PUBLIC: u64 = 4096;

/// One TPM, reached when it is first needed and whenever the way broke.
pub(super) struct Tpm {
    tcti: String,
    /// The public area of the storage root key, as it was when the folder was first used.
    remembered: PathBuf,
    link: Option<Link>,
}

/// Whether a command may be sent again when nobody knows if it was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    Harmless,
    /// It tries a PIN, and may have cost a try.
    Costly,
}

impl Tpm {
    /// The TPM behind `tcti`, whose storage root key is remembered in the file `remembered`.
    pub(super) fn new(tcti: String, remembered: PathBuf) -> Self {
        Self { tcti, remembered, link: None }
    }

    /// What errors call it.
    pub(super) fn at(&self) -> String {
        format!("tpm:tcti={}", self.tcti)
    }

    /// Has the TPM carry out `command`: again later if it is busy, with other slots free if it has
    /// none, and over a new link if handles are gone or the way is broken.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::Cancelled`], and what the TPM's answer means.
    pub(super) fn run<T>(
        &mut self,
        job: &Job,
        repeat: Repeat,
        mut command: impl FnMut(&mut Link) -> Outcome<T>,
    ) -> Result<T> {
        let mut attempts = 0;
        loop {
            job.check()?;
            let mut sent = false;
            let result = self.link(job).and_then(|link| {
                sent = true;
                command(link)
            });
            let error = match result {
                Ok(done) => return Ok(done),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Tpm(error)) => error,
            };
            let meaning = Meaning::of(&error);
            let again = match meaning {
                Meaning::Later => true,
                Meaning::NoSlot => self.link.as_mut().is_some_and(Link::unload_all),
                Meaning::Stale => {
                    self.link = None;
                    // Once for a reset; a handle that is still unknown then does not exist.
                    attempts < 2
                }
                Meaning::Lost => {
                    self.link = None;
                    !sent || repeat == Repeat::Harmless
                }
                Meaning::Other => {
                    // Whatever it was, the next job begins anew.
                    self.link = None;
                    false
                }
                _ => false,
            };
            if !again || attempts == ATTEMPTS {
                return Err(self.explain(job, &error, meaning));
            }
            if matches!(meaning, Meaning::Later | Meaning::Lost) {
                thread::sleep(FIRST_PAUSE * 2u32.pow(attempts));
            }
            attempts += 1;
        }
    }

    /// The link, made if there is none.
    fn link(&mut self, job: &Job) -> Outcome<&mut Link> {
        let link = match self.link.take() {
            Some(link) => link,
            None => self.connect(job)?,
        };
        Ok(self.link.insert(link))
    }

    fn connect(&self, job: &Job) -> Outcome<Link> {
        // What the library does not know it leaves out, and would reach another TPM.
        if let Some(unknown) = unknown_setting(&self.tcti) {
            let reason = format!("`{unknown}` is no setting: a simulator has a host and a port");
            return Err(self.unavailable(&reason).into());
        }
        let tcti = self.tcti.parse::<TctiNameConf>().map_err(|_| {
            self.unavailable(
                "not a TCTI; one looks like device:/dev/tpmrm0 or swtpm:host=127.0.0.1,port=2321",
            )
        })?;
        let mut context = Context::new(tcti)?;
        let storage_root = match self.storage_root(job, &mut context) {
            Err(Failure::Tpm(error)) if is_not_started(&error) => {
                context.startup(StartupType::Clear)?;
                self.storage_root(job, &mut context)?
            }
            other => other?,
        };
        let managed = self.tcti.contains("tpmrm") || self.tcti.starts_with("tabrmd");
        Link::new(context, storage_root, managed)
    }

    /// The storage root key, made sure to be the one that it was: a session's salt is encrypted
    /// for it, so that somebody on the bus who passed for the TPM would learn every PIN.
    fn storage_root(&self, job: &Job, context: &mut Context) -> Outcome<StorageRoot> {
        let remembered = self.remembered()?;
        let right = |public: &Public| match &remembered {
            Some(remembered) => public == remembered,
            None => public::is_storage_root(public),
        };
        if let Some(mut object) = persistent(context, STORAGE_ROOT)? {
            let (public, ..) =
                context.execute_without_session(|context| context.read_public(object.into()))?;
            if right(&public) {
                self.remember(&public, remembered.is_some())?;
                return Ok(StorageRoot { handle: object.into(), public, kept: Kept::Persistent });
            }
            context.tr_close(&mut object)?;
        }
        let template = public::storage_root()?;
        let (handle, public) = create_primary(context, Hierarchy::Owner, template)
            .map_err(|failure| owner_auth(job, failure))?;
        if !right(&public) {
            context.flush_context(handle.into())?;
            return Err(self
                .unavailable(&format!(
                    "its storage root key is not the one in {}: the TPM was cleared, or this is another one; \
                     its keys are gone with it, so begin with another folder",
                    self.remembered.display()
                ))
                .into());
        }
        self.remember(&public, remembered.is_some())?;
        Ok(StorageRoot { handle, public, kept: Kept::Loaded })
    }

    fn remembered(&self) -> Result<Option<Public>> {
        let Some(bytes) = durable::read(&self.remembered, MAX_PUBLIC)? else { return Ok(None) };
        let public = contents(&bytes).and_then(|bytes| Public::unmarshall(bytes).ok());
        public.map(Some).ok_or_else(|| Error::Storage {
            operation: "use".into(),
            path: self.remembered.display().to_string(),
            reason: "it is not the public area of a storage root key".into(),
        })
    }

    fn remember(&self, public: &Public, already: bool) -> Outcome<()> {
        if !already {
            let bytes = tpm2b(&public.marshall()?).map_err(|reason| self.unavailable(&reason))?;
            durable::replace(&self.remembered, &bytes)?;
        }
        Ok(())
    }

    fn unavailable(&self, reason: &str) -> Error {
        Error::Unavailable { at: self.at(), reason: reason.into() }
    }

    /// The error that an answer is, when nothing more can be done about it here.
    fn explain(&mut self, job: &Job, error: &tss_esapi::Error, meaning: Meaning) -> Error {
        let (key, operation) = (job.key.clone(), job.operation.to_owned());
        match meaning {
            Meaning::Later => Error::Busy { key, operation, reason: format!("the TPM says: {error}") },
            Meaning::NoSlot => Error::Busy {
                key,
                operation,
                reason: "other programs fill the TPM's slots; /dev/tpmrm0 gives each program its own".into(),
            },
            Meaning::Stale => self.unavailable(&format!("handles that it gave out are gone: {error}")),
            Meaning::Lost => {
                let reason = self.why_unreachable().unwrap_or_else(|| match is_failed(error) {
                    true => "it has failed, and takes no commands until it is reset".into(),
                    false => "nothing answers there".into(),
                });
                self.unavailable(&reason)
            }
            Meaning::WrongAuth { counted } => {
                let left = self.link.as_mut().filter(|_| counted).and_then(|link| link.lockout().ok());
                let left = left.map(|lockout| format!("; {}", lockout.tries_left_text()));
                let reason = format!("the PIN is wrong{}", left.unwrap_or_default());
                Error::WrongPin { key, operation, reason }
            }
            Meaning::Lockout => {
                let lockout = self.link.as_mut().and_then(|link| link.lockout().ok());
                let reason = lockout.map_or("the TPM is in lockout".into(), |lockout| lockout.text());
                Error::Locked { key, operation, reason }
            }
            Meaning::Foreign => Error::Unsupported {
                key,
                operation,
                reason:
                    "it was made under another parent: by another TPM, or by this one before it was cleared"
                        .into(),
            },
            Meaning::Unsupported => {
                Error::Unsupported { key, operation, reason: format!("the TPM says: {error}") }
            }
            Meaning::Disabled => {
                self.unavailable("its owner hierarchy is switched off; the firmware's setup can switch it on")
            }
            Meaning::Other => self.unavailable(&format!("it says: {error}")),
        }
    }

    /// What is wrong with the device file, if that is what is wrong.
    fn why_unreachable(&self) -> Option<String> {
        let path = self.tcti.strip_prefix("device:")?;
        let error = std::fs::OpenOptions::new().read(true).write(true).open(path).err()?;
        Some(match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!(
                    "there is no {path}: the machine has no TPM 2.0, or it is switched off in the firmware"
                )
            }
            std::io::ErrorKind::PermissionDenied => {
                format!("this user may not use {path}, which belongs to the group `tss`")
            }
            std::io::ErrorKind::ResourceBusy => {
                format!("another program has {path} for itself; /dev/tpmrm0 can be shared")
            }
            _ => format!("cannot open {path}: {error}"),
        })
    }
}

/// The first setting of a simulator's TCTI that the library does not know.
fn unknown_setting(tcti: &str) -> Option<&str> {
    let settings = tcti.strip_prefix("swtpm:").or_else(|| tcti.strip_prefix("mssim:"))?;
    let known =
        |setting: &str| setting.is_empty() || setting.starts_with("host=") || setting.starts_with("port=");
    settings.split(',').find(|setting| !known(setting))
}
