//! Programs of others that load our PKCS#11 module.

use std::process::Command;

use super::built::module;
use super::home::Home;

/// OpenSSL's engine for PKCS#11, of libp11.
pub(crate) const ENGINE: &str = "/usr/lib/x86_64-linux-gnu/engines-3/pkcs11.so";

impl Home {
    /// A program that uses this home's keys through our module. What the module says of failures is in
    /// the file `pkcs11.log`.
    pub(crate) fn host(&self, program: &str, line: &str) -> Command {
        let mut command = self.program(program, line);
        command.env("HOME", self.path("")).env("ENCLASP_STATE", self.state());
        command.env("ENCLASP_PROGRAM", env!("CARGO_BIN_EXE_enclasp"));
        command.env("ENCLASP_PKCS11_LOG", self.path("pkcs11.log"));
        // Where OpenSSL's engine looks.
        command.env("PKCS11_MODULE_PATH", module()).env("OPENSSL_CONF", self.openssl_with_engine());
        command
    }

    /// A file with the authority's root and its issuing certificate: what a server trusts whose clients
    /// send no more than their own certificate.
    pub(crate) fn trusted(&self) -> &'static str {
        self.write("trusted.pem", [self.read("ca/root.pem"), self.read("ca/issuing.pem")].concat());
        "trusted.pem"
    }

    fn openssl_with_engine(&self) -> std::path::PathBuf {
        let config = format!(
            "openssl_conf = init\n[init]\nengines = engines\n[engines]\npkcs11 = pkcs11\n[pkcs11]\n\
             engine_id = pkcs11\nMODULE_PATH = {}\ninit = 1\n",
            module().display()
        );
        self.write("engine.cnf", config);
        self.path("engine.cnf")
    }
}
