//! Handshake messages (RFC 5246 §7.4, RFC 8446 §4).

use serde::Serialize;

use super::names::is_grease;
use super::reader::u16s;
use super::{Reader, Version, version};

/// Types of handshake messages.
pub(crate) mod kind {
    pub(crate) const HELLO_REQUEST: u8 = 0;
    pub(crate) const CLIENT_HELLO: u8 = 1;
    pub(crate) const SERVER_HELLO: u8 = 2;
    pub(crate) const ENCRYPTED_EXTENSIONS: u8 = 8;
    pub(crate) const CERTIFICATE: u8 = 11;
    pub(crate) const SERVER_KEY_EXCHANGE: u8 = 12;
    pub(crate) const CERTIFICATE_REQUEST: u8 = 13;
    pub(crate) const SERVER_HELLO_DONE: u8 = 14;
    pub(crate) const CERTIFICATE_VERIFY: u8 = 15;
    pub(crate) const FINISHED: u8 = 20;
    pub(crate) const KEY_UPDATE: u8 = 24;
    pub(crate) const COMPRESSED_CERTIFICATE: u8 = 25;
}

mod extension {
    pub(super) const SERVER_NAME: u16 = 0;
    pub(super) const SUPPORTED_GROUPS: u16 = 10;
    pub(super) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(super) const ALPN: u16 = 16;
    pub(super) const PRE_SHARED_KEY: u16 = 41;
    pub(super) const EARLY_DATA: u16 = 42;
    pub(super) const SUPPORTED_VERSIONS: u16 = 43;
    pub(super) const CERTIFICATE_AUTHORITIES: u16 = 47;
    pub(super) const OID_FILTERS: u16 = 48;
    pub(super) const SIGNATURE_ALGORITHMS_CERT: u16 = 50;
    pub(super) const KEY_SHARE: u16 = 51;
}

/// A message whose bytes do not follow its grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

type Parsed<T> = Result<T, Malformed>;

/// What a client offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientHello {
    /// The version field; since TLS 1.3 the true ones are in `versions`.
    pub legacy_version: Version,
    #[serde(skip)]
    pub(crate) random: [u8; 32],
    #[serde(skip)]
    pub(crate) session_id: Vec<u8>,
    /// Cipher suites, with GREASE values.
    pub suites: Vec<u16>,
    /// The types of the extensions, in their order.
    pub extensions: Vec<u16>,
    /// Versions offered, without GREASE: of the extension, or up to the version field.
    pub versions: Vec<Version>,
    /// Key exchange groups.
    pub groups: Vec<u16>,
    /// The groups of which key shares were sent.
    pub key_shares: Vec<u16>,
    /// Signature schemes that the client verifies. Empty if it did not say.
    pub schemes: Vec<u16>,
    /// The host name that is asked for (SNI).
    pub server_name: Option<String>,
    /// Application protocols (ALPN).
    pub alpn: Vec<String>,
    /// Whether it offers to resume a TLS 1.3 session.
    pub offers_psk: bool,
    /// Whether it sends data before the handshake is done.
    pub early_data: bool,
}

impl ClientHello {
    pub(crate) fn parse(body: &[u8]) -> Parsed<Self> {
        let mut reader = Reader::new(body);
        let mut parse = || {
            let mut hello = Self {
                legacy_version: reader.u16()?,
                random: reader.array()?,
                session_id: reader.vec8()?.to_vec(),
                suites: reader.u16s()?,
                extensions: Vec::new(),
                versions: Vec::new(),
                groups: Vec::new(),
                key_shares: Vec::new(),
                schemes: Vec::new(),
                server_name: None,
                alpn: Vec::new(),
                offers_psk: false,
                early_data: false,
            };
            reader.vec8()?;
            for (kind, body) in extensions(&mut reader)? {
                hello.extensions.push(kind);
                hello.extension(kind, body)?;
            }
            if hello.versions.is_empty() {
                // Whoever does not list them offers all up to one.
                hello.versions = (version::SSL3..=hello.legacy_version.min(version::TLS12)).rev().collect();
            }
            Some(hello)
        };
        parse().filter(|_| reader.is_empty()).ok_or(Malformed)
    }

    fn extension(&mut self, kind: u16, body: &[u8]) -> Option<()> {
        let mut body = Reader::new(body);
        match kind {
            extension::SERVER_NAME if !body.is_empty() => {
                let mut names = Reader::new(body.vec16()?);
                names.u8()?;
                self.server_name = Some(String::from_utf8_lossy(names.vec16()?).into_owned());
            }
            extension::SUPPORTED_GROUPS => self.groups = body.u16s()?,
            extension::SIGNATURE_ALGORITHMS => self.schemes = body.u16s()?,
            extension::ALPN => self.alpn = protocols(&mut body)?,
            extension::PRE_SHARED_KEY => self.offers_psk = true,
            extension::EARLY_DATA => self.early_data = true,
            extension::SUPPORTED_VERSIONS => {
                self.versions = u16s(body.vec8()?)?;
                self.versions.retain(|version| !is_grease(*version));
            }
            extension::KEY_SHARE => {
                let mut shares = Reader::new(body.vec16()?);
                while !shares.is_empty() {
                    self.key_shares.push(shares.u16()?);
                    shares.vec16()?;
                }
            }
            _ => {}
        }
        Some(())
    }
}

/// What a server chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerHello {
    /// The version that is spoken from here on.
    pub version: Version,
    /// The cipher suite that was chosen.
    pub suite: u16,
    /// The key exchange group, in TLS 1.3.
    pub group: Option<u16>,
    /// Whether this asks for another ClientHello (RFC 8446 §4.1.4).
    pub is_retry: bool,
    /// Whether a TLS 1.3 session is resumed.
    pub resumes_psk: bool,
    /// The application protocol, where it is chosen here (TLS 1.2).
    pub alpn: Option<String>,
    #[serde(skip)]
    pub(crate) session_id: Vec<u8>,
    #[serde(skip)]
    pub(crate) random: [u8; 32],
}

/// The random value that makes a ServerHello a HelloRetryRequest: SHA-256 of those words.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

impl ServerHello {
    pub(crate) fn parse(body: &[u8]) -> Parsed<Self> {
        let mut reader = Reader::new(body);
        let mut parse = || {
            let version = reader.u16()?;
            let random = reader.array()?;
            let session_id = reader.vec8()?.to_vec();
            let suite = reader.u16()?;
            reader.u8()?;
            let mut hello = Self {
                version,
                suite,
                group: None,
                is_retry: random == RETRY,
                resumes_psk: false,
                alpn: None,
                session_id,
                random,
            };
            for (kind, body) in extensions(&mut reader)? {
                let mut body = Reader::new(body);
                match kind {
                    extension::SUPPORTED_VERSIONS => hello.version = body.u16()?,
                    extension::KEY_SHARE => hello.group = Some(body.u16()?),
                    extension::PRE_SHARED_KEY => hello.resumes_psk = true,
                    extension::ALPN => hello.alpn = protocols(&mut body)?.into_iter().next(),
                    _ => {}
                }
            }
            Some(hello)
        };
        parse().filter(|_| reader.is_empty()).ok_or(Malformed)
    }
}

/// The ALPN protocol of EncryptedExtensions.
pub(crate) fn encrypted_extensions_alpn(body: &[u8]) -> Parsed<Option<String>> {
    let mut reader = Reader::new(body);
    let mut alpn = None;
    for (kind, body) in extensions(&mut reader).ok_or(Malformed)? {
        if kind == extension::ALPN {
            alpn = protocols(&mut Reader::new(body)).ok_or(Malformed)?.into_iter().next();
        }
    }
    Ok(alpn)
}

/// The DER certificates of a Certificate message, in their order.
pub(crate) fn certificates(body: &[u8], version: Version) -> Parsed<Vec<Vec<u8>>> {
    let mut reader = Reader::new(body);
    let mut parse = || {
        if version >= version::TLS13 {
            reader.vec8()?;
        }
        let mut list = Reader::new(reader.vec24()?);
        let mut certificates = Vec::new();
        while !list.is_empty() {
            certificates.push(list.vec24()?.to_vec());
            if version >= version::TLS13 {
                list.vec16()?;
            }
        }
        Some(certificates)
    };
    parse().filter(|_| reader.is_empty()).ok_or(Malformed)
}

/// What a server asks of a client's certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CertificateRequest {
    /// Certificate types (before TLS 1.3): 1 RSA, 64 ECDSA.
    pub certificate_types: Vec<u8>,
    /// Signature schemes that may be used (since TLS 1.2).
    pub schemes: Vec<u16>,
    /// The same for the signatures in the chain, if it was said.
    pub certificate_schemes: Vec<u16>,
    /// DER names of CAs whose certificates are taken; empty if any may be tried.
    #[serde(skip)]
    pub authorities: Vec<Vec<u8>>,
    /// Whether there are filters on extensions (RFC 8446 §4.2.5).
    pub oid_filters: bool,
}

impl CertificateRequest {
    pub(crate) fn parse(body: &[u8], version: Version) -> Parsed<Self> {
        let mut reader = Reader::new(body);
        let mut request = Self::default();
        let mut parse = || {
            if version >= version::TLS13 {
                reader.vec8()?;
                for (kind, body) in extensions(&mut reader)? {
                    let mut body = Reader::new(body);
                    match kind {
                        extension::SIGNATURE_ALGORITHMS => request.schemes = body.u16s()?,
                        extension::SIGNATURE_ALGORITHMS_CERT => request.certificate_schemes = body.u16s()?,
                        extension::CERTIFICATE_AUTHORITIES => request.authorities = names(body.vec16()?)?,
                        extension::OID_FILTERS => request.oid_filters = !body.vec16()?.is_empty(),
                        _ => {}
                    }
                }
                return Some(());
            }
            request.certificate_types = reader.vec8()?.to_vec();
            if version >= version::TLS12 {
                request.schemes = reader.u16s()?;
            }
            request.authorities = names(reader.vec16()?)?;
            Some(())
        };
        parse().filter(|()| reader.is_empty()).ok_or(Malformed)?;
        Ok(request)
    }
}

/// A signature, and what it claims to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateVerify {
    /// The code point of the scheme. Before TLS 1.2 there is no such field.
    pub scheme: Option<u16>,
    /// The signature as it was sent.
    pub signature: Vec<u8>,
}

impl CertificateVerify {
    pub(crate) fn parse(body: &[u8], version: Version) -> Parsed<Self> {
        let mut reader = Reader::new(body);
        let mut parse = || {
            let scheme = if version >= version::TLS12 { Some(reader.u16()?) } else { None };
            Some(Self { scheme, signature: reader.vec16()?.to_vec() })
        };
        parse().filter(|_| reader.is_empty()).ok_or(Malformed)
    }
}

/// How keys are agreed upon in a TLS 1.2 or older suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum KeyExchange {
    Rsa,
    Dhe,
    Ecdhe,
    /// None that is understood here.
    Other,
}

/// A server's share of a TLS 1.2 or older key exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerKeyExchange {
    /// The named group, of ECDHE.
    pub group: Option<u16>,
    /// The bits of the prime, of DHE.
    pub prime_bits: Option<usize>,
    /// The parameters as they were sent, which the signature is over.
    pub(crate) parameters: Vec<u8>,
    /// None from an anonymous server.
    pub signature: Option<CertificateVerify>,
}

impl ServerKeyExchange {
    pub(crate) fn parse(body: &[u8], version: Version, exchange: KeyExchange) -> Parsed<Self> {
        let mut reader = Reader::new(body);
        let mut parse = || {
            let (mut group, mut prime_bits) = (None, None);
            match exchange {
                KeyExchange::Ecdhe => {
                    if reader.u8()? != 3 {
                        return None;
                    }
                    group = Some(reader.u16()?);
                    reader.vec8()?;
                }
                KeyExchange::Dhe => {
                    let prime = reader.vec16()?;
                    let zeros = prime.iter().take_while(|byte| **byte == 0).count();
                    let unused = prime.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
                    prime_bits = Some((prime.len() - zeros) * 8 - unused);
                    reader.vec16()?;
                    reader.vec16()?;
                }
                KeyExchange::Rsa | KeyExchange::Other => return None,
            }
            let mut left = reader;
            let parameters = body.get(..body.len() - left.rest().len())?.to_vec();
            let signature = if reader.is_empty() {
                None
            } else {
                CertificateVerify::parse(reader.rest(), version).map(Some).ok()?
            };
            Some(Self { group, prime_bits, parameters, signature })
        };
        parse().ok_or(Malformed)
    }
}

/// The extensions at the end of a message; there may be none at all.
fn extensions<'a>(reader: &mut Reader<'a>) -> Option<Vec<(u16, &'a [u8])>> {
    let mut found = Vec::new();
    if reader.is_empty() {
        return Some(found);
    }
    let mut list = Reader::new(reader.vec16()?);
    while !list.is_empty() {
        found.push((list.u16()?, list.vec16()?));
    }
    Some(found)
}

fn protocols(reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let mut list = Reader::new(reader.vec16()?);
    let mut protocols = Vec::new();
    while !list.is_empty() {
        protocols.push(String::from_utf8_lossy(list.vec8()?).into_owned());
    }
    Some(protocols)
}

fn names(list: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut list = Reader::new(list);
    let mut names = Vec::new();
    while !list.is_empty() {
        names.push(list.vec16()?.to_vec());
    }
    Some(names)
}
