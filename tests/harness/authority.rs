//! An authority of ours, and what it certifies: identities of ours and certificates for peers.

use serde_json::Value;

use super::home::Home;
use super::net::free_port;
use super::ports::free_ports;
use super::process::Running;

/// The types of key that scenarios go through.
pub(crate) const ALGORITHMS: [&str; 3] = ["p256", "p384", "ed25519"];

/// Those that every peer has.
pub(crate) const CURVES: [&str; 2] = ["p256", "p384"];

/// The versions of TLS that scenarios go through, as `--tls` names them.
pub(crate) const VERSIONS: [&str; 2] = ["1.2", "1.3"];

impl Home {
    /// A home with the authority Acme in its folder `ca`.
    pub(crate) fn with_authority() -> Self {
        let home = Self::new();
        home.enclasp("ca init --dir ca --name Acme").succeeds();
        home
    }

    /// The same, to be served on the first of `ports` consecutive ports, with its lists and OCSP on the second,
    /// which is named in its certificates: the home, the first port, and that address.
    pub(crate) fn with_public_authority(ports: u16) -> (Self, u16, String) {
        let home = Self::new();
        let port = free_ports(ports);
        let public = format!("127.0.0.1:{}", port + 1);
        home.enclasp(&format!(
            "ca init --dir ca --name Acme --url https://127.0.0.1:{port} --http-url http://{public}"
        ))
        .succeeds();
        (home, port, public)
    }

    /// As [`with_authority`](Self::with_authority), serving: the home, the server, and its port.
    pub(crate) fn with_serving_authority() -> (Self, Running, u16) {
        let home = Self::new();
        let port = free_port();
        home.authority("ca", port);
        let server = home.serve("ca", port);
        (home, server, port)
    }

    /// An authority Acme in `folder`, to be served on `port`.
    pub(crate) fn authority(&self, folder: &str, port: u16) {
        self.enclasp(&format!("ca init --dir {folder} --name Acme --url https://127.0.0.1:{port}"))
            .succeeds();
    }

    /// Serves the authority in `folder`.
    pub(crate) fn serve(&self, folder: &str, port: u16) -> Running {
        let server = self.start(&format!("ca serve --dir {folder} --listen 127.0.0.1:{port}"));
        server.stderr.wait_for("listening on ");
        server
    }

    /// A token of the authority in `ca` for `names`; it is in the file `token`, too.
    pub(crate) fn token(&self, names: &str) -> String {
        let token = self.enclasp(&format!("ca token --dir ca {names}")).succeeds().text();
        self.write("token", &token);
        token.trim().to_owned()
    }

    /// What the authority in `ca` has issued.
    pub(crate) fn issued(&self) -> Vec<Value> {
        let listed = self.enclasp("ca list --dir ca --json").succeeds().json();
        listed.as_array().expect("a list").clone()
    }

    /// An identity `name` of ours with a software key: key, request, certificate by our authority,
    /// import.
    pub(crate) fn identity(&self, name: &str, algorithm: &str, profile: &str) {
        self.soft().identity(name, algorithm, profile);
    }

    /// A key `soft:name=NAME` of ours and a request for it, NAME.csr.
    pub(crate) fn request(&self, name: &str, algorithm: &str) {
        self.request_with(&format!("soft:name={name}"), name, algorithm);
    }

    /// The same for a key `uri`.
    pub(crate) fn request_with(&self, uri: &str, name: &str, algorithm: &str) {
        self.enclasp(&format!("key create {uri} --algorithm {algorithm}")).succeeds();
        let names = format!("--subject CN={name},OU=Ops,O=Acme --san dns:localhost --san ip:127.0.0.1");
        self.enclasp(&format!("csr create --key {uri} {names} --out {name}.csr")).succeeds();
    }

    /// Imports NAME.pem as an identity that trusts the roots in `roots`.
    pub(crate) fn import(&self, name: &str, roots: &str) {
        self.enclasp(&format!("identity import --name {name} --cert {name}.pem --cacert {roots}")).succeeds();
    }

    /// A key that OpenSSL makes, and a request for it: NAME.key and NAME.csr.
    pub(crate) fn peer_request(&self, name: &str, algorithm: &str) {
        let kind = match algorithm {
            "p256" => "EC -pkeyopt ec_paramgen_curve:P-256",
            "p384" => "EC -pkeyopt ec_paramgen_curve:P-384",
            "ed25519" => "ED25519",
            "rsa" => "RSA -pkeyopt rsa_keygen_bits:2048",
            other => panic!("no such algorithm: {other}"),
        };
        self.openssl(&format!("genpkey -algorithm {kind} -out {name}.key"));
        self.openssl(&format!(
            "req -new -key {name}.key -subj /O=Acme/CN={name} -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -out {name}.csr"
        ));
    }

    /// The same with a certificate of our authority: NAME.pem, followed by its issuer.
    pub(crate) fn peer(&self, name: &str, algorithm: &str, profile: &str) {
        self.peer_request(name, algorithm);
        self.enclasp(&format!("ca sign --dir ca {name}.csr --profile {profile} --out {name}.pem")).succeeds();
    }
}
