//! Points in time as people and JSON read them.

use std::time::{Duration, SystemTime};

use der::DateTime;

/// `time` as RFC 3339 text in UTC, to the second: `2026-03-01T12:00:00Z`. Times outside the years
/// 1970 to 9999, which no certificate holds, show the nearer end of that range.
pub fn rfc3339(time: SystemTime) -> String {
    DateTime::from_system_time(time)
        .unwrap_or(if time < SystemTime::UNIX_EPOCH { EPOCH } else { DateTime::INFINITY })
        .to_string()
}

const EPOCH: DateTime = match DateTime::new(1970, 1, 1, 0, 0, 0) {
    Ok(epoch) => epoch,
    Err(_) => DateTime::INFINITY,
};

/// A length of time in its largest unit: `3 days`, `1 hour`.
pub(crate) fn length(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_rfc_3339() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(rfc3339(at(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(at(2_524_608_000)), "2050-01-01T00:00:00Z");
        assert_eq!(rfc3339(at(u64::MAX / 4)), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn lengths_use_their_largest_unit() {
        assert_eq!(length(Duration::from_secs(1)), "1 second");
        assert_eq!(length(Duration::from_secs(7300)), "2 hours");
        assert_eq!(length(Duration::from_secs(3 * 86_400 + 5)), "3 days");
    }
}
