//! PINs: asked for once, never tried twice, and for each signature where the key says so.

use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use cryptoki::context::Pkcs11;
use enclasp_keystore::pkcs11::Pkcs11Keystore;
use enclasp_keystore::{
    Error, GivePin, Input, Key, KeySpec, Keystore, PinWanted, Policy, Presence, Result, Scheme, SignContext,
    Verification,
};
use zeroize::Zeroizing;

use crate::support::{Pins, with_softhsm};

const SCHEME: Scheme = Scheme::EcdsaP256Sha256;

#[test]
fn a_wrong_pin_is_never_tried_twice() {
    with_softhsm("pins::a_wrong_pin_is_never_tried_twice", |place| {
        place.tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", "web"]);
        let pins = Pins::new("9999");
        let keystore = place.keystore(&pins);
        let denied = || {
            let error = keystore.open(&place.uri("web")).map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::WrongPin { .. }), "{error}");
            assert!(!error.to_string().contains("9999"), "{error}");
            error.to_string()
        };
        let first = denied();
        assert!(first.contains("refused the PIN; the token has counted"), "{first}");
        let second = denied();
        assert!(second.contains("not tried twice"), "{second}");
        // Too short for a PIN of this token: it says so itself.
        pins.set("1");
        denied();
        pins.set("1234");
        keystore.open(&place.uri("web")).unwrap();
        assert_eq!(pins.asked(), 4);
        // Logged in: nobody is asked again, by another keystore of the module neither.
        place.keystore(&pins).open(&place.uri("web")).unwrap();
        assert_eq!(pins.asked(), 4);
    });
}

#[test]
fn a_key_that_asks_each_time_is_asked_for_nothing_else() {
    with_softhsm("pins::a_key_that_asks_each_time_is_asked_for_nothing_else", |place| {
        let pins = Pins::new("1234");
        let keystore = place.keystore(&pins);
        let policy = Policy { presence: Presence::Confirm, ..Policy::default() };
        let key = keystore.create(&KeySpec { policy, ..KeySpec::new(place.uri("web")) }).unwrap();
        assert_eq!(pins.asked(), 1, "the login only: it is not made to sign to find out");
        assert_eq!(key.info().policy.presence, Presence::Confirm);
        assert_eq!(key.info().usable_schemes(), [SCHEME]);
        assert_eq!(key.verification(), Verification::Done);
        let sign = |key: &dyn Key| key.sign(SCHEME, Input::Message(b"x"), &SignContext::new("test"));
        sign(&*key).unwrap();
        sign(&*key).unwrap();
        assert_eq!(pins.asked(), 3);
        pins.set("4321");
        assert!(matches!(sign(&*key), Err(Error::WrongPin { .. })));
        assert!(matches!(sign(&*key), Err(Error::WrongPin { .. })));
        pins.set("1234");
        sign(&*key).unwrap();
        // The first real signature proved it.
        let opened = keystore.open(&place.uri("web")).unwrap();
        assert_eq!(opened.info().policy.presence, Presence::Confirm);
        assert!(opened.info().capabilities.proved.contains(&SCHEME));
    });
}

#[test]
fn many_signatures_at_once_ask_for_one_pin() {
    with_softhsm("pins::many_signatures_at_once_ask_for_one_pin", |place| {
        place.tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", "web"]);
        let pins = Pins::new("1234");
        let keystore = place.keystore(&pins);
        std::thread::scope(|scope| {
            for _ in 0..24 {
                scope.spawn(|| {
                    let key = keystore.open(&place.uri("web")).unwrap();
                    for _ in 0..20 {
                        key.sign(SCHEME, Input::Message(b"x"), &SignContext::new("test")).unwrap();
                    }
                });
            }
        });
        assert_eq!(pins.asked(), 1);
    });
}

/// Somebody who takes long to type.
struct Slow(mpsc::Sender<()>, Mutex<mpsc::Receiver<()>>);

impl GivePin for Slow {
    fn pin(&self, _: &PinWanted<'_>, _: &SignContext) -> Result<Zeroizing<String>> {
        self.0.send(()).unwrap();
        self.1.lock().unwrap().recv().unwrap();
        Ok(Zeroizing::new("1234".into()))
    }
}

#[test]
fn whoever_waits_for_the_pin_of_another_caller_keeps_its_own_deadline() {
    with_softhsm("pins::whoever_waits_for_the_pin_of_another_caller_keeps_its_own_deadline", |place| {
        let key = place.keystore(&Pins::new("1234")).create(&KeySpec::new(place.uri("web"))).unwrap();
        // Somebody finalises the module, and so logs everybody out.
        Pkcs11::new(&place.module).unwrap().finalize().unwrap();
        let ((asked, is_asked), (typed, is_typed)) = (mpsc::channel(), mpsc::channel());
        let slow = Slow(asked, Mutex::new(is_typed));
        let keystore = Pkcs11Keystore::open(&place.module, &place.folder.join("proofs"), slow).unwrap();
        thread::scope(|scope| {
            let opening = scope.spawn(|| keystore.open(&place.uri("web")).map(|_| ()));
            is_asked.recv().unwrap();
            let soon = SignContext::new("test").with_deadline(Instant::now() + Duration::from_millis(50));
            let refused = key.sign(SCHEME, Input::Message(b"x"), &soon);
            assert!(matches!(refused, Err(Error::Deadline { .. })), "{refused:?}");
            typed.send(()).unwrap();
            opening.join().unwrap().unwrap();
        });
        key.sign(SCHEME, Input::Message(b"x"), &SignContext::new("test")).unwrap();
    });
}
