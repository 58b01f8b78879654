//! nginx, as a server that demands client certificates: `tests/peers/nginx.conf`.

use std::process::Command;

use crate::harness::{Home, Running, free_port, wait_until_listening};

pub(crate) struct Nginx {
    pub(crate) port: u16,
    _running: Running,
}

impl Nginx {
    /// Serves as `peer`, and trusts the root in `root`.
    pub(crate) fn start(home: &Home, peer: &str, root: &str) -> Self {
        Self::start_with(home, Command::new("nginx"), peer, &format!("{peer}.key"), root)
    }

    /// The same, run by `command`, with a key that need not be in a file.
    pub(crate) fn start_with(home: &Home, mut command: Command, peer: &str, key: &str, root: &str) -> Self {
        let port = free_port();
        let config = include_str!("nginx.conf")
            .replace("@NAME@", peer)
            .replace("@KEY@", key)
            .replace("@ROOT@", root)
            .replace("@PORT@", &port.to_string());
        home.write("nginx.conf", config);
        // Where only root's PATH leads.
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        command.arg("-e").arg("stderr").arg("-p").arg(home.path("")).arg("-c").arg("nginx.conf");
        let running = Running::start(command);
        wait_until_listening(port);
        Self { port, _running: running }
    }
}
