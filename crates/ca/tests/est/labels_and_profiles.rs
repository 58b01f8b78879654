//! Labels issue under one profile each, profiles decide about keys and names, and some wait for a person.

use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use enclasp_ca::{Error, WaitsFor};
use enclasp_enroll::{Error as EnrollError, enroll, est};

use crate::support::{Ca, base64, csr, file, openssl_csr, run, token_request};

const SETTINGS: &str = r#"
[profiles.printer]
default-lifetime = "1d"
max-lifetime = "2d"
extended-key-usages = ["clientAuth", "1.3.6.1.4.1.311.20.2.2"]
key-types = ["p384", "ed25519"]
names = ["dns:printers.acme.ch", "permanentIdentifier", "hardwareModuleName"]

[profiles.guarded]
default-lifetime = "1d"
max-lifetime = "1d"
extended-key-usages = ["clientAuth"]
approval = true

[labels.printers]
profile = "printer"
wrap-base64 = true

[labels.short]
profile = "short-lived"
"#;

async fn ca() -> Ca {
    Ca::start_with(|config| config + SETTINGS).await
}

fn text_of(pem: &str) -> String {
    String::from_utf8(run(Command::new("openssl").args(["x509", "-noout", "-text", "-in", pem]))).unwrap()
}

fn asn1_of(folder: &std::path::Path, body: &str) -> String {
    let der = STANDARD.decode(body.split_whitespace().collect::<String>()).unwrap();
    let der = file(folder, "parsed.der", der);
    String::from_utf8(run(Command::new("openssl").args(["asn1parse", "-inform", "DER", "-in", &der])))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_issues_under_its_profile() {
    let ca = ca().await;
    let folder = ca.folder.path();
    let names = [
        "dns:p1.printers.acme.ch",
        "permanentIdentifier:SN-17",
        "hardwareModuleName:1.3.6.1.4.1.99999.2/00a1ff",
    ];
    let mut request = token_request("p1", &names);
    request.profile = "printer".into();
    let token = ca.authority.token(request).await.unwrap();
    let user = format!("any:{}", &*token.to_line().unwrap());
    let enroll_at = |label: &str, body: &str| {
        let data = format!("@{body}");
        let path = if label.is_empty() {
            est::SIMPLEENROLL.to_owned()
        } else {
            est::labelled(est::SIMPLEENROLL, label)
        };
        ca.curl(&["--data-binary", &data, "--user", &user, &ca.url(&path)])
    };
    let p256 = file(folder, "p256.csr", base64(&openssl_csr(folder, "p256", &["-subj", "/CN=p1"])));
    let options = ["-subj", "/CN=p1", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
    let p384 = file(folder, "p384.csr", base64(&openssl_csr(folder, "p384", &options)));
    for (label, body, status, reason) in [
        ("nothing", &p384, 404, "no label `nothing`"),
        ("short", &p384, 403, "for the profile printer, and this label for short-lived"),
        ("printers", &p256, 403, "does not allow P-256 keys: it allows P-384, Ed25519"),
        ("", &p256, 403, "does not allow P-256 keys"),
    ] {
        let answer = enroll_at(label, body);
        assert_eq!(answer.status, status, "{label}: {}", answer.body);
        assert!(answer.body.contains(reason), "{label}: {}", answer.body);
    }
    let answer = enroll_at("printers", &p384);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.lines().count() > 3 && answer.body.lines().all(|line| line.len() <= 64));
    let p7 = STANDARD.decode(answer.body.split_whitespace().collect::<String>()).unwrap();
    let p7 = file(folder, "answer.p7", p7);
    let pem = run(Command::new("openssl").args(["pkcs7", "-inform", "DER", "-print_certs", "-in", &p7]));
    let pem = file(folder, "p1.pem", pem);
    let text = text_of(&pem);
    for expected in
        ["TLS Web Client Authentication", "Microsoft Smartcard Login", "DNS:p1.printers.acme.ch", "othername"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    // Read by another parser than ours.
    let parsed = run(Command::new("openssl")
        .args(["asn1parse", "-i", "-in", &pem, "-strparse"])
        .arg(offset_of_names(&pem)));
    let parsed = String::from_utf8(parsed).unwrap();
    for expected in ["1.3.6.1.5.5.7.8.3", "SN-17", "1.3.6.1.5.5.7.8.4", "1.3.6.1.4.1.99999.2", "00A1FF"] {
        assert!(
            parsed
                .replace("id-on-permanentIdentifier", "1.3.6.1.5.5.7.8.3")
                .replace("Permanent Identifier", "1.3.6.1.5.5.7.8.3")
                .contains(expected),
            "{expected}: {parsed}"
        );
    }
    let record = ca.issued().await.pop().unwrap();
    assert_eq!(
        record.certificate().unwrap().subject_alt_names().iter().map(ToString::to_string).collect::<Vec<_>>(),
        names
    );
    // Names that the profile does not allow make no token.
    let mut other = token_request("p2", &["dns:p2.printers.acme.ch.evil"]);
    other.profile = "printer".into();
    let error = ca.authority.token(other).await.unwrap_err();
    assert!(matches!(&error, Error::NotAllowed { .. }), "{error}");
    assert!(ca.curl(&[&ca.url(&est::labelled(est::CACERTS, "printers"))]).body.lines().count() > 3);
}

/// Where the value of subjectAltName begins.
fn offset_of_names(pem: &str) -> String {
    let parsed = String::from_utf8(run(Command::new("openssl").args(["asn1parse", "-in", pem]))).unwrap();
    let mut lines = parsed.lines().skip_while(|line| !line.contains("Subject Alternative Name"));
    let value = lines.find(|line| line.contains("OCTET STRING")).unwrap();
    value.split(':').next().unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_steer_to_the_right_key_and_names() {
    let ca = ca().await;
    let folder = ca.folder.path();
    let at = |label: &str, more: &[&str]| {
        let url = ca.url(&if label.is_empty() {
            est::CSRATTRS.to_owned()
        } else {
            est::labelled(est::CSRATTRS, label)
        });
        ca.curl(&[more, &[&url]].concat())
    };
    let anybody = asn1_of(folder, &at("", &[]).body);
    assert!(anybody.contains("prime256v1") && !anybody.contains("Extension Request"), "{anybody}");
    let printers = asn1_of(folder, &at("printers", &[]).body);
    assert!(printers.contains("secp384r1") && printers.contains("ecdsa-with-SHA384"), "{printers}");
    let mut request = token_request("p1", &["dns:p1.printers.acme.ch"]);
    request.profile = "printer".into();
    let token = ca.authority.token(request).await.unwrap();
    let user = format!("any:{}", &*token.to_line().unwrap());
    let known = asn1_of(folder, &at("", &["--user", &user]).body);
    for expected in ["secp384r1", "Extension Request", "X509v3 Subject Alternative Name"] {
        assert!(known.contains(expected), "{expected}: {known}");
    }
    assert_eq!(at("short", &["--user", &user]).status, 403);
    assert_eq!(at("", &["--user", "any:enclasp1_guess"]).status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn short_lived_certificates_are_not_revocable() {
    let ca = Ca::start_with(|config| {
        config.replacen("crl-shards", "http-url = \"http://127.0.0.1:1\"\ncrl-shards", 1)
    })
    .await;
    for (profile, expected) in
        [("short-lived", "No Revocation Available"), ("client", "CRL Distribution Points")]
    {
        let mut request = token_request(profile, &["dns:a"]);
        request.profile = profile.into();
        let token = ca.authority.token(request).await.unwrap();
        let identity = enroll(&token, &ca.enrolment(profile), |_| ()).await.unwrap();
        let pem = file(ca.folder.path(), "leaf.pem", identity.leaf().unwrap().to_pem());
        // OpenSSL 3.0 knows the extension by its number only.
        let text = text_of(&pem).replace("2.5.29.56", "No Revocation Available");
        assert!(text.contains(expected), "{profile}: {text}");
        assert_eq!(text.contains("OCSP"), profile == "client", "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_approves_of_one_key() {
    let ca = ca().await;
    let guarded = |name: &str| {
        let mut request = token_request(name, &["dns:web"]);
        request.profile = "guarded".into();
        request
    };
    let token = ca.authority.token(guarded("web")).await.unwrap();
    let client = ca.client().with_patience(Duration::ZERO);
    let (first, second) = (ca.key("first"), ca.key("second"));
    let asked = csr(&*first, "CN=web", &["dns:web"]);
    for _ in 0..2 {
        let error = client.simpleenroll(&asked, token.secret()).await.unwrap_err();
        let EnrollError::Later { status: 202, retry_after, reason, .. } = &error else { panic!("{error}") };
        assert!(retry_after.is_some() && reason.contains("person's approval"), "{error}");
    }
    let waiting = ca.authority.waiting().await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!((waiting[0].id.as_str(), waiting[0].subject.as_str()), (token.id().as_str(), "CN=web"));
    assert!(matches!(&waiting[0].wants, WaitsFor::Certificate { profile, .. } if profile == "guarded"));
    // The token is held for the key that was first.
    let other = csr(&*second, "CN=web", &["dns:web"]);
    let error = client.simpleenroll(&other, token.secret()).await.unwrap_err();
    assert!(error.to_string().contains("held for another key"), "{error}");
    assert!(ca.issued().await.is_empty());
    ca.authority.approve(ca.keystore.clone(), &token.id()).await.unwrap();
    assert!(matches!(ca.authority.deny(&token.id()).await, Err(Error::NotWaiting { .. })));
    let error = client.simpleenroll(&other, token.secret()).await.unwrap_err();
    assert!(error.to_string().contains("held for another key"), "{error}");
    client.simpleenroll(&asked, token.secret()).await.unwrap();
    assert!(ca.authority.waiting().await.unwrap().is_empty());

    // A denial is for good, and the key that was made goes.
    let token = ca.authority.token(guarded("db")).await.unwrap();
    let error = enroll(&token, &ca.enrolment("db"), |_| ()).await.unwrap_err();
    assert!(matches!(error, EnrollError::Later { status: 202, .. }), "{error}");
    ca.authority.deny(&token.id()).await.unwrap();
    let error = enroll(&token, &ca.enrolment("db"), |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("a person denied"), "{error}");
    assert!(ca.keystore.open(&ca.enrolment("db").key.uri).is_err());
    assert_eq!(ca.issued().await.len(), 1);
    assert!(matches!(ca.authority.approve(ca.keystore.clone(), "none").await, Err(Error::NotWaiting { .. })));
}
