//! Connections that we accept.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use enclasp_pki::{Certificate, rfc3339};
use rustls::server::WantsServerCert;
use rustls::{ConfigBuilder, ServerConfig, ServerConnection};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use crate::error::Whom;
use crate::evidence::{Evidence, Role};
use crate::handshake::{DURING, close, complete, sign_timeout};
use crate::known::{Chain, KnownChains};
use crate::options::{provider, trust};
use crate::recorder::{Record, Recorder};
use crate::sessions::Sessions;
use crate::signer::Resolver;
use crate::verifier::{ANY_NAME, ClientVerifier};
use crate::{Access, Credential, Error, Options, Result, Revocation};

/// A connection from a client, in async use.
pub type ServerStream<S> = tokio_rustls::server::TlsStream<S>;

/// How many clients' sessions are kept for resumption.
const SESSIONS: usize = 4096;

/// Which clients are served.
#[derive(Clone, Debug)]
pub struct Clients {
    /// What their certificates have to lead to.
    pub roots: Vec<CertificateDer<'static>>,
    /// Whether a client without a certificate is refused. One that presents a certificate must
    /// present a good one in any case.
    pub certificate_demanded: bool,
    /// Whether a certificate that is for servers only is good here too: an authority takes it when a
    /// server renews it.
    pub server_certificates: bool,
    /// Who is admitted of those whose certificates verify.
    pub access: Access,
    /// Which certificates were revoked.
    pub revocation: Revocation,
}

/// Accepts connections as one identity.
#[derive(Clone, Debug)]
pub struct Server {
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
    credential: Credential,
    /// Of clients' certificates; none where clients are asked for none.
    verifier: Option<Arc<ClientVerifier>>,
    access: Access,
    known: Arc<KnownChains>,
    options: Options,
    /// How long after its end a client's certificate is taken.
    grace: Duration,
}

impl Server {
    /// Presents `credential` to `clients`, whose certificates are asked for in every case.
    ///
    /// # Errors
    /// [`Error::Settings`] if nobody could be admitted, there are no roots, one of them cannot be
    /// read, or the options leave no version.
    pub fn new(credential: Credential, clients: Clients, options: Options) -> Result<Self> {
        Self::with_grace(credential, clients, options, Duration::ZERO)
    }

    /// The same for a server that takes clients' certificates until `grace` after their end: an authority that
    /// renews them.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_grace(
        credential: Credential,
        clients: Clients,
        options: Options,
        grace: Duration,
    ) -> Result<Self> {
        let Clients { roots, certificate_demanded, server_certificates, access, revocation } = clients;
        if access.is_nobody() {
            return Err(Error::Settings {
                reason: "no access rule admits anybody: allow a name, or everyone".into(),
            });
        }
        if server_certificates && !revocation.lists.is_empty() {
            return Err(Error::Settings {
                reason: "certificates that are for servers only are not looked up in lists of revoked ones"
                    .into(),
            });
        }
        let provider = provider();
        let known = Arc::new(KnownChains::new(&revocation));
        let mut verifier = ClientVerifier::new(
            trust(&roots)?,
            provider.clone(),
            certificate_demanded,
            access.clone(),
            revocation,
            known.clone(),
        )?;
        if server_certificates {
            verifier.admit_servers(&roots)?;
        }
        verifier.tolerate(grace);
        let verifier = Arc::new(verifier);
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&options.protocol_versions())
            .map_err(|e| Error::Settings { reason: e.to_string() })?
            .with_client_cert_verifier(verifier.clone());
        let server = Self::presenting(credential, config, access, known, options);
        Ok(Self { verifier: Some(verifier), grace, ..server })
    }

    /// What is presented to clients.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// Presents this OCSP response (DER) with the certificate, to clients that ask for one (RFC 6066
    /// §8, RFC 8446 §4.4.2.1), from now on; or none. It is handed on as it is.
    pub fn staple(&self, response: Option<Vec<u8>>) {
        self.resolver.staple(response);
    }

    /// Whether a client's chain, leaf first, that verified once has a certificate that is on a list of
    /// revoked ones. To be asked off the handshake's path: it costs a verification.
    pub fn has_revoked(&self, chain: &[CertificateDer<'_>]) -> bool {
        self.verifier.as_ref().is_some_and(|verifier| verifier.has_revoked(chain))
    }

    /// Presents `credential` to anyone, and asks nobody for a certificate.
    ///
    /// # Errors
    /// [`Error::Settings`] if the options leave no version.
    pub fn anonymous(credential: Credential, options: Options) -> Result<Self> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&options.protocol_versions())
            .map_err(|e| Error::Settings { reason: e.to_string() })?
            .with_no_client_auth();
        let known = Arc::new(KnownChains::new(&Revocation::default()));
        Ok(Self::presenting(credential, config, Access::everyone(), known, options))
    }

    fn presenting(
        credential: Credential,
        config: ConfigBuilder<ServerConfig, WantsServerCert>,
        access: Access,
        known: Arc<KnownChains>,
        options: Options,
    ) -> Self {
        let resolver = Arc::new(Resolver::new(Role::Server, Some(credential.clone())));
        let mut config = config.with_cert_resolver(resolver.clone());
        config.alpn_protocols = options.alpn_protocols();
        // Sessions stay here rather than in tickets: what is forgotten cannot be resumed.
        config.session_storage = Arc::new(Sessions::new(SESSIONS));
        // Each connection brings its successor's, and each is a session to keep.
        config.send_tls13_tickets = 1;
        // Most clients name AES-256 first without a need for it.
        config.ignore_client_order = true;
        let grace = Duration::ZERO;
        let config = Arc::new(config);
        Self { config, resolver, credential, verifier: None, access, known, options, grace }
    }

    /// Makes the handshake over `stream`. `address` is what messages call the client.
    ///
    /// The access rules and the validity of the client's certificate are checked after resumed
    /// handshakes too, at which nothing is presented.
    ///
    /// # Errors
    /// Any of [`Error`]'s that speak of a peer, and [`Error::Key`] if our key did not sign. The
    /// client has been sent an alert that tells no more than its kind.
    pub async fn accept<S>(&self, mut stream: S, address: &str) -> Result<(ServerStream<S>, Evidence)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (connection, evidence) = self.handshake(&mut stream, address).await?;
        let stream = TlsAcceptor::from(self.config.clone())
            .accept_with(stream, |unused| *unused = connection)
            .await
            .map_err(|e| {
                let whom = Whom { peer: address, role: Role::Client };
                Error::of_io(whom, DURING, e, &Record::default())
            })?;
        Ok((stream, evidence))
    }

    /// The same for a caller that moves the bytes itself: the connection after its handshake, which
    /// may hold data of the client's already.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub async fn handshake<S>(&self, stream: &mut S, address: &str) -> Result<(ServerConnection, Evidence)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let reason = format!("TLS server authentication as {}", self.credential.leaf().name());
        let credential = Some(&self.credential);
        let recorder = Recorder::new(address, Role::Client, reason, sign_timeout(credential, &self.options));
        let connection = ServerConnection::new(self.config.clone())
            .map_err(|e| Error::of_tls(recorder.whom(), DURING, e, &Record::default()))?;
        let mut connection = complete(connection, stream, &recorder, credential, &self.options).await?;
        let chain = match self.verified(&connection, &recorder) {
            Ok(chain) => chain,
            Err(refusal) => {
                close(&mut connection, stream).await;
                return Err(refusal);
            }
        };
        let sni = connection.server_name().map(str::to_owned);
        let mut record = std::mem::take(&mut *recorder.record());
        record.certificate_requested = self.verifier.is_some();
        let chain = chain.as_deref();
        let evidence = Evidence::new(Role::Server, address, &connection, sni, credential, chain, &mut record);
        Ok((connection, evidence))
    }

    /// What the client presented, if it did, and was found good: by the verifier in this handshake,
    /// or when the session began that it resumed. It may have expired since then.
    fn verified(&self, connection: &ServerConnection, recorder: &Recorder) -> Result<Option<Arc<Chain>>> {
        let verified = recorder.record().chain.take();
        if verified.is_some() {
            return Ok(verified);
        }
        let presented = connection.peer_certificates().unwrap_or_default();
        let chain = self.known.of_session(presented, ANY_NAME).map_err(|e| Error::NotAdmitted {
            peer: recorder.peer.clone(),
            subject: "unreadable".to_owned(),
            rule: "a certificate that can be read".to_owned(),
            reason: e.to_string(),
        })?;
        if let Some(chain) = &chain {
            self.admit(&chain.leaf, SystemTime::now(), &recorder.peer)?;
        }
        Ok(chain)
    }

    /// Decides about a client whose certificate verified at some time.
    fn admit(&self, leaf: &Certificate, now: SystemTime, address: &str) -> Result<()> {
        if now > leaf.not_after() + self.grace {
            return Err(Error::NotAdmitted {
                peer: address.to_owned(),
                subject: leaf.subject().to_string(),
                rule: "a certificate that is valid now".to_owned(),
                reason: format!("its certificate expired at {}", rfc3339(leaf.not_after())),
            });
        }
        self.access.admit(leaf, address)
    }
}

#[cfg(test)]
mod tests {
    use enclasp_keystore::Algorithm;

    use super::*;
    use crate::testing::{Authority, handshake, only};
    use crate::{Client, Term, Version};

    /// The verifier, which asked the rules at the first handshake, is not called at the second.
    #[tokio::test]
    async fn rules_and_validity_are_checked_when_a_session_is_resumed() {
        let authority = Authority::new("Acme");
        for version in [Version::Tls12, Version::Tls13] {
            let server = authority.server(Access::everyone(), only(version));
            let credential = authority.client_credential(Algorithm::P256);
            let client =
                Client::new(&authority.roots(), Some(credential.clone()), Options::default()).unwrap();
            let (ours, theirs) = handshake(&client, &server).await;
            let ((mut stream, evidence), _theirs) = (ours.unwrap(), theirs.unwrap());
            assert!(client.confirm(&mut stream, &evidence, Duration::from_secs(10)).await.unwrap());

            let mut stricter = server.clone();
            stricter.access = Access::any_of([Term::CommonName("laptop-18".into()).into()]);
            let (ours, theirs) = handshake(&client, &stricter).await;
            assert_eq!(
                theirs.map(|(_, evidence)| evidence).unwrap_err().to_string(),
                "10.0.0.9:5000 is not admitted as CN=laptop-17: CN=laptop-17 is not among the allowed CNs (laptop-18)"
            );
            let (mut stream, evidence) = ours.unwrap();
            let closed = tokio::io::AsyncReadExt::read(&mut stream, &mut [0]).await;
            assert_eq!(closed.unwrap(), 0, "{evidence}");

            let leaf = credential.leaf();
            let at = leaf.not_after();
            assert!(server.admit(leaf, at, "peer").is_ok());
            let error = server.admit(leaf, at + Duration::from_secs(1), "peer").unwrap_err();
            assert!(error.to_string().contains("its certificate expired at "), "{error}");
        }
    }
}
