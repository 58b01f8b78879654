//! `--crl`: a client or server whose certificate a list names is refused, by a file or by a URL, from the
//! next handshake after the list has changed; strictly, those of whom no list speaks as well.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::{Backend, Elsewhere, Home, NOW, VERSIONS, ask, free_port, needs, run};

/// An authority of OpenSSL's, its clients `good` and `bad`, its server `srv`.
fn home() -> Home {
    let home = Home::new();
    let authority = Elsewhere::new(&home, "acme");
    for name in ["good", "bad"] {
        authority.identity(name, NOW);
    }
    authority.peer("srv", NOW);
    home.openssl(
        "ca -config acme-ca.cnf -gencrl -crl_lastupdate 20240101000000Z -crl_nextupdate 20491231235959Z -out older.crl",
    );
    home.write("acme-ca/crlnumber", "01\n");
    list(&home, "none.crl");
    home.openssl("ca -config acme-ca.cnf -revoke bad.pem");
    list(&home, "bad.crl");
    home.openssl("ca -config acme-ca.cnf -revoke srv.pem");
    list(&home, "srv.crl");
    home
}

fn list(home: &Home, name: &str) {
    home.openssl(&format!("ca -config acme-ca.cnf -gencrl -crldays 30 -out {name}"));
}

#[test]
fn revoked_certificates_are_refused() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = home();
    home.openssl("crl -in bad.crl -outform DER -out bad.der");
    let backend = Backend::one_line();
    for flags in ["--crl bad.crl", "--crl bad.der", "--crl none.crl --crl bad.crl --crl-strict"] {
        let (server, port) = home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --cert srv.pem --key srv.key --cacert acme-ca.pem --allow-all {flags}",
            backend.port
        ));
        for (index, version) in VERSIONS.into_iter().enumerate() {
            let line = |name: &str| format!("connect localhost:{port} --identity {name} --tls {version}");
            home.enclasp_with_input(&line("good"), "ping\n").succeeds().prints("heard: ping");
            home.enclasp_with_input(&line("bad"), "ping\n").fails(1).says("certificate_revoked");
            let line = server.stderr.wait_for_count("has been revoked", index + 1);
            assert!(line.contains("subject=\"CN=bad,"), "{line}");
        }
    }
}

#[test]
fn a_changed_list_counts_from_the_next_handshake() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = home();
    home.write("now.crl", home.read("none.crl"));
    let backend = Backend::one_line();
    let (server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --cert srv.pem --key srv.key --cacert acme-ca.pem --allow-all --crl now.crl",
        backend.port
    ));
    // A tunnel resumes its sessions.
    let clients = VERSIONS.map(|version| {
        home.start_listening(&format!(
            "client --listen 127.0.0.1:0 --target localhost:{port} --identity bad --max-tls-version {version}"
        ))
    });
    for (_, plain) in &clients {
        for _ in 0..2 {
            assert_eq!(ask(*plain, "ping\n"), "heard: ping\n");
        }
    }
    server.stderr.wait_for_count("resumed=true", clients.len());
    home.write("now.crl", home.read("bad.crl"));
    server.stderr.wait_for("new connections are looked up in the newer lists");
    for (index, (_, plain)) in clients.iter().enumerate() {
        assert_eq!(ask(*plain, "ping\n"), "");
        server.stderr.wait_for_count("has been revoked", index + 1);
    }
    // A list that cannot be read leaves the last one in use.
    home.write("now.crl", "rubbish");
    server.stderr.wait_for("now.crl: there is no list of revoked certificates");
    for (_, plain) in &clients {
        assert_eq!(ask(*plain, "ping\n"), "");
    }
}

#[test]
fn a_client_refuses_a_revoked_server() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = home();
    let backend = Backend::one_line();
    let (_server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --cert srv.pem --key srv.key --cacert acme-ca.pem --allow-all",
        backend.port
    ));
    for (list, answer) in [("bad.crl", "heard: ping\n"), ("srv.crl", "")] {
        let (client, plain) = home.start_listening(&format!(
            "client --listen 127.0.0.1:0 --target localhost:{port} --identity good --crl {list}"
        ));
        assert_eq!(ask(plain, "ping\n"), answer);
        if answer.is_empty() {
            client.stderr.wait_for("has been revoked");
        }
    }
}

#[test]
fn lists_are_fetched_ahead() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = home();
    let current = Arc::new(Mutex::new(home.read("none.crl")));
    let url = serve(current.clone());
    let backend = Backend::one_line();
    let (server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --cert srv.pem --key srv.key --cacert acme-ca.pem --allow-all \
         --crl {url} --crl-refresh 1s",
        backend.port
    ));
    let line = format!("connect localhost:{port} --identity bad");
    home.enclasp_with_input(&line, "ping\n").succeeds().prints("heard: ping");
    *current.lock().unwrap() = home.read("bad.crl");
    server.stderr.wait_for("new connections are looked up in the newer lists");
    home.enclasp_with_input(&line, "ping\n").fails(1).says("certificate_revoked");
    // One that cannot be had leaves the last one in use.
    current.lock().unwrap().clear();
    server.stderr.wait_for("answers 404");
    home.enclasp_with_input(&line, "ping\n").fails(1).says("certificate_revoked");
    // Nor does an older one, which somebody on the way may have kept, take its place.
    *current.lock().unwrap() = home.read("older.crl");
    server.stderr.wait_for("it is older than the one in use");
    home.enclasp_with_input(&line, "ping\n").fails(1).says("certificate_revoked");
}

/// It says so, and goes on: as was decided, with everybody or with nobody.
#[test]
fn a_dead_url_holds_up_neither_the_start_nor_a_renewed_certificate() {
    if !needs(&["openssl", "curl"]) {
        return;
    }
    let home = home();
    let backend = Backend::one_line();
    for (flag, mode, gets_in) in [("", "open", true), ("--crl-strict", "strict", false)] {
        let current = Arc::new(Mutex::new(Vec::new()));
        let url = serve(current.clone());
        let status = free_port();
        let (server, port) = home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --cert srv.pem --key srv.key --cacert acme-ca.pem --allow-all \
             --crl {url} --crl-refresh 1s {flag} --status http://127.0.0.1:{status}",
            backend.port
        ));
        server.stderr.wait_for("cannot have a list of revoked certificates");
        let reported = || {
            let url = format!("--silent --show-error --max-time 30 http://127.0.0.1:{status}/_status");
            run(home.program("curl", &url)).succeeds().json()["revocation"].clone()
        };
        let before = reported();
        assert_eq!(before["fail_mode"], mode, "{before}");
        assert_eq!(before["lists"][0]["source"], url, "{before}");
        assert_eq!(before["lists"][0]["error"], format!("{url}: {url} answers 404"), "{before}");
        let line = |name: &str| format!("connect localhost:{port} --identity {name}");
        let done = home.enclasp_with_input(&line("good"), "ping\n");
        assert_eq!(done.code == Some(0), gets_in, "{done}");
        // The certificate is taken up all the same.
        home.write("srv.pem", home.read("srv.pem"));
        server.stderr.wait_for("reloaded; new connections use it");

        *current.lock().unwrap() = home.read("bad.crl");
        server.stderr.wait_for("new connections are looked up in the newer lists");
        home.enclasp_with_input(&line("good"), "ping\n").succeeds().prints("heard: ping");
        home.enclasp_with_input(&line("bad"), "ping\n").fails(1).says("certificate_revoked");
        let now = reported();
        let list = &now["lists"][0];
        assert_eq!(
            (&list["issuer"], &list["number"], &list["revoked"]),
            (&"CN=acme".into(), &"2".into(), &1.into()),
            "{now}"
        );
        for time in ["last_fetch", "this_update", "next_update"] {
            assert!(list[time].as_str().is_some_and(|text| text.ends_with('Z')), "{time}: {now}");
        }
        assert!(list["error"].is_null(), "{now}");
    }
}

#[test]
fn strictly_who_is_on_no_list_of_the_issuer_is_refused() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = home();
    let other = Elsewhere::new(&home, "other");
    other.identity("stranger", NOW);
    home.write("both.pem", [home.read("acme-ca.pem"), home.read(&other.root())].concat());
    let backend = Backend::one_line();
    for (flags, gets_in) in [("--crl bad.crl", true), ("--crl bad.crl --crl-strict", false)] {
        let (server, port) = home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --cert srv.pem --key srv.key --cacert both.pem --allow-all {flags}",
            backend.port
        ));
        let line = format!("connect localhost:{port} --identity stranger --cacert acme-ca.pem");
        let done = home.enclasp_with_input(&line, "ping\n");
        assert_eq!(done.code == Some(0), gets_in, "{done}");
        if !gets_in {
            server.stderr.wait_for("there is no list of revoked certificates of its issuer");
        }
    }
    home.enclasp("server --listen 127.0.0.1:0 --target 127.0.0.1:1 --identity a --allow-all --crl-strict")
        .fails(2)
        .says("--crl-strict without a list would refuse everybody");
}

/// Serves the list at a URL, as HTTP; an empty one is not found.
fn serve(list: Arc<Mutex<Vec<u8>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let body = list.lock().unwrap().clone();
            let code = if body.is_empty() { "404 Not Found" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {code}\r\nContent-Length: {}\r\n\r\n", body.len());
            // Who asked may be gone.
            let _ = stream.write_all(&[answer.as_bytes(), &body].concat());
        }
    });
    format!("http://{at}/acme.crl")
}
