//! The flags of `server` and `client`, which those who come from ghostunnel know.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use enclasp_enroll::duration;
use enclasp_tls::{Access, Options, Rule, Term, UriPattern, Version};
use enclasp_tunnel::{Endpoint, HttpUrl, Limits, Proxy, ProxyProtocol, TargetCheck};

use super::plan::{Plan, Side};
use super::process::{LogFlags, Process};
use super::revocation::RevocationFlags;
use super::source::{KeyFlags, Source};
use crate::failure::{Failure, Outcome};
use crate::session;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp server --listen :8443 --target 127.0.0.1:8080 --identity srv --cacert ca.pem --allow-cn laptop-17
  enclasp server --listen :8443 --target unix:/run/app.sock --identity srv --allow 'ou=Ops and uri=spiffe://acme/**'
  enclasp server --listen :8443 --target 127.0.0.1:8080 --cert f.pem --key k.pem --cacert ca.pem --allow-all

Clients have to present a certificate, unless --disable-authentication is said; one access rule that
holds admits them. The flags may stand before `server`, too.")]
pub(crate) struct Server {
    #[command(flatten)]
    pub(super) tunnel: ServerFlags,
    #[command(flatten)]
    pub(super) process: Process,
    #[command(flatten)]
    pub(crate) log: LogFlags,
}

/// What makes a server tunnel, on the command line or in a file.
#[derive(clap::Args)]
pub(super) struct ServerFlags {
    /// Where clients connect: HOST:PORT, :PORT, unix:PATH or systemd:NAME.
    #[arg(long, value_name = "ADDRESS")]
    listen: Endpoint,
    /// The service, in the clear: HOST:PORT or unix:PATH.
    #[arg(long, value_name = "ADDRESS")]
    target: Endpoint,
    /// The identity to present.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    #[command(flatten)]
    allow: Allow,
    /// Ask clients for no certificate: anyone gets in.
    #[arg(long)]
    disable_authentication: bool,
    /// Pass the bytes on to another machine, in the clear.
    #[arg(long)]
    unsafe_target: bool,
    /// Tell the target who connected, by the PROXY protocol, version 2.
    #[arg(long)]
    proxy_protocol: bool,
    /// How much it is told: conn (addresses), tls (also what was agreed upon), tls-full (also the
    /// client's certificate).
    #[arg(long, value_name = "MODE")]
    proxy_protocol_mode: Option<ProxyProtocol>,
    /// When a list of revoked certificates names the client of an open connection, end it.
    #[arg(long)]
    drop_revoked: bool,
    /// Fetch the OCSP answer about the certificate ahead of time, and hand it to clients with it.
    #[arg(long)]
    staple_ocsp: bool,
    /// Ask here whether the target is well: a URL that answers 200 [default: connecting is enough].
    #[arg(long, value_name = "URL")]
    target_status: Option<HttpUrl>,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp client --listen 127.0.0.1:5432 --target db.internal:5432 --identity laptop
  enclasp client --listen unix:/run/user/1000/db.sock --target db.internal:5432 --identity laptop

Whoever can connect to --listen acts as the identity: keep it on loopback or on a Unix socket. The
flags may stand before `client`, too.")]
pub(crate) struct Client {
    #[command(flatten)]
    pub(super) tunnel: ClientFlags,
    #[command(flatten)]
    pub(super) process: Process,
    #[command(flatten)]
    pub(crate) log: LogFlags,
}

/// What makes a client tunnel, on the command line or in a file.
#[derive(clap::Args)]
pub(super) struct ClientFlags {
    /// Where programs connect, in the clear: HOST:PORT, unix:PATH or systemd:NAME.
    #[arg(long, value_name = "ADDRESS")]
    listen: Endpoint,
    /// The server: HOST:PORT.
    #[arg(long, value_name = "ADDRESS")]
    target: Endpoint,
    #[command(flatten)]
    choice: session::Choice,
    /// Present no certificate.
    #[arg(long)]
    disable_authentication: bool,
    #[command(flatten)]
    verify: Verify,
    /// The name that the server's certificate must have [default: the host of --target].
    #[arg(long, value_name = "NAME", alias = "server-name")]
    override_server_name: Option<String>,
    /// Reach the server through a proxy: http://HOST:PORT or socks5://HOST:PORT.
    #[arg(long, value_name = "URL", alias = "connect-proxy")]
    proxy: Option<Proxy>,
    /// Listen on an address that other machines can reach.
    #[arg(long)]
    unsafe_listen: bool,
    #[command(flatten)]
    common: Common,
}

/// Who is let through.
#[derive(clap::Args)]
#[command(next_help_heading = "Who is let through (one rule that holds is enough; all can be repeated)")]
struct Allow {
    /// Everyone whose certificate verifies.
    #[arg(long)]
    allow_all: bool,
    /// This common name.
    #[arg(long, value_name = "NAME")]
    allow_cn: Vec<String>,
    /// This organizational unit.
    #[arg(long, value_name = "NAME")]
    allow_ou: Vec<String>,
    /// This DNS name.
    #[arg(long, value_name = "NAME", alias = "allow-dns-san")]
    allow_dns: Vec<String>,
    /// A URI like this; `*` is part of a segment, `**` is anything.
    #[arg(long, value_name = "URI", alias = "allow-uri-san")]
    allow_uri: Vec<UriPattern>,
    /// A certificate for this IP address.
    #[arg(long, value_name = "ADDRESS", alias = "allow-ip-san")]
    allow_ip: Vec<IpAddr>,
    /// The key with this SHA-256, in hexadecimal or base64.
    #[arg(long, value_name = "PIN", value_parser = Term::spki_pin)]
    allow_spki_pin: Vec<Term>,
    /// Several conditions at once: 'cn=web and ou=Ops'; cn, ou, dns, uri, ip and spki.
    #[arg(long, value_name = "RULE")]
    allow: Vec<Rule>,
}

/// Which servers are spoken to.
#[derive(clap::Args)]
#[command(
    next_help_heading = "Which servers are spoken to [default: all whose certificate verifies and has the name]"
)]
struct Verify {
    /// Those with this common name.
    #[arg(long, value_name = "NAME")]
    verify_cn: Vec<String>,
    /// Those of this organizational unit.
    #[arg(long, value_name = "NAME")]
    verify_ou: Vec<String>,
    /// Those with this DNS name.
    #[arg(long, value_name = "NAME", alias = "verify-dns-san")]
    verify_dns: Vec<String>,
    /// Those with a URI like this; `*` is part of a segment, `**` is anything.
    #[arg(long, value_name = "URI", alias = "verify-uri-san")]
    verify_uri: Vec<UriPattern>,
    /// Those with a certificate for this IP address.
    #[arg(long, value_name = "ADDRESS", alias = "verify-ip-san")]
    verify_ip: Vec<IpAddr>,
    /// The one whose key has this SHA-256, in hexadecimal or base64.
    #[arg(long, value_name = "PIN", value_parser = Term::spki_pin)]
    verify_spki_pin: Vec<Term>,
    /// Several conditions at once: 'dns=db.internal and ou=Data'.
    #[arg(long, value_name = "RULE")]
    verify: Vec<Rule>,
}

/// Flags of both.
#[derive(clap::Args)]
struct Common {
    #[command(flatten)]
    key: KeyFlags,
    /// What the peers' certificates have to lead to (or CACERT_PATH) [default: the identity's roots].
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    #[command(flatten)]
    revocation: RevocationFlags,
    /// The oldest version to speak: 1.2 or 1.3.
    #[arg(long, value_name = "VERSION", default_value = "1.2")]
    tls_min: Version,
    /// The newest version to speak.
    #[arg(long, value_name = "VERSION", default_value = "1.3")]
    max_tls_version: Version,
    /// How long connecting to the target may take.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    connect_timeout: Duration,
    /// How long nothing may move on a connection that one end has closed. 0: any time.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    close_timeout: Duration,
    /// How long a connection may go on in any case. 0: any time.
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = duration::parse)]
    max_conn_lifetime: Duration,
    /// How long open connections may go on after SIGTERM.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration::parse)]
    shutdown_timeout: Duration,
    /// How many connections there may be at once; the next ones wait. 0: any number.
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().max_connections)]
    max_concurrent_conns: usize,
    /// Read certificates, keys and roots again every so often, whether they look changed or not.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timed_reload: Option<Duration>,
    /// Start though the target's name cannot be resolved yet.
    #[arg(long)]
    skip_resolve: bool,
    /// Renew the identity's certificate when it is due, as `enclasp renew --daemon` does.
    #[arg(long)]
    renew: bool,
}

impl ServerFlags {
    /// What is to be done.
    ///
    /// # Errors
    /// Wrong usage, in one line.
    pub(super) fn plan(self) -> Outcome<Plan> {
        let access = match (self.disable_authentication, self.allow.rules()) {
            (true, Some(_)) => {
                return Err(Failure::usage("--disable-authentication and access rules exclude each other")
                    .hint(
                        "without certificates there is nothing to look at; leave out the one or the other",
                    ));
            }
            (true, None) => None,
            (false, Some(rules)) if self.allow.allow_all && rules != Access::everyone() => {
                return Err(Failure::usage("--allow-all and other access rules exclude each other")
                    .hint("leave out --allow-all to let only those through whom the rules name"));
            }
            (false, Some(rules)) => Some(rules),
            (false, None) => {
                return Err(Failure::usage("nobody is admitted: no access rule is given").hint(
                    "say who may connect: --allow-cn NAME, --allow-ou, --allow-dns, --allow-uri, --allow-ip, \
                     --allow-spki-pin, --allow RULE, or --allow-all",
                ));
            }
        };
        if matches!(&self.target, Endpoint::Tcp { host, .. } if host.is_empty()) {
            return Err(Failure::usage(format!("--target {} has no host to connect to", self.target))
                .hint(format!("the service on this machine is at 127.0.0.1{}", self.target)));
        }
        if !self.unsafe_target && !is_local(&self.target) {
            let said = format!("--target {} would pass the bytes on in the clear", self.target);
            return Err(
                Failure::usage(said).hint("name a loopback address or unix:PATH, or say --unsafe-target")
            );
        }
        let identity = self.identity.map(session::Choice::of);
        let source = self.common.key.source(identity)?.ok_or_else(|| {
            Failure::usage("nothing says which certificate to present")
                .hint("name an identity with --identity, or give --cert and --key, or --keystore")
        })?;
        let mode = self.proxy_protocol_mode.or(self.proxy_protocol.then_some(ProxyProtocol::Conn));
        let check = self.target_status.map_or(TargetCheck::Connect, TargetCheck::Http);
        if self.drop_revoked && self.common.revocation.sources().is_empty() {
            return Err(Failure::usage("--drop-revoked needs a list of revoked certificates")
                .hint("name one with --crl FILE|URL"));
        }
        let (drop_revoked, staple) = (self.drop_revoked, self.staple_ocsp);
        let side = Side::Server { access, proxy_protocol: mode, check, drop_revoked, staple };
        self.common.plan(self.listen, self.target, source, side)
    }
}

impl ClientFlags {
    /// What is to be done.
    ///
    /// # Errors
    /// Wrong usage, in one line.
    pub(super) fn plan(self) -> Outcome<Plan> {
        if !self.unsafe_listen && !is_local(&self.listen) {
            let said = format!("--listen {} would let other machines act as the identity", self.listen);
            return Err(
                Failure::usage(said).hint("listen on 127.0.0.1, [::1] or unix:PATH, or say --unsafe-listen")
            );
        }
        if matches!(self.target, Endpoint::Unix(_)) && self.override_server_name.is_none() {
            return Err(Failure::usage(format!("--target {} has no host name", self.target))
                .hint("say the name that the server's certificate must have: --override-server-name NAME"));
        }
        let chosen = self.choice.is_given();
        let source = match self.disable_authentication {
            true if chosen || self.common.key.is_given() => {
                return Err(Failure::usage("--disable-authentication and a certificate exclude each other")
                    .hint("leave out the one or the other"));
            }
            true => Source::Nothing,
            false => {
                let given = self.common.key.source(chosen.then(|| self.choice.clone()))?;
                given.unwrap_or(Source::Identity(self.choice))
            }
        };
        let side = Side::Client {
            servers: self.verify.servers(),
            server_name: self.override_server_name,
            proxy: self.proxy,
        };
        self.common.plan(self.listen, self.target, source, side)
    }
}

impl Allow {
    /// None if no flag is given.
    fn rules(&self) -> Option<Access> {
        let named =
            rules_of(&self.allow_cn, &self.allow_ou, &self.allow_dns, &self.allow_uri, &self.allow_ip);
        let access =
            Access::any_of(named.chain(pins(&self.allow_spki_pin)).chain(self.allow.iter().cloned()));
        match access.is_nobody() {
            true => self.allow_all.then(Access::everyone),
            false => Some(access),
        }
    }
}

impl Verify {
    fn servers(&self) -> Access {
        let named =
            rules_of(&self.verify_cn, &self.verify_ou, &self.verify_dns, &self.verify_uri, &self.verify_ip);
        let access =
            Access::any_of(named.chain(pins(&self.verify_spki_pin)).chain(self.verify.iter().cloned()));
        if access.is_nobody() { Access::everyone() } else { access }
    }
}

fn rules_of<'a>(
    common_names: &'a [String],
    units: &'a [String],
    dns_names: &'a [String],
    uris: &'a [UriPattern],
    addresses: &'a [IpAddr],
) -> impl Iterator<Item = Rule> + use<'a> {
    let common_names = common_names.iter().cloned().map(Term::CommonName);
    let units = units.iter().cloned().map(Term::OrganizationalUnit);
    let dns_names = dns_names.iter().cloned().map(Term::DnsName);
    let uris = uris.iter().cloned().map(Term::Uri);
    let addresses = addresses.iter().copied().map(Term::Ip);
    common_names.chain(units).chain(dns_names).chain(uris).chain(addresses).map(Rule::from)
}

fn pins(terms: &[Term]) -> impl Iterator<Item = Rule> + use<'_> {
    terms.iter().cloned().map(Rule::from)
}

impl Common {
    fn plan(self, listen: Endpoint, target: Endpoint, source: Source, side: Side) -> Outcome<Plan> {
        if self.tls_min > self.max_tls_version {
            let said =
                format!("--tls-min {} is above --max-tls-version {}", self.tls_min, self.max_tls_version);
            return Err(Failure::usage(said).hint("leave one of them out: both have good defaults"));
        }
        self.revocation.check()?;
        if self.renew && !matches!(source, Source::Identity(_)) {
            return Err(Failure::usage("--renew is for identities, and none is presented")
                .hint("`enclasp enroll` makes one; present it with --identity NAME"));
        }
        let max_connections = match self.max_concurrent_conns {
            0 => Limits::MOST_CONNECTIONS,
            number => number.min(Limits::MOST_CONNECTIONS),
        };
        Ok(Plan {
            listen,
            target,
            source,
            cacert: self.cacert.or_else(|| super::source::variable("CACERT_PATH").map(PathBuf::from)),
            side,
            options: Options { versions: self.tls_min..=self.max_tls_version, ..Options::default() },
            limits: Limits {
                connect_timeout: self.connect_timeout,
                close_timeout: some(self.close_timeout),
                max_lifetime: some(self.max_conn_lifetime),
                drain_timeout: self.shutdown_timeout,
                max_connections,
                ..Limits::default()
            },
            timed_reload: self.timed_reload.and_then(some),
            revocation: self.revocation,
            skip_resolve: self.skip_resolve,
            renew: self.renew,
        })
    }
}

/// None for 0.
fn some(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

/// Whether only this machine can reach it, or whoever set up the service manager decides.
fn is_local(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Unix(_) | Endpoint::Systemd(_) => true,
        Endpoint::Tcp { host, .. } => {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}
