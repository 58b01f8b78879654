//! A program in C, compiled against our header, enrols a key behind a signer in C, renews, and connects with
//! it; one that refuses or lies is told apart.

use crate::harness::{needs, run};
use crate::peers::{Service, c, s_server};

#[test]
fn c_programs_speak_mutual_tls() {
    if !needs(&["openssl", "cc"]) {
        return;
    }
    let https = Service::admitting("own");
    let home = &https.home;
    let (server, port) = s_server(home, "srv", "ca/root.pem", "");
    home.token("--cn own --san dns:own");
    home.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out own.key");
    home.openssl("pkey -in own.key -pubout -outform DER -out own.der");
    let mut story = c(home, "story");
    story.arg("token").arg(port.to_string()).arg(https.port.to_string());
    run(home.user(story))
        .succeeds()
        .prints("absent: there is no key `soft:name=nobody`\nhint: ")
        .prints("invalid: text is NULL that has to be there\n")
        .prints("enrolled and renewed\nversion 12 as wanted gnip\nversion 13 as wanted gnip\n")
        .prints("HTTP 200 hello from the backend")
        .prints("\nreleased 1\n")
        .prints("4: cannot sign with `signer:name=own`: denied: no finger on the sensor\n")
        .prints("8: `signer:name=own` returned a signature for ecdsa_secp256r1_sha256 that does not verify");
    server.stderr.wait_for_count("CN = own", 2);
    home.openssl("req -in own.csr -noout -verify -subject").says("OK");
}
