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
    let mut connect = Some(Vec::new());
    for plan in plans {
        needs.readable.extend(plan.files().into_iter().flat_map(around));
        let pins = plan.source.keys(agents).iter().filter_map(pin_file).collect::<Vec<_>>();
        needs.readable.extend(pins.iter().flat_map(|file| around(file)));
        if plan.presents_identity() {
            needs.writable.insert(agents.state()?.root().join("identities"));
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

/// The folder of a file, and that which a link leads to: a file that is replaced by another of the same name
/// is another one to the sandbox. In the root folder there is only the file.
fn around(file: &Path) -> Vec<PathBuf> {
    let whole = |folder: PathBuf| if folder.parent().is_none() { file.to_owned() } else { folder };
    let real = file.canonicalize().ok();
    [folder(file), real.as_deref().and_then(folder)].into_iter().flatten().map(whole).collect()
}

fn folder(file: &Path) -> Option<PathBuf> {
    Some(std::path::absolute(file).ok()?.parent()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_the_root_folder_opens_nothing_else() {
        assert_eq!(around(Path::new("/cert.pem")), [PathBuf::from("/cert.pem")]);
        assert_eq!(around(Path::new("/etc/enclasp/cert.pem")), [PathBuf::from("/etc/enclasp")]);
    }

    #[test]
    fn a_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(folder.join("archive")).unwrap();
        std::fs::create_dir_all(folder.join("live")).unwrap();
        std::fs::write(folder.join("archive/cert1.pem"), "").unwrap();
        std::os::unix::fs::symlink("../archive/cert1.pem", folder.join("live/cert.pem")).unwrap();
        assert_eq!(around(&folder.join("live/cert.pem")), [folder.join("live"), folder.join("archive")]);
    }
}
