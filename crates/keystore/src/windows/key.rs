//! A key that CNG signs with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cng::Provider;
use super::failure::Failure;
use super::keystore::Shared;
use super::place::Place;
use crate::encoding::ecdsa_der_of_pair;
use crate::patience::abandonable;
use crate::{
    Algorithm, Error, Input, Key, KeyInfo, Result, Scheme, SignContext, Signature, Verification, hashing,
    input, verify,
};

pub(super) struct WindowsKey {
    pub(super) shared: Arc<Shared>,
    pub(super) info: KeyInfo,
    pub(super) place: Place,
    /// Whether a prompt of it is on the screen.
    pub(super) asking: Arc<AtomicBool>,
}

impl Key for WindowsKey {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    /// A prompt cannot be taken away. When its caller is gone the answer to it is thrown away, and until
    /// it is given the key is busy.
    fn sign(&self, scheme: Scheme, input: Input<'_>, ctx: &SignContext) -> Result<Signature> {
        ctx.check(&self.info.uri)?;
        input::check(&self.info, scheme, input)?;
        let key = self.info.uri.to_string();
        let hash = scheme.hash().ok_or_else(|| Error::Unsupported {
            key: key.clone(),
            operation: "sign with".into(),
            reason: format!("Windows has no {scheme}"),
        })?;
        let digest = hashing::primitive(scheme, hash, input);
        let prompts = self.info.policy.prompts();
        let (place, name, window) = (self.place, self.info.uri.name().to_owned(), self.shared.window);
        let reason = ctx.reason.clone();
        // The key is opened anew, so that one that was destroyed, or a card that was pulled, shows.
        let sign = move || {
            let key = Provider::open(place)?.open_key(&name)?;
            if prompts {
                // Not every provider shows it.
                let _ = key.say(&reason, window);
            }
            key.sign(scheme, hash, &digest, !prompts)
        };
        let failed = move |failure: Failure| failure.into_error(&key, "sign with");
        let bytes = if prompts {
            let asking = Asking::begin(&self.asking).ok_or_else(|| Error::Busy {
                key: self.info.uri.to_string(),
                operation: "sign with".into(),
                reason: "its prompt is on the screen already".into(),
            })?;
            abandonable(ctx, &self.info.uri, move || {
                let _asking = asking;
                sign().map_err(failed)
            })?
        } else {
            sign().map_err(failed)?
        };
        let wrong = || Error::WrongSignature { key: self.info.uri.to_string(), scheme };
        let signature = match scheme.algorithm() {
            Algorithm::P256 | Algorithm::P384 => ecdsa_der_of_pair(&bytes).ok_or_else(wrong)?,
            Algorithm::Ed25519 | Algorithm::Rsa => bytes,
        };
        verify(&self.info.spki, scheme, input, &signature).map_err(|_| wrong())?;
        if !self.info.capabilities.proved.contains(&scheme) {
            self.shared.proofs.record(&self.info.spki, &[scheme])?;
        }
        Ok(Signature::new(signature))
    }

    fn verification(&self) -> Verification {
        Verification::Done
    }
}

/// That a prompt is on the screen; over when dropped.
struct Asking(Arc<AtomicBool>);

impl Asking {
    fn begin(asking: &Arc<AtomicBool>) -> Option<Self> {
        let free = asking.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok();
        free.then(|| Self(asking.clone()))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
