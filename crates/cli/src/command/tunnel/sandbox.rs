//! What tunnels need of the system once they run. Everything else is closed to their process.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use enclasp_agent::Confinement;
use enclasp_keystore::agent::pin_file;
use enclasp_tunnel::Endpoint;

use super::agents::Agents;
use super::plan::Plan;
use super::process::Process;
use crate::failure::Outcome;

/// Where names are looked up: the resolver's files and libraries.
const RESOLVER: [&str; 6] = ["/etc", "/usr", "/lib", "/lib64", "/run/systemd/resolve", "/run/NetworkManager"];

/// The port that long answers about names come from.
const DNS: u16 = 53;

/// What is read of the system in any case: the name of this machine.
const HOSTNAME: [&str; 2] = ["/proc/sys/kernel/hostname", "/etc/hostname"];

/// What `plans` and `process` need, and the file that they came from; without what they listen on, unless
/// this process `listens` itself.
///
/// # Errors
/// If there is no state folder though an identity is presented.
pub(super) fn needs(
    plans: &[Plan],
    process: &Process,
    config: Option<&Path>,
    agents: &Agents,
    listens: bool,
) -> Outcome<Confinement> {
    let mut needs = Confinement { readable: HOSTNAME.map(PathBuf::from).into(), ..Confinement::default() };
    let private = Private::of(agents);
    let around = |file: &Path| private.around(file);
    let mut connect = Some(Vec::new());
    for plan in plans {
        needs.readable.extend(plan.files().into_iter().flat_map(around));
        let pins = plan.source.keys(agents).iter().filter_map(pin_file).collect::<Vec<_>>();
        needs.readable.extend(pins.iter().flat_map(|file| around(file)));
        if plan.presents_identity() {
            let identities = agents.state()?.root().join("identities");
            let kept = if plan.renew { &mut needs.writable } else { &mut needs.readable };
            kept.insert(identities);
        }
        // Whom a certificate names, and an authority, may be anywhere.
        connect = connect.filter(|_| !plan.reaches_anywhere());
        if let Some(connect) = &mut connect {
            connect.extend(plan.connects_to());
        }
    }
    needs.readable.extend(config.into_iter().flat_map(around));
    let listening = || plans.iter().map(|plan| &plan.listen).chain(process.listens_on()).filter(|_| listens);
    listening().for_each(|endpoint| listen(endpoint, &mut needs));
    if let Some(connect) = &mut connect {
        connect.extend(process.connects_to());
    }
    let is_address = |host: &str| host.is_empty() || host.parse::<IpAddr>().is_ok();
    let names = |endpoint: &&Endpoint| matches!(endpoint, Endpoint::Tcp { host, .. } if !is_address(host));
    if connect.iter().flatten().copied().chain(listening()).any(|endpoint| names(&endpoint))
        || connect.is_none()
    {
        needs.readable.extend(RESOLVER.map(PathBuf::from));
    }
    needs.connect = connect.map(|endpoints| {
        let ports = endpoints.into_iter().filter_map(|endpoint| match endpoint {
            Endpoint::Tcp { port, .. } => Some(*port),
            Endpoint::Unix(_) | Endpoint::Systemd(_) => None,
        });
        ports.chain([DNS]).collect()
    });
    // The service manager's socket may have no path.
    needs.abstract_sockets =
        std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| socket.as_encoded_bytes().starts_with(b"@"));
    Ok(needs)
}

fn listen(endpoint: &Endpoint, needs: &mut Confinement) {
    match endpoint {
        Endpoint::Tcp { port, .. } => drop(needs.listen.insert(*port)),
        Endpoint::Unix(path) => needs.sockets.extend(folder(path)),
        // It is open already.
        Endpoint::Systemd(_) => {}
    }
}

/// Folders that hold more than a tunnel's files: the user's own, and that of the keys, identities and logs.
struct Private {
    home: Option<PathBuf>,
    state: Option<PathBuf>,
}

impl Private {
    fn of(agents: &Agents) -> Self {
        let real = |folder: &Path| folder.canonicalize().ok();
        let home = std::env::home_dir().as_deref().and_then(real);
        Self { home, state: agents.state().ok().and_then(|state| real(state.root())) }
    }

    /// The folder of a file, and that which a link leads to: a file that is replaced by another of the same
    /// name is another one to the sandbox. Of a folder that holds what is private, and of the root folder, there
    /// is only the file.
    fn around(&self, file: &Path) -> Vec<PathBuf> {
        let real = file.canonicalize().ok();
        let whole = |folder: PathBuf| match self.is_in(&folder) {
            true => {
                tracing::info!(
                    file = %file.display(),
                    "its folder holds more than certificates and stays closed: what takes its place is seen after a restart"
                );
                file.to_owned()
            }
            false => folder,
        };
        [folder(file), real.as_deref().and_then(folder)].into_iter().flatten().map(whole).collect()
    }

    fn is_in(&self, folder: &Path) -> bool {
        let real = folder.canonicalize();
        let folder = real.as_deref().unwrap_or(folder);
        let mut private = self.home.iter().chain(&self.state);
        folder.parent().is_none()
            || private.any(|private| private.starts_with(folder))
            || self.state.as_ref().is_some_and(|state| folder.starts_with(state))
    }
}

fn folder(file: &Path) -> Option<PathBuf> {
    Some(std::path::absolute(file).ok()?.parent()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_the_root_folder_opens_nothing_else() {
        let state = "/home/ann/.local/state/enclasp";
        let private = Private { home: Some("/home/ann".into()), state: Some(state.into()) };
        for (file, opened) in [
            ("/cert.pem", "/cert.pem"),
            ("/etc/enclasp/cert.pem", "/etc/enclasp"),
            ("/home/cert.pem", "/home/cert.pem"),
            ("/home/ann/cert.pem", "/home/ann/cert.pem"),
            ("/home/ann/tls/cert.pem", "/home/ann/tls"),
            ("/home/ann/.local/state/cert.pem", "/home/ann/.local/state/cert.pem"),
            ("/home/ann/.local/state/enclasp/keys/a", "/home/ann/.local/state/enclasp/keys/a"),
        ] {
            assert_eq!(private.around(Path::new(file)), [PathBuf::from(opened)], "{file}");
        }
    }

    #[test]
    fn a_link_is_followed() {
        let private = Private { home: None, state: None };
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(folder.join("archive")).unwrap();
        std::fs::create_dir_all(folder.join("live")).unwrap();
        std::fs::write(folder.join("archive/cert1.pem"), "").unwrap();
        std::os::unix::fs::symlink("../archive/cert1.pem", folder.join("live/cert.pem")).unwrap();
        let opened = private.around(&folder.join("live/cert.pem"));
        assert_eq!(opened, [folder.join("live"), folder.join("archive")]);
    }
}
