//! What a key demands before it signs, and who may ask it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a key demands before each signature. Fixed when the key is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Policy {
    /// Whether a person has to be there.
    pub presence: Presence,
    /// Whether the key has a PIN of its own (a TPM calls it the auth value), which guesses are
    /// counted against. The keystore asks for it at the first signature and keeps it in memory.
    #[serde(default)]
    pub pin: bool,
}

/// Whether a person has to agree to each signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Presence {
    /// The key signs freely.
    #[default]
    None,
    /// A person confirms each signature.
    Confirm,
}

impl Policy {
    /// Whether a signature may ask a person, so that it may take as long as a person does, and must
    /// not be asked for just to find out what the key can do. A key with a PIN counts, though only
    /// its first signature asks.
    pub fn prompts(&self) -> bool {
        self.presence != Presence::None || self.pin
    }
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Confirm => "confirm",
        })
    }
}

impl FromStr for Presence {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "confirm" => Ok(Self::Confirm),
            _ => Err(format!("`{text}` is not one of none, confirm")),
        }
    }
}

/// Who, besides the owner of the keystore, may see a key and sign with it (Unix ids).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Access {
    /// User ids.
    #[serde(default)]
    pub uids: Vec<u32>,
    /// Group ids, primary or supplementary.
    #[serde(default)]
    pub gids: Vec<u32>,
}
