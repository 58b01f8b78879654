//! What a file is wrapped in: PEM (RFC 7468), or nothing; as it should be, or not.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};
use zeroize::Zeroizing;

use crate::{Finding, Place, code};

/// What came out of a file.
pub(super) struct Opened {
    pub(super) blocks: Vec<Block>,
    pub(super) findings: Vec<Finding>,
    /// Whether it is PEM, or was meant to be.
    pub(super) is_pem: bool,
    /// What had to be mended to read it, for a person.
    pub(super) mended: Vec<String>,
}

/// One object in it.
pub(super) struct Block {
    /// What its PEM frame says that it is.
    pub(super) label: Option<String>,
    /// The header lines inside the frame: `Proc-Type: 4,ENCRYPTED`.
    pub(super) headers: Vec<String>,
    /// It may be a private key.
    pub(super) der: Zeroizing<Vec<u8>>,
}

const DASHES: &str = "-----";
const BEGIN: &str = "-----BEGIN ";
/// No file of these kinds has more objects.
const MAX_BLOCKS: usize = 1000;

/// Takes a file apart.
pub(super) fn open(bytes: &[u8]) -> Opened {
    let mut opened = Opened { blocks: Vec::new(), findings: Vec::new(), is_pem: false, mended: Vec::new() };
    open_into(bytes, &mut opened, 0);
    opened
}

fn open_into(bytes: &[u8], opened: &mut Opened, depth: usize) {
    if let Some(text) = other_text(bytes) {
        opened.findings.push(Finding::error(
            code::FILE_TEXT,
            format!("the file is {}, not plain text", text.was),
            "PEM is ASCII, a byte for each character, in lines. Most programs do not find the PEM in this.",
            "Save it as plain text (UTF-8 without a byte order mark, real line breaks).",
        ));
        opened.mended.push(format!("made plain text of {}", text.was));
        return open_plain(text.plain.as_bytes(), opened, depth);
    }
    open_plain(bytes, opened, depth);
}

fn open_plain(bytes: &[u8], opened: &mut Opened, depth: usize) {
    let looks_like_der = matches!(bytes, [0x30, 0x80..=0xff, ..]);
    if !looks_like_der && find_frame(bytes).is_some() {
        opened.is_pem = true;
        return open_frames(bytes, opened, depth);
    }
    if !looks_like_der && let Some((decoded, what)) = unframed(bytes) {
        if find_frame(&decoded).is_some() && depth == 0 {
            twice(opened);
            return open_into(&decoded, opened, depth + 1);
        }
        opened.is_pem = true;
        opened.findings.push(Finding::error(
            code::FILE_UNFRAMED,
            format!("the file is {what} without a PEM frame"),
            "Programs that read PEM look for a line `-----BEGIN …-----`, those that read DER for a first byte 0x30. \
             This has neither.",
            "Put the frame around it, which --fix does.",
        ));
        opened.mended.push(format!("put the PEM frame around {what}"));
        opened.blocks.push(Block { label: None, headers: Vec::new(), der: Zeroizing::new(decoded) });
        return;
    }
    if !bytes.is_empty() {
        opened.blocks.push(Block { label: None, headers: Vec::new(), der: Zeroizing::new(bytes.to_vec()) });
    }
}

struct Text {
    plain: String,
    was: &'static str,
}

/// Text in an encoding that hides the PEM in it.
fn other_text(bytes: &[u8]) -> Option<Text> {
    let utf16 = |big_endian: bool, rest: &[u8]| {
        let units = rest.chunks_exact(2).map(|pair| match (pair, big_endian) {
            ([high, low], true) | ([low, high], false) => u16::from_be_bytes([*high, *low]),
            _ => 0,
        });
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>()
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => return Some(Text { plain: utf16(false, rest), was: "UTF-16" }),
        [0xfe, 0xff, rest @ ..] => return Some(Text { plain: utf16(true, rest), was: "UTF-16" }),
        [b'-', 0, ..] => return Some(Text { plain: utf16(false, bytes), was: "UTF-16" }),
        [0xef, 0xbb, 0xbf, rest @ ..] => {
            let plain = String::from_utf8_lossy(rest).into_owned();
            return Some(Text { plain, was: "UTF-8 with a byte order mark" });
        }
        _ => {}
    }
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.contains(BEGIN))?;
    let escaped = text.contains("-----\\n") && !text.trim().contains('\n');
    let plain = text.trim().trim_matches(['"', '\'']).replace("\\r", "").replace("\\n", "\n");
    escaped.then_some(Text { plain, was: "text with \\n in place of its line breaks" })
}

fn twice(opened: &mut Opened) {
    opened.findings.push(Finding::error(
        code::FILE_FRAMED_TWICE,
        "the base64 holds PEM text, not DER",
        "Something that was PEM already was encoded as base64 once more, as Kubernetes secrets and scripts do.",
        "Take the inner PEM, which --fix does: `base64 -d` shows it.",
    ));
    opened.mended.push("took the PEM out of the base64 around it".into());
}

/// Where a frame begins: the line, and what is after it.
struct Frame<'a> {
    /// The offset of its line.
    start: usize,
    label: &'a str,
    /// Where the next line begins.
    after: usize,
    /// Whether the line is as it should be.
    exact: bool,
}

fn find_frame(bytes: &[u8]) -> Option<Frame<'_>> {
    find_boundary(bytes, 0, "BEGIN ")
}

/// The next line with `BEGIN LABEL` between dashes, or what people and programs make of dashes.
fn find_boundary<'a>(bytes: &'a [u8], from: usize, word: &str) -> Option<Frame<'a>> {
    let mut at = from;
    while let Some(found) = bytes.get(at..)?.windows(word.len()).position(|w| w == word.as_bytes()) {
        let position = at + found;
        at = position + word.len();
        let before = &bytes[..position];
        let line = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let dashes = before.get(line..).unwrap_or_default().trim_ascii_start();
        let after_label = bytes.get(at..)?;
        let is_label =
            |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b" #.".contains(byte);
        let length = after_label.iter().take_while(|byte| is_label(byte)).count().min(64);
        let label = std::str::from_utf8(after_label.get(..length)?).ok()?.trim_end();
        let rest = after_label.get(length..)?;
        let line_length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let tail = rest.get(..line_length)?.trim_ascii_end();
        // Dashes of any kind, and nothing else, are around a frame's label.
        let are_dashes = |text: &[u8]| {
            std::str::from_utf8(text).is_ok_and(|text| {
                text.chars().all(|c| matches!(c, '-' | ' ' | '\u{2010}'..='\u{2015}' | '\u{2212}'))
            })
        };
        let dashed = dashes.iter().filter(|byte| **byte != b' ').count() > 0 && are_dashes(dashes);
        let tail_is_dashes = are_dashes(tail);
        // A label that runs on into the base64 has lost its line break.
        if dashed && !label.is_empty() && (tail_is_dashes || tail.starts_with(DASHES.as_bytes())) {
            let exact = dashes == DASHES.as_bytes() && tail == DASHES.as_bytes();
            let after = if tail_is_dashes {
                (at + length + line_length + 1).min(bytes.len())
            } else {
                at + length + DASHES.len()
            };
            return Some(Frame { start: line, label, after, exact });
        }
    }
    None
}

fn open_frames(bytes: &[u8], opened: &mut Opened, depth: usize) {
    let mut from = 0;
    while let Some(begin) = find_boundary(bytes, from, "BEGIN ") {
        if opened.blocks.len() >= MAX_BLOCKS {
            return;
        }
        let label = begin.label;
        let end = find_boundary(bytes, begin.after, "END ");
        let next = find_boundary(bytes, begin.after, "BEGIN ");
        let end = end.filter(|end| next.as_ref().is_none_or(|next| end.start < next.start));
        let stop = match (&end, &next) {
            (Some(end), _) => end.start,
            (None, Some(next)) => next.start,
            (None, None) => bytes.len(),
        };
        if !begin.exact || end.as_ref().is_some_and(|end| !end.exact) {
            let line = if begin.exact { end.as_ref().map_or(0, |end| end.start) } else { begin.start };
            frame_broken(opened, format!("a line of the PEM frame is not `{BEGIN}{label}{DASHES}`"), line);
        }
        match &end {
            None => frame_broken(opened, format!("`BEGIN {label}` has no `END {label}`"), begin.start),
            Some(end) if end.label != label => {
                frame_broken(
                    opened,
                    format!("`BEGIN {label}` is followed by `END {}`", end.label),
                    end.start,
                );
            }
            Some(_) => {}
        }
        from = end.as_ref().map_or(stop, |end| end.after);
        let body = bytes.get(begin.after..stop).unwrap_or_default();
        let (headers, body_at) = headers(body);
        let body = body.get(body_at..).unwrap_or_default();
        let label = label.to_owned();
        if is_binary(body) {
            opened.findings.push(
                Finding::error(
                    code::FILE_BINARY_IN_FRAME,
                    format!("between the lines of the PEM frame is binary DER, not base64 (`{label}`)"),
                    "PEM is DER in base64. A program wrote the frame and forgot to encode.",
                    "Encode what is between as base64, which --fix does.",
                )
                .with_at("found", hex_of(body), file_place(begin.after + body_at, 4)),
            );
            opened.mended.push("encoded the DER as base64".into());
            let der = body.strip_suffix(b"\r\n").or(body.strip_suffix(b"\n")).unwrap_or(body);
            let der = Zeroizing::new(der.to_vec());
            opened.blocks.push(Block { label: Some(label), headers, der });
            continue;
        }
        let der = Zeroizing::new(decode(body, begin.after + body_at, &label, opened));
        if der.starts_with(BEGIN.as_bytes()) && depth == 0 {
            twice(opened);
            open_frames(&der, opened, depth + 1);
        } else {
            opened.blocks.push(Block { label: Some(label), headers, der });
        }
    }
}

fn frame_broken(opened: &mut Opened, title: String, offset: usize) {
    opened.findings.push(
        Finding::error(
            code::FILE_FRAME_BROKEN,
            title,
            "A PEM frame is two lines that begin and end with exactly five hyphens and have the same label (RFC 7468 §2). \
             Copying through a mail or a word processor changes them, and copying by hand loses one.",
            "Write the two lines again, which --fix does where it is clear what was meant.",
        )
        .with_at("line", "", file_place(offset, 0)),
    );
    opened.mended.push("wrote the PEM frame again".into());
}

/// The header lines (RFC 1421 §4.6) before the base64, and where that begins.
fn headers(body: &[u8]) -> (Vec<String>, usize) {
    let mut headers = Vec::new();
    let mut at = 0;
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        let text = line.trim_ascii();
        let continues = !headers.is_empty() && line.starts_with(b" ");
        let is_header = text.iter().position(|byte| *byte == b':').is_some_and(|colon| {
            colon < 32 && text[..colon].iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        });
        if !is_header && !continues && (!text.is_empty() || headers.is_empty()) {
            break;
        }
        if !text.is_empty() {
            headers.push(String::from_utf8_lossy(text).into_owned());
        }
        at += line.len();
    }
    (headers, at)
}

fn is_binary(body: &[u8]) -> bool {
    body.iter().any(|byte| !byte.is_ascii() || (byte.is_ascii_control() && !byte.is_ascii_whitespace()))
        && matches!(body, [0x30, ..])
}

/// Both alphabets, with padding or without.
const LENIENT: GeneralPurposeConfig = general_purpose::GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);

fn lenient(text: &[u8]) -> Option<Vec<u8>> {
    let text: Vec<u8> = text
        .iter()
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        })
        .collect();
    GeneralPurpose::new(&alphabet::STANDARD, LENIENT).decode(&text).ok()
}

/// Decodes base64, `at` that place of the file, and says what is wrong with it.
fn decode(body: &[u8], at: usize, label: &str, opened: &mut Opened) -> Vec<u8> {
    let text: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if let Ok(der) = general_purpose::STANDARD.decode(&text) {
        return der;
    }
    let odd = body.iter().position(|byte| {
        !byte.is_ascii_alphanumeric() && !byte.is_ascii_whitespace() && !b"+/=".contains(byte)
    });
    let kept: Vec<u8> =
        text.iter().copied().filter(|byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte)).collect();
    // One character too many cannot be decoded; the rest can.
    let whole = if kept.len() % 4 == 1 { &kept[..kept.len() - 1] } else { &kept[..] };
    let (what, place) = match odd {
        Some(odd) => {
            let character = char::from(body[odd]).escape_default().to_string();
            (format!("`{character}` is not a character of base64"), at + odd)
        }
        None => (format!("{} characters of base64 are not a whole number of bytes", text.len()), at),
    };
    opened.findings.push(
        Finding::error(
            code::FILE_BASE64,
            format!("the base64 of the {label} is damaged: {what}"),
            "The text between the lines of the frame was cut or changed on its way.",
            "Get the file again from where it came. --fix writes what can still be decoded.",
        )
        .with_at("found", what, file_place(place, 1)),
    );
    opened.mended.push("decoded as much of the base64 as there is".into());
    lenient(whole).unwrap_or_default()
}

/// Base64 or hexadecimal of an element, alone in a file.
fn unframed(bytes: &[u8]) -> Option<(Vec<u8>, &'static str)> {
    let text: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let holds = |der: &Vec<u8>| der.first() == Some(&0x30) || find_frame(der).is_some();
    if text.len() < 16 {
        return None;
    }
    let digits: Vec<u8> = text.iter().copied().filter(|byte| *byte != b':').collect();
    if digits.len().is_multiple_of(2) && digits.iter().all(u8::is_ascii_hexdigit) {
        let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or_default() as u8;
        let decoded: Vec<u8> = digits.chunks(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect();
        if holds(&decoded) {
            return Some((decoded, "hexadecimal"));
        }
    }
    let is_base64 = text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte));
    let decoded = is_base64.then(|| lenient(&text)).flatten().filter(holds)?;
    Some((decoded, "base64"))
}

/// The first bytes, in hexadecimal.
fn hex_of(bytes: &[u8]) -> String {
    enclasp_pki::hex(bytes.get(..bytes.len().min(4)).unwrap_or_default())
}

/// A place in the file rather than in its DER.
fn file_place(offset: usize, length: usize) -> Place {
    Place { offset, length, path: "the file's text".into() }
}

#[cfg(test)]
mod tests {
    use enclasp_pki::pem;

    use super::*;

    const DER: [u8; 20] = [0x30, 18, 4, 16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255];

    /// Whatever was done to the file, the same DER comes out, and what was done is said.
    #[test]
    fn what_is_inside_comes_out() {
        let good = pem::encode("X", &DER);
        let base64 = good.lines().nth(1).unwrap().to_owned();
        let utf16: Vec<u8> =
            [0xfeff_u16].into_iter().chain(good.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        let binary = [b"-----BEGIN X-----\n", &DER[..], b"\n-----END X-----\n"].concat();
        let damaged = |from: &str, to: &str| good.replace(from, to).into_bytes();
        let cases: [(Vec<u8>, Option<crate::Code>); 17] = [
            (DER.to_vec(), None),
            (good.clone().into_bytes(), None),
            ([b"subject=CN\n", &damaged("\n", "\r\n")[..]].concat(), None),
            (utf16, Some(code::FILE_TEXT)),
            ([&[0xef, 0xbb, 0xbf], good.as_bytes()].concat(), Some(code::FILE_TEXT)),
            (good.trim().replace('\n', "\\n").into_bytes(), Some(code::FILE_TEXT)),
            (binary, Some(code::FILE_BINARY_IN_FRAME)),
            (base64.clone().into_bytes(), Some(code::FILE_UNFRAMED)),
            (enclasp_pki::hex(&DER).into_bytes(), Some(code::FILE_UNFRAMED)),
            (pem::encode("X", good.as_bytes()).into_bytes(), Some(code::FILE_FRAMED_TWICE)),
            (damaged("-----BEGIN", "----BEGIN"), Some(code::FILE_FRAME_BROKEN)),
            (damaged("-----", "—"), Some(code::FILE_FRAME_BROKEN)),
            (damaged("-----END X-----\n", ""), Some(code::FILE_FRAME_BROKEN)),
            (damaged("END X", "END Y"), Some(code::FILE_FRAME_BROKEN)),
            (damaged("-----\nMB", "-----MB"), Some(code::FILE_FRAME_BROKEN)),
            (damaged("=", ""), Some(code::FILE_BASE64)),
            (damaged(&base64, &format!("{base64}!")), Some(code::FILE_BASE64)),
        ];
        for (bytes, code) in cases {
            let opened = open(&bytes);
            let shown = String::from_utf8_lossy(&bytes);
            assert_eq!(opened.blocks.len(), 1, "{shown}");
            assert_eq!(*opened.blocks[0].der, DER, "{shown}");
            assert_eq!(opened.findings.first().map(|finding| finding.code), code, "{shown}");
            assert_eq!(opened.mended.is_empty(), code.is_none(), "{shown}");
        }
    }

    #[test]
    fn headers_are_kept_apart() {
        let text =
            "-----BEGIN X-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMAA=\n-----END X-----\n";
        let opened = open(text.as_bytes());
        assert_eq!(opened.blocks[0].headers, ["Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,00"]);
        assert_eq!(*opened.blocks[0].der, [0x30, 0]);
    }
}
