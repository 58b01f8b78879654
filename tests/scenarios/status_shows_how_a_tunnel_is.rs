//! `--status`: over HTTPS with the tunnel's certificate, over HTTP and over a Unix socket; whether the
//! target answers, how many connections there were, and the end of the tunnel if that is allowed.

use serde_json::Value;

use crate::harness::{Backend, Done, Home, Running, VERSIONS, ask, eventually, free_port, needs, run};

fn curl(home: &Home, line: &str) -> Done {
    run(home.program("curl", &format!("--silent --show-error --max-time 30 {line}")))
}

fn server(home: &Home, target: &str, more: &str) -> Running {
    home.start(&format!(
        "server --listen 127.0.0.1:0 --target {target} --identity srv --allow-cn laptop {more}"
    ))
}

fn home() -> Home {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    home
}

#[test]
fn status_shows_how_a_tunnel_is() {
    if !needs(&["curl"]) {
        return;
    }
    let home = home();
    let backend = Backend::one_line();
    let port = free_port();
    let socket = home.path("status.sock");
    for (address, url) in [
        (format!("127.0.0.1:{port}"), format!("--cacert ca/root.pem https://localhost:{port}")),
        (format!("https://127.0.0.1:{port}"), format!("--cacert ca/root.pem https://localhost:{port}")),
        (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{port}")),
        (format!("unix:{}", socket.display()), format!("--unix-socket {} http://x", socket.display())),
    ] {
        let target = format!("127.0.0.1:{}", backend.port);
        let tunnel = server(&home, &target, &format!("--status {address}"));
        let listening = format!("127.0.0.1:{}", tunnel.port());
        let status = curl(&home, &format!("{url}/_status")).succeeds().json();
        for (field, expected) in [
            ("ok", Value::from(true)),
            ("status", "ok".into()),
            ("listen_address", listening.into()),
            ("forward_address", target.into()),
            ("backend_ok", true.into()),
            ("backend_status", "ok".into()),
            ("message", "listening".into()),
            ("revision", env!("CARGO_PKG_VERSION").into()),
        ] {
            assert_eq!(status[field], expected, "{field}: {status}");
        }
        assert!(status.get("backend_error").is_none(), "{status}");
        for field in ["time", "last_reload", "hostname"] {
            assert!(status[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {status}");
        }
        // Nobody allowed it.
        let code = curl(&home, &format!("-o /dev/null -w %{{http_code}} -X POST {url}/_shutdown"));
        assert_eq!(code.succeeds().text(), "404");
    }
}

#[test]
fn a_target_that_is_down_makes_it_critical() {
    if !needs(&["curl"]) {
        return;
    }
    let home = home();
    let (port, down) = (free_port(), free_port());
    let health = Backend::http();
    let ill = Backend::one_line();
    for (check, code) in [
        (String::new(), "503"),
        (format!("--target-status http://127.0.0.1:{}/health", health.port), "200"),
        (format!("--target-status http://127.0.0.1:{}/health", ill.port), "503"),
    ] {
        let target = format!("127.0.0.1:{down}");
        let tunnel = server(&home, &target, &format!("--status http://127.0.0.1:{port} {check}"));
        tunnel.port();
        let done = curl(&home, &format!("-w \\n%{{http_code}} http://127.0.0.1:{port}/_status")).succeeds();
        let text = done.text();
        let (body, found) = text.rsplit_once('\n').expect("a code");
        assert_eq!(found, code, "{done}");
        let status: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(status["ok"], code == "200", "{status}");
        assert_eq!(status["backend_error"].is_string(), code != "200", "{status}");
    }
}

#[test]
fn metrics_count_connections_in_every_form() {
    if !needs(&["curl"]) {
        return;
    }
    let home = home();
    home.identity("stranger", "p256", "client");
    let backend = Backend::one_line();
    let port = free_port();
    let more = format!("--status http://127.0.0.1:{port} --metrics-prefix acme");
    let tunnel = server(&home, &format!("127.0.0.1:{}", backend.port), &more);
    let tls = tunnel.port();
    for version in VERSIONS {
        let line = |name: &str| format!("connect localhost:{tls} --identity {name} --tls {version}");
        home.enclasp_with_input(&line("laptop"), "ping\n").succeeds();
        home.enclasp_with_input(&line("stranger"), "ping\n").fails(1);
    }
    let get = |path: &str| curl(&home, &format!("http://127.0.0.1:{port}{path}")).succeeds();
    let value = |name: &str| {
        let metrics = get("/_metrics").json();
        let found =
            metrics.as_array().expect("a list").iter().find(|metric| metric["metric"] == name).cloned();
        found.unwrap_or_else(|| panic!("{name} is not in {metrics}"))["value"].clone()
    };
    // A connection ends a moment after its client has.
    eventually("all have ended", || value("acme.conn.open") == 0 && value("acme.conn.lifetime.count") == 4);
    for (name, expected) in [
        ("acme.accept.total", 4),
        ("acme.accept.success", 2),
        ("acme.accept.error", 2),
        ("acme.accept.timeout", 0),
        ("acme.conn.timeout", 0),
        ("acme.conn.handshake.count", 2),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
    assert_eq!(get("/_metrics?format=json").json(), get("/_metrics/json").json());
    for path in ["/_metrics?format=prometheus", "/_metrics/prometheus"] {
        get(path).prints("\nacme_accept_success 2\n").prints("acme_conn_handshake_seconds_count 2");
    }
}

#[test]
fn it_can_end_the_tunnel_where_that_is_allowed() {
    if !needs(&["curl"]) {
        return;
    }
    let home = home();
    let backend = Backend::one_line();
    let port = free_port();
    let more = format!("--status http://127.0.0.1:{port} --enable-shutdown");
    let tunnel = server(&home, &format!("127.0.0.1:{}", backend.port), &more);
    tunnel.port();
    let code = |method: &str| {
        let url = format!("http://127.0.0.1:{port}/_shutdown");
        curl(&home, &format!("-o /dev/null -w %{{http_code}} -X {method} {url}")).succeeds().text()
    };
    assert_eq!(code("GET"), "405");
    assert_eq!(code("POST"), "200");
    tunnel.finish().succeeds();
}

#[test]
fn a_client_tunnel_has_one_too() {
    if !needs(&["curl"]) {
        return;
    }
    let home = home();
    let backend = Backend::one_line();
    let (_server, tls) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop",
        backend.port
    ));
    let port = free_port();
    let (_client, plain) = home.start_listening(&format!(
        "client --listen 127.0.0.1:0 --target localhost:{tls} --identity laptop --status http://127.0.0.1:{port}"
    ));
    assert_eq!(ask(plain, "ping\n"), "heard: ping\n");
    let status = curl(&home, &format!("http://127.0.0.1:{port}/_status")).succeeds().json();
    assert_eq!(status["ok"], true, "{status}");
    assert_eq!(status["forward_address"], format!("localhost:{tls}"));
}
