//! Connections that we open.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption};
use rustls::{CertificateError, ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::error::Whom;
use crate::evidence::{ClientCertificate, Evidence, Role};
use crate::handshake::{DURING, close, complete, settle, sign_timeout};
use crate::known::{Chain, KnownChains};
use crate::options::{provider, trust};
use crate::recorder::{Record, Recorder};
use crate::signer::Resolver;
use crate::verifier::ServerVerifier;
use crate::{Access, Credential, Error, Options, Result, Revocation};

/// A connection to a server, in async use.
pub type ClientStream<S> = tokio_rustls::client::TlsStream<S>;

/// How many servers' sessions are remembered for resumption.
const SESSIONS: usize = 256;

/// Which servers are trusted.
#[derive(Clone, Debug)]
pub struct Servers {
    /// What their certificates have to lead to.
    pub roots: Vec<CertificateDer<'static>>,
    /// Who is spoken to of those whose certificates verify and have the name that was asked for.
    pub access: Access,
    /// Which certificates were revoked.
    pub revocation: Revocation,
}

/// Opens connections as one identity, or as nobody. Sessions are resumed within one `Client` only,
/// so that no connection is ever made with another one's identity.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
    sessions: Arc<ClientSessionMemoryCache>,
    /// What a finished connection is handed to tokio-rustls in. Its own connection is thrown away
    /// unused, so it is the cheapest there is: TLS 1.2 makes no key share.
    handover: Arc<ClientConfig>,
    credential: Option<Credential>,
    access: Access,
    known: Arc<KnownChains>,
    options: Options,
}

impl Client {
    /// Trusts servers whose certificates lead to one of `roots`, and presents `credential` to those
    /// that ask for one.
    ///
    /// # Errors
    /// As [`to`](Self::to).
    pub fn new(
        roots: &[CertificateDer<'static>],
        credential: Option<Credential>,
        options: Options,
    ) -> Result<Self> {
        let (access, revocation) = (Access::everyone(), Revocation::default());
        Self::to(Servers { roots: roots.to_vec(), access, revocation }, credential, options)
    }

    /// Trusts `servers`, and presents `credential` to those that ask for one.
    ///
    /// # Errors
    /// [`Error::Settings`] if no server could be trusted, there are no roots, one of them cannot be
    /// read, or the options leave no version.
    pub fn to(servers: Servers, credential: Option<Credential>, options: Options) -> Result<Self> {
        let Servers { roots, access, revocation } = servers;
        if access.is_nobody() {
            return Err(Error::Settings { reason: "no rule admits any server".into() });
        }
        let settings = |e: rustls::Error| Error::Settings { reason: e.to_string() };
        let provider = provider();
        let known = Arc::new(KnownChains::new(&revocation));
        let verifier =
            ServerVerifier::new(trust(&roots)?, provider.clone(), access.clone(), revocation, known.clone())?;
        let verifier = Arc::new(verifier);
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&options.protocol_versions())
            .map_err(settings)?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(Arc::new(Resolver::new(Role::Client, credential.clone())));
        config.alpn_protocols = options.alpn_protocols();
        let sessions = Arc::new(ClientSessionMemoryCache::new(SESSIONS));
        config.resumption = Resumption::store(sessions.clone());
        let mut handover = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .map_err(settings)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        handover.resumption = Resumption::disabled();
        let (config, handover) = (Arc::new(config), Arc::new(handover));
        Ok(Self { config, sessions, handover, credential, access, known, options })
    }

    /// The configuration, for a TLS stack that drives rustls itself (hyper-rustls, reqwest, a
    /// [`ClientConnection`]). Every check on our signatures holds there too; but a slow key blocks
    /// its caller, there is no [`Evidence`], and why a key did not sign is in the log only.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// What is presented to servers that ask.
    pub fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// Makes the handshake over `stream`. `address` is what messages and the key's prompt call the
    /// server: `db.internal:5432`.
    ///
    /// The validity of the server's certificate is checked after a resumed handshake too, at which
    /// none is presented. A session whose certificate has expired is forgotten.
    ///
    /// In TLS 1.3 a client is done before the server has seen its certificate. A refusal comes with
    /// the first read: see [`explain`] and [`confirm`](Self::confirm).
    ///
    /// Dropping the future tells the key that its signature is no longer wanted.
    ///
    /// # Errors
    /// Any of [`Error`]'s that speak of a peer, and [`Error::Key`] if the key did not sign.
    pub async fn connect<S>(
        &self,
        mut stream: S,
        server_name: &ServerName<'static>,
        address: &str,
    ) -> Result<(ClientStream<S>, Evidence)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (connection, evidence) = self.handshake(&mut stream, server_name, address).await?;
        let stream = TlsConnector::from(self.handover.clone())
            .connect_with(server_name.clone(), stream, |unused| *unused = connection)
            .await
            .map_err(|e| {
                let whom = Whom { peer: address, role: Role::Server };
                Error::of_io(whom, DURING, e, &Record::default())
            })?;
        Ok((stream, evidence))
    }

    /// The same for a caller that moves the bytes itself: the connection after its handshake, which
    /// may hold data of the server's already.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn handshake<S>(
        &self,
        stream: &mut S,
        server_name: &ServerName<'static>,
        address: &str,
    ) -> Result<(ClientConnection, Evidence)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let recorder = self.recorder(address);
        let connection = self.connection(server_name, &recorder)?;
        let credential = self.credential.as_ref();
        let mut connection = complete(connection, stream, &recorder, credential, &self.options)
            .await
            .map_err(|error| self.demanded(error, &recorder.record()))?;
        let chain = match self.verified(server_name, &connection, &recorder) {
            Ok(chain) => chain,
            Err(error) => {
                close(&mut connection, stream).await;
                return Err(error);
            }
        };
        let evidence = self.evidence(server_name, &connection, chain, &recorder);
        Ok((connection, evidence))
    }

    /// The same over a blocking stream. The handshake takes as long as the stream's own timeouts
    /// allow; the key has its deadline.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_blocking<S: Read + Write>(
        &self,
        mut stream: S,
        server_name: &ServerName<'static>,
        address: &str,
    ) -> Result<(StreamOwned<ClientConnection, S>, Evidence)> {
        let recorder = self.recorder(address);
        let mut connection = self.connection(server_name, &recorder)?;
        let io_error = |e| Error::of_io(recorder.whom(), DURING, e, &recorder.record());
        let mut chain = None;
        loop {
            while connection.wants_write() {
                connection.write_tls(&mut stream).map_err(io_error)?;
            }
            stream.flush().map_err(io_error)?;
            if !connection.is_handshaking() {
                break;
            }
            if connection.read_tls(&mut stream).map_err(io_error)? == 0 {
                return Err(io_error(io::ErrorKind::UnexpectedEof.into()));
            }
            let processed = recorder.during(|| connection.process_new_packets()).map(drop);
            let settled = settle(&recorder, processed).and_then(|()| match connection.is_handshaking() {
                true => Ok(()),
                false => self.verified(server_name, &connection, &recorder).map(|verified| chain = verified),
            });
            if let Err(error) = settled {
                connection.send_close_notify();
                // The peer may be gone; the reason is known already.
                let _ = connection.write_tls(&mut stream);
                return Err(self.demanded(error, &recorder.record()));
            }
        }
        let evidence = self.evidence(server_name, &connection, chain, &recorder);
        Ok((StreamOwned::new(connection, stream), evidence))
    }

    /// Waits until the server has shown that it accepts us: by a session ticket or by data, which
    /// stays unread. After `patience` without either or a refusal the answer is `false`: the
    /// server speaks when spoken to. In TLS 1.2 the handshake's end is the proof.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Closed`].
    pub async fn confirm<S>(
        &self,
        stream: &mut ClientStream<S>,
        evidence: &Evidence,
        patience: Duration,
    ) -> Result<bool>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if evidence.version == "TLSv1.2" {
            return Ok(true);
        }
        let sign = poll_fn(|cx| {
            let polled = Pin::new(&mut *stream).poll_fill_buf(cx).map_ok(<[u8]>::is_empty);
            let accepted = stream.get_ref().1.tls13_tickets_received() > 0;
            match polled {
                // The end may come with the ticket.
                Poll::Ready(Ok(true)) if !accepted => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(result) => Poll::Ready(result.map(drop)),
                Poll::Pending if accepted => Poll::Ready(Ok(())),
                Poll::Pending => Poll::Pending,
            }
        });
        match tokio::time::timeout(patience, sign).await {
            Err(_) => Ok(false),
            Ok(Ok(())) => Ok(true),
            Ok(Err(e)) => Err(explain(e, evidence)),
        }
    }

    fn recorder(&self, address: &str) -> Arc<Recorder> {
        let reason = format!("TLS client authentication to {address}");
        Recorder::new(address, Role::Server, reason, sign_timeout(self.credential.as_ref(), &self.options))
    }

    fn connection(&self, server_name: &ServerName<'static>, recorder: &Recorder) -> Result<ClientConnection> {
        ClientConnection::new(self.config.clone(), server_name.clone())
            .map_err(|e| Error::of_tls(recorder.whom(), DURING, e, &recorder.record()))
    }

    /// What the server presented and was found good: by the verifier in this handshake, or when the
    /// session began that it resumed. It may have expired since then.
    fn verified(
        &self,
        server_name: &ServerName<'static>,
        connection: &ClientConnection,
        recorder: &Recorder,
    ) -> Result<Option<Arc<Chain>>> {
        let verified = recorder.record().chain.take();
        if verified.is_some() {
            return Ok(verified);
        }
        let presented = connection.peer_certificates().unwrap_or_default();
        // One that does not parse did not verify either.
        let Ok(Some(chain)) = self.known.of_session(presented, &server_name.to_str()) else {
            return Ok(None);
        };
        if SystemTime::now() <= chain.leaf.not_after() {
            return self.access.admit(&chain.leaf, &recorder.peer).map(|()| Some(chain));
        }
        self.sessions.remove_tls12_session(server_name);
        while self.sessions.take_tls13_ticket(server_name).is_some() {}
        let record = Record { chain: Some(chain), ..Record::default() };
        let error = rustls::Error::InvalidCertificate(CertificateError::Expired);
        Err(Error::of_tls(recorder.whom(), DURING, error, &record))
    }

    fn evidence(
        &self,
        server_name: &ServerName<'static>,
        connection: &ClientConnection,
        chain: Option<Arc<Chain>>,
        recorder: &Recorder,
    ) -> Evidence {
        let sni = match server_name {
            ServerName::DnsName(name) => Some(name.as_ref().to_owned()),
            _ => None,
        };
        let record = &mut recorder.record();
        let credential = self.credential.as_ref();
        Evidence::new(Role::Client, &recorder.peer, connection, sni, credential, chain.as_deref(), record)
    }

    /// A refusal by a server that asked for a certificate we do not have is for that reason.
    fn demanded(&self, error: Error, record: &Record) -> Error {
        let asked_in_vain = record.certificate_requested && self.credential.is_none();
        demand(error, asked_in_vain)
    }
}

/// What an error while reading or writing says, on a connection that had been made: a TLS 1.3
/// server refuses a client's certificate only then. The text of [`Error::Refused`] begins with
/// "… refused our certificate after the handshake".
pub fn explain(error: io::Error, evidence: &Evidence) -> Error {
    let record = Record { notes: evidence.notes.clone(), ..Record::default() };
    let whom = Whom { peer: &evidence.address, role: evidence.peer.role };
    let error = Error::of_io(whom, "after the handshake", error, &record);
    demand(error, evidence.client_certificate == ClientCertificate::RequestedNotSent)
}

fn demand(error: Error, asked_in_vain: bool) -> Error {
    use rustls::AlertDescription::{BadCertificate, CertificateRequired, HandshakeFailure};
    match error {
        // Before TLS 1.3 there was no alert of its own for this (RFC 5246 §7.4.6).
        Error::Refused { peer, alert: BadCertificate | CertificateRequired | HandshakeFailure, .. }
            if asked_in_vain =>
        {
            Error::CertificateDemanded { peer }
        }
        // Some peers say something else when they miss one.
        Error::Refused { peer, alert, stage, mut notes } if asked_in_vain => {
            notes.push("it asked for a client certificate, and none was presented: --identity NAME".into());
            Error::Refused { peer, alert, stage, notes }
        }
        error => error,
    }
}
