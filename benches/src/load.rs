//! Clients that put a proxy under load, and the service behind it.

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::process::Guard;

type Outcome<T> = Result<T, Box<dyn Error>>;

pub(crate) const ECHO: &str = "play-echo";

/// Far more than anything takes here, so that a proxy that hangs ends the bench.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a short connection sends and gets back.
const GREETING: [u8; 64] = [b'.'; 64];

/// How much a bulk connection writes at once.
const PIECE: usize = 64 * 1024;

/// Whether the handshakes of short connections are full or resume a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Both ends authenticate themselves.
    Full,
    /// With the session of the connection before.
    Resumed,
}

/// Clients of one proxy: TLS 1.3, X25519, so many at once.
pub struct Clients {
    at: SocketAddr,
    identity: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
    roots: Arc<RootCertStore>,
    at_once: usize,
    runtime: Runtime,
}

impl Clients {
    /// Of the proxy at `at`.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(
        at: SocketAddr,
        identity: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
        root: &CertificateDer<'static>,
        at_once: usize,
    ) -> Outcome<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone())?;
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        Ok(Self { at, identity, roots: Arc::new(roots), at_once, runtime })
    }

    /// Makes `count` short connections, each of which carries a greeting there and back. How long
    /// each took, sorted, from the first packet to the echo.
    ///
    /// # Errors
    /// What a connection says; and that a handshake was not of that kind.
    pub fn connections(&self, kind: Kind, count: usize) -> Outcome<Vec<Duration>> {
        let each = count.div_ceil(self.at_once);
        let tasks: Vec<_> = (0..self.at_once).map(|_| self.connector(kind)).collect::<Outcome<_>>()?;
        let at = self.at;
        let mut latencies = self.runtime.block_on(async {
            let mut clients = JoinSet::new();
            for connector in tasks {
                clients.spawn(async move {
                    if kind == Kind::Resumed {
                        short(&connector, at).await?;
                    }
                    let mut latencies = Vec::with_capacity(each);
                    for _ in 0..each {
                        let (latency, was) = short(&connector, at).await?;
                        let resumed = was == Some(HandshakeKind::Resumed);
                        if resumed != (kind == Kind::Resumed) {
                            return Err(io::Error::other(format!("a handshake is {was:?}, not {kind:?}")));
                        }
                        latencies.push(latency);
                    }
                    io::Result::Ok(latencies)
                });
            }
            gather(clients).await
        })?;
        latencies.sort_unstable();
        Ok(latencies)
    }

    /// Sends `bytes` on each connection, and reads them back meanwhile.
    ///
    /// # Errors
    /// What a connection says.
    pub fn bulk(&self, bytes: usize) -> Outcome<()> {
        let connector = self.connector(Kind::Full)?;
        let at = self.at;
        self.runtime.block_on(async {
            let mut clients = JoinSet::new();
            for _ in 0..self.at_once {
                let connector = connector.clone();
                clients.spawn(async move {
                    let (mut read, mut write) = tokio::io::split(open(&connector, at).await?);
                    let send = async {
                        let piece = vec![0x5a; PIECE];
                        for _ in 0..bytes / PIECE {
                            write.write_all(&piece).await?;
                        }
                        write.flush().await
                    };
                    let receive = async {
                        let mut buffer = vec![0; PIECE];
                        for _ in 0..bytes / PIECE {
                            read.read_exact(&mut buffer).await?;
                        }
                        io::Result::Ok(())
                    };
                    tokio::try_join!(send, receive)?;
                    io::Result::Ok(Vec::<()>::new())
                });
            }
            gather(clients).await
        })?;
        Ok(())
    }

    /// Sends one byte and waits for it, `count` times, on one connection. The latencies, sorted.
    ///
    /// # Errors
    /// What the connection says.
    pub fn ping_pong(&self, count: usize) -> Outcome<Vec<Duration>> {
        let connector = self.connector(Kind::Full)?;
        // On this very thread, without a runtime's hand-over between threads.
        let mut latencies = Builder::new_current_thread().enable_all().build()?.block_on(async {
            let mut stream = open(&connector, self.at).await?;
            let mut latencies = Vec::with_capacity(count);
            for _ in 0..count {
                let began = Instant::now();
                stream.write_all(b".").await?;
                stream.read_exact(&mut [0]).await?;
                latencies.push(began.elapsed());
            }
            io::Result::Ok(latencies)
        })?;
        latencies.sort_unstable();
        Ok(latencies)
    }

    /// Opens `count` connections, each of which has carried a greeting, and keeps them.
    ///
    /// # Errors
    /// What a connection says.
    pub fn idle(&self, count: usize) -> Outcome<Vec<TlsStream<TcpStream>>> {
        let connector = self.connector(Kind::Full)?;
        let (at, each) = (self.at, count.div_ceil(self.at_once));
        Ok(self.runtime.block_on(async {
            let mut clients = JoinSet::new();
            for _ in 0..self.at_once {
                let connector = connector.clone();
                clients.spawn(async move {
                    let mut streams = Vec::with_capacity(each);
                    for _ in 0..each {
                        let mut stream = open(&connector, at).await?;
                        greet(&mut stream).await?;
                        streams.push(stream);
                    }
                    io::Result::Ok(streams)
                });
            }
            gather(clients).await
        })?)
    }

    fn connector(&self, kind: Kind) -> Outcome<TlsConnector> {
        let crypto =
            CryptoProvider { kx_groups: vec![provider::kx_group::X25519], ..provider::default_provider() };
        let (chain, key) = (self.identity.0.clone(), self.identity.1.clone_key());
        let mut config = ClientConfig::builder_with_provider(Arc::new(crypto))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(chain, key)?;
        config.resumption = match kind {
            Kind::Full => Resumption::disabled(),
            Kind::Resumed => Resumption::in_memory_sessions(32),
        };
        Ok(Arc::new(config).into())
    }
}

async fn open(connector: &TlsConnector, at: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
    timeout(PATIENCE, connector.connect(name, stream)).await?
}

async fn greet(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    stream.write_all(&GREETING).await?;
    timeout(PATIENCE, stream.read_exact(&mut [0; GREETING.len()])).await??;
    Ok(())
}

/// One short connection, to its orderly end.
async fn short(connector: &TlsConnector, at: SocketAddr) -> io::Result<(Duration, Option<HandshakeKind>)> {
    let began = Instant::now();
    let mut stream = open(connector, at).await?;
    greet(&mut stream).await?;
    let latency = began.elapsed();
    let kind = stream.get_ref().1.handshake_kind();
    stream.shutdown().await?;
    // Some proxies end with a reset.
    let _ = timeout(PATIENCE, stream.read(&mut [0])).await?;
    Ok((latency, kind))
}

async fn gather<T: 'static>(mut clients: JoinSet<io::Result<Vec<T>>>) -> io::Result<Vec<T>> {
    let mut all = Vec::new();
    while let Some(done) = clients.join_next().await {
        all.extend(done.map_err(io::Error::other)??);
    }
    Ok(all)
}

/// A service that sends back what it gets, in a process of its own.
pub struct Echo {
    /// Where it listens, on loopback.
    pub port: u16,
    _guard: Guard,
}

impl Echo {
    /// Starts it.
    ///
    /// # Errors
    /// What the system says.
    pub fn start() -> Outcome<Self> {
        let (guard, line) = Guard::of_role(Command::new(std::env::current_exe()?).arg(ECHO))?;
        Ok(Self { port: line.trim().parse()?, _guard: guard })
    }
}

/// What the other process does.
pub(crate) fn play_echo() -> Outcome<()> {
    Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{}", listener.local_addr()?.port());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(echo(stream));
        }
    })
}

/// Keeps a buffer only while there is something in it.
async fn echo(mut stream: TcpStream) -> io::Result<()> {
    loop {
        stream.readable().await?;
        let mut buffer = vec![0; PIECE];
        match stream.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => stream.write_all(&buffer[..read]).await?,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}
