//! Identities: the store, matching, examination, selection and PKCS#12, with real certificates.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use enclasp_identity::{Criteria, Error, Identity, Pkcs12, Store, examine, match_key, select};
use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{Algorithm, Key, KeyUri, SignContext};
use enclasp_pki::{
    Certificate, DEFAULT_ROOT_LIFETIME, DistinguishedName, Issuer, Leaf, Profile, Purpose, create_root,
};

const DAY: Duration = Duration::from_secs(86_400);

struct Authority {
    key: SoftKey,
    root: Certificate,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = key("root", Algorithm::P256);
        let ctx = SignContext::new("test");
        let subject = name.parse::<DistinguishedName>().unwrap();
        let root = create_root(&key, &subject, DEFAULT_ROOT_LIFETIME, SystemTime::now(), &ctx).unwrap();
        Self { key, root }
    }

    fn issue(&self, subject: &str, key: &SoftKey, profile: &Profile, lifetime: Duration) -> Certificate {
        let leaf = Leaf {
            profile,
            subject: &subject.parse::<DistinguishedName>().unwrap(),
            subject_alt_names: &[],
            spki: &key.info().spki,
            lifetime: Some(lifetime),
        };
        let issuer = Issuer::new(self.root.clone(), &self.key).unwrap();
        issuer.issue(&leaf, SystemTime::now(), &SignContext::new("test")).unwrap()
    }
}

fn key(name: &str, algorithm: Algorithm) -> SoftKey {
    SoftKey::generate(KeyUri::soft(name).unwrap(), algorithm).unwrap()
}

fn identity(name: &str, certificate: &Certificate) -> Identity {
    Identity {
        name: name.into(),
        key: KeyUri::soft(name).unwrap(),
        chain: vec![certificate.der().clone()],
        roots: Vec::new(),
        authority: None,
        software: false,
        updated: SystemTime::now(),
        retired: None,
        certified_by: None,
    }
}

#[test]
fn the_store_refuses_what_it_should_and_keeps_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let authority = Authority::new("CN=Root");
    let web = key("web", Algorithm::P256);
    let certificate = authority.issue("CN=web", &web, &Profile::client(), DAY);
    let web = identity("web", &certificate);

    assert!(matches!(store.get("web"), Err(Error::Absent { .. })));
    assert!(matches!(store.delete("web"), Err(Error::Absent { .. })));
    for name in ["", ".web", "../web", "a/b", "a b", &"x".repeat(65)] {
        assert!(matches!(store.get(name), Err(Error::Name { .. })), "{name:?}");
    }
    store.add(&web).unwrap();
    assert!(matches!(store.add(&web), Err(Error::Exists { .. })));
    assert_eq!(store.get("web").unwrap(), web);
    let Err(error) = store.get("wob") else { panic!("there is no `wob`") };
    assert_eq!(error.hint().unwrap(), "there are: web");

    let path = folder.path().join("web.json");
    let good = fs::read_to_string(&path).unwrap();
    for bad in [
        "".into(),
        "{}".into(),
        good.replace("CERTIFICATE", "X"),
        good.replace("\"version\": 1", "\"version\": 9"),
    ] {
        fs::write(&path, &bad).unwrap();
        assert!(matches!(store.get("web"), Err(Error::Damaged { .. })), "{bad}");
        assert_eq!(store.list().unwrap().len(), 1, "a damaged identity is listed as such");
    }
    store.put(&web).unwrap();
    assert_eq!(store.get("web").unwrap(), web);
    // A file under another's name is not believed.
    fs::copy(&path, folder.path().join("other.json")).unwrap();
    assert!(matches!(store.get("other"), Err(Error::Damaged { .. })));
    store.delete("web").unwrap();
    assert!(matches!(store.get("web"), Err(Error::Absent { .. })));
}

#[test]
fn a_certificate_finds_its_key_or_is_told_which_came_nearest() {
    let authority = Authority::new("CN=Root");
    let (web, other) = (key("web", Algorithm::P256), key("other", Algorithm::P256));
    let certificate = authority.issue("CN=web", &web, &Profile::client(), DAY);
    let keys = [other.info().clone(), web.info().clone()];
    assert_eq!(match_key(&certificate, &keys).unwrap().uri, web.info().uri);

    let nearest = |keys: &[_]| match_key(&certificate, keys).unwrap_err().to_string();
    let namesake = key("web", Algorithm::P384);
    let text = nearest(&[other.info().clone(), namesake.info().clone()]);
    assert!(text.contains("soft:name=web") && text.contains("another type"), "{text}");
    let text = nearest(&[key("a", Algorithm::Ed25519).info().clone(), other.info().clone()]);
    assert!(text.contains("soft:name=other") && text.contains("same type"), "{text}");
    assert!(!nearest(&[key("a", Algorithm::Ed25519).info().clone()]).contains("nearest"));
    assert!(!nearest(&[]).contains("nearest"));
}

#[test]
fn an_import_says_what_it_found() {
    let authority = Authority::new("CN=Root");
    let web = key("web", Algorithm::P256);
    let leaf = authority.issue("CN=web", &web, &Profile::client(), DAY);
    let now = SystemTime::now();

    let alone = examine(std::slice::from_ref(&leaf), &[], now).unwrap();
    assert!(alone.notes.iter().any(|note| note.contains("cannot be checked")), "{:?}", alone.notes);

    let reversed = examine(&[authority.root.clone(), leaf.clone()], &[], now).unwrap();
    assert_eq!(reversed.chain, std::slice::from_ref(&leaf), "the root is not part of what is sent");
    assert!(reversed.notes.iter().any(|note| note.contains("not in order")), "{:?}", reversed.notes);
    assert!(reversed.notes.iter().any(|note| note.contains("good, for clients")), "{:?}", reversed.notes);
    assert!(reversed.warnings.is_empty(), "{:?}", reversed.warnings);

    let late = examine(std::slice::from_ref(&leaf), &[], now + 2 * DAY).unwrap();
    assert!(late.warnings.iter().any(|warning| warning.contains("expired")), "{:?}", late.warnings);
    let late = examine(&[leaf.clone(), authority.root.clone()], &[], now + 2 * DAY).unwrap();
    assert_eq!(late.warnings.len(), 1, "said once: {:?}", late.warnings);
    let early = examine(std::slice::from_ref(&leaf), &[], now - DAY).unwrap();
    assert!(
        early.warnings.iter().any(|warning| warning.contains("not valid before")),
        "{:?}",
        early.warnings
    );

    let stranger = Authority::new("CN=Other");
    let wrong = examine(&[leaf], &[stranger.root], now).unwrap();
    assert_eq!(wrong.warnings.len(), 1, "{:?}", wrong.warnings);
    assert!(examine(&[], &[], now).is_err());
}

#[test]
fn the_identity_that_fits_and_lasts_longest_is_selected_with_reasons() {
    let (authority, other) = (Authority::new("CN=Root"), Authority::new("CN=Other"));
    let web = key("web", Algorithm::P256);
    let short = identity("short", &authority.issue("CN=web", &web, &Profile::client(), DAY));
    let long = identity("long", &authority.issue("CN=web", &web, &Profile::client(), 2 * DAY));
    let server = identity("server", &authority.issue("CN=web", &web, &Profile::server(), 9 * DAY));
    let foreign = identity("foreign", &other.issue("CN=web", &web, &Profile::client(), 9 * DAY));
    let all = [short, long, server, foreign];
    let criteria =
        |issuers, after| Criteria { purpose: Purpose::Client, issuers, now: SystemTime::now() + after };

    let root = vec![authority.root.subject().clone()];
    let selection = select(&all, &criteria(root.clone(), Duration::ZERO));
    assert_eq!(selection.chosen.as_ref().unwrap().name, "long");
    let why = selection.explain().join("\n");
    for part in [
        "`short` would fit too",
        "`long` is used",
        "`server` does not fit: it is for",
        "`foreign` does not fit: its issuer",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert_eq!(select(&all, &criteria(Vec::new(), Duration::ZERO)).chosen.unwrap().name, "foreign");
    let later = select(&all, &criteria(root, 3 * DAY));
    assert!(later.chosen.is_none());
    assert!(later.explain()[0].contains("expired"));
}

#[test]
fn pkcs12_files_of_openssl_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (key, cert, p12) = (path("key.pem"), path("cert.pem"), path("id.p12"));
    openssl(
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=web",
        ],
        &["-keyout", &key, "-out", &cert],
    );
    for legacy in [&[][..], &["-legacy"]] {
        openssl(
            &["pkcs12", "-export", "-passout", "pass:secret", "-inkey", &key, "-in", &cert, "-out", &p12],
            legacy,
        );
        let bytes = fs::read(&p12).unwrap();
        let opened = Pkcs12::open(&bytes, "secret").unwrap();
        let key = SoftKey::from_pkcs8(KeyUri::soft("web").unwrap(), &opened.private_key).unwrap();
        assert_eq!(opened.certificates[0].spki(), key.info().spki);
        let wrong = Pkcs12::open(&bytes, "wrong").err().unwrap().to_string();
        assert!(wrong.contains("passphrase"), "{wrong}");
        for cut in [0, 1, 20, bytes.len() / 2, bytes.len() - 1] {
            assert!(Pkcs12::open(&bytes[..cut], "secret").is_err(), "{cut}");
        }
    }
    assert!(Pkcs12::open(&fs::read(Path::new(&cert)).unwrap(), "secret").is_err());
}

fn openssl(first: &[&str], rest: &[&str]) {
    let output = Command::new("openssl").args(first).args(rest).output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
