//! Configurations for connections that are looked at rather than used: every peer is accepted, and
//! the secrets are logged. The doctor judges what was recorded; no user's data goes over them.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, KeyLog, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::evidence::{Role, SignatureEvidence};
use crate::handshake::sign_timeout;
use crate::options::provider;
use crate::recorder::Recorder;
use crate::signer::Resolver;
use crate::{Credential, Error, Options, Result};

/// A server that asks every client for a certificate and accepts whatever comes, or nothing. Of
/// `credentials` it presents the first one that the client can verify. It names `authorities` in
/// its CertificateRequest, resumes no session, and tells `secrets` the secrets of each connection.
///
/// # Errors
/// [`Error::Settings`] if the options leave no version.
pub fn observing_server(
    credentials: &[Credential],
    options: &Options,
    authorities: Vec<DistinguishedName>,
    secrets: Arc<dyn KeyLog>,
) -> Result<ServerConfig> {
    let provider = provider();
    let accept = Accept { provider: provider.clone(), authorities };
    let resolvers =
        credentials.iter().map(|credential| Resolver::new(Role::Server, Some(credential.clone()))).collect();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&options.protocol_versions())
        .map_err(|e| Error::Settings { reason: e.to_string() })?
        .with_client_cert_verifier(Arc::new(accept))
        .with_cert_resolver(Arc::new(FirstThatFits(resolvers)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.key_log = secrets;
    Ok(config)
}

/// A client that takes any server for the right one, presents `credential` to it, resumes no session,
/// and tells `secrets` the secrets of its connection.
///
/// # Errors
/// [`Error::Settings`] if the options leave no version.
pub fn observing_client(
    credential: Option<Credential>,
    options: &Options,
    secrets: Arc<dyn KeyLog>,
) -> Result<ClientConfig> {
    let provider = provider();
    let accept = Accept { provider: provider.clone(), authorities: Vec::new() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&options.protocol_versions())
        .map_err(|e| Error::Settings { reason: e.to_string() })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(accept))
        .with_client_cert_resolver(Arc::new(Resolver::new(Role::Client, credential)));
    config.alpn_protocols = options.alpn_protocols();
    config.resumption = Resumption::disabled();
    config.key_log = secrets;
    Ok(config)
}

/// Accepts every peer.
#[derive(Debug)]
struct Accept {
    provider: Arc<CryptoProvider>,
    authorities: Vec<DistinguishedName>,
}

impl Accept {
    /// All that a client might want to sign with, so that none hides its certificate for that.
    fn schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.provider.signature_verification_algorithms.supported_schemes();
        let more = [
            SignatureScheme::ECDSA_NISTP521_SHA512,
            SignatureScheme::ED448,
            SignatureScheme::RSA_PKCS1_SHA1,
            SignatureScheme::ECDSA_SHA1_Legacy,
            // rsa_pss_pss_…, of keys that are for PSS only.
            SignatureScheme::from(0x0809),
            SignatureScheme::from(0x080a),
            SignatureScheme::from(0x080b),
        ];
        schemes.extend(more.into_iter().filter(|scheme| !schemes.contains(scheme)).collect::<Vec<_>>());
        schemes
    }
}

type Verified<T> = std::result::Result<T, rustls::Error>;

impl ClientCertVerifier for Accept {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.authorities
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Verified<ClientCertVerified> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Verified<HandshakeSignatureValid> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Verified<HandshakeSignatureValid> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ServerCertVerifier for Accept {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Verified<ServerCertVerified> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Verified<HandshakeSignatureValid> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Verified<HandshakeSignatureValid> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// The first certificate whose key type the client verifies.
#[derive(Debug)]
struct FirstThatFits(Vec<Resolver>);

impl ResolvesServerCert for FirstThatFits {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let resolved = self.0.iter().filter_map(Resolver::certified);
        resolved
            .clone()
            .find(|certified| {
                let (schemes, suites) = (hello.signature_schemes(), hello.cipher_suites());
                let signs = certified.key.choose_scheme(schemes).is_some();
                // Before TLS 1.3 the suites name the type of the certificate's key as well.
                let name = |suite: &rustls::CipherSuite| format!("{suite:?}");
                let wanted = format!("ECDHE_{:?}_", certified.key.algorithm()).replace("ED25519", "ECDSA");
                signs
                    && suites
                        .iter()
                        .map(name)
                        .any(|suite| suite.starts_with("TLS13_") || suite.contains(&wanted))
            })
            .or_else(|| resolved.clone().next())
    }
}

/// What our key did while a connection was driven.
#[derive(Debug)]
pub struct Signing {
    /// The signatures, in the order in which they were made.
    pub signatures: Vec<SignatureEvidence>,
    /// Why none was made, if one was asked for.
    pub failure: Option<Error>,
}

/// Runs `drive`, which drives a client connection to `address` on this thread and blocks it, and
/// says what became of the signatures that `credential` was asked for.
pub fn observing<T>(
    address: &str,
    credential: Option<&Credential>,
    options: &Options,
    drive: impl FnOnce() -> T,
) -> (T, Signing) {
    let reason = format!("TLS client authentication to {address}");
    let recorder = Recorder::new(address, Role::Server, reason, sign_timeout(credential, options));
    let driven = recorder.during(drive);
    let failure = recorder.take_failure();
    let signatures = std::mem::take(&mut recorder.record().signatures);
    (driven, Signing { signatures, failure })
}
