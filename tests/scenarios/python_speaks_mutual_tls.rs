//! A program in Python makes a key, enrols with our authority, renews, and connects to servers that demand
//! certificates, in each version of TLS and over HTTP.

use crate::harness::{needs, run};
use crate::peers::{Service, python, s_server};

#[test]
fn python_speaks_mutual_tls() {
    if !needs(&["openssl", "python3"]) {
        return;
    }
    let https = Service::admitting("laptop");
    let home = &https.home;
    let (server, port) = s_server(home, "srv", "ca/root.pem", "");
    let token = home.token("--cn laptop --san dns:laptop");
    let mut story = python("story");
    story.arg("token").arg(port.to_string()).arg(https.port.to_string());
    let done = run(home.user(story)).succeeds();
    let done = done
        .prints("absent: there is no key `soft:name=laptop`\nhint: ")
        .prints("enrolled CN=laptop soft:name=laptop ecdsa_secp256r1_sha256\nrenewed\n")
        .prints("TLSv1.2 ecdsa_secp256r1_sha256 True gnip\nclosed: ")
        .prints("TLSv1.3 ecdsa_secp256r1_sha256 True gnip\nclosed: ")
        .prints("HTTP 200 hello from the backend")
        .prints("untrusted: the certificate of localhost:")
        .prints("token: this is not an Enclasp token");
    assert!(!done.text().contains(&token), "a token is not repeated: {done}");
    server.stderr.wait_for_count("CN = laptop", 2);
    https.tunnel.stderr.wait_for("CN=laptop");
    home.openssl("req -in laptop.csr -noout -verify -subject").says("OK");
}
