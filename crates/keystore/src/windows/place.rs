//! Where a `windows:` key is, and what it demands there.

use std::time::{Duration, SystemTime};

use crate::{Error, KeySpec, KeyUri, KeystoreKind, Policy, Presence, Result};

/// A key storage provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The TPM.
    Platform,
    /// Files that the system encrypts for the user.
    Software,
    /// A smart card, in whatever reader it is.
    SmartCard,
}

impl Place {
    pub(super) const ALL: [Self; 3] = [Self::Platform, Self::Software, Self::SmartCard];

    /// Where a URI says that its key is: in the TPM, unless it says something else.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it is not a `windows:` URI.
    pub(super) fn of(uri: &KeyUri, operation: &str) -> Result<Self> {
        let said = uri.attribute("provider").unwrap_or(Self::Platform.name());
        let place = Self::ALL.into_iter().find(|place| place.name() == said);
        place.filter(|_| uri.kind() == KeystoreKind::Windows).ok_or_else(|| Error::Unsupported {
            key: uri.to_string(),
            operation: operation.into(),
            reason: "this keystore holds `windows:` keys only".into(),
        })
    }

    /// As `provider=` in a URI names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Software => "software",
            Self::SmartCard => "smartcard",
        }
    }

    /// The URI of a key that is here.
    pub(super) fn uri(self, name: &str) -> Result<KeyUri> {
        KeyUri::windows(name, Some(self.name()).filter(|_| self != Self::Platform))
    }

    /// What a key demands that has these flags of `NCRYPT_UI_POLICY`. A card always wants its PIN, which
    /// the system remembers for a while.
    pub(super) fn policy(self, flags: u32) -> Policy {
        let asks = flags & (PROTECT_KEY | FORCE_HIGH_PROTECTION) != 0;
        Policy {
            presence: if asks { Presence::Confirm } else { Presence::None },
            pin: self == Self::SmartCard || flags & FORCE_HIGH_PROTECTION != 0,
        }
    }

    /// The flags of `NCRYPT_UI_POLICY` for a new key.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if keys here cannot demand that, or always demand more.
    pub(super) fn flags(self, spec: &KeySpec) -> Result<u32> {
        let refused = |reason: &str| {
            Err(Error::Unsupported {
                key: spec.uri.to_string(),
                operation: "create".into(),
                reason: reason.into(),
            })
        };
        match (self, spec.policy.presence, spec.policy.pin) {
            (Self::SmartCard, Presence::None, true) => Ok(0),
            (Self::SmartCard, ..) => {
                refused("a key on a card wants its PIN, and nothing else: say so (`pin`)")
            }
            (_, Presence::None, false) => Ok(0),
            (_, Presence::Confirm, false) => Ok(PROTECT_KEY),
            (_, Presence::Confirm, true) => Ok(FORCE_HIGH_PROTECTION),
            (_, Presence::None, true) => {
                refused("what has a password asks for it at each signature: say so, too (`presence=confirm`)")
            }
        }
    }
}

/// `NCRYPT_UI_PROTECT_KEY_FLAG`: the person agrees to each use.
const PROTECT_KEY: u32 = 1;
/// `NCRYPT_UI_FORCE_HIGH_PROTECTION_FLAG`: the person enters a password, or a PIN of the TPM's, for each.
const FORCE_HIGH_PROTECTION: u32 = 2;

/// The time of a `FILETIME`: hundreds of nanoseconds since 1601.
pub(super) fn time(filetime: u64) -> Option<SystemTime> {
    /// 1970.
    const EPOCH: u64 = 116_444_736_000_000_000;
    let since = filetime.checked_sub(EPOCH)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(since / 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(presence: Presence, pin: bool) -> KeySpec {
        KeySpec { policy: Policy { presence, pin }, ..KeySpec::new(KeyUri::windows("web", None).unwrap()) }
    }

    #[test]
    fn a_new_key_demands_what_was_asked_for_or_is_refused() {
        for place in Place::ALL {
            for presence in [Presence::None, Presence::Confirm] {
                for pin in [false, true] {
                    let spec = spec(presence, pin);
                    if let Ok(flags) = place.flags(&spec) {
                        assert_eq!(place.policy(flags), spec.policy, "{place:?}");
                    }
                }
            }
            assert_eq!(place.flags(&spec(Presence::None, false)).is_ok(), place != Place::SmartCard);
            assert_eq!(place.flags(&spec(Presence::Confirm, false)).is_ok(), place != Place::SmartCard);
        }
    }

    #[test]
    fn a_uri_says_where() {
        let place = |uri: &str| Place::of(&uri.parse().unwrap(), "open");
        assert_eq!(place("windows:name=web"), Ok(Place::Platform));
        for expected in Place::ALL {
            assert_eq!(Place::of(&expected.uri("web").unwrap(), "open"), Ok(expected));
        }
        assert!(matches!(place("soft:name=web"), Err(Error::Unsupported { .. })));
        assert_eq!(Place::Platform.uri("web").unwrap().to_string(), "windows:name=web");
    }

    #[test]
    fn times_count_from_1601() {
        assert_eq!(time(116_444_736_000_000_000), Some(SystemTime::UNIX_EPOCH));
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        assert_eq!(time(116_444_736_010_000_000), Some(later));
        assert_eq!(time(0), None);
    }
}
