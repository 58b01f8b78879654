//! The same connection with two keys: where they part is where the fault is.

use enclasp_pki::Certificate;
use serde::Serialize;

use crate::wire::names::scheme_name;
use crate::{Code, Confidence, Finding, Report, code};

/// A connection that was made twice: with a key in hardware, and with a software key as the control.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// The version of TLS that alone was offered: `TLSv1.3`.
    pub version: String,
    /// The code point of the scheme that alone was allowed; `None` if each key chose for itself.
    #[serde(serialize_with = "named_scheme")]
    pub scheme: Option<u16>,
    /// What became of it with the key in hardware.
    pub hardware: Outcome,
    /// What became of it with the software key.
    pub software: Outcome,
}

/// What became of one connection.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The server took the certificate and the signature.
    Accepted {
        /// The code point that was signed with, if that could be seen.
        #[serde(serialize_with = "named_scheme")]
        scheme: Option<u16>,
    },
    /// It was refused, or the key did not sign.
    Refused {
        /// Why, as the doctor says it of a connection.
        finding: Box<Finding>,
    },
    /// It put the key to no test.
    Untried {
        /// Why not.
        reason: String,
    },
}

/// Two identities, and the connections that were made with each.
#[derive(Clone, Debug)]
pub struct Bisection {
    /// What is compared, and with which server.
    pub examined: String,
    /// The connections.
    pub trials: Vec<Trial>,
    /// What else is different about the two, as [`differences`] says it.
    pub differences: Vec<String>,
    /// Why the server that was asked about was not tried: no software identity exists that it would
    /// accept. Then the trials are with the doctor's own server.
    pub stand_in: Option<String>,
}

/// What is different about two certificates besides the key, a line for each thing.
pub fn differences(hardware: &Certificate, software: &Certificate) -> Vec<String> {
    let algorithm =
        |certificate: &Certificate| certificate.algorithm().map_or("unknown".into(), |a| a.to_string());
    let names = |certificate: &Certificate| {
        let mut names: Vec<String> =
            certificate.subject_alt_names().iter().map(ToString::to_string).collect();
        names.sort();
        names.join(", ")
    };
    let usages = |certificate: &Certificate| {
        let mut usages = certificate.extended_key_usages();
        usages.sort();
        usages.join(", ")
    };
    type Feature<'a> = (&'a str, &'a dyn Fn(&Certificate) -> String);
    let features: [Feature<'_>; 5] = [
        ("key type", &algorithm),
        ("issuer", &|certificate| certificate.issuer().to_string()),
        ("subject", &|certificate| certificate.subject().to_string()),
        ("alternative names", &names),
        ("extended key usages", &usages),
    ];
    let differing = features.iter().filter_map(|(what, of)| {
        let (hardware, software) = (of(hardware), of(software));
        let shown = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
        (hardware != software).then(|| format!("{what}: {} / {}", shown(&hardware), shown(&software)))
    });
    differing.collect()
}

/// Says whether the two keys part, and what that means.
pub fn examine_bisection(seen: &Bisection) -> Report {
    let mut findings = vec![verdict(seen)];
    if let Some(reason) = &seen.stand_in {
        findings.push(Finding::warning(
            code::BISECT_STAND_IN,
            "the keys were compared at the doctor's own server, not at the one that was named",
            format!("{reason}; that server would refuse any other certificate, whatever its key."),
            "Name an identity with a software key of the same authority with --control NAME or --p12 FILE, or have the \
             authority allow it: `bisect = true` in the profile.",
        ));
    }
    Report::new(&seen.examined, findings, Vec::new())
}

fn verdict(seen: &Bisection) -> Finding {
    let parted = seen.trials.iter().find_map(|trial| match (&trial.software, &trial.hardware) {
        (Outcome::Accepted { .. }, Outcome::Refused { finding }) => Some((trial, finding)),
        _ => None,
    });
    if let Some((trial, finding)) = parted {
        return with_differences(seen, the_key_is_it(trial, finding));
    }
    let refused = |outcome: &Outcome| match outcome {
        Outcome::Refused { finding } => Some(finding.clone()),
        _ => None,
    };
    let is_accepted = |outcome: &Outcome| matches!(outcome, Outcome::Accepted { .. });
    let reversed =
        seen.trials.iter().find(|trial| is_accepted(&trial.hardware) && refused(&trial.software).is_some());
    if let Some((trial, finding)) = reversed.and_then(|trial| Some((trial, refused(&trial.software)?))) {
        let finding = Finding::warning(
            code::BISECT_CONTROL,
            format!("the software key is refused where the key in hardware is accepted: {}", place(trial)),
            format!(
                "The control is not a good one, and says nothing about the key in hardware: {}.",
                finding.title
            ),
            finding.fix,
        );
        return with_differences(seen, finding);
    }
    if seen.trials.iter().any(|trial| is_accepted(&trial.hardware) && is_accepted(&trial.software)) {
        return Finding::note(
            code::BISECT_BOTH_PASS,
            "both keys are accepted",
            "The key in hardware is not what is wrong, if anything is.",
            "If a program fails with this key, compare its connection with these: `enclasp doctor listen` shows it.",
        );
    }
    let both = seen
        .trials
        .iter()
        .find_map(|trial| Some((trial, refused(&trial.hardware)?, refused(&trial.software)?)));
    match both {
        Some((trial, hardware, software)) => both_fail(trial, &hardware, &software),
        None => nothing_tested(seen),
    }
}

fn the_key_is_it(trial: &Trial, finding: &Finding) -> Finding {
    Finding::error(
        code::BISECT_KEY,
        format!("the software key is accepted and the key in hardware is not: {}", place(trial)),
        format!("{}: {}. {}", finding.code, finding.title, finding.why),
        finding.fix.clone(),
    )
}

/// Only the key may differ, if the key shall be the cause for certain.
fn with_differences(seen: &Bisection, finding: Finding) -> Finding {
    let certain = seen.differences.is_empty();
    let finding = seen.differences.iter().fold(finding, |finding, difference| {
        finding.with("also different (hardware / software)", difference)
    });
    finding.confidence(if certain { Confidence::Certain } else { Confidence::Likely })
}

fn both_fail(trial: &Trial, hardware: &Finding, software: &Finding) -> Finding {
    let alike = hardware.code == software.code;
    let (title, why) = if alike {
        (
            "both keys are refused alike: the key is not the cause",
            format!("{}. {}", hardware.title, hardware.why),
        )
    } else {
        (
            "both keys are refused, for different reasons",
            format!("The key in hardware: {}. The software key: {}.", hardware.title, software.title),
        )
    };
    let code: Code = if alike { code::BISECT_ALIKE } else { code::BISECT_BOTH_FAIL };
    Finding::error(code, format!("{title} ({})", place(trial)), why, hardware.fix.clone())
        .with("hardware", format!("{}: {}", hardware.code, hardware.title))
        .with("software", format!("{}: {}", software.code, software.title))
}

fn nothing_tested(seen: &Bisection) -> Finding {
    let reasons = seen.trials.iter().flat_map(|trial| {
        [("hardware", &trial.hardware), ("software", &trial.software)]
            .map(|(which, outcome)| (trial, which, outcome))
    });
    let finding = Finding::error(
        code::BISECT_NOTHING,
        "no connection put both keys to the test",
        "A comparison needs a server that asks for a client certificate, and a version and a scheme that both keys have.",
        "Turn client authentication on at the server; choose a control with a key of the same type.",
    );
    reasons.fold(finding, |finding, (trial, which, outcome)| {
        finding.with(format!("{}, {which}", place(trial)), outcome)
    })
}

/// `TLSv1.2 with rsa_pss_rsae_sha256`.
fn place(trial: &Trial) -> String {
    match trial.scheme {
        Some(scheme) => format!("{} with {}", trial.version, scheme_name(scheme)),
        None => trial.version.clone(),
    }
}

impl Trial {
    /// The name of the scheme that alone was allowed.
    pub fn scheme_name(&self) -> String {
        self.scheme.map_or_else(|| "its own choice".into(), scheme_name)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accepted { scheme: Some(scheme) } => write!(f, "accepted ({})", scheme_name(*scheme)),
            Self::Accepted { scheme: None } => f.write_str("accepted"),
            Self::Refused { finding } => write!(f, "refused: {}, {}", finding.code, finding.code.summary),
            Self::Untried { reason } => write!(f, "not tried: {reason}"),
        }
    }
}

fn named_scheme<S: serde::Serializer>(scheme: &Option<u16>, serializer: S) -> Result<S::Ok, S::Error> {
    scheme.map(scheme_name).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted() -> Outcome {
        Outcome::Accepted { scheme: Some(0x0403) }
    }

    fn refused(code: Code) -> Outcome {
        Outcome::Refused { finding: Box::new(Finding::error(code, "a title", "Why.", "Fix.")) }
    }

    fn untried() -> Outcome {
        Outcome::Untried { reason: "the server asks for no certificate".into() }
    }

    fn examined(trials: &[(Outcome, Outcome)], differences: &[&str]) -> Report {
        let trials = trials.iter().map(|(hardware, software)| Trial {
            version: "TLSv1.3".into(),
            scheme: None,
            hardware: hardware.clone(),
            software: software.clone(),
        });
        examine_bisection(&Bisection {
            examined: "test".into(),
            trials: trials.collect(),
            differences: differences.iter().map(|text| (*text).to_owned()).collect(),
            stand_in: None,
        })
    }

    #[test]
    fn where_they_part_is_named() {
        for (trials, code) in [
            (vec![(refused(code::KEY_WRONG_SIGNATURE), accepted())], code::BISECT_KEY),
            // One version is enough.
            (vec![(accepted(), accepted()), (refused(code::REFUSED_OTHER), accepted())], code::BISECT_KEY),
            (vec![(accepted(), refused(code::REFUSED_UNKNOWN_CA))], code::BISECT_CONTROL),
            (vec![(untried(), untried()), (accepted(), accepted())], code::BISECT_BOTH_PASS),
            (
                vec![(refused(code::REFUSED_UNKNOWN_CA), refused(code::REFUSED_UNKNOWN_CA))],
                code::BISECT_ALIKE,
            ),
            (
                vec![(refused(code::REFUSED_EXPIRED), refused(code::REFUSED_UNKNOWN_CA))],
                code::BISECT_BOTH_FAIL,
            ),
            (vec![(untried(), untried())], code::BISECT_NOTHING),
            (vec![(accepted(), untried())], code::BISECT_NOTHING),
        ] {
            let report = examined(&trials, &[]);
            assert_eq!(report.findings[0].code, code, "{report}");
        }
    }

    #[test]
    fn another_difference_makes_it_less_certain() {
        let trials = [(refused(code::REFUSED_OTHER), accepted())];
        assert_eq!(examined(&trials, &[]).findings[0].confidence, Confidence::Certain);
        let report = examined(&trials, &["key type: p256 / rsa"]);
        assert_eq!(report.findings[0].confidence, Confidence::Likely);
        assert!(report.to_string().contains("key type: p256 / rsa"), "{report}");
    }
}
