//! Certification requests, PEM or DER, and the body of an EST request.
#![no_main]

use enclasp_enroll::est;
use enclasp_pki::CertificationRequest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = CertificationRequest::from_pem_or_der(data) {
        read(&request);
    }
    if let Ok(der) = est::decode_body(data)
        && let Ok(request) = CertificationRequest::from_der(&der)
    {
        read(&request);
    }
    let _ = est::decode_csr_attributes(data);
    let _ = est::basic_password(data);
});

fn read(request: &CertificationRequest) {
    let _ = request.subject().to_string();
    let _ = request.subject_alt_names().len();
    let _ = request.algorithm();
    let _ = request.verify();
}
