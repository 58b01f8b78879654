//! `enclasp doctor capture` and `both`: recordings that others made.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use enclasp_doctor::wire::{KeyLog, Side};
use enclasp_doctor::{Context, Recording, capture, diagnose, diagnose_both, observe};

use super::{Shown, conclude_all};
use crate::args::Global;
use crate::failure::{Failure, Outcome};
use crate::input;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  tcpdump -i any -w handshake.pcap port 8443
  enclasp doctor capture handshake.pcap
  SSLKEYLOGFILE=keys.txt curl …; enclasp doctor capture handshake.pcapng --keylog keys.txt

TLS 1.2 shows client certificates and signatures in the clear; TLS 1.3 needs a key log.")]
pub(crate) struct Capture {
    /// A capture: pcap or pcapng; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    known: Known,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp doctor both client.pcapng server.pcapng

Both files may come from `doctor connect --record`, `doctor listen --record`, or tcpdump at each end.")]
pub(crate) struct Both {
    /// What the client's end saw.
    #[arg(value_name = "CLIENT")]
    client: PathBuf,
    /// What the server's end saw.
    #[arg(value_name = "SERVER")]
    server: PathBuf,
    #[command(flatten)]
    known: Known,
}

/// What is known besides the bytes.
#[derive(clap::Args)]
struct Known {
    /// Secrets of TLS 1.3 connections, as SSLKEYLOGFILE has them.
    #[arg(long, value_name = "FILE")]
    keylog: Option<PathBuf>,
    /// Roots that the client's certificates have to lead to.
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Roots that the server's certificate has to lead to.
    #[arg(long, value_name = "FILE")]
    server_cacert: Option<PathBuf>,
    /// Write a report for people, in HTML.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Known {
    fn context(&self) -> Outcome<Context> {
        let roots = |path: &Option<PathBuf>| match path {
            Some(path) => input::certificates(path),
            None => Ok(Vec::new()),
        };
        let mut context = Context::at(SystemTime::now());
        context.client_roots = roots(&self.cacert)?;
        context.server_roots = roots(&self.server_cacert)?;
        Ok(context)
    }

    fn read(&self, path: &Path) -> Outcome<Vec<Recording>> {
        let mut connections = capture::connections(&input::file(path)?)?;
        if let Some(path) = &self.keylog {
            let secrets = KeyLog::parse(&String::from_utf8_lossy(&input::file(path)?));
            connections.iter_mut().for_each(|connection| connection.secrets.extend(&secrets));
        }
        Ok(connections)
    }
}

pub(crate) fn run(global: &Global, args: &Capture) -> Outcome {
    let context = args.known.context()?;
    let connections = args.known.read(&args.file)?;
    let total = connections.len();
    let observed: Vec<_> = connections.iter().map(|connection| (connection, observe(connection))).collect();
    let any_tls = observed.iter().any(|(_, seen)| !seen.client_hellos.is_empty());
    let shown: Vec<Shown> = observed
        .into_iter()
        // What else was on the network is of no interest, unless there is nothing else.
        .filter(|(_, seen)| !any_tls || !seen.client_hellos.is_empty())
        .map(|(connection, seen)| {
            let name = format!("{} to {}", connection.client, connection.server);
            Shown { report: diagnose(name, &seen, &context), events: seen.events }
        })
        .collect();
    if shown.is_empty() {
        let found = if total == 0 { "no TCP connection" } else { "no TCP connection that carries anything" };
        return Err(Failure::new(format!("{} has {found}", args.file.display()))
            .hint("is it a capture of the right interface and port? On one machine that is `lo`, or `any`"));
    }
    conclude_all(global, &shown, args.known.html.as_deref())
}

pub(crate) fn both(global: &Global, args: &Both) -> Outcome {
    let context = args.known.context()?;
    let (client, server) = (args.known.read(&args.client)?, args.known.read(&args.server)?);
    let pair = client.iter().find_map(|client| {
        let of_client = observe(client).client_hellos.first().cloned();
        let same = server.iter().find(|server| observe(server).client_hellos.first() == of_client.as_ref());
        same.map(|server| (client, server))
    });
    // A proxy between the two makes a connection of its own.
    let pair = pair.or_else(|| Some((client.first()?, server.first()?)));
    let Some((client, server)) = pair else {
        return Err(Failure::new("one of the files has no connection"));
    };
    let mut seen = observe(server);
    if seen.events.is_empty() || client.sent_by(Side::Client).len() > server.sent_by(Side::Client).len() {
        seen = observe(client);
    }
    let report = diagnose_both(client, server, &context);
    conclude_all(global, &[Shown { report, events: seen.events }], args.known.html.as_deref())
}
