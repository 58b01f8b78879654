//! What the sandbox of an agent admits beside the agent's own folder: nothing for software keys,
//! and for hardware what its driver needs.

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::leaks;

/// What is admitted for code that is not ours.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// Whether there is such code, so that libraries may be loaded and devices be spoken to.
    pub(crate) foreign: bool,
    /// Files and folders to read, and to load libraries from.
    pub(crate) readable: Vec<PathBuf>,
    /// Files and folders to change.
    pub(crate) writable: Vec<PathBuf>,
    pub(crate) network: Network,
    /// How many bytes of memory it may take.
    pub(crate) memory: Option<u64>,
}

/// Which connections by TCP are admitted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Network {
    #[default]
    None,
    /// To these ports.
    Ports(Vec<u16>),
    Any,
}

/// What an operator admits for a keystore's driver beyond what it is known to need.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Folders to read and change, and libraries to load from them.
    pub folders: Vec<PathBuf>,
    /// Connections to any network address, as a network HSM needs.
    pub network: bool,
    /// How many bytes of memory the agent may take; 512 MiB otherwise. One that has taken more leaks, and
    /// ends.
    pub memory: Option<u64>,
}

/// Where libraries and their settings are, and how the system describes its hardware.
const SYSTEM: [&str; 9] =
    ["/usr", "/lib", "/lib64", "/etc", "/opt", "/sys", "/run/pcscd", "/dev/urandom", "/dev/random"];

/// Devices that modules and TPM drivers speak to.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/bus/usb", "/dev/tpmrm0", "/dev/tpm0"];

/// Environment variables by which modules are told the folder, or a file in the folder, that they
/// keep their tokens in: tpm2-pkcs11, kryoptic.
const STORES: [&str; 2] = ["TPM2_PKCS11_STORE", "KRYOPTIC_CONF"];

/// What a PKCS#11 module needs.
pub(crate) fn of_module(module: &Path, reach: &Reach) -> Needs {
    let mut needs = of_driver(reach);
    // The library itself, wherever it is, with those beside it.
    needs.readable.extend(module.canonicalize().ok().and_then(|real| Some(real.parent()?.to_owned())));
    for path in STORES.into_iter().filter_map(env::var_os).map(PathBuf::from) {
        needs.writable.extend(if path.is_dir() { Some(path) } else { path.parent().map(Path::to_owned) });
    }
    let home = env::var_os("HOME").map(PathBuf::from);
    needs.readable.extend(home.iter().map(|home| home.join(".config/pkcs11")));
    needs.readable.extend(env::var_os("OPENSC_CONF").map(PathBuf::from));
    let softhsm = env::var_os("SOFTHSM2_CONF").map(PathBuf::from);
    let softhsm = softhsm
        .into_iter()
        .chain(home.map(|home| home.join(".config/softhsm2/softhsm2.conf")))
        .chain([PathBuf::from("/etc/softhsm/softhsm2.conf")]);
    for configuration in softhsm {
        needs
            .writable
            .extend(fs::read_to_string(&configuration).ok().and_then(|text| tokens_of_softhsm(&text)));
        needs.readable.push(configuration);
    }
    needs
}

/// What the way to a TPM needs.
pub(crate) fn of_tpm(tcti: &str, reach: &Reach) -> Needs {
    let mut needs = of_driver(reach);
    let (kind, conf) = tcti.split_once(':').unwrap_or((tcti, ""));
    match kind {
        "device" => needs.writable.push(PathBuf::from(conf)),
        // The simulators have a second port, for what is not a command, after the first.
        "swtpm" | "mssim" => {
            let port = conf.split(',').find_map(|setting| setting.strip_prefix("port=")?.parse().ok());
            let port = port.unwrap_or(2321_u16);
            if needs.network == Network::None {
                needs.network = Network::Ports(vec![port, port.saturating_add(1)]);
            }
        }
        // The broker is on the system's bus.
        "tabrmd" => needs.writable.push("/run/dbus".into()),
        _ => {}
    }
    needs
}

fn of_driver(reach: &Reach) -> Needs {
    Needs {
        foreign: true,
        readable: SYSTEM.map(PathBuf::from).to_vec(),
        writable: DEVICES.iter().map(PathBuf::from).chain(reach.folders.clone()).collect(),
        network: if reach.network { Network::Any } else { Network::None },
        memory: Some(reach.memory.unwrap_or(leaks::MEMORY)),
    }
}

/// The folder of the tokens that a configuration of SoftHSM names.
fn tokens_of_softhsm(configuration: &str) -> Option<PathBuf> {
    configuration.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "directories.tokendir").then(|| PathBuf::from(value.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tpm_is_reached_where_its_tcti_says_and_nowhere_else() {
        let needs = |tcti: &str| of_tpm(tcti, &Reach::default());
        assert_eq!(needs("device:/dev/tpmrm7").network, Network::None);
        assert!(needs("device:/dev/tpmrm7").writable.contains(&PathBuf::from("/dev/tpmrm7")));
        assert_eq!(needs("swtpm:host=127.0.0.1,port=7000").network, Network::Ports(vec![7000, 7001]));
        assert_eq!(needs("swtpm").network, Network::Ports(vec![2321, 2322]));
    }

    #[test]
    fn the_tokens_of_softhsm_are_where_it_says() {
        let text = "# directories.tokendir = /no\nlog.level = INFO\n directories.tokendir = /var/tokens \n";
        assert_eq!(tokens_of_softhsm(text), Some("/var/tokens".into()));
        assert_eq!(tokens_of_softhsm("log.level = INFO"), None);
    }
}
