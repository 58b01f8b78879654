//! OpenSSL's server and client.

use std::process::Command;

use crate::harness::{Home, Running};

/// `openssl s_server` as `peer`, demanding certificates that lead to `root`. It sends each line
/// back reversed, and says on standard error whom it accepted. Returns its port.
pub(crate) fn s_server(home: &Home, peer: &str, root: &str, more: &str) -> (Running, u16) {
    let command = home.program(
        "openssl",
        &format!(
            "s_server -accept 127.0.0.1:0 -rev -cert {peer}.pem -cert_chain {peer}.pem -key {peer}.key \
             -CAfile {root} -Verify 3 -verify_return_error {more}"
        ),
    );
    let running = Running::start(command);
    let line = running.stdout.wait_for("ACCEPT 127.0.0.1:");
    let port = line.rsplit(':').next().and_then(|port| port.trim().parse().ok()).expect("a port");
    (running, port)
}

/// `openssl s_client` to a server of ours at `port`, whose root is in `root`. It ends when the
/// server does.
pub(crate) fn s_client(home: &Home, port: u16, root: &str, version: &str, more: &str) -> Command {
    let version = version.replace('.', "_");
    home.program(
        "openssl",
        &format!(
            "s_client -connect 127.0.0.1:{port} -servername localhost -verify_hostname localhost -CAfile {root} \
             -verify_return_error -brief -ign_eof -tls{version} {more}"
        ),
    )
}
