//! A private key on a token.

use std::sync::{Arc, Mutex, PoisonError};

use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::failure::Attempt;
use super::token::{Token, TokenId};
use super::{Caller, Shared, name, object};
use crate::encoding::{digest_info, ecdsa_der_of_pair};
use crate::{
    Algorithm, Error, Hash, Input, Key, KeyInfo, Result, Scheme, SignContext, Signature, Verification,
    hashing, input, verify,
};

/// A private key on a token. It stays usable when the token is pulled and comes back.
pub(super) struct Pkcs11Key {
    pub(super) shared: Arc<Shared>,
    pub(super) info: KeyInfo,
    pub(super) token: TokenId,
    /// CKA_ALWAYS_AUTHENTICATE: each signature wants the PIN.
    pub(super) always_authenticate: bool,
    /// Its handle, with the generation of the token that the handle is of.
    pub(super) handle: Mutex<Option<(u64, ObjectHandle)>>,
}

impl Key for Pkcs11Key {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    /// The deadline and the cancellation are looked at while waiting for a session or for another
    /// login, and before each call of the module. A call that has begun cannot be interrupted.
    fn sign(&self, scheme: Scheme, input: Input<'_>, ctx: &SignContext) -> Result<Signature> {
        ctx.check(&self.info.uri)?;
        input::check(&self.info, scheme, input)?;
        let (mechanism, data) = prepare(scheme, input)?;
        let caller = self.shared.caller(&self.info.uri, "sign with", ctx);
        let bytes = self.shared.on_token(
            &caller,
            |module| module.token(&self.token),
            |token| self.sign_with(token, &mechanism, &data, &caller),
        )?;
        let wrong = || Error::WrongSignature { key: self.info.uri.to_string(), scheme };
        let signature = Signature::new(match scheme.algorithm() {
            Algorithm::P256 | Algorithm::P384 => ecdsa_der_of_pair(&bytes).ok_or_else(wrong)?,
            Algorithm::Ed25519 | Algorithm::Rsa => bytes,
        });
        verify(&self.info.spki, scheme, input, signature.as_ref()).map_err(|_| wrong())?;
        if !self.info.capabilities.proved.contains(&scheme) {
            self.shared.proofs.record(&self.info.spki, &[scheme])?;
        }
        Ok(signature)
    }

    fn verification(&self) -> Verification {
        Verification::Done
    }
}

impl Pkcs11Key {
    fn sign_with(
        &self,
        token: &Token,
        mechanism: &Mechanism<'_>,
        data: &[u8],
        caller: &Caller<'_>,
    ) -> Attempt<Vec<u8>> {
        let session = token.session(caller)?;
        token.log_in(&session, caller)?;
        let handle = self.handle(token, &session, caller)?;
        caller.ctx.check(caller.key)?;
        session.sign_init(mechanism, handle)?;
        if self.always_authenticate
            && let Err(failure) = token.allow_signature(&session, caller)
        {
            // The signature that was begun would be in the way of the next one.
            session.close();
            return Err(failure);
        }
        Ok(caller.module.single_part.sign(&session, data)?)
    }

    /// The object handle, which is looked for again whenever the token is another generation.
    fn handle(&self, token: &Token, session: &Session, caller: &Caller<'_>) -> Attempt<ObjectHandle> {
        let mut known = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((generation, handle)) = *known
            && generation == token.generation
        {
            return Ok(handle);
        }
        let template = name::template(caller.key, ObjectClass::PRIVATE_KEY);
        let keys = object::private_keys(session, &template)?;
        let found = keys.into_iter().flatten().find(|found| found.spki == self.info.spki);
        let handle = found.ok_or_else(|| Error::Absent { key: caller.key.to_string() })?.handle;
        *known = Some((token.generation, handle));
        Ok(handle)
    }
}

/// The mechanism for a scheme, and the data for it to sign. What we hash goes in as a digest, so
/// that every token needs only the bare mechanism, and both kinds of input take one way.
fn prepare(scheme: Scheme, input: Input<'_>) -> Result<(Mechanism<'static>, Vec<u8>)> {
    let Some(hash) = scheme.hash() else {
        let (Input::Message(message) | Input::Digest(message)) = input;
        return Ok((Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)), message.to_vec()));
    };
    let data = hashing::primitive(scheme, hash, input);
    Ok(match scheme {
        Scheme::RsaPkcs1Sha256 | Scheme::RsaPkcs1Sha384 | Scheme::RsaPkcs1Sha512 => {
            (Mechanism::RsaPkcs, digest_info(hash, &data)?)
        }
        Scheme::RsaPssSha256 | Scheme::RsaPssSha384 | Scheme::RsaPssSha512 => {
            (Mechanism::RsaPkcsPss(pss(hash)), data)
        }
        _ => (Mechanism::Ecdsa, data),
    })
}

/// The parameters that TLS demands: MGF1 with the same hash, and a salt of its length (RFC 8446
/// §4.2.3).
fn pss(hash: Hash) -> PkcsPssParams {
    let (hash_alg, mgf, s_len) = match hash {
        Hash::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, 32),
        Hash::Sha384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, 48),
        Hash::Sha512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, 64),
    };
    PkcsPssParams { hash_alg, mgf, s_len: s_len.into() }
}
