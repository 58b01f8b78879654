//! A tunnel as it was asked for, checked as far as that goes without opening anything.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use enclasp_identity::Identity;
use enclasp_tls::{Access, Client, Clients, Credential, Options, Revocation, Server, Servers};
use enclasp_tunnel::{Endpoint, Limits, Proxy, ProxyProtocol, TargetCheck};
use rustls_pki_types::CertificateDer;

use super::agents::Agents;
use super::revocation::{ListSource, RevocationFlags};
use super::source::{Loaded, Source};
use super::staple::Staple;
use crate::failure::{Failure, Outcome};
use crate::input;

/// What a tunnel is to be.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) listen: Endpoint,
    pub(super) target: Endpoint,
    pub(super) source: Source,
    pub(super) cacert: Option<PathBuf>,
    pub(super) revocation: RevocationFlags,
    pub(super) side: Side,
    pub(super) options: Options,
    pub(super) limits: Limits,
    pub(super) timed_reload: Option<Duration>,
    /// Whether it starts though the target's name cannot be resolved.
    pub(super) skip_resolve: bool,
    /// Whether it renews the identity that it presents.
    pub(super) renew: bool,
}

/// What sets servers and clients apart.
#[derive(Clone)]
pub(super) enum Side {
    /// Without access rules, clients are asked for no certificate.
    Server {
        access: Option<Access>,
        proxy_protocol: Option<ProxyProtocol>,
        check: TargetCheck,
        /// Whether open connections of clients that were revoked end.
        drop_revoked: bool,
        /// Whether the OCSP answer about the certificate is stapled to it.
        staple: bool,
    },
    Client {
        servers: Access,
        server_name: Option<String>,
        proxy: Option<Proxy>,
    },
}

impl Side {
    /// Whether, and how, a server tunnel tells its target who connected, and whether it ends the
    /// connections of clients that were revoked.
    pub(super) fn of_server(&self) -> (Option<ProxyProtocol>, bool) {
        match self {
            Self::Server { proxy_protocol, drop_revoked, .. } => (*proxy_protocol, *drop_revoked),
            Self::Client { .. } => (None, false),
        }
    }

    /// How to find out whether the target is well.
    pub(super) fn check(&self) -> TargetCheck {
        match self {
            Self::Server { check, .. } => check.clone(),
            Self::Client { proxy: Some(proxy), .. } => TargetCheck::Through(proxy.clone()),
            Self::Client { proxy: None, .. } => TargetCheck::Connect,
        }
    }

    /// The name that a client tunnel's server must have, and the proxy that it is reached through.
    pub(super) fn way_to_server(&self) -> (Option<String>, Option<Proxy>) {
        match self {
            Self::Server { .. } => (None, None),
            Self::Client { server_name, proxy, .. } => (server_name.clone(), proxy.clone()),
        }
    }
}

/// What new connections are made with.
pub(super) enum Tls {
    Server(Server),
    Client(Client),
}

/// What makes a [`Tls`], but for the lists of revoked certificates.
#[derive(Clone)]
pub(super) enum Parts {
    /// Where clients are asked for no certificate, there is nothing to look up.
    Anonymous(Server),
    Server(Credential, Clients, Options),
    Client(Option<Credential>, Servers, Options),
}

impl Parts {
    /// With these lists and what is stapled. Reading lists may take a while.
    ///
    /// # Errors
    /// What cannot be used.
    pub(super) fn tls(&self, revocation: Revocation, staple: &Staple) -> Outcome<Tls> {
        let server = match self.clone() {
            Self::Anonymous(server) => server,
            Self::Server(credential, clients, options) => {
                Server::new(credential, Clients { revocation, ..clients }, options)?
            }
            Self::Client(credential, servers, options) => {
                let client = Client::to(Servers { revocation, ..servers }, credential, options)?;
                return Ok(Tls::Client(client));
            }
        };
        staple.attach(&server);
        Ok(Tls::Server(server))
    }

    /// What the peers' certificates have to lead to.
    pub(super) fn roots(&self) -> &[CertificateDer<'static>] {
        match self {
            Self::Anonymous(_) => &[],
            Self::Server(_, clients, _) => &clients.roots,
            Self::Client(_, servers, _) => &servers.roots,
        }
    }

    /// What is presented.
    pub(super) fn credential(&self) -> Option<&Credential> {
        match self {
            Self::Anonymous(server) => Some(server.credential()),
            Self::Server(credential, ..) => Some(credential),
            Self::Client(credential, ..) => credential.as_ref(),
        }
    }
}

/// What was read for a plan, and when it was.
pub(super) struct Material {
    pub(super) parts: Parts,
    /// The identity that is presented.
    pub(super) identity: Option<Identity>,
    /// What it was read from.
    pub(super) stamp: Stamp,
}

/// What tells whether something changed since: a file that was replaced or written, an identity that
/// was renewed.
#[derive(Clone, PartialEq)]
pub(super) struct Stamp {
    files: Vec<Option<FileStamp>>,
    pub(super) identity: Option<Identity>,
}

#[derive(Clone, PartialEq)]
pub(super) struct FileStamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Plan {
    /// Reads certificates, key and roots. May wait for an agent.
    ///
    /// # Errors
    /// What cannot be read or used.
    pub(super) fn load(&self, agents: &Agents) -> Outcome<Material> {
        // Taken before anything is read, so that a change meanwhile is noticed afterwards.
        let files = self.file_stamps();
        let Loaded { credential, roots, identity } = self.source.load(agents)?;
        let options = self.options.clone();
        let revocation = Revocation::default();
        let parts = match &self.side {
            Side::Server { access, .. } => {
                let credential = credential.ok_or_else(|| Failure::new("a server needs a certificate"))?;
                match access {
                    None => Parts::Anonymous(Server::anonymous(credential, options)?),
                    Some(access) => {
                        let clients = Clients {
                            roots: self.roots(roots, "clients are")?,
                            certificate_demanded: true,
                            server_certificates: false,
                            access: access.clone(),
                            revocation,
                        };
                        Parts::Server(credential, clients, options)
                    }
                }
            }
            Side::Client { servers, .. } => {
                let (roots, access) = (self.roots(roots, "the server is")?, servers.clone());
                Parts::Client(credential, Servers { roots, access, revocation }, options)
            }
        };
        Ok(Material { parts, stamp: Stamp { files, identity: identity.clone() }, identity })
    }

    /// What the OCSP answer about `parts` is kept in.
    pub(super) fn staple(&self, parts: &Parts) -> Staple {
        match self.side {
            Side::Server { staple: true, .. } => Staple::new(parts.roots().to_vec()),
            _ => Staple::none(),
        }
    }

    /// The files that it is made of.
    pub(super) fn files(&self) -> Vec<&Path> {
        let mut files = self.source.files();
        files.extend(self.source.secret_file());
        files.extend(self.cacert.as_deref());
        files.extend(self.revocation.sources().iter().filter_map(|source| match source {
            ListSource::File(path) => Some(path.as_path()),
            ListSource::Url(_) => None,
        }));
        files
    }

    /// What it connects to.
    pub(super) fn connects_to(&self) -> Vec<&Endpoint> {
        let lists = self.revocation.sources().iter().filter_map(|source| match source {
            ListSource::Url(url) => Some(url.endpoint()),
            ListSource::File(_) => None,
        });
        let beside = match &self.side {
            Side::Server { check: TargetCheck::Http(url), .. } => Some(url.endpoint()),
            Side::Client { proxy: Some(proxy), .. } => Some(proxy.endpoint()),
            _ => None,
        };
        lists.chain(beside).chain([&self.target]).collect()
    }

    /// Whether it connects to places that only its certificate or its identity names.
    pub(super) fn reaches_anywhere(&self) -> bool {
        self.renew || matches!(self.side, Side::Server { staple: true, .. })
    }

    /// Whether what it presents is an identity.
    pub(super) fn presents_identity(&self) -> bool {
        matches!(self.source, Source::Identity(_))
    }

    /// Whether it presents a certificate.
    pub(super) fn presents(&self) -> bool {
        !matches!(self.source, Source::Nothing)
    }

    /// Resolves the target's name, so that a wrong one is noticed at once.
    ///
    /// # Errors
    /// If it cannot be resolved.
    pub(super) async fn resolve(&self) -> Outcome {
        let through_proxy = matches!(self.side, Side::Client { proxy: Some(_), .. });
        let (Endpoint::Tcp { host, port }, false) = (&self.target, self.skip_resolve || through_proxy) else {
            return Ok(());
        };
        tokio::net::lookup_host((host.as_str(), *port)).await.map(drop).map_err(|e| {
            Failure::new(format!("cannot resolve the host of --target {}: {e}", self.target))
                .hint("--skip-resolve starts all the same, and resolves it for each connection")
        })
    }

    /// Whether what was read when `stamp` was taken has changed since.
    ///
    /// # Errors
    /// If the identity cannot be read any more.
    pub(super) fn has_changed(&self, stamp: &Stamp, agents: &Agents) -> Outcome<bool> {
        if self.file_stamps() != stamp.files {
            return Ok(true);
        }
        Ok(match &stamp.identity {
            Some(known) => agents.state()?.identities()?.get(&known.name)? != *known,
            None => false,
        })
    }

    fn roots(&self, own: Vec<CertificateDer<'static>>, whom: &str) -> Outcome<Vec<CertificateDer<'static>>> {
        let roots = match &self.cacert {
            Some(path) => input::certificate_ders(path)?,
            None => own,
        };
        if roots.is_empty() {
            return Err(Failure::usage(format!("nothing says by which roots {whom} to be trusted"))
                .hint("give the CA's certificate with --cacert FILE"));
        }
        Ok(roots)
    }

    fn file_stamps(&self) -> Vec<Option<FileStamp>> {
        self.source.files().into_iter().chain(self.cacert.as_deref()).map(FileStamp::of).collect()
    }
}

impl FileStamp {
    /// None if there is no such file.
    pub(super) fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { modified: metadata.modified().ok(), length: metadata.len(), inode: metadata.ino() })
    }
}
