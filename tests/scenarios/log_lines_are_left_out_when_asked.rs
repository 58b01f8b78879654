//! `--quiet` leaves out lines about connections, targets or refusals, and no others.

use crate::harness::{Backend, Home, eventually, free_port};

#[test]
fn log_lines_are_left_out_when_asked() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    home.identity("stranger", "p256", "client");
    let backend = Backend::one_line();
    let down = free_port();
    let lines = [" connection ", "is not admitted as CN=stranger", "cannot connect to 127.0.0.1"];
    for (flags, kept) in [
        ("", [true, true, true]),
        ("--quiet conns", [false, true, true]),
        ("--quiet=handshake-errs", [true, false, true]),
        ("--quiet conn-errs --quiet conns", [false, true, false]),
        ("--quiet all", [false, false, false]),
    ] {
        let start = |target: u16| {
            home.start_listening(&format!(
                "server --listen 127.0.0.1:0 --target 127.0.0.1:{target} --identity srv --allow-cn laptop {flags}"
            ))
        };
        let ((up, up_port), (to_nowhere, nowhere_port)) = (start(backend.port), start(down));
        let connect = |port: u16, name: &str| {
            home.enclasp_with_input(&format!("connect localhost:{port} --identity {name}"), "ping\n")
        };
        connect(up_port, "laptop").succeeds();
        connect(up_port, "stranger").fails(1);
        connect(nowhere_port, "laptop");
        let logged = || [&up, &up, &to_nowhere].map(|tunnel| tunnel.stderr.text());
        let found = |index: usize| logged()[index].contains(lines[index]);
        eventually("what is kept comes", || (0..3).all(|index| !kept[index] || found(index)));
        // What ends a tunnel ends its log.
        let texts = [up.finish_at_once(), to_nowhere.finish_at_once()];
        for (index, text) in [(0, &texts[0]), (1, &texts[0]), (2, &texts[1])] {
            assert_eq!(text.contains(lines[index]), kept[index], "{flags}: {}\n{text}", lines[index]);
        }
    }
}
