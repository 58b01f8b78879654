//! `doctor key` shows what a device says of itself, and what is wrong before anybody signs.

use crate::harness::{Home, needs, run};

#[test]
fn doctor_key_tells_about_the_device() {
    let home = Home::new();
    for hardware in home.hardware() {
        let key = hardware.key("web");
        home.enclasp(&format!("key create {key}")).succeeds();
        let report = home.enclasp(&format!("doctor key {key} --json")).succeeds().json();
        let said = |what: &str| {
            let evidence = report["evidence"].as_array().expect("evidence");
            let of = evidence.iter().find(|evidence| evidence["what"] == what);
            of.and_then(|of| of["value"].as_str()).unwrap_or_else(|| panic!("no {what}: {report}")).to_owned()
        };
        let (device, tries) = match hardware.name() {
            "softhsm" => ("SoftHSM", "no wrong PIN since the last right one"),
            _ => ("TPM 2.0", "0 of 3 wrong PINs"),
        };
        assert!(said("device").contains(device), "{report}");
        assert!(said("wrong PINs").contains(tries), "{report}");
        assert!(!said("attestation").is_empty());
        assert!(said("latency").contains("20 signatures"), "{report}");
        assert!(said("ecdsa_secp256r1_sha256").starts_with("proved"), "{report}");
    }
}

/// A token counts a wrong PIN, and a TPM that has counted too many takes none.
#[test]
fn doctor_key_shows_the_counters_of_wrong_pins() {
    let home = Home::new();
    if let Some(token) = home.softhsm() {
        home.enclasp(&format!("key create {}", token.key("web"))).succeeds();
        home.end_agents();
        home.write("pin", "4321\n");
        let done = home.enclasp(&format!("doctor key {}", token.key("web"))).fails(1);
        let done = done
            .prints("error EN-KEY-0004")
            .prints("refused the PIN; the token has counted a wrong one since the last right one");
        assert!(done.text().contains("device: SoftHSM"), "{done}");
    }
    let Some(tpm) = home.tpm() else { return };
    if !needs(&["tpm2_dictionarylockout"]) {
        return;
    }
    home.write("right", "4711\n");
    home.write("wrong", "4712\n");
    home.enclasp(&format!("key create {} --pin-file right", tpm.key("web"))).succeeds();
    let port = tpm.key("").rsplit_once("port=").expect("a port").1.to_owned();
    let limits = "--setup-parameters --max-tries=1 --recovery-time=600 --lockout-recovery-time=600";
    let tried = |pin: &str| {
        home.end_agents();
        let mut command = home.command(&format!("doctor key {}", tpm.key("web")));
        command.env("ENCLASP_PIN_FILE", home.path(pin));
        run(command).fails(1)
    };
    home.end_agents();
    run(home.program("tpm2_dictionarylockout", &format!("-T swtpm:host=127.0.0.1,port={port} {limits}")))
        .succeeds();
    tried("wrong").prints("error EN-KEY-0004").prints("the PIN is wrong").prints("EN-KEY-0010");
    tried("right").prints("error EN-KEY-0003").prints("1 of 1 wrong PINs or power cuts before the TPM locks");
}

#[test]
fn doctor_key_explains_a_setup_that_is_not_complete() {
    let home = Home::new();
    for (key, said) in [
        ("pkcs11:token=t;object=web?module-path=/nowhere/module.so", "module-path"),
        ("pkcs11:token=t;object=web?module-path=/usr/lib/os-release", "module-path"),
        ("tpm:name=web;tcti=device:/nowhere/tpmrm0", "tss"),
        ("tpm:name=web;tcti=swtpm:host=127.0.0.1,port=1", "start the simulator"),
    ] {
        if key.starts_with("tpm:") && !cfg!(feature = "tpm") {
            continue;
        }
        home.enclasp(&format!("doctor key {key}")).fails(1).prints("EN-KEY-0002").prints(said);
    }
}
