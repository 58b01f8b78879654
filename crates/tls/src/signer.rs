//! The key of a [`Credential`], as rustls asks for it.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use enclasp_keystore::{Input, Scheme, SignContext, Verification, verify};
use enclasp_pki::{Certificate, DistinguishedName};
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::SubjectPublicKeyInfoDer;

use crate::credential::allowed_in_tls13;
use crate::error::list;
use crate::evidence::{Role, SignatureEvidence, scheme_name};
use crate::recorder::Recorder;
use crate::{Credential, Error, Version};

/// Presents one credential, or none, and records what was asked for.
#[derive(Debug)]
pub(crate) struct Resolver(Option<(Credential, RwLock<Arc<CertifiedKey>>)>);

impl Resolver {
    pub(crate) fn new(role: Role, credential: Option<Credential>) -> Self {
        Self(credential.map(|credential| {
            let key = TlsKey { role, credential: credential.clone() };
            let certified = Arc::new(CertifiedKey::new(credential.chain().to_vec(), Arc::new(key)));
            (credential, RwLock::new(certified))
        }))
    }

    /// What it presents.
    pub(crate) fn certified(&self) -> Option<Arc<CertifiedKey>> {
        let (_, certified) = self.0.as_ref()?;
        Some(certified.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Presents this OCSP response, in DER, with the certificate from now on.
    pub(crate) fn staple(&self, response: Option<Vec<u8>>) {
        if let Some((_, certified)) = &self.0 {
            let mut certified = certified.write().unwrap_or_else(PoisonError::into_inner);
            let stapled = CertifiedKey { ocsp: response, ..CertifiedKey::clone(&certified) };
            *certified = Arc::new(stapled);
        }
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, acceptable: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        if let Some(recorder) = Recorder::current() {
            let mut record = recorder.record();
            record.certificate_requested = true;
            if let Some((credential, _)) = &self.0 {
                record.notes.extend(unlisted_issuer(credential, acceptable));
            }
        }
        self.certified()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}

/// The certificate is sent although the server's list of CAs (RFC 8446 §4.2.4) does not name its
/// issuer: such lists are hints, and often incomplete. It may explain a refusal.
fn unlisted_issuer(credential: &Credential, acceptable: &[&[u8]]) -> Option<String> {
    let acceptable: Vec<_> =
        acceptable.iter().filter_map(|name| DistinguishedName::from_der(name).ok()).collect();
    let certificates = credential.chain().iter().filter_map(|der| Certificate::from_der(der).ok());
    let listed = certificates.into_iter().any(|certificate| acceptable.contains(certificate.issuer()));
    (!listed && !acceptable.is_empty())
        .then(|| format!("the server's list of accepted CAs does not name {}", credential.leaf().issuer()))
}

#[derive(Debug)]
struct TlsKey {
    role: Role,
    credential: Credential,
}

impl SigningKey for TlsKey {
    /// The schemes are tried in our order, the natural one first: TLS 1.3 binds curve and hash, and
    /// rustls does not say which version it asks for. With the natural code point on offer both
    /// versions are served; without it, [`Signer::sign`] sees the version and refuses in TLS 1.3.
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let offers = |scheme: &&Scheme| offered.iter().any(|offer| u16::from(*offer) == scheme.code_point());
        let schemes = self.credential.schemes();
        let Some(&scheme) = schemes.iter().find(offers) else {
            if let Some(recorder) = Recorder::current() {
                recorder.fail(no_common_scheme(&self.credential, schemes, offered, &recorder));
            }
            return match self.role {
                // rustls sends the alert.
                Role::Server => None,
                // rustls would go on with an empty certificate, so that we were nobody.
                Role::Client => Some(Box::new(Refusal(*schemes.first()?))),
            };
        };
        Some(Box::new(TlsSigner {
            role: self.role,
            credential: self.credential.clone(),
            scheme,
            offered: offered.to_vec(),
        }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.credential.leaf().spki()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        use enclasp_keystore::Algorithm::*;
        match self.credential.algorithm() {
            Ed25519 => SignatureAlgorithm::ED25519,
            Rsa => SignatureAlgorithm::RSA,
            _ => SignatureAlgorithm::ECDSA,
        }
    }
}

/// Never signs.
#[derive(Debug)]
struct Refusal(Scheme);

impl Signer for Refusal {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Err(rustls::Error::General("no signature scheme in common".into()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::from(self.0.code_point())
    }
}

fn no_common_scheme(
    credential: &Credential,
    able: &[Scheme],
    offered: &[SignatureScheme],
    recorder: &Recorder,
) -> Error {
    let able: Vec<_> = able.iter().map(|scheme| scheme.name().to_owned()).collect();
    let offered: Vec<_> = offered.iter().map(|&scheme| scheme_name(scheme, None)).collect();
    Error::NoCommonScheme {
        peer: recorder.peer.clone(),
        key: credential.uri().to_string(),
        able: list(&able),
        offered: if offered.is_empty() { "nothing that this TLS version has".into() } else { list(&offered) },
    }
}

#[derive(Debug)]
struct TlsSigner {
    role: Role,
    credential: Credential,
    scheme: Scheme,
    offered: Vec<SignatureScheme>,
}

/// What a TLS 1.3 CertificateVerify begins with (RFC 8446 §4.4.3). A TLS 1.2 message begins with a
/// handshake header, or with the client's and our own random value.
const TLS13_PREFIX: [u8; 64] = [b' '; 64];

impl Signer for TlsSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let recorder = Recorder::current();
        self.sign_for(message, recorder.as_deref()).map_err(|error| {
            let text = error.to_string();
            match recorder {
                Some(recorder) => recorder.fail(error),
                None => tracing::warn!(key = %self.credential.uri(), "{text}"),
            }
            rustls::Error::General(text)
        })
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::from(self.scheme.code_point())
    }
}

impl TlsSigner {
    fn sign_for(&self, message: &[u8], recorder: Option<&Recorder>) -> Result<Vec<u8>, Error> {
        let credential = &self.credential;
        let tls13 = message.starts_with(&TLS13_PREFIX);
        if tls13 && !allowed_in_tls13(self.scheme) {
            let able = credential.schemes_in(Version::Tls13);
            return Err(match recorder {
                Some(recorder) => no_common_scheme(credential, &able, &self.offered, recorder),
                None => enclasp_keystore::Error::Unsupported {
                    key: credential.uri().to_string(),
                    operation: "sign with".into(),
                    reason: format!("TLS 1.3 has no {}", self.scheme),
                }
                .into(),
            });
        }
        let context = recorder.map_or_else(
            || SignContext::new(format!("TLS {} authentication", self.role)),
            Recorder::sign_context,
        );
        let key = credential.key();
        let input = Input::Message(message);
        let started = Instant::now();
        let signature = key.sign(self.scheme, input, &context)?;
        let needed = key.verification() == Verification::Needed;
        if needed {
            verify(credential.leaf().spki(), self.scheme, input, signature.as_ref()).map_err(|_| {
                enclasp_keystore::Error::WrongSignature {
                    key: credential.uri().to_string(),
                    scheme: self.scheme,
                }
            })?;
        }
        if let Some(recorder) = recorder {
            let elapsed = started.elapsed();
            recorder.record().signatures.push(SignatureEvidence {
                by: self.role,
                message: SignatureEvidence::message(self.role, tls13),
                scheme: self.scheme.name().to_owned(),
                code_point: format!("0x{:04x}", self.scheme.code_point()),
                key: Some(credential.uri().to_string()),
                verified: needed,
                elapsed_us: Some(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)),
            });
        }
        Ok(signature.into_bytes())
    }
}
