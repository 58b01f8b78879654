//! Signers that a program in Python brings along sign for mutual TLS. One that refuses, throws, lies about
//! its scheme, answers nonsense or does not come back is an error of its own connection, and of no other.

use crate::harness::{Home, needs, run};
use crate::peers::{python, s_server};

#[test]
fn signers_in_python_are_held_to_their_word() {
    if !needs(&["openssl", "python3"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    home.peer("own", "p256", "client");
    let servers = [s_server(&home, "srv", "ca/root.pem", ""), s_server(&home, "srv", "ca/root.pem", "")];
    let mut signers = python("signers");
    signers.args(servers.iter().map(|(_, port)| port.to_string()));
    let reason = format!("'TLS client authentication to localhost:{}'", servers[0].1);
    run(home.user(signers))
        .succeeds()
        .prints("refuses: Denied: cannot sign with `signer:name=own`: denied: no finger on the sensor\n")
        .prints("throws: Signer: the signer of `signer:name=own` failed: ")
        .prints("the vault is empty xxx")
        .prints(
            "\nlies: WrongSignature: `signer:name=own` returned a signature for ecdsa_secp256r1_sha256 that does \
             not verify",
        )
        .prints("answers nonsense: Signer: ")
        .prints("refuses the proof: Denied: ")
        .prints("a liar was proved to do ['ecdsa_secp256r1_sha384']\nlies: Unsupported: ")
        .prints("proved ['ecdsa_secp256r1_sha256', 'ecdsa_secp256r1_sha384'] by 2 calls\n")
        .prints("TLSv1.2 ecdsa_secp256r1_sha256 gnip\nTLSv1.3 ecdsa_secp256r1_sha256 gnip\n")
        .prints(&reason)
        .prints("meanwhile TLSv1.3 ecdsa_secp256r1_sha256 gnip\n")
        .prints("blocks: Deadline: cannot sign with `signer:name=own`: no answer before the deadline\n");
    servers[0].0.stderr.wait_for("CN = own");
    home.openssl("req -in own.csr -noout -verify -subject").says("OK");
}
