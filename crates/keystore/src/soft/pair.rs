//! A private key in memory, and what it does with each scheme.

use std::fmt;

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self as aws, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use zeroize::Zeroizing;

use crate::hashing;
use crate::{Algorithm, Error, Hash, Input, Result, Scheme, Signature};

/// A key pair. aws-lc wipes the private part when it is dropped.
pub(super) enum Pair {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    /// Only ever imported: the software enclave makes no RSA keys.
    Rsa(RsaKeyPair),
}

impl Pair {
    pub(super) fn generate(algorithm: Algorithm) -> Result<Self> {
        let failed = |_| Error::PrivateKey { reason: format!("cannot generate a {algorithm} key") };
        Ok(match algorithm {
            Algorithm::P256 => {
                Self::P256(EcdsaKeyPair::generate(&aws::ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?)
            }
            Algorithm::P384 => {
                Self::P384(EcdsaKeyPair::generate(&aws::ECDSA_P384_SHA384_ASN1_SIGNING).map_err(failed)?)
            }
            Algorithm::Ed25519 => Self::Ed25519(Ed25519KeyPair::generate().map_err(failed)?),
            Algorithm::Rsa => {
                return Err(Error::PrivateKey { reason: "the software enclave makes no RSA keys".into() });
            }
        })
    }

    /// Reads DER PrivateKeyInfo (RFC 5208) or OneAsymmetricKey (RFC 5958).
    pub(super) fn from_pkcs8(pkcs8: &[u8]) -> Result<Self> {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&aws::ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8) {
            return Ok(Self::P256(pair));
        }
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&aws::ECDSA_P384_SHA384_ASN1_SIGNING, pkcs8) {
            return Ok(Self::P384(pair));
        }
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8(pkcs8) {
            return Ok(Self::Ed25519(pair));
        }
        RsaKeyPair::from_pkcs8(pkcs8).map(Self::Rsa).map_err(|_| Error::PrivateKey {
            reason: "not a PKCS#8 key of type P-256, P-384, Ed25519 or RSA of 2048 to 8192 bits".into(),
        })
    }

    /// Reads what [`from_pkcs8`](Self::from_pkcs8) does, RSAPrivateKey or ECPrivateKey.
    pub(super) fn from_der(der: &[u8]) -> Result<Self> {
        if let Ok(pair) = EcdsaKeyPair::from_private_key_der(&aws::ECDSA_P256_SHA256_ASN1_SIGNING, der) {
            return Ok(Self::P256(pair));
        }
        if let Ok(pair) = EcdsaKeyPair::from_private_key_der(&aws::ECDSA_P384_SHA384_ASN1_SIGNING, der) {
            return Ok(Self::P384(pair));
        }
        RsaKeyPair::from_der(der).map(Self::Rsa).or_else(|_| Self::from_pkcs8(der))
    }

    /// DER PrivateKeyInfo, for the encrypted file only.
    pub(super) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>> {
        let failed = |_| Error::PrivateKey { reason: "cannot be encoded".into() };
        Ok(match self {
            Self::P256(pair) | Self::P384(pair) => {
                Zeroizing::new(pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec())
            }
            Self::Ed25519(pair) => Zeroizing::new(pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec()),
            Self::Rsa(pair) => {
                let encoded: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                Zeroizing::new(encoded.as_ref().to_vec())
            }
        })
    }

    /// DER SubjectPublicKeyInfo.
    pub(super) fn spki(&self) -> Result<Vec<u8>> {
        let encoded: std::result::Result<PublicKeyX509Der<'_>, _> = match self {
            Self::P256(pair) | Self::P384(pair) => pair.public_key().as_der(),
            Self::Ed25519(pair) => pair.public_key().as_der(),
            Self::Rsa(pair) => pair.public_key().as_der(),
        };
        let encoded =
            encoded.map_err(|_| Error::PublicKey { reason: "the public key cannot be encoded".into() })?;
        Ok(encoded.as_ref().to_vec())
    }

    /// Signs. `None` if the pair and the scheme, or the scheme and a digest, do not fit.
    pub(super) fn sign(&self, scheme: Scheme, input: Input<'_>) -> Option<Signature> {
        let random = SystemRandom::new();
        match (self, scheme) {
            // The curve's own hash: one call.
            (Self::P256(pair), Scheme::EcdsaP256Sha256) | (Self::P384(pair), Scheme::EcdsaP384Sha384) => {
                match input {
                    Input::Message(message) => pair.sign(&random, message).ok(),
                    Input::Digest(digest) => {
                        let digest = Digest::import_less_safe(digest, hashing::aws(scheme.hash()?)).ok()?;
                        pair.sign_digest(&digest).ok()
                    }
                }
                .map(|signature| Signature::new(signature.as_ref()))
            }
            // ECDSA takes the leftmost bits of the digest, as many as the curve's order has (SEC 1
            // §4.1.3 step 5): 32 bytes of SHA-384 for P-256, and SHA-256 as a number for P-384.
            // aws-lc-rs binds hash and curve, so the adapted value goes in as a digest.
            (Self::P256(pair), Scheme::EcdsaP256Sha384) => {
                let digest = hashing::digest(Hash::Sha384, input);
                let leftmost = Digest::import_less_safe(digest.get(..32)?, &digest::SHA256).ok()?;
                pair.sign_digest(&leftmost).ok().map(|signature| Signature::new(signature.as_ref()))
            }
            (Self::P384(pair), Scheme::EcdsaP384Sha256) => {
                let digest = hashing::digest(Hash::Sha256, input);
                let mut number = [0; 48];
                number.get_mut(16..)?.copy_from_slice(digest.get(..32)?);
                let number = Digest::import_less_safe(&number, &digest::SHA384).ok()?;
                pair.sign_digest(&number).ok().map(|signature| Signature::new(signature.as_ref()))
            }
            (Self::Ed25519(pair), Scheme::Ed25519) => match input {
                Input::Message(message) => Some(Signature::new(pair.sign(message).as_ref())),
                Input::Digest(_) => None,
            },
            (Self::Rsa(pair), _) => {
                let encoding: &dyn aws::RsaEncoding = match scheme {
                    Scheme::RsaPssSha256 => &aws::RSA_PSS_SHA256,
                    Scheme::RsaPssSha384 => &aws::RSA_PSS_SHA384,
                    Scheme::RsaPssSha512 => &aws::RSA_PSS_SHA512,
                    Scheme::RsaPkcs1Sha256 => &aws::RSA_PKCS1_SHA256,
                    Scheme::RsaPkcs1Sha384 => &aws::RSA_PKCS1_SHA384,
                    Scheme::RsaPkcs1Sha512 => &aws::RSA_PKCS1_SHA512,
                    _ => return None,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                match input {
                    Input::Message(message) => pair.sign(encoding, &random, message, &mut signature).ok()?,
                    Input::Digest(digest) => {
                        let digest = Digest::import_less_safe(digest, hashing::aws(scheme.hash()?)).ok()?;
                        pair.sign_digest(encoding, &digest, &mut signature).ok()?;
                    }
                }
                Some(Signature::new(signature))
            }
            _ => None,
        }
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair(…)")
    }
}
