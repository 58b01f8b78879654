//! Name constraints (RFC 5280 §4.2.1.10): which names a CA may certify.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use der::asn1::{Ia5String, OctetString};
use serde::{Deserialize, Serialize};
use x509_cert::ext::pkix;
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

use crate::encoding::{encoded, malformed};
use crate::{DistinguishedName, Error, Result, SubjectAltName};

const WHAT: &str = "name constraint";

/// The names that a CA may certify, and those that it may not.
///
/// A name of a kind of which something is permitted has to be within one that is; one that is within an
/// excluded one is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameConstraints {
    /// Of the kinds that occur here, only these.
    pub permitted: Vec<NameConstraint>,
    /// Never these.
    pub excluded: Vec<NameConstraint>,
}

/// A part of the names of one kind.
///
/// Its text form, which serde uses too: `dns:acme.internal` is that host and all below, `ip:10.0.0.0/8` and
/// `ip:10.0.0.17` are networks, `email:acme.ch` is the mailboxes at that host and `email:.acme.ch` those below,
/// `uri:acme.ch` the URIs at that host and `uri:.acme.ch` those below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NameConstraint {
    /// A host and all below.
    Dns(String),
    /// An address, and how many of its leading bits count.
    Ip(IpAddr, u8),
    /// A mailbox, the mailboxes at a host, or with a dot in front those at hosts below.
    Email(String),
    /// A host, or with a dot in front the hosts below.
    Uri(String),
    /// The names that begin with these RDNs.
    Directory(DistinguishedName),
    /// Some names of a kind that is not told apart here. What might be one of it counts as one.
    Other,
}

impl NameConstraints {
    /// Whether a certificate for this subject and these names may be issued.
    ///
    /// # Errors
    /// One line that names the name, and what is permitted.
    pub fn check(
        &self,
        subject: &DistinguishedName,
        names: &[SubjectAltName],
    ) -> std::result::Result<(), String> {
        if !subject.is_empty() {
            self.check_one(subject.to_string(), |constraint| match constraint {
                NameConstraint::Directory(base) => Some(begins_with(subject.as_name(), base.as_name())),
                _ => None,
            })?;
        }
        names.iter().try_for_each(|name| self.check_one(name.to_string(), |one| one.holds(name)))
    }

    /// `holds` says whether a constraint is of the name's kind, and if so, whether the name is within it.
    fn check_one(
        &self,
        name: String,
        holds: impl Fn(&NameConstraint) -> Option<bool>,
    ) -> std::result::Result<(), String> {
        let excludes = |one: &&NameConstraint| match one {
            NameConstraint::Other => holds(one).is_some(),
            _ => holds(one) == Some(true),
        };
        if let Some(excluded) = self.excluded.iter().find(excludes) {
            return Err(format!("{name} is within {excluded}, which is excluded"));
        }
        let same_kind: Vec<_> = self.permitted.iter().filter(|one| holds(one).is_some()).collect();
        if same_kind.is_empty() || same_kind.iter().any(|one| holds(one) == Some(true)) {
            return Ok(());
        }
        let permitted: Vec<_> = same_kind.iter().map(ToString::to_string).collect();
        Err(format!("{name} is not within {}", permitted.join(" or ")))
    }

    pub(crate) fn from_extension(extension: &pkix::NameConstraints) -> Result<Self> {
        let read = |subtrees: &Option<Vec<GeneralSubtree>>| {
            subtrees
                .iter()
                .flatten()
                .map(|subtree| NameConstraint::from_name(&subtree.base))
                .collect::<Result<_>>()
        };
        Ok(Self {
            permitted: read(&extension.permitted_subtrees)?,
            excluded: read(&extension.excluded_subtrees)?,
        })
    }

    pub(crate) fn to_extension(&self) -> Result<pkix::NameConstraints> {
        let written = |constraints: &[NameConstraint]| {
            let subtree = |constraint: &NameConstraint| {
                Ok(GeneralSubtree { base: constraint.to_name()?, minimum: 0, maximum: None })
            };
            let subtrees = constraints.iter().map(subtree).collect::<Result<Vec<_>>>()?;
            // An empty list is not encoded (SIZE (1..MAX)).
            Ok::<_, Error>(Some(subtrees).filter(|subtrees| !subtrees.is_empty()))
        };
        Ok(pkix::NameConstraints {
            permitted_subtrees: written(&self.permitted)?,
            excluded_subtrees: written(&self.excluded)?,
        })
    }
}

impl NameConstraint {
    /// Whether it holds `name`; `None` if it says nothing of that kind of name.
    fn holds(&self, name: &SubjectAltName) -> Option<bool> {
        match (self, name) {
            (Self::Dns(base), SubjectAltName::Dns(host)) => {
                let host = host.strip_prefix("*.").unwrap_or(host);
                Some(base.is_empty() || host.eq_ignore_ascii_case(base) || is_below(host, base))
            }
            (Self::Ip(network, bits), SubjectAltName::Ip(address)) => {
                Some(is_in_network(*address, *network, *bits))
            }
            (Self::Email(base), SubjectAltName::Email(mailbox)) => Some(match base.split_once('@') {
                Some((local, host)) => mailbox
                    .rsplit_once('@')
                    .is_some_and(|(own, at)| own == local && at.eq_ignore_ascii_case(host)),
                None => mailbox.rsplit_once('@').is_some_and(|(_, host)| is_at(host, base)),
            }),
            (Self::Uri(base), SubjectAltName::Uri(uri)) => {
                Some(host_of(uri).is_some_and(|host| is_at(host, base)))
            }
            (
                Self::Other,
                SubjectAltName::PermanentIdentifier { .. } | SubjectAltName::HardwareModuleName { .. },
            ) => Some(false),
            _ => None,
        }
    }

    fn from_name(name: &GeneralName) -> Result<Self> {
        Ok(match name {
            // Some write the dot that only other kinds know.
            GeneralName::DnsName(host) => Self::Dns(host.as_str().trim_start_matches('.').to_lowercase()),
            GeneralName::Rfc822Name(mailbox) => Self::Email(mailbox.as_str().to_owned()),
            GeneralName::UniformResourceIdentifier(host) => Self::Uri(host.as_str().to_lowercase()),
            GeneralName::DirectoryName(name) => Self::Directory(DistinguishedName::from_name(name.clone())),
            GeneralName::IpAddress(octets) => network(octets.as_bytes())
                .ok_or_else(|| malformed(WHAT, "the address and mask of a network are not that"))?,
            _ => Self::Other,
        })
    }

    fn to_name(&self) -> Result<GeneralName> {
        let ia5 = |text: &str| encoded(WHAT, Ia5String::new(text));
        Ok(match self {
            Self::Dns(host) => GeneralName::DnsName(ia5(host)?),
            Self::Email(mailbox) => GeneralName::Rfc822Name(ia5(mailbox)?),
            Self::Uri(host) => GeneralName::UniformResourceIdentifier(ia5(host)?),
            Self::Directory(name) => GeneralName::DirectoryName(name.as_name().clone()),
            Self::Ip(address, bits) => {
                GeneralName::IpAddress(encoded(WHAT, OctetString::new(octets(*address, *bits)))?)
            }
            Self::Other => {
                let reason = "names of its kind cannot be written".into();
                return Err(Error::Encoding { what: WHAT, reason });
            }
        })
    }
}

impl FromStr for NameConstraint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |reason: String| Error::Name {
            what: WHAT,
            text: text.escape_debug().to_string(),
            reason,
            hint: Some("dns:acme.internal, ip:10.0.0.0/8, email:acme.ch, uri:acme.ch".into()),
        };
        let (kind, value) = text.split_once(':').ok_or_else(|| refuse("it does not say its kind".into()))?;
        let host = |value: &str| {
            let plain = value.strip_prefix('.').unwrap_or(value);
            let plain =
                format!("dns:{plain}").parse::<SubjectAltName>().map_err(|e| refuse(e.to_string()))?;
            if plain.to_string().contains('*') {
                return Err(refuse("it holds all hosts below without `*.`".into()));
            }
            Ok(value.to_ascii_lowercase())
        };
        match kind.to_ascii_lowercase().as_str() {
            "dns" if value.starts_with('.') => Err(refuse("it holds all hosts below without a dot".into())),
            "dns" => Ok(Self::Dns(host(value)?)),
            "email" => Ok(Self::Email(host(value)?)),
            "uri" => Ok(Self::Uri(host(value)?)),
            "ip" => {
                let wrong = || refuse("a network is an address, and perhaps the bits that count".into());
                let (address, bits) = value.split_once('/').map_or((value, None), |(a, b)| (a, Some(b)));
                let address: IpAddr = address.parse().map_err(|_| wrong())?;
                let most = if address.is_ipv4() { 32 } else { 128 };
                let bits = bits.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
                if bits > most { Err(wrong()) } else { Ok(Self::Ip(address, bits)) }
            }
            _ => Err(refuse("its kind is none of dns, ip, email and uri".into())),
        }
    }
}

impl fmt::Display for NameConstraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(host) => write!(f, "dns:{host}"),
            Self::Ip(address, bits) => write!(f, "ip:{address}/{bits}"),
            Self::Email(mailbox) => write!(f, "email:{mailbox}"),
            Self::Uri(host) => write!(f, "uri:{host}"),
            Self::Directory(name) => write!(f, "directory:{name}"),
            Self::Other => f.write_str("names of another kind"),
        }
    }
}

impl TryFrom<String> for NameConstraint {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<NameConstraint> for String {
    fn from(constraint: NameConstraint) -> Self {
        constraint.to_string()
    }
}

/// Whether `host` is `base`, or below it if that begins with a dot.
fn is_at(host: &str, base: &str) -> bool {
    match base.strip_prefix('.') {
        Some(domain) => is_below(host, domain),
        None => host.eq_ignore_ascii_case(base),
    }
}

fn is_below(host: &str, domain: &str) -> bool {
    let (host, domain) = (host.to_ascii_lowercase(), domain.to_ascii_lowercase());
    host.strip_suffix(&domain).is_some_and(|rest| rest.ends_with('.'))
}

/// The host of a URI with an authority (RFC 3986 §3.2).
fn host_of(uri: &str) -> Option<&str> {
    let authority = uri.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Some(host.split_once(':').map_or(host, |(host, _)| host)).filter(|host| !host.is_empty())
}

fn begins_with(name: &Name, base: &Name) -> bool {
    // As text, so that it does not matter which of ASN.1's string types somebody used.
    let (name, base): (Vec<_>, Vec<_>) = (name.iter_rdn().collect(), base.iter_rdn().collect());
    base.len() <= name.len() && name.iter().zip(&base).all(|(a, b)| a.to_string() == b.to_string())
}

/// Address and mask, 4 or 16 bytes each, with nothing but ones in front.
fn network(octets: &[u8]) -> Option<NameConstraint> {
    let (address, mask) = octets.split_at_checked(octets.len() / 2)?;
    let (address, mask) = match octets.len() {
        8 => {
            let mask = u32::from_be_bytes(mask.try_into().ok()?);
            (IpAddr::from(<[u8; 4]>::try_from(address).ok()?), u128::from(mask) << 96)
        }
        32 => {
            let mask = u128::from_be_bytes(mask.try_into().ok()?);
            (IpAddr::from(<[u8; 16]>::try_from(address).ok()?), mask)
        }
        _ => return None,
    };
    let bits = mask.leading_ones();
    let is_whole = mask.count_ones() == bits;
    u8::try_from(bits).ok().filter(|_| is_whole).map(|bits| NameConstraint::Ip(address, bits))
}

fn octets(address: IpAddr, bits: u8) -> Vec<u8> {
    let ones = |width: u32| u128::MAX.checked_shl(width.saturating_sub(u32::from(bits))).unwrap_or(0);
    match address {
        IpAddr::V4(v4) => {
            let mask = ones(32) as u32;
            [(u32::from(v4) & mask).to_be_bytes(), mask.to_be_bytes()].concat()
        }
        IpAddr::V6(v6) => {
            let mask = ones(128);
            [(u128::from(v6) & mask).to_be_bytes(), mask.to_be_bytes()].concat()
        }
    }
}

/// Whether the leading `bits` of both addresses are the same.
pub fn is_in_network(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    leading(network, bits).is_some_and(|of| Some(of) == leading(address, bits))
}

/// The leading bits of an address, with those of the other family kept apart.
fn leading(address: IpAddr, bits: u8) -> Option<(bool, u128)> {
    let (is_v4, width, value) = match address {
        IpAddr::V4(v4) => (true, 32_u32, u128::from(u32::from(v4))),
        IpAddr::V6(v6) => (false, 128, u128::from(v6)),
    };
    let rest = width.checked_sub(u32::from(bits))?;
    Some((is_v4, value.checked_shr(rest).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constraints(permitted: &[&str], excluded: &[&str]) -> NameConstraints {
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let written = NameConstraints { permitted: read(permitted), excluded: read(excluded) };
        // Through the extension and back.
        let again = NameConstraints::from_extension(&written.to_extension().unwrap()).unwrap();
        assert_eq!(again, written);
        again
    }

    fn check(constraints: &NameConstraints, name: &str) -> std::result::Result<(), String> {
        constraints.check(&DistinguishedName::default(), &[name.parse().unwrap()])
    }

    #[test]
    fn what_is_permitted_holds_for_its_kind() {
        let constraints = constraints(
            &["dns:acme.ch", "ip:10.0.0.0/8", "email:acme.ch", "uri:.acme.ch"],
            &["dns:lab.acme.ch", "ip:10.9.0.0/16"],
        );
        for good in [
            "dns:acme.ch",
            "dns:*.acme.ch",
            "dns:a.b.acme.ch",
            "ip:10.1.2.3",
            "email:ops@ACME.ch",
            "uri:spiffe://eu.acme.ch/web",
            "uri:https://u@eu.acme.ch:8443/?q",
            // Nothing is said of that kind.
            "permanentIdentifier:SN-1",
        ] {
            assert_eq!(check(&constraints, good), Ok(()), "{good}");
        }
        for (bad, reason) in [
            ("dns:evilacme.ch", "not within dns:acme.ch"),
            ("dns:x.lab.acme.ch", "within dns:lab.acme.ch, which is excluded"),
            ("ip:11.0.0.1", "not within ip:10.0.0.0/8"),
            ("ip:10.9.1.1", "excluded"),
            ("ip:::1", "not within"),
            ("email:ops@sub.acme.ch", "not within"),
            ("uri:spiffe://acme.ch/web", "not within"),
            ("uri:urn:isbn:1", "not within"),
        ] {
            assert!(check(&constraints, bad).unwrap_err().contains(reason), "{bad}");
        }
    }

    #[test]
    fn subjects_are_held_by_what_they_begin_with() {
        let name = |text: &str| text.parse::<DistinguishedName>().unwrap();
        let constraints = NameConstraints {
            permitted: vec![NameConstraint::Directory(name("O=Acme,C=CH"))],
            excluded: vec![NameConstraint::Other],
        };
        assert_eq!(constraints.check(&name("CN=web,O=Acme,C=CH"), &[]), Ok(()));
        assert!(constraints.check(&name("CN=web,O=Other,C=CH"), &[]).is_err());
        assert_eq!(constraints.check(&DistinguishedName::default(), &[]), Ok(()));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["acme.ch", "dns:", "dns:.acme.ch", "dns:*.acme.ch", "ip:10.0.0.0/33", "ip:x", "dn:CN=x"]
        {
            assert!(text.parse::<NameConstraint>().is_err(), "{text}");
        }
        // A mask with a hole.
        assert_eq!(network(&[10, 0, 0, 0, 255, 0, 255, 0]), None);
        assert_eq!(network(&[10, 0, 0]), None);
    }
}
