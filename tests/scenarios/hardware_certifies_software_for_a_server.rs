//! A server whose key is in a TPM has certificates made for a key in software, which signs for its
//! clients: the TPM's key authenticates the request for each of them.

use crate::harness::{Backend, Home};

#[test]
fn hardware_certifies_software_for_a_server() {
    let (home, _authority, _) = Home::with_serving_authority();
    let Some(tpm) = home.tpm() else { return };
    home.token("--cn db.internal --san dns:localhost --profile server");
    home.enclasp(&format!("enroll --token-file token --identity srv-tpm --key {}", tpm.key("srv")))
        .succeeds();
    let enroll = "enroll --with srv-tpm --identity srv --json";
    let enrolled = home.enclasp(enroll).succeeds().json();
    assert_eq!(enrolled["subject"], "CN=db.internal");
    assert_eq!(enrolled["key"], "soft:name=srv");
    home.enclasp(enroll).fails(1).says("identity `srv`");
    home.enclasp("enroll --with nobody --identity other").fails(1).says("there is no identity `nobody`");
    home.enclasp("enroll --identity other").fails(2);

    home.identity("laptop", "p256", "client");
    let backend = Backend::one_line();
    let (server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop",
        backend.port
    ));
    let signed_with = |key: &str| {
        let connect = format!("connect localhost:{port} --identity laptop");
        home.enclasp_with_input(&connect, "ping\n").succeeds().prints("heard: ping");
        server.stderr.wait_for(&format!("key=\"{key}\""));
    };
    signed_with("soft:name=srv");
    let renewed = home.enclasp("renew srv --rekey --json").succeeds().json();
    assert_eq!(renewed["key"], "soft:name=srv-r2");
    server.stderr.wait_for("the identity was renewed");
    signed_with("soft:name=srv-r2");
    let again = home.enclasp("renew srv --json").succeeds().json();
    assert_ne!(again["serial"], renewed["serial"]);

    // Without the TPM's key nothing is renewed here.
    home.enclasp(&format!("key delete {} --yes", tpm.key("srv"))).succeeds();
    home.enclasp("renew srv").fails(1).says("there is no key `tpm:");
    home.enclasp("identity delete srv-tpm").succeeds();
    home.enclasp("renew srv").fails(1).says("there is no identity `srv-tpm`");
}
