//! The suite that every backend passes, on three modules.

use enclasp_keystore::{Algorithm, conformance};

use crate::support::{Pins, with_softhsm};

#[test]
fn softhsm_conforms() {
    with_softhsm("conformance::softhsm_conforms", |place| {
        let keystore = place.keystore(&Pins::new("1234"));
        let algorithms = [Algorithm::P256, Algorithm::P384, Algorithm::Ed25519, Algorithm::Rsa];
        conformance::run(&keystore, |name| place.uri(name), &algorithms);
        let left = place.tool(&["--list-objects"]).stdout;
        assert!(!String::from_utf8_lossy(&left).contains("Object"), "nothing is left on the token");
        assert_eq!(std::fs::read_dir(place.folder.join("proofs")).unwrap().count(), 0, "nor any proof");
    });
}
