//! What `enclasp ca sign` issues is what OpenSSL reads and verifies: profile, names, chain, purpose.

use crate::harness::{ALGORITHMS, Home, needs, run};

#[test]
fn openssl_verifies_issued_certificates() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    for algorithm in ["p256", "p384", "ed25519", "rsa"] {
        for (profile, usage, good, bad) in [
            ("client", "TLS Web Client Authentication", "sslclient", "sslserver"),
            ("server", "TLS Web Server Authentication", "sslserver", "sslclient"),
        ] {
            home.peer("web", algorithm, profile);
            home.openssl("x509 -in web.pem -noout -text")
                .prints(usage)
                .prints("Digital Signature")
                .prints("DNS:localhost, IP Address:127.0.0.1")
                .prints("X509v3 Authority Key Identifier")
                .prints("X509v3 Subject Key Identifier");
            let verify = |purpose: &str| {
                run(home.program(
                    "openssl",
                    &format!(
                        "verify -x509_strict -purpose {purpose} -CAfile ca/root.pem -untrusted ca/issuing.pem web.pem"
                    ),
                ))
            };
            verify(good).succeeds().prints("web.pem: OK");
            verify(bad).fails_somehow();
        }
    }
    home.openssl("x509 -in ca/issuing.pem -noout -text")
        .prints("CA:TRUE, pathlen:0")
        .prints("Certificate Sign");
    // Keys of ours, too, and the file that `ca sign` writes is the chain that peers want.
    for algorithm in ALGORITHMS {
        home.identity(algorithm, algorithm, "client");
        home.openssl(&format!("verify -CAfile ca/root.pem -untrusted {algorithm}.pem {algorithm}.pem"));
    }
}

#[test]
fn serial_numbers_are_random_and_the_list_has_them() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer_request("web", "p256");
    let mut serials = Vec::new();
    for _ in 0..3 {
        home.enclasp("ca sign --dir ca web.csr --profile client --out web.pem").succeeds();
        let done = home.openssl("x509 -in web.pem -noout -serial");
        serials.push(done.text().trim().trim_start_matches("serial=").to_lowercase());
    }
    let listed = home.enclasp("ca list --dir ca --json").succeeds().json();
    let listed = listed.as_array().expect("a list").iter().map(|one| one["serial"].as_str().expect("text"));
    let mut listed: Vec<_> = listed.collect();
    listed.sort_unstable();
    serials.sort_unstable();
    assert_eq!(listed, serials);
    serials.dedup();
    assert_eq!(serials.len(), 3);
    assert!(serials.iter().all(|serial| serial.len() > 28), "{serials:?}");
}
