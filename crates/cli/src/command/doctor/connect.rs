//! `enclasp doctor connect`: what a server asks for, and why it refuses.

use std::io::{self, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use enclasp_doctor::scan::{Offer, scan};
use enclasp_doctor::wire::{Side, version};
use enclasp_doctor::{
    Context, Evidence, Observation, Recording, Report, capture, diagnose, observe, only_old_versions,
};
use enclasp_identity::{Criteria, Identity, State, select};
use enclasp_pki::{Certificate, DistinguishedName, Purpose};
use enclasp_tls::{Credential, Options, Signing, Version, observing, observing_client, server_name};
use rustls::ClientConnection;
use rustls_pki_types::CertificateDer;

use super::starttls::{self, StartTls};
use super::tee::{Secrets, Tee};
use super::{Shown, conclude_all};
use crate::args::Global;
use crate::command::connect::{host, open};
use crate::failure::{Failure, Outcome};
use crate::{input, output, session};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp doctor connect db.internal:5432 --identity laptop --starttls postgres
  enclasp doctor connect www.example:443 --no-identity --scan

It completes the handshake whatever the server's certificate is, says what is wrong with it, sends
nothing, and waits for a TLS 1.3 server to refuse.")]
pub(crate) struct Connect {
    /// The server.
    #[arg(value_name = "HOST:PORT")]
    address: String,
    #[command(flatten)]
    choice: session::Choice,
    #[command(flatten)]
    way: Way,
    /// Roots that the server's certificate has to lead to [default: those of the identity].
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Present none.
    #[arg(long, conflicts_with_all = ["identity", "issuer"])]
    no_identity: bool,
    /// List the versions, suites, groups and schemes that the server takes: some dozens of connections.
    #[arg(long)]
    scan: bool,
    /// Write the connection, with its secrets, to a capture file.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Write a report for people, in HTML.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// How a server is reached.
#[derive(clap::Args)]
pub(super) struct Way {
    /// The name to ask for [default: HOST].
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// A protocol to offer (ALPN). Repeatable.
    #[arg(long, value_name = "PROTOCOL")]
    alpn: Vec<String>,
    /// Speak only this version: 1.2 or 1.3.
    #[arg(long, value_name = "VERSION")]
    pub(super) tls: Option<Version>,
    /// Ask for TLS first, as this protocol does.
    #[arg(long, value_name = "PROTOCOL")]
    starttls: Option<StartTls>,
    /// How long the server may take to accept the connection, and to answer.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = enclasp_enroll::duration::parse)]
    connect_timeout: Duration,
}

/// How long a server that said nothing more after the handshake is waited for: a TLS 1.3 server
/// refuses only then.
const VERDICT: Duration = Duration::from_millis(1500);

pub(crate) async fn run(global: &Global, connect: Connect) -> Outcome {
    let state = global.state()?;
    let identity = if connect.no_identity {
        None
    } else {
        session::client_identity(&state, &connect.choice, global.verbose > 0)?
    };
    let caller = Caller {
        as_whom: identity
            .as_ref()
            .map_or_else(|| "as nobody".into(), |identity| format!("as `{}`", identity.name)),
        credential: identity.as_ref().map(|identity| Credential::open(&state, identity)).transpose()?,
        server_roots: Some(match (&connect.cacert, &identity) {
            (Some(path), _) => input::certificates(path)?,
            (None, Some(identity)) => parsed(&identity.roots)?,
            (None, None) => Vec::new(),
        }),
    };
    let attempt = connect.way.attempt(&connect.address, &caller, connect.way.tls).await?;
    if let Some(path) = &connect.record {
        output::file(path, capture::pcapng(&attempt.recording))?;
    }
    let Attempt { seen, mut report, .. } = attempt;
    if seen.server_hello.is_none() && seen.retry.is_none() && seen.server.stranger.is_none() {
        report = connect.way.with_old_versions(&connect.address, report, &seen).await;
    }
    report.evidence.extend(identities_that_fit(&state, &seen)?);
    if connect.scan {
        report.evidence.extend(connect.way.scan(&connect.address).await?);
    }
    conclude_all(global, &[Shown { report, events: seen.events }], connect.html.as_deref())
}

fn parsed(ders: &[CertificateDer<'_>]) -> Outcome<Vec<Certificate>> {
    Ok(ders.iter().map(|der| Certificate::from_der(der)).collect::<Result<_, _>>()?)
}

/// Who connects.
pub(super) struct Caller {
    /// ``as `laptop` ``.
    pub(super) as_whom: String,
    /// What is presented to a server that asks.
    pub(super) credential: Option<Credential>,
    /// What the server's certificate has to lead to; `None` if nothing is to be said about it.
    pub(super) server_roots: Option<Vec<Certificate>>,
}

/// One connection that was tried.
pub(super) struct Attempt {
    pub(super) recording: Recording,
    pub(super) seen: Observation,
    pub(super) report: Report,
}

impl Way {
    /// The same without what is only about the server that was named.
    pub(super) fn to_another(&self) -> Self {
        let Self { tls, connect_timeout, .. } = *self;
        Self { tls, connect_timeout, server_name: None, alpn: Vec::new(), starttls: None }
    }

    /// Connects once, and says what came of it. `version` alone is spoken, if one is given.
    pub(super) async fn attempt(
        &self,
        address: &str,
        caller: &Caller,
        version: Option<Version>,
    ) -> Outcome<Attempt> {
        let asked = self.server_name.clone().map_or_else(|| host(address), Ok)?;
        let name = server_name(&asked)?;
        let credential = caller.credential.as_ref();
        let mut options = Options { alpn: self.alpn.clone(), ..Options::default() };
        if let Some(version) = version {
            options.versions = version..=version;
        }
        let secrets = Arc::new(Secrets::default());
        let config = observing_client(credential.cloned(), &options, secrets.clone())?;
        let connection = ClientConnection::new(Arc::new(config), name).map_err(Failure::new)?;
        let mut tee = Tee::new(self.reach(address).await?, Side::Client, self.connect_timeout)?;
        let (_, signing) = tokio::task::block_in_place(|| {
            // What goes wrong is in the recording.
            observing(address, credential, &options, || converse(connection, &mut tee).is_ok())
        });
        tee.recording.secrets = secrets.told();
        let seen = observe(&tee.recording);
        let mut context = Context::at(SystemTime::now());
        context.server_name = Some(asked);
        context.spare_server = caller.server_roots.is_none();
        context.server_roots = caller.server_roots.clone().unwrap_or_default();
        context.own_schemes =
            credential.map(|own| own.schemes().iter().map(|scheme| scheme.code_point()).collect());
        let Signing { signatures, failure } = signing;
        if let Some(enclasp_tls::Error::Key(error)) = failure {
            context.own_failure = Some(error);
        }
        let mut report = diagnose(format!("{address} {}", caller.as_whom), &seen, &context);
        for signature in signatures {
            let key = signature.key.unwrap_or_default();
            let took = signature.elapsed_us.unwrap_or_default();
            let verified =
                if signature.verified { "verified before it left" } else { "vouched for by its keystore" };
            let text = format!(
                "{key} signed with {} ({}) in {took} µs, {verified}",
                signature.scheme, signature.code_point
            );
            report.evidence.push(Evidence::new("keystore", text));
        }
        Ok(Attempt { recording: tee.recording, seen, report })
    }

    /// Opens the connection, and asks for TLS if that is needed.
    async fn reach(&self, address: &str) -> Outcome<TcpStream> {
        let mut stream = open(address, self.connect_timeout).await?.into_std()?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(self.connect_timeout))?;
        if let Some(protocol) = self.starttls {
            tokio::task::block_in_place(|| starttls::start(protocol, &mut stream))?;
        }
        Ok(stream)
    }

    /// Asks a server that chose nothing for each version alone: it may speak only old ones.
    async fn with_old_versions(&self, address: &str, report: Report, seen: &Observation) -> Report {
        let Some(hello) = seen.client_hellos.first() else { return report };
        let mut spoken = Vec::new();
        for version in [version::TLS12, version::TLS11, version::TLS10] {
            let Ok(stream) = self.reach(address).await else { break };
            let offer = Offer::everything(version);
            let name = hello.server_name.as_deref();
            let answer = tokio::task::block_in_place(|| ask(stream, &offer, name, self.connect_timeout));
            if answer.is_some_and(|seen| seen.version() == Some(version)) {
                spoken.push(version);
            }
        }
        let Report { examined, mut findings, evidence } = report;
        findings.extend(only_old_versions(&hello.versions, &spoken));
        Report::new(examined, findings, evidence)
    }

    async fn scan(&self, address: &str) -> Outcome<Vec<Evidence>> {
        let name = self.server_name.clone().map_or_else(|| host(address), Ok)?;
        // An address is no server name (RFC 6066 §3).
        let name =
            Some(name).filter(|name| name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_err());
        // The first connection's failure is the command's.
        drop(self.reach(address).await?);
        let runtime = tokio::runtime::Handle::current();
        let taken = tokio::task::block_in_place(|| {
            scan(|offer| {
                let stream = runtime.block_on(self.reach(address)).ok()?;
                ask(stream, offer, name.as_deref(), self.connect_timeout)
            })
        });
        Ok(taken.evidence())
    }
}

/// Sends one ClientHello and takes what comes until the server waits.
fn ask(stream: TcpStream, offer: &Offer, name: Option<&str>, patience: Duration) -> Option<Observation> {
    let mut tee = Tee::new(stream, Side::Client, patience).ok()?;
    tee.write_all(&offer.to_record(name)).ok()?;
    let mut buffer = [0; 8192];
    loop {
        let seen = observe(&tee.recording);
        let chose = seen.retry.is_some()
            || seen.server_hello.as_ref().is_some_and(|hello| hello.group.is_some())
            || seen.events.iter().any(|event| event.what == "ServerHelloDone");
        if chose || !seen.alerts.is_empty() || seen.server.stranger.is_some() || !seen.malformed.is_empty() {
            return Some(seen);
        }
        match io::Read::read(&mut tee, &mut buffer) {
            Ok(count) if count > 0 => {}
            _ => return Some(observe(&tee.recording)),
        }
    }
}

/// The handshake, and the wait for a refusal after it.
fn converse(mut connection: ClientConnection, tee: &mut Tee) -> io::Result<()> {
    let mut patient = true;
    loop {
        while connection.wants_write() {
            connection.write_tls(tee)?;
        }
        if !connection.is_handshaking() && patient {
            patient = false;
            tee.stream.set_read_timeout(Some(VERDICT))?;
        }
        match connection.read_tls(tee) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if connection.is_handshaking() {
                    tee.give_up();
                    return Ok(());
                }
                break;
            }
            Err(error) => return Err(error),
        }
        match connection.process_new_packets() {
            Ok(progress) if progress.peer_has_closed() => break,
            Ok(progress) => {
                // What the server says first is of no interest.
                let mut plain = vec![0; progress.plaintext_bytes_to_read()];
                io::Read::read_exact(&mut connection.reader(), &mut plain)?;
            }
            Err(_) => break,
        }
    }
    connection.send_close_notify();
    while connection.wants_write() {
        connection.write_tls(tee)?;
    }
    tee.close();
    tee.stream.shutdown(std::net::Shutdown::Write)
}

/// Which of the identities here the server would take, and why not the others.
fn identities_that_fit(state: &State, seen: &Observation) -> Outcome<Vec<Evidence>> {
    let Some(request) = &seen.request else { return Ok(Vec::new()) };
    let identities: Vec<Identity> = state.identities()?.list()?.into_iter().filter_map(Result::ok).collect();
    let issuers =
        request.authorities.iter().filter_map(|der| DistinguishedName::from_der(der).ok()).collect();
    let criteria = Criteria { purpose: Purpose::Client, issuers, now: SystemTime::now() };
    let selection = select(&identities, &criteria);
    let lines = selection.candidates.iter().zip(&identities).map(|(candidate, identity)| {
        let algorithm = identity.leaf().ok().and_then(|leaf| leaf.algorithm().ok());
        let signs = algorithm.is_none_or(|algorithm| {
            request.schemes.is_empty()
                || algorithm.schemes().iter().any(|scheme| request.schemes.contains(&scheme.code_point()))
        });
        let verdict = match &candidate.verdict {
            Err(reason) => format!("does not fit: {reason}"),
            Ok(_) if !signs => "does not fit: the server takes no scheme of its key's type".into(),
            Ok(until) => format!("fits, until {}", enclasp_pki::rfc3339(*until)),
        };
        Evidence::new(format!("identity `{}`", candidate.name), verdict)
    });
    Ok(lines.collect())
}
