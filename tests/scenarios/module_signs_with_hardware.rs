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
    let key = token.key_without_pin("card");
    let mut create = home.command(&format!("key create {key}"));
    create.env("ENCLASP_PIN", "1234");
    run(create).succeeds();
    only_the_pin_opens(&home, &key, "card", "t", "1234");
}

/// It is a token of its own, and to log in is to sign: nothing else tells whether the PIN is right.
#[test]
fn a_pin_opens_its_own_tpm_key() {
    if !needs(&["openssl", "pkcs11-tool"]) {
        return;
    }
    let home = Home::with_authority();
    let Some(tpm) = home.tpm() else { return };
    let key = tpm.key("vault");
    home.write("new-pin", "2580");
    home.enclasp(&format!("key create {key} --pin-file new-pin")).succeeds();
    only_the_pin_opens(&home, &key, "vault", "vault", "2580");
}

/// Makes an identity `name` of the key, beside one without a PIN, and uses it as a host that logs in to
/// the token with that label.
fn only_the_pin_opens(home: &Home, key: &str, name: &str, label: &str, pin: &str) {
    home.identity("web", "p256", "client");
    let with_pin = |line: String| {
        let mut command = home.command(&line);
        command.env("ENCLASP_PIN", pin);
        run(command).succeeds();
    };
    with_pin(format!("csr create --key {key} --subject CN={name} --out {name}.csr"));
    home.enclasp(&format!("ca sign --dir ca {name}.csr --out {name}.pem")).succeeds();
    with_pin(format!("identity import --name {name} --cert {name}.pem --key {key} --cacert ca/root.pem"));
    home.end_agents();

    let tool = |line: &str| {
        let mut command = home.host("pkcs11-tool", "--module");
        command.arg(module()).args(line.split_whitespace());
        run(command)
    };
    let slots = tool("-L").succeeds();
    assert_eq!(slots.text().matches("token label").count(), 2, "{slots}");
    slots.prints("login required").prints(&format!("token label        : {label}"));
    // Only who has logged in sees the private key.
    let seen = tool(&format!("--token-label {label} -O")).succeeds().prints(&format!("label:      {name}"));
    assert!(!seen.text().contains("Private Key"), "{seen}");
    home.write("digest", [7; 32]);
    let sign = |pin: &str| {
        tool(&format!("--token-label {label} --login --pin {pin} --sign -m ECDSA -i digest -o signature"))
    };
    sign("9999").fails_somehow().says("CKR_PIN_INCORRECT");
    sign(pin).succeeds();
    tool(&format!("--token-label {label} --login --pin {pin} -O")).succeeds().prints("Private Key");
}
