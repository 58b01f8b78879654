//! A loaded PKCS#11 module: one per file and process, however many keystores use it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as ModuleError, RvError};
use zeroize::Zeroizing;

use super::failure::{Attempt, Failure, describe};
use super::single_part::SinglePart;
use super::token::{Token, TokenId};
use crate::{Error, KeyUri, Result};

/// The modules that this process has loaded, by their real paths. They stay until it ends: not
/// every module survives being unloaded.
static LOADED: Mutex<Vec<Arc<Module>>> = Mutex::new(Vec::new());

pub(super) struct Module {
    path: PathBuf,
    pkcs11: Pkcs11,
    pub(super) single_part: SinglePart,
    /// Held shared by whoever calls the module, and alone while it is initialised anew, since
    /// `C_Finalize` during another call is undefined (PKCS#11 3.1 §5.4.2).
    calls: RwLock<()>,
    /// Whether this process's `C_Initialize` was ours, so that `C_Finalize` is ours too.
    ours: AtomicBool,
    /// The tokens that sessions are open with.
    tokens: Mutex<Vec<Arc<Token>>>,
    /// The PINs that tokens refused, so that none is tried twice.
    pub(super) refused: Mutex<HashMap<TokenId, Zeroizing<String>>>,
}

impl Module {
    /// The module in the file `path`, loaded and initialised.
    pub(super) fn load(path: &Path) -> Result<Arc<Self>> {
        let failed = |reason: String| Error::Unavailable {
            at: KeyUri::pkcs11(vec![], None, path).to_string(),
            reason,
        };
        let real = path.canonicalize().map_err(|e| failed(e.to_string()))?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = loaded.iter().find(|module| module.path == real) {
            return Ok(module.clone());
        }
        let module = Pkcs11::new(&real).and_then(|pkcs11| Ok((SinglePart::load(&real)?, pkcs11)));
        let (single_part, pkcs11) = module.map_err(|e| {
            failed(match e {
                ModuleError::LibraryLoading(e) => format!("it cannot be loaded: {e}"),
                ModuleError::MissingSymbol(_) => "it is not a PKCS#11 module".into(),
                other => describe(&other),
            })
        })?;
        let module = Self {
            path: real,
            pkcs11,
            single_part,
            calls: RwLock::default(),
            ours: AtomicBool::new(false),
            tokens: Mutex::default(),
            refused: Mutex::default(),
        };
        module.initialize().map_err(|e| failed(describe(&e)))?;
        let module = Arc::new(module);
        loaded.push(module.clone());
        Ok(module)
    }

    /// Its real path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn pkcs11(&self) -> &Pkcs11 {
        &self.pkcs11
    }

    /// To be held while the module, a token or a session of it is used.
    pub(super) fn calling(&self) -> RwLockReadGuard<'_, ()> {
        self.calls.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What tokens there are now; others are forgotten. A slot that cannot be asked is passed over.
    pub(super) fn present(&self) -> Attempt<Vec<Arc<Token>>> {
        let slots = self.pkcs11.get_slots_with_token()?;
        let mut tokens = self.tokens();
        let present = slots.into_iter().filter_map(|slot| {
            let info = self.pkcs11.get_token_info(slot).ok().filter(|info| info.token_initialized())?;
            let id = TokenId::of(&info);
            let known = tokens.iter().find(|token| token.id == id && token.slot == slot);
            let new = || Arc::new(Token::new(id, slot, self.pkcs11.clone(), &info));
            Some(known.cloned().unwrap_or_else(new))
        });
        let present: Vec<_> = present.collect();
        // One that was pulled is not logged in to any more, whatever we hold of it.
        tokens.clone_from(&present);
        Ok(present)
    }

    /// The token `id`, if it is there.
    pub(super) fn token(&self, id: &TokenId) -> Attempt<Arc<Token>> {
        if let Some(token) = self.tokens().iter().find(|token| token.id == *id) {
            return Ok(token.clone());
        }
        let present = self.present()?;
        present
            .iter()
            .find(|token| token.id == *id)
            .cloned()
            .ok_or_else(|| self.no_token(id.uri(&self.path), &present))
    }

    /// That what `wanted` (a URI) names is not among the tokens that are there.
    pub(super) fn no_token(&self, wanted: String, present: &[Arc<Token>]) -> Failure {
        let present: Vec<String> = present.iter().map(|token| token.id.to_string()).collect();
        let reason = match &present[..] {
            [] => "the module sees no token at all".into(),
            some => format!("no such token is there; the module sees {}", some.join(", ")),
        };
        Failure::NoToken(Error::Unavailable { at: wanted, reason })
    }

    /// Lets go of a token's sessions, login and handles.
    pub(super) fn forget(&self, token: &Arc<Token>) {
        self.tokens().retain(|known| !Arc::ptr_eq(known, token));
    }

    /// Finalises and initialises the module, since many look for tokens only then. Not while it is
    /// being called, nor while another token is logged in to, whose PIN would be asked for again,
    /// unless somebody else finalised it and all is lost. If `false`, nothing was done.
    pub(super) fn restart(&self) -> bool {
        let Ok(_alone) = self.calls.try_write() else {
            return false;
        };
        let mut tokens = self.tokens();
        let lost = matches!(
            self.pkcs11.get_library_info(),
            Err(ModuleError::Pkcs11(RvError::CryptokiNotInitialized, _))
        );
        if !lost && tokens.iter().any(|token| token.is_logged_in()) {
            return false;
        }
        tokens.clear();
        if self.ours.swap(false, Ordering::Relaxed) {
            // That it is not initialised any more is as well.
            let _ = self.pkcs11.clone().finalize();
        }
        self.initialize().is_ok()
    }

    fn initialize(&self) -> cryptoki::error::Result<()> {
        match self.pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Err(ModuleError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
            Ok(()) => {
                self.ours.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn tokens(&self) -> MutexGuard<'_, Vec<Arc<Token>>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
