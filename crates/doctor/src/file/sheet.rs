//! What is being found out about one file, and what every structure's outlines say.

use super::node::{Broken, SEQUENCE, describe, with_article};
use super::shape::{Misfit, Reading, Unreadable, WrongLength};
use crate::{Confidence, Evidence, Finding, Place, code};

#[derive(Default)]
pub(super) struct Sheet {
    pub(super) findings: Vec<Finding>,
    pub(super) evidence: Vec<Evidence>,
    /// What was mended, for a person.
    pub(super) repairs: Vec<String>,
    /// Whether what is looked at is a secret, of which nothing may be shown.
    pub(super) is_secret: bool,
}

impl Sheet {
    /// What is wrong with the outlines of a structure that was read.
    pub(super) fn outlines(&mut self, reading: &Reading) {
        if !reading.lengths.is_empty() {
            self.findings.push(wrong_lengths(&reading.lengths));
            self.repairs.push("wrote the lengths that add up".into());
        }
        self.findings.extend(reading.misfits.iter().map(misfit));
        if reading.trailing > 0 {
            let end = reading.root.offset + reading.root.size;
            let count = reading.trailing;
            self.findings.push(
                Finding::error(
                    code::FILE_TRAILING,
                    format!("{count} byte{} follow its end", if count == 1 { "" } else { "s" }),
                    "The outermost length says where it ends, and there is more in the file: a buffer that was written to \
                     its capacity rather than to its length, a line break, or a second object.",
                    "Cut the file at its end.",
                )
                .with_at("end", format!("{end} bytes"), Place { offset: end, length: count, path: String::new() }),
            );
            self.repairs.push("cut off what follows its end".into());
        }
    }

    /// What can be said of a structure that cannot be made out.
    pub(super) fn unreadable(&mut self, der: &[u8], unreadable: &Unreadable) {
        let Unreadable { broken, furthest } = unreadable;
        let ran_out = furthest.as_ref().is_none_or(|misfit| misfit.found.is_none());
        let finding = match broken {
            _ if der.first() != Some(&SEQUENCE) => {
                let first = der.first().map_or("nothing".into(), |tag| describe(*tag));
                let begins = enclasp_pki::hex(der.get(..8).unwrap_or(der));
                let begins = if self.is_secret { "not shown".into() } else { begins };
                Finding::error(
                    code::FILE_UNKNOWN,
                    format!("it is not DER of any kind that is known: it begins with {first}"),
                    "Requests, certificates, keys and the like all begin with a SEQUENCE (0x30).",
                    "Check that it is the right file, and not encrypted, compressed or an error page.",
                )
                .confidence(Confidence::Unknown)
                .with_at("begins", begins, Place {
                    offset: 0,
                    length: der.len().min(8),
                    path: String::new(),
                })
            }
            Broken::Overrun { offset: 0, stated, present } if ran_out => Finding::error(
                code::FILE_CUT_SHORT,
                format!("it is cut short: its length says {stated} bytes, {present} are there"),
                "The outermost length covers the whole. A copy or a download stopped early, or a buffer was too small.",
                "Get the whole file. What is missing cannot be made up.",
            )
            .with_at("found", format!("{present} bytes; expected {stated}"), Place {
                offset: 0,
                length: der.len(),
                path: String::new(),
            }),
            _ => stops_making_sense(broken, furthest.as_ref()),
        };
        self.findings.push(finding);
    }
}

fn stops_making_sense(broken: &Broken, furthest: Option<&Misfit>) -> Finding {
    let (offset, reason) = match broken {
        Broken::Header { offset } => (*offset, "an element begins where the bytes end".to_owned()),
        Broken::Overrun { offset, stated, present } => {
            (*offset, format!("a length says {stated} bytes where {present} are left"))
        }
        Broken::Strange { offset } => {
            (*offset, "an element has a tag or length that nothing here has".to_owned())
        }
        Broken::Deep { offset } => (*offset, "elements are nested deeper than anything here is".to_owned()),
    };
    let (title, place) = match furthest {
        Some(Misfit { place, expected, found }) => {
            let found = found.map_or("the end".into(), describe);
            let expected = expected.as_deref().unwrap_or("the end");
            (
                format!(
                    "its structure stops making sense at `{}`: expected {expected}, found {found}",
                    place.path
                ),
                place.clone(),
            )
        }
        None => (
            format!("its structure makes no sense: {reason}"),
            Place { offset, length: 0, path: String::new() },
        ),
    };
    Finding::error(
        code::FILE_WRONG_LENGTH,
        title.clone(),
        "A length before this place is wrong, or bytes were lost or changed. It was read by its lengths and by its tags, and \
         neither leads to an end.",
        "Make it again, with a library rather than by hand.",
    )
    .confidence(Confidence::Likely)
    .with_at("by tags", title, place)
    .with_at("by lengths", reason, Place { offset, length: 0, path: String::new() })
}

fn wrong_lengths(lengths: &[WrongLength]) -> Finding {
    let shown = |length: &WrongLength| {
        let name = if length.place.path.is_empty() { "the outermost element" } else { &length.place.path };
        format!("`{name}` says {} bytes and has {}", length.stated, length.actual)
    };
    let title = lengths
        .first()
        .map_or_else(String::new, |first| format!("a length does not add up: {}", shown(first)));
    let mut finding = Finding::error(
        code::FILE_WRONG_LENGTH,
        title,
        "Each length has to cover exactly what is inside. DER assembled by hand goes wrong where a length is fixed in code, \
         counts characters instead of bytes, or forgets that 128 bytes and more take a longer length.",
        "Write the lengths that the contents have.",
    );
    for length in lengths {
        finding = finding.with_at("length", shown(length), length.place.clone());
    }
    finding
}

fn misfit(misfit: &Misfit) -> Finding {
    let Misfit { place, expected, found } = misfit;
    let path = &place.path;
    let (code, title, why, fix) = match (expected, found) {
        (Some(expected), Some(found)) => (
            code::FILE_WRONG_ELEMENT,
            format!(
                "`{path}` is {}, where {} is due",
                with_article(&describe(*found)),
                with_article(expected)
            ),
            "The standard says which element comes here, and readers stop at another one.",
            "Write the element that is due.",
        ),
        (Some(expected), None) => (
            code::FILE_MISSING_ELEMENT,
            format!("`{path}` is missing: {}", with_article(expected)),
            "The standard demands this element.",
            "Add it.",
        ),
        (None, found) => (
            code::FILE_EXTRA_ELEMENT,
            format!(
                "`{path}` should not be there: {}",
                with_article(&found.map_or("element".into(), describe))
            ),
            "The standard has no element in this place.",
            "Leave it out.",
        ),
    };
    let found = found.map_or("nothing".into(), describe);
    let expected = expected.as_deref().unwrap_or("nothing");
    Finding::error(code, title, why, fix).with_at(
        "found",
        format!("{found}; expected {expected}"),
        place.clone(),
    )
}
