//! What is not a module, and what a module does not have.

use std::path::{Path, PathBuf};

use enclasp_keystore::pkcs11::Pkcs11Keystore;
use enclasp_keystore::{Algorithm, Error, KeySpec, Keystore, Policy};

use crate::support::{Pins, with_softhsm};

fn refusal(module: &Path) -> String {
    let proofs = tempfile::tempdir().unwrap();
    let error = Pkcs11Keystore::open(module, proofs.path(), Pins::new("")).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.hint().unwrap().contains("module-path"));
    error.to_string()
}

#[test]
fn what_is_not_a_module_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("module.so");
    assert!(refusal(&path).contains("No such file"), "{}", refusal(&path));
    std::fs::write(&path, "not a library").unwrap();
    assert!(refusal(&path).contains("cannot be loaded"), "{}", refusal(&path));
    // A library that is loaded already, but speaks no PKCS#11.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc =
        maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("libc.so"));
    let libc = PathBuf::from(libc.unwrap());
    assert!(refusal(&libc).contains("not a PKCS#11 module"), "{}", refusal(&libc));
}

#[test]
fn a_missing_token_is_named_beside_those_that_are_there() {
    with_softhsm("modules::a_missing_token_is_named_beside_those_that_are_there", |place| {
        let pins = Pins::new("1234");
        let keystore = place.keystore(&pins);
        let uri = "pkcs11:token=elsewhere;object=web".parse().unwrap();
        let error = keystore.open(&uri).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        assert!(
            error.to_string().contains("elsewhere") && error.to_string().contains("token `t`"),
            "{error}"
        );
        assert_eq!(pins.asked(), 0, "no PIN is asked for before the token is found");
    });
}

#[test]
fn what_a_token_cannot_do_is_not_promised() {
    with_softhsm("modules::what_a_token_cannot_do_is_not_promised", |place| {
        let pins = Pins::new("1234");
        let keystore = place.keystore(&pins);
        let unsupported = |spec: &KeySpec, reason: &str| {
            let error = keystore.create(spec).map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{error}");
            assert!(error.to_string().contains(reason), "{error}");
        };
        let mut shared = KeySpec::new(place.uri("web"));
        shared.access.uids.push(1);
        unsupported(&shared, "who else");
        let policy = Policy { pin: true, ..Policy::default() };
        unsupported(&KeySpec { policy, ..KeySpec::new(place.uri("web")) }, "whole token");
        unsupported(&KeySpec::new("pkcs11:token=t".parse().unwrap()), "object=NAME");
        unsupported(&KeySpec::new("soft:name=web".parse().unwrap()), "`pkcs11:` keys only");
        unsupported(
            &KeySpec::new("pkcs11:token=t;object=a?module-path=/x.so".parse().unwrap()),
            "that of the module",
        );
        assert_eq!(pins.asked(), 0);
        let spec = KeySpec { algorithm: Algorithm::P256, ..KeySpec::new(place.uri("web")) };
        keystore.create(&spec).unwrap();
    });
}
