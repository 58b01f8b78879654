//! What a key in the Secure Enclave demands of a person.

use crate::{Error, KeySpec, Policy, Presence, Result};

/// The access control that a key was made with. No public API reads it back, so that Enclasp writes it
/// into the key's application tag. It is the Secure Enclave that enforces it: a tag that says something
/// else can only make a prompt unexpected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// Nothing: it signs freely once the device was unlocked after it was started.
    Nothing,
    /// Touch ID or Face ID, or the passcode.
    User,
    /// A finger or face that was enrolled when the key was made. The key is of no use any more when
    /// they change.
    Biometry,
    /// The device's passcode, or the user's password on a Mac.
    Passcode,
}

/// What begins the application tag of our keys.
const TAG: &str = "enclasp:presence=";

impl Demand {
    const ALL: [Self; 4] = [Self::Nothing, Self::User, Self::Biometry, Self::Passcode];

    /// What a new key shall demand: `presence` in its URI, which is more precise than the policy.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the two contradict each other, or a key cannot demand that.
    pub(super) fn of_spec(spec: &KeySpec) -> Result<Self> {
        let unsupported = |reason: &str| Error::Unsupported {
            key: spec.uri.to_string(),
            operation: "create".into(),
            reason: reason.into(),
        };
        if spec.policy.pin {
            return Err(unsupported("a key has no PIN here; `presence=passcode` asks for the device's"));
        }
        let said = spec.uri.attribute("presence").and_then(Self::named);
        match (said, spec.policy.presence) {
            (Some(Self::Nothing), Presence::Confirm) => {
                Err(unsupported("`presence=none` in its name, and a policy that wants a person"))
            }
            (Some(demand), _) => Ok(demand),
            (None, Presence::Confirm) => Ok(Self::User),
            (None, Presence::None) => Ok(Self::Nothing),
        }
    }

    /// As `presence=` in a URI names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::User => "user",
            Self::Biometry => "biometry",
            Self::Passcode => "passcode",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|demand| demand.name() == name)
    }

    /// The application tag (kSecAttrApplicationTag) of a key that demands it.
    pub(super) fn tag(self) -> String {
        format!("{TAG}{}", self.name())
    }

    /// What a tag says; `None` if it is not one of ours.
    pub(super) fn of_tag(tag: &[u8]) -> Option<Self> {
        Self::named(std::str::from_utf8(tag).ok()?.strip_prefix(TAG)?)
    }

    pub(super) fn policy(self) -> Policy {
        let presence = if self == Self::Nothing { Presence::None } else { Presence::Confirm };
        Policy { presence, pin: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(uri: &str, policy: Policy) -> Result<Demand> {
        Demand::of_spec(&KeySpec { policy, ..KeySpec::new(uri.parse().unwrap()) })
    }

    #[test]
    fn contradictions_and_pins_are_refused() {
        let confirm = Policy { presence: Presence::Confirm, pin: false };
        let pin = Policy { presence: Presence::None, pin: true };
        assert!(matches!(demand("apple:label=a;presence=none", confirm), Err(Error::Unsupported { .. })));
        assert!(matches!(demand("apple:label=a", pin), Err(Error::Unsupported { .. })));
        assert_eq!(demand("apple:label=a", confirm), Ok(Demand::User));
        assert_eq!(demand("apple:label=a", Policy::default()), Ok(Demand::Nothing));
        assert_eq!(demand("apple:label=a;presence=biometry", Policy::default()), Ok(Demand::Biometry));
        assert_eq!(demand("apple:label=a;presence=passcode", confirm), Ok(Demand::Passcode));
    }

    #[test]
    fn a_tag_says_what_it_was_made_with_and_others_say_nothing() {
        for demand in Demand::ALL {
            assert_eq!(Demand::of_tag(demand.tag().as_bytes()), Some(demand));
            assert_eq!(demand.policy().prompts(), demand != Demand::Nothing);
        }
        for tag in [&b""[..], b"com.example.key", b"enclasp:presence=", b"enclasp:presence=none ", b"\xff"] {
            assert_eq!(Demand::of_tag(tag), None);
        }
    }
}
