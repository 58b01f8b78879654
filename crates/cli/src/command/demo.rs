//! `enclasp demo`: the whole story on this machine, with real sockets and real refusals.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use enclasp_ca::{Authority, NewAuthority, TokenRequest};
use enclasp_enroll::Enrolment;
use enclasp_identity::{Holder, Identity, State};
use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{Algorithm, Key, KeySpec, KeyUri, Keystore, SignContext};
use enclasp_pki::{DistinguishedName, Issuer, Leaf, Profile, SubjectAltName, create_csr, create_root};
use enclasp_tls::{
    Access, Client, Clients, Credential, Evidence, Options, Revocation, Role, Server, Term, server_name,
};
use enclasp_tunnel::{Bound, Endpoint, ServerConfig, ServerTunnel};
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::args::Global;
use crate::command::blocking;
use crate::failure::{Failure, Outcome};
use crate::output;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp demo
  enclasp demo --keep /tmp/enclasp-demo     leaves what it made, and says how to go on with it
  enclasp demo --json                       the same for machines
  enclasp demo --keystore tpm:name=laptop
  enclasp demo --keystore 'pkcs11:token=HSM;object=laptop?module-path=/usr/lib/x.so&pin-source=file:/etc/hsm.pin'")]
pub(crate) struct Demo {
    /// Where the client's key shall be, as a key URI.
    #[arg(long, value_name = "URI", default_value = "soft:name=laptop")]
    keystore: KeyUri,
    /// Keep what the demo makes in this folder, which must be new or empty.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// What the demo did, as `--json` prints it.
#[derive(Default, Serialize)]
struct Story {
    steps: Vec<Step>,
    evidence: Option<Evidence>,
    refusals: Vec<Refusal>,
    elapsed_ms: u128,
}

#[derive(Serialize)]
struct Step {
    name: &'static str,
    told: String,
}

#[derive(Serialize)]
struct Refusal {
    presented: &'static str,
    refused_by: Role,
    reason: String,
}

/// The identity that the demo's client gets, and the name that the server admits.
const CLIENT: &str = "laptop";
const SERVER: &str = "demo-server";
const HOST: &str = "localhost";
const ANSWER: &str = "hello from the service behind the tunnel";

pub(crate) async fn run(global: &Global, demo: Demo) -> Outcome {
    let started = Instant::now();
    let folder = Folder::new(demo.keep.clone())?;
    let mut teller = Teller { json: global.json, story: Story::default(), authority: String::new() };
    if !global.json {
        output::line("A key that never leaves its enclave, enrolled and used for mutual TLS:")?;
    }
    tell_story(&demo, folder.path(), &mut teller).await?;
    teller.story.elapsed_ms = started.elapsed().as_millis();
    if global.json {
        return output::json(&teller.story);
    }
    output::line(format_args!("\nAll of it in {:.1} s.", started.elapsed().as_secs_f32()))?;
    match demo.keep {
        None => output::line("Nothing is left behind; --keep DIR keeps it to go on with."),
        Some(dir) => how_to_go_on(&dir, &teller.authority),
    }
}

async fn tell_story(demo: &Demo, folder: &Path, teller: &mut Teller) -> Outcome {
    // The agents, in processes of their own; they end with these guards.
    let state = State::at(&folder.join("state"))?.with_socket(folder.join("state/run/agent.sock"));
    let holder = Holder::of(&demo.keystore)?;
    let start = |holder: &Holder| {
        let _wait = output::Spinner::start("starting the agent");
        Agent::start(&state, holder)
    };
    let agent = start(&Holder::Soft)?;
    let of_hardware = if holder == Holder::Soft { None } else { Some(start(&holder)?) };
    let agents = state.agent_of(holder);
    let in_force = agents.status()?.protections.into_iter().filter(|(_, outcome)| outcome.is_ok());
    let in_force: Vec<_> = in_force.map(|(measure, _)| measure).collect();
    let pid = of_hardware.as_ref().unwrap_or(&agent).pid();
    teller.step("agent", format!("process {pid} holds the key; {}", in_force.join(", ")))?;

    // The key.
    let keystore: Arc<dyn Keystore> = Arc::new(agents);
    let key = keystore.create(&KeySpec::new(demo.keystore.clone()))?;
    let _key = demo.keep.is_none().then(|| NewKey { keystore: keystore.clone(), uri: demo.keystore.clone() });
    let info = key.info();
    let schemes: Vec<_> = info.usable_schemes().iter().map(|scheme| scheme.name()).collect();
    teller.step(
        "key",
        format!(
            "{}, {}, made there; proved to sign with {}",
            info.uri,
            info.algorithm,
            schemes.join(" and ")
        ),
    )?;

    // The authority, serving HTTPS on a free port.
    let ca_dir = folder.join("ca");
    let port = free_port().await?;
    let url = format!("https://127.0.0.1:{port}");
    let authority = {
        let _wait = output::Spinner::start("making the authority");
        let new = NewAuthority {
            name: "Demo".into(),
            url: url.parse()?,
            keys: None,
            root_key: None,
            http_url: None,
            database: None,
            name_constraints: Default::default(),
        };
        let keystore = state.agent();
        let dir = ca_dir.clone();
        blocking(move || Ok(enclasp_ca::init(&dir, &new, &keystore)?)).await?;
        Authority::open(&ca_dir).await?
    };
    let address = format!("127.0.0.1:{port}");
    teller.authority.clone_from(&address);
    let server = enclasp_ca::Server::bind(authority.clone(), Arc::new(state.agent()), &address).await?;
    let ca_server = Task::spawn(server.run(std::future::pending()));
    let root = authority.root().clone();
    teller.step("authority", format!("{} at {url}, root {}…", root.name(), &root.fingerprint_hex()[..16]))?;

    // An expired certificate takes a moment to expire, so it is asked for first.
    let expired = expired_identity(&authority, &state, &*key).await?;

    // Enrolment: token, request, certificate, identity.
    let san = SubjectAltName::Dns(CLIENT.into());
    let client = enrol(&authority, &state, CLIENT, &demo.keystore, "client", vec![san], keystore).await?;
    let leaf = client.leaf()?;
    teller.step("token", format!("good once, for CN={CLIENT} only, and bound to the authority's root"))?;
    teller.step(
        "enrolment",
        format!(
            "request signed by the key, certificate {}… until {}",
            &leaf.serial()[..8],
            output::time(leaf.not_after())
        ),
    )?;
    let agent_keys: Arc<dyn Keystore> = Arc::new(state.agent());
    let san = SubjectAltName::Dns(HOST.into());
    let uri = KeyUri::soft(SERVER)?;
    let server = enrol(&authority, &state, SERVER, &uri, "server", vec![san], agent_keys).await?;

    // The service, and the tunnel in front of it.
    let (backend, _backend) = service().await?;
    let roots = vec![root.der().clone()];
    let clients = Clients {
        roots: roots.clone(),
        certificate_demanded: true,
        server_certificates: false,
        access: Access::any_of([Term::CommonName(CLIENT.into()).into()]),
        revocation: Revocation::default(),
    };
    let tls = Server::new(Credential::open(&state, &server)?, clients, Options::default())?;
    let listen = Bound::listen(&Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 }).await?;
    let tunnel = ServerTunnel::new(ServerConfig::new(listen, backend.parse()?, tls))?;
    let front = tunnel.bound_addr().to_string();
    let _tunnel = Task::spawn(tunnel.run(std::future::pending()));
    teller.step("server", format!("mutual TLS on {front} before http://{backend}, admits CN={CLIENT}"))?;

    // The connection.
    let credential = Credential::open(&state, &client)?;
    let connect = |credential| connect(&front, &roots, credential);
    let (evidence, answer) = connect(Some(credential)).await?;
    if !answer.ends_with(ANSWER) {
        return Err(Failure::new(format!("the service answered something else: {answer}")));
    }
    teller.step("connect", format!("CN={CLIENT} asked for / and got `{ANSWER}`; the evidence:"))?;
    teller.evidence(evidence)?;

    // The refusals.
    teller.refused("no certificate", Role::Server, connect(None).await)?;
    let stranger = stranger_credential()?;
    teller.refused("a certificate from another CA", Role::Server, connect(Some(stranger)).await)?;
    {
        let _wait = output::Spinner::start("waiting for a certificate to expire");
        let end = expired.leaf()?.not_after() + Duration::from_secs(1);
        if let Ok(left) = end.duration_since(SystemTime::now()) {
            tokio::time::sleep(left).await;
        }
    }
    let expired = Credential::open(&state, &expired)?;
    teller.refused("an expired certificate", Role::Server, connect(Some(expired)).await)?;
    let copied = thief::connect(&front, &roots, client.chain.clone()).await;
    teller.refused("a copied certificate, without its key", Role::Server, copied)?;
    let ours = Credential::new(client.chain.clone(), Arc::new(any_key()?)).map(|_| ()).map_err(Failure::from);
    teller.refused("the same, by our own library", Role::Client, ours)?;
    drop(ca_server);
    authority.close().await;
    Ok(())
}

/// Prints each step as it is done, or keeps it for the JSON.
struct Teller {
    json: bool,
    story: Story,
    /// Where the authority listens.
    authority: String,
}

impl Teller {
    fn step(&mut self, name: &'static str, told: String) -> Outcome {
        self.print(name, &told)?;
        self.story.steps.push(Step { name, told });
        Ok(())
    }

    fn evidence(&mut self, evidence: Evidence) -> Outcome {
        if !self.json {
            for line in evidence.to_string().lines() {
                output::line(format_args!("               {line}"))?;
            }
        }
        self.story.evidence = Some(evidence);
        Ok(())
    }

    /// Tells of a refusal. That there was none is a failure of the demo.
    fn refused<T>(&mut self, presented: &'static str, by: Role, outcome: Outcome<T>) -> Outcome {
        let Err(failure) = outcome else {
            return Err(Failure::new(format!("{presented} was not refused")));
        };
        let reason = failure.message().to_owned();
        self.print("refused", &format!("{presented}: {reason}"))?;
        self.story.refusals.push(Refusal { presented, refused_by: by, reason });
        Ok(())
    }

    fn print(&self, name: &str, told: &str) -> Outcome {
        if self.json { Ok(()) } else { output::line(format_args!("  {name:<11}  {told}")) }
    }
}

/// The folder that everything is in: temporary, or the one to keep.
enum Folder {
    Temporary(tempfile::TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn new(keep: Option<PathBuf>) -> Outcome<Self> {
        let Some(path) = keep else {
            let folder = tempfile::Builder::new().prefix("enclasp-demo-").tempdir();
            let failed = |e| Failure::new(format!("cannot make a temporary folder: {e}"));
            return Ok(Self::Temporary(folder.map_err(failed)?));
        };
        let failed = |e: std::io::Error| Failure::new(format!("cannot use {}: {e}", path.display()));
        std::fs::create_dir_all(&path).map_err(failed)?;
        if std::fs::read_dir(&path).map_err(failed)?.next().is_some() {
            return Err(Failure::new(format!("{} is not empty", path.display()))
                .hint("name a new folder, so that nothing of yours is mixed with the demo's"));
        }
        Ok(Self::Kept(std::path::absolute(&path)?))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(path) => path,
        }
    }
}

/// A key that is deleted in the end, since a token is not part of the demo's folder.
struct NewKey {
    keystore: Arc<dyn Keystore>,
    uri: KeyUri,
}

impl Drop for NewKey {
    fn drop(&mut self) {
        if let Err(error) = self.keystore.delete(&self.uri) {
            output::warn(format_args!("`{}` is left behind: {error}", self.uri));
        }
    }
}

/// An agent of the demo, which ends with it.
struct Agent(Child);

impl Agent {
    fn start(state: &State, holder: &Holder) -> Outcome<Self> {
        let mut child = state
            .agent_command(holder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take();
        let agent = Self(child);
        // It says one line when it listens, or why it does not.
        let mut said = Vec::new();
        let mut lines = stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines());
        while let Some(line) = lines.next() {
            let line = line?;
            if line.starts_with("the agent listens") {
                // The rest is its log.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(agent);
            }
            said.push(line);
        }
        let after = |what: &str| said.iter().find_map(|line| line.strip_prefix(what));
        // A library may have written a line of its own before.
        let cause = after("error: ").map_or_else(|| said.join("; "), str::to_owned);
        let failure = Failure::new(format!("the agent did not start: {cause}"));
        Err(match after("hint: ") {
            Some(hint) => failure.hint(hint),
            None => failure,
        })
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Asked first, so that it removes its socket.
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(2) {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A task that ends when this is dropped.
struct Task(tokio::task::JoinHandle<()>);

impl Task {
    fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn enrol(
    authority: &Authority,
    state: &State,
    name: &str,
    key: &KeyUri,
    profile: &str,
    subject_alt_names: Vec<SubjectAltName>,
    keystore: Arc<dyn Keystore>,
) -> Outcome<Identity> {
    let token = authority
        .token(TokenRequest {
            common_name: name.into(),
            subject_alt_names,
            profile: profile.into(),
            lifetime: Duration::from_secs(600),
        })
        .await?;
    let enrolment = Enrolment {
        identity: name.into(),
        key: KeySpec::new(key.clone()),
        keystore,
        store: state.identities()?,
        pending: state.enrolling(),
        patience: Duration::ZERO,
    };
    let wait = output::Spinner::start(format!("enrolling {name}"));
    let identity = enclasp_enroll::enroll(&token, &enrolment, |_| {}).await?;
    drop(wait);
    Ok(identity)
}

/// A certificate for the client's own key that lives for a second.
async fn expired_identity(authority: &Authority, state: &State, key: &dyn Key) -> Outcome<Identity> {
    let subject: DistinguishedName = format!("CN={CLIENT}").parse()?;
    let csr = create_csr(key, &subject, &[], &SignContext::new("a certificate that will expire"))?;
    let lifetime = Some(Duration::from_secs(1));
    let record = authority.sign(Arc::new(state.agent()), &csr, "client", lifetime).await?;
    Ok(Identity {
        name: "expired".into(),
        key: key.info().uri.clone(),
        chain: vec![record.certificate()?.der().clone(), authority.issuing().der().clone()],
        roots: Vec::new(),
        authority: None,
        software: false,
        updated: SystemTime::now(),
        retired: None,
        certified_by: None,
    })
}

/// The right name, certified by somebody else.
fn stranger_credential() -> Outcome<Credential> {
    let ctx = SignContext::new("another CA");
    let (ca_key, key) = (any_key()?, any_key()?);
    let now = SystemTime::now();
    let day = Duration::from_secs(86_400);
    let root = create_root(&ca_key, &"CN=Another CA".parse()?, day, now, &ctx)?;
    let leaf = Leaf {
        profile: &Profile::client(),
        subject: &format!("CN={CLIENT}").parse()?,
        subject_alt_names: &[],
        spki: &key.info().spki,
        lifetime: Some(day),
    };
    let certificate = Issuer::new(root, &ca_key)?.issue(&leaf, now, &ctx)?;
    Ok(Credential::new(vec![certificate.der().clone()], Arc::new(key))?)
}

fn any_key() -> Outcome<SoftKey> {
    Ok(SoftKey::generate(KeyUri::soft("somebody-else")?, Algorithm::P256)?)
}

/// Connects, asks for `/`, and returns the evidence and the whole answer.
async fn connect(
    address: &str,
    roots: &[CertificateDer<'static>],
    credential: Option<Credential>,
) -> Outcome<(Evidence, String)> {
    let client = Client::new(roots, credential, Options::default())?;
    let tcp = TcpStream::connect(address).await?;
    let (mut stream, evidence) = client.connect(tcp, &server_name(HOST)?, address).await?;
    let explain = |e| Failure::from(enclasp_tls::explain(e, &evidence));
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    // A server that has refused us may be gone before this is written; the reading says why.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(explain)?;
    Ok((evidence, String::from_utf8_lossy(&answer).trim_end().to_owned()))
}

/// A plain HTTP service on a free port, which answers everything with one sentence.
async fn service() -> Outcome<(String, Task)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let serve = async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let _ = stream.read(&mut request).await;
                let length = ANSWER.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(format!("{head}{ANSWER}").as_bytes()).await;
            });
        }
    };
    Ok((address, Task::spawn(serve)))
}

async fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port())
}

fn how_to_go_on(dir: &Path, authority: &str) -> Outcome {
    let dir = std::path::absolute(dir)?;
    // Something to serve that is meant to be seen.
    std::fs::create_dir(dir.join("www"))?;
    std::fs::write(dir.join("www/index.html"), format!("{ANSWER}\n"))?;
    let dir = dir.display();
    output::line(format_args!(
        "Kept in {dir}. Go on with:
  export ENCLASP_STATE={dir}/state
  enclasp key list
  enclasp identity show {CLIENT}
  enclasp ca list --dir {dir}/ca
  enclasp ca serve --dir {dir}/ca --listen {authority} &
  python3 -m http.server 8080 --bind 127.0.0.1 --directory {dir}/www &
  enclasp server --listen 127.0.0.1:8443 --target 127.0.0.1:8080 --identity {SERVER} --allow-cn {CLIENT} &
  printf 'GET / HTTP/1.0\\r\\n\\r\\n' | enclasp connect localhost:8443 --identity {CLIENT} -v"
    ))
}

/// Somebody who has copied a certificate and signs with another key, by means of plain rustls.
mod thief {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
    use rustls::client::ResolvesClientCert;
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, RootCertStore, SignatureScheme};
    use rustls_pki_types::PrivateKeyDer;

    use super::*;

    #[derive(Debug)]
    struct Thief(Arc<CertifiedKey>);

    impl ResolvesClientCert for Thief {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    pub(super) async fn connect(
        address: &str,
        roots: &[CertificateDer<'static>],
        chain: Vec<CertificateDer<'static>>,
    ) -> Outcome<Vec<u8>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key =
            rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&any_private_key()?).map_err(Failure::new)?;
        let thief = Thief(Arc::new(CertifiedKey::new(chain, key)));
        let mut trusted = RootCertStore::empty();
        trusted.add_parsable_certificates(roots.to_vec());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Failure::new)?
            .with_root_certificates(trusted)
            .with_client_cert_resolver(Arc::new(thief));
        let tcp = TcpStream::connect(address).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(server_name(HOST)?, tcp).await.map_err(refusal)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.map_err(refusal)?;
        Ok(answer)
    }

    fn any_private_key() -> Outcome<PrivateKeyDer<'static>> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        let pkcs8 = pkcs8.map_err(|_| Failure::new("cannot make a key"))?;
        Ok(PrivateKeyDer::Pkcs8(pkcs8.as_ref().to_vec().into()))
    }

    fn refusal(error: std::io::Error) -> Failure {
        Failure::new(format!("the server refused the signature: {error}"))
    }
}
