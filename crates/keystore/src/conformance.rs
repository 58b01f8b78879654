//! What every backend has to do: one suite, run against each.

use std::thread;
use std::time::Instant;

use crate::{
    Access, Algorithm, Cancel, Error, Hash, Input, Key, KeySpec, KeyUri, Keystore, Origin, Policy,
    SignContext, verify,
};

/// Runs the suite on an empty keystore. `uri` makes a key URI of a plain name; `algorithms` are
/// those that the backend claims. It leaves no key behind.
///
/// # Panics
/// When the keystore does not conform; the message says how.
pub fn run(keystore: &dyn Keystore, uri: impl Fn(&str) -> KeyUri, algorithms: &[Algorithm]) {
    absent_keys_are_absent(keystore, &uri("nobody"));
    for (number, &algorithm) in algorithms.iter().enumerate() {
        let spec = KeySpec {
            uri: uri(&format!("conformance-{number}")),
            algorithm,
            policy: Policy::default(),
            access: Access::default(),
        };
        let made = keystore.create(&spec).unwrap_or_else(|e| panic!("{algorithm}: cannot create: {e}"));
        tells_the_truth(&*made, &spec);
        assert!(
            matches!(keystore.create(&spec), Err(Error::Exists { .. })),
            "{algorithm}: a second key of one name must be refused"
        );
        let opened = keystore.open(&spec.uri).unwrap_or_else(|e| panic!("{algorithm}: cannot open: {e}"));
        assert_eq!(opened.info().spki, made.info().spki, "{algorithm}: opening gives the same key");
        signs_only_what_fits(&*opened);
        respects_its_caller(&*opened);
        let listed = keystore.list().unwrap_or_else(|e| panic!("{algorithm}: cannot list: {e}"));
        assert!(
            listed.iter().any(|info| info.uri == spec.uri && info.spki == made.info().spki),
            "{algorithm}: a key that exists is listed"
        );
        keystore.delete(&spec.uri).unwrap_or_else(|e| panic!("{algorithm}: cannot delete: {e}"));
        absent_keys_are_absent(keystore, &spec.uri);
    }
}

/// Has four callers make the key `uri` at once, of whom one may. Apart from the suite, as it takes a device
/// with room for several sessions.
///
/// # Panics
/// If none or several have made it.
pub fn one_of_several_at_once_makes_a_key(keystore: &dyn Keystore, uri: KeyUri) {
    let spec = KeySpec::new(uri);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let callers: Vec<_> = (0..4).map(|_| scope.spawn(|| keystore.create(&spec).err())).collect();
        callers.into_iter().map(|caller| caller.join().expect("no panic")).collect()
    });
    let made = outcomes.iter().filter(|outcome| outcome.is_none()).count();
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, Some(Error::Exists { .. }))).count();
    assert_eq!((made, refused), (1, 3), "one of four that ask at once makes the key: {outcomes:?}");
    keystore.delete(&spec.uri).expect("the key that was made");
    absent_keys_are_absent(keystore, &spec.uri);
}

fn absent_keys_are_absent(keystore: &dyn Keystore, uri: &KeyUri) {
    let is_absent = |e: Option<Error>| matches!(e, Some(Error::Absent { .. }));
    assert!(is_absent(keystore.open(uri).err()), "opening a key that is not there says so");
    assert!(is_absent(keystore.delete(uri).err()), "deleting a key that is not there says so");
    let listed = keystore.list().unwrap_or_else(|e| panic!("cannot list: {e}"));
    assert!(listed.iter().all(|info| info.uri != *uri), "a key that is not there is not listed");
}

fn tells_the_truth(key: &dyn Key, spec: &KeySpec) {
    let info = key.info();
    assert_eq!(info.uri, spec.uri);
    assert_eq!(info.policy, spec.policy);
    assert_eq!(info.origin, Origin::Generated);
    assert_eq!(Algorithm::of_spki(&info.spki), Ok(spec.algorithm), "the SPKI is of the type asked for");
    assert_eq!(info.algorithm, spec.algorithm);
    assert!(
        info.usable_schemes().first() == Some(&spec.algorithm.natural_scheme()),
        "{}: a new key was proved to do its natural scheme",
        info.uri
    );
}

fn signs_only_what_fits(key: &dyn Key) {
    let info = key.info();
    let ctx = SignContext::new("conformance");
    let long = vec![0x5a; 100_000];
    for scheme in info.usable_schemes() {
        for message in [&b""[..], b"x", &long] {
            let input = Input::Message(message);
            let signature = key.sign(scheme, input, &ctx).unwrap_or_else(|e| panic!("{scheme}: {e}"));
            assert_eq!(verify(&info.spki, scheme, input, signature.as_ref()), Ok(()), "{scheme}");
            let other = verify(&info.spki, scheme, Input::Message(b"something else"), signature.as_ref());
            assert!(other.is_err(), "{scheme}: a signature is for one message");
        }
        match scheme.hash() {
            Some(hash) => {
                let digest = vec![0xa5; hash.length()];
                let input = Input::Digest(&digest);
                let signature = key.sign(scheme, input, &ctx).unwrap_or_else(|e| panic!("{scheme}: {e}"));
                assert_eq!(verify(&info.spki, scheme, input, signature.as_ref()), Ok(()), "{scheme}");
                for wrong in [0, 1, hash.length() - 1, hash.length() + 1] {
                    let refused = key.sign(scheme, Input::Digest(&vec![1; wrong]), &ctx);
                    assert!(
                        matches!(refused, Err(Error::Unsupported { .. })),
                        "{scheme}: a digest of {wrong} bytes is refused, got {refused:?}"
                    );
                }
            }
            None => {
                let refused = key.sign(scheme, Input::Digest(&[0; 64]), &ctx);
                assert!(matches!(refused, Err(Error::Unsupported { .. })), "{scheme} takes no digest");
            }
        }
    }
    let algorithms = [Algorithm::P256, Algorithm::P384, Algorithm::Ed25519, Algorithm::Rsa];
    for algorithm in algorithms.into_iter().filter(|other| *other != info.algorithm) {
        for &scheme in algorithm.schemes() {
            let digest = vec![7; scheme.hash().unwrap_or(Hash::Sha256).length()];
            for input in [Input::Message(b"x"), Input::Digest(&digest)] {
                let refused = key.sign(scheme, input, &ctx);
                assert!(
                    matches!(refused, Err(Error::Unsupported { .. })),
                    "a {} key must refuse {scheme}, got {refused:?}",
                    info.algorithm
                );
            }
        }
    }
}

fn respects_its_caller(key: &dyn Key) {
    let scheme = key.info().usable_schemes()[0];
    let late = SignContext::new("late").with_deadline(Instant::now());
    let refused = key.sign(scheme, Input::Message(b"x"), &late);
    assert!(matches!(refused, Err(Error::Deadline { .. })), "{refused:?}");
    let cancelled = SignContext { cancel: Cancel::default(), ..SignContext::new("cancelled") };
    cancelled.cancel.cancel();
    let refused = key.sign(scheme, Input::Message(b"x"), &cancelled);
    assert!(matches!(refused, Err(Error::Cancelled { .. })), "{refused:?}");
}
