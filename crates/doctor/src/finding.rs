//! A finding: what is wrong, why, what to do, how sure that is, and what it rests on.

use std::fmt;

use serde::Serialize;

use crate::Code;

/// One thing that was found. The names of the JSON fields are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its stable code.
    pub code: Code,
    /// Whether something is wrong.
    pub severity: Severity,
    /// What is wrong, in a line without a full stop.
    pub title: String,
    /// Why, in sentences.
    pub why: String,
    /// What to do, in sentences.
    pub fix: String,
    /// How sure this is.
    pub confidence: Confidence,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
}

/// Whether something is wrong. The worst comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Something is wrong; the command's exit code is 1.
    Error,
    /// It works, and somebody else may refuse it, or soon will.
    Warning,
    /// Worth knowing.
    Note,
}

/// How sure a finding is. The surest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// The bytes say so: nothing else explains them.
    Certain,
    /// The usual cause of what was seen.
    Likely,
    /// One of several causes.
    Possible,
    /// What was seen is not understood.
    Unknown,
}

/// Something that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// What it is, in a few words: `scheme`, `alert`, `expected`.
    pub what: String,
    /// What was seen.
    pub value: String,
    /// Where, in a file or message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

/// Where in some bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// From the first byte of the DER or of the message.
    pub offset: usize,
    /// How many bytes.
    pub length: usize,
    /// In ASN.1 terms: `certificationRequestInfo.subjectPKInfo.algorithm`; empty where there is no
    /// such path.
    pub path: String,
}

impl Finding {
    /// Something is wrong, for certain.
    pub fn error(
        code: Code,
        title: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            code,
            severity: Severity::Error,
            title: title.into(),
            why: why.into(),
            fix: fix.into(),
            confidence: Confidence::Certain,
            evidence: Vec::new(),
        }
    }

    /// Something that works, and that somebody else may refuse.
    pub fn warning(
        code: Code,
        title: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, title, why, fix) }
    }

    /// Something worth knowing.
    pub fn note(
        code: Code,
        title: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Note, ..Self::error(code, title, why, fix) }
    }

    /// The same with that confidence.
    #[must_use]
    pub fn confidence(mut self, confidence: Confidence) -> Self {
        self.confidence = confidence;
        self
    }

    /// The same with something more that it rests on.
    #[must_use]
    pub fn with(mut self, what: impl Into<String>, value: impl fmt::Display) -> Self {
        self.evidence.push(Evidence::new(what, value));
        self
    }

    /// The same with something that was seen at a place.
    #[must_use]
    pub fn with_at(mut self, what: impl Into<String>, value: impl fmt::Display, place: Place) -> Self {
        self.evidence.push(Evidence { place: Some(place), ..Evidence::new(what, value) });
        self
    }
}

impl Evidence {
    /// Something that was seen, nowhere in particular.
    pub fn new(what: impl Into<String>, value: impl fmt::Display) -> Self {
        Self { what: what.into(), value: value.to_string(), place: None }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certain => "certain: the bytes say so",
            Self::Likely => "likely: the usual cause of this",
            Self::Possible => "possible: one of several causes",
            Self::Unknown => "unknown: this is not understood",
        })
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.value)?;
        match &self.place {
            Some(Place { offset, path, .. }) if path.is_empty() => write!(f, " (at byte {offset})"),
            Some(Place { offset, path, .. }) => write!(f, " (at byte {offset}, {path})"),
            None => Ok(()),
        }
    }
}
