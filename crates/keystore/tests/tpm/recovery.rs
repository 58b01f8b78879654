use enclasp_keystore::{Error, KeySpec, Keystore, Policy, Scheme};

use crate::support::{Person, Swtpm, installed, nobody, sign, uri};

const SCHEME: Scheme = Scheme::EcdsaP256Sha256;

#[test]
fn a_killed_tpm_is_missed_and_found_again() {
    if !installed("tpm2_dictionarylockout") {
        return;
    }
    let Some(mut tpm) = Swtpm::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let person = Person::who_says(&["1234"]);
    let keystore = tpm.keystore(folder.path(), person.clone()).unwrap();
    let free = keystore.create(&KeySpec::new(uri("free"))).unwrap();
    let inside = keystore.create(&KeySpec::new("tpm:name=in;handle=0x81000040".parse().unwrap())).unwrap();
    let policy = Policy { pin: true, ..Policy::default() };
    let guarded = keystore.create(&KeySpec { policy, ..KeySpec::new(uri("guarded")) }).unwrap();
    // Each power cut after the use of a PIN counts as a wrong one.
    tpm.tool(folder.path(), "tpm2_dictionarylockout -s -n 32 -t 600 -l 600");
    for round in 0..3 {
        tpm.kill();
        let error = sign(&*free, SCHEME).unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        tpm.restart();
        for key in [&free, &inside, &guarded] {
            sign(&**key, SCHEME).unwrap_or_else(|e| panic!("round {round}: {e}"));
        }
        // And once more without anybody noticing the gap.
        tpm.kill();
        tpm.restart();
        for key in [&guarded, &free, &inside] {
            sign(&**key, SCHEME).unwrap_or_else(|e| panic!("round {round}: {e}"));
        }
    }
    assert_eq!(person.asked(), 1, "its PIN is still known");
}

#[test]
fn what_others_flush_is_loaded_again() {
    if !installed("tpm2_flushcontext") {
        return;
    }
    let Some(tpm) = Swtpm::start() else { return };
    let (tools, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let keystore = tpm.keystore(folder.path(), nobody()).unwrap();
    let key = keystore.create(&KeySpec::new(uri("web"))).unwrap();
    for line in ["tpm2_flushcontext -t", "tpm2_flushcontext -l", "tpm2_startup -c"] {
        tpm.tool(tools.path(), line);
        sign(&*key, SCHEME).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
    // All three slots taken by somebody who left them so.
    drop((key, keystore));
    tpm.tool(tools.path(), "tpm2_createprimary -Q -C o -G ecc -c a");
    let keystore = tpm.keystore(folder.path(), nobody()).unwrap();
    let key = keystore.open(&uri("web")).unwrap();
    sign(&*key, SCHEME).unwrap();
    drop((key, keystore));
    tpm.tool(tools.path(), "tpm2_createprimary -Q -C o -G ecc -c b");
    tpm.tool(tools.path(), "tpm2_createprimary -Q -C o -G ecc -c c");
    let error = tpm.keystore(folder.path(), nobody()).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    assert!(error.to_string().contains("/dev/tpmrm0"), "{error}");
    tpm.tool(tools.path(), "tpm2_flushcontext -t");
    tpm.keystore(folder.path(), nobody()).unwrap().open(&uri("web")).unwrap();
}

#[test]
fn a_closed_keystore_leaves_nothing_in_the_tpm() {
    if !installed("tpm2_getcap") {
        return;
    }
    let Some(tpm) = Swtpm::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let keystore = tpm.keystore(folder.path(), nobody()).unwrap();
    for name in ["a", "b", "c", "d"] {
        sign(&*keystore.create(&KeySpec::new(uri(name))).unwrap(), SCHEME).unwrap();
    }
    drop(keystore);
    for handles in ["handles-transient", "handles-loaded-session", "handles-saved-session"] {
        let output = std::process::Command::new("tpm2_getcap")
            .arg(handles)
            .env("TPM2TOOLS_TCTI", tpm.tcti())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{handles}");
    }
}
