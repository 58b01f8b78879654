//! One-time enrolment tokens: everything that a device needs to know of an authority, in one line.
//!
//! A token is `enclasp1_` and the base64url (RFC 4648 §5, no padding) of a
//! [postcard](https://postcard.jamesmunns.com) record. The line has neither a colon nor white space, so that
//! the whole of it can be the password of HTTP Basic (RFC 7617) for any EST client. The authority
//! finds the token by its id, compares a hash of its secret, and believes nothing else in it: what
//! may be issued, and until when, stands in the authority's own records.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use enclasp_pki::{DistinguishedName, SubjectAltName, rfc3339};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{Endpoint, Error, Result, duration};

const PREFIX: &str = "enclasp1_";

/// The length in bytes of the longest token. It leaves room for some hundred names, and a request
/// that carries it fits the header limits of common HTTP programs.
pub const MAX_TOKEN: usize = 16 * 1024;

/// 9999-12-31T23:59:59Z, the last time that a certificate can hold (RFC 5280 §4.1.2.5).
const LAST_TIME: u64 = 253_402_300_799;

/// A one-time enrolment token. Its `Debug` form shows nothing of the secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct Token {
    authority: Endpoint,
    root: [u8; 32],
    id: [u8; 16],
    secret: Secret,
    common_name: String,
    subject_alt_names: Vec<SubjectAltName>,
    profile: String,
    /// Seconds since the Unix epoch.
    expires: u64,
}

#[derive(Clone, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
struct Secret([u8; 32]);

/// What a token says apart from its random parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenContents {
    /// Where to enrol.
    pub authority: Endpoint,
    /// SHA-256 of the DER of the authority's root certificate.
    pub root: [u8; 32],
    /// The common name of the certificate to be.
    pub common_name: String,
    /// Its subject alternative names.
    pub subject_alt_names: Vec<SubjectAltName>,
    /// The profile that it is issued under.
    pub profile: String,
    /// When the token ceases to be good. Whole seconds count.
    pub expires: SystemTime,
}

impl Token {
    /// A new token with a random id (128 bits) and a random secret (256 bits).
    ///
    /// # Errors
    /// [`Error::Token`] if it would be longer than [`MAX_TOKEN`] or its time cannot be written.
    pub fn generate(contents: TokenContents) -> Result<Self> {
        let expires = contents
            .expires
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()
            .map(|since| since.as_secs())
            .filter(|seconds| *seconds <= LAST_TIME)
            .ok_or_else(|| refused("its lifetime ends before 1970 or after 9999"))?;
        let mut token = Self {
            authority: contents.authority,
            root: contents.root,
            id: [0; 16],
            secret: Secret([0; 32]),
            common_name: contents.common_name,
            subject_alt_names: contents.subject_alt_names,
            profile: contents.profile,
            expires,
        };
        rand::fill(&mut token.id)
            .and_then(|()| rand::fill(&mut token.secret.0))
            .map_err(|_| refused("the system gave no random bytes"))?;
        let length = token.to_line()?.len();
        if length > MAX_TOKEN {
            return Err(refused(format!(
                "its names make it {length} bytes long, and {MAX_TOKEN} is the limit"
            )));
        }
        Ok(token)
    }

    /// Reads a token; white space around it does not matter.
    ///
    /// # Errors
    /// [`Error::Token`], which does not repeat the text.
    pub fn parse(text: &str) -> Result<Self> {
        let line = text.trim();
        if line.len() > MAX_TOKEN {
            return Err(refused(format!("it is longer than {MAX_TOKEN} bytes")));
        }
        if line.is_empty() {
            return Err(refused("it is empty"));
        }
        let encoded =
            line.strip_prefix(PREFIX).ok_or_else(|| refused(format!("it does not begin with `{PREFIX}`")))?;
        let bytes = URL_SAFE_NO_PAD
            .decode(encoded)
            .map(Zeroizing::new)
            .map_err(|_| refused("it is damaged: not base64url; was all of it copied?"))?;
        let token: Self = postcard::from_bytes(&bytes)
            .map_err(|_| refused("it is damaged: a part is missing or wrong; was all of it copied?"))?;
        // One token has one spelling: nothing hangs behind it, and no number has a longer form.
        if token.expires > LAST_TIME || *token.to_line()? != *line {
            return Err(refused("it is damaged: it is not written the way that tokens are"));
        }
        Ok(token)
    }

    /// The token as the line that [`parse`](Self::parse) reads.
    ///
    /// # Errors
    /// [`Error::Token`]; not for a token that was parsed.
    pub fn to_line(&self) -> Result<Zeroizing<String>> {
        let bytes = postcard::to_allocvec(self).map(Zeroizing::new).map_err(|e| refused(e.to_string()))?;
        let mut line = Zeroizing::new(String::with_capacity(PREFIX.len() + bytes.len() * 4 / 3 + 3));
        line.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&*bytes, &mut line);
        Ok(line)
    }

    /// Where to enrol.
    pub fn authority(&self) -> &Endpoint {
        &self.authority
    }

    /// SHA-256 of the DER of the authority's root certificate.
    pub fn root(&self) -> [u8; 32] {
        self.root
    }

    /// The public name of the token: 32 lower-case hexadecimal digits.
    pub fn id(&self) -> String {
        hex(&self.id)
    }

    /// SHA-256 of the secret, which is all that the authority keeps of it.
    pub fn secret_hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &self.secret.0).as_ref());
        hash
    }

    /// The common name of the certificate to be.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// The subject of the certificate to be.
    ///
    /// # Errors
    /// As [`subject_of`].
    pub fn subject(&self) -> Result<DistinguishedName> {
        subject_of(&self.common_name)
    }

    /// Its subject alternative names.
    pub fn subject_alt_names(&self) -> &[SubjectAltName] {
        &self.subject_alt_names
    }

    /// The profile that it is issued under.
    pub fn profile(&self) -> &str {
        &self.profile
    }

    /// When the token ceases to be good.
    pub fn expires(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.expires)
    }

    /// Checks that the token is still good by this machine's clock.
    ///
    /// # Errors
    /// [`Error::Expired`].
    pub fn check(&self, now: SystemTime) -> Result<()> {
        match now.duration_since(self.expires()) {
            Ok(since) => Err(Error::Expired {
                ago: duration::in_words(since),
                at: rfc3339(self.expires()),
                common_name: self.common_name.clone(),
            }),
            Err(_) => Ok(()),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("authority", &self.authority)
            .field("id", &self.id())
            .field("common_name", &self.common_name)
            .finish_non_exhaustive()
    }
}

/// The distinguished name that consists of this common name alone.
///
/// # Errors
/// [`Error::Pki`] if it is empty or longer than X.520 allows.
pub fn subject_of(common_name: &str) -> Result<DistinguishedName> {
    // Escaped through and through, so that no character means anything (RFC 4514 §2.4).
    let escaped: String = common_name.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    Ok(format!("CN={escaped}").parse()?)
}

/// Lower-case hexadecimal digits without separators.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn refused(reason: impl Into<String>) -> Error {
    Error::Token { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::generate(TokenContents {
            authority: "https://127.0.0.1:8443".parse().unwrap(),
            root: [7; 32],
            common_name: "laptop-17".into(),
            subject_alt_names: vec!["dns:laptop-17".parse().unwrap()],
            profile: "client".into(),
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
        })
        .unwrap()
    }

    #[test]
    fn refuses_what_is_not_a_token() {
        let good = token().to_line().unwrap();
        let longer = {
            let mut bytes = URL_SAFE_NO_PAD.decode(&good[PREFIX.len()..]).unwrap();
            bytes.push(0);
            format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
        };
        for (text, reason) in [
            ("", "empty"),
            ("  \n", "empty"),
            ("hunter2", "does not begin"),
            ("enclasp1_", "part is missing"),
            ("enclasp1_****", "base64url"),
            (&good[..good.len() - 4], "missing"),
            (&longer, "not written"),
            (&"x".repeat(MAX_TOKEN + 1), "longer than"),
        ] {
            let error = Token::parse(text).unwrap_err();
            assert!(error.to_string().contains(reason), "{text}: {error}");
            assert!(error.hint().is_some());
        }
        // Every single damaged byte is either noticed or changes only what the server checks.
        for i in 0..good.len() {
            let mut bytes = good.as_bytes().to_vec();
            bytes[i] ^= 1;
            if let Ok(damaged) = Token::parse(&String::from_utf8(bytes).unwrap()) {
                assert_ne!(*damaged.to_line().unwrap(), *good);
            }
        }
    }

    #[test]
    fn refuses_too_many_names() {
        let mut contents = TokenContents {
            authority: "https://ca".parse().unwrap(),
            root: [0; 32],
            common_name: "x".into(),
            subject_alt_names: Vec::new(),
            profile: "client".into(),
            expires: SystemTime::now(),
        };
        contents.subject_alt_names =
            (0..2000).map(|i| format!("dns:host-{i}.example").parse().unwrap()).collect();
        let error = Token::generate(contents).unwrap_err().to_string();
        assert!(error.contains("limit"), "{error}");
    }

    #[test]
    fn expires() {
        let token = token();
        let error = token.check(token.expires() + Duration::from_secs(185)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the token for `laptop-17` expired 3 minutes ago, at 1970-01-12T13:46:40Z"
        );
        assert!(error.hint().unwrap().contains("enclasp ca token"));
        token.check(token.expires() - Duration::from_secs(1)).unwrap();
    }

    #[test]
    fn a_line_parses_back() {
        let token = token();
        let line = token.to_line().unwrap();
        assert!(!line.contains(|c: char| c == ':' || c.is_whitespace()));
        let parsed = Token::parse(&format!(" {}\r\n", *line)).unwrap();
        assert_eq!(parsed.secret_hash(), token.secret_hash());
        assert_eq!(parsed.id(), token.id());
        assert_eq!(parsed.subject_alt_names(), token.subject_alt_names());
        assert_eq!(parsed.authority(), token.authority());
        assert_ne!(
            Token::generate(TokenContents {
                authority: token.authority.clone(),
                root: token.root,
                common_name: token.common_name.clone(),
                subject_alt_names: Vec::new(),
                profile: "client".into(),
                expires: token.expires(),
            })
            .unwrap()
            .secret_hash(),
            token.secret_hash()
        );
    }

    #[test]
    fn debug_shows_no_secret() {
        let token = token();
        let shown = format!("{token:?}");
        assert!(shown.contains("laptop-17"));
        assert!(!shown.contains(&hex(&token.secret.0)) && !shown.contains("secret"));
    }
}
