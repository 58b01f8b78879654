//! Certificates, PEM or DER, and everything that is read from one.
#![no_main]

use std::time::SystemTime;

use enclasp_pki::{Certificate, Purpose, certificates_from, certs_only, order_chain, verify_chain};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(certificates) = certificates_from(data) {
        certificates.iter().for_each(read);
        if let Some(leaf) = certificates.first() {
            let chain = order_chain(leaf, &certificates);
            let _ = verify_chain(leaf, &chain, &certificates, SystemTime::UNIX_EPOCH, Purpose::Client);
        }
    }
    if let Ok(ders) = certs_only::decode(data) {
        ders.iter().filter_map(|der| Certificate::from_der(der).ok()).for_each(|c| read(&c));
    }
});

fn read(certificate: &Certificate) {
    let _ = certificate.describe();
    let _ = certificate.algorithm();
    let _ = certificate.extended_key_usages();
    let _ = certificate.is_for(Purpose::Server);
    let _ = certificate.verify_signed_by(certificate);
    let again = Certificate::from_der(certificate.der()).expect("it was read before");
    assert_eq!(&again, certificate);
}
