//! A certificate is revoked, and others notice: OpenSSL by its CRL and by OCSP, Java by both, and the
//! authority itself, which renews it no more.

use std::path::Path;

use crate::harness::{Done, Home, Postgres, Running, eventually, free_ports, needs, run};
use crate::peers::java_on_revocation;

/// An authority that serves, and whose certificates say where their CRL and OCSP are.
struct Serving {
    _running: Running,
    /// The URL in the clear.
    public: String,
}

fn serve(home: &Home, more: &str) -> Serving {
    let port = free_ports(2);
    let public = format!("http://127.0.0.1:{}", port + 1);
    home.enclasp(&format!(
        "ca init --dir ca --name Acme --url https://127.0.0.1:{port} --http-url {public} {more}"
    ))
    .succeeds();
    start(home, "ca", port, &public)
}

fn start(home: &Home, dir: &str, port: u16, public: &str) -> Serving {
    let running = home.serve(dir, port);
    running.stderr.wait_for(&format!("CRLs and OCSP on {}", public.trim_start_matches("http://")));
    Serving { _running: running, public: public.to_owned() }
}

#[test]
fn others_notice() {
    if !needs(&["openssl", "curl", "java", "javac"]) {
        return;
    }
    let home = Home::new();
    let ca = serve(&home, "");
    home.peer("web", "p256", "server");
    home.peer("other", "p384", "client");
    let text = home.openssl("x509 -in web.pem -noout -text -serial").text();
    let crl_url = url_after(&text, "CRL Distribution Points");
    assert!(crl_url.starts_with(&format!("{}/crl/", ca.public)), "{text}");
    assert!(text.contains(&format!("OCSP - URI:{}/ocsp", ca.public)), "{text}");
    let issuer_url = url_after(&text, "CA Issuers");
    curl(&home, &issuer_url, "fetched.cer");
    home.openssl("x509 -inform DER -in fetched.cer -out fetched.pem");
    home.openssl("verify -CAfile ca/root.pem fetched.pem");

    verify(&home, &crl_url, "web.pem").succeeds();
    let number = crl_number(&home);
    ocsp(&home, &ca, "-cert web.pem").prints("web.pem: good").says("Response verify OK");
    ocsp(&home, &ca, "-cert web.pem -no_nonce").prints("web.pem: good").says("Response verify OK");
    ocsp_by_get(&home, &ca, "web.pem").prints("web.pem: good");
    ocsp(&home, &ca, "-serial 0x1234").prints("0x1234: unknown");
    for how in ["crl", "ocsp"] {
        java_on_revocation(&home, "web.pem", how).prints(&format!("{how}: good"));
    }

    // A name that nobody has, and a reason that is none.
    home.enclasp("ca revoke --dir ca nobody").fails(1).says("nobody");
    home.enclasp("ca revoke --dir ca web --reason boredom").fails(2).says("keyCompromise");
    let serial = text.split("serial=").nth(1).unwrap().trim().to_owned();
    let colons: Vec<_> = serial.as_bytes().chunks(2).map(|byte| std::str::from_utf8(byte).unwrap()).collect();
    home.enclasp(&format!("ca revoke --dir ca {} --reason keyCompromise", colons.join(":"))).succeeds();
    eventually("the CRL says so", || {
        verify(&home, &crl_url, "web.pem").stderr.contains("certificate revoked")
    });
    verify(&home, &crl_url, "other.pem").succeeds();
    assert!(crl_number(&home) > number);
    home.openssl("crl -in crl.pem -noout -text").prints("Key Compromise");
    for nonce in ["", "-no_nonce"] {
        ocsp(&home, &ca, &format!("-cert web.pem {nonce}"))
            .prints("web.pem: revoked")
            .prints("Reason: keyCompromise")
            .says("Response verify OK");
    }
    ocsp_by_get(&home, &ca, "web.pem").prints("web.pem: revoked");
    ocsp(&home, &ca, "-cert other.pem").prints("other.pem: good");
    for how in ["crl", "ocsp"] {
        java_on_revocation(&home, "web.pem", how).prints(&format!("{how}: REVOKED"));
        java_on_revocation(&home, "other.pem", how).prints(&format!("{how}: good"));
    }
    let listed = home.issued();
    let web = listed.iter().find(|one| one["subject"] == "CN=web,O=Acme").unwrap();
    assert_eq!(web["revocation_reason"], "keyCompromise");
    assert!(
        home.enclasp("ca list --dir ca --valid")
            .succeeds()
            .text()
            .lines()
            .all(|line| !line.contains("CN=web,"))
    );
    // Once more changes nothing; the CRL comes by file, too.
    home.enclasp(&format!("ca revoke --dir ca {serial}")).succeeds().says("was revoked");
    home.enclasp("ca crl --dir ca --out file.pem").succeeds();
    home.openssl("crl -in file.pem -noout -text").prints(&serial.to_uppercase());
}

#[test]
fn caches_are_told_what_they_may_keep() {
    if !needs(&["openssl", "curl"]) {
        return;
    }
    let home = Home::new();
    let ca = serve(&home, "");
    home.peer("web", "p256", "server");
    let url = url_after(&home.openssl("x509 -in web.pem -noout -text").text(), "CRL Distribution Points");
    let head =
        run(home.program("curl", &format!("-sS -D - -o crl.der {url}"))).succeeds().text().to_lowercase();
    assert!(head.contains("content-type: application/pkix-crl"), "{head}");
    assert!(head.contains("cache-control: public, max-age=5, must-revalidate"), "{head}");
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().trim().to_owned();
    let mut again = home.program("curl", &format!("-sS -o unchanged -w %{{http_code}} {url}"));
    again.arg("-H").arg(format!("If-None-Match: {tag}"));
    run(again).succeeds().prints("304");
    for (path, status) in
        [("/crl/none.crl", "404"), ("/ca/none.cer", "404"), ("/ocsp/AAAA", "200"), ("/other", "404")]
    {
        let line = format!("-sS -o answer -w %{{http_code}} {}{path}", ca.public);
        run(home.program("curl", &line)).succeeds().prints(status);
    }
    // An answer to what is no request: malformedRequest, and nobody may keep it.
    curl(&home, &format!("{}/ocsp/AAAA", ca.public), "answer");
    let said = run(home.program("openssl", "ocsp -respin answer -noverify"));
    said.fails(1).prints("malformedrequest (1)");
    let large = run(home.program(
        "curl",
        &format!(
            "-sS -o answer -w %{{http_code}} --data-binary @ca/root.pem --data-binary @{} {}/ocsp",
            env!("CARGO_BIN_EXE_enclasp"),
            ca.public
        ),
    ));
    large.succeeds().prints("413");
}

/// A CRL for each part of the certificates, of which only the right one counts.
#[test]
fn shards_are_told_apart() {
    if !needs(&["openssl", "curl"]) {
        return;
    }
    let home = Home::new();
    let port = free_ports(2);
    let public = format!("http://127.0.0.1:{}", port + 1);
    home.enclasp(&format!("ca init --dir ca --name Acme --url https://127.0.0.1:{port} --http-url {public}"))
        .succeeds();
    let settings = String::from_utf8(home.read("ca/authority.toml")).unwrap();
    home.write("ca/authority.toml", settings.replace("crl-shards = 1", "crl-shards = 8"));
    let _ca = start(&home, "ca", port, &public);
    let url_of = |name: &str| {
        home.peer(name, "p256", "client");
        url_after(
            &home.openssl(&format!("x509 -in {name}.pem -noout -text")).text(),
            "CRL Distribution Points",
        )
    };
    let first = url_of("device-0");
    // Keys fall into parts by chance: 40 in one part of eight would be one chance in 8^39.
    let (other_name, other) = (1..40)
        .map(|number| format!("device-{number}"))
        .map(|name| (name.clone(), url_of(&name)))
        .find(|(_, url)| *url != first)
        .expect("keys fall into different parts");
    verify(&home, &first, "device-0.pem").succeeds();
    home.openssl("crl -in crl.pem -noout -text")
        .prints("Issuing Distribution Point: critical")
        .prints(&first);
    // The CRL of another part says nothing of it.
    verify(&home, &other, "device-0.pem").fails_somehow().says("different CRL scope");
    home.enclasp("ca revoke --dir ca device-0").succeeds();
    eventually("the CRL says so", || {
        verify(&home, &first, "device-0.pem").stderr.contains("certificate revoked")
    });
    verify(&home, &other, &format!("{other_name}.pem")).succeeds();
}

#[test]
fn a_revoked_identity_is_renewed_no_more() {
    let (home, _server, _) = Home::with_serving_authority();
    for name in ["laptop", "phone"] {
        home.token(&format!("--cn {name}"));
        home.enclasp(&format!("enroll --token-file token --identity {name}")).succeeds();
        // Renewal makes a second certificate of the same name, and revocation takes both.
        home.enclasp(&format!("renew {name}")).succeeds();
    }
    let revoked =
        home.enclasp("ca revoke --dir ca laptop --reason cessationOfOperation --json").succeeds().json();
    assert_eq!(revoked.as_array().unwrap().len(), 2);
    home.enclasp("renew laptop").fails(1).says("403").says("was revoked");
    home.enclasp("renew phone").succeeds();
    // The token that it was enrolled with yields it no more either.
    home.token("--cn tablet");
    home.enclasp("enroll --token-file token --identity tablet").succeeds();
    home.enclasp("identity show tablet").succeeds();
    home.enclasp("ca revoke --dir ca tablet").succeeds();
    home.enclasp("ca list --dir ca --valid").succeeds().prints("CN=phone");
}

/// Its key is lost, so nobody signs its CRL any more; but the others answer for it.
#[test]
fn certificates_of_a_lost_replica_are_revoked_by_ocsp() {
    if !needs(&["openssl"]) {
        return;
    }
    let Some(postgres) = Postgres::start() else { return };
    let home = Home::new();
    let lost = serve(&home, &format!("--database {}", postgres.url()));
    home.peer("web", "p256", "client");
    let joining = home.start(&format!("ca join --dir ca2 --database {}", postgres.url()));
    let said = joining.stderr.wait_for("waiting for: enclasp ca approve --dir DIR ");
    home.enclasp(&format!("ca approve --dir ca {}", said.rsplit(' ').next().unwrap())).succeeds();
    joining.finish().succeeds();
    let port = free_ports(2);
    let running = home
        .start(&format!("ca serve --dir ca2 --listen 127.0.0.1:{port} --listen-http 127.0.0.1:{}", port + 1));
    running.stderr.wait_for("CRLs and OCSP on");
    let other = Serving { _running: running, public: format!("http://127.0.0.1:{}", port + 1) };
    eventually("the other answers, too", || {
        asked(&home, &other, "-cert web.pem").text().contains("web.pem: good")
    });
    drop(lost);
    home.enclasp("ca revoke --dir ca2 web").succeeds();
    eventually("it says so", || asked(&home, &other, "-cert web.pem").text().contains("web.pem: revoked"));
    ocsp(&home, &other, "-cert web.pem").says("Response verify OK");
}

fn url_after(text: &str, heading: &str) -> String {
    let after = text.split(heading).nth(1).unwrap_or_else(|| panic!("no {heading}:\n{text}"));
    after.split("URI:").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a URL").to_owned()
}

fn curl(home: &Home, url: &str, file: &str) {
    run(home.program("curl", &format!("-sS --fail -o {file} {url}"))).succeeds();
}

/// With the CRL at `url`, which is in crl.pem after this.
fn verify(home: &Home, url: &str, certificate: &str) -> Done {
    curl(home, url, "crl.der");
    home.openssl("crl -inform DER -in crl.der -out crl.pem");
    let line = format!(
        "verify -crl_check -extended_crl -CAfile ca/root.pem -untrusted ca/issuing.pem -CRLfile crl.pem {certificate}"
    );
    run(home.program("openssl", &line))
}

fn crl_number(home: &Home) -> u64 {
    let text = home.openssl("crl -in crl.pem -noout -crlnumber").text();
    u64::from_str_radix(text.trim().trim_start_matches("crlNumber=").trim_start_matches("0x"), 16)
        .expect("a number")
}

fn ocsp(home: &Home, ca: &Serving, about: &str) -> Done {
    asked(home, ca, about).succeeds()
}

fn asked(home: &Home, ca: &Serving, about: &str) -> Done {
    let line = format!("ocsp -issuer ca/issuing.pem -CAfile ca/root.pem -url {}/ocsp {about}", ca.public);
    run(home.program("openssl", &line))
}

/// As caches like it.
fn ocsp_by_get(home: &Home, ca: &Serving, certificate: &str) -> Done {
    home.openssl(&format!("ocsp -issuer ca/issuing.pem -cert {certificate} -no_nonce -reqout request.der"));
    let encoded = home.openssl("base64 -A -in request.der").text();
    let encoded = encoded.trim().replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    curl(home, &format!("{}/ocsp/{encoded}", ca.public), "answer.der");
    assert!(Path::new(&home.path("answer.der")).exists());
    home.openssl(&format!(
        "ocsp -respin answer.der -issuer ca/issuing.pem -cert {certificate} -CAfile ca/root.pem -no_nonce"
    ))
}
