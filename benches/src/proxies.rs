//! The proxies that are compared: each started with the same certificates before the same service.

use std::error::Error;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use enclasp_pki::{CertificationRequest, pem};
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio_rustls::TlsAcceptor;

use crate::measure::cpu_time_of;
use crate::tls::Authority;

type Outcome<T> = Result<T, Box<dyn Error>>;

pub(crate) const PLAIN: &str = "play-plain";

/// How long a proxy may take to begin or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many connections a proxy may have, two descriptors each, by the limit of this process.
pub fn max_connections() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(65_536);
    usize::try_from(descriptors / 2).unwrap_or(usize::MAX).saturating_sub(200)
}

/// Certificates and keys for both sides, in files and in memory.
pub struct Material {
    authority: Authority,
    folder: TempDir,
    /// What the load authenticates itself with.
    pub client: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
}

impl Material {
    /// Makes them: P-256, one root, no intermediates.
    ///
    /// # Errors
    /// What the making says.
    pub fn new() -> Outcome<Self> {
        let authority = Authority::new()?;
        let folder = tempfile::tempdir()?;
        let (server_key, spki) = key()?;
        let (client_key, client_spki) = key()?;
        let server = pem::encode("CERTIFICATE", &authority.local_server(&spki)?);
        let server_key = pem::encode("PRIVATE KEY", &server_key);
        fs::write(folder.path().join("server.pem"), &server)?;
        fs::write(folder.path().join("server.key"), &server_key)?;
        // HAProxy wants both in one file.
        fs::write(folder.path().join("both.pem"), server + &server_key)?;
        fs::write(folder.path().join("ca.pem"), pem::encode("CERTIFICATE", authority.root()))?;
        let client = (vec![authority.client(&client_spki)?], PrivatePkcs8KeyDer::from(client_key).into());
        Ok(Self { authority, folder, client })
    }

    /// The root.
    pub fn root(&self) -> &CertificateDer<'static> {
        self.authority.root()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: String) -> Outcome<PathBuf> {
        fs::write(self.path(name), text)?;
        Ok(self.path(name))
    }
}

/// PKCS #8 and SubjectPublicKeyInfo of a new key.
fn key() -> Outcome<(Vec<u8>, Vec<u8>)> {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::signature::KeyPair;
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
    let spki: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
    Ok((pair.to_pkcs8v1()?.as_ref().to_vec(), spki.as_ref().to_vec()))
}

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Ours, with a key file.
    Enclasp,
    /// Ours, with a key in the agent.
    EnclaspAgent,
    /// tokio-rustls and `copy_bidirectional`: what one writes in an afternoon.
    Plain,
    /// The program that `GHOSTUNNEL` names.
    Ghostunnel,
    /// Debian's.
    Haproxy,
    /// Debian's, its module `stream`.
    Nginx,
    /// Debian's.
    Stunnel,
}

impl Product {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Enclasp,
        Self::EnclaspAgent,
        Self::Plain,
        Self::Ghostunnel,
        Self::Haproxy,
        Self::Nginx,
        Self::Stunnel,
    ];

    /// What it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enclasp => "enclasp server, key file",
            Self::EnclaspAgent => "enclasp server, key in the agent",
            Self::Plain => "plain tokio-rustls",
            Self::Ghostunnel => "ghostunnel",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx stream",
            Self::Stunnel => "stunnel",
        }
    }

    /// What is missing to start it, if anything is.
    pub fn missing(self) -> Option<&'static str> {
        let (files, advice): (&[&str], _) = match self {
            Self::Enclasp | Self::EnclaspAgent | Self::Plain => (&[], ""),
            Self::Ghostunnel => {
                return std::env::var_os("GHOSTUNNEL").is_none().then_some("set GHOSTUNNEL to its binary");
            }
            Self::Haproxy => (&[HAPROXY], "apt-get install haproxy"),
            Self::Nginx => (&[NGINX, NGINX_STREAM], "apt-get install nginx libnginx-mod-stream"),
            Self::Stunnel => (&[STUNNEL], "apt-get install stunnel4"),
        };
        files.iter().any(|file| !Path::new(file).exists()).then_some(advice)
    }
}

const HAPROXY: &str = "/usr/sbin/haproxy";
const NGINX: &str = "/usr/sbin/nginx";
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
const STUNNEL: &str = "/usr/bin/stunnel";

/// A proxy that runs, and ends with this value.
pub struct Proxy {
    /// Where it listens.
    pub at: SocketAddr,
    child: Child,
    /// The agent that signs for it, and the folder of its state.
    agent: Option<(u32, TempDir)>,
}

impl Proxy {
    /// Starts `product` in front of the service at `target` on loopback. `enclasp` is our program.
    ///
    /// # Errors
    /// What the system says, or that it did not begin to listen.
    pub fn start(product: Product, material: &Material, target: u16, enclasp: &Path) -> Outcome<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let (ca, cert, key) =
            (material.path("ca.pem"), material.path("server.pem"), material.path("server.key"));
        let endpoints = [format!("--listen=127.0.0.1:{port}"), format!("--target=127.0.0.1:{target}")];
        let mut agent = None;
        let mut command = match product {
            Product::Enclasp | Product::EnclaspAgent => {
                let mut command = Command::new(enclasp);
                command.arg("server").args(&endpoints).args(["--allow-all", "--cacert"]).arg(&ca);
                command.env("ENCLASP_LOG", "off");
                if product == Product::Enclasp {
                    command.arg("--cert").arg(&cert).arg("--key").arg(&key);
                } else {
                    let started = start_agent(material, enclasp)?;
                    command.args(["--identity", "bench", "--state"]).arg(started.1.path());
                    agent = Some(started);
                }
                command
            }
            Product::Plain => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args([PLAIN, &port.to_string(), &target.to_string()]).args([&ca, &cert, &key]);
                command
            }
            Product::Ghostunnel => {
                let mut command =
                    Command::new(std::env::var_os("GHOSTUNNEL").ok_or("GHOSTUNNEL is not set")?);
                command
                    .arg("server")
                    .args(&endpoints)
                    .args(["--allow-all", "--quiet=all", "--cacert"])
                    .arg(&ca);
                command.arg("--cert").arg(&cert).arg("--key").arg(&key);
                command
            }
            Product::Haproxy => {
                let mut command = Command::new(HAPROXY);
                command.args(["-db", "-f"]).arg(haproxy(material, port, target)?);
                command
            }
            Product::Nginx => {
                let mut command = Command::new(NGINX);
                command.arg("-c").arg(nginx(material, port, target)?);
                command
            }
            Product::Stunnel => {
                let mut command = Command::new(STUNNEL);
                command.arg(stunnel(material, port, target)?);
                command
            }
        };
        let log = fs::File::create(material.path(&format!("{product:?}.log")))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let proxy = Self { at, child, agent };
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(at).is_err() {
            if Instant::now() > until {
                let log = fs::read_to_string(material.path(&format!("{product:?}.log")))?;
                return Err(format!("{} does not listen: {log}", product.name()).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(proxy)
    }

    /// The CPU time that it has taken, its agent's included.
    pub fn cpu_time(&self) -> Duration {
        let agent = self.agent.as_ref().map(|(pid, _)| *pid);
        self.processes().chain(agent).map(cpu_time_of).sum()
    }

    /// The memory that it holds, in bytes; pages that processes share are shared out among them.
    pub fn memory(&self) -> u64 {
        let of = |pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
            line.split_whitespace().next().and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or(0)
        };
        1024 * self.processes().map(of).sum::<u64>()
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        let of = |pid| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        self.processes().map(of).sum()
    }

    /// It and its children.
    fn processes(&self) -> impl Iterator<Item = u32> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children: Vec<u32> = children.split_whitespace().filter_map(|child| child.parse().ok()).collect();
        std::iter::once(pid).chain(children)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let until = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(agent) = self.agent.as_ref().and_then(|(pid, _)| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(agent, Signal::TERM);
        }
    }
}

/// An agent with the identity `bench`, and where its state is.
fn start_agent(material: &Material, enclasp: &Path) -> Outcome<(u32, TempDir)> {
    let folder = tempfile::tempdir()?;
    let run = |line: &str| -> Outcome<Vec<u8>> {
        let mut command = Command::new(enclasp);
        command.args(line.split(' ')).arg("--state").arg(folder.path()).current_dir(folder.path());
        let done = command.output()?;
        match done.status.success() {
            true => Ok(done.stdout),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned().into()),
        }
    };
    run("key create soft:name=bench")?;
    run("csr create --key soft:name=bench --subject CN=bench --out request")?;
    let request = CertificationRequest::from_pem_or_der(&fs::read(folder.path().join("request"))?)?;
    let leaf = pem::encode("CERTIFICATE", &material.authority.local_server(request.spki())?);
    fs::write(folder.path().join("leaf"), leaf)?;
    fs::copy(material.path("ca.pem"), folder.path().join("ca"))?;
    run("identity import --name bench --cert leaf --cacert ca")?;
    let status: serde_json::Value = serde_json::from_slice(&run("agent --status --json")?)?;
    let status = status.get(0).unwrap_or(&status);
    let pid = status["pid"].as_u64().ok_or_else(|| format!("the agent's status has no pid: {status}"))?;
    Ok((u32::try_from(pid)?, folder))
}

fn haproxy(material: &Material, port: u16, target: u16) -> Outcome<PathBuf> {
    let (both, ca) = (material.path("both.pem"), material.path("ca.pem"));
    let (both, ca, connections) = (both.display(), ca.display(), max_connections());
    material.write(
        "haproxy.cfg",
        format!(
            "global\n  maxconn {connections}\n\
             defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 10m\n  timeout server 10m\n\
             listen tunnel\n  bind 127.0.0.1:{port} ssl crt {both} ca-file {ca} verify required \
             ssl-min-ver TLSv1.3 curves X25519\n  server service 127.0.0.1:{target}\n"
        ),
    )
}

fn nginx(material: &Material, port: u16, target: u16) -> Outcome<PathBuf> {
    // A worker counts both ends.
    let (folder, connections) = (material.folder.path().display(), 2 * max_connections() + 100);
    material.write(
        "nginx.conf",
        format!(
            "load_module {NGINX_STREAM};\ndaemon off;\nworker_processes auto;\npid {folder}/nginx.pid;\n\
             error_log {folder}/nginx.log crit;\nuser root;\n\
             events {{ worker_connections {connections}; }}\n\
             stream {{\n  server {{\n    listen 127.0.0.1:{port} ssl;\n    proxy_pass 127.0.0.1:{target};\n\
             ssl_certificate {folder}/server.pem;\n    ssl_certificate_key {folder}/server.key;\n\
             ssl_client_certificate {folder}/ca.pem;\n    ssl_verify_client on;\n    ssl_protocols TLSv1.3;\n\
             ssl_ecdh_curve X25519;\n    ssl_session_cache shared:sessions:10m;\n  }}\n}}\n"
        ),
    )
}

fn stunnel(material: &Material, port: u16, target: u16) -> Outcome<PathBuf> {
    let folder = material.folder.path().display();
    material.write(
        "stunnel.conf",
        format!(
            "foreground = yes\npid =\ndebug = err\n[tunnel]\naccept = 127.0.0.1:{port}\n\
             connect = 127.0.0.1:{target}\ncert = {folder}/server.pem\nkey = {folder}/server.key\n\
             CAfile = {folder}/ca.pem\nverifyChain = yes\nrequireCert = yes\nsslVersionMin = TLSv1.3\n\
             curves = X25519\n"
        ),
    )
}

/// What the plain proxy does.
pub(crate) fn play_plain(arguments: &[&str]) -> Outcome<()> {
    let [port, target, ca, cert, key] = *arguments else { return Err("five arguments".into()) };
    let (port, target): (u16, u16) = (port.parse()?, target.parse()?);
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto.clone()).build()?;
    let config = ServerConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![CertificateDer::from_pem_file(cert)?], PrivateKeyDer::from_pem_file(key)?)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut tls = acceptor.accept(stream).await?;
                let mut plain = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await?;
                plain.set_nodelay(true)?;
                copy_bidirectional(&mut tls, &mut plain).await?;
                io::Result::Ok(())
            });
        }
    })
}
