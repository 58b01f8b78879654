//! `init` makes all of an authority or nothing, and `open` notices what does not fit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use enclasp_ca::{Authority, Error, NewAuthority, Server, init};
use enclasp_keystore::soft::{Protection, SoftKeystore};
use enclasp_keystore::{Import, Key, KeyInfo, KeySpec, KeyUri, Keystore, SignContext};
use enclasp_pki::{Intermediate, Issuer, Purpose, verify_chain};
use zeroize::Zeroizing;

use crate::support::{Ca, Nobody, soft_keystore};

fn acme() -> NewAuthority {
    NewAuthority {
        name: "Acme".into(),
        url: "https://ca.acme.ch".parse().unwrap(),
        keys: None,
        root_key: None,
        http_url: None,
        database: None,
        name_constraints: Default::default(),
    }
}

/// A keystore that fails to make its nth key.
struct Failing<'a> {
    inner: &'a dyn Keystore,
    left: AtomicUsize,
}

impl Keystore for Failing<'_> {
    fn create(&self, spec: &KeySpec) -> enclasp_keystore::Result<Box<dyn Key>> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            let at = "the test".into();
            return Err(enclasp_keystore::Error::Unavailable { at, reason: "it is broken".into() });
        }
        self.inner.create(spec)
    }
    fn open(&self, uri: &KeyUri) -> enclasp_keystore::Result<Box<dyn Key>> {
        self.inner.open(uri)
    }
    fn list(&self) -> enclasp_keystore::Result<Vec<KeyInfo>> {
        self.inner.list()
    }
    fn delete(&self, uri: &KeyUri) -> enclasp_keystore::Result<()> {
        self.inner.delete(uri)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_leaves_nothing_and_an_authority_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ca");
    let keystore = soft_keystore(&folder.path().join("keys"));
    assert!(matches!(Authority::open(&dir).await, Err(Error::Absent { .. })));
    for name in ["", "x\ny", &"x".repeat(41)] {
        let new = NewAuthority { name: name.into(), ..acme() };
        assert!(matches!(init(&dir, &new, &*keystore), Err(Error::Setting { .. })), "{name}");
    }
    for left in 0..5 {
        let failing = Failing { inner: &*keystore, left: AtomicUsize::new(left) };
        assert!(init(&dir, &acme(), &failing).is_err());
        assert!(keystore.list().unwrap().is_empty());
        assert!(!dir.join("authority.toml").exists());
    }
    let config = init(&dir, &acme(), &*keystore).unwrap();
    assert!(
        config.issuing_key.name().starts_with("acme-") && config.issuing_key.name().ends_with("-issuing")
    );
    assert_eq!(keystore.list().unwrap().len(), 5);
    assert!(matches!(init(&dir, &acme(), &*keystore), Err(Error::Exists { .. })));
    assert_eq!(keystore.list().unwrap().len(), 5);

    let authority = Authority::open(&dir).await.unwrap();
    let (root, issuing) = (authority.root().clone(), authority.issuing().clone());
    assert_eq!(root.subject().to_string(), "CN=Acme Root CA");
    issuing.verify_signed_by(&root).unwrap();
    assert!(issuing.is_ca());
    // An authority of the same name has keys of its own.
    let other = init(&folder.path().join("other"), &acme(), &*keystore).unwrap();
    assert_ne!(other.root_key, config.root_key);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_do_not_fit_are_noticed() {
    let mut ca = Ca::start().await;
    ca.stop().await;
    let other = Ca::start().await;
    let config = ca.dir().join("authority.toml");
    let text = std::fs::read_to_string(&config).unwrap();

    let swapped = text.replace("-issuing\"", "-server\"");
    std::fs::write(&config, swapped).unwrap();
    let authority = Authority::open(&ca.dir()).await.unwrap();
    let error = Server::bind(authority, ca.keystore.clone(), "127.0.0.1:0").await.err().unwrap();
    assert!(matches!(error, Error::WrongKey { certificate: "issuing", .. }), "{error}");

    std::fs::write(&config, format!("{text}\nextra = 1\n")).unwrap();
    assert!(Authority::open(&ca.dir()).await.unwrap_err().to_string().contains("extra"));

    std::fs::write(&config, text).unwrap();
    std::fs::copy(other.dir().join("root.pem"), ca.dir().join("root.pem")).unwrap();
    let error = Authority::open(&ca.dir()).await.unwrap_err().to_string();
    assert!(error.contains("root.pem"), "{error}");
}

/// The root certified it, but there may be copies.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_be_elsewhere_is_refused() {
    let mut ca = Ca::start().await;
    ca.stop().await;
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let pkcs8 = Zeroizing::new(pair.to_pkcs8v1().unwrap().as_ref().to_vec());
    let keys = SoftKeystore::open(&ca.folder.path().join("keys"), &Protection::KeyFile, Nobody).unwrap();
    let copied = keys.import(&KeyUri::soft("copied").unwrap(), pkcs8).unwrap();
    let settings = ca.authority.config();
    let root_key = ca.keystore.open(settings.root_key.as_ref().unwrap()).unwrap();
    let intermediate = Intermediate {
        subject: &"CN=Acme Copied CA".parse().unwrap(),
        spki: &copied.info().spki,
        lifetime: std::time::Duration::from_secs(3600),
        path_length: Some(0),
        name_constraints: None,
    };
    let root = Issuer::new(ca.authority.root().clone(), &*root_key).unwrap();
    let issuing = root.issue_intermediate(&intermediate, SystemTime::now(), &SignContext::default()).unwrap();
    std::fs::write(ca.dir().join("issuing.pem"), issuing.to_pem()).unwrap();
    let text = settings.to_toml().unwrap().replace(&settings.issuing_key.to_string(), "soft:name=copied");
    std::fs::write(ca.dir().join("authority.toml"), text).unwrap();
    let authority = Authority::open(&ca.dir()).await.unwrap();
    let error = Server::bind(authority, ca.keystore.clone(), "127.0.0.1:0").await.err().unwrap();
    assert!(matches!(&error, Error::Copied { key } if key == "soft:name=copied"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_records_are_those_of_the_certificates() {
    let ca = Ca::start().await;
    let records = ca.authority.certificates(&Default::default(), None, usize::MAX).await.unwrap();
    let [own] = &records[..] else { panic!("the server's own certificate") };
    let certificate = own.certificate().unwrap();
    assert_eq!(own.serial, certificate.serial());
    assert_eq!(own.subject, "CN=Acme CA server");
    let names: Vec<_> = own.subject_alt_names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["ip:127.0.0.1", "dns:localhost", "ip:::1"]);
    let (issuing, root) = (ca.authority.issuing().clone(), ca.authority.root().clone());
    verify_chain(&certificate, &[issuing], &[root], SystemTime::now(), Purpose::Server).unwrap();

    let listed = |filter: enclasp_ca::Filter| {
        let authority = ca.authority.clone();
        async move { authority.certificates(&filter, None, usize::MAX).await.unwrap().len() }
    };
    let text = |text: &str| enclasp_ca::Filter { text: Some(text.into()), ..Default::default() };
    assert_eq!(listed(text("LOCALHOST")).await, 1);
    assert_eq!(listed(text("elsewhere")).await, 0);
    let profile = |name: &str| enclasp_ca::Filter { profile: Some(name.into()), ..Default::default() };
    assert_eq!((listed(profile("server")).await, listed(profile("client")).await), (1, 0));
    let at = |time| enclasp_ca::Filter { valid_at: Some(time), ..Default::default() };
    assert_eq!(listed(at(SystemTime::now())).await, 1);
    assert_eq!(listed(at(own.not_after + std::time::Duration::from_secs(1))).await, 0);
}
