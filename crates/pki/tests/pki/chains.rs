use std::slice::from_ref;

use enclasp_keystore::Algorithm;
use enclasp_pki::{Certificate, ChainError, Profile, Purpose, order_chain, verify_chain};

use crate::common::{Authority, Bench, DAY, new_year};

struct Scene {
    bench: Bench,
    acme: Authority,
    client: Certificate,
}

impl Scene {
    fn new() -> Self {
        let bench = Bench::new();
        let acme = Authority::new(&bench, "acme", "Acme", Algorithm::P256);
        let client = acme.issue(&*bench.key("web", Algorithm::P256), &Profile::client());
        Self { bench, acme, client }
    }

    /// As long after the new year, with everything in place.
    fn after(&self, days: u32, purpose: Purpose) -> Result<(), ChainError> {
        let (issuing, root) = (from_ref(&self.acme.issuing), from_ref(&self.acme.root));
        verify_chain(&self.client, issuing, root, new_year() + days * DAY, purpose)
    }

    /// At the new year, for a client.
    fn with(&self, intermediates: &[Certificate], roots: &[Certificate]) -> Result<(), ChainError> {
        verify_chain(&self.client, intermediates, roots, new_year(), Purpose::Client)
    }
}

#[test]
fn an_expired_certificate_is_named() {
    let error = Scene::new().after(33, Purpose::Client).unwrap_err();
    assert_eq!(error.to_string(), "CN=web,O=Acme expired 3 days ago, at 2026-01-31T00:00:00Z");
}

#[test]
fn a_certificate_of_the_future_blames_the_clock() {
    let Scene { acme, client, .. } = Scene::new();
    let early = new_year() - 2 * DAY;
    let (issuing, root) = (from_ref(&acme.issuing), from_ref(&acme.root));
    let error = verify_chain(&client, issuing, root, early, Purpose::Client).unwrap_err();
    assert_eq!(
        error.to_string(),
        "CN=web,O=Acme is not valid before 2025-12-31T23:59:00Z, which is in 1 day"
    );
    assert!(error.hint().unwrap().contains("clock"));
}

#[test]
fn another_authority_is_not_trusted() {
    let scene = Scene::new();
    let other = Authority::new(&scene.bench, "other", "Other", Algorithm::P256);
    let own = [scene.acme.issuing.clone(), scene.acme.root.clone()];
    let error = scene.with(&own, from_ref(&other.root)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "CN=Acme Issuing,O=Acme was issued by CN=Acme Root,O=Acme, which is not among the trusted roots"
    );
}

#[test]
fn another_authority_of_the_same_name_is_not_trusted() {
    let scene = Scene::new();
    let other = Authority::new(&scene.bench, "other", "Acme", Algorithm::P256);
    let error = scene.with(from_ref(&scene.acme.issuing), from_ref(&other.root)).unwrap_err();
    assert!(
        matches!(&error, ChainError::WrongSignature { issuer, .. } if issuer == "CN=Acme Root,O=Acme"),
        "{error}"
    );
}

#[test]
fn a_missing_intermediate_is_what_ends_the_chain() {
    let scene = Scene::new();
    let error = scene.with(&[], from_ref(&scene.acme.root)).unwrap_err();
    let expected = "CN=web,O=Acme was issued by CN=Acme Issuing,O=Acme, which is not among";
    assert!(error.to_string().starts_with(expected), "{error}");
    assert!(matches!(scene.with(&[], &[]), Err(ChainError::UnknownIssuer { .. })));
}

#[test]
fn the_wrong_purpose_is_named() {
    let error = Scene::new().after(1, Purpose::Server).unwrap_err();
    assert_eq!(
        error.to_string(),
        "CN=web,O=Acme lacks the extended key usage serverAuth (it has clientAuth)"
    );
    assert_eq!(error.hint().unwrap(), "have it issued with the profile `server`");
}

#[test]
fn a_ca_is_not_a_client() {
    let acme = Scene::new().acme;
    let root = from_ref(&acme.root);
    let error = verify_chain(&acme.issuing, &[], root, new_year(), Purpose::Client).unwrap_err();
    assert!(error.to_string().contains("it is a CA's certificate"), "{error}");
}

#[test]
fn a_good_chain_is_good_to_its_last_second() {
    let scene = Scene::new();
    scene.after(0, Purpose::Client).unwrap();
    scene.after(30, Purpose::Client).unwrap();
    let intermediates = [scene.acme.root.clone(), scene.acme.issuing.clone()];
    scene.with(&intermediates, from_ref(&scene.acme.root)).unwrap();
}

#[test]
fn chains_are_put_in_order() {
    let Scene { bench, acme, client } = Scene::new();
    let twin = Authority::new(&bench, "twin", "Acme", Algorithm::P256);
    let (root, issuing) = (&acme.root, &acme.issuing);
    let others = [&twin.root, root, &client, &twin.issuing, issuing].map(Certificate::clone);
    assert_eq!(order_chain(&client, &others).iter().collect::<Vec<_>>(), [&client, issuing, root]);
    assert_eq!(order_chain(&client, from_ref(root)), from_ref(&client));
    assert_eq!(order_chain(root, &others), from_ref(root));
}
