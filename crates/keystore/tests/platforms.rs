//! The suite that every backend passes, on the keystore of the machine itself. Keys are made and deleted
//! there, so it runs only when asked to: `cargo test -p enclasp-keystore --test platforms -- --ignored`.
#![cfg(any(target_vendor = "apple", windows))]

use enclasp_keystore::{Algorithm, KeyUri, conformance};

#[cfg(target_vendor = "apple")]
#[test]
#[ignore = "needs a Secure Enclave, and a signature with the entitlement keychain-access-groups"]
fn the_secure_enclave_conforms() {
    use enclasp_keystore::apple::{AppleConfig, AppleKeystore};

    let folder = tempfile::tempdir().unwrap();
    let keystore = AppleKeystore::open(AppleConfig::new(folder.path())).unwrap();
    let uri = |name: &str| KeyUri::apple(&format!("enclasp-{name}")).unwrap();
    conformance::run(&keystore, uri, &[Algorithm::P256]);
}

#[cfg(windows)]
#[test]
#[ignore = "makes keys in the user's profile"]
fn software_keys_conform() {
    windows_conforms("software", &[Algorithm::P256, Algorithm::P384, Algorithm::Rsa]);
}

#[cfg(windows)]
#[test]
#[ignore = "makes keys in the TPM"]
fn the_tpm_conforms() {
    windows_conforms("platform", &[Algorithm::P256, Algorithm::Rsa]);
}

#[cfg(windows)]
fn windows_conforms(provider: &str, algorithms: &[Algorithm]) {
    use enclasp_keystore::windows::{WindowsConfig, WindowsKeystore};

    let folder = tempfile::tempdir().unwrap();
    let keystore = WindowsKeystore::open(WindowsConfig::new(folder.path())).unwrap();
    let provider = Some(provider).filter(|provider| *provider != "platform");
    let uri = |name: &str| KeyUri::windows(&format!("enclasp-{name}"), provider).unwrap();
    conformance::run(&keystore, uri, algorithms);
}
