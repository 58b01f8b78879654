//! Files as the doctor reads them: requests, certificates, keys, PKCS#12 files, revocation lists. The first
//! byte says as what.
#![no_main]

use std::time::{Duration, SystemTime};

use enclasp_doctor::file::{File, Kind, examine, public_key_in};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    let kinds = [Kind::Request, Kind::Certificate, Kind::Key, Kind::Pkcs12, Kind::RevocationList];
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let file = File { password: Some("secret"), ..File::new("fuzz", bytes, now) };
    let examined = examine(kinds[usize::from(*kind) % kinds.len()], &file);
    let _ = examined.report.to_string();
    let _ = public_key_in(bytes, Some("secret"));
});
