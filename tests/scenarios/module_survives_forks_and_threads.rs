//! A host signs in many threads at once, and goes on after it forked, in the child and in the parent.

use crate::harness::{Home, module, needs, run};

#[test]
fn module_survives_forks_and_threads() {
    if !needs(&["openssl", "python3"]) {
        return;
    }
    let home = Home::with_authority();
    home.identity("web", "p256", "client");
    home.write("host.py", include_str!("../peers/pkcs11_host.py"));
    let mut host = home.host("python3", "host.py");
    host.arg(module()).arg("web");
    run(host).succeeds().prints("all is well");
}
