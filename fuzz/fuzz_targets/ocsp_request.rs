//! OCSP requests, in DER.
#![no_main]

use enclasp_pki::OcspRequest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = OcspRequest::from_der(data) {
        let _ = request.nonce().map(<[u8]>::len);
        for certificate in request.certificates() {
            let _ = certificate.serial();
            let _ = certificate.to_der();
        }
    }
});
