//! How the client knows that a server is its authority.

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use enclasp_pki::Certificate;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Which servers are believed to be the authority. The server's name and the validity of its chain
/// are checked in either case.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Those whose chain ends in one of these certificates.
    Roots(Vec<CertificateDer<'static>>),
    /// Those that send a chain which ends in the certificate with this SHA-256 (of its DER).
    RootFingerprint([u8; 32]),
}

/// Certificates of ours, for a look into them.
pub(crate) fn parsed(certificates: &[CertificateDer<'_>]) -> crate::Result<Vec<Certificate>> {
    certificates.iter().map(|der| Ok(Certificate::from_der(der)?)).collect()
}

/// The roots, and those that follow on one of them: one of `authorities` that is vouched for by a certificate which the
/// key of a root that is trusted signed (RFC 7030 §4.1.3, NewWithOld of RFC 4210 §4.4).
pub(crate) fn with_successors(roots: &[Certificate], authorities: &[Certificate]) -> Vec<Certificate> {
    let now = SystemTime::now();
    let good = |one: &Certificate| one.is_ca() && one.not_before() <= now && now < one.not_after();
    let mut trusted = roots.to_vec();
    for new in authorities.iter().filter(|one| good(one) && one.is_self_issued()) {
        let is_vouched_for = || {
            let vouching = authorities.iter().filter(|one| {
                good(one)
                    && one.subject() == new.subject()
                    && one.spki() == new.spki()
                    && !one.is_self_issued()
            });
            vouching.clone().any(|one| roots.iter().any(|root| one.verify_signed_by(root).is_ok()))
        };
        if !trusted.contains(new) && new.verify_signed_by(new).is_ok() && is_vouched_for() {
            trusted.push(new.clone());
        }
    }
    trusted
}

/// Checks a server's certificate against a [`Trust`].
#[derive(Debug)]
pub(crate) struct AuthorityVerifier {
    pub(crate) trust: Trust,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl AuthorityVerifier {
    /// The root to verify against, if the server is of the authority at all.
    fn roots(&self, sent: &[CertificateDer<'_>]) -> RootCertStore {
        let mut store = RootCertStore::empty();
        match &self.trust {
            Trust::Roots(roots) => {
                store.add_parsable_certificates(roots.iter().cloned());
            }
            Trust::RootFingerprint(expected) => {
                let pinned = sent.iter().filter(|sent| digest(&SHA256, sent).as_ref() == expected);
                store.add_parsable_certificates(pinned.map(|root| root.clone().into_owned()));
            }
        }
        store
    }
}

impl ServerCertVerifier for AuthorityVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let roots = self.roots(intermediates);
        if roots.is_empty() {
            return Err(CertificateError::UnknownIssuer.into());
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
