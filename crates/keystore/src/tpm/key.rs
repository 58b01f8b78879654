//! A key of a TPM, and how it signs.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::device::Repeat;
use super::link::Material;
use super::pin::{Pin, Trust};
use super::queue::Job;
use super::{Shared, patient, public};
use crate::{
    Error, Input, Key, KeyInfo, PinWanted, Result, Scheme, SignContext, Signature, Verification, input,
    prove, verify,
};

pub(super) struct TpmKey {
    pub(super) info: KeyInfo,
    pub(super) material: Arc<Material>,
    /// Whether the TPM counts wrong PINs.
    pub(super) counted: bool,
    pub(super) pin: Arc<Pin>,
    pub(super) shared: Arc<Shared>,
}

impl TpmKey {
    /// Signs once with every scheme, so that those that work are known and recorded.
    pub(super) fn prove(&mut self) -> Result<()> {
        for proof in prove(self, &patient("prove"))? {
            match proof.outcome {
                // What a TPM cannot do, or does wrongly, is not offered.
                Ok(()) | Err(Error::Unsupported { .. } | Error::WrongSignature { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.info.capabilities.proved = self.shared.folder.proofs.proved(&self.info.spki)?;
        Ok(())
    }

    /// Finds out whether a key at a handle has a PIN, which nothing says: by signing without one.
    pub(super) fn find_out_about_pin(&mut self) -> Result<()> {
        let scheme = self.info.algorithm.natural_scheme();
        let message = format!("Enclasp looks whether {} has a PIN", self.info.uri);
        match self.sign(scheme, Input::Message(message.as_bytes()), &patient("open")) {
            Ok(_) | Err(Error::Unsupported { .. } | Error::WrongSignature { .. }) => {}
            Err(Error::Denied { .. }) => self.info.policy.pin = true,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn ask(&self, job: &Job) -> Result<Zeroizing<String>> {
        let lockout = if self.counted {
            Some(
                self.shared
                    .queue
                    .run(job, |tpm, job| tpm.run(job, Repeat::Harmless, |link| link.lockout()))?,
            )
        } else {
            None
        };
        if let Some(lockout) = lockout.filter(|lockout| lockout.tries_left() == 0) {
            return Err(Error::Locked {
                key: job.key.clone(),
                operation: job.operation.into(),
                reason: lockout.text(),
            });
        }
        let tries_left = lockout.map(|lockout| lockout.tries_left());
        let wanted = PinWanted { key: &self.info.uri, what: "the TPM key", tries_left };
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
        let digest = input::digest(hash, input).into_owned();
        let material = self.material.clone();
        let signature = self.shared.queue.run(job, move |tpm, job| {
            let pin = pin.as_ref().map(|pin| pin.as_str());
            tpm.run(job, repeat, |link| link.sign(&material, tpm_scheme, &digest, pin))
        })?;
        public::encoded(&signature).ok_or_else(|| self.wrong_signature(scheme))
    }

    fn wrong_signature(&self, scheme: Scheme) -> Error {
        Error::WrongSignature { key: self.info.uri.to_string(), scheme }
    }
}

impl Key for TpmKey {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, scheme: Scheme, input: Input<'_>, ctx: &SignContext) -> Result<Signature> {
        ctx.check(&self.info.uri)?;
        input::check(&self.info, scheme, input)?;
        let job = Job { key: self.info.uri.to_string(), operation: "sign with", ctx: ctx.clone() };
        let signature = if self.info.policy.pin {
            let sign = |pin: &Zeroizing<String>, trust| {
                let repeat = if trust == Trust::Proved { Repeat::Harmless } else { Repeat::Costly };
                self.sign_in_tpm(&job, scheme, input, Some(pin.clone()), repeat)
            };
            self.pin.with(&job, || self.ask(&job), sign)
        } else {
            self.sign_in_tpm(&job, scheme, input, None, Repeat::Harmless)
        }?;
        verify(&self.info.spki, scheme, input, &signature).map_err(|_| self.wrong_signature(scheme))?;
        if !self.info.capabilities.proved.contains(&scheme) {
            self.shared.folder.proofs.record(&self.info.spki, &[scheme])?;
        }
        Ok(Signature::new(signature))
    }

    fn verification(&self) -> Verification {
        Verification::Done
    }
}
