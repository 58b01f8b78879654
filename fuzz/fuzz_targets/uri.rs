//! Key URIs, distinguished names and alternative names: what is read prints as what reads the same.
#![no_main]

use enclasp_keystore::KeyUri;
use enclasp_pki::{DistinguishedName, SubjectAltName};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(uri) = text.parse::<KeyUri>() {
        assert_eq!(uri.to_string().parse::<KeyUri>().expect("our own text"), uri);
    }
    if let Ok(name) = text.parse::<DistinguishedName>() {
        assert_eq!(name.to_string().parse::<DistinguishedName>().expect("our own text"), name);
    }
    if let Ok(name) = text.parse::<SubjectAltName>() {
        assert_eq!(name.to_string().parse::<SubjectAltName>().expect("our own text"), name);
    }
});
