//! `enclasp doctor csr` on requests that real programs made, whole and damaged.

use crate::harness::{ALGORITHMS, Home, needs, run};

/// What OpenSSL, GnuTLS, Java and Enclasp make has nothing wrong with it.
#[test]
fn nothing_is_wrong_with_what_programs_make() {
    if !needs(&["openssl", "certtool", "keytool"]) {
        return;
    }
    let home = Home::new();
    for algorithm in ALGORITHMS {
        home.enclasp(&format!("key create soft:name={algorithm} --algorithm {algorithm}")).succeeds();
        home.enclasp(&format!(
            "csr create --key soft:name={algorithm} --subject CN=web --san dns:web.example --out ours-{algorithm}.csr"
        ))
        .succeeds();
        home.enclasp(&format!("doctor csr ours-{algorithm}.csr --key soft:name={algorithm}")).succeeds();
    }
    let options = "-nodes -subj /C=CH/O=Acme/CN=web -addext subjectAltName=DNS:web.example,IP:10.0.0.1";
    for (name, key) in [
        ("p256", "ec -pkeyopt ec_paramgen_curve:P-256"),
        ("p384", "ec -pkeyopt ec_paramgen_curve:P-384"),
        ("ed25519", "ed25519"),
        ("rsa", "rsa:2048"),
        ("pss", "rsa:2048 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest"),
    ] {
        home.openssl(&format!("req -new -newkey {key} -keyout {name}.key -out {name}.csr {options}"));
        home.openssl(&format!("req -in {name}.csr -outform DER -out {name}.der"));
        home.enclasp(&format!("doctor csr {name}.csr")).succeeds().prints("nothing is wrong");
        home.enclasp(&format!("doctor csr {name}.der --fix")).succeeds().says("nothing to mend");
        assert!(!home.path(&format!("{name}.der.fixed")).exists());
    }
    home.write("template", "cn = web\ncountry = CH\ndns_name = web.example\n");
    run(home.program(
        "certtool",
        "--generate-request --template template --load-privkey p256.key --outfile gnutls.csr",
    ))
    .succeeds();
    home.enclasp("doctor csr gnutls.csr").succeeds();
    run(home.program(
        "keytool",
        "-genkeypair -alias web -keyalg EC -groupname secp256r1 -dname CN=web,C=CH -keystore web.p12 -storepass changeit",
    ))
    .succeeds();
    run(home.program("keytool", "-certreq -alias web -keystore web.p12 -storepass changeit -file java.csr"))
        .succeeds();
    home.enclasp("doctor csr java.csr").succeeds();
}

/// Each is damaged in a way that OpenSSL does not explain; what is mended, OpenSSL accepts.
#[test]
fn damage_is_named_and_mended() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::new();
    home.openssl("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout web.key -subj /CN=web -outform DER -out web.der");
    let der = home.read("web.der");
    let damaged = [
        ("trailing", [&der[..], &[0; 9]].concat(), "EN-FILE-0012"),
        ("length", [&[der[0], der[1], der[2] - 1], &der[3..]].concat(), "EN-FILE-0011"),
        (
            "frame",
            [b"-----BEGIN CERTIFICATE REQUEST-----\n", &der[..], b"\n-----END CERTIFICATE REQUEST-----\n"]
                .concat(),
            "EN-FILE-0005",
        ),
    ];
    for (name, bytes, code) in damaged {
        home.write(name, &bytes);
        home.enclasp(&format!("doctor csr {name}"))
            .fails(1)
            .prints(code)
            .says(&format!("docs/doctor/{code}.md"));
        let done = home.enclasp(&format!("doctor csr {name} --fix --json")).succeeds();
        let facts = done.json();
        assert_eq!(facts["findings"][0]["code"], code, "{done}");
        assert_eq!(facts["fixed"], format!("{name}.fixed"), "{done}");
        assert_eq!(facts["unrepaired"], serde_json::json!([]), "{done}");
        assert_eq!(home.read(name), bytes, "the file itself stays as it is");
        let form = if name == "frame" { "PEM" } else { "DER" };
        home.openssl(&format!("req -in {name}.fixed -inform {form} -noout -verify")).says("verify OK");
    }
    // SHA-1 takes the key.
    home.openssl("req -new -key web.key -sha1 -subj /CN=web -out weak.csr");
    home.enclasp("doctor csr weak.csr --fix")
        .fails(1)
        .prints("EN-SIG-0006")
        .says("nothing can be mended without the key")
        .says("not mended: EN-SIG-0006");
    assert!(!home.path("weak.csr.fixed").exists());
    home.enclasp("doctor csr trailing --fix --out trailing").fails(2).says("which stays as it is");
    home.enclasp("doctor csr web.key").fails(1).prints("a private key (PKCS#8), not a certification request");
    home.enclasp("key create soft:name=other").succeeds();
    home.enclasp("doctor csr web.der --key soft:name=other").fails(1).prints("EN-CSR-0005");
}
