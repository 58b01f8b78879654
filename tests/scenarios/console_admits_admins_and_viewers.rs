//! The console opens to certificates of the profiles admin and viewer, of this authority, while they are good, and to
//! nobody else, by no name but its own.

use crate::harness::{Home, Running, needs, run};

#[test]
fn console_admits_admins_and_viewers() {
    if !needs(&["openssl", "curl"]) {
        return;
    }
    let (home, console) = Home::with_console();
    for (name, profile) in [("alice", "admin"), ("bob", "viewer"), ("web", "client"), ("eve", "admin")] {
        home.operator(name, profile);
    }
    console.anonymous(&home, "/", &[]).is(403).shows("your browser showed none");
    console.get(&home, "web", "/", &[]).is(403).shows("of the profile client");

    // One of another authority does not get as far as that.
    home.authority("other", console.est_port);
    run(home.command("ca sign --dir other alice.csr --profile admin --out mallory.pem")).succeeds();
    std::fs::copy(home.path("alice.key"), home.path("mallory.key")).unwrap();
    let url = format!("https://localhost:{}/", console.port);
    run(home.program("curl", &format!("-sS --cacert ca/root.pem --cert mallory.pem --key mallory.key {url}")))
        .fails_somehow()
        .says("alert");

    for name in ["alice", "bob"] {
        let page = console.get(&home, name, "/", &[]).is(200).shows("Certificates issued a day");
        assert!(page.body.contains(&format!("CN={name}")), "it says who is here: {page:?}");
        for path in ["/devices", "/waiting", "/audit"] {
            console.get(&home, name, path, &[]).is(200);
        }
    }
    console.get(&home, "bob", "/tokens/new", &[]).is(403).shows("sees everything and changes nothing");

    // Every answer tells the browser what not to do with it.
    for (path, status) in [("/", 200), ("/style.css", 200), ("/nothing", 404), ("/certificates/00", 404)] {
        let answer = console.get(&home, "alice", path, &[]).is(status);
        for header in [
            "content-security-policy: default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; \
             frame-ancestors 'none'",
            "referrer-policy: same-origin",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
        ] {
            assert!(answer.head.contains(header), "{header}: {answer:?}");
        }
    }
    console.get(&home, "alice", "/devices", &["-X", "DELETE"]).is(405);

    // A name that somebody else's DNS has pointed here is not the console's.
    for host in ["evil.example", "localhost.evil.example", "localhost:1:2", "[::1", ""] {
        let header = if host.is_empty() { "Host:".to_owned() } else { format!("Host: {host}") };
        let answer = console.get(&home, "alice", "/", &["-H", &header]);
        assert!([400, 421].contains(&answer.status), "{host}: {answer:?}");
        assert!(!answer.body.contains("alice"), "{host}: {answer:?}");
    }
    for host in ["127.0.0.1:9000", "LOCALHOST", "[::1]:80"] {
        console.get(&home, "alice", "/", &["-H", &format!("Host: {host}")]).is(200);
    }

    // A revocation ends the rights of a connection that is open.
    let mut open = Running::start(home.program(
        "openssl",
        &format!(
            "s_client -quiet -connect localhost:{} -cert eve.pem -key eve.key -CAfile ca/root.pem",
            console.port
        ),
    ));
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    open.send(request);
    open.stdout.wait_for("HTTP/1.1 200 OK");
    home.enclasp("ca revoke --dir ca eve --reason cessationOfOperation").succeeds();
    open.send(request);
    open.stdout.wait_for("HTTP/1.1 403 Forbidden");
    console.get(&home, "eve", "/", &[]).is(403).shows("cessationOfOperation");

    // The audit log knows who was here, once for each visit.
    let log = home.enclasp("ca audit export --dir ca").succeeds().text();
    let count = |what: &str, who: &str| {
        log.lines().filter(|line| line.contains(what) && line.contains(&format!("CN={who}\""))).count()
    };
    for name in ["alice", "bob", "eve"] {
        assert_eq!(count("\"event\":\"console opened\"", name), 1, "{name}: {log}");
    }
    for name in ["web", "eve"] {
        assert_eq!(count("\"event\":\"refused\"", name), 1, "{name}: {log}");
    }
}
