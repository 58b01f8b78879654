//! The TPM keystore against software TPMs (swtpm), tpm2-tools and tpm2-openssl.

mod odd_tpms;
mod other_tools;
mod pins;
#[path = "../../../../tests/harness/ports.rs"]
mod ports;
mod recovery;
mod refusals;
mod support;
mod waiting;

use enclasp_keystore::{Algorithm, KeySpec, Keystore, Origin, conformance};
use support::{Swtpm, nobody, sign, uri};

#[test]
fn conforms() {
    let Some(tpm) = Swtpm::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let keystore = tpm.keystore(folder.path(), nobody()).unwrap();
    conformance::run(&keystore, uri, &[Algorithm::P256, Algorithm::P384, Algorithm::Rsa]);
    drop(keystore);
    assert_eq!(support::files(folder.path()), ["proofs", "storage-root.pub"]);
    assert_eq!(support::files(&folder.path().join("proofs")), [""; 0]);
}

#[test]
fn keys_and_proofs_outlive_the_keystore() {
    let Some(tpm) = Swtpm::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let made = {
        let keystore = tpm.keystore(folder.path(), nobody()).unwrap();
        let spec = KeySpec { algorithm: Algorithm::Rsa, ..KeySpec::new(uri("web")) };
        keystore.create(&spec).unwrap().info().clone()
    };
    assert_eq!(made.origin, Origin::Generated);
    assert_eq!(made.usable_schemes(), Algorithm::Rsa.schemes(), "swtpm can do them all");
    let keystore = tpm.keystore(folder.path(), nobody()).unwrap();
    assert_eq!(keystore.list().unwrap(), std::slice::from_ref(&made));
    let key = keystore.open(&uri("web")).unwrap();
    assert_eq!(*key.info(), made);
    sign(&*key, made.usable_schemes()[0]).unwrap();
}

#[test]
fn persistent_keys_live_at_their_handles() {
    let Some(tpm) = Swtpm::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let keystore = tpm.keystore(folder.path(), nobody()).unwrap();
    let by_handle = |name: &str| format!("tpm:name={name};handle=0x81000010").parse().unwrap();
    let key = keystore.create(&KeySpec::new(by_handle("web"))).unwrap();
    assert!(!folder.path().join("web.tss2.pem").exists());
    let taken = keystore.create(&KeySpec::new(by_handle("other"))).map(|_| ()).unwrap_err();
    assert!(matches!(taken, enclasp_keystore::Error::Exists { .. }), "{taken}");
    // By its name alone, as well.
    let again = keystore.open(&uri("web")).unwrap();
    assert_eq!(again.info().spki, key.info().spki);
    sign(&*again, again.info().usable_schemes()[0]).unwrap();
    keystore.delete(&uri("web")).unwrap();
    let gone = keystore.open(&by_handle("web")).map(|_| ()).unwrap_err();
    assert!(matches!(gone, enclasp_keystore::Error::Absent { .. }), "{gone}");
}
