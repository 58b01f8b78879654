//! An agent that was stopped, and strangers who connect meanwhile: what is open goes on, new
//! connections are refused in time, and all is well when the agent goes on.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Backend, Home};

/// How long an echo may take on a busy machine. Connections that were held up waited for a minute.
const PROMPT: Duration = Duration::from_secs(3);

/// A process that is stopped until this value ends.
struct Stopped(Pid);

impl Stopped {
    fn new(process: Pid) -> Self {
        kill_process(process, Signal::STOP).expect("it is ours");
        Self(process)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

#[test]
fn a_hanging_agent_holds_up_no_open_connection() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let backend = Backend::echo();
    let (server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop",
        backend.port
    ));
    let mut open = home.start(&format!("connect localhost:{port} --identity laptop"));
    open.send(b"0\n");
    open.stdout.wait_for("0\n");

    let stopped = Stopped::new(home.agents()[0]);
    let stranger = format!("connect localhost:{port} --no-identity --cacert ca/root.pem");
    let strangers: Vec<_> = (0..6).map(|_| home.start(&stranger)).collect();
    let mut echoes = 0;
    while server.stderr.text().matches("refused").count() < strangers.len() {
        echoes += 1;
        let sent = Instant::now();
        open.send(format!("{echoes}\n").as_bytes());
        open.stdout.wait_for(&format!("\n{echoes}\n"));
        assert!(sent.elapsed() < PROMPT, "an echo took {:?}", sent.elapsed());
    }
    for stranger in strangers {
        stranger.finish().fails(1);
    }
    drop(stopped);
    home.enclasp_with_input(&format!("connect localhost:{port} --identity laptop"), "on")
        .succeeds()
        .prints("on");
    open.finish().succeeds();
}

/// A dead agent is gone altogether, also when it was a server that started it.
#[test]
fn a_server_leaves_no_dead_agent_behind() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    let backend = Backend::echo();
    let (_server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-all",
        backend.port
    ));
    home.kill_agent();
    // The client has no use for an agent.
    home.enclasp(&format!("connect localhost:{port} --no-identity --cacert ca/root.pem")).fails(1);
    let agent = home.agents()[0];
    home.kill_agent();
    let traces = format!("/proc/{}", agent.as_raw_nonzero());
    crate::harness::eventually("the agent leaves nothing", || !std::path::Path::new(&traces).exists());
}
