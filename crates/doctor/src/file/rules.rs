//! How DER writes values (X.690 §10 and §11, RFC 5280): each breach found, and mended.

use super::node::{
    BIT_STRING, BMP_STRING, BOOLEAN, Body, Form, GENERALIZED_TIME, IA5_STRING, INTEGER, NULL, Node, OID,
    PRINTABLE_STRING, SET, TELETEX_STRING, UNIVERSAL_STRING, UTC_TIME, UTF8_STRING, describe, with_article,
};
use super::sheet::Sheet;
use super::time;
use crate::{Code, Evidence, Finding, Place, Severity, code};

/// A kind of breach.
struct Rule {
    code: Code,
    severity: Severity,
    why: &'static str,
    fix: &'static str,
}

static LENGTH_FORM: Rule = Rule {
    code: code::FILE_LENGTH_FORM,
    severity: Severity::Error,
    why: "DER has one way to write a length, the shortest (X.690 §10.1). Signatures are over exact bytes, so most \
          programs refuse any other.",
    fix: "Write the lengths in the shortest form.",
};
static WHOLE_NUMBER: Rule = Rule {
    code: code::FILE_INTEGER,
    severity: Severity::Error,
    why: "An INTEGER has the fewest bytes that hold it (X.690 §8.3.2): no leading 00 unless the next bit is set, no \
          leading FF unless it is clear. Code that pads to a fixed width breaks this about one time in 240.",
    fix: "Leave out the leading bytes that carry nothing.",
};
static BITS: Rule = Rule {
    code: code::FILE_BIT_STRING,
    severity: Severity::Error,
    why: "A BIT STRING begins with a byte that counts the unused bits of its last byte: 00 for keys and signatures. \
          Code that wraps bytes by hand forgets it.",
    fix: "Put the byte 00 before the contents.",
};
static VALUE: Rule = Rule {
    code: code::FILE_VALUE,
    severity: Severity::Error,
    why: "DER writes TRUE as FF, FALSE as 00, NULL without contents, and each part of an OBJECT IDENTIFIER in the \
          fewest bytes (X.690 §8.2, §8.8, §8.19, §11.1).",
    fix: "Write the value as DER has it.",
};
static DEFAULT: Rule = Rule {
    code: code::FILE_DEFAULT,
    severity: Severity::Warning,
    why: "DER leaves out a value that is the default (X.690 §11.5). Many programs read it all the same, some refuse it.",
    fix: "Leave the element out.",
};
static BAD_STRING: Rule = Rule {
    code: code::FILE_STRING,
    severity: Severity::Error,
    why: "The bytes are not characters of the string type that they claim to be.",
    fix: "Encode the text as a UTF8String, in UTF-8.",
};
static OTHER_STRING: Rule = Rule {
    code: code::FILE_STRING,
    severity: Severity::Warning,
    why: "RFC 5280 (§4.1.2.4, appendix A.1) says which string type and length each attribute of a name has. Most programs \
          are lenient; some compare names byte for byte, and then the issuer's and the subject's do not match.",
    fix: "Use the type that RFC 5280 gives.",
};
static BAD_TIME: Rule = Rule {
    code: code::FILE_TIME,
    severity: Severity::Error,
    why: "A time is UTC to the second and ends with Z: UTCTime (YYMMDDHHMMSSZ) until 2049, GeneralizedTime \
          (YYYYMMDDHHMMSSZ) after (RFC 5280 §4.1.2.5).",
    fix: "Write the time in that form.",
};
static ORDER: Rule = Rule {
    code: code::FILE_SET_ORDER,
    severity: Severity::Warning,
    why: "DER sorts the members of a SET OF by their encoding (X.690 §11.6). Strict readers refuse another order.",
    fix: "Sort the members.",
};

/// Finds every breach below `root`, mends it where it is clear how, and adds what it found to `sheet`.
pub(super) fn check(root: &mut Node, sheet: &mut Sheet) {
    let mut breaches = Vec::new();
    root.walk_mut(&mut |node| check_node(node, &mut breaches));
    // Parents come before children in a walk, and a SET is in order only after what it holds is mended.
    root.walk_mut(&mut |node| check_order(node, &mut breaches));
    sheet.breaches(breaches);
}

/// One breach.
pub(super) struct Breach {
    rule: &'static Rule,
    found: String,
    expected: String,
    place: Place,
    mended: bool,
}

impl Sheet {
    /// A finding for each rule that was broken, with every place as evidence.
    fn breaches(&mut self, breaches: Vec<Breach>) {
        let mut left = breaches;
        if self.is_secret {
            left.iter_mut().for_each(|breach| breach.found = breach.rule.code.summary.to_owned());
        }
        while let Some(first) = left.first() {
            let rule = first.rule;
            let (same, others): (Vec<Breach>, Vec<Breach>) =
                left.into_iter().partition(|breach| std::ptr::eq(breach.rule, rule));
            left = others;
            self.findings.push(finding(rule, &same));
            if same.iter().any(|breach| breach.mended) {
                self.repairs.push(format!("mended: {}", rule.code.summary));
            }
        }
    }
}

/// Places beyond this are counted, not shown.
const MAX_SHOWN: usize = 5;

fn finding(rule: &Rule, breaches: &[Breach]) -> Finding {
    let title = match breaches {
        [only] => only.found.clone(),
        many => format!("{}, and {} more like it", many.first().map_or("", |b| &b.found), many.len() - 1),
    };
    let mut finding = Finding::error(rule.code, title, rule.why, rule.fix);
    finding.severity = rule.severity;
    for Breach { found, expected, place, .. } in breaches.iter().take(MAX_SHOWN) {
        let value = format!("{found}; expected {expected}");
        finding.evidence.push(Evidence { place: Some(place.clone()), ..Evidence::new("found", value) });
    }
    finding
}

fn check_node(node: &mut Node, breaches: &mut Vec<Breach>) {
    check_name_attribute(node, breaches);
    let place = node.place();
    let mut add = |rule: &'static Rule, found: String, expected: &str, mended: bool| {
        breaches.push(Breach { rule, found, expected: expected.to_owned(), place: place.clone(), mended });
    };
    match node.form {
        Form::Shortest => {}
        Form::Long => {
            add(&LENGTH_FORM, "a length takes more bytes than it needs".into(), "the shortest form", true)
        }
        Form::Indefinite => add(&LENGTH_FORM, "a length is indefinite".into(), "a definite length", true),
    }
    let tag = node.tag;
    let Body::Primitive(value) = &mut node.body else { return };
    match tag {
        INTEGER => match value[..] {
            [] => add(&WHOLE_NUMBER, "an INTEGER has no bytes".into(), "one byte at least", false),
            [0, ..0x80, ..] | [0xff, 0x80..=0xff, ..] => {
                let count = value.len();
                let redundant = |value: &[u8]| matches!(value, [0, ..0x80, ..] | [0xff, 0x80..=0xff, ..]);
                while redundant(value) {
                    value.remove(0);
                }
                let found = format!("an INTEGER has {count} bytes where {} hold it", value.len());
                add(&WHOLE_NUMBER, found, "the fewest bytes", true);
            }
            _ => {}
        },
        BIT_STRING => match value[..] {
            [] => {
                add(&BITS, "a BIT STRING has no bytes, not even the count of unused bits".into(), "00", false)
            }
            [unused @ 8..=0xff, ..] => {
                let found =
                    format!("a BIT STRING begins with 0x{unused:02x}, which is no count of unused bits");
                value.insert(0, 0);
                add(&BITS, found, "00, then the contents", true);
            }
            [unused @ 1..=7, .., last] if last.trailing_zeros() < u32::from(unused) => {
                let found = format!("the {unused} unused bits of a BIT STRING are not all zero");
                if let Some(last) = value.last_mut() {
                    *last &= 0xff << unused;
                }
                add(&BITS, found, "zeros", true);
            }
            _ => {}
        },
        BOOLEAN if value[..] != [0] && value[..] != [0xff] => {
            let found = format!("a BOOLEAN is 0x{}", enclasp_pki::hex(value.get(..4).unwrap_or(value)));
            let mended = value.len() == 1;
            if mended {
                *value = vec![0xff].into();
            }
            add(&VALUE, found, "FF or 00", mended);
        }
        BOOLEAN if value[..] == [0] && place.path.ends_with(".critical") => {
            add(&DEFAULT, "`critical` is FALSE, which is its default".into(), "nothing", false);
        }
        NULL if !value.is_empty() => {
            add(&VALUE, format!("a NULL has {} bytes", value.len()), "none", true);
            value.clear();
        }
        OID => {
            let cut = value.last().is_none_or(|last| last & 0x80 != 0);
            let starts = std::iter::once(&0).chain(value.iter()).zip(value.iter());
            let padded = starts.clone().any(|(before, this)| before & 0x80 == 0 && *this == 0x80);
            if cut {
                add(
                    &VALUE,
                    "an OBJECT IDENTIFIER ends in the middle of a number".into(),
                    "a whole number",
                    false,
                );
            } else if padded {
                add(&VALUE, "an OBJECT IDENTIFIER has a number with leading zeros".into(), "none", false);
            }
        }
        UTF8_STRING if std::str::from_utf8(value).is_err() => {
            let text: String = value.iter().map(|byte| char::from(*byte)).collect();
            let found = "a UTF8String is not UTF-8".into();
            *value = text.into_bytes().into();
            add(&BAD_STRING, found, "UTF-8; taken for Latin-1", true);
        }
        PRINTABLE_STRING if value.iter().any(|byte| !is_printable(*byte)) => {
            let odd = value.iter().find(|byte| !is_printable(**byte)).copied().unwrap_or_default();
            let found = format!("a PrintableString holds `{}`", char::from(odd).escape_default());
            let mended = std::str::from_utf8(value).is_ok();
            if mended {
                node.tag = UTF8_STRING;
            }
            let rule = if value.is_ascii() { &OTHER_STRING } else { &BAD_STRING };
            add(rule, found, "letters, digits, space and '()+,-./:=?; else a UTF8String", mended);
        }
        IA5_STRING if !value.is_ascii() => {
            add(&BAD_STRING, "an IA5String is not ASCII".into(), "ASCII", false);
        }
        BMP_STRING if !value.len().is_multiple_of(2) => {
            add(
                &BAD_STRING,
                "a BMPString has an odd number of bytes".into(),
                "two for each character",
                false,
            );
        }
        UTC_TIME | GENERALIZED_TIME => match time::read(node) {
            Err(reason) => add(&BAD_TIME, format!("a time cannot be read: {reason}"), "YYMMDDHHMMSSZ", false),
            Ok(time) => {
                if let Some(fault) = time.fault {
                    let (tag, text) = time.right;
                    add(&BAD_TIME, format!("a time is not written as it should be: {fault}"), &text, true);
                    *node = Node { tag, body: Body::primitive(text), ..node.clone() };
                }
            }
        },
        _ => {}
    }
}

fn check_order(node: &mut Node, breaches: &mut Vec<Breach>) {
    let is_set = node.tag == SET || (node.tag == 0xa0 && node.path.ends_with(".attributes"));
    let place = node.place();
    let Body::Constructed(children) = &mut node.body else { return };
    if is_set && !children.is_sorted_by_key(Node::encode) {
        children.sort_by_cached_key(Node::encode);
        let found = "the members of a SET OF are not in order".to_owned();
        breaches.push(Breach { rule: &ORDER, found, expected: "them sorted".into(), place, mended: true });
    }
}

fn is_printable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte)
}

/// The attribute types whose string type is fixed: OID, name, type, and how long it may be.
const ATTRIBUTES: [(&[u8], &str, Option<u8>, usize); 9] = [
    (&[0x55, 4, 6], "countryName", Some(PRINTABLE_STRING), 2),
    (&[0x55, 4, 5], "serialNumber", Some(PRINTABLE_STRING), 64),
    (&[0x55, 4, 46], "dnQualifier", Some(PRINTABLE_STRING), usize::MAX),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25],
        "domainComponent",
        Some(IA5_STRING),
        usize::MAX,
    ),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress", Some(IA5_STRING), 255),
    (&[0x55, 4, 3], "commonName", None, 64),
    (&[0x55, 4, 10], "organizationName", None, 64),
    (&[0x55, 4, 11], "organizationalUnitName", None, 64),
    (&[0x55, 4, 7], "localityName", None, 128),
];

/// An attribute of a name: is it of the string type that its attribute type has?
fn check_name_attribute(node: &mut Node, breaches: &mut Vec<Breach>) {
    let [oid, value] = node.children_mut() else { return };
    if oid.tag != OID || !value.path.ends_with(".value") {
        return;
    }
    let Some((_, name, wanted, longest)) = ATTRIBUTES.iter().find(|(bytes, ..)| *bytes == oid.value()) else {
        return;
    };
    let place = value.place();
    let found = with_article(&value.describe());
    let mut add = |found: String, expected: String, mended: bool| {
        breaches.push(Breach { rule: &OTHER_STRING, found, expected, place: place.clone(), mended });
    };
    match wanted {
        Some(wanted) if *wanted != value.tag => {
            let fits = match *wanted {
                PRINTABLE_STRING => value.value().iter().all(|byte| is_printable(*byte)),
                _ => value.value().is_ascii(),
            };
            let mended =
                fits && matches!(value.tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING | TELETEX_STRING);
            let expected = with_article(&describe(*wanted));
            add(format!("{name} is {found}, not {expected}"), expected, mended);
            if mended {
                value.tag = *wanted;
            }
        }
        None if matches!(value.tag, TELETEX_STRING | BMP_STRING | UNIVERSAL_STRING) => {
            let expected = "a UTF8String or PrintableString".to_owned();
            add(format!("{name} is {found}, which is no longer used"), expected, false);
        }
        None if !matches!(value.tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING) => {
            let expected = "a UTF8String or PrintableString".to_owned();
            add(format!("{name} is {found}, which is no string"), expected, false);
        }
        _ => {}
    }
    let length = std::str::from_utf8(value.value()).map_or(value.value().len(), |text| text.chars().count());
    if *name == "countryName" && length != 2 {
        add(format!("countryName has {length} characters"), "2: a country code, like CH".into(), false);
    } else if length > *longest {
        add(format!("{name} has {length} characters"), format!("{longest} at most"), false);
    } else if length == 0 {
        add(format!("{name} is empty"), "one character at least, or no such attribute".into(), false);
    }
}
