//! What is wrong with a key in a keystore.

use std::time::Duration;

use enclasp_keystore::{Device, Error, KeyInfo, Origin, Proof};

use crate::{Code, Confidence, Evidence, Finding, Report, code};

/// What was seen of a key.
#[derive(Clone, Debug)]
pub struct KeyObservation {
    /// The key's URI.
    pub key: String,
    /// What its keystore says of it, or why it cannot be opened.
    pub info: Result<KeyInfo, Error>,
    /// What came of trying every scheme that fits it; empty if it was not tried.
    pub proofs: Vec<Proof>,
    /// How long each of some more signatures with its natural scheme took.
    pub latencies: Vec<Duration>,
    /// What the device that holds it says of itself, before the key was tried.
    pub device: Option<Device>,
}

/// From here on a key is called slow: two handshakes a second at most.
const SLOW: Duration = Duration::from_millis(500);

/// Says what is wrong with a key, and what it can do.
pub fn examine_key(seen: &KeyObservation) -> Report {
    let works = seen.proofs.iter().any(|proof| proof.outcome.is_ok());
    let of_device = seen.device.as_ref().and_then(|device| tries(device, works));
    let mut findings: Vec<Finding> = of_device.into_iter().collect();
    let info = match &seen.info {
        Ok(info) => info,
        Err(error) => {
            findings.insert(0, refusal(error));
            return Report::new(&seen.key, findings, device_evidence(seen));
        }
    };
    let failures: Vec<(&Proof, &Error)> =
        seen.proofs.iter().filter_map(|proof| Some((proof, proof.outcome.as_ref().err()?))).collect();
    if !seen.proofs.is_empty() && failures.len() == seen.proofs.len() {
        // One reason is enough, unless they differ.
        for (index, (_, error)) in failures.iter().enumerate() {
            if failures[..index].iter().all(|(_, other)| !same_kind(error, other)) {
                findings.push(refusal(error));
            }
        }
        findings.push(Finding::error(
            code::KEY_PROVED_NOTHING,
            format!("`{}` signs with no scheme", seen.key),
            "Every scheme that fits its public key was tried, and none gave a signature that verifies.",
            "See the other findings; a key that cannot sign cannot be an identity.",
        ));
    } else {
        findings.extend(failures.iter().map(|(proof, error)| cannot(seen, proof, error)));
    }
    let slowest = seen.latencies.iter().max().filter(|slowest| **slowest > SLOW);
    if let Some(slowest) = slowest.filter(|_| !info.policy.prompts()) {
        findings.push(Finding::warning(
            code::KEY_SLOW,
            format!("`{}` takes up to {} to sign", seen.key, length(*slowest)),
            "Every full handshake waits for one signature, and the key makes one at a time.",
            "Keep connections open and let sessions resume; choose an EC key rather than RSA; look whether \
             something else keeps the device busy.",
        ));
    }
    Report::new(&seen.key, findings, evidence(info, seen))
}

/// What the device says of wrong PINs, if that is a reason to take care. A key that has no PIN works all the same.
fn tries(device: &Device, works: bool) -> Option<Finding> {
    let title = format!("{}: {}", device.name, device.tries);
    let why = "The device counts wrong PINs, and takes none now.";
    let fix = "Wait if it recovers by itself; otherwise its administrator has to unlock it.";
    match device.tries_left? {
        0 if works => Some(Finding::warning(code::KEY_LOCKED, title, why, fix)),
        0 => Some(Finding::error(code::KEY_LOCKED, title, why, fix)),
        1 => Some(Finding::warning(
            code::KEY_LAST_TRY,
            title,
            "One more wrong PIN locks the device, for all of its keys.",
            "Look for a program with a wrong PIN before you try again; a right PIN sets a token's counter back.",
        )),
        _ => None,
    }
}

fn device_evidence(seen: &KeyObservation) -> Vec<Evidence> {
    let Some(device) = &seen.device else { return Vec::new() };
    vec![
        Evidence::new("device", &device.name),
        Evidence::new("wrong PINs", &device.tries),
        Evidence::new("attestation", &device.attestation),
    ]
}

fn evidence(info: &KeyInfo, seen: &KeyObservation) -> Vec<Evidence> {
    let mut evidence = device_evidence(seen);
    evidence.extend([
        Evidence::new("algorithm", info.algorithm),
        Evidence::new("presence", info.policy.presence),
        Evidence::new("PIN of its own", if info.policy.pin { "yes" } else { "no" }),
        Evidence::new(
            "origin",
            match info.origin {
                Origin::Generated => "made in its keystore",
                Origin::Imported => "not vouched for by its keystore: copies may exist",
            },
        ),
    ]);
    for Proof { scheme, outcome, elapsed } in &seen.proofs {
        let outcome = match outcome {
            Ok(()) => format!("proved in {}", length(*elapsed)),
            Err(error) => format!("failed: {error}"),
        };
        evidence.push(Evidence::new(scheme.name(), outcome));
    }
    let mut sorted = seen.latencies.clone();
    sorted.sort_unstable();
    if let [fastest, .., slowest] = sorted[..] {
        // The smallest time that so many of a hundred signatures keep to.
        let percentile = |percent: usize| length(sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]);
        let text = format!(
            "{} signatures: {} at least, {} in the middle, {} for nine of ten, {} at most",
            sorted.len(),
            length(fastest),
            percentile(50),
            percentile(90),
            length(slowest)
        );
        evidence.push(Evidence::new("latency", text));
    }
    evidence
}

/// A scheme that fits the key and does not work, while another does.
fn cannot(seen: &KeyObservation, proof: &Proof, error: &Error) -> Finding {
    if matches!(error, Error::WrongSignature { .. }) {
        return refusal(error);
    }
    Finding::note(
        code::KEY_SCHEME_MISSING,
        format!("`{}` cannot sign with {}", seen.key, proof.scheme),
        "The scheme fits the public key, and the keystore does not offer it. It is never used.",
        "Nothing, unless a peer offers this scheme alone: let it offer another.",
    )
    .with("answer", error)
}

/// What the keystore's error means.
pub(crate) fn refusal(error: &Error) -> Finding {
    let (code, why): (Code, &str) = match error {
        Error::Absent { .. } => (code::KEY_ABSENT, "The keystore answers, and has no key of that name."),
        Error::Unavailable { .. }
        | Error::Storage { .. }
        | Error::OpenFolder { .. }
        | Error::Protection { .. } => {
            (code::KEYSTORE_UNREACHABLE, "Nothing can be said of the key before its keystore answers.")
        }
        Error::Locked { .. } => (
            code::KEY_LOCKED,
            "The device counts wrong PINs, and refuses for a while or until it is unlocked.",
        ),
        Error::Denied { .. } | Error::WrongPin { .. } | Error::Deadline { .. } => (
            code::KEY_DENIED,
            "The key asks for a PIN or a person before it signs, and did not get what it asked for.",
        ),
        Error::WrongSignature { .. } => (
            code::KEY_WRONG_SIGNATURE,
            "The private key that signed is not the half of the public key beside it, or the device computes wrongly. \
             A peer would answer decrypt_error.",
        ),
        _ => (code::KEY_FAILED, "The keystore's own words are in the title."),
    };
    let fix = behind_the_agent(error).or_else(|| error.hint());
    let fix = fix.unwrap_or_else(|| "See the keystore's own log.".into());
    let finding = Finding::error(code, error.to_string(), why, fix);
    if code == code::KEY_FAILED { finding.confidence(Confidence::Unknown) } else { finding }
}

/// What to do about the device that an agent could not reach, which kept it from starting.
fn behind_the_agent(error: &Error) -> Option<String> {
    let Error::Unavailable { reason, .. } = error else { return None };
    let (_, device) = reason.split_once("the agent did not start: cannot reach the keystore at ")?;
    let (at, reason) = device.split_once(": ")?;
    Error::Unavailable { at: at.to_owned(), reason: reason.to_owned() }.hint()
}

fn same_kind(one: &Error, other: &Error) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

fn length(duration: Duration) -> String {
    match duration.as_micros() {
        micros @ ..10_000 => format!("{micros} µs"),
        micros => format!("{} ms", micros / 1000),
    }
}

#[cfg(test)]
mod tests {
    use enclasp_keystore::Scheme;

    use super::*;
    use crate::Severity;

    #[test]
    fn a_locked_device_is_an_error_for_keys_that_need_it() {
        let device = |tries_left| Device {
            name: "a TPM".into(),
            tries_left,
            tries: "3 of 3".into(),
            attestation: "none".into(),
        };
        for (tries_left, works, expected) in [
            (Some(0), false, Some((code::KEY_LOCKED, Severity::Error))),
            (Some(0), true, Some((code::KEY_LOCKED, Severity::Warning))),
            (Some(1), true, Some((code::KEY_LAST_TRY, Severity::Warning))),
            (Some(2), false, None),
            (None, false, None),
        ] {
            let found = tries(&device(tries_left), works);
            assert_eq!(found.map(|finding| (finding.code, finding.severity)), expected, "{tries_left:?}");
        }
    }

    #[test]
    fn what_keeps_an_agent_from_starting_is_what_to_mend() {
        let nested = "the agent did not start: cannot reach the keystore at tpm:tcti=device:/dev/tpmrm0: no";
        let error = Error::Unavailable { at: "/run/tpm.sock".into(), reason: nested.into() };
        assert!(refusal(&error).fix.contains("group `tss`"));
    }

    #[test]
    fn each_refusal_has_its_code() {
        let key = || "tpm:name=web".to_owned();
        let operation = || "sign with".to_owned();
        let cases = [
            (Error::Absent { key: key() }, code::KEY_ABSENT),
            (Error::Unavailable { at: key(), reason: String::new() }, code::KEYSTORE_UNREACHABLE),
            (Error::Locked { key: key(), operation: operation(), reason: String::new() }, code::KEY_LOCKED),
            (Error::WrongPin { key: key(), operation: operation(), reason: String::new() }, code::KEY_DENIED),
            (Error::WrongSignature { key: key(), scheme: Scheme::Ed25519 }, code::KEY_WRONG_SIGNATURE),
            (Error::Protocol { reason: String::new() }, code::KEY_FAILED),
        ];
        for (error, code) in cases {
            let seen = KeyObservation {
                key: key(),
                info: Err(error),
                proofs: Vec::new(),
                latencies: Vec::new(),
                device: None,
            };
            let report = examine_key(&seen);
            assert_eq!(report.verdict().map(|finding| finding.code), Some(code));
        }
    }
}
