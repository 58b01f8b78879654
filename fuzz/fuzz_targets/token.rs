//! Enrolment tokens: what is read can be written, and means the same.
#![no_main]

use enclasp_enroll::Token;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(token) = Token::parse(text) else { return };
    let line = token.to_line().expect("it was read from a line");
    let again = Token::parse(&line).expect("our own encoding");
    assert_eq!(again.id(), token.id());
    assert_eq!(again.secret().hash(), token.secret().hash());
    assert_eq!(again.contents().expires, token.contents().expires);
    assert_eq!(again.contents().common_name, token.contents().common_name);
});
