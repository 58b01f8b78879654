//! A TPM behind a resource manager (tpm2-abrmd, which runs over swtpm here): killed with -9 and started
//! again, with the TPM reset under it, and with the TPM's power cut. Neither the server whose key is
//! there nor the agent is started again.

use crate::harness::{Backend, Home, needs, run, run_with_input};
use crate::peers::s_client;

#[test]
fn resource_manager_is_missed_and_found_again() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("laptop", "p256", "client");
    let Some(mut tpm) = home.managed_tpm() else { return };
    tpm.keystore.identity("srv", "p256", "server");
    home.write("pin", "1234\n");
    let guarded = tpm.keystore.key("guarded");
    home.enclasp(&format!("key create {guarded} --pin --pin-file pin")).succeeds();
    let backend = Backend::one_line();
    let (server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop",
        backend.port
    ));
    let is_served = || {
        let certificate = "-cert laptop.pem -cert_chain laptop.pem -key laptop.key";
        let client = s_client(&home, port, "ca/root.pem", "1.3", certificate);
        run_with_input(client, b"ping\n").text().contains("heard: ping")
    };
    let sign = |key: &str| {
        let mut command = home.command(&format!("csr create --key {key} --subject CN=x --out x.csr"));
        command.env("ENCLASP_PIN_FILE", home.path("pin"));
        run(command)
    };
    let all_is_well = |after: &str| {
        assert!(is_served(), "{after}: {}", server.stderr.text());
        sign(&guarded).succeeds();
    };
    all_is_well("at first");
    let before = tpm.keystore.status();
    assert_eq!(before["protections"]["landlock"], "in force");

    for killed in 1..=2 {
        tpm.kill_manager();
        assert!(!is_served());
        let refused = server.stderr.wait_for_count("cannot reach the keystore at tpm:tcti=tabrmd", killed);
        assert!(refused.contains("refused"), "{refused}");
        sign(&guarded).fails(1).says("nothing answers there").says("hint: `systemctl status tpm2-abrmd`");
        tpm.start_manager();
        all_is_well("started again");
    }
    // And once more without anybody noticing the gap.
    tpm.kill_manager();
    tpm.start_manager();
    all_is_well("started again unnoticed");

    tpm.reset();
    all_is_well("reset");

    tpm.kill_manager();
    tpm.cut_power();
    tpm.start_manager();
    all_is_well("after a power cut");
    let after = tpm.keystore.status();
    assert_eq!(after["pid"], before["pid"], "it is the same agent");
}
