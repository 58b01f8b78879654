//! `--staple-ocsp`: clients that ask for it get the OCSP answer about the tunnel's certificate in the handshake, in
//! both versions of TLS; OpenSSL and curl verify it. A revoked certificate has none.

use crate::harness::{Backend, Done, Home, VERSIONS, eventually, needs, run, run_with_input};

fn asks(home: &Home, port: u16, version: &str) -> Done {
    let flag = format!("-tls{}", version.replace('.', "_"));
    let line = format!(
        "s_client -connect 127.0.0.1:{port} -servername localhost -status -CAfile ca/root.pem {flag}"
    );
    run_with_input(home.program("openssl", &line), b"")
}

fn curl(home: &Home, port: u16) -> Done {
    let line = format!(
        "--silent --show-error --max-time 30 --cert-status --cacert ca/root.pem https://localhost:{port}/"
    );
    run(home.program("curl", &line))
}

#[test]
fn tunnel_staples_its_ocsp_answer() {
    if !needs(&["openssl", "curl"]) {
        return;
    }
    let (home, port, public) = Home::with_public_authority(2);
    let backend = Backend::http();
    home.identity("srv", "p256", "server");
    let tunnel = |flags: &str| {
        home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --disable-authentication {flags}",
            backend.port
        ))
    };
    // Nobody answers yet: it serves, and tries again.
    let (waiting, to_waiting) = tunnel("--staple-ocsp");
    waiting.stderr.wait_for("cannot have an OCSP answer to staple; it is tried again");
    curl(&home, to_waiting).fails(91);
    let ca = home.serve("ca", port);
    ca.stderr.wait_for(&format!("CRLs and OCSP on {public}"));
    eventually("the answer is there", || curl(&home, to_waiting).code == Some(0));

    let (_stapling, to_stapling) = tunnel("--staple-ocsp");
    let (_bare, to_bare) = tunnel("");
    for version in VERSIONS {
        asks(&home, to_stapling, version)
            .prints("OCSP Response Status: successful")
            .prints("Cert Status: good");
        asks(&home, to_bare, version).prints("OCSP response: no response sent");
    }
    curl(&home, to_stapling).succeeds().prints("hello from the backend");
    curl(&home, to_bare).fails(91);

    home.enclasp("ca revoke --dir ca srv").succeeds();
    eventually("the responder says so", || {
        let (late, to_late) = tunnel("--staple-ocsp");
        let is_said = late.stderr.text().contains("was revoked at");
        if is_said {
            curl(&home, to_late).fails(91);
        }
        is_said
    });
}

#[test]
fn a_certificate_that_names_no_responder_is_refused() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.enclasp("server --listen 127.0.0.1:0 --target 127.0.0.1:1 --identity srv --allow-all --staple-ocsp")
        .fails(1)
        .says("names no OCSP responder")
        .says("hint: leave out --staple-ocsp");
}
