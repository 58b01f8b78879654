use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use enclasp_keystore::{Cancel, Error, Input, Key, KeySpec, Keystore, Scheme, SignContext};

use crate::support::{Swtpm, eventually, nobody, sign, sign_until, uri};

const SCHEME: Scheme = Scheme::EcdsaP256Sha256;

#[test]
fn a_tpm_that_hangs_holds_nobody_longer_than_the_deadline() {
    let Some(tpm) = Swtpm::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let keystore = tpm.keystore(folder.path(), nobody()).unwrap();
    let key = keystore.create(&KeySpec::new(uri("web"))).unwrap();
    tpm.stop();
    let began = Instant::now();
    let error = sign_until(&*key, SCHEME, Some(began + Duration::from_millis(200))).unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());

    let cancel = Cancel::default();
    let ctx = SignContext { cancel: cancel.clone(), ..SignContext::new("test") };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| key.sign(SCHEME, Input::Message(b"x"), &ctx));
        cancel.cancel();
        let error = waiting.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    });

    // Those that come when the queue is full are told at once.
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (done, key) = (&done, &*key);
        let until = Instant::now() + Duration::from_secs(20);
        let signers: Vec<_> = (0..100)
            .map(|_| {
                scope.spawn(move || {
                    let result = sign_until(key, SCHEME, Some(until));
                    if matches!(result, Err(Error::Busy { .. })) {
                        done.store(true, Ordering::SeqCst);
                    }
                    result
                })
            })
            .collect();
        eventually("somebody is refused", || done.load(Ordering::SeqCst));
        tpm.go_on();
        let results: Vec<_> = signers.into_iter().map(|signer| signer.join().unwrap()).collect();
        let signed = results.iter().filter(|result| result.is_ok()).count();
        assert!(signed >= 60, "{signed} were served when the TPM went on");
        assert!(
            results.iter().all(|result| matches!(result, Ok(()) | Err(Error::Busy { .. }))),
            "{results:?}"
        );
    });
    sign(&*key, SCHEME).unwrap();
}

#[test]
fn signers_with_several_keys_share_a_tpm_with_three_slots() {
    let Some(tpm) = Swtpm::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let keystore = tpm.keystore(folder.path(), nobody()).unwrap();
    let keys: Vec<Box<dyn Key>> =
        (0..4).map(|n| keystore.create(&KeySpec::new(uri(&format!("k{n}")))).unwrap()).collect();
    thread::scope(|scope| {
        for n in 0..8 {
            let key = &keys[n % keys.len()];
            scope.spawn(move || {
                for _ in 0..10 {
                    sign(&**key, SCHEME).unwrap();
                }
            });
        }
    });
}
