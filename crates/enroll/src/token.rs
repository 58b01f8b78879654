//! One-time enrolment tokens: everything that a device needs to know of an authority, in one line.
//!
//! A token is `enclasp1_SECRET.CONTENTS`, both in base64url (RFC 4648 §5, no padding): 256 random
//! bits, and a [postcard](https://postcard.jamesmunns.com) record of where to enrol, as what, and
//! how to know the authority. The line has neither a colon nor white space, so that it can be the
//! password of HTTP Basic (RFC 7617) for any EST client. For a client that takes no long passwords
//! (strongSwan's takes about 170 bytes) the part before the dot is enough: the authority finds the
//! token by the secret's hash and believes nothing that stands behind it. What may be issued, and
//! until when, is in its own records.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use enclasp_pki::{DistinguishedName, SubjectAltName, rfc3339};
use serde::{Deserialize, Serialize};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::{Endpoint, Error, Result, duration};

const PREFIX: &str = "enclasp1_";

/// The length in bytes of the longest token: 64 KiB of names fit.
pub const MAX_TOKEN: usize = 128 * 1024;

/// 9999-12-31T23:59:59Z, the last time that a certificate can hold (RFC 5280 §4.1.2.5).
const LAST_TIME: u64 = 253_402_300_799;

/// A one-time enrolment token. Its `Debug` form shows nothing of the secret.
#[derive(Clone)]
pub struct Token {
    secret: TokenSecret,
    contents: TokenContents,
}

/// The part of a token that pays for a certificate.
#[derive(Clone, ZeroizeOnDrop)]
pub struct TokenSecret([u8; 32]);

/// What a token says to the device.
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
    /// When the token ceases to be good, in whole seconds.
    pub expires: SystemTime,
}

impl Token {
    /// A new token with a random secret.
    ///
    /// # Errors
    /// [`Error::Token`] if it would be longer than [`MAX_TOKEN`] or its time cannot be written.
    pub fn generate(mut contents: TokenContents) -> Result<Self> {
        contents.expires = time(seconds(contents.expires)?)?;
        let mut secret = TokenSecret([0; 32]);
        rand::fill(&mut secret.0).map_err(|_| refused("the system gave no random bytes"))?;
        let token = Self { secret, contents };
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
        let secret = TokenSecret::parse(line)?;
        let (_, encoded) = line.split_once('.').ok_or_else(|| damaged("it ends with its secret"))?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| damaged("its contents are not base64url"))?;
        let packed: Packed = postcard::from_bytes(&bytes)
            .map_err(|_| damaged("a part of its contents is missing or wrong"))?;
        let authority = format!("https://{}", packed.authority);
        let token = Self {
            secret,
            contents: TokenContents {
                authority: authority.parse().map_err(|e: Error| damaged(&e.to_string()))?,
                root: packed.root,
                common_name: packed.common_name,
                subject_alt_names: packed.subject_alt_names,
                expires: time(packed.expires)?,
            },
        };
        // One token has one spelling: nothing hangs behind it, and no number has a longer form.
        if *token.to_line()? != *line {
            return Err(damaged("it is not written the way that tokens are"));
        }
        Ok(token)
    }

    /// The token as the line that [`parse`](Self::parse) reads.
    ///
    /// # Errors
    /// [`Error::Token`]; not for a token that was made or parsed.
    pub fn to_line(&self) -> Result<Zeroizing<String>> {
        let packed = Packed {
            root: self.contents.root,
            expires: seconds(self.contents.expires)?,
            authority: self.contents.authority.host_and_port(),
            common_name: self.contents.common_name.clone(),
            subject_alt_names: self.contents.subject_alt_names.clone(),
        };
        let bytes = postcard::to_allocvec(&packed).map_err(|e| refused(e.to_string()))?;
        Ok(Zeroizing::new([self.secret.to_line().as_str(), ".", &URL_SAFE_NO_PAD.encode(bytes)].concat()))
    }

    /// What pays for the certificate.
    pub fn secret(&self) -> &TokenSecret {
        &self.secret
    }

    /// What the token says to the device.
    pub fn contents(&self) -> &TokenContents {
        &self.contents
    }

    /// The public name of the token: as [`TokenSecret::id`].
    pub fn id(&self) -> String {
        self.secret.id()
    }

    /// The subject of the certificate to be.
    ///
    /// # Errors
    /// As [`subject_of`].
    pub fn subject(&self) -> Result<DistinguishedName> {
        subject_of(&self.contents.common_name)
    }

    /// Checks that the token is still good by this machine's clock.
    ///
    /// # Errors
    /// [`Error::Expired`].
    pub fn check(&self, now: SystemTime) -> Result<()> {
        match now.duration_since(self.contents.expires) {
            Ok(since) => Err(Error::Expired {
                ago: duration::in_words(since),
                at: rfc3339(self.contents.expires),
                common_name: self.contents.common_name.clone(),
            }),
            Err(_) => Ok(()),
        }
    }
}

impl TokenSecret {
    /// Reads the secret of a token, from the whole token or from the part before its dot.
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
        let rest =
            line.strip_prefix(PREFIX).ok_or_else(|| refused(format!("it does not begin with `{PREFIX}`")))?;
        let encoded = rest.split_once('.').map_or(rest, |(secret, _)| secret);
        let bytes = Zeroizing::new(
            URL_SAFE_NO_PAD.decode(encoded).map_err(|_| damaged("its secret is not base64url"))?,
        );
        let mut secret = Self([0; 32]);
        if bytes.len() != secret.0.len() {
            return Err(damaged("its secret has not the right length"));
        }
        secret.0.copy_from_slice(&bytes);
        Ok(secret)
    }

    /// The token up to its dot, which is a password that every EST client can send.
    pub fn to_line(&self) -> Zeroizing<String> {
        let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.0));
        Zeroizing::new([PREFIX, &encoded].concat())
    }

    /// SHA-256 of the secret, which is all that the authority keeps of it.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &self.0).as_ref());
        hash
    }

    /// The public name of the token: the first 128 bits of the hash in 32 lower-case hexadecimal
    /// digits.
    pub fn id(&self) -> String {
        hex(&self.hash()[..16])
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id())
            .field("contents", &self.contents)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSecret").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// The contents as they stand in a token.
#[derive(Serialize, Deserialize)]
struct Packed {
    root: [u8; 32],
    /// Seconds since the Unix epoch.
    expires: u64,
    /// The URL without its scheme.
    authority: String,
    common_name: String,
    subject_alt_names: Vec<SubjectAltName>,
}

fn seconds(time: SystemTime) -> Result<u64> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| refused("it expired before 1970"))?;
    Ok(since.as_secs())
}

fn time(seconds: u64) -> Result<SystemTime> {
    if seconds > LAST_TIME {
        return Err(refused("it expires after the year 9999"));
    }
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
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

fn damaged(reason: &str) -> Error {
    refused(format!("it is damaged: {reason}; was all of it copied?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> TokenContents {
        TokenContents {
            authority: "https://127.0.0.1:8443".parse().unwrap(),
            root: [7; 32],
            common_name: "laptop-17".into(),
            subject_alt_names: vec!["dns:laptop-17".parse().unwrap()],
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
        }
    }

    fn token() -> Token {
        Token::generate(contents()).unwrap()
    }

    #[test]
    fn refuses_what_is_not_a_token() {
        let good = token().to_line().unwrap();
        let (secret, encoded) = good.split_once('.').unwrap();
        let longer = {
            let mut bytes = URL_SAFE_NO_PAD.decode(encoded).unwrap();
            bytes.push(0);
            format!("{secret}.{}", URL_SAFE_NO_PAD.encode(bytes))
        };
        for (text, reason) in [
            ("", "empty"),
            ("  \n", "empty"),
            ("hunter2", "does not begin"),
            ("enclasp1_", "right length"),
            ("enclasp1_****", "base64url"),
            (secret, "ends with its secret"),
            (&format!("{secret}."), "missing"),
            (&format!("{secret}.***"), "base64url"),
            (&good[..good.len() - 4], "missing"),
            (&longer, "not written"),
            (&"x".repeat(MAX_TOKEN + 1), "longer than"),
        ] {
            let error = Token::parse(text).unwrap_err();
            assert!(error.to_string().contains(reason), "{text}: {error}");
            assert!(error.hint().is_some());
        }
        // Every damaged byte is noticed, or makes another token.
        for i in 0..good.len() {
            let mut bytes = good.as_bytes().to_vec();
            bytes[i] ^= 1;
            if let Ok(damaged) = Token::parse(&String::from_utf8(bytes).unwrap()) {
                assert_ne!(*damaged.to_line().unwrap(), *good);
            }
        }
    }

    #[test]
    fn refuses_what_no_token_can_hold() {
        let mut large = contents();
        large.subject_alt_names =
            (0..8000).map(|i| format!("dns:host-{i}.example").parse().unwrap()).collect();
        assert!(Token::generate(large).unwrap_err().to_string().contains("limit"));
        let mut late = contents();
        late.expires += Duration::from_secs(LAST_TIME);
        assert!(Token::generate(late).unwrap_err().to_string().contains("9999"));
    }

    #[test]
    fn expires() {
        let token = token();
        let end = token.contents().expires;
        let error = token.check(end + Duration::from_secs(185)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the token for `laptop-17` expired 3 minutes ago, at 1970-01-12T13:46:40Z"
        );
        assert!(error.hint().unwrap().contains("enclasp ca token"));
        token.check(end - Duration::from_secs(1)).unwrap();
    }

    #[test]
    fn a_line_parses_back() {
        let token = token();
        let line = token.to_line().unwrap();
        assert!(!line.contains(|c: char| c == ':' || c.is_whitespace()));
        let parsed = Token::parse(&format!(" {}\r\n", *line)).unwrap();
        assert_eq!(parsed.contents(), token.contents());
        assert_eq!(parsed.secret().hash(), token.secret().hash());
        for password in [line.as_str(), line.split_once('.').unwrap().0] {
            assert_eq!(TokenSecret::parse(password).unwrap().hash(), token.secret().hash());
        }
        assert_ne!(self::token().id(), token.id());
    }

    #[test]
    fn common_tokens_fit_short_passwords() {
        assert!(token().to_line().unwrap().len() <= 170);
    }

    #[test]
    fn debug_shows_no_secret() {
        let token = token();
        let shown = format!("{token:?} {:?}", token.secret());
        assert!(shown.contains("laptop-17"));
        assert!(!shown.contains(&*token.secret().to_line()) && !shown.contains(&hex(&token.secret().0)));
    }
}
