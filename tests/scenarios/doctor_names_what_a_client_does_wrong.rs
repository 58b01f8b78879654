//! `doctor listen` explains clients of several programs, and `doctor capture` explains the same of
//! the same bytes.

use std::process::Command;

use crate::harness::{Home, Running, VERSIONS, needs, run};
use crate::peers::{Lie, misbehave};

#[test]
fn doctor_names_what_a_client_does_wrong() {
    if !needs(&["openssl", "curl", "gnutls-cli"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("good", "p256", "client");
    home.peer("rsa", "rsa", "client");
    home.peer("web", "p256", "server");
    let mut doctor = Doctor::start(&home);
    let port = doctor.port;
    let url = format!("https://localhost:{port}/");
    let curl = |more: &str| home.program("curl", &format!("-s {more} {url}"));
    let root = "--cacert state/doctor/ca.pem";
    for peer in ["good", "rsa"] {
        for version in VERSIONS {
            let versions = format!("--tlsv{version} --tls-max {version}");
            let done = curl(&format!("{root} --cert {peer}.pem --key {peer}.key {versions}"));
            let done = doctor.expects(done, None);
            assert!(done.contains("nothing is wrong"), "the client is told: {done}");
        }
    }
    doctor.expects(curl(&format!("{root} --cert web.pem --key web.key")), Some("EN-TLS-0025"));
    doctor.expects(curl(root), Some("EN-TLS-0008"));
    doctor.expects(curl("--cert good.pem --key good.key"), Some("EN-TLS-0005"));
    doctor.expects(home.program("curl", &format!("-s http://localhost:{port}/")), Some("EN-TLS-0001"));
    let gnutls = |more: &str| home.program("gnutls-cli", &format!("{more} -p {port} localhost"));
    let trusted = "--x509cafile state/doctor/ca.pem";
    doctor.expects(gnutls(&format!("{trusted} --x509certfile good.pem --x509keyfile good.key")), None);
    doctor.expects(gnutls(trusted), Some("EN-TLS-0008"));
    doctor.expects(gnutls("--x509certfile good.pem --x509keyfile good.key"), Some("EN-TLS-0006"));
    // The seed's client.
    misbehave(&home, port, "good", Lie::RsaClaim);
    let report = doctor.reports(Some("EN-TLS-0012"));
    assert!(report.contains("radar 25978027"), "{report}");
}

/// `doctor listen`, and how many connections it has reported.
struct Doctor<'a> {
    home: &'a Home,
    running: Running,
    port: u16,
    reported: usize,
}

impl<'a> Doctor<'a> {
    fn start(home: &'a Home) -> Self {
        let (running, port) =
            home.start_listening("doctor listen --listen 127.0.0.1:0 --json --record record");
        Self { home, running, port, reported: 0 }
    }

    /// Runs a client, and checks the verdict on it. Returns what the client printed.
    #[track_caller]
    fn expects(&mut self, client: Command, verdict: Option<&str>) -> String {
        let done = run(client);
        self.reports(verdict);
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Checks the next verdict, and that the recording gives the same.
    #[track_caller]
    fn reports(&mut self, verdict: Option<&str>) -> String {
        self.reported += 1;
        let line = self.running.stdout.wait_for_count("\"examined\":", self.reported);
        assert_eq!(first_error(&serde_json::from_str(&line).expect("JSON")).as_deref(), verdict, "{line}");
        let recorded = format!("record/connection-{}.pcapng", self.reported);
        let again = self.home.enclasp(&format!("doctor capture {recorded} --json"));
        let again: serde_json::Value = serde_json::from_slice(&again.stdout).expect("JSON");
        // A capture does not know that a certificate was wanted.
        if verdict != Some("EN-TLS-0008") {
            assert_eq!(first_error(&again[0]).as_deref(), verdict, "{recorded}: {again}");
        }
        line
    }
}

/// The code of the verdict.
fn first_error(report: &serde_json::Value) -> Option<String> {
    let first = report["findings"].as_array()?.first()?;
    (first["severity"] == "error").then(|| first["code"].as_str().unwrap_or_default().to_owned())
}
