//! Profiles: the rules of one kind of certificate, as `authority.toml` writes them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use enclasp_enroll::duration;
use enclasp_keystore::Algorithm;
use enclasp_pki::{KeyPurpose, Purpose, SubjectAltName, algorithm_of, is_in_network};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The name of the profile whose certificates open the console and may change things there.
pub(crate) const ADMIN: &str = "admin";
/// That of the profile whose certificates open the console to look.
pub(crate) const VIEWER: &str = "viewer";

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// `[profiles.NAME]` in `authority.toml`. What it leaves out is as in the built-in profile of that name, if
/// there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProfileSettings {
    /// How long a certificate lives if nobody says otherwise.
    #[serde(with = "duration::text")]
    pub default_lifetime: Duration,
    /// How long it lives at most.
    #[serde(with = "duration::text")]
    pub max_lifetime: Duration,
    /// What its certificates are good for: `clientAuth`, `serverAuth`, `emailProtection`, an OID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_key_usages: Option<Vec<KeyPurpose>>,
    /// The types of key that are certified, the one that is recommended first [default: all].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_types: Option<Vec<Algorithm>>,
    /// Which alternative names are certified [default: all].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<NameRule>>,
    /// Whether a person has to approve of each first certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<bool>,
    /// Whether its certificates say noRevAvail (RFC 9608).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_rev_avail: Option<bool>,
    /// Whether who has a certificate of it may have another one for a software key, for minutes and marked as
    /// such, to compare the two with (`enclasp doctor bisect`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bisect: Option<bool>,
    /// How long after its end a certificate can still be renewed with itself [default: not at all].
    #[serde(default, with = "duration::text", skip_serializing_if = "Duration::is_zero")]
    pub renewal_grace: Duration,
}

/// A profile with all of its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What stands in its certificates.
    pub certificate: enclasp_pki::Profile,
    /// The types of key that are certified, the one that is recommended first.
    pub key_types: Vec<Algorithm>,
    /// Which alternative names are certified.
    pub names: Vec<NameRule>,
    /// Whether a person has to approve of each first certificate.
    pub approval: bool,
    /// Whether a key of it may have a twin: a certificate for a software key, for minutes, to compare it with.
    pub bisect: bool,
    /// How long after its end a certificate can still be renewed with itself.
    pub renewal_grace: Duration,
}

/// Those that every authority has.
pub(crate) const BUILT_IN: [&str; 7] = ["client", "device", "server", "user", "short-lived", ADMIN, VIEWER];

impl Profile {
    /// The built-in profile of that name.
    pub(crate) fn built_in(name: &str) -> Option<Self> {
        let (usages, kinds, lifetimes): (&[&str], &[&str], _) = match name {
            "client" => (&["clientAuth"], &["dns", "ip", "uri", "email"], (30 * DAY, 90 * DAY)),
            "device" => (
                &["clientAuth"],
                &["permanentIdentifier", "hardwareModuleName", "dns", "ip", "uri"],
                (30 * DAY, 90 * DAY),
            ),
            "server" => (&["serverAuth"], &["dns", "ip", "uri"], (30 * DAY, 90 * DAY)),
            "user" => (&["clientAuth", "emailProtection"], &["email", "uri"], (90 * DAY, 365 * DAY)),
            "short-lived" => (&["clientAuth", "serverAuth"], &["dns", "ip", "uri"], (24 * HOUR, 7 * DAY)),
            ADMIN | VIEWER => (&["clientAuth"], &["email", "uri"], (7 * DAY, 30 * DAY)),
            _ => return None,
        };
        let (default_lifetime, max_lifetime) = lifetimes;
        Some(Self {
            certificate: enclasp_pki::Profile {
                name: name.to_owned(),
                extended_key_usages: usages.iter().filter_map(|usage| usage.parse().ok()).collect(),
                default_lifetime,
                max_lifetime,
                no_rev_avail: name == "short-lived",
                notice: None,
            },
            key_types: ALL_KEYS.to_vec(),
            names: kinds.iter().filter_map(|kind| kind.parse().ok()).collect(),
            approval: false,
            bisect: false,
            renewal_grace: Duration::ZERO,
        })
    }

    /// The profile called `name` with what `settings` say of it.
    ///
    /// # Errors
    /// One line that says which setting is wrong.
    pub(crate) fn of(name: &str, settings: &ProfileSettings) -> std::result::Result<Self, String> {
        let known = Self::built_in(name);
        let mut profile = match known {
            Some(profile) => profile,
            None => {
                check_name(name)?;
                let plain = enclasp_pki::Profile { name: name.to_owned(), ..enclasp_pki::Profile::client() };
                let names =
                    KINDS.iter().map(|kind| NameRule { kind: Kind(kind), within: Within::All }).collect();
                if settings.extended_key_usages.is_none() {
                    return Err("extended-key-usages is missing: what are its certificates good for?".into());
                }
                Self {
                    certificate: plain,
                    key_types: ALL_KEYS.to_vec(),
                    names,
                    approval: false,
                    bisect: false,
                    renewal_grace: Duration::ZERO,
                }
            }
        };
        if settings.default_lifetime.is_zero() || settings.default_lifetime > settings.max_lifetime {
            return Err("default-lifetime is not between 1s and max-lifetime".into());
        }
        profile.certificate.default_lifetime = settings.default_lifetime;
        profile.certificate.max_lifetime = settings.max_lifetime;
        if let Some(usages) = &settings.extended_key_usages {
            profile.certificate.extended_key_usages = some("extended-key-usages", usages)?;
        }
        if let Some(types) = &settings.key_types {
            profile.key_types = some("key-types", types)?;
        }
        if let Some(names) = &settings.names {
            profile.names = names.clone();
        }
        profile.renewal_grace = settings.renewal_grace;
        profile.approval = settings.approval.unwrap_or(profile.approval);
        profile.bisect = settings.bisect.unwrap_or(profile.bisect);
        profile.certificate.no_rev_avail = settings.no_rev_avail.unwrap_or(profile.certificate.no_rev_avail);
        if profile.certificate.no_rev_avail && profile.certificate.max_lifetime > MAX_WITHOUT_REVOCATION {
            return Err(format!(
                "no-rev-avail is for certificates that live {} at most, and max-lifetime is {}",
                duration::format(MAX_WITHOUT_REVOCATION),
                duration::format(profile.certificate.max_lifetime)
            ));
        }
        let opens = |purpose: Purpose| profile.certificate.extended_key_usages.contains(&purpose.into());
        if [ADMIN, VIEWER].contains(&name) && !opens(Purpose::Client) {
            return Err("extended-key-usages lacks clientAuth, which opens the console".into());
        }
        Ok(profile)
    }

    /// As it is written in `authority.toml`, in full.
    pub(crate) fn settings(&self) -> ProfileSettings {
        ProfileSettings {
            default_lifetime: self.certificate.default_lifetime,
            max_lifetime: self.certificate.max_lifetime,
            extended_key_usages: Some(self.certificate.extended_key_usages.clone()),
            key_types: Some(self.key_types.clone()),
            names: Some(self.names.clone()),
            approval: Some(self.approval),
            no_rev_avail: Some(self.certificate.no_rev_avail),
            bisect: Some(self.bisect),
            renewal_grace: self.renewal_grace,
        }
    }

    /// The rules of a certificate for the same names and a software key: minutes, and a notice that says what it is
    /// for. `None` unless the profile allows it.
    pub(crate) fn twin(&self) -> Option<Self> {
        let certificate = enclasp_pki::Profile {
            default_lifetime: TWIN_LIFETIME.min(self.certificate.max_lifetime),
            notice: Some("a software key, to compare a handshake with: enclasp doctor bisect".into()),
            ..self.certificate.clone()
        };
        self.bisect.then(|| Self { certificate, bisect: false, ..self.clone() })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.certificate.name
    }

    /// Checks that it allows all of these names.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with the first that it does not.
    pub(crate) fn check_names(&self, names: &[SubjectAltName]) -> Result<()> {
        match names.iter().find(|name| !self.names.iter().any(|rule| rule.admits(name))) {
            None => Ok(()),
            Some(name) => {
                let rules: Vec<_> = self.names.iter().map(ToString::to_string).collect();
                let rules = if rules.is_empty() { "no names".to_owned() } else { rules.join(", ") };
                Err(Error::NotAllowed {
                    profile: self.name().to_owned(),
                    what: format!("the name {name}"),
                    allowed: rules,
                })
            }
        }
    }

    /// Checks that it allows a key, given by its DER SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`Error::NotAllowed`]; [`Error::Pki`] for keys that are never certified.
    pub(crate) fn check_key(&self, spki: &[u8]) -> Result<()> {
        let algorithm = algorithm_of(spki)?;
        if self.key_types.contains(&algorithm) {
            return Ok(());
        }
        let allowed: Vec<_> = self.key_types.iter().map(ToString::to_string).collect();
        Err(Error::NotAllowed {
            profile: self.name().to_owned(),
            what: format!("{algorithm} keys"),
            allowed: allowed.join(", "),
        })
    }
}

const ALL_KEYS: [Algorithm; 4] = [Algorithm::P256, Algorithm::P384, Algorithm::Ed25519, Algorithm::Rsa];

/// Long enough for the connections of a comparison.
const TWIN_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// For how long a stolen key that nobody can revoke may be of use.
const MAX_WITHOUT_REVOCATION: Duration = Duration::from_secs(7 * 86_400);

fn some<T: Clone>(field: &str, list: &[T]) -> std::result::Result<Vec<T>, String> {
    if list.is_empty() { Err(format!("{field} is empty")) } else { Ok(list.to_vec()) }
}

/// Names of profiles and labels stand in URLs and on command lines.
pub(crate) fn check_name(name: &str) -> std::result::Result<(), String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=40).contains(&name.len()) && name.chars().all(good) && !name.starts_with('-') {
        Ok(())
    } else {
        Err("a name has 1 to 40 lower-case letters, digits and hyphens".into())
    }
}

const KINDS: [&str; 6] = ["dns", "ip", "uri", "email", "permanentIdentifier", "hardwareModuleName"];

/// A rule that admits alternative names: those of a kind (`dns`), or some of them: `dns:acme.internal` with
/// all hosts below, `ip:10.0.0.0/8`, `uri:spiffe://acme.ch/` and what begins with it, `email:acme.ch` with
/// all mailboxes at that host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NameRule {
    kind: Kind,
    within: Within,
}

/// As [`SubjectAltName::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind(&'static str);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Within {
    All,
    /// A host, or the beginning of a URI.
    Text(String),
    /// An address, and how many of its leading bits count.
    Network(IpAddr, u8),
}

impl NameRule {
    /// A name that it admits, unless it admits all of its kind.
    pub(crate) fn example(&self) -> Option<SubjectAltName> {
        let text = match (&self.within, self.kind.0) {
            (Within::All, _) => return None,
            (Within::Text(domain), "email") => format!("email:x@{domain}"),
            (Within::Text(text), kind) => format!("{kind}:{text}"),
            (Within::Network(address, _), _) => return Some(SubjectAltName::Ip(*address)),
        };
        text.parse().ok()
    }

    /// Whether it admits `name`.
    pub fn admits(&self, name: &SubjectAltName) -> bool {
        if name.kind() != self.kind.0 {
            return false;
        }
        match (&self.within, name) {
            (Within::All, _) => true,
            (Within::Text(domain), SubjectAltName::Dns(host)) => {
                let host = host.strip_prefix("*.").unwrap_or(host);
                host == domain || host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }
            (Within::Text(beginning), SubjectAltName::Uri(uri)) => {
                // Not spiffe://acme.evil for spiffe://acme.
                uri.strip_prefix(beginning.as_str()).is_some_and(|rest| {
                    rest.is_empty() || beginning.ends_with(['/', ':']) || rest.starts_with('/')
                })
            }
            (Within::Text(domain), SubjectAltName::Email(mailbox)) => {
                mailbox.rsplit_once('@').is_some_and(|(_, host)| host.eq_ignore_ascii_case(domain))
            }
            (Within::Network(network, bits), SubjectAltName::Ip(address)) => {
                is_in_network(*address, *network, *bits)
            }
            _ => false,
        }
    }
}

impl FromStr for NameRule {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (kind, within) = match text.split_once(':') {
            Some((kind, within)) => (kind, Some(within)),
            None => (text, None),
        };
        let kind = KINDS.into_iter().find(|known| known.eq_ignore_ascii_case(kind)).ok_or_else(|| {
            format!(
                "`{}` is not a rule for names: it begins with one of {}",
                text.escape_debug(),
                KINDS.join(", ")
            )
        })?;
        let within = match (kind, within) {
            (_, None) => Within::All,
            // The rules of a name of that kind are those of a rule, too.
            ("dns", Some(domain)) => {
                let domain = domain.to_ascii_lowercase();
                format!("dns:{domain}").parse::<SubjectAltName>().map_err(|e| e.to_string())?;
                if domain.starts_with("*.") {
                    return Err(format!("dns:{domain}: it admits all hosts below without `*.`"));
                }
                Within::Text(domain)
            }
            ("uri", Some(beginning)) => {
                format!("uri:{beginning}").parse::<SubjectAltName>().map_err(|e| e.to_string())?;
                Within::Text(beginning.to_owned())
            }
            ("email", Some(domain)) => {
                format!("email:x@{domain}").parse::<SubjectAltName>().map_err(|e| e.to_string())?;
                Within::Text(domain.to_ascii_lowercase())
            }
            ("ip", Some(network)) => {
                let wrong =
                    || format!("`ip:{network}` is not a network: write ip:10.0.0.0/8 or ip:10.0.0.17");
                let (address, bits) = match network.split_once('/') {
                    Some((address, bits)) => (address, Some(bits.parse().map_err(|_| wrong())?)),
                    None => (network, None),
                };
                let address: IpAddr = address.parse().map_err(|_| wrong())?;
                let bits = bits.unwrap_or(if address.is_ipv4() { 32 } else { 128 });
                if !is_in_network(address, address, bits) {
                    return Err(wrong());
                }
                Within::Network(address, bits)
            }
            (kind, Some(_)) => return Err(format!("{kind} admits all names of its kind, and takes no more")),
        };
        Ok(Self { kind: Kind(kind), within })
    }
}

impl fmt::Display for NameRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.within {
            Within::All => f.write_str(self.kind.0),
            Within::Text(text) => write!(f, "{}:{text}", self.kind.0),
            Within::Network(address, bits) => write!(f, "{}:{address}/{bits}", self.kind.0),
        }
    }
}

impl TryFrom<String> for NameRule {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl From<NameRule> for String {
    fn from(rule: NameRule) -> Self {
        rule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_admit_what_they_say() {
        for (rule, admitted, refused) in [
            ("dns", &["dns:a.b"][..], &["ip:10.0.0.1", "uri:https://a.b"][..]),
            (
                "dns:acme.internal",
                &["dns:acme.internal", "dns:db.acme.internal", "dns:*.acme.internal"],
                &["dns:evilacme.internal", "dns:internal", "dns:acme.internal.ch"],
            ),
            ("ip:10.0.0.0/8", &["ip:10.255.0.1"], &["ip:11.0.0.1", "ip:::1", "dns:a"]),
            ("ip:0.0.0.0/0", &["ip:11.0.0.1"], &["ip:::1"]),
            ("ip:fd00::/8", &["ip:fd12::1"], &["ip:fe80::1", "ip:10.0.0.1"]),
            ("ip:10.0.0.17", &["ip:10.0.0.17"], &["ip:10.0.0.18"]),
            (
                "uri:spiffe://acme",
                &["uri:spiffe://acme", "uri:spiffe://acme/web"],
                &["uri:spiffe://acme.evil/web", "uri:spiffe://other"],
            ),
            ("email:acme.ch", &["email:a@acme.ch"], &["email:a@b.acme.ch", "email:a@evilacme.ch"]),
            ("permanentIdentifier", &["permanentIdentifier:17"], &["dns:17"]),
        ] {
            let parsed: NameRule = rule.parse().unwrap();
            for name in admitted {
                assert!(parsed.admits(&name.parse().unwrap()), "{rule} admits {name}");
            }
            for name in refused {
                assert!(!parsed.admits(&name.parse().unwrap()), "{rule} refuses {name}");
            }
            assert_eq!(parsed.to_string().parse::<NameRule>().unwrap(), parsed);
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for (rule, reason) in [
            ("host", "one of dns"),
            ("dns:", "1 to 253"),
            ("dns:*.acme.ch", "without `*.`"),
            ("ip:10.0.0.0/33", "network"),
            ("ip:10.0.0/8", "network"),
            ("uri:acme", "scheme"),
            ("email:@acme.ch", "`@`"),
            ("hardwareModuleName:1.2.3", "takes no more"),
        ] {
            let error = rule.parse::<NameRule>().unwrap_err();
            assert!(error.contains(reason), "{rule}: {error}");
        }
    }

    #[test]
    fn built_in_profiles_are_in_order_and_written_in_full() {
        for name in BUILT_IN {
            let profile = Profile::built_in(name).unwrap();
            assert!(!profile.names.is_empty() && !profile.certificate.extended_key_usages.is_empty());
            assert_eq!(Profile::of(name, &profile.settings()).unwrap(), profile);
        }
    }
}
