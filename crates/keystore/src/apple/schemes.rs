//! Schemes as Security.framework names them.

use security_framework::key::Algorithm;

use crate::{Input, Scheme};

/// The algorithm for a scheme, and what it takes: each has one for messages and one for digests.
/// `None` for Ed25519, which SecKey does not have.
pub(super) fn algorithm<'a>(scheme: Scheme, input: Input<'a>) -> Option<(Algorithm, &'a [u8])> {
    use Scheme::*;
    let (message, digest) = match scheme {
        EcdsaP256Sha256 | EcdsaP384Sha256 => {
            (Algorithm::ECDSASignatureMessageX962SHA256, Algorithm::ECDSASignatureDigestX962SHA256)
        }
        EcdsaP256Sha384 | EcdsaP384Sha384 => {
            (Algorithm::ECDSASignatureMessageX962SHA384, Algorithm::ECDSASignatureDigestX962SHA384)
        }
        RsaPssSha256 => (Algorithm::RSASignatureMessagePSSSHA256, Algorithm::RSASignatureDigestPSSSHA256),
        RsaPssSha384 => (Algorithm::RSASignatureMessagePSSSHA384, Algorithm::RSASignatureDigestPSSSHA384),
        RsaPssSha512 => (Algorithm::RSASignatureMessagePSSSHA512, Algorithm::RSASignatureDigestPSSSHA512),
        RsaPkcs1Sha256 => {
            (Algorithm::RSASignatureMessagePKCS1v15SHA256, Algorithm::RSASignatureDigestPKCS1v15SHA256)
        }
        RsaPkcs1Sha384 => {
            (Algorithm::RSASignatureMessagePKCS1v15SHA384, Algorithm::RSASignatureDigestPKCS1v15SHA384)
        }
        RsaPkcs1Sha512 => {
            (Algorithm::RSASignatureMessagePKCS1v15SHA512, Algorithm::RSASignatureDigestPKCS1v15SHA512)
        }
        Ed25519 => return None,
    };
    Some(match input {
        Input::Message(bytes) => (message, bytes),
        Input::Digest(bytes) => (digest, bytes),
    })
}
