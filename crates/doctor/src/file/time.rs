//! Points in time in certificates (RFC 5280 §4.1.2.5), read as far as they can be.

use std::time::SystemTime;

use der::DateTime;

use super::node::{GENERALIZED_TIME, Node, UTC_TIME};

/// A time that could be read.
pub(super) struct Time {
    pub(super) at: SystemTime,
    /// What is wrong with how it is written.
    pub(super) fault: Option<String>,
    /// How it should be written: the identifier octet and the text.
    pub(super) right: (u8, String),
}

/// Reads a UTCTime or GeneralizedTime.
///
/// # Errors
/// Why it is no time at all.
pub(super) fn read(node: &Node) -> Result<Time, String> {
    let text = std::str::from_utf8(node.value()).map_err(|_| "it is not ASCII".to_owned())?;
    let shown: String = text.chars().take(40).flat_map(char::escape_default).collect();
    let year_digits = if node.tag == UTC_TIME { 2 } else { 4 };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (stamp, zone) = text.split_at_checked(digits).ok_or("it is not ASCII")?;
    let complete = year_digits + 10;
    if digits != complete && digits != complete - 2 {
        return Err(format!("`{shown}` has {digits} digits; {complete} are due"));
    }
    let number = |from: usize, length: usize| -> u16 {
        stamp.get(from..from + length).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    };
    let part = |index: usize| u8::try_from(number(year_digits + 2 * index, 2)).unwrap_or(u8::MAX);
    let year = match (node.tag, number(0, year_digits)) {
        (UTC_TIME, year @ 50..) => 1900 + year,
        (UTC_TIME, year) => 2000 + year,
        (_, year) => year,
    };
    let date = DateTime::new(year, part(0), part(1), part(2), part(3), part(4))
        .map_err(|_| format!("`{shown}` is not in the calendar between 1970 and 9999"))?;
    let (offset, mut fault) = zone_of(zone).ok_or_else(|| format!("`{shown}` does not end with Z"))?;
    if digits != complete {
        fault = Some(format!("`{shown}` has no seconds"));
    }
    let at = if offset >= 0 {
        date.to_system_time().checked_sub(std::time::Duration::from_secs(offset.unsigned_abs()))
    } else {
        date.to_system_time().checked_add(std::time::Duration::from_secs(offset.unsigned_abs()))
    };
    let at = at.ok_or("it is out of range")?;
    let utc = DateTime::from_system_time(at).map_err(|_| "it is out of range".to_owned())?;
    if fault.is_none() && node.tag == GENERALIZED_TIME && (1950..2050).contains(&utc.year()) {
        fault = Some(format!("`{shown}` is a GeneralizedTime; until 2049 it has to be a UTCTime"));
    }
    let rest = format!(
        "{:02}{:02}{:02}{:02}{:02}Z",
        utc.month(),
        utc.day(),
        utc.hour(),
        utc.minutes(),
        utc.seconds()
    );
    let right = if (1950..2050).contains(&utc.year()) {
        (UTC_TIME, format!("{:02}{rest}", utc.year() % 100))
    } else {
        (GENERALIZED_TIME, format!("{:04}{rest}", utc.year()))
    };
    Ok(Time { at, fault: fault.map(|fault| fault.to_owned()), right })
}

/// Seconds east of Greenwich, and what is wrong with how that is written.
fn zone_of(zone: &str) -> Option<(i64, Option<String>)> {
    if zone == "Z" {
        return Some((0, None));
    }
    if zone.is_empty() {
        return Some((0, Some("it names no time zone; it has to end with Z".into())));
    }
    if let Some(fraction) = zone.strip_prefix(['.', ',']) {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let (offset, _) = zone_of(fraction.get(digits..)?)?;
        return Some((offset, Some("it has fractions of a second".into())));
    }
    let (sign, digits) = match zone.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    if digits.len() != 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes) = digits.split_at(2);
    let seconds = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
    Some((sign * seconds, Some(format!("it gives the time in the zone {zone}; it has to be UTC"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_right() {
        let cases: &[(u8, &str, &str, &str, bool)] = &[
            (UTC_TIME, "260301120000Z", "2026-03-01T12:00:00Z", "260301120000Z", false),
            (UTC_TIME, "500301120000Z", "1950", "", false),
            (UTC_TIME, "2603011200Z", "2026-03-01T12:00:00Z", "260301120000Z", true),
            (UTC_TIME, "260301120000+0100", "2026-03-01T11:00:00Z", "260301110000Z", true),
            (GENERALIZED_TIME, "20500101000000Z", "2050-01-01T00:00:00Z", "20500101000000Z", false),
            (GENERALIZED_TIME, "20490101000000Z", "2049-01-01T00:00:00Z", "490101000000Z", true),
            (GENERALIZED_TIME, "20510101000000.5Z", "2051-01-01T00:00:00Z", "20510101000000Z", true),
            (GENERALIZED_TIME, "20510101000000", "2051-01-01T00:00:00Z", "20510101000000Z", true),
        ];
        for (tag, text, at, right, faulty) in cases {
            match read(&Node::primitive(*tag, text.as_bytes())) {
                Ok(time) => {
                    assert_eq!(enclasp_pki::rfc3339(time.at), *at, "{text}");
                    assert_eq!((time.right.1.as_str(), time.fault.is_some()), (*right, *faulty), "{text}");
                }
                // Before 1970 there is nothing that this clock could say.
                Err(reason) => assert!(*at == "1950" && reason.contains("1970"), "{text}: {reason}"),
            }
        }
        for text in ["", "Z", "261301120000Z", "260230120000Z", "260301120000X", "26030112000Z", "ü", "26ü0"]
        {
            assert!(read(&Node::primitive(UTC_TIME, text.as_bytes())).is_err(), "{text}");
        }
    }
}
