//! A unit file that was written for ghostunnel starts ours when the program's name is changed: flags
//! before or after the command, Go's durations, hidden names, its environment variables.

use crate::harness::{Backend, Home, Running, ask};

#[test]
fn flags_of_ghostunnel_are_understood() {
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let backend = Backend::one_line();
    let target = format!("--target=127.0.0.1:{}", backend.port);
    for line in [
        format!(
            "--cert srv.pem --key srv.key --cacert ca/root.pem --connect-timeout=500ms server --listen 127.0.0.1:0 {target} --allow-cn laptop"
        ),
        format!(
            "--shutdown-timeout 1h30m --timed-reload=300s server --cert=srv.pem --key=srv.key --cacert=ca/root.pem {target} \
             --allow-dns-san localhost --listen=127.0.0.1:0 --max-concurrent-conns 100 --max-tls-version TLS1.3"
        ),
        format!(
            "--listen 127.0.0.1:0 {target} --allow-ou=Ops --allow-ou=Dev --state state --cacert ca/root.pem server --cert srv.pem --key srv.key"
        ),
    ] {
        let (_server, port) = home.start_listening(&line);
        let client = format!("connect localhost:{port} --identity laptop");
        home.enclasp_with_input(&client, "ping\n").succeeds().prints("heard: ping");
    }
}

#[test]
fn its_environment_variables_stand_in_for_flags() {
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    home.identity("other", "p256", "server");
    home.identity("laptop", "p256", "client");
    home.openssl("pkcs12 -export -inkey srv.key -in srv.pem -passout pass:secret -out srv.p12");
    let backend = Backend::one_line();
    let line = format!("server --listen 127.0.0.1:0 --target 127.0.0.1:{} --allow-cn laptop", backend.port);
    let served_as = |line: &str, variables: &[(&str, &str)]| {
        let mut command = home.command(line);
        command.envs(variables.iter().copied());
        let server = Running::start(command);
        let port = server.port();
        let client = format!("connect localhost:{port} --identity laptop --json");
        let done = home.enclasp_with_input(&client, "ping\n").succeeds().prints("heard: ping");
        done.json_said()["peer"]["chain"][0]["subject"].as_str().expect("a subject").to_owned()
    };
    let files = [("CERT_PATH", "srv.pem"), ("KEY_PATH", "srv.key"), ("CACERT_PATH", "ca/root.pem")];
    assert_eq!(served_as(&line, &files), "CN=srv,O=Acme");
    let keystore =
        [("KEYSTORE_PATH", "srv.p12"), ("KEYSTORE_PASS", "secret"), ("CACERT_PATH", "ca/root.pem")];
    assert_eq!(served_as(&line, &keystore), "CN=srv,O=Acme");
    // What the command line names has the word.
    assert_eq!(served_as(&format!("{line} --identity other"), &files), "CN=other,OU=Ops,O=Acme");
}

/// The names that it hides, and the name that a client asks for.
#[test]
fn its_older_names_do_what_they_say() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let backend = Backend::one_line();
    for (allow, verify, gets_through) in [
        ("--allow-ip-san 127.0.0.1", "--verify-ip-san 127.0.0.1 --override-server-name localhost", true),
        ("--allow-ip-san 127.0.0.1", "--verify-dns-san localhost --server-name localhost", true),
        ("--allow-ip-san 192.0.2.1", "", false),
        ("--allow-uri-san spiffe://acme/**", "", false),
        ("--allow-dns-san localhost", "--verify-uri-san spiffe://acme/**", false),
        ("--allow-dns-san localhost", "--override-server-name other.example", false),
    ] {
        let (_server, tls) = home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv {allow}",
            backend.port
        ));
        let (_client, plain) = home.start_listening(&format!(
            "client --listen 127.0.0.1:0 --target localhost:{tls} --identity laptop {verify}"
        ));
        let answer = if gets_through { "heard: ping\n" } else { "" };
        assert_eq!(ask(plain, "ping\n"), answer, "{allow} {verify}");
    }
}
