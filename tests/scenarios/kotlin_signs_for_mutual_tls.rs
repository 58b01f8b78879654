//! A program in Kotlin enrols a key of its own JVM and connects with it, by a signer in Kotlin. One that
//! refuses, throws, lies about its scheme or does not come back is an error of its own connection, and of
//! no other.

use crate::harness::{needs, run};
use crate::peers::{JNA, Service, kotlin, s_server};

#[test]
fn kotlin_signs_for_mutual_tls() {
    if !needs(&["openssl", "java", "npm", JNA]) {
        return;
    }
    let https = Service::admitting("phone");
    let home = &https.home;
    let servers = [s_server(home, "srv", "ca/root.pem", ""), s_server(home, "srv", "ca/root.pem", "")];
    home.token("--cn phone --san dns:phone");
    let ports = servers.iter().map(|(_, port)| *port).chain([https.port]);
    let mut program = kotlin("Main");
    program.arg("token").args(ports.map(|port| port.to_string()));
    run(home.user(program))
        .succeeds()
        .prints("proved [ecdsa_secp256r1_sha256, ecdsa_secp256r1_sha384]\n")
        .prints("enrolled CN=phone signer:name=phone\nrenewed\n")
        .prints("TLSv1.2 ecdsa_secp256r1_sha256 true gnip\nTLSv1.3 ecdsa_secp256r1_sha256 true gnip\n")
        .prints("HTTP 200 hello from the backend")
        .prints("refuses: Denied: cannot sign with `signer:name=phone`: denied: no finger on the sensor\n")
        .prints("throws: Signer: the signer of `signer:name=phone` failed: ")
        .prints("the vault is empty xxx")
        .prints(
            "\nlies: WrongSignature: `signer:name=phone` returned a signature for ecdsa_secp256r1_sha256 ",
        )
        .prints("meanwhile TLSv1.3 ecdsa_secp256r1_sha256 true gnip\n")
        .prints("blocks: Deadline: cannot sign with `signer:name=phone`: no answer before the deadline\n")
        .prints("agent soft:name=desktop [ed25519]\n");
    servers[0].0.stderr.wait_for_count("CN = phone", 3);
    https.tunnel.stderr.wait_for("CN=phone");
    home.openssl("req -in phone.csr -noout -verify -subject").says("OK");
}
