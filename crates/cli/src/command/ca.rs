//! `enclasp ca`: a certification authority.

use std::fs::{File, OpenOptions};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Subcommand;
use enclasp_ca::{
    AuditHead, Authority, Config, DatabaseUrl, Filter, Profile, Record, Saved, Server, TokenRequest, Waiting,
    WaitsFor, ask_to_join, restore,
};
use enclasp_enroll::duration;
use enclasp_identity::Holder;
use enclasp_keystore::{KeyUri, Keystore};
use enclasp_pki::{Certificate, RevocationReason, SubjectAltName};
use serde::Serialize;
use serde_json::json;

use crate::args::Global;
use crate::failure::{Failure, Outcome};
use crate::keystores::Keystores;
use crate::{input, output, signals};

mod init;
mod rotate;

use init::Init;
use rotate::Rotate;

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

/// Which authority.
#[derive(clap::Args)]
struct Place {
    /// Folder of the authority.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Where its records are, if its settings do not say so: postgres://USER@HOST/NAME. A URL with a
    /// password goes into the variable ENCLASP_DATABASE.
    #[arg(long, value_name = "URL")]
    database: Option<DatabaseUrl>,
}

impl Place {
    async fn open(&self) -> Outcome<Authority> {
        Ok(Authority::open_with(&self.dir, self.database()?.as_ref()).await?)
    }

    fn database(&self) -> Outcome<Option<DatabaseUrl>> {
        const VARIABLE: &str = "ENCLASP_DATABASE";
        match &self.database {
            Some(url) if url.has_password() => {
                Err(Failure::usage("a password in an argument can be read by everybody on this machine")
                    .hint(format!(
                        "put the URL into the variable {VARIABLE}, or the password into ~/.pgpass"
                    )))
            }
            Some(url) => Ok(Some(url.clone())),
            None => match std::env::var(VARIABLE) {
                Ok(url) => Ok(Some(url.parse()?)),
                Err(_) => Ok(None),
            },
        }
    }
}

#[derive(Subcommand)]
enum AuditVerb {
    /// Print every record of every replica as a line of JSON, and the latest signed heads.
    #[command(after_help = "Example:
  enclasp ca audit export --dir ca > audit-$(date +%F).jsonl     keep it elsewhere")]
    Export {
        #[command(flatten)]
        place: Place,
    },
    /// Check that no record was changed, removed, put elsewhere or cut off.
    #[command(after_help = "Example:
  enclasp ca audit verify --dir ca --head audit-2026-11-24.jsonl

Whoever can write to the database can write the whole log anew; only a head that was kept elsewhere
shows that.")]
    Verify {
        #[command(flatten)]
        place: Place,
        /// What was exported before. Repeatable.
        #[arg(long = "head", value_name = "FILE")]
        heads: Vec<PathBuf>,
    },
}

#[derive(Subcommand)]
enum ProfileVerb {
    /// Check the profiles in authority.toml, and list all that there are with their rules.
    #[command(after_help = "Example:
  enclasp ca profile check --dir ca")]
    Check {
        /// Folder of the authority.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// Where records are moved from.
#[derive(clap::ValueEnum, Clone, Copy)]
enum Source {
    /// The file authority.db in the folder.
    Sqlite,
}

#[derive(Subcommand)]
enum Verb {
    /// Make an authority: a root, an issuing certificate, and their keys in a keystore.
    Init(Init),
    /// Make a new issuing certificate; the one of before answers for what it issued until that has ended.
    Rotate(Rotate),
    /// Show the root and the issuing certificates, and where their keys are.
    Show {
        #[command(flatten)]
        place: Place,
    },
    /// Serve enrolment (EST, RFC 7030) over HTTPS.
    #[command(after_help = "Example:
  enclasp ca serve --dir ca --listen 127.0.0.1:8443

It listens on the port of the authority's URL: on the loopback interface if the URL is of this
machine (127.0.0.1, [::1], localhost), on every interface otherwise.")]
    Serve {
        #[command(flatten)]
        place: Place,
        /// Where to listen, if not where its URL says; port 0 picks a free one, which is printed.
        #[arg(long, value_name = "HOST:PORT")]
        listen: Option<String>,
        /// Where to serve CRLs, OCSP and issuing certificates in the clear [default: the port of the
        /// authority's `http-url`, if it has one].
        #[arg(long, value_name = "HOST:PORT")]
        listen_http: Option<String>,
        /// Where to answer GET /metrics for Prometheus, in the clear: choose an address that only it reaches.
        #[arg(long, value_name = "HOST:PORT")]
        listen_metrics: Option<String>,
        /// Where to serve the console, web pages for whoever has a certificate of the profile admin or viewer.
        #[arg(long, value_name = "HOST:PORT")]
        console: Option<String>,
        /// Append what goes into the audit log to this file, too, as lines of JSON; `-` is standard output.
        #[arg(long, value_name = "FILE")]
        audit_file: Option<PathBuf>,
    },
    /// Print a one-time token, with which one key gets one certificate for these names.
    #[command(after_help = "Examples:
  enclasp ca token --dir ca --cn laptop-17 --san dns:laptop-17 --ttl 10m > token
  enclasp ca token --dir ca --cn db.internal --san dns:db.internal --profile server > token

Standard EST clients give the whole token as the HTTP Basic password, with any user name.")]
    Token {
        #[command(flatten)]
        place: Place,
        /// Common name of the certificate to be.
        #[arg(long, value_name = "NAME")]
        cn: String,
        /// Subject alternative name: dns:HOST, ip:ADDRESS, uri:URI, email:ADDRESS, permanentIdentifier:VALUE
        /// or hardwareModuleName:OID/HEX. Repeatable.
        #[arg(long = "san", value_name = "KIND:VALUE")]
        sans: Vec<SubjectAltName>,
        /// What the certificate will be good for: client, device, server, user, short-lived, admin, viewer, or
        /// another profile of authority.toml.
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
        place: Place,
        /// The request, PEM or DER; `-` is standard input.
        #[arg(value_name = "FILE.csr")]
        request: PathBuf,
        /// What the certificate will be good for: client, device, server, user, short-lived, admin, viewer, or
        /// another profile of authority.toml.
        #[arg(long, default_value = "client")]
        profile: String,
        /// How long it is valid [default: the profile's].
        #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
        lifetime: Option<Duration>,
        /// File to write: the certificate and its issuer [default: standard output].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Revoke a certificate, or all valid ones of a name. There is no way back.
    #[command(after_help = "Examples:
  enclasp ca revoke --dir ca 4f6e2a91c0d35b7788aa01fe6c9d2b40 --reason keyCompromise
  enclasp ca revoke --dir ca laptop-17

Reasons: unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation,
privilegeWithdrawn (RFC 5280).")]
    Revoke {
        #[command(flatten)]
        place: Place,
        /// A serial number, a common name, or a whole subject.
        #[arg(value_name = "SERIAL|NAME")]
        what: String,
        /// Why.
        #[arg(long, default_value = "unspecified")]
        reason: RevocationReason,
    },
    /// Print the latest CRL of this issuer in PEM, signed now if it is not up to date.
    Crl {
        #[command(flatten)]
        place: Place,
        /// Of another issuer, by the beginning of its SHA-256, as `ca show` lists it.
        #[arg(long, value_name = "SHA-256")]
        issuer: Option<String>,
        /// Which one, if its certificates are divided among several.
        #[arg(long, default_value_t = 0)]
        shard: u32,
        /// File to write [default: standard output].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Read the audit log, and check that nobody changed it.
    Audit {
        #[command(subcommand)]
        verb: AuditVerb,
    },
    /// The rules by which certificates are issued.
    Profile {
        #[command(subcommand)]
        verb: ProfileVerb,
    },
    /// Move the records of an authority to PostgreSQL.
    #[command(after_help = "Example:
  enclasp ca migrate --dir ca --from sqlite --database postgres://ca@db.internal/ca

It may be in use: from the first moment on a server with the old records refuses requests, which
devices repeat, until it is started again. If anything fails, the same command goes on.")]
    Migrate {
        #[command(flatten)]
        place: Place,
        /// Where they are now.
        #[arg(long)]
        from: Source,
    },
    /// Save the records and settings of an authority, which may be in use, in a new folder.
    #[command(after_help = "Example:
  enclasp ca backup --dir ca --out backup-$(date +%F)

It holds no key, and says which are needed.")]
    Backup {
        #[command(flatten)]
        place: Place,
        /// The new folder.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Make an authority anew from a backup.
    #[command(after_help = "Example:
  enclasp ca restore --from backup-2026-11-24 --dir ca

What was issued since the backup is unknown to it: such certificates are not renewed and cannot be revoked.")]
    Restore {
        #[command(flatten)]
        place: Place,
        /// The folder of the backup.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
    },
    /// Make a replica of an authority whose records are in PostgreSQL, with an issuing key of its own.
    #[command(after_help = "Example:
  enclasp ca join --dir ca2 --database postgres://ca@db.internal/ca
  enclasp ca approve --dir ca ID              where the root's key is

It waits until somebody approves; the same command goes on waiting.")]
    Join {
        #[command(flatten)]
        place: Place,
        /// How long to wait for approval.
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration::parse)]
        wait: Duration,
        /// The keystore for the keys for issuing and for the audit log, as for `ca init`.
        #[arg(long, value_name = "URI")]
        key: Option<KeyUri>,
    },
    /// List what waits for a person: devices whose profile demands approval, replicas that want to join.
    Pending {
        #[command(flatten)]
        place: Place,
    },
    /// Let a device have its certificate, or a replica join.
    ///
    /// Compare the key first: what waits shows its SHA-256, too.
    Approve {
        #[command(flatten)]
        place: Place,
        /// As `ca pending` lists it.
        id: String,
    },
    /// Turn away a device or a replica that waits.
    Deny {
        #[command(flatten)]
        place: Place,
        /// As `ca pending` lists it.
        id: String,
    },
    /// List the certificates that were issued.
    List {
        #[command(flatten)]
        place: Place,
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
        Verb::Init(init) => init::run(global, init).await,
        Verb::Rotate(rotate) => rotate::rotate(global, rotate).await,
        Verb::Show { place } => rotate::show(global, &place).await,
        Verb::Serve { place, listen, listen_http, listen_metrics, console, audit_file } => {
            let extras = Extras { listen_http, listen_metrics, console, audit_file };
            serve(global, &place, listen, extras).await
        }
        Verb::Token { place, cn, sans, profile, ttl } => {
            let authority = place.open().await?;
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
        Verb::Sign { place, request, profile, lifetime, out } => {
            let bytes = input::file(&request)?;
            let authority = place.open().await?;
            let keystore = keystore(global)?;
            let record = authority.sign(keystore, &bytes, &profile, lifetime).await?;
            let certificate = record.certificate()?;
            let mut chain = certificate.to_pem();
            chain.extend(authority.intermediates().map(Certificate::to_pem));
            authority.close().await;
            match &out {
                None if global.json => return output::json(&Issued::of(&record)?),
                None => return output::raw(chain.as_bytes()),
                Some(path) => output::file(path, chain).map_err(|failure| {
                    failure.hint(format!(
                        "the certificate is recorded; `enclasp ca list {} --dir {} --json` has it",
                        record.serial,
                        place.dir.display()
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
        Verb::List { place, text, profile, valid } => {
            let authority = place.open().await?;
            if let Some(name) = &profile {
                authority.config().profile(name)?;
            }
            let valid_at = valid.then(SystemTime::now);
            list(global, &authority, &Filter { text, profile, valid_at }).await
        }
        Verb::Revoke { place, what, reason } => {
            let revoked = place.open().await?.revoke(&what, reason).await?;
            if global.json {
                return output::json(&revoked.iter().map(Issued::of).collect::<Outcome<Vec<_>>>()?);
            }
            for record in &revoked {
                let (at, reason) =
                    record.revoked.as_ref().map_or((SystemTime::now(), reason), |r| (r.at, r.reason));
                output::note(format_args!(
                    "{} of {} was revoked at {}: {reason}",
                    record.serial,
                    record.subject,
                    output::time(at)
                ));
            }
            Ok(())
        }
        Verb::Crl { place, issuer, shard, out } => {
            let der = place.open().await?.crl(keystore(global)?, issuer.as_deref(), shard).await?;
            let pem = enclasp_pki::crl_to_pem(&der)?;
            match out {
                None => output::raw(pem.as_bytes()),
                Some(path) => output::file(&path, pem),
            }
        }
        Verb::Audit { verb: AuditVerb::Export { place } } => {
            let exported: Outcome = place.open().await?.export_audit(|line| output::line(line)).await;
            exported
        }
        Verb::Audit { verb: AuditVerb::Verify { place, heads } } => {
            verify_audit(global, &place, &heads).await
        }
        Verb::Migrate { place, from: Source::Sqlite } => {
            let database = place.database()?.ok_or_else(|| {
                Failure::usage("it is not said where the records shall go")
                    .hint("give `--database postgres://USER@HOST/NAME`")
            })?;
            let authority = Authority::open(&place.dir).await?;
            let count = authority.move_to(&database).await?;
            if global.json {
                output::json(&json!({ "database": database.to_string(), "certificates": count }))
            } else {
                output::note(format_args!(
                    "{database} has {count} certificates; start `enclasp ca serve` again"
                ));
                Ok(())
            }
        }
        Verb::Backup { place, out } => {
            let authority = place.open().await?;
            let saved = authority.back_up(&out).await?;
            authority.close().await;
            report_saved(global, &out, &saved)
        }
        Verb::Restore { place, from } => {
            let saved = restore(&from, &place.dir, place.database()?.as_ref()).await?;
            report_saved(global, &place.dir, &saved)
        }
        Verb::Join { place, wait, key } => join(global, &place, wait, key).await,
        Verb::Pending { place } => {
            let waiting = place.open().await?.waiting().await?;
            if global.json {
                return output::json(&waiting.iter().map(waiting_facts).collect::<Vec<_>>());
            }
            if waiting.is_empty() {
                output::note("nothing waits");
                return Ok(());
            }
            let mut rows = vec![["ID", "WANTS", "SUBJECT", "KEY", "ASKED"].map(str::to_owned).to_vec()];
            rows.extend(waiting.into_iter().map(|one| {
                let wants = match one.wants {
                    WaitsFor::Certificate { profile, .. } => format!("a certificate ({profile})"),
                    WaitsFor::Admission => "to join".to_owned(),
                };
                vec![one.id, wants, one.subject, one.key_sha256, output::time(one.asked)]
            }));
            output::table(&rows)
        }
        Verb::Approve { place, id } => {
            place.open().await?.approve(keystore(global)?, &id).await?;
            output::note(format_args!("{id} is approved"));
            Ok(())
        }
        Verb::Deny { place, id } => {
            place.open().await?.deny(&id).await?;
            output::note(format_args!("{id} is turned away"));
            Ok(())
        }
        Verb::Profile { verb: ProfileVerb::Check { dir } } => check_profiles(global, &dir),
    }
}

fn report_saved(global: &Global, folder: &Path, saved: &Saved) -> Outcome {
    let keys = saved.keys.iter();
    if global.json {
        let keys =
            keys.map(|key| json!({ "role": key.role, "key": key.uri, "can_be_copied": key.can_be_copied }));
        return output::json(&json!({
            "dir": folder,
            "certificates": saved.certificates,
            "keys_needed": keys.collect::<Vec<_>>(),
        }));
    }
    output::note(format_args!(
        "{} holds the records of {} certificates",
        folder.display(),
        saved.certificates
    ));
    output::note("it holds none of the keys, which are needed:");
    let rows = keys.map(|key| {
        let fate = if key.can_be_copied {
            "a copy of its agent's keys folder brings it to another machine"
        } else {
            "it cannot be copied: without it, a new issuing certificate is needed"
        };
        vec![key.role.to_owned(), key.uri.to_string(), fate.to_owned()]
    });
    output::table(&rows.collect::<Vec<_>>())
}

fn waiting_facts(waiting: &Waiting) -> serde_json::Value {
    let (kind, profile, names) = match &waiting.wants {
        WaitsFor::Certificate { profile, subject_alt_names } => {
            ("certificate", Some(profile), Some(subject_alt_names))
        }
        WaitsFor::Admission => ("replica", None, None),
    };
    json!({
        "kind": kind,
        "id": waiting.id,
        "subject": waiting.subject,
        "subject_alt_names": names,
        "profile": profile,
        "key_sha256": waiting.key_sha256,
        "asked": output::time(waiting.asked),
    })
}

fn check_profiles(global: &Global, dir: &Path) -> Outcome {
    let path = dir.join("authority.toml");
    let config =
        Config::read(&path)?.ok_or_else(|| Failure::new(format!("there is no {}", path.display())))?;
    let profiles = config.profile_names().map(|name| config.profile(name));
    let profiles = profiles.collect::<Result<Vec<_>, _>>()?;
    let usages = |profile: &Profile| {
        profile.certificate.extended_key_usages.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let keys = |profile: &Profile| profile.key_types.iter().map(ToString::to_string).collect::<Vec<_>>();
    let names = |profile: &Profile| profile.names.iter().map(ToString::to_string).collect::<Vec<_>>();
    if global.json {
        let facts = profiles.iter().map(|profile| {
            json!({
                "name": profile.name(),
                "extended_key_usages": usages(profile),
                "key_types": keys(profile),
                "names": names(profile),
                "default_lifetime": duration::format(profile.certificate.default_lifetime),
                "max_lifetime": duration::format(profile.certificate.max_lifetime),
                "approval": profile.approval,
                "no_rev_avail": profile.certificate.no_rev_avail,
            })
        });
        return output::json(&facts.collect::<Vec<_>>());
    }
    let mut rows = vec![["PROFILE", "FOR", "KEYS", "NAMES", "LIFETIME"].map(str::to_owned).to_vec()];
    rows.extend(profiles.iter().map(|profile| {
        let lifetimes = [profile.certificate.default_lifetime, profile.certificate.max_lifetime];
        let mut lifetime = lifetimes.map(duration::format).join(" to ");
        if profile.certificate.no_rev_avail {
            lifetime.push_str(", not revocable");
        }
        if profile.approval {
            lifetime.push_str(", a person approves");
        }
        let lists = [usages(profile), keys(profile), names(profile)].map(|list| list.join(" "));
        [vec![profile.name().to_owned()], lists.to_vec(), vec![lifetime]].concat()
    }));
    output::table(&rows)?;
    output::note(format_args!("{} is in order", path.display()));
    Ok(())
}

fn keystore(global: &Global) -> Outcome<Arc<dyn Keystore>> {
    Ok(Arc::new(Keystores(global.state()?)))
}

async fn verify_audit(global: &Global, place: &Place, files: &[PathBuf]) -> Outcome {
    let mut heads = Vec::new();
    for path in files {
        let text = String::from_utf8_lossy(&input::file(path)?).into_owned();
        let before = heads.len();
        // Of an export, the lines with records are passed over.
        for line in text.lines().filter(|line| line.contains("\"signature\"")) {
            heads.push(AuditHead::parse(line)?);
        }
        if heads.len() == before {
            return Err(Failure::new(format!("there is no signed head in {}", path.display())));
        }
    }
    let chains = place.open().await?.verify_audit(&heads).await?;
    if global.json {
        let chains = chains
            .iter()
            .map(|one| json!({ "chain": one.chain, "records": one.records, "heads": one.heads }));
        return output::json(&chains.collect::<Vec<_>>());
    }
    let mut rows = vec![["CHAIN", "RECORDS", "SIGNED HEADS"].map(str::to_owned).to_vec()];
    rows.extend(
        chains.into_iter().map(|one| vec![one.chain, one.records.to_string(), one.heads.to_string()]),
    );
    output::table(&rows)?;
    if files.is_empty() {
        output::note("compared with no head that was kept elsewhere: `--head FILE`");
    }
    Ok(())
}

/// How often a replica looks whether it was admitted.
const JOIN_POLL: Duration = Duration::from_millis(500);

async fn join(global: &Global, place: &Place, wait: Duration, key: Option<KeyUri>) -> Outcome {
    if let Some(uri) = &key {
        Holder::of(uri)?;
    }
    let database = place.database()?.ok_or_else(|| {
        Failure::usage("it is not said which authority to join")
            .hint("give `--database postgres://USER@HOST/NAME`")
    })?;
    let until = tokio::time::Instant::now() + wait;
    let replica = ask_to_join(&place.dir, &database, key, keystore(global)?).await?;
    output::note(format_args!(
        "the root of this authority has the SHA-256 {}",
        replica.root().fingerprint_hex()
    ));
    output::note(format_args!("waiting for: enclasp ca approve --dir DIR {}", replica.id()));
    while !replica.admitted().await? {
        if tokio::time::Instant::now() >= until {
            return Err(Failure::new("nobody has approved yet").hint("the same command goes on waiting"));
        }
        tokio::time::sleep(JOIN_POLL).await;
    }
    if global.json {
        let facts =
            json!({ "dir": place.dir, "id": replica.id(), "root_sha256": replica.root().fingerprint_hex() });
        return output::json(&facts);
    }
    output::note(format_args!("joined; next: enclasp ca serve --dir {}", place.dir.display()));
    Ok(())
}

/// What a server may do besides EST.
struct Extras {
    listen_http: Option<String>,
    listen_metrics: Option<String>,
    console: Option<String>,
    audit_file: Option<PathBuf>,
}

async fn serve(global: &Global, place: &Place, listen: Option<String>, extras: Extras) -> Outcome {
    let Extras { listen_http, listen_metrics, console, audit_file } = extras;
    let authority = place.open().await?;
    if let Some(path) = audit_file {
        let opened = if path.as_os_str() == "-" {
            std::io::stdout().as_fd().try_clone_to_owned().map(File::from)
        } else {
            OpenOptions::new().create(true).append(true).mode(0o600).open(&path)
        };
        let file = opened.map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))?;
        authority.mirror_audit(file);
    }
    let config = authority.config();
    let url = &config.url;
    let listen = listen.unwrap_or_else(|| place_of(url.host(), url.port()));
    let http_url = config.http_url.as_ref();
    let listen_http = listen_http.or_else(|| http_url.map(|url| place_of(url.host(), url.port())));
    let missing = [
        ("ocsp", config.ocsp_key.is_none() && listen_http.is_some(), "nobody answers OCSP requests"),
        ("audit", config.audit_key.is_none(), "the audit log has no signed heads"),
    ];
    for (role, _, what) in missing.into_iter().filter(|(_, is_missing, _)| *is_missing) {
        output::warn(format_args!(
            "{what}: make a key with `enclasp key create soft:name={role}`, and set `{role}-key = \"soft:name={role}\"` \
             in authority.toml"
        ));
    }
    let mut server = Server::bind(authority.clone(), keystore(global)?, &listen).await?;
    if let Some(listen) = listen_http {
        server = server.in_the_clear(keystore(global)?, &listen).await?;
    }
    if let Some(listen) = listen_metrics {
        server = server.with_metrics(keystore(global)?, &listen).await?;
    }
    if let Some(listen) = console {
        server = server.with_console(keystore(global)?, &listen).await?;
    }
    if server.address().port() != url.port() {
        output::warn(format_args!(
            "devices are sent to {url}: something has to forward from there to port {}",
            server.address().port()
        ));
    }
    let url = url.to_string();
    if global.json {
        output::line(json!({ "listening": server.address().to_string(), "url": url,
            "listening_http": server.address_in_the_clear().map(|address| address.to_string()),
            "listening_metrics": server.address_of_metrics().map(|address| address.to_string()),
            "console": server.address_of_console().map(|address| address.to_string()), }))?;
    } else {
        output::note(format_args!(
            "listening on {} for {url}; EST at /.well-known/est, ctrl-c ends it",
            server.address()
        ));
    }
    if let Some(address) = server.address_in_the_clear().filter(|_| !global.json) {
        output::note(format_args!("CRLs and OCSP on {address}"));
    }
    if let Some(address) = server.address_of_metrics().filter(|_| !global.json) {
        output::note(format_args!("metrics on {address}"));
    }
    if let Some(address) = server.address_of_console().filter(|_| !global.json) {
        output::note(format_args!("console on {address}"));
    }
    server.run(signals::shutdown()).await;
    authority.close().await;
    Ok(())
}

/// Where to listen for those who are sent to this host and port.
fn place_of(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => SocketAddr::new(address, port).to_string(),
        Ok(IpAddr::V6(_)) => format!("[::]:{port}"),
        Err(_) if host == "localhost" => format!("127.0.0.1:{port}"),
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
    revoked: Option<String>,
    revocation_reason: Option<RevocationReason>,
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
            revoked: record.revoked.as_ref().map(|revoked| output::time(revoked.at)),
            revocation_reason: record.revoked.as_ref().map(|revoked| revoked.reason),
            sha256: certificate.fingerprint_hex(),
            pem: certificate.to_pem(),
        })
    }
}

/// How many certificates are held in memory.
const PAGE: usize = 500;

/// Prints page by page: there may be millions.
async fn list(global: &Global, authority: &Authority, filter: &Filter) -> Outcome {
    let mut page = authority.certificates(filter, None, PAGE).await?;
    let mut first = true;
    if global.json {
        output::raw(b"[")?;
    } else if page.is_empty() {
        output::note("no certificate");
    }
    while let Some(last) = page.last().cloned() {
        let issued = page.iter().map(Issued::of).collect::<Outcome<Vec<_>>>()?;
        if global.json {
            for one in issued {
                let text = serde_json::to_string_pretty(&one).map_err(Failure::new)?;
                output::raw(format!("{}\n{text}", if first { "" } else { "," }).as_bytes())?;
                first = false;
            }
        } else {
            let mut rows = Vec::new();
            if first {
                rows.push(
                    ["SERIAL", "SUBJECT", "PROFILE", "BY", "EXPIRES", "REVOKED"].map(str::to_owned).to_vec(),
                );
            }
            rows.extend(issued.into_iter().map(|i| {
                vec![i.serial, i.subject, i.profile, i.issued_by, i.not_after, i.revoked.unwrap_or_default()]
            }));
            output::table(&rows)?;
            first = false;
        }
        page = if page.len() < PAGE {
            Vec::new()
        } else {
            authority.certificates(filter, Some(&last), PAGE).await?
        };
    }
    if global.json { output::line("\n]") } else { Ok(()) }
}
