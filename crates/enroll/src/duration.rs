//! Lengths of time as people write them: `10s`, `15m`, `12h`, `90d`, `1h30m`; and as Go programs read
//! them: `500ms`, `1.5h`.

use std::time::Duration;

/// The units of a second and more, the longest first.
const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

/// All units, in nanoseconds; those that begin with another's letter before that one.
const ALL_UNITS: [(&str, u128); 8] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// Parses one or more decimal numbers with a unit each (`ns`, `us`, `ms`, `s`, `m`, `h`, `d`), or a
/// lone `0`.
///
/// # Errors
/// A line that says what is wrong; a number without a unit is refused rather than guessed.
pub fn parse(text: &str) -> Result<Duration, String> {
    let error = || format!("`{text}` is not a duration: write it as 10s, 15m, 12h, 90d or 1h30m");
    if text.is_empty() {
        return Err(error());
    }
    let mut nanoseconds: u128 = 0;
    let mut rest = if text == "0" { "" } else { text };
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(error)?;
        let (number, tail) = rest.split_at(digits);
        let (unit, length) = ALL_UNITS.iter().find(|(unit, _)| tail.starts_with(unit)).ok_or_else(error)?;
        nanoseconds = scaled(number, *length).and_then(|n| nanoseconds.checked_add(n)).ok_or_else(error)?;
        rest = tail.get(unit.len()..).unwrap_or("");
    }
    let seconds = u64::try_from(nanoseconds / 1_000_000_000).map_err(|_| error())?;
    Ok(Duration::new(seconds, (nanoseconds % 1_000_000_000) as u32))
}

/// A decimal number times `length`; what is below one is cut off.
fn scaled(number: &str, length: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut total = whole.parse::<u128>().ok()?.checked_mul(length)?;
    if number.contains('.') {
        // More digits than a nanosecond of a day could show make no difference.
        let fraction = fraction.get(..fraction.len().min(18)).filter(|digits| !digits.is_empty())?;
        let parts = fraction.parse::<u128>().ok()?.checked_mul(length)?;
        total = total.checked_add(parts / 10_u128.pow(fraction.len() as u32))?;
    }
    Some(total)
}

/// The shortest text that [`parse`] reads as `duration`, to the second: `1h30m`.
pub fn format(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    let mut text = String::new();
    for (unit, length) in UNITS {
        if rest >= length {
            text.push_str(&format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// `duration` in its largest unit, for sentences: `3 minutes`.
pub fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (name, length) = match seconds {
        172_800.. => ("day", 86_400),
        7_200.. => ("hour", 3_600),
        120.. => ("minute", 60),
        _ => ("second", 1),
    };
    let count = seconds / length;
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

/// For `#[serde(with = "…")]`: a duration as the text of [`parse`] and [`format()`].
pub mod text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes [`format`](super::format)'s text.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format(*duration))
    }

    /// Reads [`parse`](super::parse)'s text.
    ///
    /// # Errors
    /// Those of `parse`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        super::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_has_no_unit() {
        for text in [
            "",
            "10",
            "m",
            "10x",
            "1h30",
            "-1s",
            "1.h",
            ".5h",
            "1.5.2h",
            "1.5",
            "99999999999999999999s",
            "999999999999999999d",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_and_writes() {
        for (text, seconds) in [("0s", 0), ("10s", 10), ("15m", 900), ("1h30m", 5400), ("90d", 7_776_000)] {
            assert_eq!(parse(text).unwrap().as_secs(), seconds);
            assert_eq!(format(Duration::from_secs(seconds)), text);
        }
        for (text, milliseconds) in [
            ("0", 0),
            ("500ms", 500),
            ("1.5h", 5_400_000),
            ("1m0.25s", 60_250),
            ("2us", 0),
            ("1h1ms", 3_600_001),
        ] {
            assert_eq!(parse(text).unwrap().as_millis(), milliseconds, "{text}");
        }
        assert_eq!(in_words(Duration::from_secs(1)), "1 second");
        assert_eq!(in_words(Duration::from_secs(200)), "3 minutes");
        assert_eq!(in_words(Duration::from_secs(864_000)), "10 days");
    }
}
