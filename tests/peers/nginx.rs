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
    pub(crate) fn start_with(home: &Home, command: Command, peer: &str, key: &str, root: &str) -> Self {
        let directives = format!(
            "ssl_certificate {peer}.pem; ssl_certificate_key \"{key}\"; ssl_client_certificate {root}; \
             ssl_verify_client on; ssl_verify_depth 3; ssl_protocols TLSv1.2 TLSv1.3;"
        );
        Self::with(home, command, "nginx", &directives)
    }

    /// With these directives of its TLS module. What is of this server in the home begins with `name`.
    pub(crate) fn with(home: &Home, mut command: Command, name: &str, directives: &str) -> Self {
        let port = free_port();
        let config = include_str!("nginx.conf")
            .replace("@NAME@", name)
            .replace("@TLS@", directives)
            .replace("@PORT@", &port.to_string());
        home.write(&format!("{name}.conf"), config);
        // Where only root's PATH leads.
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        command.arg("-e").arg("stderr").arg("-p").arg(home.path("")).arg("-c").arg(format!("{name}.conf"));
        let running = Running::start(command);
        wait_until_listening(port);
        Self { port, _running: running }
    }
}
