//! TPMs that lack something, are busy, or lie: a swtpm behind somebody who meddles.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use enclasp_keystore::tpm::{TpmConfig, TpmKeystore};
use enclasp_keystore::{Algorithm, Error, KeySpec, Keystore, Policy, Scheme};

use crate::support::{Bus, Meddle, Person, Swtpm, nobody, sign, uri};

const SCHEME: Scheme = Scheme::EcdsaP256Sha256;

const CREATE: u32 = 0x153;
const SIGN: u32 = 0x15d;

fn code(command: &[u8]) -> u32 {
    u32::from_be_bytes(command[6..10].try_into().unwrap())
}

fn holds(command: &[u8], part: &[u8]) -> bool {
    command.windows(part.len()).any(|window| window == part)
}

/// The answer with nothing but a response code.
fn refusal(response: u32) -> Option<Vec<u8>> {
    Some([&[0x80, 1, 0, 0, 0, 10][..], &response.to_be_bytes()].concat())
}

fn keystore(bus: &Bus, folder: &Path) -> TpmKeystore {
    let config = TpmConfig { tcti: bus.tcti(), folder: folder.to_owned() };
    TpmKeystore::open(config, nobody()).unwrap()
}

/// A TPM of the older kind: no P-384, no SHA-384 or SHA-512, no RSA-PSS.
struct Old;

impl Meddle for Old {
    fn answer(&self, command: &[u8]) -> Option<Vec<u8>> {
        let scheme = |algorithm: u8, hash: u8| holds(command, &[0, algorithm, 0, hash]);
        let (sha384, sha512, pss, rsassa, ecdsa) = (0x0c, 0x0d, 0x16, 0x14, 0x18);
        match code(command) {
            // No scheme, the curve, no derivation.
            CREATE if holds(command, &[0, 0x10, 0, 4, 0, 0x10]) => refusal(0x2e6),
            SIGN if scheme(pss, 0x0b) => refusal(0x2d2),
            SIGN if [rsassa, pss, ecdsa].iter().any(|a| scheme(*a, sha384) || scheme(*a, sha512)) => {
                refusal(0x2c3)
            }
            _ => None,
        }
    }
}

#[test]
fn only_what_was_proved_is_offered() {
    let Some(tpm) = Swtpm::start() else { return };
    let bus = Bus::to(&tpm, Old);
    let folder = tempfile::tempdir().unwrap();
    let keystore = keystore(&bus, folder.path());
    let new = |name: &str, algorithm| KeySpec { algorithm, ..KeySpec::new(uri(name)) };
    let error = keystore.create(&new("p384", Algorithm::P384)).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    let ec = keystore.create(&new("p256", Algorithm::P256)).unwrap();
    assert_eq!(ec.info().usable_schemes(), [SCHEME]);
    let error = sign(&*ec, Scheme::EcdsaP256Sha384).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    let rsa = keystore.create(&new("rsa", Algorithm::Rsa)).unwrap();
    assert_eq!(rsa.info().usable_schemes(), [Scheme::RsaPkcs1Sha256]);
}

/// Answers the first of its many Sign commands with a warning.
struct Warns {
    response: u32,
    left: AtomicU32,
}

impl Meddle for &'static Warns {
    fn answer(&self, command: &[u8]) -> Option<Vec<u8>> {
        let one_less = |left: u32| left.checked_sub(1);
        let warns = code(command) == SIGN
            && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok();
        warns.then(|| refusal(self.response)).flatten()
    }
}

#[test]
fn a_busy_tpm_is_asked_again() {
    // TPM_RC_RETRY, YIELDED, TESTING, NV_RATE, OBJECT_MEMORY, REFERENCE_H0, REFERENCE_S0.
    for (response, times) in
        [(0x922, 12), (0x908, 3), (0x90a, 12), (0x920, 3), (0x902, 1), (0x910, 1), (0x918, 1)]
    {
        let Some(tpm) = Swtpm::start() else { return };
        let folder = tempfile::tempdir().unwrap();
        let warns: &Warns = Box::leak(Box::new(Warns { response, left: AtomicU32::new(0) }));
        let bus = Bus::to(&tpm, warns);
        let keystore = keystore(&bus, folder.path());
        let key = keystore.create(&KeySpec::new(uri("web"))).unwrap();
        warns.left.store(times, Ordering::SeqCst);
        sign(&*key, SCHEME).unwrap_or_else(|e| panic!("{response:#x}: {e}"));
        assert_eq!(warns.left.load(Ordering::SeqCst), 0);
    }
    // One that never has time is given up.
    let Some(tpm) = Swtpm::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let warns: &Warns = Box::leak(Box::new(Warns { response: 0x922, left: AtomicU32::new(0) }));
    let bus = Bus::to(&tpm, warns);
    let keystore = keystore(&bus, folder.path());
    let key = keystore.create(&KeySpec::new(uri("web"))).unwrap();
    warns.left.store(u32::MAX, Ordering::SeqCst);
    let error = sign(&*key, SCHEME).unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
}

/// Hangs up on the first Sign commands, and counts them.
struct HangsUp {
    times: u32,
    seen: AtomicU32,
}

impl Meddle for &'static HangsUp {
    fn answer(&self, command: &[u8]) -> Option<Vec<u8>> {
        (code(command) == SIGN && self.seen.fetch_add(1, Ordering::SeqCst) < self.times).then(Vec::new)
    }
}

#[test]
fn a_pin_is_not_tried_again_when_nobody_knows_whether_it_was_counted() {
    let Some(tpm) = Swtpm::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let policy = Policy { pin: true, ..Policy::default() };
    let spec = KeySpec { policy, ..KeySpec::new(uri("web")) };
    tpm.keystore(folder.path(), Person::who_says(&["1"])).unwrap().create(&spec).unwrap();
    let hangs_up: &HangsUp = Box::leak(Box::new(HangsUp { times: 1, seen: AtomicU32::new(0) }));
    let bus = Bus::to(&tpm, hangs_up);
    let config = TpmConfig { tcti: bus.tcti(), folder: folder.path().to_owned() };
    let person = Person::who_says(&["1", "1"]);
    let key = TpmKeystore::open(config, person.clone()).unwrap().open(&spec.uri).unwrap();
    let error = sign(&*key, SCHEME).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert_eq!((hangs_up.seen.load(Ordering::SeqCst), person.asked()), (1, 1));
    sign(&*key, SCHEME).unwrap();
    assert_eq!(person.asked(), 2);
}

/// Changes a byte of each signature, or of each new key.
struct Forges(u32);

impl Meddle for Forges {
    fn change(&self, command: &[u8], answer: &mut [u8]) {
        if code(command) == self.0 && answer.len() > 64 {
            let middle = answer.len() / 2;
            answer[middle] ^= 1;
        }
    }
}

#[test]
fn a_forged_signature_is_never_returned() {
    let Some(tpm) = Swtpm::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let spec = KeySpec::new(uri("web"));
    tpm.keystore(folder.path(), nobody()).unwrap().create(&spec).unwrap();
    let bus = Bus::to(&tpm, Forges(SIGN));
    let key = keystore(&bus, folder.path()).open(&spec.uri).unwrap();
    let error = sign(&*key, SCHEME).unwrap_err();
    assert!(matches!(error, Error::WrongSignature { .. }), "{error}");
}

#[test]
fn a_key_that_was_changed_on_its_way_is_not_taken() {
    let Some(tpm) = Swtpm::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::to(&tpm, Forges(CREATE));
    let keystore = keystore(&bus, folder.path());
    keystore.create(&KeySpec::new(uri("web"))).map(|_| ()).unwrap_err();
    assert_eq!(keystore.list().unwrap(), []);
}
