//! A key of a TPM, and how it signs.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::device::Repeat;
use super::link::{Link, Material, Place};
use super::pin::{Pin, Trust};
use super::queue::Job;
use super::{Shared, patient, public};
use crate::{
    Error, Input, Key, KeyInfo, PinWanted, Result, Scheme, SignContext, Signature, Verification, hashing,
    input, prove, verify,
};

/// A key of the keystore `shared`, which lives as long as its keys.
pub(super) struct TpmKey {
    pub(super) opened: Arc<Opened>,
    pub(super) shared: Arc<Shared>,
}

/// What it takes to use a key again.
#[derive(Clone)]
pub(super) struct Opened {
    pub(super) info: KeyInfo,
    pub(super) material: Material,
    /// Whether the TPM counts wrong PINs.
    pub(super) counted: bool,
    pub(super) pin: Arc<Pin>,
}

impl TpmKey {
    /// Has the keystore remember the key, so that it is opened without work from now on.
    pub(super) fn remember(&self) {
        self.shared.opened().insert(self.opened.info.uri.clone(), self.opened.clone());
    }

    /// Says that the key has moved.
    pub(super) fn is_at(&mut self, place: Place) {
        Arc::make_mut(&mut self.opened).material.place = place;
    }

    /// Signs once with every scheme, so that those that work are known and recorded.
    pub(super) fn prove(&mut self) -> Result<()> {
        for proof in prove(self, &patient("prove"))? {
            match proof.outcome {
                // What a TPM cannot do, or does wrongly, is not offered.
                Ok(()) | Err(Error::Unsupported { .. } | Error::WrongSignature { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let proved = self.shared.folder.proofs.proved(&self.opened.info.spki)?;
        Arc::make_mut(&mut self.opened).info.capabilities.proved = proved;
        Ok(())
    }

    /// Records durably that the key signed with `scheme`.
    fn record_proof(&self, scheme: Scheme) -> Result<()> {
        let proofs = &self.shared.folder.proofs;
        proofs.record(&self.opened.info.spki, &[scheme])?;
        if let Some(opened) = self.shared.opened().get_mut(&self.opened.info.uri) {
            Arc::make_mut(opened).info.capabilities.proved.insert(scheme);
        }
        Ok(())
    }

    /// Finds out whether a key at a handle has a PIN, which nothing says: by signing without one.
    pub(super) fn find_out_about_pin(&mut self) -> Result<()> {
        let scheme = self.opened.info.algorithm.natural_scheme();
        let message = format!("Enclasp looks whether {} has a PIN", self.opened.info.uri);
        match self.sign(scheme, Input::Message(message.as_bytes()), &patient("open")) {
            Ok(_) | Err(Error::Unsupported { .. } | Error::WrongSignature { .. }) => {}
            Err(Error::Denied { .. } | Error::WrongPin { .. }) => {
                Arc::make_mut(&mut self.opened).info.policy.pin = true
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn ask(&self, job: &Job) -> Result<Zeroizing<String>> {
        let lockout = match self.opened.counted {
            true => {
                Some(self.shared.queue.run(job, |tpm, job| tpm.run(job, Repeat::Harmless, Link::lockout))?)
            }
            false => None,
        };
        if let Some(lockout) = lockout.filter(|lockout| lockout.tries_left() == 0) {
            return Err(Error::Locked {
                key: job.key.clone(),
                operation: job.operation.into(),
                reason: lockout.text(),
            });
        }
        let tries_left = lockout.map(|lockout| lockout.tries_left());
        let wanted = PinWanted { key: &self.opened.info.uri, what: "the TPM key", tries_left, new: false };
        self.shared.ask.pin(&wanted, &job.ctx)
    }

    fn sign_in_tpm(
        &self,
        job: &Job,
        scheme: Scheme,
        input: Input<'_>,
        pin: Option<Zeroizing<String>>,
        repeat: Repeat,
    ) -> Result<Vec<u8>> {
        let Some((tpm_scheme, hash)) = public::signature_scheme(scheme) else {
            return Err(Error::Unsupported {
                key: job.key.clone(),
                operation: job.operation.into(),
                reason: format!("TPMs have no {scheme}"),
            });
        };
        let digest = hashing::digest(hash, input).into_owned();
        let opened = self.opened.clone();
        let signature = self.shared.queue.run(job, move |tpm, job| {
            let pin = pin.as_ref().map(|pin| pin.as_str());
            tpm.run(job, repeat, |link| link.sign(&opened.material, tpm_scheme, &digest, pin))
        })?;
        public::encoded(&signature).ok_or_else(|| self.wrong_signature(scheme))
    }

    fn wrong_signature(&self, scheme: Scheme) -> Error {
        Error::WrongSignature { key: self.opened.info.uri.to_string(), scheme }
    }
}

impl Key for TpmKey {
    fn info(&self) -> &KeyInfo {
        &self.opened.info
    }

    fn sign(&self, scheme: Scheme, input: Input<'_>, ctx: &SignContext) -> Result<Signature> {
        ctx.check(&self.opened.info.uri)?;
        input::check(&self.opened.info, scheme, input)?;
        let job = Job { key: self.opened.info.uri.to_string(), operation: "sign with", ctx: ctx.clone() };
        let signature = if self.opened.info.policy.pin {
            let sign = |pin: &Zeroizing<String>, trust| {
                let repeat = if trust == Trust::Proved { Repeat::Harmless } else { Repeat::Costly };
                self.sign_in_tpm(&job, scheme, input, Some(pin.clone()), repeat)
            };
            self.opened.pin.with(&job, || self.ask(&job), sign)
        } else {
            self.sign_in_tpm(&job, scheme, input, None, Repeat::Harmless)
        }?;
        verify(&self.opened.info.spki, scheme, input, &signature)
            .map_err(|_| self.wrong_signature(scheme))?;
        if !self.opened.info.capabilities.proved.contains(&scheme) {
            self.record_proof(scheme)?;
        }
        Ok(Signature::new(signature))
    }

    fn verification(&self) -> Verification {
        Verification::Done
    }
}
