//! An authority that serves tells Prometheus what it does and how its keys and its database are, and writes its
//! audit log to a file, too.

use std::collections::BTreeMap;

use crate::harness::{Home, eventually, needs, run};

/// The samples of `/metrics`, by name and labels.
fn scrape(home: &Home, port: u16) -> BTreeMap<String, f64> {
    let text =
        run(home.program("curl", &format!("-sS --fail http://127.0.0.1:{port}/metrics"))).succeeds().text();
    let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
    });
    samples.collect()
}

#[test]
fn metrics_and_the_log_tell_what_happens() {
    if !needs(&["curl"]) {
        return;
    }
    let (home, port, _) = Home::with_public_authority(3);
    let server = home
        .start(&format!("ca serve --dir ca --listen-metrics 127.0.0.1:{} --audit-file log.jsonl", port + 2));
    server.stderr.wait_for("metrics on 127.0.0.1:");
    let token = home.token("--cn laptop");
    home.enclasp("enroll --token-file token --identity laptop").succeeds();
    home.enclasp("renew laptop").succeeds();
    home.write("garbage", "?!");
    home.write("curlrc", format!("user = \"any:{token}\"\n"));
    let refused = run(home.program(
        "curl",
        &format!(
            "-sS -K curlrc --cacert ca/root.pem -H Content-Type:application/pkcs10 --data-binary @garbage \
             -o answer -w %{{http_code}} https://127.0.0.1:{port}/.well-known/est/simpleenroll"
        ),
    ));
    refused.succeeds().prints("400");
    let never = format!(
        "-sS --cacert ca/root.pem -o answer -w %{{http_code}} https://127.0.0.1:{port}/.well-known/est/serverkeygen"
    );
    run(home.program("curl", &never)).succeeds().prints("501");

    let samples = scrape(&home, port + 2);
    let value = |name: &str| *samples.get(name).unwrap_or_else(|| panic!("no {name}: {samples:?}"));
    for operation in ["simpleenroll", "simplereenroll"] {
        let labels = format!("operation=\"{operation}\"");
        assert_eq!(value(&format!("enclasp_ca_answer_seconds_count{{{labels}}}")), 1.0);
        assert_eq!(value(&format!("enclasp_ca_answer_seconds_bucket{{{labels},le=\"+Inf\"}}")), 1.0);
        assert!(value(&format!("enclasp_ca_answer_seconds_sum{{{labels}}}")) > 0.0);
    }
    assert_eq!(value("enclasp_ca_refusals_total{operation=\"simpleenroll\",reason=\"bad-request\"}"), 1.0);
    assert_eq!(value("enclasp_ca_refusals_total{operation=\"serverkeygen\",reason=\"other\"}"), 1.0);
    assert!(!samples.contains_key("enclasp_ca_answer_seconds_count{operation=\"serverkeygen\"}"));
    assert_eq!(value("enclasp_ca_database_up"), 1.0);
    for key in ["issuing", "server", "ocsp", "audit"] {
        assert_eq!(value(&format!("enclasp_ca_key_usable{{key=\"{key}\"}}")), 1.0);
    }
    assert!(samples.keys().any(|name| name.starts_with("enclasp_ca_crl_age_seconds{issuer=")));
    assert_eq!(value("enclasp_ca_waiting"), 0.0);

    // What this server recorded is in its file, as in the export.
    let exported = home.enclasp("ca audit export --dir ca").succeeds().text();
    let log = String::from_utf8(home.read("log.jsonl")).unwrap();
    for by in ["\"issued_by\":\"token\"", "\"issued_by\":\"renewal\""] {
        let line = log.lines().find(|line| line.contains(by)).unwrap_or_else(|| panic!("no {by}: {log}"));
        assert!(exported.lines().any(|exported| exported == line), "{line}");
    }
    // A key that is gone is noticed.
    home.enclasp(&format!("key delete {} --yes", audit_key(&home))).succeeds();
    eventually("the metrics say so", || {
        scrape(&home, port + 2).get("enclasp_ca_key_usable{key=\"audit\"}") == Some(&0.0)
    });
}

fn audit_key(home: &Home) -> String {
    let settings = String::from_utf8(home.read("ca/authority.toml")).unwrap();
    let line = settings.lines().find_map(|line| line.strip_prefix("audit-key = ")).expect("an audit key");
    line.trim_matches('"').to_owned()
}
