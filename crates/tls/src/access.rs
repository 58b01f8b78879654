//! Who may connect: rules over the subject and the names of a verified certificate.

use std::fmt;

use enclasp_pki::{Certificate, SubjectAltName};

use crate::error::list;

/// Which peers are admitted, once their certificates have verified. Names match exactly, and one
/// that matches is enough. The default admits nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Admits every certificate that verifies.
    pub all: bool,
    /// Common names that are admitted.
    pub common_names: Vec<String>,
    /// Organizational units that are admitted; a subject may have several.
    pub organizational_units: Vec<String>,
    /// DNS names that are admitted, without regard to ASCII case.
    pub dns_names: Vec<String>,
    /// URIs (SPIFFE IDs, say) that are admitted.
    pub uris: Vec<String>,
}

impl Access {
    /// Admits every certificate that verifies.
    pub fn everyone() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Whether nobody can ever be admitted.
    pub fn is_nobody(&self) -> bool {
        *self == Self::default()
    }

    /// Decides about a certificate that has been verified already.
    ///
    /// # Errors
    /// Why it is not admitted: what it holds and what would have been accepted.
    pub fn check(&self, certificate: &Certificate) -> Result<(), String> {
        if self.all {
            return Ok(());
        }
        let names = certificate.subject_alt_names();
        let dns = names.iter().filter_map(|name| match name {
            SubjectAltName::Dns(dns) => Some(dns.to_ascii_lowercase()),
            _ => None,
        });
        let uris = names.iter().filter_map(|name| match name {
            SubjectAltName::Uri(uri) => Some(uri.clone()),
            _ => None,
        });
        let allowed_dns: Vec<_> = self.dns_names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let rules = [
            Rule {
                label: "CN",
                held: certificate.subject().common_name().into_iter().collect(),
                allowed: &self.common_names,
            },
            Rule {
                label: "OU",
                held: certificate.subject().organizational_units(),
                allowed: &self.organizational_units,
            },
            Rule { label: "DNS name", held: dns.collect(), allowed: &allowed_dns },
            Rule { label: "URI", held: uris.collect(), allowed: &self.uris },
        ];
        let rules = rules.into_iter().filter(|rule| !rule.allowed.is_empty());
        let mut reasons = Vec::new();
        for rule in rules {
            if rule.held.iter().any(|held| rule.allowed.contains(held)) {
                return Ok(());
            }
            reasons.push(rule.to_string());
        }
        Err(if reasons.is_empty() { "no rule admits anybody".to_owned() } else { reasons.join("; ") })
    }
}

/// One kind of name: what the certificate holds and what is allowed.
struct Rule<'a> {
    label: &'static str,
    held: Vec<String>,
    allowed: &'a [String],
}

impl fmt::Display for Rule<'_> {
    /// Says why it did not match.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, held, allowed } = self;
        match held.as_slice() {
            [] => write!(f, "it has no {label}; allowed are {}", list(allowed)),
            [_] => write!(f, "{label}={} is not among the allowed {label}s ({})", list(held), list(allowed)),
            _ => {
                write!(f, "none of {label}={} is among the allowed {label}s ({})", list(held), list(allowed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Authority;

    fn certificate() -> Certificate {
        Authority::new("Acme")
            .client("CN=laptop-18,OU=Ops,OU=Night", &["dns:Laptop-18.acme", "uri:spiffe://a/b"])
    }

    fn refusal(access: Access) -> String {
        access.check(&certificate()).unwrap_err()
    }

    #[test]
    fn refuses_and_says_what_would_have_been_accepted() {
        let some = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(refusal(Access::default()), "no rule admits anybody");
        assert_eq!(
            refusal(Access { common_names: some(&["laptop-17"]), ..Access::default() }),
            "CN=laptop-18 is not among the allowed CNs (laptop-17)"
        );
        assert_eq!(
            refusal(Access { organizational_units: some(&["Dev", "ops"]), ..Access::default() }),
            "none of OU=Ops, Night is among the allowed OUs (Dev, ops)"
        );
        assert_eq!(
            refusal(Access { dns_names: some(&["acme"]), uris: some(&["spiffe://a"]), ..Access::default() }),
            "DNS name=laptop-18.acme is not among the allowed DNS names (acme); \
             URI=spiffe://a/b is not among the allowed URIs (spiffe://a)"
        );
        let many = (0..9).map(|n| n.to_string()).collect();
        assert!(
            refusal(Access { common_names: many, ..Access::default() })
                .ends_with("(0, 1, 2, 3, 4 and 4 more)")
        );
    }

    #[test]
    fn one_match_is_enough() {
        let one = |name: &str| vec!["no".to_owned(), name.to_owned()];
        for access in [
            Access::everyone(),
            Access { common_names: one("laptop-18"), uris: one("x"), ..Access::default() },
            Access { organizational_units: one("Night"), ..Access::default() },
            Access { dns_names: one("laptop-18.ACME"), ..Access::default() },
            Access { uris: one("spiffe://a/b"), common_names: one("x"), ..Access::default() },
        ] {
            assert_eq!(access.check(&certificate()), Ok(()), "{access:?}");
        }
    }
}
