//! The suite that every backend passes, on three modules.

use enclasp_keystore::{Algorithm, conformance};

use crate::support::{Pins, with_kryoptic, with_softhsm, with_tpm};

#[test]
fn softhsm_conforms() {
    with_softhsm("conformance::softhsm_conforms", |place| {
        let keystore = place.keystore(&Pins::new("1234"));
        let algorithms = [Algorithm::P256, Algorithm::P384, Algorithm::Ed25519, Algorithm::Rsa];
        conformance::run(&keystore, |name| place.uri(name), &algorithms);
        conformance::one_of_several_at_once_makes_a_key(&keystore, place.uri("race"));
        let left = place.tool(&["--list-objects"]).stdout;
        assert!(!String::from_utf8_lossy(&left).contains("Object"), "nothing is left on the token");
        assert_eq!(std::fs::read_dir(place.folder.join("proofs")).unwrap().count(), 0, "nor any proof");
    });
}

#[test]
fn kryoptic_conforms() {
    with_kryoptic("conformance::kryoptic_conforms", |place| {
        let keystore = place.keystore(&Pins::new("1234"));
        let algorithms = [Algorithm::P256, Algorithm::P384, Algorithm::Rsa];
        conformance::run(&keystore, |name| place.uri(name), &algorithms);
        conformance::one_of_several_at_once_makes_a_key(&keystore, place.uri("race"));
    });
}

// An swtpm has room for three loaded objects, and no resource manager here: one key for each test.

#[test]
fn a_tpm_through_tpm2_pkcs11_conforms_with_p256() {
    tpm_conforms("conformance::a_tpm_through_tpm2_pkcs11_conforms_with_p256", Algorithm::P256);
}

#[test]
fn a_tpm_through_tpm2_pkcs11_conforms_with_p384() {
    tpm_conforms("conformance::a_tpm_through_tpm2_pkcs11_conforms_with_p384", Algorithm::P384);
}

#[test]
fn a_tpm_through_tpm2_pkcs11_conforms_with_rsa() {
    tpm_conforms("conformance::a_tpm_through_tpm2_pkcs11_conforms_with_rsa", Algorithm::Rsa);
}

fn tpm_conforms(test: &str, algorithm: Algorithm) {
    with_tpm(test, |place| {
        let keystore = place.keystore(&Pins::new("1234"));
        conformance::run(&keystore, |name| place.uri(name), &[algorithm]);
    });
}
