//! PEM (RFC 7468): base64 DER between lines that say what it is.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::Result;
use crate::encoding::malformed;

const WHAT: &str = "PEM text";
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// One encapsulated block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What it says it is: `CERTIFICATE`.
    pub label: String,
    /// Its content, decoded from base64 and not looked at.
    pub der: Vec<u8>,
}

/// `der` as PEM, in lines of 64 characters that end with a line feed.
pub fn encode(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut text = format!("{BEGIN}{label}{DASHES}\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str(&format!("{END}{label}{DASHES}\n"));
    text
}

/// Every block of `text`, in order. Text around the blocks is passed over, and so are header lines
/// (`Proc-Type: …`) inside them.
///
/// # Errors
/// [`Error::Malformed`](crate::Error::Malformed) if a block does not end, or is not base64.
pub fn decode_all(text: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in text.lines().map(str::trim) {
        match &mut open {
            None => {
                if let Some(label) = boundary(line, BEGIN) {
                    open = Some((label, String::new()));
                }
            }
            Some((label, base64)) => {
                if let Some(end) = boundary(line, END) {
                    if end != *label {
                        return Err(malformed(WHAT, format!("`BEGIN {label}` is followed by `END {end}`")));
                    }
                    let der = STANDARD
                        .decode(base64.as_bytes())
                        .map_err(|e| malformed(WHAT, format!("the {label} block is not base64: {e}")))?;
                    blocks.push(Block { label: (*label).to_owned(), der });
                    open = None;
                } else if line.starts_with(DASHES) {
                    return Err(malformed(WHAT, format!("`BEGIN {label}` has no `END {label}`")));
                } else if !line.contains(':') {
                    base64.extend(line.chars().filter(|c| !c.is_whitespace()));
                }
            }
        }
    }
    match open {
        Some((label, _)) => Err(malformed(WHAT, format!("`BEGIN {label}` has no `END {label}`"))),
        None => Ok(blocks),
    }
}

/// The text of `bytes` if a PEM block begins in it. DER of more than 127 bytes, whose second byte is
/// not ASCII, is never taken for PEM.
pub(crate) fn text_of(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let is_der = matches!(bytes, [0x30, 0x80..=0xff, ..]);
    let is_pem = !is_der && bytes.windows(BEGIN.len()).any(|at| at == BEGIN.as_bytes());
    is_pem.then(|| String::from_utf8_lossy(bytes))
}

/// The labels of `blocks`, for a person who expected another one.
pub(crate) fn labels(blocks: &[Block]) -> String {
    let mut labels: Vec<_> = blocks.iter().map(|block| block.label.as_str()).collect();
    labels.dedup();
    labels.truncate(5);
    labels.join(", ")
}

fn boundary<'a>(line: &'a str, kind: &str) -> Option<&'a str> {
    let label = line.strip_prefix(kind)?.strip_suffix(DASHES)?;
    // Labels are repeated in errors, so nothing odd may be in them.
    let plain = label.len() <= 64 && label.bytes().all(|c| c == b' ' || c.is_ascii_graphic());
    plain.then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_blocks_that_are_broken() {
        for (text, reason) in [
            ("-----BEGIN A-----\nAAAA\n", "no `END A`"),
            ("-----BEGIN A-----\nAAAA\n-----END B-----\n", "followed by `END B`"),
            ("-----BEGIN A-----\nA*AA\n-----END A-----\n", "not base64"),
            ("-----BEGIN A-----\nAAA\n-----END A-----\n", "not base64"),
            ("-----BEGIN A-----\nAAAA\n-----BEGIN A-----\nAAAA\n-----END A-----\n", "no `END A`"),
        ] {
            let error = decode_all(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn blocks_come_back_with_text_around_them() {
        let der: Vec<u8> = (0..=255).collect();
        let text =
            format!("subject=x\r\n{}\nand\n{}", encode("A B", &der).replace('\n', "\r\n"), encode("C", &[]));
        assert_eq!(
            decode_all(&text).unwrap(),
            [Block { label: "A B".into(), der }, Block { label: "C".into(), der: vec![] }]
        );
        assert!(encode("A", &[0; 100]).lines().all(|line| line.len() <= 64));
        assert!(decode_all("no PEM here").unwrap().is_empty());
    }
}
