//! `enclasp connect`: standard input and output over mutual TLS.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use enclasp_tls::{
    Client, ClientCertificate, ClientStream, Credential, Evidence, Options, Version, explain, server_name,
};
use enclasp_tunnel::Endpoint;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::args::Global;
use crate::failure::{Failure, Outcome};
use crate::{input, output, session};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp connect db.internal:5432 --identity laptop
  printf 'GET / HTTP/1.0\\r\\n\\r\\n' | enclasp connect localhost:8443 --identity web --cacert ca.pem -v

Standard output carries what the server sends, and nothing else. -v prints the evidence of the
handshake to standard error; with --json that is one line of JSON.")]
pub(crate) struct Connect {
    /// The server.
    #[arg(value_name = "HOST:PORT")]
    address: String,
    #[command(flatten)]
    choice: session::Choice,
    /// Present none.
    #[arg(long, conflicts_with_all = ["identity", "issuer"])]
    no_identity: bool,
    /// Roots to trust the server by [default: those that the identity came with].
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// The name that the server's certificate must have, and that it is sent [default: HOST].
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// A protocol to offer (ALPN). Repeatable, the preferred one first.
    #[arg(long, value_name = "PROTOCOL")]
    alpn: Vec<String>,
    /// Speak only this version: 1.2 or 1.3.
    #[arg(long, value_name = "VERSION")]
    tls: Option<Version>,
    /// How long the server may take to accept the connection.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = enclasp_enroll::duration::parse)]
    connect_timeout: Duration,
}

/// How long to wait, before the evidence is shown, for a TLS 1.3 server to say whether it accepts
/// our certificate. Most do so at once, by a session ticket.
const VERDICT: Duration = Duration::from_millis(500);

pub(crate) async fn run(global: &Global, connect: Connect) -> Outcome {
    let host = host(&connect.address)?;
    let name = server_name(connect.server_name.as_deref().unwrap_or(&host))?;
    let state = global.state()?;
    let wants_evidence = global.verbose > 0 || global.json;
    let identity = if connect.no_identity {
        None
    } else {
        session::client_identity(&state, &connect.choice, global.verbose > 0)?
    };
    let roots = match (&connect.cacert, &identity) {
        (Some(path), _) => input::certificate_ders(path)?,
        (None, Some(identity)) => identity.roots.clone(),
        (None, None) => Vec::new(),
    };
    if roots.is_empty() {
        return Err(Failure::new(format!("nothing says by which roots to trust {}", connect.address))
            .hint("give the CA's certificate with --cacert FILE"));
    }
    let credential = identity.as_ref().map(|identity| Credential::open(&state, identity)).transpose()?;
    let mut options = Options { alpn: connect.alpn, ..Options::default() };
    if let Some(version) = connect.tls {
        options.versions = version..=version;
    }
    let client = Client::new(&roots, credential, options)?;
    let tcp = open(&connect.address, connect.connect_timeout).await?;
    let (mut stream, evidence) = client.connect(tcp, &name, &connect.address).await?;
    if wants_evidence {
        let confirmed = client.confirm(&mut stream, &evidence, VERDICT).await;
        if global.json {
            output::note(serde_json::to_string(&evidence).map_err(Failure::new)?);
        } else {
            output::note(evidence.to_string().trim_end());
        }
        // Of a refusal too, the evidence says what was refused.
        confirmed?;
    }
    relay(stream, tokio::io::stdin(), tokio::io::stdout(), &evidence).await?;
    if let Some(identity) = identity.filter(|_| evidence.client_certificate == ClientCertificate::Sent) {
        session::used(&state, &identity);
    }
    Ok(())
}

/// The host of an address to connect to.
pub(crate) fn host(address: &str) -> Outcome<String> {
    let refuse = |reason: String| {
        Failure::usage(format!("`{address}` is not HOST:PORT: {reason}"))
            .hint("for example localhost:8443, or [::1]:8443")
    };
    match address.parse() {
        Ok(Endpoint::Tcp { host, port }) if !host.is_empty() && port != 0 => Ok(host),
        Ok(_) => Err(refuse("a server has a host and a port".into())),
        Err(enclasp_tunnel::Error::Endpoint { reason, .. }) => Err(refuse(reason)),
        Err(error) => Err(error.into()),
    }
}

/// Opens a TCP connection.
pub(crate) async fn open(address: &str, timeout: Duration) -> Outcome<TcpStream> {
    let failed = |reason: String, hint: &str| {
        Failure::new(format!("cannot connect to {address}: {reason}")).hint(hint)
    };
    match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        Err(_) => Err(failed(
            format!("no answer within {} s", timeout.as_secs()),
            "is the address right, and is there a firewall between?",
        )),
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
            Err(failed(e.to_string(), "nothing listens there; is the server running, and the port right?"))
        }
        Ok(Err(e)) => Err(failed(e.to_string(), "check the host name and the network")),
        Ok(Ok(stream)) => {
            stream.set_nodelay(true)?;
            Ok(stream)
        }
    }
}

/// Passes on both directions until the server is done. The end of our input ends our direction
/// only.
async fn relay<S>(
    stream: ClientStream<S>,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    evidence: &Evidence,
) -> Outcome
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    // Whether our direction has ended.
    let done = Cell::new(false);
    let send = async {
        // If sending fails, why is for the receiving side to say: a refusal is read, not written.
        if tokio::io::copy(&mut from, &mut writer).await.is_ok() {
            let _ = writer.shutdown().await;
            done.set(true);
        }
        std::future::pending::<Infallible>().await
    };
    let receive = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    let written = match to.write_all(&buffer[..count]).await {
                        Ok(()) => to.flush().await,
                        other => other,
                    };
                    match written {
                        Ok(()) => {}
                        // Whoever read our output has had enough.
                        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                        Err(e) => return Err(Failure::new(format!("cannot write to standard output: {e}"))),
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    let cut = format!(
                        "{} ended the connection without TLS's close_notify: what came may be cut short",
                        evidence.address
                    );
                    if !done.get() {
                        return Err(Failure::new(cut));
                    }
                    // Some servers, nginx among them, send none once they have got ours.
                    output::warn(cut);
                    return Ok(());
                }
                Err(e) => return Err(explain(e, evidence).into()),
            }
        }
    };
    tokio::select! {
        outcome = receive => outcome,
        never = send => match never {},
    }
}
