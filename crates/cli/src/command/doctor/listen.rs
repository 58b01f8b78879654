//! `enclasp doctor listen`: a server to point any client at.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use enclasp_doctor::old_server::{Presented, farewell, first_flight};
use enclasp_doctor::wire::{ClientHello, Side, Version, version};
use enclasp_doctor::{Context, Recording, Report, capture, diagnose, observe};
use enclasp_pki::Certificate;
use enclasp_tls::{Credential, Options, observing_server};
use rustls::{DistinguishedName, ServerConfig, ServerConnection};

use super::authority::{Authority, OwnKey};
use super::tee::{Secrets, Tee};
use super::{Shown, write_html};
use crate::args::Global;
use crate::failure::{Failure, Outcome};
use crate::{input, output};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp doctor listen                            on every address, port 8443, with a certificate of its own
  enclasp doctor listen --listen 127.0.0.1:0 --count 1 --json
  enclasp doctor listen --cacert ca.pem            client certificates have to lead to that root
  enclasp doctor listen --identity web             as an identity of yours

It accepts every client, says what it presented and signed, and answers HTTP with its verdict. Trust
its root only while you diagnose, on the device that you diagnose.")]
pub(crate) struct Listen {
    /// Where to listen; port 0 picks a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Present an identity of yours instead of the doctor's own certificate.
    #[arg(long, value_name = "NAME", conflicts_with = "cert")]
    identity: Option<String>,
    /// Present this certificate chain, PEM.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key, PKCS#8 in PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Roots that client certificates have to lead to.
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Name those roots to the clients, which then hide certificates of others.
    #[arg(long, requires = "cacert")]
    name_roots: bool,
    /// Speak only this version: 1.0, 1.1, 1.2 or 1.3.
    #[arg(long, value_name = "VERSION", value_parser = tls_version)]
    tls: Option<Version>,
    /// End after so many connections.
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// A name to put into the certificate besides this machine's. Repeatable.
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// Write each connection, with its secrets, to a file in this folder: connection-1.pcapng.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Write a report for people, in HTML, after each connection.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

fn tls_version(text: &str) -> Result<Version, String> {
    match text {
        "1.0" => Ok(version::TLS10),
        "1.1" => Ok(version::TLS11),
        "1.2" => Ok(version::TLS12),
        "1.3" => Ok(version::TLS13),
        _ => Err(format!("`{text}` is not one of 1.0, 1.1, 1.2, 1.3")),
    }
}

/// How long a client may say nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a client that completed its handshake may say nothing before we say goodbye.
const SILENCE: Duration = Duration::from_secs(2);

/// So many connections are served at once; the next one waits.
const MAX_AT_ONCE: usize = 64;

/// What all connections share.
struct Stand {
    keys: Vec<OwnKey>,
    credentials: Vec<Credential>,
    only: Option<Version>,
    authorities: Vec<Vec<u8>>,
    own_server: bool,
    client_roots: Vec<Certificate>,
    record: Option<PathBuf>,
}

impl Stand {
    /// Those that are spoken.
    fn versions(&self) -> Vec<Version> {
        match self.only {
            Some(only) => vec![only],
            None => vec![version::TLS10, version::TLS11, version::TLS12, version::TLS13],
        }
    }
}

pub(crate) fn run(global: &Global, listen: Listen) -> Outcome {
    let listener = TcpListener::bind(listen.listen)
        .map_err(|e| Failure::new(format!("cannot listen on {}: {e}", listen.listen)))?;
    let at = listener.local_addr()?;
    let stand = Arc::new(set_up(global, &listen, at)?);
    output::note(format_args!("listening on {at}"));
    let (results, printed) = mpsc::channel();
    let count = listen.count.unwrap_or(usize::MAX);
    thread::spawn(move || accept(&listener, &stand, count, &results));
    let mut shown: Vec<Shown> = Vec::new();
    let mut verdict = None;
    for connection in printed {
        if global.json {
            output::line(serde_json::to_string(&connection).map_err(Failure::new)?)?;
        } else {
            output::raw(format!("{}\n", connection.report).as_bytes())?;
        }
        verdict = verdict.or_else(|| connection.report.verdict().map(|finding| finding.code));
        if let Some(path) = &listen.html {
            shown.push(connection);
            write_html(&shown, path)?;
        }
    }
    match verdict {
        None => Ok(()),
        Some(code) => {
            Err(Failure::new(format!("{code}: {}", code.summary)).hint(format!("{} says more", code.page())))
        }
    }
}

fn set_up(global: &Global, listen: &Listen, at: SocketAddr) -> Outcome<Stand> {
    let state = global.state()?;
    let client_roots = match &listen.cacert {
        Some(path) => input::certificates(path)?,
        None => Vec::new(),
    };
    let mut authorities = Vec::new();
    if listen.name_roots {
        for root in &client_roots {
            authorities.push(root.subject().to_der()?);
        }
    }
    let (mut keys, mut credentials) = (Vec::new(), Vec::new());
    if let Some(name) = &listen.identity {
        credentials.push(Credential::open(&state, &state.identities()?.get(name)?)?);
    } else if let (Some(cert), Some(key)) = (&listen.cert, &listen.key) {
        let text = String::from_utf8_lossy(&input::file(key)?).into_owned();
        let uri = enclasp_keystore::KeyUri::soft("file")?;
        let key = enclasp_keystore::soft::SoftKey::from_pem(uri, &text)?;
        credentials.push(Credential::new(input::certificate_ders(cert)?, Arc::new(key))?);
    } else {
        let authority = Authority::open(&state)?;
        let addresses = addresses(at);
        let mut names = vec!["localhost".to_owned()];
        names.extend(rustix::system::uname().nodename().to_str().ok().map(str::to_owned));
        names.extend(listen.name.iter().cloned());
        names.dedup();
        keys = authority.server_keys(&names, &addresses)?;
        credentials = keys.iter().map(OwnKey::credential).collect::<Outcome<_>>()?;
        introduce(&authority, &names, &addresses, at.port());
    }
    if let Some(folder) = &listen.record {
        std::fs::create_dir_all(folder)
            .map_err(|e| Failure::new(format!("cannot make {}: {e}", folder.display())))?;
    }
    Ok(Stand {
        own_server: !keys.is_empty(),
        keys,
        credentials,
        only: listen.tls,
        authorities,
        client_roots,
        record: listen.record.clone(),
    })
}

/// Starts a server of the doctor's own on this machine, which accepts every client as long as this process runs.
/// Returns its port.
pub(super) fn stand_in(authority: &Authority) -> Outcome<u16> {
    let keys = authority.server_keys(&["localhost".to_owned()], &[])?;
    let credentials = keys.iter().map(OwnKey::credential).collect::<Outcome<_>>()?;
    let stand = Arc::new(Stand {
        own_server: true,
        keys,
        credentials,
        only: None,
        authorities: Vec::new(),
        client_roots: Vec::new(),
        record: None,
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    // What it sees, the client's end sees too.
    let (results, _) = mpsc::channel();
    thread::spawn(move || accept(&listener, &stand, usize::MAX, &results));
    Ok(port)
}

/// The addresses that a client can reach us at.
fn addresses(at: SocketAddr) -> Vec<IpAddr> {
    if !at.ip().is_unspecified() {
        return vec![at.ip()];
    }
    let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .map(|interface| interface.ip())
        .filter(|address| address.is_ipv4() || at.is_ipv6())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Says how clients come to trust the doctor's certificate.
fn introduce(authority: &Authority, names: &[String], addresses: &[IpAddr], port: u16) {
    let root = authority.root_file();
    let (root, profile) = (root.display(), authority.profile_file());
    output::note("point the client at:");
    for host in names.iter().cloned().chain(addresses.iter().map(|a| SocketAddr::new(*a, 0).to_string())) {
        output::note(format_args!("  https://{}:{port}/", host.trim_end_matches(":0")));
    }
    output::note(format_args!(
        "the root that it has to trust, until {}:",
        output::time(authority.root.not_after())
    ));
    output::note(format_args!("  SHA-256  {}", authority.root.fingerprint_hex()));
    output::note(format_args!(
        "  curl     curl --cacert {root} --cert client.pem --key client.key https://localhost:{port}/"
    ));
    output::note(format_args!(
        "  Java     keytool -importcert -noprompt -alias enclasp-doctor -file {root} -keystore trust.p12 -storetype PKCS12"
    ));
    output::note(format_args!(
        "  iOS      send {} to the device, install it, and trust it: Settings, General, About, Certificate Trust Settings",
        profile.display()
    ));
    output::note("remove it from there when you are done");
}

fn accept(listener: &TcpListener, stand: &Arc<Stand>, count: usize, results: &mpsc::Sender<Shown>) {
    let active = Arc::new(AtomicUsize::new(0));
    for number in 1..=count {
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                // Out of descriptors, or the client has gone already.
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        };
        let (stand, results, busy) = (stand.clone(), results.clone(), active.clone());
        let serve = move || {
            if let Some(shown) = serve(&stand, stream, number) {
                // Who printed may have gone.
                let _ = results.send(shown);
            }
            busy.fetch_sub(1, Ordering::Relaxed);
        };
        if active.fetch_add(1, Ordering::Relaxed) < MAX_AT_ONCE {
            thread::spawn(serve);
        } else {
            serve();
        }
    }
}

/// Serves one connection and says what came of it. `None` if the client had gone before it began.
fn serve(stand: &Stand, stream: TcpStream, number: usize) -> Option<Shown> {
    let mut tee = Tee::new(stream, Side::Server, PATIENCE).ok()?;
    let examined = format!("connection {number} from {}", tee.recording.client);
    let mut context = Context {
        certificate_wanted: true,
        spare_server: stand.own_server,
        client_roots: stand.client_roots.clone(),
        ..Context::at(SystemTime::now())
    };
    if let Some((hello, first)) = first_message(&mut tee) {
        match flight(stand, &hello) {
            Flight::Modern(options) => modern(stand, &options, &mut tee, &first, |recording| {
                diagnose(&examined, &observe(recording), &context)
            }),
            Flight::Old(bytes) => {
                context.stops_early = true;
                old(&mut tee, &bytes);
            }
            Flight::None => refuse(&mut tee, &stand.versions()),
        }
    }
    tee.close();
    if let Some(folder) = &stand.record {
        let path = folder.join(format!("connection-{number}.pcapng"));
        if let Err(error) = std::fs::write(&path, capture::pcapng(&tee.recording)) {
            output::warn(format_args!("cannot write {}: {error}", path.display()));
        }
    }
    let seen = observe(&tee.recording);
    Some(Shown { report: diagnose(&examined, &seen, &context), events: seen.events })
}

/// Reads up to the whole ClientHello. `None` if none came.
fn first_message(tee: &mut Tee) -> Option<(ClientHello, Vec<u8>)> {
    let mut first = Vec::new();
    let mut buffer = [0; 4096];
    // Larger than any ClientHello, and than what a program of another protocol says first.
    while first.len() < 64 * 1024 {
        let seen = observe(&tee.recording);
        if let Some(hello) = seen.client_hellos.into_iter().next() {
            return Some((hello, first));
        }
        if seen.client.stranger.is_some() || !seen.malformed.is_empty() || !seen.alerts.is_empty() {
            break;
        }
        match tee.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => first.extend_from_slice(buffer.get(..count)?),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                tee.give_up();
                break;
            }
        }
    }
    None
}

/// Which server answers a client.
enum Flight {
    Modern(Options),
    Old(Vec<u8>),
    None,
}

fn flight(stand: &Stand, hello: &ClientHello) -> Flight {
    let allowed =
        |wanted: Version| stand.only.is_none_or(|only| only == wanted) && hello.versions.contains(&wanted);
    let tls12 = allowed(version::TLS12) && hello.suites.iter().any(|suite| MODERN_TLS12.contains(suite));
    let tls13 = allowed(version::TLS13) && hello.suites.iter().any(|suite| (0x1301..=0x1303).contains(suite));
    let versions = match (tls12, tls13) {
        (true, true) => Some(enclasp_tls::Version::Tls12..=enclasp_tls::Version::Tls13),
        (true, false) => Some(enclasp_tls::Version::Tls12..=enclasp_tls::Version::Tls12),
        (false, true) => Some(enclasp_tls::Version::Tls13..=enclasp_tls::Version::Tls13),
        (false, false) => None,
    };
    if let Some(versions) = versions {
        return Flight::Modern(Options { versions, ..Options::default() });
    }
    let versions = stand.versions();
    if !hello.versions.iter().any(|offered| versions.contains(offered)) {
        return Flight::None;
    }
    // It uses no key of the user's.
    let presented: Vec<Presented<'_>> =
        stand.keys.iter().map(|key| Presented { chain: &key.chain, key: &*key.key }).collect();
    let highest = stand.only.unwrap_or(version::TLS12);
    match first_flight(hello, &presented, &stand.authorities, highest) {
        Some(bytes) => Flight::Old(bytes),
        None => Flight::None,
    }
}

/// The suites of TLS 1.2 that rustls has.
const MODERN_TLS12: [u16; 6] = [0xc02b, 0xc02c, 0xc02f, 0xc030, 0xcca8, 0xcca9];

fn modern(
    stand: &Stand,
    options: &Options,
    tee: &mut Tee,
    first: &[u8],
    report: impl Fn(&Recording) -> Report,
) {
    let secrets = Arc::new(Secrets::default());
    let names = stand.authorities.iter().map(|der| DistinguishedName::from(der.clone())).collect();
    let config = observing_server(&stand.credentials, options, names, secrets.clone());
    let connection =
        config.ok().and_then(|config: ServerConfig| ServerConnection::new(Arc::new(config)).ok());
    if let Some(mut connection) = connection {
        // What goes wrong is in the recording.
        let _ = converse(&mut connection, tee, first, &secrets, report);
    }
    tee.recording.secrets = secrets.told();
}

/// The handshake, and after it a polite end: HTTP is answered with the verdict.
fn converse(
    connection: &mut ServerConnection,
    tee: &mut Tee,
    mut first: &[u8],
    secrets: &Arc<Secrets>,
    report: impl Fn(&Recording) -> Report,
) -> io::Result<()> {
    let mut patient = true;
    let mut request = Vec::new();
    loop {
        while connection.wants_write() {
            connection.write_tls(tee)?;
        }
        if !connection.is_handshaking() && patient {
            patient = false;
            tee.stream.set_read_timeout(Some(SILENCE))?;
        }
        let read = if first.is_empty() { connection.read_tls(tee) } else { connection.read_tls(&mut first) };
        match read {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if connection.is_handshaking() {
                    tee.give_up();
                }
                return goodbye(connection, tee);
            }
            Err(error) => return Err(error),
        }
        let Ok(progress) = connection.process_new_packets() else {
            return goodbye(connection, tee);
        };
        let mut plain = vec![0; progress.plaintext_bytes_to_read()];
        connection.reader().read_exact(&mut plain)?;
        request.extend_from_slice(&plain);
        let is_http = request.windows(4).any(|window| window == b"\r\n\r\n") || request.len() > 16 * 1024;
        if is_http && !connection.is_handshaking() {
            tee.recording.secrets = secrets.told();
            let text = report(&tee.recording).to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                text.len()
            );
            connection.writer().write_all(head.as_bytes())?;
            connection.writer().write_all(text.as_bytes())?;
            return goodbye(connection, tee);
        }
        if progress.peer_has_closed() {
            return goodbye(connection, tee);
        }
    }
}

/// Sends what there is to send and close_notify, and reads until the client has gone: a socket that
/// is closed with unread bytes in it is reset, and the reset overtakes our alert.
fn goodbye(connection: &mut ServerConnection, tee: &mut Tee) -> io::Result<()> {
    connection.send_close_notify();
    while connection.wants_write() {
        connection.write_tls(tee)?;
    }
    drain(tee)
}

fn drain(tee: &mut Tee) -> io::Result<()> {
    tee.close();
    tee.stream.shutdown(std::net::Shutdown::Write)?;
    tee.stream.set_read_timeout(Some(SILENCE))?;
    let mut buffer = [0; 4096];
    for _ in 0..64 {
        if tee.read(&mut buffer)? == 0 {
            break;
        }
    }
    Ok(())
}

/// A flight in the clear, and what the client answers to it.
fn old(tee: &mut Tee, flight: &[u8]) {
    let mut converse = || -> io::Result<()> {
        tee.write_all(flight)?;
        let mut buffer = [0; 4096];
        loop {
            let seen = observe(&tee.recording);
            if seen.client.finished || !seen.alerts.is_empty() || !seen.malformed.is_empty() {
                break;
            }
            match tee.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    tee.give_up();
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let spoken = observe(&tee.recording).version().unwrap_or(version::TLS10);
        tee.write_all(&farewell(spoken))?;
        drain(tee)
    };
    let _ = converse();
}

/// Nothing that we can speak was offered.
fn refuse(tee: &mut Tee, versions: &[Version]) {
    // A fatal alert handshake_failure, or protocol_version if that is the reason.
    let hello = observe(&tee.recording).client_hellos.into_iter().next();
    let none = hello.is_some_and(|hello| !hello.versions.iter().any(|offered| versions.contains(offered)));
    let alert = if none { 70 } else { 40 };
    let _ = tee.write_all(&[21, 3, 1, 0, 2, 2, alert]).and_then(|()| drain(tee));
}
