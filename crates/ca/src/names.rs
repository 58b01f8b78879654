//! Whether a request asks for names that its sender may have.

use enclasp_pki::{Certificate, CertificationRequest, DistinguishedName, SubjectAltName};

/// Checks a request that a token pays for. It may ask for the token's names or for fewer, down to
/// an empty subject and no alternative names, and gets all of the token's in any case; one name
/// that is not the token's is one too many.
///
/// # Errors
/// One line that names the name.
pub(crate) fn within_token(
    request: &CertificationRequest,
    subject: &DistinguishedName,
    subject_alt_names: &[SubjectAltName],
) -> Result<(), String> {
    if !request.subject().is_empty() && !same_subject(request.subject(), subject) {
        return Err(format!("the request is for {}, and the token for {subject}", request.subject()));
    }
    match request.subject_alt_names().iter().find(|name| !subject_alt_names.contains(name)) {
        None => Ok(()),
        Some(name) => {
            Err(format!("the request is for {name}, and the token for {}", list(subject_alt_names)))
        }
    }
}

/// Checks a request to renew `old`: subject and alternative names have to stay the same (RFC 7030
/// §4.2.2).
///
/// # Errors
/// One line that names the difference.
pub(crate) fn same_as(request: &CertificationRequest, old: &Certificate) -> Result<(), String> {
    if !same_subject(request.subject(), old.subject()) {
        return Err(format!(
            "the request is for {}, and the certificate for {}",
            request.subject(),
            old.subject()
        ));
    }
    let sorted = |names: &[SubjectAltName]| {
        let mut names = names.to_vec();
        names.sort();
        names.dedup();
        names
    };
    let (asked, held) = (sorted(request.subject_alt_names()), sorted(old.subject_alt_names()));
    if asked == held {
        Ok(())
    } else {
        Err(format!("the request is for {}, and the certificate for {}", list(&asked), list(&held)))
    }
}

/// As text, so that it does not matter which of ASN.1's string types a client used.
fn same_subject(a: &DistinguishedName, b: &DistinguishedName) -> bool {
    a.to_string() == b.to_string()
}

fn list(names: &[SubjectAltName]) -> String {
    const SHOWN: usize = 5;
    let mut shown: Vec<_> = names.iter().take(SHOWN).map(ToString::to_string).collect();
    match names.len() {
        0 => return "no alternative names".into(),
        n if n > SHOWN => shown.push(format!("{} more", n - SHOWN)),
        _ => {}
    }
    shown.join(", ")
}
