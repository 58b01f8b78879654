use std::fs;

use enclasp_keystore::tpm::{TpmConfig, TpmKeystore};
use enclasp_keystore::{Algorithm, Error, KeySpec, KeyUri, Keystore, Policy, Presence};

use crate::support::{Person, Swtpm, nobody, tcti, uri};

fn parse(text: &str) -> KeyUri {
    text.parse().unwrap()
}

#[test]
fn a_tpm_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("closed");
    fs::write(&file, "").unwrap();
    for (tcti, reason, hint) in [
        (tcti(1), "nothing answers there", "start the simulator"),
        ("device:/dev/no-such-tpm".into(), "there is no /dev/no-such-tpm", "`ls -l /dev/no-such-tpm`"),
        (format!("device:{}", folder.path().display()), "cannot open", "group `tss`"),
        ("pigeon:post".into(), "not a TCTI", "the machine's own TPM"),
        ("swtpm:path=/run/tpm.sock".into(), "`path=/run/tpm.sock` is no setting", "swtpm:host="),
        ("tabrmd:bus_name=no.such.Name".into(), "nothing answers there", "tpm2-abrmd"),
    ] {
        let config = TpmConfig { tcti: tcti.clone(), folder: folder.path().join("keys") };
        let error = TpmKeystore::open(config, nobody()).map(|_| ()).unwrap_err();
        assert!(matches!(&error, Error::Unavailable { at, .. } if at.contains(&tcti)), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert!(error.hint().unwrap().contains(hint), "{error}");
    }
}

#[test]
fn what_a_tpm_cannot_do_is_refused() {
    let Some(tpm) = Swtpm::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let keystore =
        tpm.keystore(folder.path(), Person::who_says(&["", "0123456789012345678901234567890123"])).unwrap();
    let new = |uri: &str| KeySpec::new(parse(uri));
    let confirm = Policy { presence: Presence::Confirm, ..Policy::default() };
    let pin = Policy { pin: true, ..Policy::default() };
    for (spec, reason) in [
        (KeySpec { algorithm: Algorithm::Ed25519, ..new("tpm:name=a") }, "P-256, P-384 and RSA"),
        (KeySpec { policy: confirm, ..new("tpm:name=a") }, "cannot ask a person"),
        (KeySpec { policy: pin, ..new("tpm:name=a") }, "empty PIN"),
        (KeySpec { policy: pin, ..new("tpm:name=a") }, "at most 32 bytes"),
        (new("soft:name=a"), "`tpm:` keys only"),
        (new("tpm:name=a;tcti=device:/dev/tpm7"), "the TPM at swtpm"),
        (new("tpm:name=a;hierarchy=platform"), "owner hierarchy"),
        (new("tpm:name=a;handle=81000010"), "persistent handle"),
        (new("tpm:name=a;handle=0x80000010"), "persistent handle"),
        (new("tpm:handle=0x81000010"), "needs a name"),
    ] {
        let error = keystore.create(&spec).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(reason), "{}: {error}", spec.uri);
    }
    assert_eq!(keystore.list().unwrap(), []);
    let error = keystore.open(&parse("tpm:hierarchy=owner")).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("names no key"), "{error}");
}

#[test]
fn the_folder_of_another_tpm_is_refused() {
    let (Some(one), Some(other)) = (Swtpm::start(), Swtpm::start()) else { return };
    let folder = tempfile::tempdir().unwrap();
    one.keystore(folder.path(), nobody()).unwrap().create(&KeySpec::new(uri("web"))).unwrap();
    let error = other.keystore(folder.path(), nobody()).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("cleared, or this is another one"), "{error}");
    // The key alone, in the other's folder.
    let elsewhere = tempfile::tempdir().unwrap();
    let keystore = other.keystore(elsewhere.path(), nobody()).unwrap();
    fs::copy(folder.path().join("web.tss2.pem"), elsewhere.path().join("web.tss2.pem")).unwrap();
    let error = keystore.open(&uri("web")).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("by another TPM"), "{error}");
    one.keystore(folder.path(), nobody()).unwrap().open(&uri("web")).unwrap();
}

#[test]
fn damaged_files_are_errors_that_name_them() {
    let Some(tpm) = Swtpm::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let keystore = tpm.keystore(folder.path(), nobody()).unwrap();
    keystore.create(&KeySpec::new(uri("web"))).unwrap();
    keystore.create(&KeySpec::new(uri("other"))).unwrap();
    let file = |name: &str| folder.path().join(name);
    let key = fs::read_to_string(file("web.tss2.pem")).unwrap();
    let record = fs::read_to_string(file("web.json")).unwrap();
    drop(keystore);
    let open = || tpm.keystore(folder.path(), nobody()).unwrap().open(&uri("web")).map(|_| ());
    for bad in [String::new(), key.replace("TSS2", "TSS3"), key.replacen("\nM", "\nN", 1)] {
        fs::write(file("web.tss2.pem"), bad).unwrap();
        let error = open().unwrap_err().to_string();
        assert!(error.contains("web.tss2.pem"), "{error}");
    }
    fs::copy(file("other.tss2.pem"), file("web.tss2.pem")).unwrap();
    assert!(open().unwrap_err().to_string().contains("not the one that was made"));
    fs::write(file("web.tss2.pem"), &key).unwrap();
    for bad in [String::new(), record.replace("\"version\": 1", "\"version\": 9")] {
        fs::write(file("web.json"), bad).unwrap();
        let error = open().unwrap_err().to_string();
        assert!(error.contains("web.json"), "{error}");
    }
    // Without its record it is a key like another tool's.
    fs::remove_file(file("web.json")).unwrap();
    open().unwrap();
    let root = file("storage-root.pub");
    fs::write(&root, b"\0\0").unwrap();
    let error = tpm.keystore(folder.path(), nobody()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("storage-root.pub"), "{error}");
}
