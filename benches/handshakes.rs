//! Mutual TLS handshakes with keys here and in the agent, beside rustls alone, in memory:
//! `cargo bench --bench handshakes`.
//!
//! One operation is a handshake with both ends in this process, up to where the client has the
//! session that it can resume. CPU time is that of both ends and of the agent.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use enclasp_benches::measure::{Subject, in_turns};
use enclasp_benches::process::{Agent, played_a_role};
use enclasp_benches::report::{Report, Settings};
use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{Algorithm, Import, Key, KeyUri, SignContext};
use enclasp_pki::{Certificate, Issuer, Leaf, Profile, create_root};
use enclasp_tls::{Access, Client, Clients, Credential, Handshake, Options, Server, Version, server_name};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs as provider};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, HandshakeKind, RootCertStore, ServerConfig,
    ServerConnection, SideData, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::runtime::{Builder, Runtime};
use zeroize::Zeroizing;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    if played_a_role() {
        return Ok(());
    }
    let settings = Settings::from_arguments()?;
    let mut report = Report::new(settings.rounds);
    let bench = Bench::new()?;
    for version in [Version::Tls13, Version::Tls12] {
        bench.measure(version, settings.rounds, &mut report)?;
    }
    report.print(settings.json);
    Ok(())
}

struct Bench {
    root: Certificate,
    client: Party,
    server: Party,
    agent: Agent,
    runtime: Runtime,
}

/// A key and its certificate. The same key is in this process and in the agent.
struct Party {
    pkcs8: Zeroizing<Vec<u8>>,
    leaf: Certificate,
    here: Credential,
    in_agent: Credential,
}

impl Bench {
    fn new() -> Outcome<Self> {
        let agent = Agent::start()?;
        let authority = SoftKey::generate(KeyUri::soft("authority")?, Algorithm::P256)?;
        let (day, now) = (Duration::from_secs(86_400), SystemTime::now());
        let root = create_root(&authority, &"CN=Acme".parse()?, day, now, &SignContext::default())?;
        let issuer = Issuer::new(root.clone(), &authority)?;
        let party = |profile, san: &str| Party::new(&issuer, &profile, san, &agent);
        let client = party(Profile::client(), "dns:laptop-17")?;
        let server = party(Profile::server(), "dns:*.acme.internal")?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { root, client, server, agent, runtime })
    }

    fn measure(&self, version: Version, rounds: usize, report: &mut Report) -> Outcome<()> {
        let (client, server) = (&self.client, &self.server);
        let (hybrid, classic) = (provider::kx_group::X25519MLKEM768, provider::kx_group::X25519);
        for resumed in [false, true] {
            let ours = |name: &str, client: &Credential, server: &Credential| {
                self.ours(name, version, resumed, client, server)
            };
            let mut subjects = match version {
                Version::Tls13 => vec![
                    self.plain("limit: rustls alone, X25519MLKEM768", version, resumed, hybrid)?,
                    self.plain("rustls alone, X25519", version, resumed, classic)?,
                ],
                Version::Tls12 => {
                    vec![self.plain("limit: rustls alone, X25519", version, resumed, classic)?]
                }
            };
            subjects.extend([
                ours("both keys in this process", &client.here, &server.here)?,
                ours("the client's key in the agent", &client.in_agent, &server.here)?,
                ours("both keys in the agent", &client.in_agent, &server.in_agent)?,
            ]);
            let kind = if resumed { "resumed" } else { "full" };
            report.table(format!("TLS {version}, {kind} handshakes"), in_turns(rounds, 1, &subjects));
        }
        Ok(())
    }

    /// Handshakes of `enclasp_tls`.
    fn ours(
        &self,
        name: &str,
        version: Version,
        resumed: bool,
        client: &Credential,
        server: &Credential,
    ) -> Outcome<Subject<'_>> {
        let options = Options { versions: version..=version, ..Options::default() };
        let roots = vec![self.root.der().clone()];
        let clients =
            Clients { roots: roots.clone(), certificate_demanded: true, access: Access::everyone() };
        let client = Client::new(&roots, Some(client.clone()), options.clone())?;
        let server = Server::new(server.clone(), clients, options)?;
        let runtime = &self.runtime;
        Ok(subject(name, resumed, move |name| {
            runtime.block_on(async {
                let (near, far) = tokio::io::duplex(64 * 1024);
                let (near, far) =
                    tokio::join!(client.connect(near, name, "acme:443"), server.accept(far, "laptop:5000"));
                let ((mut near, evidence), _far) = (near.expect("a connection"), far.expect("a connection"));
                let confirmed = client.confirm(&mut near, &evidence, Duration::from_secs(10)).await;
                assert!(confirmed.expect("no refusal"), "the server sent no ticket");
                evidence.handshake == Handshake::Resumed
            })
        })
        .with_process(self.agent.pid()))
    }

    /// Handshakes of rustls' two state machines, with nothing between them but a buffer.
    fn plain(
        &self,
        name: &str,
        version: Version,
        resumed: bool,
        group: &'static dyn SupportedKxGroup,
    ) -> Outcome<Subject<'static>> {
        let crypto = Arc::new(CryptoProvider { kx_groups: vec![group], ..provider::default_provider() });
        let versions: &[&SupportedProtocolVersion] = match version {
            Version::Tls13 => &[&rustls::version::TLS13],
            Version::Tls12 => &[&rustls::version::TLS12],
        };
        let mut roots = RootCertStore::empty();
        roots.add(self.root.der().clone())?;
        let roots = Arc::new(roots);

        let (chain, key) = self.client.for_rustls();
        let mut client = ClientConfig::builder_with_provider(crypto.clone())
            .with_protocol_versions(versions)?
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain, key)?;
        client.resumption = Resumption::in_memory_sessions(256);

        let verifier = WebPkiClientVerifier::builder_with_provider(roots, crypto.clone()).build()?;
        let (chain, key) = self.server.for_rustls();
        let mut server = ServerConfig::builder_with_provider(crypto)
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        server.session_storage = ServerSessionMemoryCache::new(4096);

        let (client, server) = (Arc::new(client), Arc::new(server));
        Ok(subject(name, resumed, move |name| {
            let mut near = ClientConnection::new(client.clone(), name.clone()).expect("a client");
            let mut far = ServerConnection::new(server.clone()).expect("a server");
            let mut wire = Vec::new();
            while carry(&mut near, &mut far, &mut wire) | carry(&mut far, &mut near, &mut wire) {}
            assert!(!near.is_handshaking() && !far.is_handshaking(), "the handshake is not done");
            near.handshake_kind() == Some(HandshakeKind::Resumed)
        }))
    }
}

impl Party {
    fn new(issuer: &Issuer<'_>, profile: &Profile, san: &str, agent: &Agent) -> Outcome<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
        let pkcs8 = Zeroizing::new(pair.to_pkcs8v1()?.as_ref().to_vec());
        let uri = KeyUri::soft(&profile.name)?;
        let here: Arc<dyn Key> = Arc::new(SoftKey::from_pkcs8(uri.clone(), &pkcs8)?);
        let leaf = issuer.issue(
            &Leaf {
                profile,
                subject: &"".parse()?,
                subject_alt_names: &[san.parse()?],
                spki: &here.info().spki,
                lifetime: Some(Duration::from_secs(3600)),
            },
            SystemTime::now(),
            &SignContext::default(),
        )?;
        let in_agent = Arc::from(agent.keystore().import(&uri, pkcs8.clone())?);
        let credential = |key| Credential::new(vec![leaf.der().clone()], key);
        Ok(Self { pkcs8, here: credential(here)?, in_agent: credential(in_agent)?, leaf })
    }

    fn for_rustls(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivatePkcs8KeyDer::from(self.pkcs8.to_vec());
        (vec![self.leaf.der().clone()], key.into())
    }
}

/// A subject of `handshake`, which says whether it resumed a session with the server of that name,
/// and must do what `resumed` wants: a session is kept for a name, so that new names mean full
/// handshakes.
fn subject<'a>(
    name: &str,
    resumed: bool,
    handshake: impl Fn(&ServerName<'static>) -> bool + Sync + 'a,
) -> Subject<'a> {
    let known = server_name("www.acme.internal").expect("a name");
    if resumed {
        handshake(&known);
    }
    let number = AtomicU64::new(0);
    Subject::new(name, move || {
        let was_resumed = if resumed {
            handshake(&known)
        } else {
            let number = number.fetch_add(1, Ordering::Relaxed);
            handshake(&server_name(&format!("n{number}.acme.internal")).expect("a name"))
        };
        assert_eq!(was_resumed, resumed, "the handshake was resumed");
    })
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
