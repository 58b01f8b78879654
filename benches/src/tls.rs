//! Handshakes in memory, with both ends in this process: ours, and those of rustls alone.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{Algorithm, Key, KeyUri, SignContext};
use enclasp_pki::{Certificate, Issuer, Leaf, Profile, create_root};
use enclasp_tls::{
    Access, Client, Clients, Credential, Handshake, Options, Revocation, Server, Version, server_name,
};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs as provider};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, HandshakeKind, RootCertStore, ServerConfig,
    ServerConnection, SideData, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A root that issues the certificates of both ends.
pub struct Authority {
    key: SoftKey,
    root: Certificate,
}

impl Authority {
    /// Makes one.
    ///
    /// # Errors
    /// What the making of the certificate says.
    pub fn new() -> Outcome<Self> {
        let key = SoftKey::generate(KeyUri::soft("authority")?, Algorithm::P256)?;
        let (day, now) = (Duration::from_secs(86_400), SystemTime::now());
        let root = create_root(&key, &"CN=Acme".parse()?, day, now, &SignContext::default())?;
        Ok(Self { key, root })
    }

    /// A client's certificate for a key.
    ///
    /// # Errors
    /// What the making of the certificate says.
    pub fn client(&self, spki: &[u8]) -> Outcome<CertificateDer<'static>> {
        self.issue(&Profile::client(), "dns:laptop-17", spki)
    }

    /// A certificate for a key of the servers of [`new_name`].
    ///
    /// # Errors
    /// What the making of the certificate says.
    pub fn server(&self, spki: &[u8]) -> Outcome<CertificateDer<'static>> {
        self.issue(&Profile::server(), "dns:*.acme.internal", spki)
    }

    /// A certificate for a key of a server on this machine.
    ///
    /// # Errors
    /// What the making of the certificate says.
    pub fn local_server(&self, spki: &[u8]) -> Outcome<CertificateDer<'static>> {
        self.issue(&Profile::server(), "ip:127.0.0.1", spki)
    }

    /// Its own certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        self.root.der()
    }

    /// A client's key with a certificate.
    ///
    /// # Errors
    /// What the making of the certificate says.
    pub fn client_with(&self, key: impl Key + 'static) -> Outcome<Credential> {
        Ok(Credential::new(vec![self.client(&key.info().spki)?], Arc::new(key))?)
    }

    /// A server's key with a certificate.
    ///
    /// # Errors
    /// What the making of the certificate says.
    pub fn server_with(&self, key: impl Key + 'static) -> Outcome<Credential> {
        Ok(Credential::new(vec![self.server(&key.info().spki)?], Arc::new(key))?)
    }

    fn issue(&self, profile: &Profile, san: &str, spki: &[u8]) -> Outcome<CertificateDer<'static>> {
        let leaf = Leaf {
            profile,
            subject: &"".parse()?,
            subject_alt_names: &[san.parse()?],
            spki,
            lifetime: Some(Duration::from_secs(3600)),
        };
        let issuer = Issuer::new(self.root.clone(), &self.key)?;
        Ok(issuer.issue(&leaf, SystemTime::now(), &SignContext::default())?.der().clone())
    }
}

/// The name of a server that nobody has a session with, so that the handshake will be full.
pub fn new_name() -> ServerName<'static> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    server_name(&format!("n{number}.acme.internal")).expect("a name")
}

/// The two ends as people have them: `enclasp_tls`, with evidence.
#[derive(Clone)]
pub struct Ends {
    client: Client,
    server: Server,
}

impl Ends {
    /// Makes them.
    ///
    /// # Errors
    /// What the settings of TLS say.
    pub fn new(
        authority: &Authority,
        client: Credential,
        server: Credential,
        version: Version,
    ) -> Outcome<Self> {
        let options = Options { versions: version..=version, ..Options::default() };
        let roots = vec![authority.root().clone()];
        let clients = Clients {
            roots: roots.clone(),
            certificate_demanded: true,
            server_certificates: false,
            access: Access::everyone(),
            revocation: Revocation::default(),
        };
        Ok(Self {
            client: Client::new(&roots, Some(client), options.clone())?,
            server: Server::new(server, clients, options)?,
        })
    }

    /// One handshake, up to where the client has the session that it can resume; whether it was
    /// resumed itself.
    pub async fn handshake(&self, name: &ServerName<'static>) -> bool {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (near, far) =
            tokio::join!(self.client.connect(near, name, "acme:443"), self.server.accept(far, "laptop:5000"));
        let ((mut near, evidence), _far) = (near.expect("a connection"), far.expect("a connection"));
        let confirmed = self.client.confirm(&mut near, &evidence, Duration::from_secs(10)).await;
        assert!(confirmed.expect("no refusal"), "the server sent no ticket");
        evidence.handshake == Handshake::Resumed
    }
}

/// A certificate and the PKCS #8 bytes of its key.
pub type Pair<'a> = (&'a CertificateDer<'static>, &'a [u8]);

/// rustls' two state machines with the same suites, and nothing between them but a buffer.
pub struct Bare {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Bare {
    /// Makes them.
    ///
    /// # Errors
    /// What rustls says.
    pub fn new(
        authority: &Authority,
        client: Pair<'_>,
        server: Pair<'_>,
        version: Version,
        group: &'static dyn SupportedKxGroup,
    ) -> Outcome<Self> {
        let crypto = Arc::new(CryptoProvider { kx_groups: vec![group], ..provider::default_provider() });
        let versions: &[&SupportedProtocolVersion] = match version {
            Version::Tls13 => &[&rustls::version::TLS13],
            Version::Tls12 => &[&rustls::version::TLS12],
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.root().clone())?;
        let roots = Arc::new(roots);
        let for_rustls = |(leaf, pkcs8): Pair<'_>| {
            (vec![leaf.clone()], PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pkcs8.to_vec())))
        };

        let (chain, key) = for_rustls(client);
        let mut client = ClientConfig::builder_with_provider(crypto.clone())
            .with_protocol_versions(versions)?
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain, key)?;
        client.resumption = Resumption::in_memory_sessions(256);

        let verifier = WebPkiClientVerifier::builder_with_provider(roots, crypto.clone()).build()?;
        let (chain, key) = for_rustls(server);
        let mut server = ServerConfig::builder_with_provider(crypto)
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        server.session_storage = ServerSessionMemoryCache::new(4096);
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }

    /// One handshake; whether it was resumed.
    pub fn handshake(&self, name: &ServerName<'static>) -> bool {
        let mut near = ClientConnection::new(self.client.clone(), name.clone()).expect("a client");
        let mut far = ServerConnection::new(self.server.clone()).expect("a server");
        let mut wire = Vec::new();
        while carry(&mut near, &mut far, &mut wire) | carry(&mut far, &mut near, &mut wire) {}
        assert!(!near.is_handshaking() && !far.is_handshaking(), "the handshake is not done");
        near.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

/// Carries what one end has to say to the other; `false` if it has nothing to say.
fn carry<A: SideData, B: SideData>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
    wire: &mut Vec<u8>,
) -> bool {
    wire.clear();
    while from.wants_write() {
        from.write_tls(wire).expect("memory takes it");
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).expect("memory gives it");
        to.process_new_packets().expect("a good handshake");
    }
    !wire.is_empty()
}
