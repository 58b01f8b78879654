//! Both tunnels over real sockets.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{Algorithm, Key, KeyUri, SignContext};
use enclasp_pki::{Certificate, Issuer, Leaf, Profile, create_root};
use enclasp_tls::{
    Access, Client, ClientStream, Clients, Credential, Error as TlsError, Options, Revocation, Role, Server,
    Term, server_name,
};
use enclasp_tunnel::{Bound, ClientConfig, ClientTunnel, Endpoint, Observer, ServerConfig, ServerTunnel};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Far more than any of this takes, so that a hang is a failure.
const LONG: Duration = Duration::from_secs(30);

struct Authority {
    key: SoftKey,
    root: Certificate,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = soft_key(name);
        let subject = format!("CN={name}").parse().unwrap();
        let day = Duration::from_secs(86_400);
        let root = create_root(&key, &subject, day, SystemTime::now(), &SignContext::default()).unwrap();
        Self { key, root }
    }

    fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.der().clone()]
    }

    fn credential(&self, profile: &Profile, name: &str) -> Credential {
        let key = soft_key(name);
        let subject = format!("CN={name},O=Acme").parse().unwrap();
        let names = [format!("dns:{name}").parse().unwrap()];
        let spki = &key.info().spki;
        let leaf = Leaf { profile, subject: &subject, subject_alt_names: &names, spki, lifetime: None };
        let issuer = Issuer::new(self.root.clone(), &self.key).unwrap();
        let leaf = issuer.issue(&leaf, SystemTime::now(), &SignContext::default()).unwrap();
        Credential::new(vec![leaf.der().clone()], Arc::new(key)).unwrap()
    }

    fn laptop(&self) -> Credential {
        self.credential(&Profile::client(), "laptop-17")
    }

    /// A server that admits laptop-17.
    fn tls_server(&self) -> Server {
        self.tls_server_with(Options::default())
    }

    fn tls_server_with(&self, options: Options) -> Server {
        let clients = Clients {
            roots: self.roots(),
            certificate_demanded: true,
            server_certificates: false,
            access: Access::any_of([Term::CommonName("laptop-17".into()).into()]),
            revocation: Revocation::default(),
        };
        Server::new(self.credential(&Profile::server(), "localhost"), clients, options).unwrap()
    }

    /// The same as a tunnel in front of `target`.
    async fn server(&self, target: Endpoint) -> ServerConfig {
        ServerConfig::new(listening().await, target, self.tls_server())
    }

    async fn client(&self, target: Endpoint) -> ClientConfig {
        let tls = tls_client(self, Some(self.laptop()));
        let server_name = Some("localhost".into());
        ClientConfig { server_name, ..ClientConfig::new(listening().await, target, tls) }
    }
}

async fn listening() -> Bound {
    listening_on(&"127.0.0.1:0".parse().unwrap()).await
}

async fn listening_on(endpoint: &Endpoint) -> Bound {
    Bound::listen(endpoint).await.unwrap()
}

fn soft_key(name: &str) -> SoftKey {
    SoftKey::generate(KeyUri::soft(name).unwrap(), Algorithm::P256).unwrap()
}

/// A tunnel at work, which ends with its handle.
struct Running {
    at: Endpoint,
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

macro_rules! start {
    ($kind:ident, $config:expr) => {{
        let tunnel = $kind::new($config).unwrap();
        let (stop, stopped) = oneshot::channel();
        let at = tunnel.bound_addr().clone();
        let done = tokio::spawn(tunnel.run(async { drop(stopped.await) }));
        Running { at, stop, done }
    }};
}

async fn connect(to: &Endpoint) -> TcpStream {
    TcpStream::connect(to.to_string()).await.unwrap()
}

/// A TLS client that speaks to a server tunnel directly.
async fn tls(client: &Client, to: &Endpoint) -> Result<ClientStream<TcpStream>, TlsError> {
    let (mut stream, evidence) =
        client.connect(connect(to).await, &server_name("localhost")?, &to.to_string()).await?;
    client.confirm(&mut stream, &evidence, LONG).await?;
    Ok(stream)
}

fn tls_client(roots: &Authority, credential: Option<Credential>) -> Client {
    Client::new(&roots.roots(), credential, Options::default()).unwrap()
}

/// Answers only when the request has ended: with its length, and then the request itself.
async fn counting_backend() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = Vec::new();
                stream.read_to_end(&mut request).await.unwrap();
                stream.write_all(format!("{}:", request.len()).as_bytes()).await.unwrap();
                stream.write_all(&request).await.unwrap();
            });
        }
    });
    at
}

async fn exchange(stream: impl AsyncRead + AsyncWrite, request: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = tokio::io::split(stream);
    let send = async {
        write.write_all(request).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut answer = Vec::new();
    let (received, ()) = tokio::join!(read.read_to_end(&mut answer), send);
    received.unwrap();
    answer
}

/// What is logged on this thread while it lives.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// The first line that holds `text`, once it is there.
    async fn line(&self, text: &str) -> String {
        let find = async {
            loop {
                let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
                if let Some(line) = log.lines().find(|line| line.contains(text)) {
                    return line.to_owned();
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, find).await.expect(text)
    }
}

#[tokio::test]
async fn refuses_settings_that_cannot_work() {
    let authority = Authority::new("Acme");
    let error = ServerTunnel::new(authority.server(":80".parse().unwrap()).await).unwrap_err();
    assert!(error.to_string().contains("a target needs a host and a port"), "{error}");
    let nameless =
        ClientConfig { server_name: None, ..authority.client("unix:/run/x".parse().unwrap()).await };
    let error = ClientTunnel::new(nameless).unwrap_err();
    assert!(error.to_string().contains("the server's name must be given"), "{error}");

    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen: Endpoint = taken.local_addr().unwrap().to_string().parse().unwrap();
    let error = Bound::listen(&listen).await.unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("another program listens there"), "{error}");
}

#[tokio::test]
async fn server_refuses_and_logs_whom_and_why() {
    let (log, _guard) = Log::capture();
    let (authority, other) = (Authority::new("Acme"), Authority::new("Other"));
    let server = start!(ServerTunnel, authority.server(counting_backend().await).await);

    let error = tls(&tls_client(&authority, None), &server.at).await.unwrap_err();
    assert!(matches!(error, TlsError::CertificateDemanded { .. }), "{error}");
    log.line("presented no certificate").await;

    let wrong_name = authority.credential(&Profile::client(), "laptop-18");
    let error = tls(&tls_client(&authority, Some(wrong_name)), &server.at).await.unwrap_err();
    assert!(error.to_string().contains("access_denied"), "{error}");
    let line = log.line("CN=laptop-18 is not among the allowed CNs (laptop-17)").await;
    assert!(line.contains("WARN") && line.contains("subject=\"CN=laptop-18,O=Acme\""), "{line}");
    assert!(line.contains("peer=\"127.0.0.1:"), "{line}");

    let stranger = other.credential(&Profile::client(), "laptop-17");
    let error = tls(&tls_client(&authority, Some(stranger)), &server.at).await.unwrap_err();
    assert!(error.to_string().contains("unknown_ca"), "{error}");
    log.line("no trusted root vouches for CN=Other").await;

    let mut plain = connect(&server.at).await;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.first(), Some(&21), "a TLS alert and nothing else");
    log.line("does not seem to speak TLS").await;
}

#[tokio::test]
async fn client_logs_that_the_server_refused() {
    let (log, _guard) = Log::capture();
    let authority = Authority::new("Acme");
    let server = start!(ServerTunnel, authority.server(counting_backend().await).await);
    let tls = tls_client(&authority, Some(authority.credential(&Profile::client(), "laptop-18")));
    let client = start!(ClientTunnel, ClientConfig { tls, ..authority.client(server.at.clone()).await });
    let mut plain = connect(&client.at).await;
    assert_eq!(plain.read(&mut [0]).await.unwrap(), 0);
    let line = log.line("refused our certificate after the handshake").await;
    assert!(line.contains("WARN"), "{line}");
}

#[tokio::test]
async fn a_target_that_is_down_ends_the_connection() {
    let (log, _guard) = Log::capture();
    let authority = Authority::new("Acme");
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let server = start!(ServerTunnel, authority.server(free.parse().unwrap()).await);
    let mut stream = tls(&tls_client(&authority, Some(authority.laptop())), &server.at).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    log.line(&format!("cannot connect to {free}")).await;
}

#[tokio::test]
async fn halves_end_separately_and_nothing_is_lost() {
    let (log, _guard) = Log::capture();
    let authority = Authority::new("Acme");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let observer: Observer = Arc::new(move |evidence| record.lock().unwrap().push(evidence.clone()));
    let config = authority.server(counting_backend().await).await;
    let server = start!(ServerTunnel, ServerConfig { observer: Some(observer), ..config });
    let client = start!(ClientTunnel, authority.client(server.at.clone()).await);

    let request: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
    let answer = timeout(LONG, exchange(connect(&client.at).await, &request)).await.unwrap();
    assert_eq!(answer.len(), request.len() + "5000000:".len());
    assert!(answer.starts_with(b"5000000:") && answer.ends_with(&request));

    let line = log.line("received=5000000 sent=5000008").await;
    for field in [
        "INFO",
        "subject=\"CN=laptop-17,O=Acme\"",
        "scheme=\"ecdsa_secp256r1_sha256\"",
        "key=\"soft:name=localhost\"",
        "elapsed_ms=",
    ] {
        assert!(line.contains(field), "{field}: {line}");
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].signature_by(Role::Client).is_some());
}

#[tokio::test]
async fn what_replaces_the_certificate_is_for_new_connections_and_disturbs_no_open_one() {
    let authority = Authority::new("Acme");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let observer: Observer = Arc::new(move |evidence: &enclasp_tls::Evidence| {
        record.lock().unwrap().push(evidence.local.chain[0].serial.clone());
    });
    let config =
        ServerConfig { observer: Some(observer), ..authority.server(counting_backend().await).await };
    let server = ServerTunnel::new(config).unwrap();
    let (at, current) = (server.bound_addr().clone(), server.tls());
    tokio::spawn(server.run(std::future::pending()));
    let client = tls_client(&authority, Some(authority.laptop()));
    let mut open = tls(&client, &at).await.unwrap();

    let new = authority.tls_server();
    let serial = new.credential().leaf().serial().to_owned();
    current.replace(new);
    drop(tls(&client, &at).await.unwrap());
    // The client may be done before the server has shown what it saw.
    let both = async {
        while seen.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, both).await.unwrap();
    let serials = seen.lock().unwrap().clone();
    assert!(serials[0] != serial && serials[1] == serial, "{serials:?} and then {serial}");

    open.write_all(b"still here").await.unwrap();
    open.shutdown().await.unwrap();
    let mut answer = Vec::new();
    open.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"10:still here");
}

#[tokio::test]
async fn unix_sockets_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let unix = |name: &str| Endpoint::Unix(folder.path().join(name));
    let authority = Authority::new("Acme");
    let backend = UnixListener::bind(folder.path().join("backend")).unwrap();
    let answered = tokio::spawn(async move {
        let (mut stream, _) = backend.accept().await.unwrap();
        let mut request = String::new();
        stream.read_to_string(&mut request).await.unwrap();
        stream.write_all(request.to_uppercase().as_bytes()).await.unwrap();
    });
    let server = start!(
        ServerTunnel,
        ServerConfig { listen: listening_on(&unix("tls")).await, ..authority.server(unix("backend")).await }
    );
    let client = start!(
        ClientTunnel,
        ClientConfig {
            listen: listening_on(&unix("plain")).await,
            ..authority.client(server.at.clone()).await
        }
    );
    let stream = UnixStream::connect(folder.path().join("plain")).await.unwrap();
    assert_eq!(timeout(LONG, exchange(stream, b"hello")).await.unwrap(), b"HELLO");
    answered.await.unwrap();

    for tunnel in [client, server] {
        tunnel.stop.send(()).unwrap();
        timeout(LONG, tunnel.done).await.unwrap().unwrap();
    }
    assert!(!folder.path().join("plain").exists() && !folder.path().join("tls").exists());
}

#[tokio::test]
async fn peers_that_stop_short_only_hold_their_turn_for_the_handshake_timeout() {
    let (log, _guard) = Log::capture();
    let authority = Authority::new("Acme");
    let mut config = authority.server(counting_backend().await).await;
    config.limits.max_handshakes = 1;
    let options = Options { handshake_timeout: Duration::from_millis(200), ..Options::default() };
    config.tls = authority.tls_server_with(options);
    let server = start!(ServerTunnel, config);
    let mut stopped = connect(&server.at).await;
    // The beginning of a record.
    stopped.write_all(&[22, 3, 1]).await.unwrap();
    let stream = tls(&tls_client(&authority, Some(authority.laptop())), &server.at).await.unwrap();
    assert_eq!(timeout(LONG, exchange(stream, b"hello")).await.unwrap(), b"5:hello");
    log.line("was not done after 200ms").await;
}

#[tokio::test]
async fn silent_peers_take_no_turn() {
    let (log, _guard) = Log::capture();
    let authority = Authority::new("Acme");
    let patient_for = async |silence| {
        let mut config = authority.server(counting_backend().await).await;
        config.limits.max_handshakes = 1;
        config.limits.silence_timeout = silence;
        config
    };
    let server = start!(ServerTunnel, patient_for(LONG).await);
    let _silent = connect(&server.at).await;
    let client = tls_client(&authority, Some(authority.laptop()));
    let stream = timeout(LONG / 2, tls(&client, &server.at)).await.unwrap().unwrap();
    assert_eq!(timeout(LONG, exchange(stream, b"hello")).await.unwrap(), b"5:hello");

    let server = start!(ServerTunnel, patient_for(Duration::from_millis(50)).await);
    let mut silent = connect(&server.at).await;
    assert_eq!(timeout(LONG, silent.read(&mut [0])).await.unwrap().unwrap(), 0);
    log.line("said nothing for 50ms").await;
}

/// Others at other addresses get their turn while those of one address are stuck in theirs.
#[tokio::test]
async fn one_address_cannot_take_all_turns() {
    let authority = Authority::new("Acme");
    let mut config = authority.server(counting_backend().await).await;
    config.limits.max_handshakes = 3;
    config.limits.max_handshakes_of_source = 2;
    let options = Options { handshake_timeout: 10 * LONG, ..Options::default() };
    config.tls = authority.tls_server_with(options);
    let server = start!(ServerTunnel, config);
    let mut stuck = Vec::new();
    for _ in 0..10 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(server.at.to_string().parse().unwrap()).await.unwrap();
        // The beginning of a record.
        stream.write_all(&[22, 3, 1]).await.unwrap();
        stuck.push(stream);
    }
    let client = tls_client(&authority, Some(authority.laptop()));
    let stream = timeout(LONG, tls(&client, &server.at)).await.unwrap().unwrap();
    assert_eq!(timeout(LONG, exchange(stream, b"hello")).await.unwrap(), b"5:hello");
}

#[tokio::test]
async fn connections_are_bounded() {
    let authority = Authority::new("Acme");
    let mut config = authority.server(counting_backend().await).await;
    config.limits.max_connections = 1;
    let server = start!(ServerTunnel, config);
    let client = tls_client(&authority, Some(authority.laptop()));
    let first = tls(&client, &server.at).await.unwrap();
    let at = server.at.clone();
    let second = tokio::spawn(async move { tls(&client, &at).await });
    // The second has been waiting in the kernel when the first is served to its end.
    assert_eq!(timeout(LONG, exchange(first, b"one")).await.unwrap(), b"3:one");
    let second = timeout(LONG, second).await.unwrap().unwrap().unwrap();
    assert_eq!(timeout(LONG, exchange(second, b"two")).await.unwrap(), b"3:two");
}

#[tokio::test]
async fn shutdown_lets_open_connections_finish_for_a_while() {
    let authority = Authority::new("Acme");
    let server = start!(ServerTunnel, authority.server(counting_backend().await).await);
    let mut config = authority.server(counting_backend().await).await;
    config.limits.drain_timeout = Duration::from_millis(100);
    let impatient = start!(ServerTunnel, config);
    let client = tls_client(&authority, Some(authority.laptop()));
    let stream = tls(&client, &server.at).await.unwrap();
    let mut idle = tls(&client, &impatient.at).await.unwrap();

    let at = server.at.to_string();
    server.stop.send(()).unwrap();
    let refused = async {
        while TcpStream::connect(&at).await.is_ok() {
            tokio::task::yield_now().await
        }
    };
    timeout(LONG, refused).await.unwrap();
    assert!(!server.done.is_finished());
    assert_eq!(timeout(LONG, exchange(stream, b"hello")).await.unwrap(), b"5:hello");
    timeout(LONG, server.done).await.unwrap().unwrap();

    impatient.stop.send(()).unwrap();
    timeout(LONG, impatient.done).await.unwrap().unwrap();
    assert!(matches!(timeout(LONG, idle.read(&mut [0])).await.unwrap(), Err(_) | Ok(0)));
}
