//! Clients that know nothing of Enclasp: curl with OpenSSL's requests, and strongSwan.

use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use enclasp_enroll::est;

use crate::support::{Answer, Ca, base64, file, openssl_csr, run};

/// The certificates of a certs-only answer as PEM, taken apart by OpenSSL.
fn certificates(folder: &Path, answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(
        answer.head.contains("content-type: application/pkcs7-mime; smime-type=certs-only"),
        "{}",
        answer.head
    );
    assert!(answer.head.contains("content-transfer-encoding: base64"), "{}", answer.head);
    assert!(answer.head.contains(&format!("content-length: {}", answer.body.len())), "{}", answer.head);
    assert!(!answer.body.contains('\n'), "strongSwan reads no wrapped base64");
    let message = file(folder, "answer.p7", STANDARD.decode(&answer.body).unwrap());
    let pem = run(Command::new("openssl").args(["pkcs7", "-inform", "DER", "-print_certs", "-in", &message]));
    String::from_utf8(pem).unwrap()
}

fn verify(ca: &Ca, certificate: &str, purpose: &str) {
    let (root, issuing) = (ca.dir().join("root.pem"), ca.dir().join("issuing.pem"));
    let mut command = Command::new("openssl");
    command.args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"]).arg(root).arg("-untrusted");
    run(command.arg(issuing).arg(certificate));
}

fn text(certificate: &str) -> String {
    String::from_utf8(run(Command::new("openssl").args(["x509", "-noout", "-text", "-in", certificate])))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_enrols_and_renews_with_openssl_keys() {
    let ca = Ca::start().await;
    let folder = ca.folder.path();
    let cacerts = certificates(folder, &ca.curl(&[&ca.url(est::CACERTS)]));
    assert_eq!(cacerts.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(cacerts.contains("Acme Root CA") && cacerts.contains("Acme Issuing CA"));

    let csrattrs = ca.curl(&[&ca.url(est::CSRATTRS)]);
    assert!(csrattrs.head.contains("content-type: application/csrattrs"));
    let der = file(folder, "csrattrs.der", STANDARD.decode(&csrattrs.body).unwrap());
    let parsed = run(Command::new("openssl").args(["asn1parse", "-inform", "DER", "-in", &der]));
    assert!(String::from_utf8(parsed).unwrap().contains("ecdsa-with-SHA256"));

    // Each kind of key, wrapped base64 as a person would make it, raw DER, and no subject at all.
    let ed25519: &[&str] = &["-newkey", "ed25519"];
    let rsa: &[&str] = &["-newkey", "rsa:2048"];
    let p384: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
    for (name, key, raw) in
        [("p256", &[][..], false), ("ed25519", ed25519, true), ("rsa", rsa, false), ("p384", p384, true)]
    {
        let token = ca.token("laptop-17", &["dns:laptop-17", "ip:10.0.0.17"]).await;
        let der = openssl_csr(folder, name, &[key, &["-subj", "/"]].concat());
        let wrapped: Vec<u8> =
            base64(&der).as_bytes().chunks(64).flat_map(|line| [line, b"\r\n"].concat()).collect();
        let body = file(folder, "csr", if raw { der } else { wrapped });
        let (data, user) = (format!("@{body}"), format!("any:{}", &*token.to_line().unwrap()));
        let answer = ca.curl(&["--data-binary", &data, "--user", &user, &ca.url(est::SIMPLEENROLL)]);
        let certificate = file(folder, &format!("{name}.pem"), certificates(folder, &answer));
        verify(&ca, &certificate, "sslclient");
        let text = text(&certificate);
        for expected in [
            "Subject: CN = laptop-17",
            "DNS:laptop-17, IP Address:10.0.0.17",
            "TLS Web Client Authentication",
            "Digital Signature",
            "X509v3 Subject Key Identifier",
            "X509v3 Authority Key Identifier",
            "CA:FALSE",
        ] {
            assert!(text.contains(expected), "{name}: {expected} in {text}");
        }
        assert!(!text.contains("TLS Web Server Authentication"));
    }

    // Renewal with the certificate just got, which curl sends without the issuing one.
    let rekey = ["-subj", "/CN=laptop-17", "-addext", "subjectAltName=DNS:laptop-17,IP:10.0.0.17"];
    let body = file(folder, "csr", base64(&openssl_csr(folder, "rekeyed", &rekey)));
    let (certificate, key) = (folder.join("p256.pem"), folder.join("p256.key"));
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let (data, url) = (format!("@{body}"), ca.url(est::SIMPLEREENROLL));
    for version in [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3", "--tls-max", "1.3"]] {
        let client = ["--cert", certificate, "--key", key, "--data-binary", &data, &url];
        let answer = ca.curl(&[&version[..], &client].concat());
        let renewed = file(folder, "renewed.pem", certificates(folder, &answer));
        verify(&ca, &renewed, "sslclient");
    }
    assert_eq!(ca.issued().await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn strongswan_enrols_and_renews() {
    let ca = Ca::start().await;
    let folder = ca.folder.path();
    let token = ca.token("gateway", &["dns:gateway.acme.ch"]).await;
    let request = openssl_csr(
        folder,
        "gateway",
        &["-subj", "/CN=gateway", "-addext", "subjectAltName=DNS:gateway.acme.ch"],
    );
    let request = file(folder, "gateway.csr", request);
    let est = |more: &[&str]| {
        let mut command = Command::new("pki");
        command.args(["--est", "--outform", "pem", "--url", &ca.url(""), "--in", &request]);
        for name in ["root.pem", "issuing.pem"] {
            command.arg("--cacert").arg(ca.dir().join(name));
        }
        run(command.args(more))
    };
    // Its passwords have about 170 bytes: the whole token fits, and so does a longer one's secret.
    let (whole, secret) = (token.to_line().unwrap(), token.secret().to_line());
    let [first, again] =
        [whole.as_str(), &secret].map(|password| est(&["--userpass", &format!("any:{password}")]));
    assert_eq!(first, again);
    let certificate = file(folder, "gateway.pem", first);
    verify(&ca, &certificate, "sslclient");
    let key = folder.join("gateway.key");
    let renewed = est(&["--cert", &certificate, "--key", key.to_str().unwrap()]);
    let renewed = file(folder, "renewed.pem", renewed);
    verify(&ca, &renewed, "sslclient");
    assert_eq!(ca.issued().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_signed_by_hand() {
    let ca = Ca::start().await;
    let folder = ca.folder.path();
    let names =
        ["-subj", "/C=CH/O=Acme/OU=Ops/CN=web", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
    let der = openssl_csr(folder, "web", &names);
    let pem = enclasp_pki::pem::encode("CERTIFICATE REQUEST", &der);
    let refused = |result: enclasp_ca::Result<enclasp_ca::Record>| result.unwrap_err().to_string();
    let sign = |request: &[u8], profile: &str, days: Option<u64>| {
        let lifetime = days.map(|days| std::time::Duration::from_secs(days * 86_400));
        let (authority, keystore, request, profile) =
            (ca.authority.clone(), ca.keystore.clone(), request.to_vec(), profile.to_owned());
        async move { authority.sign(keystore, &request, &profile, lifetime).await }
    };
    assert!(refused(sign(b"garbage", "server", None).await).contains("certification request"));
    assert!(refused(sign(&der, "root", None).await).contains("root"));
    assert!(refused(sign(&der, "server", Some(91)).await).contains("allows 90d"));
    assert!(ca.issued().await.is_empty());

    for request in [&der[..], pem.as_bytes()] {
        let record = sign(request, "server", Some(7)).await.unwrap();
        let path = file(folder, "web.pem", record.certificate().unwrap().to_pem());
        verify(&ca, &path, "sslserver");
        assert!(text(&path).contains("C = CH, O = Acme, OU = Ops, CN = web"));
        let week = std::time::Duration::from_secs(7 * 86_400);
        let life = record.not_after.duration_since(record.issued_at).unwrap();
        assert!(life <= week && life > week - std::time::Duration::from_secs(5));
    }
    assert_eq!(ca.issued().await.len(), 2);
}
