//! A report: the verdict first, then what it rests on.

use std::fmt;

use serde::Serialize;

use crate::{Evidence, Finding, Severity};

/// What came of looking at one thing. The names of the JSON fields are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was looked at: `connection 1 from 192.0.2.7:51034`, `web.csr`.
    pub examined: String,
    /// What was found, the worst and surest first: the first one is the verdict.
    pub findings: Vec<Finding>,
    /// What was seen besides.
    pub evidence: Vec<Evidence>,
}

impl Report {
    /// Orders the findings: the worst first, and among equals the surest, else as they came.
    pub fn new(examined: impl Into<String>, mut findings: Vec<Finding>, evidence: Vec<Evidence>) -> Self {
        findings.sort_by_key(|finding| (finding.severity, finding.confidence));
        Self { examined: examined.into(), findings, evidence }
    }

    /// The first finding, if it says that something is wrong.
    pub fn verdict(&self) -> Option<&Finding> {
        self.findings.first().filter(|finding| finding.severity == Severity::Error)
    }
}

impl fmt::Display for Report {
    /// Plain text: a verdict in a line, each finding, the evidence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.verdict() {
            Some(verdict) => writeln!(f, "{}: {}", self.examined, verdict.title)?,
            None => writeln!(f, "{}: nothing is wrong", self.examined)?,
        }
        for finding in &self.findings {
            write_finding(f, finding)?;
        }
        if !self.evidence.is_empty() {
            writeln!(f, "\nseen:")?;
        }
        for evidence in &self.evidence {
            writeln!(f, "  {evidence}")?;
        }
        Ok(())
    }
}

fn write_finding(f: &mut fmt::Formatter<'_>, finding: &Finding) -> fmt::Result {
    let Finding { code, severity, title, why, fix, confidence, evidence } = finding;
    writeln!(f, "\n{severity} {code}: {title}")?;
    writeln!(f, "  why         {why}")?;
    writeln!(f, "  fix         {fix}")?;
    writeln!(f, "  confidence  {confidence}")?;
    for evidence in evidence {
        writeln!(f, "  seen        {evidence}")?;
    }
    Ok(())
}
