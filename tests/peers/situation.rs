//! Handshakes between two programs, and what the doctor has to say of them: tables of situations, one on a line.

use std::any::Any;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use super::misbehaving::{Lie, misbehave};
use super::{Java, JavaClient, Nginx};
use crate::harness::{
    Backend, CaptureFile, Home, Running, Tap, free_port, run_with_input, wait_until_listening,
};

/// A line of a table: `VERDICT | SERVER | CLIENT`, or `VERDICT/VERDICT OF THE CAPTURE | …` where the bytes alone say
/// less. `-` is no verdict: nothing is wrong.
struct Situation<'a> {
    line: usize,
    verdict: Option<&'a str>,
    in_capture: Option<&'a str>,
    server: &'a str,
    client: &'a str,
}

/// Makes every connection of a table in `tests/situations`, and compares what the doctor says of each: the command that took part, and `doctor
/// capture` of the same bytes in every file format and link type.
pub(crate) fn situations_are_understood(home: &Home, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/situations").join(table);
    let table = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let situations = read(&table);
    // Those of one server follow on each other, and share it.
    let groups: Vec<&[Situation<'_>]> = situations.chunk_by(|one, next| one.server == next.server).collect();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(String::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for failure in outcomes(home, group) {
                        let _ = writeln!(failures.lock().unwrap(), "{failure}");
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "of {} situations:\n{failures}", situations.len());
}

/// Most of the time somebody waits for somebody.
const AT_ONCE: usize = 4;

fn read(table: &str) -> Vec<Situation<'_>> {
    let lines = table.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let parsed = lines.map(|(index, line)| {
        let mut fields = line.split(" | ").map(str::trim);
        let mut field = || fields.next().unwrap_or_else(|| panic!("line {}: {line}", index + 1));
        let (verdicts, server, client) = (field(), field(), field());
        let (verdict, in_capture) = verdicts.split_once('/').unwrap_or((verdicts, verdicts));
        let verdict_of = |text| Some(text).filter(|text| *text != "-");
        Situation {
            line: index + 1,
            verdict: verdict_of(verdict),
            in_capture: verdict_of(in_capture),
            server,
            client,
        }
    });
    parsed.collect()
}

/// What is not as the table says.
fn outcomes(home: &Home, group: &[Situation<'_>]) -> Vec<String> {
    let Some(first) = group.first() else { return Vec::new() };
    let server = Server::start(home, first.server, first.line);
    let mut failures = Vec::new();
    for (index, situation) in group.iter().enumerate() {
        let Situation { line, verdict, in_capture, client, .. } = *situation;
        let tap = Tap::before(server.port);
        let keys = format!("keys-{line}");
        let printed = connect(home, client, tap.port, &keys);
        let mut connections = tap.recorded();
        if client.starts_with("doctor connect") {
            // What follows are questions about what came of the first one.
            connections.truncate(1);
        }
        let mut check = |by: &str, report: &Value, expected: Option<&str>| {
            let found = first_error(report);
            if found.as_deref() != expected {
                failures.push(format!(
                    "line {line}: {by} says {} and not {}\n    {} | {client}\n    {}",
                    found.as_deref().unwrap_or("-"),
                    expected.unwrap_or("-"),
                    situation.server,
                    titles(report)
                ));
            }
        };
        let mut secrets = std::fs::read(home.path(&keys)).unwrap_or_default();
        if let Some(doctor) = &server.doctor {
            let report = doctor.stdout.wait_for_count("\"examined\":", index + 1);
            check("listen", &serde_json::from_str(&report).expect("JSON"), verdict);
            secrets =
                secrets_in(&home.read(&format!("record-{}/connection-{}.pcapng", first.line, index + 1)));
        } else if client.starts_with("doctor connect") {
            check("connect", &printed[0], verdict);
            secrets = secrets_in(&home.read(&format!("record-{line}.pcapng")));
        }
        home.write(&keys, &secrets);
        for way in CaptureFile::all() {
            let file = format!("capture-{line}");
            home.write(&file, way.write(&connections));
            let known = known(situation);
            let line = format!("doctor capture {file} --json --keylog {keys} {known}");
            let reports: Value = home.enclasp(&line).json();
            check(
                &format!("{way:?}"),
                reports.as_array().and_then(|all| all.last()).unwrap_or(&Value::Null),
                in_capture,
            );
        }
    }
    failures
}

/// The roots that were given to the one of ours are given to `capture`, too.
fn known(situation: &Situation<'_>) -> String {
    let of = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "--cacert");
        words.nth(1).map(str::to_owned)
    };
    match (situation.server.starts_with("listen"), situation.client.starts_with("doctor connect")) {
        (true, _) => of(situation.server).map(|root| format!("--cacert {root}")),
        (_, true) => of(situation.client).map(|root| format!("--server-cacert {root}")),
        _ => None,
    }
    .unwrap_or_default()
}

/// The code of the verdict.
fn first_error(report: &Value) -> Option<String> {
    let first = report["findings"].as_array()?.first()?;
    (first["severity"] == "error").then(|| first["code"].as_str().unwrap_or_default().to_owned())
}

fn titles(report: &Value) -> String {
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    let events = report["events"].as_array().cloned().unwrap_or_default();
    let titles = findings.iter().map(|finding| format!("{} {}", finding["code"], finding["title"]));
    let events = events.iter().map(|event| format!("{}: {} {}", event["by"], event["what"], event["detail"]));
    titles.chain(events).collect::<Vec<_>>().join("\n    ")
}

/// The secrets in a file of our own (pcapng, a Decryption Secrets Block of SSLKEYLOGFILE's text).
fn secrets_in(pcapng: &[u8]) -> Vec<u8> {
    let mut rest = pcapng;
    while let Some((head, _)) = rest.split_first_chunk::<16>() {
        let number =
            |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes")) as usize;
        if number(0) == 0x0a {
            return rest[16..16 + number(12)].to_vec();
        }
        rest = rest.get(number(4)..).unwrap_or_default();
    }
    Vec::new()
}

/// A server of a table.
struct Server {
    port: u16,
    /// `doctor listen`, if it is that.
    doctor: Option<Running>,
    /// Ends with this.
    _program: Option<Box<dyn Any>>,
}

impl Server {
    fn start(home: &Home, line: &str, number: usize) -> Self {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let program = |line: &str| Running::start(home.program(word, line));
        let other = |port, program: Box<dyn Any>| Self { port, doctor: None, _program: Some(program) };
        let at_free_port = |flag: &str| {
            let port = free_port();
            let running = program(&format!("{rest} {flag}{port}"));
            wait_until_listening(port);
            other(port, Box::new(running))
        };
        match word {
            "listen" => {
                let line =
                    format!("doctor listen --listen 127.0.0.1:0 --json --record record-{number} {rest}");
                let (running, port) = home.start_listening(&line);
                Self { port, doctor: Some(running), _program: None }
            }
            "openssl" => {
                let running = program(&format!("{rest} -accept 127.0.0.1:0"));
                let line = running.stdout.wait_for("ACCEPT 127.0.0.1:");
                let port = line.rsplit(':').next().and_then(|port| port.trim().parse().ok());
                other(port.expect("a port"), Box::new(running))
            }
            "gnutls-serv" => at_free_port("--port="),
            "selfserv" => at_free_port("-p "),
            "python3" => at_free_port(""),
            "nginx" => {
                let nginx = Nginx::with(home, Command::new("nginx"), &format!("nginx-{number}"), rest);
                other(nginx.port, Box::new(nginx))
            }
            "java" => {
                let words: Vec<&str> = rest.split(' ').collect();
                let [version, peer, root] = words[..] else { panic!("{line}") };
                let java = Java::server(home, root, &[peer]);
                other(java.port(peer, version), Box::new(java))
            }
            "plain" => {
                let backend = match rest {
                    "greets" => Backend::greets(),
                    "closes" => Backend::closes(),
                    unknown => panic!("no such server: {unknown}"),
                };
                other(backend.port, Box::new(backend))
            }
            unknown => panic!("no such server: {unknown}"),
        }
    }
}

/// Runs a client of a table to its end; what it printed if it is the doctor.
fn connect(home: &Home, line: &str, port: u16, keys: &str) -> Value {
    let line = line.replace("{port}", &port.to_string()).replace("{keys}", keys);
    let (word, rest) = line.split_once(' ').expect("arguments");
    match word {
        "doctor" | "connect" => {
            let record = if word == "doctor" {
                format!("--record {}.pcapng", keys.replace("keys", "record"))
            } else {
                String::new()
            };
            let done = home.enclasp_with_input(&format!("{line} --json {record}"), "");
            return serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
        }
        "lie" => {
            let (lie, peer) = rest.split_once(' ').expect("a lie and a peer");
            misbehave(home, port, peer, lie.parse::<Lie>().expect("a lie"));
        }
        "java" => {
            let words: Vec<&str> = rest.split(' ').collect();
            let [version, peer, root] = words[..] else { panic!("{line}") };
            let mut client = JavaClient::new(home, root);
            client.connect(port, version, Some(peer).filter(|peer| *peer != "-"));
            client.run();
        }
        _ => {
            let mut command: Command = home.program(word, rest);
            command.env("SSLKEYLOGFILE", home.path(keys)).env("NSS_ALLOW_SSLKEYLOGFILE", "1");
            run_with_input(command, b"");
        }
    }
    Value::Null
}
