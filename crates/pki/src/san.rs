//! Subject alternative names: what a certificate is for, beyond its distinguished name.

use std::fmt::{self, Write};
use std::net::IpAddr;
use std::str::FromStr;

use der::asn1::{Ia5String, OctetString};
use serde::{Deserialize, Serialize};
use x509_cert::ext::pkix;
use x509_cert::ext::pkix::name::GeneralName;

use crate::encoding::{encoded, malformed};
use crate::{Error, Result};

const WHAT: &str = "subject alternative name";

/// A subject alternative name (RFC 5280 §4.2.1.6) of one of the four kinds that are issued.
///
/// Its text form is `dns:localhost`, `uri:spiffe://acme/web`, `email:ops@acme.ch`, `ip:::1`; serde
/// uses that text. Parsed DNS names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SubjectAltName {
    /// A host name: letters, digits and hyphens, `*` as its whole first label or nowhere.
    Dns(String),
    /// An absolute URI in ASCII.
    Uri(String),
    /// A mailbox in ASCII.
    Email(String),
    /// An address.
    Ip(IpAddr),
}

impl FromStr for SubjectAltName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |reason: &str, hint: String| invalid(text, reason, Some(hint));
        let (kind, value) =
            text.split_once(':').ok_or_else(|| refuse("it does not say its kind", suggestion(text)))?;
        let san = match kind.to_ascii_lowercase().as_str() {
            "dns" => Self::Dns(value.to_ascii_lowercase()),
            "uri" => Self::Uri(value.to_owned()),
            "email" => Self::Email(value.to_owned()),
            "ip" => Self::Ip(value.parse().map_err(|_| {
                refuse(&format!("`{value}` is not an IPv4 or IPv6 address"), "ip:10.0.0.1 or ip:::1".into())
            })?),
            _ => return Err(refuse("its kind is not one of dns, uri, email, ip", suggestion(text))),
        };
        san.check()?;
        Ok(san)
    }
}

impl fmt::Display for SubjectAltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, text) = match self {
            Self::Dns(name) => ("dns", name),
            Self::Uri(uri) => ("uri", uri),
            Self::Email(mailbox) => ("email", mailbox),
            Self::Ip(address) => return write!(f, "ip:{address}"),
        };
        write!(f, "{kind}:")?;
        // In somebody else's certificate there may be anything, and it must not break the line.
        text.chars().try_for_each(|c| match c {
            _ if c.is_control() => write!(f, "{}", c.escape_default()),
            _ => f.write_char(c),
        })
    }
}

impl TryFrom<String> for SubjectAltName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SubjectAltName> for String {
    fn from(san: SubjectAltName) -> Self {
        san.to_string()
    }
}

impl SubjectAltName {
    /// Checks the rules of the name's kind, which a value built by hand may break.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Dns(name) => check_dns(name),
            Self::Uri(uri) => check_uri(uri),
            Self::Email(mailbox) => check_email(mailbox),
            Self::Ip(_) => Ok(()),
        }
        .map_err(|(reason, hint)| invalid(&self.to_string(), &reason, hint))
    }

    /// The name in a certificate or request, or `None` if it is of a kind that we do not issue.
    /// Nothing but the encoding is checked.
    pub(crate) fn from_general_name(what: &'static str, name: &GeneralName) -> Result<Option<Self>> {
        Ok(Some(match name {
            GeneralName::DnsName(name) => Self::Dns(name.as_str().to_ascii_lowercase()),
            GeneralName::UniformResourceIdentifier(uri) => Self::Uri(uri.as_str().to_owned()),
            GeneralName::Rfc822Name(mailbox) => Self::Email(mailbox.as_str().to_owned()),
            GeneralName::IpAddress(octets) => {
                let octets = octets.as_bytes();
                let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
                let v6 = <[u8; 16]>::try_from(octets).map(IpAddr::from);
                Self::Ip(v4.or(v6).map_err(|_| {
                    malformed(what, format!("subjectAltName: an IP address of {} bytes", octets.len()))
                })?)
            }
            _ => return Ok(None),
        }))
    }

    fn to_general_name(&self) -> Result<GeneralName> {
        let ia5 = |text: &str| encoded(WHAT, Ia5String::new(text));
        Ok(match self {
            Self::Dns(name) => GeneralName::DnsName(ia5(name)?),
            Self::Uri(uri) => GeneralName::UniformResourceIdentifier(ia5(uri)?),
            Self::Email(mailbox) => GeneralName::Rfc822Name(ia5(mailbox)?),
            Self::Ip(IpAddr::V4(v4)) => GeneralName::IpAddress(encoded(WHAT, OctetString::new(v4.octets()))?),
            Self::Ip(IpAddr::V6(v6)) => GeneralName::IpAddress(encoded(WHAT, OctetString::new(v6.octets()))?),
        })
    }
}

/// The subjectAltName extension for `sans`, each of which is checked.
pub(crate) fn extension(sans: &[SubjectAltName]) -> Result<pkix::SubjectAltName> {
    let names = sans.iter().map(|san| san.check().and_then(|()| san.to_general_name()));
    Ok(pkix::SubjectAltName(names.collect::<Result<_>>()?))
}

/// The refusal of a name in a request that is of another kind.
pub(crate) fn not_issued(name: &GeneralName) -> Error {
    let kind = match name {
        GeneralName::OtherName(_) => "otherName",
        GeneralName::DirectoryName(_) => "directoryName",
        GeneralName::EdiPartyName(_) => "ediPartyName",
        GeneralName::RegisteredId(_) => "registeredID",
        _ => "this kind",
    };
    invalid(kind, "only the kinds dns, uri, email and ip are issued", None)
}

/// A reason and, where there is one, a hint.
type Refusal = (String, Option<String>);

/// RFC 1034 §3.5 as RFC 1123 §2.1 relaxed it, with the wildcard of RFC 6125 §6.4.3.
fn check_dns(name: &str) -> std::result::Result<(), Refusal> {
    let refuse = |reason: String| Err((reason, None));
    if !name.is_ascii() {
        let hint = "write internationalized names in their ASCII form, as A-labels (xn--…)";
        return Err(("a DNS name is ASCII".into(), Some(hint.into())));
    }
    if name.parse::<IpAddr>().is_ok() {
        return Err(("it is an IP address".into(), Some(format!("ip:{name}"))));
    }
    if name.is_empty() || name.len() > 253 {
        return refuse(format!("a DNS name has 1 to 253 characters, this one {}", name.len()));
    }
    if let Some(relative) = name.strip_suffix('.') {
        return Err(("it ends with a dot".into(), Some(format!("dns:{relative}"))));
    }
    let host = name.strip_prefix("*.").unwrap_or(name);
    for label in host.split('.') {
        if label.is_empty() || label.len() > 63 {
            return refuse(format!("a label has 1 to 63 characters, `{label}` has {}", label.len()));
        }
        if label.contains('*') {
            return refuse("`*` stands only for the whole first label of several, as in *.acme.ch".into());
        }
        if !label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
            return refuse(format!("label `{label}` has more than letters, digits and hyphens"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return refuse(format!("label `{label}` begins or ends with a hyphen"));
        }
    }
    Ok(())
}

/// RFC 3986 §3.1 for the scheme; of the rest only that it is there and printable.
fn check_uri(uri: &str) -> std::result::Result<(), Refusal> {
    let hint = || Some("uri:spiffe://acme.ch/web or uri:https://acme.ch".to_owned());
    let Some((scheme, rest)) = uri.split_once(':') else {
        return Err(("a URI begins with a scheme and a colon".into(), hint()));
    };
    let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if !scheme_ok {
        return Err((format!("`{scheme}` is not the scheme of a URI"), hint()));
    }
    if rest.is_empty() {
        return Err(("nothing follows the scheme of the URI".into(), hint()));
    }
    if !uri.bytes().all(|c| c.is_ascii_graphic()) {
        let hint = "percent-encode spaces and what is not ASCII";
        return Err(("a URI is printable ASCII without spaces".into(), Some(hint.into())));
    }
    Ok(())
}

/// RFC 2821 §4.1.2 in the form that RFC 5280 §4.2.1.6 takes: local-part@domain.
fn check_email(mailbox: &str) -> std::result::Result<(), Refusal> {
    let hint = || Some("email:ops@acme.ch".to_owned());
    let Some((local, domain)) = mailbox.rsplit_once('@') else {
        return Err(("an email address has an `@`".into(), hint()));
    };
    if local.is_empty() || !local.bytes().all(|c| c.is_ascii_graphic() && c != b'@') {
        return Err(("what is before the `@` is not printable ASCII, or missing".into(), hint()));
    }
    if domain.starts_with('*') {
        return Err(("`*` stands for no mail host".into(), hint()));
    }
    check_dns(domain).map_err(|(reason, _)| (format!("after the `@`: {reason}"), hint()))
}

/// What somebody meant who left the kind out.
fn suggestion(text: &str) -> String {
    let kind = if text.parse::<IpAddr>().is_ok() {
        "ip"
    } else if text.contains("://") {
        "uri"
    } else if text.contains('@') {
        "email"
    } else {
        "dns"
    };
    format!("write {kind}:{text}")
}

/// Names in errors are cut: a request may hold one of many kilobytes.
fn invalid(text: &str, reason: &str, hint: Option<String>) -> Error {
    Error::Name {
        what: WHAT,
        text: text.chars().take(200).flat_map(char::escape_debug).collect(),
        reason: reason.chars().take(300).flat_map(char::escape_debug).collect(),
        hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_a_name() {
        let long_label = format!("dns:{}.ch", "a".repeat(64));
        let long_name = format!("dns:{}ch", "abcdefg.".repeat(32));
        for (text, reason) in [
            ("localhost", "does not say its kind"),
            ("::1", "not one of"),
            ("https://acme.ch", "not one of"),
            ("dns:", "1 to 253"),
            ("dns:zürich.ch", "ASCII"),
            ("dns:a..b", "1 to 63"),
            (&long_label, "1 to 63"),
            (&long_name, "1 to 253"),
            ("dns:a_b.ch", "more than letters"),
            ("dns:a b.ch", "more than letters"),
            ("dns:-a.ch", "hyphen"),
            ("dns:acme.ch.", "ends with a dot"),
            ("dns:*", "whole first label"),
            ("dns:a.*.ch", "whole first label"),
            ("dns:w*.acme.ch", "whole first label"),
            ("dns:10.0.0.1", "IP address"),
            ("uri:acme.ch/web", "scheme"),
            ("uri:1a:b", "scheme"),
            ("uri:https:", "nothing follows"),
            ("uri:https://acme.ch/a b", "printable ASCII"),
            ("email:acme.ch", "`@`"),
            ("email:@acme.ch", "before the `@`"),
            ("email:a@b@acme.ch", "before the `@`"),
            ("email:ops@", "after the `@`"),
            ("email:ops@*.acme.ch", "`*`"),
            ("ip:10.0.0", "IPv4 or IPv6"),
            ("ip:10.0.0.0/8", "IPv4 or IPv6"),
        ] {
            let error = text.parse::<SubjectAltName>().unwrap_err();
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn hints_say_what_to_write() {
        for (text, hint) in [
            ("localhost", "write dns:localhost"),
            ("10.0.0.1", "write ip:10.0.0.1"),
            ("::1", "write ip:::1"),
            ("spiffe://acme/web", "write uri:spiffe://acme/web"),
            ("ops@acme.ch", "write email:ops@acme.ch"),
            ("dns:zürich.ch", "write internationalized names in their ASCII form, as A-labels (xn--…)"),
        ] {
            assert_eq!(text.parse::<SubjectAltName>().unwrap_err().hint().unwrap(), hint);
        }
    }

    #[test]
    fn display_parses_back() {
        for text in [
            "dns:localhost",
            "dns:*.acme.ch",
            "dns:xn--zrich-kva.ch",
            "uri:spiffe://acme.ch/web",
            "uri:urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            "email:ops+web@acme.ch",
            "ip:10.0.0.1",
            "ip:::1",
        ] {
            let san: SubjectAltName = text.parse().unwrap();
            assert_eq!(san.to_string(), text);
        }
        assert_eq!("DNS:Acme.CH".parse::<SubjectAltName>().unwrap().to_string(), "dns:acme.ch");
    }
}
