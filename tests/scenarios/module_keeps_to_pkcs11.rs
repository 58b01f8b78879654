//! OpenSC's tool finds what there is in our module, and no more; what it signs verifies with OpenSSL.

use crate::harness::{Done, Home, module, needs, run};

fn tool(home: &Home, line: &str) -> Done {
    let mut command = home.host("pkcs11-tool", "--module");
    command.arg(module()).args(line.split_whitespace());
    run(command)
}

/// The CKA_ID of a key.
fn id(home: &Home, name: &str) -> String {
    let shown = home.enclasp(&format!("key show soft:name={name} --json")).succeeds().json();
    shown["public_key_sha256"].as_str().expect("a hash")[..40].to_owned()
}

#[test]
fn module_passes_the_tests_of_opensc() {
    if !needs(&["openssl", "pkcs11-tool"]) {
        return;
    }
    let home = Home::with_authority();
    // A token without keys.
    tool(&home, "-L").succeeds().prints("Enclasp").prints("readonly");
    assert!(!tool(&home, "-O").succeeds().text().contains("Object"));
    home.identity("web", "p256", "client");
    home.identity("edwards", "ed25519", "client");
    tool(&home, "--test").succeeds().prints("No errors");
    let objects = tool(&home, "-O").succeeds();
    // The key, its public key, its certificate, and the one above that. The authority's own keys, in
    // the same agent, are not there.
    assert_eq!(objects.text().matches("Object").count(), 4, "{objects}");
    let objects = objects.prints("label:      web").prints("never extractable");
    assert!(!objects.text().contains("root"), "{objects}");
    let mechanisms = tool(&home, "-M").succeeds().prints("ECDSA,").prints("ECDSA-SHA256,");
    assert!(!mechanisms.text().contains("EDDSA"), "{mechanisms}");
    tool(&home, "--token-label Edwards -M").fails_somehow();
    let mut edwards = home.host("pkcs11-tool", "--module");
    edwards.arg(module()).args(["--token-label", "Enclasp Ed25519", "-M"]);
    let mechanisms = run(edwards).succeeds().prints("EDDSA");
    assert!(!mechanisms.text().contains("ECDSA"), "{mechanisms}");
}

#[test]
fn what_the_module_signs_verifies() {
    if !needs(&["openssl", "pkcs11-tool"]) {
        return;
    }
    let home = Home::with_authority();
    for algorithm in ["p256", "p384"] {
        home.identity(algorithm, algorithm, "client");
    }
    home.write("message", "to be signed");
    for algorithm in ["p256", "p384"] {
        let id = id(&home, algorithm);
        home.openssl(&format!("x509 -in {algorithm}.pem -pubkey -noout -out public.pem"));
        for hash in ["sha256", "sha384", "sha512"] {
            home.openssl(&format!("dgst -{hash} -binary -out digest message"));
            tool(
                &home,
                &format!("--sign -m ECDSA --id {id} --signature-format openssl -i digest -o signature"),
            )
            .succeeds();
            home.openssl(&format!("dgst -{hash} -verify public.pem -signature signature message"));
        }
        for (mechanism, hash) in [("ECDSA-SHA256", "sha256"), ("ECDSA-SHA384", "sha384")] {
            let line =
                format!("--sign -m {mechanism} --id {id} --signature-format openssl -i message -o signature");
            tool(&home, &line).succeeds();
            home.openssl(&format!("dgst -{hash} -verify public.pem -signature signature message"));
        }
        // SHA-1 is not what this key was proved to sign.
        home.openssl("dgst -sha1 -binary -out digest message");
        tool(&home, &format!("--sign -m ECDSA --id {id} -i digest -o signature"))
            .fails_somehow()
            .says("CKR_DATA_LEN_RANGE");
    }
}

#[test]
fn a_key_that_asks_is_refused_without_a_person() {
    if !needs(&["openssl", "pkcs11-tool"]) {
        return;
    }
    let home = Home::new();
    home.enclasp("key create soft:name=signer --presence confirm").succeeds();
    home.write("digest", [7; 32]);
    let id = id(&home, "signer");
    let ask = |line: &str| {
        let mut command = home.host("pkcs11-tool", "--module");
        command.env("ENCLASP_PKCS11_KEYS", "soft:name=signer").env_remove("DISPLAY");
        command.arg(module()).args(line.split_whitespace());
        run(command)
    };
    ask("-O").succeeds().prints("always authenticate").prints("label:      signer");
    ask(&format!("--sign -m ECDSA --id {id} -i digest -o signature")).fails_somehow().says("0x200");
    let log = String::from_utf8(home.read("pkcs11.log")).expect("text");
    assert!(log.contains("C_Sign: cannot sign with `soft:name=signer`: denied"), "{log}");
}
