//! A key that Security.framework signs with.

use std::sync::Arc;

use security_framework::key::{Algorithm, SecKey};

use super::failure::Failure;
use super::keychain::{self, Attempt};
use super::keystore::Shared;
use super::schemes::algorithm;
use crate::patience::interruptible;
use crate::{
    Error, Input, Key, KeyInfo, Result, Scheme, SignContext, Signature, Verification, input, verify,
};

pub(super) struct AppleKey {
    pub(super) shared: Arc<Shared>,
    pub(super) info: KeyInfo,
    pub(super) key: SecKey,
    /// By which it is found again, together with an answer of the person; of our keys only.
    pub(super) public_key_hash: Option<Vec<u8>>,
}

impl Key for AppleKey {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    /// Where a key of ours asks a person, the prompt goes away with the deadline or the cancellation.
    /// What the system asks by itself (for a key of another program, a smart card's PIN) cannot be
    /// interrupted.
    fn sign(&self, scheme: Scheme, input: Input<'_>, ctx: &SignContext) -> Result<Signature> {
        ctx.check(&self.info.uri)?;
        input::check(&self.info, scheme, input)?;
        let failed = |failure: Failure| failure.into_error(&self.info.uri.to_string(), "sign with");
        let (algorithm, bytes) = algorithm(scheme, input).ok_or_else(|| Error::Unsupported {
            key: self.info.uri.to_string(),
            operation: "sign with".into(),
            reason: format!("the system has no {scheme}"),
        })?;
        let signed = match &self.public_key_hash {
            Some(hash) if self.info.policy.prompts() => self.ask(hash, algorithm, bytes, ctx),
            _ => self.key.create_signature(algorithm, bytes).map_err(Failure::from),
        };
        if signed.is_err() {
            // The system says that the program cancelled, whatever made it do so.
            ctx.check(&self.info.uri)?;
        }
        let signature = signed.map_err(failed)?;
        verify(&self.info.spki, scheme, input, &signature)
            .map_err(|_| Error::WrongSignature { key: self.info.uri.to_string(), scheme })?;
        if !self.info.capabilities.proved.contains(&scheme) {
            self.shared.proofs.record(&self.info.spki, &[scheme])?;
        }
        Ok(Signature::new(signature))
    }

    fn verification(&self) -> Verification {
        Verification::Done
    }
}

impl AppleKey {
    /// Signs with the key as the person's answer opens it.
    fn ask(&self, hash: &[u8], algorithm: Algorithm, bytes: &[u8], ctx: &SignContext) -> Attempt<Vec<u8>> {
        let answers = &self.shared.answers;
        let answer = answers.of(&self.info.spki, &ctx.reason);
        let interrupt = || answer.invalidate();
        let signed = interruptible(ctx, &self.info.uri, interrupt, || {
            Ok(keychain::key(hash, &answer)?.create_signature(algorithm, bytes)?)
        });
        match signed {
            Ok(_) => answers.keep(&self.info.spki, answer),
            Err(_) => answers.forget(&self.info.spki),
        }
        signed
    }
}
