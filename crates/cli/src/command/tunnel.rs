//! `enclasp server` and `enclasp client`: mutual TLS for programs that know nothing of it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use enclasp_enroll::duration;
use enclasp_identity::{Holder, Identity, State};
use enclasp_keystore::KeyUri;
use enclasp_keystore::soft::SoftKey;
use enclasp_tls::{Access, Credential, Options, Version};
use enclasp_tunnel::{
    ClientConfig, ClientTunnel, Endpoint, Limits, Observer, Replacer, ServerConfig, ServerTunnel,
};
use rustls_pki_types::CertificateDer;
use serde_json::json;
use zeroize::Zeroizing;

use crate::args::Global;
use crate::failure::{Failure, Outcome};
use crate::{input, output, session, signals};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp server --listen :8443 --target 127.0.0.1:8080 --identity srv --cacert ca.pem --allow-cn laptop-17
  enclasp server --listen :8443 --target unix:/run/app.sock --identity srv --allow-ou Ops
  enclasp server --listen :8443 --target 127.0.0.1:8080 --cert f.pem --key k.pem --cacert ca.pem --allow-all

Clients have to present a certificate; one access rule that matches admits them.")]
pub(crate) struct Server {
    /// Where clients connect: HOST:PORT, :PORT or unix:PATH.
    #[arg(long, value_name = "ADDRESS")]
    listen: Endpoint,
    /// The service, in the clear: HOST:PORT or unix:PATH.
    #[arg(long, value_name = "ADDRESS")]
    target: Endpoint,
    /// The identity to present.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["cert", "key"], required_unless_present = "cert")]
    identity: Option<String>,
    #[command(flatten)]
    key_file: KeyFile,
    /// What the clients' certificates have to lead to [default: the roots of the identity].
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    #[command(flatten)]
    access: AccessFlags,
    /// Pass the bytes on to another machine, in the clear.
    #[arg(long)]
    unsafe_target: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp client --listen 127.0.0.1:5432 --target db.internal:5432 --identity laptop
  enclasp client --listen unix:/run/user/1000/db.sock --target db.internal:5432 --identity laptop

Whoever can connect to --listen acts as the identity: keep it on loopback or on a Unix socket.")]
pub(crate) struct Client {
    /// Where programs connect, in the clear: HOST:PORT or unix:PATH.
    #[arg(long, value_name = "ADDRESS")]
    listen: Endpoint,
    /// The server: HOST:PORT.
    #[arg(long, value_name = "ADDRESS")]
    target: Endpoint,
    #[command(flatten)]
    choice: session::Choice,
    /// Present no certificate.
    #[arg(long, conflicts_with_all = ["cert", "key", "identity", "issuer"])]
    disable_authentication: bool,
    #[command(flatten)]
    key_file: KeyFile,
    /// Roots to trust the server by [default: those of the identity].
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// The name that the server's certificate must have [default: the host of --target].
    #[arg(long, value_name = "NAME", alias = "server-name")]
    override_server_name: Option<String>,
    /// Listen on an address that other machines can reach.
    #[arg(long)]
    unsafe_listen: bool,
    #[command(flatten)]
    common: Common,
}

/// A certificate and a private key from files, used in this very process.
#[derive(clap::Args)]
struct KeyFile {
    /// Certificate chain to present, PEM, leaf first; its key is then a *software* key.
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "identity")]
    cert: Option<PathBuf>,
    /// Its private key, PEM, PKCS#8.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

/// Who is let through. One that matches is enough.
#[derive(clap::Args)]
struct AccessFlags {
    /// Admit everyone whose certificate verifies.
    #[arg(long, conflicts_with_all = ["allow_cn", "allow_ou", "allow_dns", "allow_uri"])]
    allow_all: bool,
    /// Admit this common name. Repeatable.
    #[arg(long, value_name = "NAME")]
    allow_cn: Vec<String>,
    /// Admit this organizational unit. Repeatable.
    #[arg(long, value_name = "NAME")]
    allow_ou: Vec<String>,
    /// Admit this DNS name. Repeatable.
    #[arg(long, value_name = "NAME")]
    allow_dns: Vec<String>,
    /// Admit this URI. Repeatable.
    #[arg(long, value_name = "URI")]
    allow_uri: Vec<String>,
}

/// Flags of both.
#[derive(clap::Args)]
struct Common {
    /// The oldest version to speak: 1.2 or 1.3.
    #[arg(long, value_name = "VERSION", default_value = "1.2")]
    tls_min: Version,
    /// How long connecting to the target may take.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    connect_timeout: Duration,
    /// How long open connections may go on after SIGTERM.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration::parse)]
    shutdown_timeout: Duration,
}

impl Common {
    fn options(&self) -> Options {
        Options { versions: self.tls_min..=Version::Tls13, ..Options::default() }
    }

    fn limits(&self) -> Limits {
        Limits {
            connect_timeout: self.connect_timeout,
            drain_timeout: self.shutdown_timeout,
            ..Limits::default()
        }
    }
}

pub(crate) async fn server(global: &Global, server: Server) -> Outcome {
    let access = Access {
        all: server.access.allow_all,
        common_names: server.access.allow_cn,
        organizational_units: server.access.allow_ou,
        dns_names: server.access.allow_dns,
        uris: server.access.allow_uri,
    };
    if access.is_nobody() {
        return Err(Failure::usage("nobody is admitted: no access rule is given").hint(
            "say who may connect: --allow-cn NAME, --allow-ou, --allow-dns, --allow-uri, or --allow-all",
        ));
    }
    if matches!(&server.target, Endpoint::Tcp { host, .. } if host.is_empty()) {
        return Err(Failure::usage(format!("--target {} has no host to connect to", server.target))
            .hint(format!("the service on this machine is at 127.0.0.1{}", server.target)));
    }
    if !server.unsafe_target && !is_local(&server.target) {
        return Err(Failure::usage(format!(
            "--target {} would pass the bytes on in the clear",
            server.target
        ))
        .hint("name a loopback address or unix:PATH, or say --unsafe-target"));
    }
    let source = match (&server.identity, &server.key_file) {
        (None, KeyFile { cert: Some(cert), key: Some(key) }) => Source::file(key_file(cert, key)?),
        (name, _) => {
            let state = global.state()?;
            let identity = state.identities()?.get(name.as_deref().unwrap_or_default())?;
            Source::identity(state, identity)?
        }
    };
    let config = ServerConfig {
        roots: roots(server.cacert.as_deref(), source.roots(), "clients are")?,
        listen: server.listen,
        target: server.target.clone(),
        credential: source.credential.clone(),
        access,
        options: server.common.options(),
        limits: server.common.limits(),
        observer: source.observer(),
    };
    let tunnel = ServerTunnel::bind(config).await?;
    announce(global, tunnel.bound_addr(), &server.target, "mutual TLS", "in the clear")?;
    let followed = source.follow(tunnel.replacer());
    tokio::select! {
        () = tunnel.run(signals::shutdown()) => {}
        () = followed => {}
    }
    Ok(())
}

pub(crate) async fn client(global: &Global, client: Client) -> Outcome {
    if !client.unsafe_listen && !is_local(&client.listen) {
        return Err(Failure::usage(format!(
            "--listen {} would let other machines act as the identity",
            client.listen
        ))
        .hint("listen on 127.0.0.1, [::1] or unix:PATH, or say --unsafe-listen"));
    }
    let source = match &client.key_file {
        _ if client.disable_authentication => None,
        KeyFile { cert: Some(cert), key: Some(key) } => Some(Source::file(key_file(cert, key)?)),
        _ => {
            let state = global.state()?;
            let identity = session::client_identity(&state, &client.choice, global.verbose > 0)?.ok_or_else(|| {
                Failure::new("there is no identity to present")
                    .hint("make one with `enclasp enroll`, give --cert and --key, or say --disable-authentication")
            })?;
            Some(Source::identity(state, identity)?)
        }
    };
    let own_roots = source.as_ref().map(Source::roots).unwrap_or_default();
    let config = ClientConfig {
        roots: roots(client.cacert.as_deref(), own_roots, "the server is")?,
        listen: client.listen,
        target: client.target.clone(),
        server_name: client.override_server_name,
        credential: source.as_ref().map(|source| source.credential.clone()),
        options: client.common.options(),
        limits: client.common.limits(),
        observer: source.as_ref().and_then(Source::observer),
    };
    let tunnel = ClientTunnel::bind(config).await?;
    announce(global, tunnel.bound_addr(), &client.target, "in the clear", "mutual TLS")?;
    let replacer = tunnel.replacer();
    let followed = async {
        match &source {
            Some(source) => source.follow(replacer).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = tunnel.run(signals::shutdown()) => {}
        () = followed => {}
    }
    Ok(())
}

/// Where a tunnel's credential comes from.
struct Source {
    credential: Credential,
    /// The identity, which may be renewed while the tunnel runs; none for a key file.
    identity: Option<(State, Arc<Mutex<Identity>>)>,
}

impl Source {
    fn file(credential: Credential) -> Self {
        Self { credential, identity: None }
    }

    fn identity(state: State, identity: Identity) -> Outcome<Self> {
        let state = state.supervised(&[Holder::of(&identity.key)?])?;
        let credential = Credential::open(&state, &identity)?;
        Ok(Self { credential, identity: Some((state, Arc::new(Mutex::new(identity)))) })
    }

    fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.identity.as_ref().map(|(_, identity)| session::lock(identity).roots.clone()).unwrap_or_default()
    }

    /// Notices the use of a new key after a rekey, so that the old one goes.
    fn observer(&self) -> Option<Observer> {
        let (state, identity) = self.identity.clone()?;
        Some(Arc::new(move |evidence| {
            let identity = session::lock(&identity).clone();
            let key = identity.key.to_string();
            if identity.retired.is_some() && evidence.local.key.as_ref() == Some(&key) {
                let state = state.clone();
                tokio::task::spawn_blocking(move || session::used(&state, &identity));
            }
        }))
    }

    /// Keeps the tunnel's credential that of its identity, for ever.
    async fn follow(&self, replacer: Replacer) {
        match &self.identity {
            Some((state, identity)) => session::follow(state.clone(), identity.clone(), replacer).await,
            None => std::future::pending().await,
        }
    }
}

fn announce(global: &Global, from: &Endpoint, to: &Endpoint, inward: &str, outward: &str) -> Outcome {
    if global.json {
        return output::line(json!({ "listening": from.to_string(), "target": to.to_string() }));
    }
    output::note(format_args!(
        "listening on {from} ({inward}), passing on to {to} ({outward}); ctrl-c ends it"
    ));
    Ok(())
}

fn roots(
    file: Option<&Path>,
    own: Vec<CertificateDer<'static>>,
    whom: &str,
) -> Outcome<Vec<CertificateDer<'static>>> {
    let roots = match file {
        Some(path) => input::certificate_ders(path)?,
        None => own,
    };
    if roots.is_empty() {
        return Err(Failure::usage(format!("nothing says by which roots {whom} to be trusted"))
            .hint("give the CA's certificate with --cacert FILE"));
    }
    Ok(roots)
}

fn key_file(cert: &Path, key: &Path) -> Outcome<Credential> {
    let chain = input::certificate_ders(cert)?;
    let text = Zeroizing::new(input::file(key)?);
    let unreadable = |reason: String| {
        Failure::new(format!("{}: {reason}", key.display())).hint(format!(
            "PKCS#8 in PEM is read: openssl pkcs8 -topk8 -nocrypt -in {} -out key8.pem",
            key.display()
        ))
    };
    let text = std::str::from_utf8(&text).map_err(|_| unreadable("it is not text".into()))?;
    let key = SoftKey::from_pem(KeyUri::soft("key-file")?, text).map_err(|e| unreadable(e.to_string()))?;
    Ok(Credential::new(chain, Arc::new(key))?)
}

/// Whether only this machine can reach it.
fn is_local(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Unix(_) => true,
        Endpoint::Tcp { host, .. } => {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}
