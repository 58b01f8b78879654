use std::fs;
use std::process::Command;

use enclasp_keystore::{Error, KeySpec, KeyUri, Keystore, Origin, Policy, Scheme};

use crate::support::{Person, Swtpm, installed, nobody, sign, tpm2_openssl_installed, uri};

const SCHEME: Scheme = Scheme::EcdsaP256Sha256;

/// Makes a key with tpm2-tools at a handle.
fn made_by_tools(tpm: &Swtpm, folder: &std::path::Path, options: &str, at: &str) {
    for line in [
        "tpm2_createprimary -Q -C o -G ecc -c parent".to_owned(),
        format!("tpm2_create -Q -C parent -u pub -r priv {options}"),
        "tpm2_flushcontext -t".into(),
        "tpm2_load -Q -C parent -u pub -r priv -c key".into(),
        format!("tpm2_evictcontrol -Q -C o -c key {at}"),
        "tpm2_flushcontext -t".into(),
    ] {
        tpm.tool(folder, &line);
    }
}

fn by_handle(at: &str) -> KeyUri {
    format!("tpm:handle={at}").parse().unwrap()
}

#[test]
fn keys_of_tpm2_tools_are_found_by_handle() {
    if !installed("tpm2_create") {
        return;
    }
    let Some(tpm) = Swtpm::start() else { return };
    let (tools, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    made_by_tools(&tpm, tools.path(), "-G ecc", "0x81000011");
    made_by_tools(&tpm, tools.path(), "-G ecc -p 1234", "0x81000012");
    made_by_tools(&tpm, tools.path(), "-G ecc256:ecdsa-sha256", "0x81000013");
    made_by_tools(&tpm, tools.path(), "-G aes", "0x81000014");
    tpm.tool(tools.path(), "tpm2_dictionarylockout -s -n 5 -t 600 -l 600");

    let person = Person::who_says(&["1234"]);
    let keystore = tpm.keystore(folder.path(), person.clone()).unwrap();
    let error = keystore.open(&by_handle("0x81000014")).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::PublicKey { .. } | Error::Unsupported { .. }), "{error}");
    let error = keystore.open(&by_handle("0x81000015")).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Absent { .. }), "{error}");

    let free = keystore.open(&by_handle("0x81000011")).unwrap();
    assert!(!free.info().policy.pin);
    assert_eq!(free.info().origin, Origin::Generated);
    assert_eq!(free.info().usable_schemes().len(), 2);
    sign(&*free, SCHEME).unwrap();

    let fixed = keystore.open(&by_handle("0x81000013")).unwrap();
    assert_eq!(fixed.info().usable_schemes(), [SCHEME], "only what was proved is offered");

    // That it has a PIN is found out once, and remembered.
    let guarded = keystore.open(&by_handle("0x81000012")).unwrap();
    assert!(guarded.info().policy.pin);
    let later = tpm.keystore(folder.path(), nobody()).unwrap();
    assert!(later.open(&by_handle("0x81000012")).unwrap().info().policy.pin);
    assert_eq!(person.asked(), 0);
    sign(&*guarded, SCHEME).unwrap();
    assert_eq!(*person.tries_left.lock().unwrap(), [Some(4)]);

    keystore.delete(&by_handle("0x81000011")).unwrap();
    assert!(matches!(keystore.open(&by_handle("0x81000011")), Err(Error::Absent { .. })));
}

#[test]
fn another_key_at_the_handle_is_not_taken_for_ours() {
    if !installed("tpm2_create") {
        return;
    }
    let Some(tpm) = Swtpm::start() else { return };
    let (tools, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let keystore = tpm.keystore(folder.path(), nobody()).unwrap();
    let ours: KeyUri = "tpm:name=web;handle=0x81000020".parse().unwrap();
    let key = keystore.create(&KeySpec::new(ours.clone())).unwrap();
    drop(keystore);
    tpm.tool(tools.path(), "tpm2_evictcontrol -Q -C o -c 0x81000020");
    let error = sign(&*key, SCHEME).unwrap_err();
    assert!(matches!(error, Error::Absent { .. }), "{error}");
    drop(key);
    made_by_tools(&tpm, tools.path(), "-G ecc", "0x81000020");
    let keystore = tpm.keystore(folder.path(), nobody()).unwrap();
    let error = keystore.open(&ours).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("not the one that was made"), "{error}");
}

#[test]
fn key_files_go_both_ways_with_tpm2_openssl() {
    if !tpm2_openssl_installed() {
        return;
    }
    let Some(tpm) = Swtpm::start() else { return };
    let (folder, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let keystore = tpm.keystore(folder.path(), nobody()).unwrap();
    let key = keystore.create(&KeySpec::new(uri("web"))).unwrap();
    let spki = key.info().spki.clone();
    drop((key, keystore));

    // Ours signs there: openssl verifies with the public key that we say it has.
    fs::write(theirs.path().join("spki.der"), &spki).unwrap();
    fs::write(theirs.path().join("message"), b"hello").unwrap();
    let key = folder.path().join("web.tss2.pem");
    tpm.openssl(
        theirs.path(),
        &format!("pkeyutl -sign -rawin -digest sha256 -inkey {} -in message -out signature", key.display()),
    );
    let verified = Command::new("openssl")
        .args([
            "dgst",
            "-sha256",
            "-verify",
            "spki.der",
            "-keyform",
            "DER",
            "-signature",
            "signature",
            "message",
        ])
        .current_dir(theirs.path())
        .status();
    assert!(verified.unwrap().success());

    // Theirs signs here.
    tpm.openssl(theirs.path(), "genpkey -algorithm EC -pkeyopt group:P-256 -out theirs.pem");
    let keystore = tpm.keystore(folder.path(), nobody()).unwrap();
    let file: KeyUri = format!("tpm:file={}/theirs.pem", theirs.path().display()).parse().unwrap();
    let key = keystore.open(&file).unwrap();
    assert_eq!(key.info().usable_schemes().len(), 2);
    sign(&*key, SCHEME).unwrap();
}

#[test]
fn a_key_file_with_a_pin_elsewhere() {
    let Some(tpm) = Swtpm::start() else { return };
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let keystore = tpm.keystore(folder.path(), Person::who_says(&["1", "1"])).unwrap();
    let file: KeyUri = format!("tpm:name=web;file={}/k.pem", elsewhere.path().display()).parse().unwrap();
    let spec = KeySpec { policy: Policy { pin: true, ..Policy::default() }, ..KeySpec::new(file) };
    keystore.create(&spec).unwrap();
    assert!(elsewhere.path().join("k.pem").exists());
    assert!(matches!(keystore.create(&spec), Err(Error::Exists { .. })));
    assert_eq!(keystore.list().unwrap().len(), 1);
    let person = Person::who_says(&["1"]);
    let other = tpm.keystore(&elsewhere.path().join("other"), person.clone()).unwrap();
    let by_file: KeyUri = format!("tpm:file={}/k.pem", elsewhere.path().display()).parse().unwrap();
    let key = other.open(&by_file).unwrap();
    assert!(key.info().policy.pin);
    sign(&*key, SCHEME).unwrap();
    keystore.delete(&uri("web")).unwrap();
    assert!(!elsewhere.path().join("k.pem").exists());
}

#[test]
fn a_storage_root_key_that_is_there_is_used_and_may_go() {
    if !installed("tpm2_createprimary") {
        return;
    }
    let Some(tpm) = Swtpm::start() else { return };
    let (tools, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // The TCG's template; and then an owner who keeps his hierarchy to himself.
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    tpm.tool(tools.path(), &format!("tpm2_createprimary -Q -C o -G ecc256:aes128cfb -c srk -a {attributes}"));
    tpm.tool(tools.path(), "tpm2_evictcontrol -Q -C o -c srk 0x81000001");
    tpm.tool(tools.path(), "tpm2_flushcontext -t");
    tpm.tool(tools.path(), "tpm2_changeauth -c o secret");
    {
        let keystore = tpm.keystore(folder.path(), nobody()).unwrap();
        let key = keystore.create(&KeySpec::new(uri("web"))).unwrap();
        sign(&*key, SCHEME).unwrap();
        let spec = KeySpec::new("tpm:name=inside;handle=0x81000030".parse().unwrap());
        let error = keystore.create(&spec).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Denied { .. }), "{error}");
        assert!(error.to_string().contains("owner hierarchy has an auth value"), "{error}");
    }
    // Evicted: made anew it is the same key, if the owner lets us.
    tpm.tool(tools.path(), "tpm2_evictcontrol -Q -C o -P secret -c 0x81000001");
    let error = tpm.keystore(folder.path(), nobody()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("owner hierarchy has an auth value"), "{error}");
    tpm.tool(tools.path(), "tpm2_changeauth -c o -p secret");
    let keystore = tpm.keystore(folder.path(), nobody()).unwrap();
    sign(&*keystore.open(&uri("web")).unwrap(), SCHEME).unwrap();
}
