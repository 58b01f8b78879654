//! Verification of the peer: webpki decides, and we see what it was given.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use enclasp_keystore::Algorithm;
use enclasp_pki::{Certificate, Purpose, verify_chain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::evidence::{Role, SignatureEvidence, scheme_name};
use crate::known::{Chain, Fingerprint, KnownChains};
use crate::recorder::Recorder;
use crate::{Access, Error, Result, Revocation};

type Verified<T> = std::result::Result<T, rustls::Error>;

/// Verifies servers for a client, and asks the access rules.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    webpki: Arc<WebPkiServerVerifier>,
    checks: Checks,
}

impl ServerVerifier {
    pub(crate) fn new(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        access: Access,
        revocation: Revocation,
        known: Arc<KnownChains>,
    ) -> Result<Self> {
        let checks = Checks { blind: revocation.is_blind(), access, known };
        let Revocation { lists, strict } = revocation.newest_first();
        let mut builder = WebPkiServerVerifier::builder_with_provider(roots, provider).with_crls(lists);
        builder = match strict {
            true => builder.enforce_revocation_expiration(),
            false => builder.allow_unknown_revocation_status(),
        };
        builder.build().map(|webpki| Self { webpki, checks }).map_err(unusable)
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Verified<ServerCertVerified> {
        self.checks.pass(end_entity, intermediates, &server_name.to_str(), now, || {
            let verified =
                self.webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
            verified.map(drop)
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Verified<HandshakeSignatureValid> {
        Claim { by: Role::Server, tls13: false, dss }
            .check(|| self.webpki.verify_tls12_signature(message, cert, dss))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Verified<HandshakeSignatureValid> {
        Claim { by: Role::Server, tls13: true, dss }
            .check(|| self.webpki.verify_tls13_signature(message, cert, dss))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Verifies clients for a server, and asks the access rules.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    webpki: Arc<dyn ClientCertVerifier>,
    checks: Checks,
    /// The roots that may vouch for certificates of servers, if those are good here too.
    servers: Vec<Certificate>,
    /// How long after its end a certificate is taken.
    grace: Duration,
}

impl ClientVerifier {
    pub(crate) fn new(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        demanded: bool,
        access: Access,
        revocation: Revocation,
        known: Arc<KnownChains>,
    ) -> Result<Self> {
        let checks = Checks { blind: revocation.is_blind(), access, known };
        let Revocation { lists, strict } = revocation.newest_first();
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider).with_crls(lists);
        builder = if demanded { builder } else { builder.allow_unauthenticated() };
        builder = match strict {
            true => builder.enforce_revocation_expiration(),
            false => builder.allow_unknown_revocation_status(),
        };
        let webpki = builder.build().map_err(unusable)?;
        Ok(Self { webpki, checks, servers: Vec::new(), grace: Duration::ZERO })
    }

    /// Whether a chain that verified once has a certificate that was revoked.
    pub(crate) fn has_revoked(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((leaf, others)) = chain.split_first() else { return false };
        matches!(
            self.webpki.verify_client_cert(leaf, others, UnixTime::now()),
            Err(rustls::Error::InvalidCertificate(CertificateError::Revoked))
        )
    }

    /// Takes certificates that are for servers only as well.
    pub(crate) fn admit_servers(&mut self, roots: &[CertificateDer<'_>]) -> Result<()> {
        let parsed: std::result::Result<_, _> =
            roots.iter().map(|root| Certificate::from_der(root)).collect();
        self.servers =
            parsed.map_err(|e| Error::Settings { reason: format!("a root cannot be read: {e}") })?;
        Ok(())
    }

    /// Takes certificates until `grace` after their end, too.
    pub(crate) fn tolerate(&mut self, grace: Duration) {
        self.grace = grace;
    }

    /// The time at which a chain has to be good: now, or for a certificate that has ended a short while ago, its end.
    fn at(&self, end_entity: &CertificateDer<'_>, now: UnixTime) -> UnixTime {
        if self.grace.is_zero() {
            return now;
        }
        // What cannot be read is refused by who reads it next.
        let end = Certificate::from_der(end_entity)
            .ok()
            .and_then(|leaf| leaf.not_after().duration_since(SystemTime::UNIX_EPOCH).ok());
        let is_late =
            |end: &Duration| (end.as_secs()..=(*end + self.grace).as_secs()).contains(&now.as_secs());
        end.filter(is_late).map_or(now, UnixTime::since_unix_epoch)
    }

    /// Verifies the chain of a certificate that is for servers only.
    fn verify_server(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Verified<()> {
        let read =
            |der: &CertificateDer<'_>| Certificate::from_der(der).map_err(|_| CertificateError::BadEncoding);
        let others = intermediates.iter().map(read).collect::<std::result::Result<Vec<_>, _>>()?;
        verify_chain(&read(end_entity)?, &others, &self.servers, system_time(now), Purpose::Server)
            .map_err(|_| CertificateError::InvalidPurpose.into())
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.webpki.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Verified<ClientCertVerified> {
        self.checks.pass(end_entity, intermediates, ANY_NAME, now, || {
            let time = self.at(end_entity, now);
            match self.webpki.verify_client_cert(end_entity, intermediates, time) {
                Err(rustls::Error::InvalidCertificate(
                    CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
                )) if !self.servers.is_empty() => self.verify_server(end_entity, intermediates, time),
                other => other.map(drop),
            }
        })?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Verified<HandshakeSignatureValid> {
        Claim { by: Role::Client, tls13: false, dss }
            .check(|| self.webpki.verify_tls12_signature(message, cert, dss))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Verified<HandshakeSignatureValid> {
        Claim { by: Role::Client, tls13: true, dss }
            .check(|| self.webpki.verify_tls13_signature(message, cert, dss))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

fn unusable(error: VerifierBuilderError) -> Error {
    let reason = match error {
        VerifierBuilderError::InvalidCrl(error) => format!(
            "a list of revoked certificates cannot be used ({error:?}): it has to be a complete one of version 2 (RFC 5280 §5)"
        ),
        other => other.to_string(),
    };
    Error::Settings { reason }
}

/// Verifiers of clients look at no name.
pub(crate) const ANY_NAME: &str = "";

/// What both verifiers do about a chain beside what webpki does.
#[derive(Debug)]
struct Checks {
    /// Whether there is no list of revoked certificates though one is demanded.
    blind: bool,
    access: Access,
    known: Arc<KnownChains>,
}

impl Checks {
    /// Has `verify` look at a chain, which is to be good for `name`, unless it verified a short while ago. Then asks
    /// the access rules, so that a peer that they refuse is told so by an alert.
    fn pass(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &str,
        now: UnixTime,
        verify: impl FnOnce() -> Verified<()>,
    ) -> Verified<()> {
        let fingerprint = Fingerprint::of(end_entity, intermediates, name);
        let recorder = Recorder::current();
        let chain = match self.known.verified(fingerprint, system_time(now)) {
            Some(chain) => chain,
            None => {
                if let Some(recorder) = &recorder {
                    recorder.record().presented = Some(end_entity.clone().into_owned());
                }
                verify()?;
                // Without any list webpki looks nothing up, which is no answer where one is demanded.
                if self.blind {
                    return Err(CertificateError::UnknownRevocationStatus.into());
                }
                let chain =
                    Chain::read(end_entity, intermediates).map_err(|_| CertificateError::BadEncoding)?;
                let chain = Arc::new(chain);
                self.known.remember(fingerprint, &chain, system_time(now));
                chain
            }
        };
        let peer = recorder.as_ref().map_or("the peer", |recorder| &recorder.peer);
        match (self.access.admit(&chain.leaf, peer), &recorder) {
            (Ok(()), Some(recorder)) => recorder.record().chain = Some(chain),
            (Ok(()), None) => {}
            (Err(refusal), recorder) => {
                if let Some(recorder) = recorder {
                    recorder.fail(refusal);
                }
                return Err(CertificateError::ApplicationVerificationFailure.into());
            }
        }
        Ok(())
    }
}

fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

/// A peer's claim that its certificate's key signed.
struct Claim<'a> {
    by: Role,
    tls13: bool,
    dss: &'a DigitallySignedStruct,
}

impl Claim<'_> {
    /// Records the signature if it verifies; and if it does not, whether the scheme could ever have
    /// fitted the certificate's key.
    fn check(
        &self,
        verify: impl FnOnce() -> Verified<HandshakeSignatureValid>,
    ) -> Verified<HandshakeSignatureValid> {
        let verified = verify();
        let Some(recorder) = Recorder::current() else {
            return verified;
        };
        let certificate = recorder.record().leaf();
        let algorithm = certificate.as_ref().and_then(|certificate| certificate.algorithm().ok());
        let scheme = scheme_name(self.dss.scheme, algorithm);
        let code_point = u16::from(self.dss.scheme);
        let message = SignatureEvidence::message(self.by, self.tls13);
        if verified.is_ok() {
            recorder.record().signatures.push(SignatureEvidence {
                by: self.by,
                message,
                scheme,
                code_point: format!("0x{code_point:04x}"),
                key: None,
                verified: true,
                elapsed_us: None,
            });
        } else if let (Some(certificate), Some(algorithm)) = (certificate, algorithm)
            && !fits(algorithm, code_point, self.tls13)
        {
            recorder.fail(Error::WrongScheme {
                peer: recorder.peer.clone(),
                subject: certificate.subject().to_string(),
                message,
                scheme,
                algorithm,
            });
        }
        verified
    }
}

/// Whether a key of this type can sign with this code point at all.
fn fits(algorithm: Algorithm, code_point: u16, tls13: bool) -> bool {
    let natural = algorithm.natural_scheme();
    if tls13 && algorithm != Algorithm::Rsa {
        return natural.code_point() == code_point;
    }
    algorithm.schemes().iter().any(|scheme| scheme.code_point() == code_point)
}
