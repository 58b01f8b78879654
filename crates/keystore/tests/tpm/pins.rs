use std::thread;

use enclasp_keystore::tpm::{TpmConfig, TpmKeystore};
use enclasp_keystore::{Error, KeySpec, Keystore, Policy, Scheme};

use crate::support::{Bus, Person, Swtpm, nobody, sign, uri};

const SCHEME: Scheme = Scheme::EcdsaP256Sha256;

fn with_pin(name: &str) -> KeySpec {
    KeySpec { policy: Policy { pin: true, ..Policy::default() }, ..KeySpec::new(uri(name)) }
}

/// Makes a key with the PIN 2468, and has the TPM lock itself at three wrong ones.
fn prepared() -> Option<(Swtpm, tempfile::TempDir)> {
    let tpm = Swtpm::start()?;
    let folder = tempfile::tempdir().unwrap();
    let keystore = tpm.keystore(folder.path(), Person::who_says(&["2468"])).unwrap();
    keystore.create(&with_pin("web")).unwrap();
    drop(keystore);
    if !crate::support::installed("tpm2_dictionarylockout") {
        return None;
    }
    tpm.tool(folder.path(), "tpm2_dictionarylockout -s -n 3 -t 600 -l 600");
    Some((tpm, folder))
}

#[test]
fn a_wrong_pin_costs_one_try_and_too_many_lock_the_tpm() {
    let Some((tpm, folder)) = prepared() else { return };
    let person = Person::who_says(&["1", "2", "3", "2468"]);
    let keystore = tpm.keystore(folder.path(), person.clone()).unwrap();
    let key = keystore.open(&uri("web")).unwrap();
    assert_eq!(person.asked(), 0, "opening a key asks nobody");
    for (asked, remains) in
        ["2 tries remain", "1 try remains", "in lockout after 3 wrong PINs or power cuts"].iter().enumerate()
    {
        let error = sign(&*key, SCHEME).unwrap_err();
        assert!(matches!(error, Error::WrongPin { .. }), "{error}");
        assert!(error.to_string().contains(remains), "{error}");
        assert_eq!(person.asked(), asked + 1);
    }
    assert_eq!(*person.tries_left.lock().unwrap(), [Some(3), Some(2), Some(1)]);
    // Now nobody is asked: the right PIN would not help.
    let error = sign(&*key, SCHEME).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert!(error.to_string().contains("every 600 s"), "{error}");
    assert!(error.hint().unwrap().contains("--clear-lockout"));
    assert_eq!(person.asked(), 3);
    // Keys without a PIN go on, and an administrator ends it.
    let free = keystore.create(&KeySpec::new(uri("free"))).unwrap();
    sign(&*free, SCHEME).unwrap();
    tpm.tool(folder.path(), "tpm2_dictionarylockout -c");
    sign(&*key, SCHEME).unwrap();
}

#[test]
fn a_lockout_that_others_caused_is_told() {
    let Some((tpm, folder)) = prepared() else { return };
    let keystore = tpm.keystore(folder.path(), Person::who_says(&["2468"])).unwrap();
    let key = keystore.open(&uri("web")).unwrap();
    sign(&*key, SCHEME).unwrap();
    let other = tpm.keystore(folder.path(), Person::who_says(&["1", "2", "3"])).unwrap();
    let guessed = other.open(&uri("web")).unwrap();
    for _ in 0..3 {
        sign(&*guessed, SCHEME).unwrap_err();
    }
    let error = sign(&*key, SCHEME).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    tpm.tool(folder.path(), "tpm2_dictionarylockout -c");
    sign(&*key, SCHEME).unwrap();
}

#[test]
fn many_signers_with_a_wrong_pin_cost_one_try() {
    let Some((tpm, folder)) = prepared() else { return };
    let person = Person::who_says(&["1", "2468"]);
    let keystore = tpm.keystore(folder.path(), person.clone()).unwrap();
    let keys: Vec<_> = (0..8).map(|_| keystore.open(&uri("web")).unwrap()).collect();
    let results: Vec<_> = thread::scope(|scope| {
        let signers: Vec<_> = keys.iter().map(|key| scope.spawn(|| sign(&**key, SCHEME))).collect();
        signers.into_iter().map(|signer| signer.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1, "{results:?}");
    assert_eq!(*person.tries_left.lock().unwrap(), [Some(3), Some(2)]);
}

#[test]
fn a_pin_is_asked_for_once_and_the_first_signature_is_the_proof() {
    let Some((tpm, folder)) = prepared() else { return };
    let person = Person::who_says(&["2468"]);
    let keystore = tpm.keystore(folder.path(), person.clone()).unwrap();
    let key = keystore.open(&uri("web")).unwrap();
    assert!(key.info().policy.pin && key.info().policy.prompts());
    assert!(key.info().capabilities.proved.is_empty());
    assert_eq!(key.info().usable_schemes(), [SCHEME]);
    sign(&*key, SCHEME).unwrap();
    let again = keystore.open(&uri("web")).unwrap();
    sign(&*again, SCHEME).unwrap();
    assert!(again.info().capabilities.proved.contains(&SCHEME));
    assert_eq!(person.asked(), 1);
    // Who made the key has just said it.
    let person = Person::who_says(&["1357"]);
    let keystore = tpm.keystore(folder.path(), person.clone()).unwrap();
    let made = keystore.create(&with_pin("mine")).unwrap();
    sign(&*made, SCHEME).unwrap();
    assert_eq!(person.asked(), 1);
}

#[test]
fn nobody_there_is_a_refusal_that_costs_nothing() {
    let Some((tpm, folder)) = prepared() else { return };
    let keystore = tpm.keystore(folder.path(), nobody()).unwrap();
    let key = keystore.open(&uri("web")).unwrap();
    for _ in 0..5 {
        let error = sign(&*key, SCHEME).unwrap_err();
        assert!(error.to_string().contains("nobody is there"), "{error}");
    }
}

#[test]
fn somebody_on_the_bus_learns_no_pin() {
    const PIN: &str = "correct-horse-battery";
    let Some(tpm) = Swtpm::start() else { return };
    let bus = Bus::to(&tpm, ());
    let folder = tempfile::tempdir().unwrap();
    let config = TpmConfig { tcti: bus.tcti(), folder: folder.path().to_owned() };
    let keystore = TpmKeystore::open(config.clone(), Person::who_says(&[PIN])).unwrap();
    let key = keystore.create(&with_pin("web")).unwrap();
    sign(&*key, SCHEME).unwrap();
    drop((key, keystore));
    let keystore = TpmKeystore::open(config, Person::who_says(&[PIN])).unwrap();
    let key = keystore.open(&uri("web")).unwrap();
    sign(&*key, SCHEME).unwrap();
    let point = &key.info().spki[key.info().spki.len() - 64..];
    assert!(bus.saw(&point[..32]), "the bus was listened to");
    assert!(!bus.saw(PIN.as_bytes()));
}
