//! Who may connect: rules over what a verified certificate holds.

mod pattern;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use enclasp_pki::{Certificate, SubjectAltName, hex, sha256};

use crate::Error;
use crate::error::list;
pub use pattern::UriPattern;

/// Which peers are admitted, once their certificates have verified. One rule that holds is enough.
/// The default admits nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    everyone: bool,
    rules: Vec<Rule>,
}

impl Access {
    /// Admits every certificate that verifies.
    pub fn everyone() -> Self {
        Self { everyone: true, rules: Vec::new() }
    }

    /// Admits those for whom one of `rules` holds.
    pub fn any_of(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self { everyone: false, rules: rules.into_iter().collect() }
    }

    /// Whether nobody can ever be admitted.
    pub fn is_nobody(&self) -> bool {
        !self.everyone && self.rules.is_empty()
    }

    /// Decides about a certificate that has been verified already.
    ///
    /// # Errors
    /// Why it is not admitted: what it holds and what would have been accepted.
    pub fn check(&self, certificate: &Certificate) -> Result<(), String> {
        if self.everyone || self.rules.iter().any(|rule| rule.holds(certificate)) {
            return Ok(());
        }
        if self.rules.is_empty() {
            return Err("no rule admits anybody".to_owned());
        }
        let alone = Kind::ALL.into_iter().filter_map(|kind| self.mismatch(kind, certificate));
        let combined = self.rules.iter().filter(|rule| rule.0.len() > 1).map(|rule| {
            let failed = rule.0.iter().filter(|term| !term.holds(certificate)).map(|term| term.kind());
            let held: Vec<_> = failed.map(|kind| kind.described(certificate)).collect();
            format!("`{rule}` does not hold: {}", held.join(", "))
        });
        Err(alone.chain(combined).collect::<Vec<_>>().join("; "))
    }

    /// The same for `peer`, as the error of its connection.
    pub(crate) fn admit(&self, certificate: &Certificate, peer: &str) -> crate::Result<()> {
        self.check(certificate).map_err(|reason| Error::NotAdmitted {
            peer: peer.to_owned(),
            subject: certificate.subject().to_string(),
            rule: self.to_string(),
            reason,
        })
    }

    /// Why no rule of one term of this kind holds, if there are any.
    fn mismatch(&self, kind: Kind, certificate: &Certificate) -> Option<String> {
        let allowed: Vec<String> = self
            .rules
            .iter()
            .filter_map(|rule| match rule.0.as_slice() {
                [term] if term.kind() == kind => Some(term.value()),
                _ => None,
            })
            .collect();
        if allowed.is_empty() {
            return None;
        }
        let (label, held, allowed) = (kind.label(), kind.held(certificate), list(&allowed));
        Some(match held.as_slice() {
            [] => format!("it has no {label}; allowed are {allowed}"),
            [_] => format!("{label}={} is not among the allowed {} ({allowed})", list(&held), kind.plural()),
            _ => {
                format!("none of {label}={} is among the allowed {} ({allowed})", list(&held), kind.plural())
            }
        })
    }
}

impl fmt::Display for Access {
    /// `cn=laptop-17 or cn=web and ou=Ops`; `everyone`; `nobody`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.everyone, self.rules.as_slice()) {
            (true, _) => f.write_str("everyone"),
            (false, []) => f.write_str("nobody"),
            (false, rules) => joined(f, rules, " or "),
        }
    }
}

/// Terms that all have to hold. Its text is `cn=web and ou=Ops`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule(Vec<Term>);

impl Rule {
    fn holds(&self, certificate: &Certificate) -> bool {
        self.0.iter().all(|term| term.holds(certificate))
    }
}

impl From<Term> for Rule {
    fn from(term: Term) -> Self {
        Self(vec![term])
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Otherwise it would be part of the last value.
        if text.trim_end().ends_with(" and") {
            return Err(format!("`{text}` says `and`, and not what"));
        }
        text.split(" and ").map(|term| term.trim().parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        joined(f, &self.0, " and ")
    }
}

/// One thing that a certificate has to hold. Its text is `cn=web`, `uri=spiffe://acme/**`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// The subject's common name, exactly.
    CommonName(String),
    /// One of the subject's organizational units, exactly.
    OrganizationalUnit(String),
    /// A DNS name, without regard to ASCII case.
    DnsName(String),
    /// A URI that matches (a SPIFFE ID, say).
    Uri(UriPattern),
    /// An IP address among its names; not where the peer connects from.
    Ip(IpAddr),
    /// The SHA-256 of its SubjectPublicKeyInfo: this one key, whatever it is called.
    SpkiPin([u8; 32]),
}

impl Term {
    /// Reads a pin: 64 hexadecimal digits or base64, `sha256:`, `sha256/` or nothing before them.
    ///
    /// # Errors
    /// A line that says what a pin looks like.
    pub fn spki_pin(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("sha256:").or(text.strip_prefix("sha256/")).unwrap_or(text);
        let bytes = STANDARD.decode(digits).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.or_else(|| from_hex(digits)).map(Self::SpkiPin).ok_or_else(|| {
            format!("`{text}` is not a pin: the SHA-256 of a public key (SubjectPublicKeyInfo), in hexadecimal or base64")
        })
    }

    fn kind(&self) -> Kind {
        match self {
            Self::CommonName(_) => Kind::CommonName,
            Self::OrganizationalUnit(_) => Kind::OrganizationalUnit,
            Self::DnsName(_) => Kind::DnsName,
            Self::Uri(_) => Kind::Uri,
            Self::Ip(_) => Kind::Ip,
            Self::SpkiPin(_) => Kind::SpkiPin,
        }
    }

    fn value(&self) -> String {
        match self {
            Self::CommonName(name) | Self::OrganizationalUnit(name) | Self::DnsName(name) => name.clone(),
            Self::Uri(pattern) => pattern.to_string(),
            Self::Ip(address) => address.to_string(),
            Self::SpkiPin(pin) => hex(pin),
        }
    }

    fn holds(&self, certificate: &Certificate) -> bool {
        let named = |fits: &dyn Fn(&SubjectAltName) -> bool| certificate.subject_alt_names().iter().any(fits);
        match self {
            Self::CommonName(name) => certificate.subject().common_name().as_ref() == Some(name),
            Self::OrganizationalUnit(unit) => certificate.subject().organizational_units().contains(unit),
            Self::DnsName(name) => {
                named(&|held| matches!(held, SubjectAltName::Dns(held) if held.eq_ignore_ascii_case(name)))
            }
            Self::Uri(pattern) => {
                named(&|held| matches!(held, SubjectAltName::Uri(held) if pattern.matches(held)))
            }
            Self::Ip(address) => named(&|held| matches!(held, SubjectAltName::Ip(held) if held == address)),
            Self::SpkiPin(pin) => sha256(certificate.spki()) == *pin,
        }
    }
}

impl FromStr for Term {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error =
            || format!("`{text}` is not a rule: write cn=, ou=, dns=, uri=, ip= or spki= and a value");
        let (kind, value) = text.split_once('=').filter(|(_, value)| !value.is_empty()).ok_or_else(error)?;
        Ok(match kind.to_ascii_lowercase().as_str() {
            "cn" => Self::CommonName(value.into()),
            "ou" => Self::OrganizationalUnit(value.into()),
            "dns" => Self::DnsName(value.into()),
            "uri" => Self::Uri(value.parse()?),
            "ip" => Self::Ip(value.parse().map_err(|_| format!("`{value}` is not an IP address"))?),
            "spki" => Self::spki_pin(value)?,
            _ => return Err(error()),
        })
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind().name(), self.value())
    }
}

/// What a term is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    CommonName,
    OrganizationalUnit,
    DnsName,
    Uri,
    Ip,
    SpkiPin,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::CommonName, Self::OrganizationalUnit, Self::DnsName, Self::Uri, Self::Ip, Self::SpkiPin];

    /// As it is written in a rule.
    fn name(self) -> &'static str {
        match self {
            Self::CommonName => "cn",
            Self::OrganizationalUnit => "ou",
            Self::DnsName => "dns",
            Self::Uri => "uri",
            Self::Ip => "ip",
            Self::SpkiPin => "spki",
        }
    }

    /// As it is called in a message.
    fn label(self) -> &'static str {
        match self {
            Self::CommonName => "CN",
            Self::OrganizationalUnit => "OU",
            Self::DnsName => "DNS name",
            Self::Uri => "URI",
            Self::Ip => "IP address",
            Self::SpkiPin => "SPKI pin",
        }
    }

    fn plural(self) -> String {
        format!("{}{}", self.label(), if self == Self::Ip { "es" } else { "s" })
    }

    fn held(self, certificate: &Certificate) -> Vec<String> {
        let names = certificate.subject_alt_names().iter().filter_map(|name| match (self, name) {
            (Self::DnsName, SubjectAltName::Dns(name)) | (Self::Uri, SubjectAltName::Uri(name)) => {
                Some(name.clone())
            }
            (Self::Ip, SubjectAltName::Ip(address)) => Some(address.to_string()),
            _ => None,
        });
        match self {
            Self::CommonName => certificate.subject().common_name().into_iter().collect(),
            Self::OrganizationalUnit => certificate.subject().organizational_units(),
            Self::SpkiPin => vec![hex(&sha256(certificate.spki()))],
            Self::DnsName | Self::Uri | Self::Ip => names.collect(),
        }
    }

    /// `OU=Ops, Night`; `no URI`.
    fn described(self, certificate: &Certificate) -> String {
        let (label, held) = (self.label(), self.held(certificate));
        if held.is_empty() { format!("no {label}") } else { format!("{label}={}", list(&held)) }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, parts: &[impl fmt::Display], between: &str) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        write!(f, "{}{part}", if index == 0 { "" } else { between })?;
    }
    Ok(())
}

fn from_hex(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Authority;

    fn certificate() -> Certificate {
        Authority::new("Acme").client(
            "CN=laptop-18,OU=Ops,OU=Night",
            &["dns:Laptop-18.acme", "uri:spiffe://a/b", "ip:10.0.0.9"],
        )
    }

    fn access(rules: &[&str]) -> Access {
        Access::any_of(rules.iter().map(|rule| rule.parse::<Rule>().unwrap()))
    }

    fn refusal(rules: &[&str]) -> String {
        access(rules).check(&certificate()).unwrap_err()
    }

    #[test]
    fn refuses_and_says_what_would_have_been_accepted() {
        assert_eq!(refusal(&[]), "no rule admits anybody");
        assert_eq!(refusal(&["cn=laptop-17"]), "CN=laptop-18 is not among the allowed CNs (laptop-17)");
        assert_eq!(
            refusal(&["ou=Dev", "ou=ops"]),
            "none of OU=Ops, Night is among the allowed OUs (Dev, ops)"
        );
        assert_eq!(
            refusal(&["dns=acme", "uri=spiffe://a"]),
            "DNS name=laptop-18.acme is not among the allowed DNS names (acme); \
             URI=spiffe://a/b is not among the allowed URIs (spiffe://a)"
        );
        assert_eq!(
            refusal(&["ip=10.0.0.1"]),
            "IP address=10.0.0.9 is not among the allowed IP addresses (10.0.0.1)"
        );
        let many: Vec<String> = (0..9).map(|n| format!("cn={n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(refusal(&many).ends_with("(0, 1, 2, 3, 4 and 4 more)"));
    }

    #[test]
    fn a_rule_whose_terms_do_not_all_hold_says_which() {
        assert_eq!(
            refusal(&["cn=laptop-18 and ou=Dev", "cn=web and uri=spiffe://a/b", "cn=web"]),
            "CN=laptop-18 is not among the allowed CNs (web); \
             `cn=laptop-18 and ou=Dev` does not hold: OU=Ops, Night; \
             `cn=web and uri=spiffe://a/b` does not hold: CN=laptop-18"
        );
        let bare = Authority::new("Acme").client("CN=bare", &[]);
        let refused = access(&["cn=bare and ou=Ops"]).check(&bare).unwrap_err();
        assert_eq!(refused, "`cn=bare and ou=Ops` does not hold: no OU");
    }

    #[test]
    fn one_rule_that_holds_is_enough() {
        assert_eq!(Access::everyone().check(&certificate()), Ok(()));
        for rule in [
            "cn=laptop-18",
            "ou=Night",
            "dns=laptop-18.ACME",
            "uri=spiffe://a/b",
            "uri=spiffe://*/b",
            "ip=10.0.0.9",
            "cn=laptop-18 and ou=Ops and ou=Night",
        ] {
            assert_eq!(access(&["cn=no", rule]).check(&certificate()), Ok(()), "{rule}");
        }
    }

    #[test]
    fn a_pin_is_of_one_key() {
        let certificate = certificate();
        let digest = sha256(certificate.spki());
        for pin in [hex(&digest), hex(&digest).to_uppercase(), STANDARD.encode(digest)] {
            for prefix in ["", "sha256:", "sha256/"] {
                let rule = Rule::from(Term::spki_pin(&format!("{prefix}{pin}")).unwrap());
                assert_eq!(Access::any_of([rule.clone()]).check(&certificate), Ok(()), "{rule}");
                let other = Authority::new("Acme").client("CN=laptop-18", &[]);
                assert!(Access::any_of([rule]).check(&other).unwrap_err().starts_with("SPKI pin="));
            }
        }
        for text in ["", "abc", &hex(&digest)[2..], &STANDARD.encode(&digest[1..])] {
            assert!(Term::spki_pin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rules_are_read_as_they_are_written() {
        for text in ["cn=web", "cn=web and ou=R&D and dns=a.b", "uri=spiffe://a/*/c/** and ip=::1"] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
        for text in ["", "web", "cn=", "cn=web and", "o=Acme", "ip=host", "spki=00"] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
        assert_eq!(access(&["cn=a", "cn=b and ou=c"]).to_string(), "cn=a or cn=b and ou=c");
    }
}
