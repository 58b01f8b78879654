//! Distinguished names, as text (RFC 4514) and as DER (RFC 5280 §4.1.2.4).

use std::fmt;
use std::str::FromStr;

use const_oid::ObjectIdentifier;
use der::asn1::{Any, PrintableStringRef};
use der::{Decode, Encode, Tag, Tagged};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};

use crate::encoding::{encoded, in_field};
use crate::{Error, Result};

const WHAT: &str = "distinguished name";

/// The name of a certificate's subject or issuer.
///
/// Its text form is that of RFC 4514: `CN=web,OU=Ops,O=Acme,C=CH`, whose first part is the last in
/// DER. Equality is that of the DER, in which `CN=web` as a UTF8String differs from `CN=web` as a
/// PrintableString; compare the text form where that shall not matter.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct DistinguishedName(Name);

/// An attribute type that has a name of its own in text.
struct AttributeType {
    name: &'static str,
    oid: ObjectIdentifier,
    /// The string type that its values are encoded as (RFC 5280 appendix A.1).
    tag: Tag,
}

const fn attribute(name: &'static str, oid: &str, tag: Tag) -> AttributeType {
    AttributeType { name, oid: ObjectIdentifier::new_unwrap(oid), tag }
}

const CN: AttributeType = attribute("CN", "2.5.4.3", Tag::Utf8String);
const OU: AttributeType = attribute("OU", "2.5.4.11", Tag::Utf8String);
const C: AttributeType = attribute("C", "2.5.4.6", Tag::PrintableString);

const KNOWN: [AttributeType; 11] = [
    CN,
    OU,
    attribute("O", "2.5.4.10", Tag::Utf8String),
    attribute("L", "2.5.4.7", Tag::Utf8String),
    attribute("ST", "2.5.4.8", Tag::Utf8String),
    C,
    attribute("STREET", "2.5.4.9", Tag::Utf8String),
    attribute("DC", "0.9.2342.19200300.100.1.25", Tag::Ia5String),
    attribute("UID", "0.9.2342.19200300.100.1.1", Tag::Utf8String),
    attribute("serialNumber", "2.5.4.5", Tag::PrintableString),
    attribute("emailAddress", "1.2.840.113549.1.9.1", Tag::Ia5String),
];

impl DistinguishedName {
    /// Decodes a DER Name.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn from_der(der: &[u8]) -> Result<Self> {
        in_field(WHAT, "the whole", Name::from_der(der)).map(Self)
    }

    /// The DER Name.
    ///
    /// # Errors
    /// [`Error::Encoding`] if it is longer than DER lengths can say (256 MiB).
    pub fn to_der(&self) -> Result<Vec<u8>> {
        encoded(WHAT, self.0.to_der())
    }

    /// The most specific common name: the first in text.
    pub fn common_name(&self) -> Option<String> {
        self.values(CN.oid).next()
    }

    /// The organizational units, in the order of the text.
    pub fn organizational_units(&self) -> Vec<String> {
        self.values(OU.oid).collect()
    }

    /// Whether it has no parts at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn from_name(name: Name) -> Self {
        Self(name)
    }

    pub(crate) fn as_name(&self) -> &Name {
        &self.0
    }

    fn values(&self, oid: ObjectIdentifier) -> impl Iterator<Item = String> {
        let rdns: Vec<_> = self.0.iter_rdn().collect();
        let attributes = rdns.into_iter().rev().flat_map(RelativeDistinguishedName::iter);
        attributes.filter(move |attribute| attribute.oid == oid).filter_map(|a| string(&a.value))
    }
}

/// Parses RFC 4514 text. Attribute types are known names in any case (`emailAddress` also as `E`) or
/// dotted object identifiers; a value that begins with `#` is the hexadecimal DER of the value. An
/// empty text is the empty name.
impl FromStr for DistinguishedName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |(reason, hint): Refusal| Error::Name {
            what: WHAT,
            text: text.chars().take(200).flat_map(char::escape_debug).collect(),
            reason,
            hint,
        };
        let mut rdns = Vec::new();
        let mut rdn = Vec::new();
        let mut rest = Some(text).filter(|text| !text.trim().is_empty());
        while let Some(text) = rest {
            let (attribute, end, tail) = parse_attribute(text).map_err(refuse)?;
            rdn.push(attribute);
            if end != Some('+') {
                let set = RelativeDistinguishedName::try_from(std::mem::take(&mut rdn));
                rdns.push(encoded(WHAT, set)?);
            }
            rest = end.map(|_| tail);
        }
        let mut sequence = RdnSequence::default();
        rdns.into_iter().rev().for_each(|rdn| sequence.push(rdn));
        Self::from_der(&encoded(WHAT, sequence.to_der())?)
    }
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rdns: Vec<_> = self.0.iter_rdn().collect();
        for (i, rdn) in rdns.into_iter().rev().enumerate() {
            for (j, attribute) in rdn.iter().enumerate() {
                f.write_str(match (i, j) {
                    (0, 0) => "",
                    (_, 0) => ",",
                    _ => "+",
                })?;
                write_attribute(f, attribute)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DistinguishedName({self})")
    }
}

/// A reason and, where there is one, a hint.
type Refusal = (String, Option<String>);
type Parsed<T> = std::result::Result<T, Refusal>;

fn refusal<T>(reason: impl Into<String>) -> Parsed<T> {
    Err((reason.into(), None))
}

/// One `type=value` from the beginning of `text`, the separator after it, and what follows that.
fn parse_attribute(text: &str) -> Parsed<(AttributeTypeAndValue, Option<char>, &str)> {
    let (name, value) = match text.find(['=', ',', '+']) {
        Some(at) if text[at..].starts_with('=') => (text[..at].trim(), &text[at + 1..]),
        at => {
            let part = text[..at.unwrap_or(text.len())].trim();
            let hint = "a name looks like CN=web,O=Acme,C=CH; a comma inside a value is written `\\,`";
            let reason =
                if part.is_empty() { "a part is missing".into() } else { format!("`{part}` has no `=`") };
            return Err((reason, Some(hint.into())));
        }
    };
    let (oid, tag) = attribute_type(name)?;
    let value = value.trim_start_matches(' ');
    let (value, end, rest) = match value.strip_prefix('#') {
        Some(hexadecimal) => {
            let (digits, end, rest) = split_at_separator(hexadecimal);
            let value = hexadecimal_value(name, digits.trim_end())?;
            // A string is the same name however it is written, and follows the same rules.
            let value = match string(&value) {
                Some(text) => string_value(name, oid, tag, text.into_bytes())?,
                None => value,
            };
            (value, end, rest)
        }
        None => {
            let (bytes, end, rest) = unescape(name, value)?;
            (string_value(name, oid, tag, bytes)?, end, rest)
        }
    };
    Ok((AttributeTypeAndValue { oid, value }, end, rest))
}

fn attribute_type(name: &str) -> Parsed<(ObjectIdentifier, Tag)> {
    let canonical = match name.to_ascii_lowercase().as_str() {
        "e" | "email" => "emailAddress".to_owned(),
        "s" => "ST".to_owned(),
        _ => name.to_owned(),
    };
    if let Some(known) = KNOWN.iter().find(|known| known.name.eq_ignore_ascii_case(&canonical)) {
        return Ok((known.oid, known.tag));
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return match ObjectIdentifier::new(name) {
            Ok(oid) => Ok((oid, tag_of(oid))),
            Err(_) => refusal(format!("`{name}` is not an object identifier")),
        };
    }
    let known = KNOWN.iter().map(|known| known.name).collect::<Vec<_>>().join(", ");
    Err((
        format!("`{name}` is not a known attribute type"),
        Some(format!("known are {known}, and dotted OIDs")),
    ))
}

fn tag_of(oid: ObjectIdentifier) -> Tag {
    KNOWN.iter().find(|known| known.oid == oid).map_or(Tag::Utf8String, |known| known.tag)
}

fn split_at_separator(text: &str) -> (&str, Option<char>, &str) {
    match text.char_indices().find(|(_, c)| matches!(c, ',' | '+')) {
        Some((at, separator)) => (&text[..at], Some(separator), &text[at + 1..]),
        None => (text, None, ""),
    }
}

/// The bytes of an escaped value (RFC 4514 §2.4) up to its end or an unescaped separator.
fn unescape<'a>(name: &str, text: &'a str) -> Parsed<(Vec<u8>, Option<char>, &'a str)> {
    let mut bytes = Vec::new();
    // Spaces at the end do not count unless escaped: what is before this does.
    let mut significant = 0;
    let mut end = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ',' | '+' => {
                end = Some(c);
                break;
            }
            '\\' => {
                bytes.push(escaped_byte(&mut chars).ok_or_else(|| {
                    let reason = format!("the value of {name} has a `\\` that escapes nothing");
                    (reason, Some("a backslash itself is written `\\\\`".to_owned()))
                })?);
                significant = bytes.len();
            }
            '"' | ';' | '<' | '>' | '\0' => {
                let escaped = if c == '\0' { "\\00".to_owned() } else { format!("\\{c}") };
                return Err((
                    format!("the value of {name} has an unescaped `{}`", c.escape_debug()),
                    Some(format!("write it `{escaped}`")),
                ));
            }
            ' ' => bytes.push(b' '),
            _ => {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                significant = bytes.len();
            }
        }
    }
    bytes.truncate(significant);
    Ok((bytes, end, chars.as_str()))
}

/// What follows a backslash: a special character, or two hexadecimal digits.
fn escaped_byte(chars: &mut std::str::Chars<'_>) -> Option<u8> {
    let first = chars.next()?;
    if let ' ' | '"' | '#' | '+' | ',' | ';' | '<' | '=' | '>' | '\\' = first {
        return u8::try_from(first).ok();
    }
    let digits = (first.to_digit(16)?, chars.next()?.to_digit(16)?);
    u8::try_from(digits.0 * 16 + digits.1).ok()
}

fn hexadecimal_value(name: &str, digits: &str) -> Parsed<Any> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            u8::try_from(digit(high)? * 16 + digit(low)?).ok()
        }
        _ => None,
    });
    let Some(der) = pairs.collect::<Option<Vec<u8>>>() else {
        let hint = format!("a value that begins with `#` is written {name}=\\#…");
        return Err((format!("the value of {name} begins with `#` and is not hexadecimal"), Some(hint)));
    };
    Any::from_der(&der).or_else(|e| refusal(format!("the value of {name} is not DER: {}", e.kind())))
}

fn string_value(name: &str, oid: ObjectIdentifier, tag: Tag, bytes: Vec<u8>) -> Parsed<Any> {
    if bytes.is_empty() {
        return refusal(format!("{name} has no value"));
    }
    if oid == C.oid && !(bytes.len() == 2 && bytes.is_ascii()) {
        return Err((format!("{name} is a country code of two letters"), Some("C=CH".into())));
    }
    let fits = match tag {
        Tag::PrintableString => PrintableStringRef::new(&bytes).is_ok(),
        Tag::Ia5String => bytes.is_ascii(),
        _ => std::str::from_utf8(&bytes).is_ok(),
    };
    if !fits {
        let kind = match tag {
            Tag::PrintableString => "letters, digits and ' ( ) + , - . / : = ?",
            Tag::Ia5String => "ASCII",
            _ => "UTF-8",
        };
        return refusal(format!("the value of {name} has more than {kind}"));
    }
    Any::new(tag, bytes).or_else(|e| refusal(format!("the value of {name} is too long: {}", e.kind())))
}

fn write_attribute(f: &mut fmt::Formatter<'_>, attribute: &AttributeTypeAndValue) -> fmt::Result {
    let known = KNOWN.iter().find(|known| known.oid == attribute.oid);
    match known {
        Some(known) => write!(f, "{}=", known.name)?,
        None => write!(f, "{}=", attribute.oid)?,
    }
    // An unnamed type's string is shown as such only if it parses back to the same DER.
    let text = string(&attribute.value)
        .filter(|text| !text.is_empty() && (known.is_some() || attribute.value.tag() == Tag::Utf8String));
    let Some(text) = text else {
        let der = attribute.value.to_der().map_err(|_| fmt::Error)?;
        return write!(f, "#{}", crate::encoding::hex(&der));
    };
    let last = text.chars().count().saturating_sub(1);
    for (i, c) in text.chars().enumerate() {
        match c {
            '#' if i == 0 => f.write_str("\\#")?,
            ' ' if i == 0 || i == last => f.write_str("\\ ")?,
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => write!(f, "\\{c}")?,
            // Not asked for by RFC 4514, but a name must not break the line that shows it.
            _ if c.is_control() => {
                c.encode_utf8(&mut [0; 4]).bytes().try_for_each(|byte| write!(f, "\\{byte:02X}"))?;
            }
            _ => write!(f, "{c}")?,
        }
    }
    Ok(())
}

/// The text of a value of any string type that is met in names.
fn string(value: &Any) -> Option<String> {
    let bytes = value.value();
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => {
            std::str::from_utf8(bytes).ok().map(str::to_owned)
        }
        // Taken for Latin-1, as everybody does.
        Tag::TeletexString => Some(bytes.iter().copied().map(char::from).collect()),
        Tag::BmpString if bytes.len().is_multiple_of(2) => {
            let units = bytes.chunks_exact(2).map(|pair| pair.iter().fold(0, |n, b| n << 8 | u16::from(*b)));
            char::decode_utf16(units).collect::<std::result::Result<_, _>>().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DistinguishedName> {
        text.parse()
    }

    #[test]
    fn refuses_what_is_not_a_name() {
        for (text, reason) in [
            ("web", "`web` has no `=`"),
            ("CN web,O=Acme", "`CN web` has no `=`"),
            ("CN=web,", "a part is missing"),
            (",CN=web", "a part is missing"),
            ("CN=a,,O=b", "a part is missing"),
            ("CN=a+", "a part is missing"),
            ("XX=web", "`XX` is not a known attribute type"),
            ("=web", "`` is not a known attribute type"),
            ("1.2.=web", "not an object identifier"),
            ("CN=", "CN has no value"),
            ("CN=  ,O=Acme", "CN has no value"),
            ("C=Switzerland", "two letters"),
            ("C=é", "two letters"),
            ("C=#130130", "two letters"),
            ("CN=#0c00", "has no value"),
            ("C=c*", "letters, digits"),
            ("emailAddress=zoë@acme.ch", "more than ASCII"),
            ("CN=a;b", "unescaped `;`"),
            ("CN=\"a\"", "unescaped"),
            ("CN=a\0", "unescaped `\\0`"),
            ("CN=a\\", "escapes nothing"),
            ("CN=a\\x", "escapes nothing"),
            ("CN=a\\é", "escapes nothing"),
            ("CN=a\\f", "escapes nothing"),
            ("CN=\\ff", "more than UTF-8"),
            ("CN=#xy", "not hexadecimal"),
            ("CN=#0c0", "not hexadecimal"),
            ("CN=#0c05", "not DER"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let hint = parse("XX=web").unwrap_err().hint().unwrap();
        assert!(hint.contains("CN, OU, O"), "{hint}");
    }

    #[test]
    fn the_first_in_text_is_the_last_in_der() {
        let name = parse("CN=web,C=CH").unwrap();
        let expected = b"\x30\x1b\x31\x0b\x30\x09\x06\x03\x55\x04\x06\x13\x02CH\
                         \x31\x0c\x30\x0a\x06\x03\x55\x04\x03\x0c\x03web";
        assert_eq!(name.to_der().unwrap(), expected);
        assert_eq!(DistinguishedName::from_der(expected).unwrap(), name);
    }

    #[test]
    fn display_parses_back() {
        for text in [
            "",
            "CN=web,OU=Ops,OU=Zürich,O=Acme,ST=ZH,L=Zürich,C=CH",
            "CN=James \\\"Jim\\\" Smith\\, III,DC=example,DC=net",
            "CN=\\ spaces \\ ",
            "CN=\\ ",
            "CN=\\#1",
            "CN=a=b",
            "OU=c+CN=a\\+b",
            "CN=\\;\\<\\>\\\\",
            "CN=line\\0Abreak\\00",
            "CN=日本語 😀",
            "emailAddress=ops@acme.ch,serialNumber=17",
            "1.2.3.4=plain",
            "1.2.3.4=#0403010203",
            "CN=#0401ff",
        ] {
            let name = parse(text).unwrap();
            assert_eq!(name.to_string(), text);
            assert_eq!(DistinguishedName::from_der(&name.to_der().unwrap()).unwrap(), name);
        }
    }

    #[test]
    fn spaces_around_parts_and_other_spellings_are_accepted() {
        let name = parse(" cn = a b  , e=ops@acme.ch, OU=\\41c ").unwrap();
        assert_eq!(name.to_string(), "CN=a b,emailAddress=ops@acme.ch,OU=Ac");
    }

    #[test]
    fn lengths_are_right_at_every_boundary() {
        for length in [1, 127, 128, 255, 256, 65_535, 65_536] {
            let value = "x".repeat(length);
            let name = parse(&format!("CN={value}")).unwrap();
            let again = DistinguishedName::from_der(&name.to_der().unwrap()).unwrap();
            assert_eq!(again.common_name().unwrap(), value);
        }
    }

    #[test]
    fn parts_are_found() {
        let name = parse("CN=web+UID=7,OU=Ops,OU=Europe,CN=other,O=Acme").unwrap();
        assert_eq!(name.common_name().unwrap(), "web");
        assert_eq!(name.organizational_units(), ["Ops", "Europe"]);
        assert_eq!(parse("O=Acme").unwrap().common_name(), None);
    }

    #[test]
    fn older_string_types_are_read() {
        for (value, shown) in [("1e0400fc0062", "CN=üb"), ("1402fc62", "CN=üb"), ("1e01aa", "CN=#1e01aa")] {
            assert_eq!(parse(&format!("CN=#{value}")).unwrap().to_string(), shown);
        }
    }
}
