//! Tokens that go away and come back, and modules that begin anew, under a process that stays.

use cryptoki::context::Pkcs11;
use enclasp_keystore::{Error, Input, Key, KeySpec, Keystore, Result, Scheme, SignContext, Signature};

use crate::support::{Pins, with_softhsm};

fn sign(key: &dyn Key) -> Result<Signature> {
    key.sign(Scheme::EcdsaP256Sha256, Input::Message(b"x"), &SignContext::new("test"))
}

#[test]
fn a_token_that_was_pulled_is_used_again_when_it_is_back() {
    with_softhsm("recovery::a_token_that_was_pulled_is_used_again_when_it_is_back", |place| {
        let pins = Pins::new("1234");
        let keystore = place.keystore(&pins);
        let key = keystore.create(&KeySpec::new(place.uri("web"))).unwrap();
        let (here, away) = (place.folder.join("tokens"), place.folder.join("away"));
        for pulled in 1..4 {
            std::fs::rename(&here, &away).unwrap();
            std::fs::create_dir(&here).unwrap();
            for _ in 0..2 {
                let error = sign(&*key).unwrap_err();
                assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
                assert!(keystore.open(&place.uri("web")).is_err());
            }
            std::fs::remove_dir_all(&here).unwrap();
            std::fs::rename(&away, &here).unwrap();
            sign(&*key).unwrap();
            keystore.open(&place.uri("web")).unwrap();
            assert_eq!(pins.asked(), 1 + pulled, "one login each time that it is back");
        }
    });
}

#[test]
fn a_key_that_was_replaced_is_not_used_in_its_place() {
    with_softhsm("recovery::a_key_that_was_replaced_is_not_used_in_its_place", |place| {
        let keystore = place.keystore(&Pins::new("1234"));
        let key = keystore.create(&KeySpec::new(place.uri("web"))).unwrap();
        for kind in ["privkey", "pubkey"] {
            place.tool(&["--delete-object", "--type", kind, "--label", "web"]);
        }
        assert!(matches!(sign(&*key), Err(Error::Absent { .. })), "{:?}", sign(&*key));
        place.tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", "web"]);
        assert!(matches!(sign(&*key), Err(Error::Absent { .. })), "{:?}", sign(&*key));
        sign(&*keystore.open(&place.uri("web")).unwrap()).unwrap();
    });
}

#[test]
fn a_module_that_somebody_finalised_is_initialised_again() {
    with_softhsm("recovery::a_module_that_somebody_finalised_is_initialised_again", |place| {
        let pins = Pins::new("1234");
        let keystore = place.keystore(&pins);
        let key = keystore.create(&KeySpec::new(place.uri("web"))).unwrap();
        let somebody = Pkcs11::new(&place.module).unwrap();
        somebody.finalize().unwrap();
        sign(&*key).unwrap();
        Pkcs11::new(&place.module).unwrap().finalize().unwrap();
        assert_eq!(keystore.list().unwrap().len(), 1);
        sign(&*key).unwrap();
    });
}
