//! `enclasp ca`: a certification authority.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Subcommand;
use enclasp_ca::{Authority, Filter, NewAuthority, Record, Server, TokenRequest, init};
use enclasp_enroll::{Endpoint, duration};
use enclasp_keystore::{Keystore, KeystoreKind};
use enclasp_pki::SubjectAltName;
use serde::Serialize;
use serde_json::json;

use crate::args::Global;
use crate::command::blocking;
use crate::failure::{Failure, Outcome};
use crate::{input, output, signals};

#[derive(clap::Args)]
pub(crate) struct Ca {
    #[command(subcommand)]
    verb: Verb,
}

impl Ca {
    /// Whether it goes on until it is told to stop.
    pub(crate) fn serves(&self) -> bool {
        matches!(self.verb, Verb::Serve { .. })
    }
}

#[derive(clap::Args)]
struct Dir {
    /// Folder of the authority.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Subcommand)]
enum Verb {
    /// Make an authority: a root, an issuing certificate, and their keys in a keystore.
    #[command(after_help = "Examples:
  enclasp ca init --dir ca --name Acme
  enclasp ca init --dir ca --name Acme --url https://ca.acme.internal:8443")]
    Init {
        #[command(flatten)]
        dir: Dir,
        /// Its name, which the subjects of its certificates begin with.
        #[arg(long)]
        name: String,
        /// Where devices will reach it: goes into tokens and into its server's certificate.
        #[arg(long, default_value = "https://127.0.0.1:8443")]
        url: Endpoint,
    },
    /// Serve enrolment (EST, RFC 7030) over HTTPS.
    #[command(after_help = "Example:
  enclasp ca serve --dir ca --listen 127.0.0.1:8443

It listens on the port of the authority's URL: on the loopback interface if the URL is of this
machine (127.0.0.1, [::1], localhost), on every interface otherwise.")]
    Serve {
        #[command(flatten)]
        dir: Dir,
        /// Where to listen, if not where its URL says; port 0 picks a free one, which is printed.
        #[arg(long, value_name = "HOST:PORT")]
        listen: Option<String>,
    },
    /// Print a one-time token, with which one key gets one certificate for these names.
    #[command(after_help = "Examples:
  enclasp ca token --dir ca --cn laptop-17 --san dns:laptop-17 --ttl 10m > token
  enclasp ca token --dir ca --cn db.internal --san dns:db.internal --profile server > token

Standard EST clients give the whole token as the HTTP Basic password, with any user name.")]
    Token {
        #[command(flatten)]
        dir: Dir,
        /// Common name of the certificate to be.
        #[arg(long, value_name = "NAME")]
        cn: String,
        /// Subject alternative name: dns:HOST, ip:ADDRESS, uri:URI or email:ADDRESS. Repeatable.
        #[arg(long = "san", value_name = "KIND:VALUE")]
        sans: Vec<SubjectAltName>,
        /// What the certificate will be good for: client or server.
        #[arg(long, default_value = "client")]
        profile: String,
        /// How long the token is good.
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration::parse)]
        ttl: Duration,
    },
    /// Sign a certification request by hand; its names are taken as they are.
    #[command(after_help = "Example:
  enclasp ca sign --dir ca web.csr --profile client --out web.pem")]
    Sign {
        #[command(flatten)]
        dir: Dir,
        /// The request, PEM or DER; `-` is standard input.
        #[arg(value_name = "FILE.csr")]
        request: PathBuf,
        /// What the certificate will be good for: client or server.
        #[arg(long, default_value = "client")]
        profile: String,
        /// How long it is valid [default: the profile's].
        #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
        lifetime: Option<Duration>,
        /// File to write: the certificate and its issuer [default: standard output].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List the certificates that were issued.
    List {
        #[command(flatten)]
        dir: Dir,
        /// Only those that have this text in their subject, a name or the serial number.
        text: Option<String>,
        /// Only those of this profile.
        #[arg(long)]
        profile: Option<String>,
        /// Only those that are valid now.
        #[arg(long)]
        valid: bool,
    },
}

pub(crate) async fn run(global: &Global, ca: Ca) -> Outcome {
    match ca.verb {
        Verb::Init { dir, name, url } => {
            let keystore = global.state()?.agent();
            let folder = dir.dir.clone();
            let new = NewAuthority { name, url, keys: KeystoreKind::Soft };
            blocking(move || Ok(init(&folder, &new, &keystore)?)).await?;
            made(global, &dir.dir).await
        }
        Verb::Serve { dir, listen } => serve(global, &dir.dir, listen).await,
        Verb::Token { dir, cn, sans, profile, ttl } => {
            let authority = Authority::open(&dir.dir).await?;
            let request = TokenRequest {
                common_name: cn,
                subject_alt_names: sans,
                profile: profile.clone(),
                lifetime: ttl,
            };
            let token = authority.token(request).await?;
            let contents = token.contents();
            if global.json {
                output::json(&json!({
                    "token": *token.to_line()?,
                    "common_name": contents.common_name,
                    "subject_alt_names": contents.subject_alt_names,
                    "profile": profile,
                    "expires": output::time(contents.expires),
                    "authority": contents.authority.to_string(),
                }))?;
            } else {
                output::line(&*token.to_line()?)?;
                output::note(format_args!("good once, until {}", output::time(contents.expires)));
            }
            authority.close().await;
            Ok(())
        }
        Verb::Sign { dir, request, profile, lifetime, out } => {
            let bytes = input::file(&request)?;
            let authority = Authority::open(&dir.dir).await?;
            let keystore = keystore(global)?;
            let record = authority.sign(keystore, &bytes, &profile, lifetime).await?;
            let certificate = record.certificate()?;
            let chain = format!("{}{}", certificate.to_pem(), authority.issuing().to_pem());
            authority.close().await;
            match &out {
                None if global.json => return output::json(&Issued::of(&record)?),
                None => return output::raw(chain.as_bytes()),
                Some(path) => std::fs::write(path, chain).map_err(|e| {
                    Failure::new(format!("cannot write {}: {e}", path.display())).hint(format!(
                        "the certificate is recorded; `enclasp ca list {} --dir {} --json` has it",
                        record.serial,
                        dir.dir.display()
                    ))
                })?,
            }
            if global.json {
                output::json(&Issued::of(&record)?)
            } else {
                output::note(format_args!("issued {}", certificate.describe()));
                Ok(())
            }
        }
        Verb::List { dir, text, profile, valid } => {
            let authority = Authority::open(&dir.dir).await?;
            if let Some(name) = &profile {
                authority.config().profile(name)?;
            }
            let valid_at = valid.then(SystemTime::now);
            let records = authority.certificates(&Filter { text, profile, valid_at }).await?;
            list(global, &records)
        }
    }
}

fn keystore(global: &Global) -> Outcome<Arc<dyn Keystore>> {
    Ok(Arc::new(global.state()?.agent()))
}

async fn made(global: &Global, dir: &Path) -> Outcome {
    let authority = Authority::open(dir).await?;
    let (config, root) = (authority.config(), authority.root());
    if global.json {
        return output::json(&json!({
            "dir": dir,
            "name": config.name,
            "url": config.url.to_string(),
            "root_pem": dir.join("root.pem"),
            "root_sha256": root.fingerprint_hex(),
            "root_key": config.root_key,
            "issuing_key": config.issuing_key,
        }));
    }
    output::note(format_args!("made the authority {} in {}", config.name, dir.display()));
    let rows = [
        ("root", dir.join("root.pem").display().to_string()),
        ("SHA-256", root.fingerprint_hex()),
        ("root key", config.root_key.to_string()),
        ("issuing key", config.issuing_key.to_string()),
        ("URL", config.url.to_string()),
    ];
    output::table(&rows.map(|(name, value)| vec![name.to_owned(), value]))?;
    output::note(format_args!(
        "next: enclasp ca serve --dir {0}, and enclasp ca token --dir {0} --cn NAME",
        dir.display()
    ));
    Ok(())
}

async fn serve(global: &Global, dir: &Path, listen: Option<String>) -> Outcome {
    let authority = Authority::open(dir).await?;
    let url = &authority.config().url;
    let listen = listen.unwrap_or_else(|| place_of(url));
    let server = Server::bind(authority.clone(), keystore(global)?, &listen).await?;
    if server.address().port() != url.port() {
        output::warn(format_args!(
            "devices are sent to {url}: something has to forward from there to port {}",
            server.address().port()
        ));
    }
    let url = url.to_string();
    if global.json {
        output::line(json!({ "listening": server.address().to_string(), "url": url }))?;
    } else {
        output::note(format_args!(
            "listening on {} for {url}; EST at /.well-known/est, ctrl-c ends it",
            server.address()
        ));
    }
    server.run(signals::shutdown()).await;
    authority.close().await;
    Ok(())
}

/// Where to listen for those who are sent to `url`.
fn place_of(url: &Endpoint) -> String {
    let port = url.port();
    match url.host().parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => SocketAddr::new(address, port).to_string(),
        Ok(IpAddr::V6(_)) => format!("[::]:{port}"),
        Err(_) if url.host() == "localhost" => format!("127.0.0.1:{port}"),
        _ => format!("0.0.0.0:{port}"),
    }
}

/// The facts about an issued certificate, as `--json` prints them.
#[derive(Serialize)]
struct Issued {
    serial: String,
    subject: String,
    subject_alt_names: Vec<String>,
    profile: String,
    not_before: String,
    not_after: String,
    issued: String,
    issued_by: String,
    sha256: String,
    pem: String,
}

impl Issued {
    fn of(record: &Record) -> Outcome<Self> {
        let certificate = record.certificate()?;
        Ok(Self {
            serial: record.serial.clone(),
            subject: record.subject.clone(),
            subject_alt_names: record.subject_alt_names.iter().map(ToString::to_string).collect(),
            profile: record.profile.clone(),
            not_before: output::time(record.not_before),
            not_after: output::time(record.not_after),
            issued: output::time(record.issued_at),
            issued_by: record.issued_by.to_string(),
            sha256: certificate.fingerprint_hex(),
            pem: certificate.to_pem(),
        })
    }
}

fn list(global: &Global, records: &[Record]) -> Outcome {
    let issued = records.iter().map(Issued::of).collect::<Outcome<Vec<_>>>()?;
    if global.json {
        return output::json(&issued);
    }
    if issued.is_empty() {
        output::note("no certificate");
        return Ok(());
    }
    let mut rows = vec![["SERIAL", "SUBJECT", "PROFILE", "BY", "EXPIRES"].map(str::to_owned).to_vec()];
    rows.extend(issued.into_iter().map(|i| vec![i.serial, i.subject, i.profile, i.issued_by, i.not_after]));
    output::table(&rows)
}
