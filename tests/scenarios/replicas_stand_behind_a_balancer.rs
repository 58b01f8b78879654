//! Two replicas behind HAProxy with the settings of docs/authority-nodes.md: devices enrol and renew through it, and go on
//! when one replica is gone.

use rustix::process::Signal;

use crate::harness::{Home, Postgres, Running, eventually, free_ports, needs, run};

const GUIDE: &str = include_str!("../../docs/authority-nodes.md");

#[test]
fn replicas_stand_behind_a_balancer() {
    if !needs(&["haproxy", "curl", "systemd-analyze"]) {
        return;
    }
    let Some(postgres) = Postgres::start() else { return };
    let (home, url, port) = (Home::new(), postgres.url(), free_ports(3));
    home.enclasp(&format!("ca init --dir ca --name Acme --url https://127.0.0.1:{port} --database {url}"))
        .succeeds();
    let joining = home.start(&format!("ca join --dir ca2 --database {url}"));
    let said = joining.stderr.wait_for("waiting for: enclasp ca approve --dir DIR ");
    home.enclasp(&format!("ca approve --dir ca {}", said.rsplit(' ').next().expect("an id"))).succeeds();
    joining.finish().succeeds();
    let one = home.serve("ca", port + 1);
    let _two = home.serve("ca2", port + 2);

    let settings = block("haproxy").replace("bind :8443", &format!("bind 127.0.0.1:{port}"));
    let settings = settings.replace("10.0.0.1:8443", &format!("127.0.0.1:{}", port + 1));
    let settings = settings.replace("10.0.0.2:8443", &format!("127.0.0.1:{}", port + 2));
    let lines = settings.lines().filter(|line| !line.contains("server three"));
    home.write("haproxy.cfg", lines.collect::<Vec<_>>().join("\n") + "\n");
    let _balancer = Running::start(home.program("haproxy", "-f haproxy.cfg"));
    let ready = || {
        let line =
            format!("-sS --cacert ca/root.pem -o answer -w %{{http_code}} https://127.0.0.1:{port}/ready");
        run(home.program("curl", &line)).text() == "200"
    };
    eventually("the balancer finds a replica", ready);
    for name in ["laptop", "phone"] {
        home.token(&format!("--cn {name}"));
        home.enclasp(&format!("enroll --token-file token --identity {name}")).succeeds();
    }
    one.signal(Signal::KILL);
    drop(one);
    home.token("--cn tablet");
    home.enclasp("enroll --token-file token --identity tablet").succeeds();
    for name in ["laptop", "phone", "tablet"] {
        home.enclasp(&format!("renew {name}")).succeeds();
    }
}

#[test]
fn the_unit_of_the_service_is_in_order() {
    if !needs(&["systemd-analyze"]) {
        return;
    }
    let home = Home::new();
    let program = env!("CARGO_BIN_EXE_enclasp");
    home.write(
        "enclasp-ca.service",
        block("ini").replace("/usr/bin/enclasp", program).replace("User=enclasp-ca", "User=root"),
    );
    run(home.program("systemd-analyze", "verify --man=no ./enclasp-ca.service")).succeeds();
}

/// What the guide has in its one block of that language.
fn block(language: &str) -> &'static str {
    let after = GUIDE.split(&format!("```{language}\n")).nth(1).expect("there is one");
    after.split("```").next().expect("it ends")
}
