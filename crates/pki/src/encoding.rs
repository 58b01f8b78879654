//! DER from outside: errors that say which part is wrong, and how.

use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Header, Length, Reader, SliceReader, Tag};
use spki::AlgorithmIdentifierRef;

use crate::{Error, Result};

/// The outer shape that requests and certificates share: what was signed, how, and the signature
/// (RFC 5280 §4.1.1, RFC 2986 §4.2).
pub(crate) struct Signed<'a> {
    /// The signed part, byte for byte, with its own tag and length.
    pub(crate) content: &'a [u8],
    pub(crate) algorithm: AlgorithmIdentifierRef<'a>,
    pub(crate) signature: &'a [u8],
}

impl<'a> Signed<'a> {
    pub(crate) fn from_der(what: &'static str, der: &'a [u8]) -> Result<Self> {
        let mut reader = sequence(what, der)?;
        let content = in_field(what, "the signed part", reader.tlv_bytes())?;
        let algorithm = in_field(what, "signatureAlgorithm", AlgorithmIdentifierRef::decode(&mut reader))?;
        let signature = in_field(what, "signature", BitStringRef::decode(&mut reader))?;
        finish(what, "the signature", reader)?;
        let signature = signature
            .as_bytes()
            .ok_or_else(|| malformed(what, "the signature is not a whole number of bytes"))?;
        Ok(Self { content, algorithm, signature })
    }
}

/// A reader of the fields of the one SEQUENCE that `der` must be.
pub(crate) fn sequence<'a>(what: &'static str, der: &'a [u8]) -> Result<SliceReader<'a>> {
    let Some(first) = der.first() else {
        return Err(malformed(what, "it is empty"));
    };
    if *first != 0x30 {
        return Err(malformed(
            what,
            if der.starts_with(b"MI") {
                "it looks like base64 without its PEM frame (-----BEGIN …-----)".into()
            } else {
                format!("it begins with byte 0x{first:02x}, not with a DER SEQUENCE (0x30)")
            },
        ));
    }
    let mut reader = in_field(what, "the whole", SliceReader::new(der))?;
    let header = in_field(what, "the outermost length", Header::decode(&mut reader))?;
    let (stated, present) = (u32::from(header.length()), u32::from(reader.remaining_len()));
    if stated > present {
        return Err(malformed(
            what,
            format!("it is cut short: its length says {stated} bytes, {present} are there"),
        ));
    }
    if stated < present {
        return Err(malformed(what, format!("{} bytes follow its end", present - stated)));
    }
    let value = in_field(what, "the whole", reader.read_slice(header.length()))?;
    in_field(what, "the whole", SliceReader::new(value))
}

/// The value of a constructed element of `tag`, as a reader of what it contains.
pub(crate) fn nested<'a>(
    what: &'static str,
    field: &str,
    tag: Tag,
    reader: &mut SliceReader<'a>,
) -> Result<SliceReader<'a>> {
    let element = in_field(what, field, AnyRef::decode(reader))?;
    let found = der::Tagged::tag(&element);
    if found != tag {
        return Err(malformed(what, format!("{field}: expected {tag}, got {found}")));
    }
    in_field(what, field, SliceReader::new(element.value()))
}

/// Refuses what follows the last field.
pub(crate) fn finish(what: &'static str, last: &str, reader: SliceReader<'_>) -> Result<()> {
    let left = reader.remaining_len();
    if left == Length::ZERO {
        Ok(())
    } else {
        Err(malformed(what, format!("{left} unexpected bytes follow {last}")))
    }
}

/// Names the field in which decoding failed.
pub(crate) fn in_field<T>(what: &'static str, field: &str, result: der::Result<T>) -> Result<T> {
    result.map_err(|error| malformed(what, format!("{field}: {}", error.kind())))
}

pub(crate) fn malformed(what: &'static str, reason: impl Into<String>) -> Error {
    Error::Malformed { what, reason: reason.into() }
}

/// For encoding values of our own.
pub(crate) fn encoded<T>(what: &'static str, result: der::Result<T>) -> Result<T> {
    result.map_err(|error| Error::Encoding { what, reason: error.to_string() })
}

/// The bytes that hexadecimal of either case stands for, if it is nothing else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()));
    let digits = digits.collect::<Option<Vec<_>>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Lower-case hexadecimal without separators, as serial numbers and fingerprints are shown.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|n| char::from(DIGITS[usize::from(n)])).collect()
}
