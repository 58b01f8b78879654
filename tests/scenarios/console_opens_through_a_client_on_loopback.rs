//! The first admin: `ca init` prints a token, `enclasp enroll` makes an identity of it, whose key stays in the agent;
//! and since no browser can have that key, `enclasp client` on loopback opens the console for one.

use crate::harness::{Home, free_ports, needs, run};

#[test]
fn console_opens_through_a_client_on_loopback() {
    if !needs(&["curl"]) {
        return;
    }
    let home = Home::new();
    let port = free_ports(1);
    let made = home
        .enclasp(&format!("--json ca init --dir ca --name Acme --url https://127.0.0.1:{port}"))
        .succeeds()
        .json();
    home.write("token", made["admin_token"].as_str().expect("a token"));
    let console = home.serve_console(port);
    home.enclasp("enroll --token-file token --identity admin").succeeds();
    home.enclasp("enroll --token-file token --identity again").fails(1).says("used already");

    let (_client, local) = home.start_listening(&format!(
        "client --listen 127.0.0.1:0 --target localhost:{} --identity admin",
        console.port
    ));
    let curl = |host: &str, path: &str, more: &[&str]| {
        let mut curl = home.program("curl", "-sS -w");
        curl.arg("\n%{http_code}").args(more).arg(format!("http://{host}:{local}{path}"));
        let text = run(curl).succeeds().text();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse::<u16>().unwrap(), body.to_owned())
    };
    for host in ["127.0.0.1", "localhost"] {
        let (status, body) = curl(host, "/", &[]);
        assert_eq!(status, 200, "{body}");
        assert!(body.contains("CN=admin"), "{body}");
    }
    let (_, form) = curl("127.0.0.1", "/tokens/new", &[]);
    let token =
        form.split("name=\"form-token\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let fields =
        format!("form-token={token}&common_name=laptop&names=&profile=client&lifetime=10m&confirmed=yes");
    let make = |origin: &str, host: &str| {
        let headers = [format!("Origin: {origin}"), format!("Host: {host}")];
        curl("127.0.0.1", "/tokens/new", &["-d", &fields, "-H", &headers[0], "-H", &headers[1]])
    };
    let own = format!("127.0.0.1:{local}");
    // Pages of the world, of other programs on this machine, and of a name that was pointed at this machine.
    for (origin, host, refused) in [
        ("https://evil.example".to_owned(), own.clone(), 403),
        (format!("http://127.0.0.1:{}", console.port), own.clone(), 403),
        (format!("http://localhost:{local}"), own.clone(), 403),
        (format!("http://evil.example:{local}"), format!("evil.example:{local}"), 421),
    ] {
        let (status, body) = make(&origin, &host);
        assert_eq!(status, refused, "{origin}: {body}");
        assert!(!body.contains("enclasp1_"), "{origin}: {body}");
    }
    let (status, body) = make(&format!("http://{own}"), &own);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("enclasp1_"), "{body}");
}
