//! An authority under load: the devices that enrol, the process that serves them, and the work that no authority can do
//! without.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use enclasp_ca::{Authority, NewAuthority, Server, TokenRequest, init};
use enclasp_enroll::est;
use enclasp_keystore::agent::AgentKeystore;
use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{Algorithm, Input, Key, KeyUri, Keystore, SignContext};
use enclasp_pki::{CertificationRequest, DistinguishedName, create_csr};
use rustix::time::{ClockId, clock_gettime};
use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyPool, Executor};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::measure::{cpu_time_of, own_cpu_time};
use crate::process::{Agent, Guard};
use crate::tls;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

pub(crate) const AUTHORITY: &str = "play-authority";

/// An authority in a process of its own, whose issuing key is in an agent.
pub struct Serving {
    folder: TempDir,
    agent: Agent,
    server: Guard,
    /// Of the database, if that is a process of its own.
    postgres: Option<u32>,
    /// Its records and settings.
    pub authority: Authority,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Serving {
    /// Makes one with its records in SQLite, or in the PostgreSQL at `database`, whose first process is `postgres`.
    ///
    /// # Errors
    /// What the authority says.
    pub async fn start(database: Option<&str>, postgres: Option<u32>) -> Outcome<Self> {
        let agent = Agent::start()?;
        let folder = tempfile::tempdir()?;
        let dir = folder.path().join("ca");
        let new = NewAuthority {
            name: "Acme".into(),
            url: "https://127.0.0.1:8443".parse()?,
            keys: None,
            root_key: None,
            http_url: None,
            database: database.map(str::parse).transpose()?,
            name_constraints: Default::default(),
        };
        init(&dir, &new, &agent.keystore())?;
        let authority = Authority::open(&dir).await?;
        let (server, line) = Guard::of_role(
            Command::new(std::env::current_exe()?)
                .arg(AUTHORITY)
                .args([dir.as_path(), agent.socket().as_path()]),
        )?;
        let address = line.trim().parse().map_err(|_| io::Error::other("the authority did not start"))?;
        Ok(Self { folder, agent, server, postgres, authority, address })
    }

    /// The CPU time that it has taken: its own, its agent's, its database's.
    pub fn cpu_time(&self) -> Duration {
        let database = self.postgres.map_or(Duration::ZERO, cpu_time_of_family);
        cpu_time_of(self.server.pid()) + cpu_time_of(self.agent.pid()) + database
    }

    /// The file of its records.
    pub fn records(&self) -> std::path::PathBuf {
        self.folder.path().join("ca/authority.db")
    }

    /// Its keys.
    pub fn keystore(&self) -> Arc<dyn Keystore> {
        Arc::new(self.agent.keystore())
    }

    /// So many devices with a token each.
    ///
    /// # Errors
    /// What the authority says.
    pub async fn devices(&self, count: usize) -> Outcome<Devices> {
        let key = SoftKey::generate(KeyUri::soft("device")?, Algorithm::P256)?;
        let csr = create_csr(&key, &DistinguishedName::default(), &[], &SignContext::default())?;
        let request = TokenRequest {
            common_name: "device".into(),
            subject_alt_names: Vec::new(),
            profile: "client".into(),
            lifetime: Duration::from_secs(3600),
        };
        let mut making = JoinSet::new();
        for _ in 0..count {
            let (authority, request) = (self.authority.clone(), request.clone());
            making.spawn(async move { authority.token(request).await });
        }
        let body = est::encode_body(&csr);
        let mut requests = Vec::with_capacity(count);
        while let Some(token) = making.join_next().await {
            let authorization = est::basic_credentials(token??.secret());
            requests.push(format!(
                "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {}\r\nContent-Type: {}\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                est::SIMPLEENROLL,
                *authorization,
                est::PKCS10,
                body.len(),
            ));
        }
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.root().der().clone())?;
        let mut tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        tls.resumption = Resumption::disabled();
        Ok(Devices { address: self.address, requests, tls: Arc::new(tls) })
    }
}

/// Devices that have not enrolled yet.
pub struct Devices {
    address: SocketAddr,
    requests: Vec<String>,
    tls: Arc<ClientConfig>,
}

impl Devices {
    /// Has all of them enrol, so many at once, over connections that are kept, or over a new one each.
    ///
    /// # Errors
    /// What goes wrong, and any answer but a certificate.
    pub async fn enrol(self, at_once: usize, keep: bool) -> Outcome<()> {
        let (devices, next) = (Arc::new(self), Arc::new(AtomicUsize::new(0)));
        let mut enrolling = JoinSet::new();
        for _ in 0..at_once {
            let (devices, next) = (devices.clone(), next.clone());
            enrolling.spawn(async move {
                let mut connection = None;
                while let Some(request) = devices.requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut stream = match connection.take() {
                        Some(kept) => kept,
                        None => devices.connect().await?,
                    };
                    exchange(&mut stream, request).await?;
                    connection = keep.then_some(stream);
                }
                Ok::<_, Box<dyn Error + Send + Sync>>(())
            });
        }
        while let Some(ended) = enrolling.join_next().await {
            ended??;
        }
        Ok(())
    }

    async fn connect(&self) -> Outcome<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1")?;
        Ok(TlsConnector::from(self.tls.clone()).connect(name, tcp).await?)
    }
}

async fn exchange(stream: &mut TlsStream<TcpStream>, request: &str) -> Outcome<()> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err("the connection ended".into());
        }
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        if !head.starts_with("HTTP/1.1 200") {
            return Err(text.into_owned().into());
        }
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if length == Some(body.len()) {
            return Ok(());
        }
    }
}

/// What no authority can do without: for each device a request verified, a signature, a durable transaction.
pub struct Floor {
    key: Arc<SoftKey>,
    csr: Vec<u8>,
    pool: AnyPool,
    postgres: Option<u32>,
    _folder: TempDir,
}

impl Floor {
    /// With a table of its own in SQLite, or in the PostgreSQL at `database`.
    ///
    /// # Errors
    /// What the database says.
    pub async fn new(database: Option<&str>, postgres: Option<u32>) -> Outcome<Self> {
        sqlx::any::install_default_drivers();
        let folder = tempfile::tempdir()?;
        let file = format!("sqlite://{}?mode=rwc", folder.path().join("floor.db").display());
        let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;";
        // One writer, as SQLite has.
        let connections = if database.is_some() { 16 } else { 1 };
        let is_sqlite = database.is_none();
        let pool = AnyPoolOptions::new()
            .max_connections(connections)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if is_sqlite {
                        connection.execute(settings).await?;
                    }
                    Ok(())
                })
            })
            .connect(database.unwrap_or(&file))
            .await?;
        let bytes = if is_sqlite { "BLOB" } else { "BYTEA" };
        let table = format!("CREATE TABLE floor (id TEXT NOT NULL PRIMARY KEY, der {bytes} NOT NULL)");
        pool.execute(sqlx::AssertSqlSafe(table)).await?;
        let key = Arc::new(SoftKey::generate(KeyUri::soft("floor")?, Algorithm::P256)?);
        let csr = create_csr(&*key, &DistinguishedName::default(), &[], &SignContext::default())?;
        Ok(Self { key, csr, pool, postgres, _folder: folder })
    }

    /// The CPU time of this process and of the database.
    pub fn cpu_time(&self) -> Duration {
        own_cpu_time() + self.postgres.map_or(Duration::ZERO, cpu_time_of_family)
    }

    /// Does it so many times, `at_once` at the same time.
    ///
    /// # Errors
    /// What the database says.
    pub async fn run(&self, times: usize, at_once: usize) -> Outcome<()> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let left = Arc::new(AtomicUsize::new(times));
        let mut working = JoinSet::new();
        for _ in 0..at_once {
            let (key, csr, pool, left) =
                (self.key.clone(), self.csr.clone(), self.pool.clone(), left.clone());
            working.spawn(async move {
                let one_more = |left: &AtomicUsize| {
                    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                        .is_ok()
                };
                while one_more(&left) {
                    CertificationRequest::from_der(&csr)?.verify()?;
                    let scheme = key.info().algorithm.natural_scheme();
                    key.sign(scheme, Input::Message(&csr), &SignContext::default())?;
                    sqlx::query("INSERT INTO floor (id, der) VALUES ($1, $2)")
                        .bind(format!("{:032x}", NEXT.fetch_add(1, Ordering::Relaxed)))
                        .bind(csr.as_slice())
                        .execute(&pool)
                        .await?;
                }
                Ok::<_, Box<dyn Error + Send + Sync>>(())
            });
        }
        while let Some(ended) = working.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// The CPU time of a server's half of a full TLS 1.3 handshake without a client's certificate, in memory.
///
/// # Errors
/// What rustls says.
pub fn server_handshake() -> Outcome<Duration> {
    const TIMES: u32 = 200;
    let authority = tls::Authority::new().map_err(|e| e.to_string())?;
    let pair =
        aws_lc_rs::signature::EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING)?;
    let pkcs8 = pair.to_pkcs8v1()?.as_ref().to_vec();
    let spki = SoftKey::from_pkcs8(KeyUri::soft("server")?, &pkcs8)?.info().spki.clone();
    let leaf: CertificateDer<'static> = authority.server(&spki).map_err(|e| e.to_string())?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.root().clone())?;
    let mut client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    client.resumption = Resumption::disabled();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pkcs8));
    let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![leaf], key)?;
    let (client, server) = (Arc::new(client), Arc::new(server));
    let mut spent = Duration::ZERO;
    for _ in 0..TIMES {
        let name = ServerName::try_from("www.acme.internal")?;
        let mut near = ClientConnection::new(client.clone(), name)?;
        let began = thread_cpu_time();
        let mut far = ServerConnection::new(server.clone())?;
        spent += thread_cpu_time() - began;
        while near.is_handshaking() || far.is_handshaking() {
            let mut wire = Vec::new();
            while near.wants_write() {
                near.write_tls(&mut wire)?;
            }
            let began = thread_cpu_time();
            let mut rest = wire.as_slice();
            while !rest.is_empty() {
                far.read_tls(&mut rest)?;
                far.process_new_packets()?;
            }
            let mut wire = Vec::new();
            while far.wants_write() {
                far.write_tls(&mut wire)?;
            }
            spent += thread_cpu_time() - began;
            let mut rest = wire.as_slice();
            while !rest.is_empty() {
                near.read_tls(&mut rest)?;
                near.process_new_packets()?;
            }
        }
    }
    Ok(spent / TIMES)
}

/// The part of this program that serves; it is ended from outside.
pub(crate) fn play_authority(folder: &str, socket: &str) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let authority = Authority::open(Path::new(folder)).await?;
        let keystore = Arc::new(AgentKeystore::new(Path::new(socket)));
        let server = Server::bind(authority, keystore, "127.0.0.1:0").await?;
        println!("{}", server.address());
        server.run(std::future::pending()).await;
        Ok(())
    })
}

fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The CPU time of a process, of its children, and of those that it has waited for.
fn cpu_time_of_family(pid: u32) -> Duration {
    let field = |pid: &str, number: usize| -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, which comes before, may hold anything.
        stat.rsplit(')').next()?.split_whitespace().nth(number)?.parse().ok()
    };
    let own = pid.to_string();
    let waited_for: u64 = [13, 14].into_iter().filter_map(|number| field(&own, number)).sum();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let children = entries.filter_map(|entry| entry.file_name().into_string().ok()?.parse::<u32>().ok());
    let children = children.filter(|child| field(&child.to_string(), 1) == Some(pid.into()));
    let living: Duration = children.map(cpu_time_of_if_there).sum();
    cpu_time_of(pid) + living + Duration::from_millis(10 * waited_for)
}

/// Nothing of a process that has just ended: its parent counts it.
fn cpu_time_of_if_there(pid: u32) -> Duration {
    if Path::new(&format!("/proc/{pid}/task")).exists() { cpu_time_of(pid) } else { Duration::ZERO }
}
