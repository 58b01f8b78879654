//! Each kind of access rule lets the right client through and no other, with both versions of TLS; the
//! log says whom it refused, by which rule and why.

use crate::harness::{Backend, Home, Running, VERSIONS, ask, run};

/// CN=web,OU=Ops,O=Acme for dns:web.acme, uri:spiffe://acme/prod/web and ip:10.0.0.9.
fn home_with_clients() -> Home {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    for (name, subject, names) in [
        (
            "web",
            "CN=web,OU=Ops,O=Acme",
            "--san dns:web.acme --san uri:spiffe://acme/prod/web --san ip:10.0.0.9",
        ),
        (
            "db",
            "CN=db,OU=Data,O=Acme",
            "--san dns:db.acme --san uri:spiffe://acme/prod/eu/db --san ip:10.0.0.8",
        ),
    ] {
        home.enclasp(&format!("key create soft:name={name}")).succeeds();
        home.enclasp(&format!(
            "csr create --key soft:name={name} --subject {subject} {names} --out {name}.csr"
        ))
        .succeeds();
        home.enclasp(&format!("ca sign --dir ca {name}.csr --profile client --out {name}.pem")).succeeds();
        home.import(name, "ca/root.pem");
    }
    home
}

#[test]
fn server_admits_by_rules() {
    let home = home_with_clients();
    let backend = Backend::one_line();
    let pem = home.path("web.pem");
    let digest = format!(
        "openssl x509 -in {} -pubkey -noout | openssl pkey -pubin -outform DER | openssl dgst -sha256 -r",
        pem.display()
    );
    let mut command = home.program("sh", "-c");
    command.arg(digest);
    let pin = run(command).succeeds().text();
    let pin = pin.split_whitespace().next().expect("a digest");
    for (flags, cause) in [
        (vec!["--allow-cn=web"], "CN=db is not among the allowed CNs (web)"),
        (vec!["--allow-cn=x", "--allow-ou=Ops"], "OU=Data is not among the allowed OUs (Ops)"),
        (vec!["--allow-dns=WEB.acme"], "DNS name=db.acme is not among the allowed DNS names (WEB.acme)"),
        (vec!["--allow-uri=spiffe://acme/*/web"], "is not among the allowed URIs (spiffe://acme/*/web)"),
        (vec!["--allow-uri-san=spiffe://acme/prod/*"], "URI=spiffe://acme/prod/eu/db is not among"),
        (vec!["--allow-ip=10.0.0.9"], "IP address=10.0.0.8 is not among the allowed IP addresses (10.0.0.9)"),
        (vec!["--allow-spki-pin", pin], "is not among the allowed SPKI pins"),
        (vec!["--allow", "ou=Ops and uri=spiffe://acme/**"], "does not hold: OU=Data"),
        (vec!["--allow", "cn=db and ou=Ops", "--allow-cn=web"], "`cn=db and ou=Ops` does not hold: OU=Data"),
    ] {
        let mut command = home.command(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv",
            backend.port
        ));
        command.args(&flags);
        let server = Running::start(command);
        let port = server.port();
        for (index, version) in VERSIONS.into_iter().enumerate() {
            let connect = |name: &str| {
                let line = format!("connect localhost:{port} --identity {name} --tls {version}");
                home.enclasp_with_input(&line, "ping\n")
            };
            connect("web").succeeds().prints("heard: ping");
            connect("db").fails(1).says("access_denied");
            let line = server.stderr.wait_for_count(cause, index + 1);
            for field in
                ["refused", "peer=\"127.0.0.1:", "subject=\"CN=db,OU=Data,O=Acme\"", "rule=\"", "cause="]
            {
                assert!(line.contains(field), "{field}: {line}");
            }
        }
    }
}

#[test]
fn without_authentication_anyone_gets_in_and_nobody_is_asked() {
    let home = home_with_clients();
    let backend = Backend::one_line();
    let (_server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --disable-authentication",
        backend.port
    ));
    for version in VERSIONS {
        let line = format!("connect localhost:{port} --identity web --tls {version} --json");
        let done = home.enclasp_with_input(&line, "ping\n").succeeds().prints("heard: ping");
        assert_eq!(done.json_said()["client_certificate"], "not-requested", "{done}");
    }
}

#[test]
fn a_client_tunnel_speaks_only_to_servers_that_a_rule_admits() {
    let home = home_with_clients();
    let backend = Backend::one_line();
    let (_server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-all",
        backend.port
    ));
    for (rules, cause) in [
        ("--verify-cn=srv", None),
        ("--verify-cn=db --verify-ou=Ops", None),
        ("--verify-ip=127.0.0.1", None),
        ("--verify-dns-san=db.acme", Some("DNS name=localhost is not among the allowed DNS names (db.acme)")),
        ("--verify-uri=spiffe://acme/**", Some("it has no URI; allowed are spiffe://acme/**")),
        ("--verify-spki-pin=sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", Some("SPKI pin=")),
    ] {
        for version in VERSIONS {
            let (client, plain) = home.start_listening(&format!(
                "client --listen 127.0.0.1:0 --target localhost:{port} --identity web --max-tls-version {version} {rules}"
            ));
            let answer = ask(plain, "ping\n");
            match cause {
                None => assert_eq!(answer, "heard: ping\n", "{rules}"),
                Some(cause) => {
                    assert_eq!(answer, "", "{rules}");
                    let line = client.stderr.wait_for(cause);
                    assert!(line.contains("subject=\"CN=srv,OU=Ops,O=Acme\""), "{line}");
                }
            }
        }
    }
}
