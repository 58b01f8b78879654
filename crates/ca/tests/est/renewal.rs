//! Renewal over mutual TLS, and the server's renewal of its own certificate.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use enclasp_ca::TokenRequest;
use enclasp_enroll::{Error, bisect, enroll, renew};
use enclasp_keystore::Key;
use enclasp_pki::Certificate;
use enclasp_tls::Credential;

use crate::support::{Ca, csr, file, run, token_request, until};

async fn enrolled(ca: &Ca, name: &str) -> (enclasp_identity::Identity, Arc<dyn Key>) {
    let names = [format!("dns:{name}")];
    let token = ca.token(name, &[&names[0]]).await;
    let identity = enroll(&token, &ca.enrolment(name), |_| ()).await.unwrap();
    let key = Arc::from(ca.keystore.open(&identity.key).unwrap());
    (identity, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn other_names_are_refused() {
    let ca = Ca::start().await;
    let (identity, key) = enrolled(&ca, "web").await;
    let credential = Credential::new(identity.chain.clone(), key.clone()).unwrap();
    for (subject, names) in [
        ("CN=db", &["dns:web"][..]),
        ("CN=web", &["dns:db"]),
        ("CN=web", &["dns:web", "dns:db"]),
        ("CN=web", &[]),
    ] {
        let request = csr(&*key, subject, names);
        let error = ca.client().simplereenroll(&request, &credential).await.unwrap_err();
        assert!(matches!(error, Error::Refused { status: 403, .. }), "{error}");
    }
    assert_eq!(ca.issued().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_refused() {
    let (ca, other) = (Ca::start().await, Ca::start().await);
    let (identity, key) = enrolled(&other, "web").await;
    let request = csr(&*key, "CN=web", &["dns:web"]);
    let credential = Credential::new(identity.chain, key).unwrap();
    let client = ca.client().with_patience(Duration::ZERO);
    let error = client.simplereenroll(&request, &credential).await.unwrap_err();
    assert!(matches!(error, Error::Handshake { .. } | Error::Tls(_)), "{error:?}");
    assert!(ca.issued().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_refused() {
    let ca = Ca::start_with(|config| {
        config.replacen(
            "[profiles.client]\ndefault-lifetime = \"30d\"",
            "[profiles.client]\ndefault-lifetime = \"1s\"",
            1,
        )
    })
    .await;
    let (identity, key) = enrolled(&ca, "web").await;
    let end = identity.leaf().unwrap().not_after();
    until("it expires", || async { SystemTime::now() > end + Duration::from_secs(1) }).await;
    let credential = Credential::new(identity.chain.clone(), key.clone()).unwrap();
    let request = csr(&*key, "CN=web", &["dns:web"]);
    let client = ca.client().with_patience(Duration::ZERO);
    let error = client.simplereenroll(&request, &credential).await.unwrap_err();
    assert!(error.to_string().to_lowercase().contains("expired"), "{error}");
    let error = renew(&identity, key, None, &ca.enrolment("web").store).await.unwrap_err();
    assert!(matches!(error, Error::NotRenewable { .. }), "{error}");
    assert_eq!(ca.issued().await.len(), 1);
}

/// Its profile is patient; another one of the same authority is not.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_renewed_within_its_grace() {
    let lifetime =
        |profile: &str, seconds: &str| format!("[profiles.{profile}]\ndefault-lifetime = \"{seconds}\"");
    let ca = Ca::start_with(|config| {
        let patient = format!("{}\nrenewal-grace = \"1h\"", lifetime("client", "1s"));
        let config = config.replacen(&lifetime("client", "30d"), &patient, 1);
        config.replacen(&lifetime("short-lived", "1d"), &lifetime("short-lived", "1s"), 1)
    })
    .await;
    let store = ca.enrolment("web").store;
    let (identity, key) = enrolled(&ca, "web").await;
    let request = TokenRequest { profile: "short-lived".into(), ..token_request("brief", &[]) };
    let token = ca.authority.token(request).await.unwrap();
    let brief = enroll(&token, &ca.enrolment("brief"), |_| ()).await.unwrap();
    let end = brief.leaf().unwrap().not_after();
    until("both expire", || async { SystemTime::now() > end + Duration::from_secs(1) }).await;
    let renewed = renew(&identity, key, None, &store).await.unwrap();
    assert_ne!(renewed.leaf().unwrap().serial(), identity.leaf().unwrap().serial());
    let key = Arc::from(ca.keystore.open(&brief.key).unwrap());
    let error = renew(&brief, key, None, &store).await.unwrap_err();
    assert!(matches!(error, Error::NotRenewable { .. }), "{error}");
    assert!(error.hint().unwrap().contains("new token"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_software_key_for_a_comparison_is_certified_where_the_profile_allows_it() {
    let allowing = |config: String| config.replace("bisect = false", "bisect = true");
    let strict = Ca::start().await;
    let (identity, key) = enrolled(&strict, "web").await;
    let credential = Credential::new(identity.chain.clone(), key).unwrap();
    let error = bisect(&identity, &credential, strict.key("twin")).await.unwrap_err();
    assert!(error.to_string().contains("allows no software key"), "{error}");
    assert_eq!(strict.issued().await.len(), 1);

    let ca = Ca::start_with(allowing).await;
    let (identity, key) = enrolled(&ca, "web").await;
    let credential = Credential::new(identity.chain.clone(), key).unwrap();
    let twin = ca.key("twin");
    let chain = bisect(&identity, &credential, twin.clone()).await.unwrap();
    let (old, new) = (identity.leaf().unwrap(), Certificate::from_der(&chain[0]).unwrap());
    assert_eq!((old.subject(), old.subject_alt_names()), (new.subject(), new.subject_alt_names()));
    assert_eq!(new.spki(), twin.info().spki);
    let life = new.not_after().duration_since(new.not_before()).unwrap();
    assert!(life <= Duration::from_secs(11 * 60), "{life:?}");
    let path = file(ca.folder.path(), "twin.pem", new.to_pem());
    let text = run(Command::new("openssl").args(["x509", "-noout", "-text", "-in", &path]));
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("Explicit Text: a software key, to compare a handshake with"), "{text}");
    let records = ca.issued().await;
    assert_eq!(records.last().unwrap().issued_by, enclasp_ca::IssuedBy::Bisect);

    // It leads to no other certificate.
    let credential = Credential::new(chain, twin.clone()).unwrap();
    let request = csr(&*twin, "CN=web", &["dns:web"]);
    for refused in [
        ca.client().simplereenroll(&request, &credential).await,
        ca.client().bisect(&request, &credential).await,
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::Refused { status: 403, .. }), "{error}");
    }
    assert_eq!(ca.issued().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_for_the_same_key_and_for_a_new_one() {
    let ca = Ca::start().await;
    let (identity, key) = enrolled(&ca, "web").await;
    let store = ca.enrolment("web").store;
    let renewed = renew(&identity, key.clone(), None, &store).await.unwrap();
    let (old, new) = (identity.leaf().unwrap(), renewed.leaf().unwrap());
    assert_ne!(old.serial(), new.serial());
    assert_eq!((old.spki(), old.subject()), (new.spki(), new.subject()));
    assert_eq!(old.subject_alt_names(), new.subject_alt_names());
    assert_eq!(store.get("web").unwrap(), renewed);

    let credential = Credential::new(renewed.chain, key).unwrap();
    let rekeyed = ca.key("rekeyed");
    let request = csr(&*rekeyed, "CN=web", &["dns:web"]);
    let issued = ca.client().simplereenroll(&request, &credential).await.unwrap();
    assert_eq!(issued[0].spki(), rekeyed.info().spki);
    assert_eq!(ca.issued().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_renews_its_own_certificate_while_it_runs() {
    // Backdated by a minute, a certificate of two minutes is due 20 s later; of 66 s, at once.
    let short = "[profiles.server]\ndefault-lifetime = \"33s\"";
    let mut ca =
        Ca::start_with(|config| config.replacen("[profiles.server]\ndefault-lifetime = \"30d\"", short, 1))
            .await;
    let server_certificates = || async {
        let records = ca.authority.certificates(&Default::default(), None, usize::MAX).await.unwrap();
        records.iter().filter(|record| record.issued_by == enclasp_ca::IssuedBy::Server).count()
    };
    until("it was renewed twice", || async { server_certificates().await >= 3 }).await;
    assert_eq!(ca.client().cacerts().await.unwrap().len(), 2);
    let token = ca.authority.token(token_request("web", &[])).await.unwrap();
    ca.restart().await;
    enroll(&token, &ca.enrolment("web"), |_| ()).await.unwrap();
}
