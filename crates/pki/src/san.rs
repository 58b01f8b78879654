//! Subject alternative names: what a certificate is for, beyond its distinguished name.

use std::fmt::{self, Write};
use std::net::IpAddr;
use std::str::FromStr;

use der::asn1::{Any, Ia5String, ObjectIdentifier, OctetString};
use der::{Decode, Encode, Sequence};
use serde::{Deserialize, Serialize};
use x509_cert::ext::pkix;
use x509_cert::ext::pkix::name::{GeneralName, OtherName};

use crate::encoding::{encoded, in_field, malformed};
use crate::{Error, Result, hex, unhex};

const WHAT: &str = "subject alternative name";

/// id-on-permanentIdentifier (RFC 4043 §2).
const PERMANENT_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.3");

/// id-on-hardwareModuleName (RFC 4108 §5).
const HARDWARE_MODULE_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.4");

/// A subject alternative name (RFC 5280 §4.2.1.6) of one of the kinds that are issued.
///
/// Its text form is `dns:localhost`, `uri:spiffe://acme/web`, `email:ops@acme.ch`, `ip:::1`,
/// `permanentIdentifier:VALUE` or `permanentIdentifier:OID/VALUE`, `hardwareModuleName:OID/HEX`; serde
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
    /// What somebody calls a device or a person for ever (RFC 4043).
    PermanentIdentifier {
        /// Who does; without it, the issuer of the certificate.
        assigner: Option<ObjectIdentifier>,
        /// 1 to 256 printable characters.
        value: String,
    },
    /// A piece of hardware (RFC 4108 §5).
    HardwareModuleName {
        /// What type of hardware.
        hardware: ObjectIdentifier,
        /// Its serial number: 1 to 64 bytes in lower-case hexadecimal.
        serial: String,
    },
}

/// `PermanentIdentifier` (RFC 4043 §2).
#[derive(Sequence)]
struct PermanentIdentifier {
    #[asn1(optional = "true")]
    value: Option<String>,
    #[asn1(optional = "true")]
    assigner: Option<ObjectIdentifier>,
}

/// `HardwareModuleName` (RFC 4108 §5).
#[derive(Sequence)]
struct HardwareModuleName {
    hardware: ObjectIdentifier,
    serial: OctetString,
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
            "permanentidentifier" => {
                let (assigner, value) = match value.split_once('/') {
                    Some(("", value)) => (None, value),
                    Some((oid, rest)) => match oid.parse() {
                        Ok(assigner) => (Some(assigner), rest),
                        Err(_) => (None, value),
                    },
                    None => (None, value),
                };
                Self::PermanentIdentifier { assigner, value: value.to_owned() }
            }
            "hardwaremodulename" => {
                let parsed =
                    value.split_once('/').and_then(|(oid, serial)| Some((oid.parse().ok()?, serial)));
                let (hardware, serial) = parsed.ok_or_else(|| {
                    let hint = "hardwareModuleName:1.3.6.1.4.1.99999.1/00a1b2";
                    refuse("it is not a type (an OID), a slash and a serial number", hint.into())
                })?;
                Self::HardwareModuleName { hardware, serial: serial.to_ascii_lowercase() }
            }
            _ => {
                let kinds = "dns, uri, email, ip, permanentIdentifier, hardwareModuleName";
                return Err(refuse(&format!("its kind is not one of {kinds}"), suggestion(text)));
            }
        };
        san.check()?;
        Ok(san)
    }
}

impl fmt::Display for SubjectAltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, text): (&str, &str) = match self {
            Self::Dns(name) => ("dns:", name),
            Self::Uri(uri) => ("uri:", uri),
            Self::Email(mailbox) => ("email:", mailbox),
            Self::Ip(address) => return write!(f, "ip:{address}"),
            Self::PermanentIdentifier { assigner: None, value } => {
                let looks_assigned = value
                    .split_once('/')
                    .is_some_and(|(oid, _)| oid.is_empty() || oid.parse::<ObjectIdentifier>().is_ok());
                (if looks_assigned { "permanentIdentifier:/" } else { "permanentIdentifier:" }, value)
            }
            Self::PermanentIdentifier { assigner: Some(assigner), value } => {
                write!(f, "permanentIdentifier:{assigner}/")?;
                ("", value)
            }
            Self::HardwareModuleName { hardware, serial } => {
                write!(f, "hardwareModuleName:{hardware}/")?;
                ("", serial)
            }
        };
        f.write_str(kind)?;
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
    /// What its text form begins with, before the colon: `dns`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::Uri(_) => "uri",
            Self::Email(_) => "email",
            Self::Ip(_) => "ip",
            Self::PermanentIdentifier { .. } => "permanentIdentifier",
            Self::HardwareModuleName { .. } => "hardwareModuleName",
        }
    }

    /// Checks the rules of the name's kind, which a value built by hand may break.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Dns(name) => check_dns(name),
            Self::Uri(uri) => check_uri(uri),
            Self::Email(mailbox) => check_email(mailbox),
            Self::Ip(_) => Ok(()),
            Self::PermanentIdentifier { value, .. } => check_identifier(value),
            Self::HardwareModuleName { serial, .. } => check_serial(serial),
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
            GeneralName::OtherName(other) => return from_other_name(what, other),
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
            Self::PermanentIdentifier { assigner, value } => {
                let value = PermanentIdentifier { value: Some(value.clone()), assigner: *assigner };
                other_name(PERMANENT_IDENTIFIER, &value)?
            }
            Self::HardwareModuleName { hardware, serial } => {
                let serial = encoded(WHAT, OctetString::new(unhex(serial).unwrap_or_default()))?;
                other_name(HARDWARE_MODULE_NAME, &HardwareModuleName { hardware: *hardware, serial })?
            }
        })
    }
}

fn other_name(type_id: ObjectIdentifier, value: &impl Encode) -> Result<GeneralName> {
    let value = encoded(WHAT, value.to_der().and_then(|der| Any::from_der(&der)))?;
    Ok(GeneralName::OtherName(OtherName { type_id, value }))
}

/// An otherName of a kind that is issued; `None` if it is of another kind, or leaves out what it is for.
fn from_other_name(what: &'static str, other: &OtherName) -> Result<Option<SubjectAltName>> {
    Ok(match other.type_id {
        PERMANENT_IDENTIFIER => {
            let PermanentIdentifier { value, assigner } =
                in_field(what, "permanentIdentifier", other.value.decode_as())?;
            value.map(|value| SubjectAltName::PermanentIdentifier { assigner, value })
        }
        HARDWARE_MODULE_NAME => {
            let HardwareModuleName { hardware, serial } =
                in_field(what, "hardwareModuleName", other.value.decode_as())?;
            Some(SubjectAltName::HardwareModuleName { hardware, serial: hex(serial.as_bytes()) })
        }
        _ => None,
    })
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
    let reason = "only the kinds dns, uri, email, ip, permanentIdentifier and hardwareModuleName are issued";
    invalid(kind, reason, None)
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

fn check_identifier(value: &str) -> std::result::Result<(), Refusal> {
    let length = value.chars().count();
    if !(1..=256).contains(&length) || value.chars().any(char::is_control) {
        return Err((format!("an identifier has 1 to 256 printable characters, this one {length}"), None));
    }
    Ok(())
}

fn check_serial(serial: &str) -> std::result::Result<(), Refusal> {
    match unhex(serial) {
        Some(bytes)
            if (1..=64).contains(&bytes.len()) && !serial.contains(|c: char| c.is_ascii_uppercase()) =>
        {
            Ok(())
        }
        _ => Err(("a serial number is 1 to 64 bytes in hexadecimal".into(), None)),
    }
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
            ("permanentIdentifier:", "1 to 256"),
            ("permanentIdentifier:1.2.3/", "1 to 256"),
            ("hardwareModuleName:00a1", "a slash"),
            ("hardwareModuleName:1.2.3/", "1 to 64 bytes"),
            ("hardwareModuleName:1.2.3/0g", "1 to 64 bytes"),
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
            "permanentIdentifier:SN-17 of Zürich",
            "permanentIdentifier:1.3.6.1.4.1.99999.1/SN-17/b",
            "permanentIdentifier:/1.2.3/no assigner",
            "hardwareModuleName:1.3.6.1.4.1.99999.2/00a1ff",
        ] {
            let san: SubjectAltName = text.parse().unwrap();
            assert_eq!(san.to_string(), text);
            let name = san.to_general_name().unwrap();
            let name = GeneralName::from_der(&name.to_der().unwrap()).unwrap();
            assert_eq!(SubjectAltName::from_general_name("name", &name).unwrap(), Some(san));
        }
        assert_eq!("DNS:Acme.CH".parse::<SubjectAltName>().unwrap().to_string(), "dns:acme.ch");
    }
}
