//! The hash functions of signatures, broken ones too.

use std::fmt;

use aws_lc_rs::digest::{self, Algorithm};

/// A hash function that a signature may name or use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    /// Known by its name only: nothing here computes it.
    Md5,
    /// MD5 and SHA-1 together, in TLS 1.0 and 1.1 with RSA. It is not computed either.
    Md5Sha1,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    /// None: the message itself, or as much of it as fits.
    Identity,
}

impl Hash {
    /// Those that are tried, the likeliest first.
    pub(crate) const TRIED: [Self; 5] = [Self::Sha256, Self::Sha384, Self::Sha512, Self::Sha1, Self::Sha224];

    /// The digest of a message, if it can be computed here.
    pub(crate) fn of(self, message: &[u8]) -> Option<Vec<u8>> {
        if self == Self::Identity {
            return Some(message.to_vec());
        }
        Some(digest::digest(self.algorithm()?, message).as_ref().to_vec())
    }

    /// The length of a digest in bytes; 0 of what is not computed here.
    pub(crate) fn length(self) -> usize {
        self.algorithm().map_or(0, Algorithm::output_len)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Md5Sha1 => "MD5 and SHA-1",
            Self::Sha1 => "SHA-1",
            Self::Sha224 => "SHA-224",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
            Self::Identity => "no hash",
        }
    }

    /// Whether collisions can be made for it.
    pub(crate) fn is_weak(self) -> bool {
        matches!(self, Self::Md5 | Self::Md5Sha1 | Self::Sha1)
    }

    /// The hash of a TLS 1.3 suite.
    pub(crate) fn of_suite(suite: u16) -> Self {
        if suite == 0x1302 { Self::Sha384 } else { Self::Sha256 }
    }

    /// The one that the contents of an OBJECT IDENTIFIER name in a DigestInfo (RFC 8017 appendix B.1).
    pub(crate) fn of_oid(oid: &[u8]) -> Option<Self> {
        Some(match oid {
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 5] => Self::Md5,
            [0x2b, 0x0e, 0x03, 0x02, 0x1a] => Self::Sha1,
            [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, number] => match number {
                1 => Self::Sha256,
                2 => Self::Sha384,
                3 => Self::Sha512,
                4 => Self::Sha224,
                _ => return None,
            },
            _ => return None,
        })
    }

    fn algorithm(self) -> Option<&'static Algorithm> {
        Some(match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha224 => &digest::SHA224,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
            Self::Md5 | Self::Md5Sha1 | Self::Identity => return None,
        })
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
