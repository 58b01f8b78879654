use std::fs;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::{Presence, ProtectionFault, conformance};

/// Somebody who always gives the same answer, and counts the questions.
struct Answer(bool, Arc<AtomicUsize>);

impl Confirm for Answer {
    fn confirm(&self, key: &KeyInfo, ctx: &SignContext) -> Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        assert!(!ctx.reason.is_empty());
        let (key, operation) = (key.uri.to_string(), "sign with".into());
        if self.0 { Ok(()) } else { Err(Error::Denied { key, operation, reason: "no".into() }) }
    }
}

fn open(path: &Path, protection: &Protection) -> Result<SoftKeystore> {
    SoftKeystore::open(path, protection, Answer(true, Arc::default()))
}

fn passphrase(text: &str) -> Protection {
    Protection::Passphrase(Zeroizing::new(text.into()))
}

fn uri(name: &str) -> KeyUri {
    KeyUri::soft(name).unwrap()
}

#[test]
fn conforms() {
    for protection in [Protection::KeyFile, passphrase("open sesame")] {
        let folder = tempfile::tempdir().unwrap();
        let keystore = open(folder.path(), &protection).unwrap();
        conformance::run(&keystore, uri, &[Algorithm::P256, Algorithm::P384, Algorithm::Ed25519]);
    }
}

#[test]
fn keys_are_opened_only_with_what_protects_them() {
    let folder = tempfile::tempdir().unwrap();
    let spki = {
        let keystore = open(folder.path(), &passphrase("right")).unwrap();
        keystore.create(&KeySpec::new(uri("web"))).unwrap().info().spki.clone()
    };
    let fault = |folder: &tempfile::TempDir, protection: &Protection| match open(folder.path(), protection) {
        Err(Error::Protection { fault, .. }) => fault,
        other => panic!("{:?}", other.map(|_| ())),
    };
    for (wrong, why) in [
        (passphrase("wrong"), ProtectionFault::WrongPassphrase),
        (passphrase(""), ProtectionFault::WrongPassphrase),
        (Protection::KeyFile, ProtectionFault::NeedsPassphrase),
    ] {
        assert_eq!(fault(&folder, &wrong), why);
    }
    let again = open(folder.path(), &passphrase("right")).unwrap();
    assert_eq!(again.open(&uri("web")).unwrap().info().spki, spki);

    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), &Protection::KeyFile).unwrap();
    assert_eq!(fault(&folder, &passphrase("x")), ProtectionFault::NeedsKeyFile);
    let at_rest = folder.path().join("at-rest.key");
    let right = fs::read(&at_rest).unwrap();
    fs::write(&at_rest, [0; 32]).unwrap();
    assert_eq!(fault(&folder, &Protection::KeyFile), ProtectionFault::WrongKeyFile);
    // A missing one is not made anew in the place of what a backup may hold.
    fs::remove_file(&at_rest).unwrap();
    assert_eq!(fault(&folder, &Protection::KeyFile), ProtectionFault::MissingKeyFile);
    assert!(!at_rest.exists());
    fs::write(&at_rest, right).unwrap();
    open(folder.path(), &Protection::KeyFile).unwrap();
}

#[test]
fn no_private_key_is_on_disk_in_the_clear() {
    let folder = tempfile::tempdir().unwrap();
    let keystore = open(folder.path(), &Protection::KeyFile).unwrap();
    let pair = Pair::generate(Algorithm::P256).unwrap();
    let pkcs8 = pair.to_pkcs8().unwrap();
    keystore.import(&uri("web"), pkcs8.clone()).unwrap();
    // The private scalar stands at offset 36 of a P-256 PrivateKeyInfo.
    let scalar = &pkcs8[36..68];
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(32).any(|window| window == scalar), "{}", path.display());
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
}

#[test]
fn a_damaged_file_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), &Protection::KeyFile).unwrap().create(&KeySpec::new(uri("web"))).unwrap();
    let path = folder.path().join("web.key.json");
    let good = fs::read_to_string(&path).unwrap();
    for bad in [
        String::new(),
        "{}".into(),
        good.replace("\"version\": 1", "\"version\": 2"),
        good.replace("name=web", "name=other"),
        good.replace("ENCRYPTED PRIVATE KEY", "PRIVATE KEY"),
        good.replacen("3059", "3058", 1),
        good.replace("\\nM", "\\nN"),
    ] {
        assert_ne!(bad, good);
        fs::write(&path, &bad).unwrap();
        let keystore = open(folder.path(), &Protection::KeyFile).unwrap();
        let error = keystore.open(&uri("web")).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("web.key.json"), "{error}");
    }
}

#[test]
fn a_damaged_file_hides_no_other_key() {
    let folder = tempfile::tempdir().unwrap();
    let keystore = open(folder.path(), &Protection::KeyFile).unwrap();
    for name in ["a", "b", "c"] {
        keystore.create(&KeySpec::new(uri(name))).unwrap();
    }
    fs::write(folder.path().join("b.key.json"), "{").unwrap();
    let listed: Vec<_> = keystore.list().unwrap().into_iter().map(|key| key.uri).collect();
    assert_eq!(listed, [uri("a"), uri("c")]);
}

#[test]
fn a_key_that_asks_is_never_asked_just_to_find_out() {
    let folder = tempfile::tempdir().unwrap();
    let questions = Arc::<AtomicUsize>::default();
    let keystore =
        SoftKeystore::open(folder.path(), &Protection::KeyFile, Answer(true, questions.clone())).unwrap();
    let spec = KeySpec {
        policy: Policy { presence: Presence::Confirm, ..Policy::default() },
        ..KeySpec::new(uri("web"))
    };
    let key = keystore.create(&spec).unwrap();
    assert_eq!(questions.load(Ordering::Relaxed), 0);
    assert!(key.info().capabilities.proved.is_empty());
    assert_eq!(key.info().usable_schemes(), [Scheme::EcdsaP256Sha256]);

    key.sign(Scheme::EcdsaP256Sha256, Input::Message(b"x"), &SignContext::new("test")).unwrap();
    assert_eq!(questions.load(Ordering::Relaxed), 1);
    // Proved by its first real signature, and remembered by a keystore that is opened anew.
    drop((key, keystore));
    let keystore =
        SoftKeystore::open(folder.path(), &Protection::KeyFile, Answer(false, questions.clone())).unwrap();
    let key = keystore.open(&uri("web")).unwrap();
    assert!(key.info().capabilities.proved.contains(&Scheme::EcdsaP256Sha256));
    let refused = key.sign(Scheme::EcdsaP256Sha256, Input::Message(b"x"), &SignContext::new("test"));
    assert!(matches!(refused, Err(Error::Denied { .. })));
    assert_eq!(questions.load(Ordering::Relaxed), 2);
}

#[test]
fn imports_what_openssl_makes_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let keystore = open(folder.path(), &Protection::KeyFile).unwrap();
    for garbage in [&b""[..], b"\x30", &[0x30; 100]] {
        let refused = keystore.import(&uri("bad"), Zeroizing::new(garbage.to_vec())).map(|_| ());
        assert!(matches!(refused, Err(Error::PrivateKey { .. })), "{refused:?}");
    }
    for (name, arguments) in [
        ("p256", &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..]),
        ("p384", &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("ed25519", &["ED25519"]),
        ("rsa", &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ] {
        let pem = folder.path().join("key.pem");
        openssl(&["genpkey", "-out", pem.to_str().unwrap(), "-algorithm"], arguments);
        let made =
            openssl(&["pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in"], &[pem.to_str().unwrap()]);
        let key = keystore.import(&uri(name), Zeroizing::new(made)).unwrap();
        assert_eq!(key.info().origin, Origin::Imported);
        assert_eq!(key.info().usable_schemes().len(), key.info().algorithm.schemes().len());
    }
}

fn openssl(first: &[&str], rest: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new("openssl").args(first).args(rest).output();
    let output = output.expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
