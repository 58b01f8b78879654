//! Keys on a PKCS#11 token and in a TPM serve programs through our module as software keys do; a PIN
//! that the host gives goes to the token that it is for, and a wrong one is said to be wrong.

use crate::harness::{ENGINE, Home, VERSIONS, module, needs, run, run_with_input};
use crate::peers::Nginx;

#[test]
fn module_signs_with_hardware() {
    if !needs(&["openssl", "nginx", "curl", "gnutls-cli", ENGINE]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    let nginx = Nginx::start(&home, "srv", home.trusted());
    for hardware in home.hardware() {
        for algorithm in ["p256", "rsa"] {
            let name = format!("{}-{algorithm}", hardware.name());
            hardware.identity(&name, algorithm, "client");
            for version in VERSIONS {
                let curl = format!(
                    "-sS --cacert ca/root.pem --tlsv{version} --tls-max {version} --engine pkcs11 --key-type ENG \
                     --key pkcs11:object={name};type=private --cert {name}.pem https://localhost:{}/",
                    nginx.port
                );
                let seen = format!("nginx saw CN={name},");
                run(home.host("curl", &curl)).succeeds().prints(&seen).prints(&format!("over TLSv{version}"));
                let gnutls = format!(
                    "--provider {} --x509cafile ca/root.pem --x509keyfile pkcs11:object={name};type=private \
                     --x509certfile pkcs11:object={name};type=cert --priority NORMAL:-VERS-ALL:+VERS-TLS{version} \
                     -p {} localhost",
                    module().display(),
                    nginx.port
                );
                run_with_input(home.host("gnutls-cli", &gnutls), b"GET / HTTP/1.0\r\n\r\n").prints(&seen);
            }
        }
    }
}

#[test]
fn a_pin_opens_its_own_token() {
    if !needs(&["openssl", "pkcs11-tool"]) {
        return;
    }
    let home = Home::with_authority();
    let Some(token) = home.softhsm() else { return };
    home.identity("web", "p256", "client");
    let key = token.key_without_pin("card");
    let with_pin = |line: String| {
        let mut command = home.command(&line);
        command.env("ENCLASP_PIN", "1234");
        run(command).succeeds();
    };
    with_pin(format!("key create {key}"));
    with_pin(format!("csr create --key {key} --subject CN=card --out card.csr"));
    home.enclasp("ca sign --dir ca card.csr --out card.pem").succeeds();
    with_pin(format!("identity import --name card --cert card.pem --key {key} --cacert ca/root.pem"));
    home.end_agents();

    let tool = |line: &str| {
        let mut command = home.host("pkcs11-tool", "--module");
        command.arg(module()).args(line.split_whitespace());
        run(command)
    };
    let slots = tool("-L").succeeds();
    assert_eq!(slots.text().matches("token label").count(), 2, "{slots}");
    slots.prints("login required").prints("token label        : t");
    // Only who has logged in sees the private key.
    assert!(!tool("--token-label t -O").succeeds().prints("label:      card").text().contains("Private Key"));
    home.write("digest", [7; 32]);
    let sign = |pin: &str| {
        tool(&format!("--token-label t --login --pin {pin} --sign -m ECDSA -i digest -o signature"))
    };
    sign("9999").fails_somehow().says("CKR_PIN_INCORRECT");
    sign("1234").succeeds();
    tool("--token-label t --login --pin 1234 -O").succeeds().prints("Private Key");
}
