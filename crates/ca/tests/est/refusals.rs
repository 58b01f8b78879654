//! Every refusal is one line that says what is wrong; nothing is issued and no token is spent.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use enclasp_enroll::est;

use crate::support::{Ca, base64, file, openssl_csr, token_request, until};

#[tokio::test(flavor = "multi_thread")]
async fn each_says_what_is_wrong_and_spends_nothing() {
    let ca = Ca::start().await;
    let folder = ca.folder.path();
    let token = ca.token("web", &["dns:web.acme.ch"]).await;
    let token = token.to_line().unwrap();
    let other = Ca::start().await.token("web", &["dns:web.acme.ch"]).await;
    let other = other.to_line().unwrap();
    let forged = format!("enclasp1_{}", URL_SAFE_NO_PAD.encode([7; 32]));

    let request =
        |name: &str, arguments: &[&str]| file(folder, name, base64(&openssl_csr(folder, name, arguments)));
    let good = request("good", &["-subj", "/CN=web", "-addext", "subjectAltName=DNS:web.acme.ch"]);
    let other_name = request("other-name", &["-subj", "/CN=web", "-addext", "subjectAltName=DNS:db.acme.ch"]);
    let other_subject = request("other-subject", &["-subj", "/CN=root"]);
    let more_subject = request("more-subject", &["-subj", "/O=Acme/CN=web"]);
    let control = request("control", &["-subj", "/CN=a\nb"]);
    let weak = request("weak", &["-subj", "/CN=web", "-newkey", "rsa:1024"]);
    let curve =
        request("curve", &["-subj", "/CN=web", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"]);
    let sha1 = request("sha1", &["-subj", "/CN=web", "-sha1"]);
    let config = "[req]\ndistinguished_name=dn\nattributes=at\nprompt=no\n[dn]\nCN=web\n[at]\nchallengePassword=hunter22\n";
    let config = file(folder, "challenge.cnf", config);
    let challenge = request("challenge", &["-config", &config]);
    let mut der = openssl_csr(folder, "tampered", &["-subj", "/CN=web"]);
    let middle = der.windows(3).position(|window| window == b"web").unwrap();
    der[middle] = b'W';
    let tampered = file(folder, "tampered", base64(&der));
    let cut = file(folder, "cut", &base64(&der)[..64]);
    let empty = file(folder, "empty", "");
    let garbage = file(folder, "garbage", "?!");
    let text = file(folder, "text", base64(b"this is no request"));
    let pem = file(folder, "pem", "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n");
    let huge = file(folder, "huge", vec![b'A'; 10 * 1024 * 1024]);

    let basic = |token: &str| format!("any:{token}");
    let (with_token, with_other, with_forged) = (basic(&token), basic(&other), basic(&forged));
    let no_credentials: &[&str] = &[];
    let right: &[&str] = &["--user", &with_token];
    let pkcs10: &[&str] = &["--header", "Content-Type: application/pkcs10"];
    let chunked: &[&str] = &["--header", "Transfer-Encoding: chunked", "--user", &with_token];
    let at_once: &[&str] = &["--header", "Expect:", "--user", &with_token];
    let html: &[&str] = &["--header", "Content-Type: text/html", "--user", &with_token];
    let cases: &[(&str, &str, &[&str], u16, &str)] = &[
        (est::SIMPLEENROLL, &good, no_credentials, 401, "as the password of HTTP Basic"),
        (est::SIMPLEENROLL, &good, &["--header", "Authorization: Bearer x"], 401, "not HTTP Basic"),
        (est::SIMPLEENROLL, &good, &["--user", "any:hunter2"], 401, "not an Enclasp token"),
        (est::SIMPLEENROLL, &good, &["--user", &with_other], 401, "did not make"),
        (est::SIMPLEENROLL, &good, &["--user", &with_forged], 401, "did not make"),
        (est::SIMPLEENROLL, &other_name, right, 403, "dns:db.acme.ch"),
        (est::SIMPLEENROLL, &other_subject, right, 403, "CN=root"),
        (est::SIMPLEENROLL, &more_subject, right, 403, "O=Acme"),
        (est::SIMPLEENROLL, &control, right, 403, "and the token for CN=web"),
        (est::SIMPLEENROLL, &weak, right, 400, "too weak"),
        (est::SIMPLEENROLL, &curve, right, 400, "not supported"),
        (est::SIMPLEENROLL, &sha1, right, 400, "too weak"),
        (est::SIMPLEENROLL, &challenge, right, 400, "challengePassword"),
        (est::SIMPLEENROLL, &tampered, right, 400, "signature"),
        (est::SIMPLEENROLL, &cut, right, 400, "cut short"),
        (est::SIMPLEENROLL, &empty, right, 400, "empty"),
        (est::SIMPLEENROLL, &garbage, right, 400, "neither base64 nor DER"),
        (est::SIMPLEENROLL, &text, right, 400, "not a certification request"),
        (est::SIMPLEENROLL, &pem, right, 400, "PEM"),
        (est::SIMPLEENROLL, &huge, right, 413, "128 KiB"),
        (est::SIMPLEENROLL, &huge, at_once, 413, "128 KiB"),
        (est::SIMPLEENROLL, &huge, chunked, 413, "128 KiB"),
        (est::SIMPLEENROLL, &good, html, 415, "application/pkcs10"),
        (est::SIMPLEREENROLL, &good, right, 403, "TLS client certificate"),
        (est::SERVERKEYGEN, &good, right, 501, "never travels"),
        (est::FULLCMC, &good, pkcs10, 501, "simpleenroll"),
        (est::CACERTS, &good, right, 405, "GET"),
        ("/.well-known/est/nothing", &good, right, 404, "nothing here"),
    ];
    for (path, body, arguments, status, reason) in cases {
        let mut all = vec!["--data-binary"];
        let body = format!("@{body}");
        all.push(&body);
        if !arguments.iter().any(|argument| argument.starts_with("Content-Type")) {
            all.extend(pkcs10);
        }
        all.extend(*arguments);
        let url = ca.url(path);
        all.push(&url);
        let answer = ca.curl(&all);
        assert_eq!(answer.status, *status, "{path} {body} {arguments:?}: {}", answer.body);
        assert!(answer.body.contains(reason), "{path} {body}: {}", answer.body);
        assert_eq!(answer.body.lines().count(), 1, "{path} {body}: {}", answer.body);
        assert!(answer.head.contains("content-type: text/plain"), "{}", answer.head);
        assert_eq!(answer.head.contains("www-authenticate: basic"), *status == 401, "{}", answer.head);
        assert!(!answer.body.contains(&*token), "a token was repeated");
    }
    assert_eq!(ca.curl(&[&ca.url(est::SIMPLEENROLL)]).status, 405);
    assert!(ca.issued().await.is_empty());

    // The same token is as good as new.
    let body = format!("@{good}");
    let answer = ca.curl(&["--data-binary", &body, "--user", &with_token, &ca.url(est::SIMPLEENROLL)]);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(ca.issued().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_refused_with_its_time() {
    let ca = Ca::start().await;
    let mut request = token_request("web", &[]);
    request.lifetime = Duration::from_secs(1);
    let token = ca.authority.token(request).await.unwrap();
    let key = ca.key("web");
    // Names that are not the token's, so that it is not spent before it expires.
    let csr = crate::support::csr(&*key, "CN=other", &[]);
    until("the token expires", || async {
        let refusal = ca.client().simpleenroll(&csr, token.secret()).await.unwrap_err().to_string();
        let expired = refusal.contains("the token for web expired");
        assert!(expired || refusal.contains("HTTP 403"), "{refusal}");
        expired
    })
    .await;
    assert!(ca.issued().await.is_empty());
    for lifetime in [Duration::ZERO, Duration::from_secs(91 * 86_400)] {
        let mut request = token_request("web", &[]);
        request.lifetime = lifetime;
        let error = ca.authority.token(request).await.unwrap_err().to_string();
        assert!(error.contains("between 1s and 90d"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_nobody_is_not_made() {
    let ca = Ca::start().await;
    assert!(ca.authority.token(token_request("", &[])).await.is_err());
    let mut request = token_request("web", &[]);
    request.profile = "root".into();
    assert!(ca.authority.token(request).await.unwrap_err().to_string().contains("root"));
}
