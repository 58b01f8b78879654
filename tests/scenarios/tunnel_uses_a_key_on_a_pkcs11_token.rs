//! ghostunnel's PKCS#11 flags: the certificate in a file, its key on the token, in the module's agent.

use crate::harness::{Backend, Home, Running, SOFTHSM};

#[test]
fn tunnel_uses_a_key_on_a_pkcs11_token() {
    let home = Home::with_authority();
    let Some(token) = home.softhsm() else { return };
    let key = token.key("srv");
    home.enclasp(&format!("key create {key}")).succeeds();
    home.enclasp(&format!("csr create --key {key} --subject CN=srv --san dns:localhost --out srv.csr"))
        .succeeds();
    home.enclasp("ca sign --dir ca srv.csr --profile server --out srv.pem").succeeds();
    home.identity("laptop", "p256", "client");
    let backend = Backend::one_line();
    let module = SOFTHSM;
    let line = format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --cert srv.pem --cacert ca/root.pem --allow-cn laptop",
        backend.port
    );
    let is_served_by = |server: &Running| {
        let port = server.port();
        let client = format!("connect localhost:{port} --identity laptop");
        home.enclasp_with_input(&client, "ping\n").succeeds().prints("heard: ping");
        let line = server.stderr.wait_for(" connection ");
        assert!(line.contains("software=false") && line.contains("pkcs11:"), "{line}");
    };
    let flags = format!("--pkcs11-module {module} --pkcs11-token-label t");
    // Each begins with an agent that knows no PIN.
    for (pin, warned) in [("--pkcs11-pin-file pin", false), ("--pkcs11-pin 1234", true)] {
        home.end_agents();
        let server = home.start(&format!("{line} {flags} {pin}"));
        is_served_by(&server);
        assert_eq!(server.stderr.text().contains("warning: --pkcs11-pin can be read"), warned);
    }
    home.end_agents();
    let mut command = home.command(&line);
    command.env("PKCS11_MODULE", module).env("PKCS11_TOKEN_LABEL", "t").env("PKCS11_PIN", "1234");
    is_served_by(&Running::start(command));

    // A key of another token is not this one.
    home.enclasp(&format!("{line} --pkcs11-module {module} --pkcs11-token-label u --pkcs11-pin-file pin"))
        .fails(1)
        .says("no key has the public key of");
}
