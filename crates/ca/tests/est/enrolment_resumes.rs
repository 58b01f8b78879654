//! `enroll`: one step, from whichever moment it was interrupted.

use std::sync::Mutex;
use std::time::Duration;

use enclasp_enroll::{Enrolment, Error, Step, Token, enroll};
use enclasp_keystore::KeyUri;
use enclasp_pki::{Purpose, verify_chain};

use crate::support::{Ca, token_request, until};

fn silent(_: Step) {}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_before_anything_is_sent() {
    let ca = Ca::start().await;
    let token = ca.token("web", &[]).await;
    enroll(&token, &ca.enrolment("taken"), silent).await.unwrap();
    let token = ca.token("web", &[]).await;
    let error = enroll(&token, &ca.enrolment("taken"), silent).await.unwrap_err();
    assert!(matches!(error, Error::IdentityExists { .. }), "{error}");
    let nameless = Enrolment { identity: "../x".into(), ..ca.enrolment("web") };
    let error = enroll(&token, &nameless, silent).await.unwrap_err();
    assert!(error.to_string().contains("name of an identity"), "{error}");

    let mut request = token_request("web", &[]);
    request.lifetime = Duration::from_secs(1);
    let short = ca.authority.token(request).await.unwrap();
    until("the token expires", || async { short.check(std::time::SystemTime::now()).is_err() }).await;
    let error = enroll(&short, &ca.enrolment("late"), silent).await.unwrap_err();
    assert!(matches!(error, Error::Expired { .. }), "{error}");
    assert_eq!(ca.issued().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_never_sees_the_token() {
    let ca = Ca::start().await;
    let other = Ca::start().await;
    // A token of `other` that leads to `ca`.
    let config = other.dir().join("authority.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(&other.address.to_string(), &ca.address.to_string())).unwrap();
    let misled = enclasp_ca::Authority::open(&other.dir()).await.unwrap();
    let token = misled.token(token_request("web", &[])).await.unwrap();
    let error = enroll(&token, &ca.enrolment("web"), silent).await.unwrap_err();
    assert!(matches!(error, Error::WrongAuthority { .. }), "{error}");
    assert!(error.to_string().contains(&other.authority.root().fingerprint_hex()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_one_step() {
    let ca = Ca::start().await;
    let token = ca.token("laptop-17", &["dns:laptop-17"]).await;
    // A token is read from a file that a person may have touched.
    let token = Token::parse(&format!("{}\n", &*token.to_line().unwrap())).unwrap();
    let steps = Mutex::new(Vec::new());
    let enrolment = ca.enrolment("laptop");
    let identity = enroll(&token, &enrolment, |step| steps.lock().unwrap().push(step)).await.unwrap();
    assert_eq!(enrolment.store.get("laptop").unwrap(), identity);
    assert_eq!(identity.key, KeyUri::soft("laptop").unwrap());
    assert_eq!(identity.chain.len(), 2);
    assert_eq!(identity.roots, [ca.authority.root().der().clone()]);
    assert_eq!(identity.authority.as_deref(), Some(ca.url("").as_str()));
    let leaf = identity.leaf().unwrap();
    assert_eq!(leaf.spki(), enrolment.keystore.open(&identity.key).unwrap().info().spki);
    let (issuing, root) = (ca.authority.issuing().clone(), ca.authority.root().clone());
    verify_chain(&leaf, &[issuing], &[root], std::time::SystemTime::now(), Purpose::Client).unwrap();
    assert!(std::fs::read_dir(&enrolment.pending).unwrap().next().is_none());
    let steps = steps.into_inner().unwrap();
    assert!(matches!(
        steps[..],
        [Step::KeyMade(_), Step::Requesting { .. }, Step::Certified { .. }, Step::Stored { .. }]
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_request_was_recorded() {
    let mut ca = Ca::start().await;
    let token = ca.token("web", &[]).await;
    ca.stop().await;
    let enrolment = ca.enrolment("web");
    // The device ends while it waits for an authority that is away.
    let requesting = tokio::sync::Notify::new();
    tokio::select! {
        biased;
        () = requesting.notified() => {}
        _ = enroll(&token, &enrolment, |step| {
            if matches!(step, Step::Requesting { .. }) {
                requesting.notify_one();
            }
        }) => panic!("there is no authority to answer"),
    }
    let key = enrolment.keystore.open(&enrolment.key.uri).unwrap().info().spki.clone();
    ca.restart().await;

    let error = enroll(&token, &ca.enrolment("db"), silent).await.unwrap_err();
    assert!(matches!(&error, Error::OtherEnrolment { identity, .. } if identity == "web"), "{error}");
    let steps = Mutex::new(Vec::new());
    let identity = enroll(&token, &enrolment, |step| steps.lock().unwrap().push(step)).await.unwrap();
    assert!(matches!(steps.into_inner().unwrap()[0], Step::Resumed { .. }));
    assert_eq!(identity.leaf().unwrap().spki(), key);
    assert_eq!(ca.issued().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_certificate_was_issued_and_after_the_identity_was_stored() {
    let ca = Ca::start().await;
    let token = ca.token("web", &[]).await;
    let enrolment = ca.enrolment("web");
    let kept = ca.folder.path().join("kept");
    let pending = enrolment.pending.join(format!("{}.json", token.id()));
    let first = enroll(&token, &enrolment, |step| {
        if matches!(step, Step::Certified { .. }) {
            std::fs::copy(&pending, &kept).unwrap();
        }
    })
    .await
    .unwrap();
    for identity_is_stored in [true, false] {
        std::fs::copy(&kept, &pending).unwrap();
        if !identity_is_stored {
            enrolment.store.delete("web").unwrap();
        }
        let again = enroll(&token, &enrolment, silent).await.unwrap();
        assert_eq!(again.chain, first.chain);
        assert!(!pending.exists());
    }
    assert_eq!(ca.issued().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_named() {
    let mut ca = Ca::start().await;
    ca.stop().await;
    let error = ca.client().with_patience(Duration::ZERO).cacerts().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&ca.url("")), "{error}");
    assert!(error.hint().unwrap().contains("enclasp ca serve"));
    // One that comes back in time is found.
    let client = ca.client();
    let waiting = tokio::spawn(async move { client.cacerts().await });
    ca.restart().await;
    assert_eq!(waiting.await.unwrap().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_64_kib_of_names() {
    let ca = Ca::start().await;
    let names: Vec<_> = (0..2600).map(|i| format!("dns:host-{i:05}.acme.example")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    assert!(names.concat().len() > 64 * 1024);
    let token = ca.token("web", &names).await;
    let identity = enroll(&token, &ca.enrolment("web"), silent).await.unwrap();
    assert_eq!(identity.leaf().unwrap().subject_alt_names().len(), names.len());
}
