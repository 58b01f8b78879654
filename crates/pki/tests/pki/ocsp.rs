//! OCSP answers as who asks reads them: ours, and OpenSSL's; refusals first.

use enclasp_keystore::{Algorithm, Key};
use enclasp_pki::{
    CertId, CertStatus, Certificate, OcspAnswer, OcspRefusal, OcspRequest, Profile, RevocationReason,
    Revoked, ocsp_request, ocsp_response,
};

use crate::common::{Authority, Bench, DAY, context, name, new_year};

/// What a responder that the authority has speak for it says about a certificate.
fn answer(key: &dyn Key, authority: &Authority, about: &Certificate, status: CertStatus) -> Vec<u8> {
    let responder = responder(authority, key);
    let id = CertId::new(&authority.issuing, about.serial()).unwrap();
    let time = (new_year(), new_year() + DAY);
    ocsp_response(key, &responder, &[(id, status)], None, time, &context()).unwrap()
}

fn responder(authority: &Authority, key: &dyn Key) -> Certificate {
    let subject = name("CN=responder");
    let spki = &key.info().spki;
    authority.issuer().issue_responder(&subject, spki, 2 * DAY, new_year(), &context()).unwrap()
}

#[test]
fn what_is_no_good_answer_is_refused() {
    let bench = Bench::new();
    let acme = Authority::new(&bench, "acme", "Acme", Algorithm::P256);
    let other = Authority::new(&bench, "other", "Other", Algorithm::P256);
    let [web, mail] =
        ["web", "mail"].map(|name| acme.issue(&*bench.key(name, Algorithm::P256), &Profile::server()));
    let good = answer(&*bench.key("responder", Algorithm::P256), &acme, &web, CertStatus::Good);
    let id = CertId::new(&acme.issuing, web.serial()).unwrap();
    // Who signs is certified by the authority, but not to speak for it.
    let key = bench.key("leaf", Algorithm::P256);
    let leaf = acme.issue(&*key, &Profile::server());
    let time = (new_year(), new_year() + DAY);
    let by_leaf =
        ocsp_response(&*key, &leaf, &[(id.clone(), CertStatus::Good)], None, time, &context()).unwrap();
    // Who signs speaks for another one.
    let key = bench.key("foreign", Algorithm::P256);
    let foreign = responder(&other, &*key);
    let by_other = ocsp_response(&*key, &foreign, &[(id, CertStatus::Good)], None, time, &context()).unwrap();
    let refusal = OcspRefusal::TryLater.to_der().unwrap();
    for (der, certificate, now, reason) in [
        (&refusal, &web, new_year(), "asks to try later"),
        (&good, &mail, new_year(), "it is not about certificate"),
        (&good, &web, new_year() - DAY, "of a time to come"),
        (&good, &web, new_year() + DAY + DAY / 2, "its time was over"),
        (&by_leaf, &web, new_year(), "does not verify"),
        (&by_other, &web, new_year(), "does not verify"),
        (&Vec::new(), &web, new_year(), "it is empty"),
    ] {
        let error = OcspAnswer::from_der(der, certificate, &acme.issuing, now).unwrap_err().to_string();
        assert!(error.contains(reason) && error.lines().count() == 1, "{reason}: {error}");
    }
}

#[test]
fn no_change_of_a_byte_panics_or_goes_unnoticed() {
    let bench = Bench::new();
    let acme = Authority::new(&bench, "acme", "Acme", Algorithm::P256);
    let web = acme.issue(&*bench.key("web", Algorithm::P256), &Profile::server());
    let der = answer(&*bench.key("responder", Algorithm::P256), &acme, &web, CertStatus::Good);
    let read = |der: &[u8]| OcspAnswer::from_der(der, &web, &acme.issuing, new_year());
    let (this_update, next_update) = (new_year(), Some(new_year() + DAY));
    assert_eq!(read(&der).unwrap(), OcspAnswer { status: CertStatus::Good, this_update, next_update });
    for at in 0..der.len() {
        assert!(read(&der[..at]).is_err(), "cut at {at}");
        for flip in [0x01, 0x20, 0x80, 0xff] {
            let mut changed = der.clone();
            changed[at] ^= flip;
            assert!(read(&changed).is_err(), "byte {at} changed by {flip:#x}");
        }
    }
}

#[test]
fn revocation_is_read_with_its_reason() {
    let bench = Bench::new();
    let acme = Authority::new(&bench, "acme", "Acme", Algorithm::P256);
    let web = acme.issue(&*bench.key("web", Algorithm::P256), &Profile::server());
    let (serial, at) = (web.serial().to_owned(), new_year());
    let revoked = CertStatus::Revoked(Revoked { serial, at, reason: RevocationReason::KeyCompromise });
    let key = bench.key("responder", Algorithm::P256);
    for status in [revoked, CertStatus::Unknown] {
        let der = answer(&*key, &acme, &web, status.clone());
        assert_eq!(OcspAnswer::from_der(&der, &web, &acme.issuing, new_year()).unwrap().status, status);
    }
}

#[test]
fn openssl_reads_our_request() {
    let bench = Bench::new();
    let acme = Authority::new(&bench, "acme", "Acme", Algorithm::P256);
    let web = acme.issue(&*bench.key("web", Algorithm::P256), &Profile::server());
    let request = ocsp_request(&web, &acme.issuing).unwrap();
    assert_eq!(OcspRequest::from_der(&request).unwrap().certificates()[0].serial(), web.serial());
    bench.write("request.der", &request);
    let text = bench.openssl("ocsp -reqin request.der -req_text -noverify");
    assert!(text.contains(&format!("Serial Number: {}", web.serial().to_uppercase())), "{text}");
}
