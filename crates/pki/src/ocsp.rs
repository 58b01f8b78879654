//! The Online Certificate Status Protocol (RFC 6960): requests from outside, and answers that a
//! delegated responder signs; and from the asking side, [`ocsp_request`] and [`OcspAnswer`].

mod answer;

use std::time::SystemTime;

use aws_lc_rs::digest;
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::{ID_SHA_1, ID_SHA_256};
use const_oid::db::rfc6960::{ID_PKIX_OCSP_BASIC, ID_PKIX_OCSP_NONCE};
use der::asn1::{Any, AnyRef, BitStringRef, GeneralizedTime, Int, Null, OctetString, OctetStringRef};
use der::referenced::OwnedToRef;
use der::{Choice, Decode, Encode, Enumerated, Sequence};
use enclasp_keystore::{Key, SignContext};
use spki::{AlgorithmIdentifierOwned, AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::CrlReason;

use crate::crl::serial_number;
use crate::encoding::{encoded, hex, in_field, malformed, sequence};
use crate::signing::{algorithm_identifier, scheme_for, sign};
use crate::{Certificate, Result, Revoked};

pub use answer::{OcspAnswer, ocsp_request};

const WHAT: &str = "OCSP request";
const ANSWER: &str = "OCSP response";

/// The length in bytes of the longest request that is read.
pub const MAX_REQUEST: usize = 4096;

/// How many certificates one request may ask about.
const MAX_CERTIFICATES: usize = 16;

/// The longest nonce (RFC 9654 §2.1).
const MAX_NONCE: usize = 128;

/// A question about some certificates. A signature that it may have is passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcspRequest {
    certificates: Vec<CertId>,
    nonce: Option<Vec<u8>>,
}

/// How a request names a certificate (RFC 6960 §4.1.1).
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct CertId {
    hash_algorithm: AlgorithmIdentifierOwned,
    issuer_name_hash: OctetString,
    issuer_key_hash: OctetString,
    serial_number: Int,
}

/// What is known of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertStatus {
    /// It was issued and is not revoked.
    Good,
    /// It is revoked.
    Revoked(Revoked),
    /// The issuer has not issued it.
    Unknown,
}

/// Why there is no answer (RFC 6960 §4.2.1); it needs no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OcspRefusal {
    /// The request is not in order.
    MalformedRequest,
    /// The responder failed.
    InternalError,
    /// The responder cannot do it now.
    TryLater,
    /// The responder does not answer for that issuer.
    Unauthorized,
}

impl OcspRequest {
    /// Reads DER.
    ///
    /// # Errors
    /// [`Error::Malformed`](crate::Error::Malformed).
    pub fn from_der(der: &[u8]) -> Result<Self> {
        if der.len() > MAX_REQUEST {
            return Err(malformed(WHAT, format!("it is longer than {MAX_REQUEST} bytes")));
        }
        sequence(WHAT, der)?;
        let request = in_field(WHAT, "the whole", WireRequest::from_der(der))?.content;
        if request.list.is_empty() || request.list.len() > MAX_CERTIFICATES {
            let count = request.list.len();
            return Err(malformed(
                WHAT,
                format!("it asks about {count} certificates, not 1 to {MAX_CERTIFICATES}"),
            ));
        }
        let nonce =
            request.extensions.iter().flatten().find(|extension| extension.extn_id == ID_PKIX_OCSP_NONCE);
        let nonce = match nonce {
            None => None,
            Some(nonce) => {
                let value =
                    in_field(WHAT, "nonce", <&OctetStringRef>::from_der(nonce.extn_value.as_bytes()))?;
                if value.is_empty() || value.as_bytes().len() > MAX_NONCE {
                    return Err(malformed(WHAT, format!("nonce: it has not 1 to {MAX_NONCE} bytes")));
                }
                Some(value.as_bytes().to_vec())
            }
        };
        Ok(Self { certificates: request.list.into_iter().map(|single| single.certificate).collect(), nonce })
    }

    /// The certificates that it asks about: one, almost always.
    pub fn certificates(&self) -> &[CertId] {
        &self.certificates
    }

    /// What the answer has to repeat, so that it is fresh.
    pub fn nonce(&self) -> Option<&[u8]> {
        self.nonce.as_deref()
    }
}

impl CertId {
    /// The serial number, as [`Certificate::serial`] has it. Empty if it is negative.
    pub fn serial(&self) -> String {
        let bytes = self.serial_number.as_bytes();
        match bytes.first() {
            Some(first) if first & 0x80 == 0 => {
                let zeros = bytes.iter().take_while(|byte| **byte == 0).count().min(bytes.len() - 1);
                hex(bytes.get(zeros..).unwrap_or_default())
            }
            _ => String::new(),
        }
    }

    /// Whether it is of a certificate that `issuer` issued.
    pub fn is_of(&self, issuer: &Certificate) -> bool {
        let algorithm = match self.hash_algorithm.oid {
            ID_SHA_1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            ID_SHA_256 => &digest::SHA256,
            _ => return false,
        };
        let (Ok(name), Ok(key)) = (issuer.subject().as_name().to_der(), key_bits(issuer.spki())) else {
            return false;
        };
        digest::digest(algorithm, &name).as_ref() == self.issuer_name_hash.as_bytes()
            && digest::digest(algorithm, key).as_ref() == self.issuer_key_hash.as_bytes()
    }

    /// What names the same certificate in the same way.
    ///
    /// # Errors
    /// [`Error::Encoding`](crate::Error::Encoding); not for one that was read.
    pub fn to_der(&self) -> Result<Vec<u8>> {
        encoded(WHAT, Encode::to_der(self))
    }

    /// How a client asks about `serial` of `issuer`, by SHA-1 as RFC 5019 §2.1.1 wants it.
    ///
    /// # Errors
    /// [`Error::Malformed`](crate::Error::Malformed) if the serial number is not hexadecimal.
    pub fn new(issuer: &Certificate, serial: &str) -> Result<Self> {
        let hash = |bytes: &[u8]| {
            let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
            encoded(WHAT, OctetString::new(digest.as_ref()))
        };
        let serial = serial_number(serial)?;
        Ok(Self {
            hash_algorithm: AlgorithmIdentifierOwned {
                oid: ID_SHA_1,
                parameters: Some(der::asn1::Any::null()),
            },
            issuer_name_hash: hash(&encoded(WHAT, issuer.subject().as_name().to_der())?)?,
            issuer_key_hash: hash(key_bits(issuer.spki())?)?,
            serial_number: encoded(WHAT, Int::new(serial.as_bytes()))?,
        })
    }
}

/// A signed answer about certificates that one issuer issued. `responder` is the certificate of
/// `key`, which that issuer gave it. Returns the DER of an OCSPResponse.
///
/// # Errors
/// [`Error::Encoding`](crate::Error::Encoding) for a time beyond the year 9999;
/// [`Error::Key`](crate::Error::Key) if the key refuses, or signs wrongly.
pub fn ocsp_response(
    key: &dyn Key,
    responder: &Certificate,
    statuses: &[(CertId, CertStatus)],
    nonce: Option<&[u8]>,
    (this_update, next_update): (SystemTime, SystemTime),
    ctx: &SignContext,
) -> Result<Vec<u8>> {
    let scheme = scheme_for(key)?;
    let this_update = time(this_update)?;
    let responses = statuses.iter().map(|(id, status)| {
        Ok(SingleResponse {
            certificate: id.clone(),
            status: WireStatus::of(status)?,
            this_update,
            next_update: Some(time(next_update)?),
            extensions: None,
        })
    });
    let extensions = match nonce {
        None => None,
        Some(nonce) => {
            let value = encoded(ANSWER, OctetString::new(nonce).and_then(|nonce| nonce.to_der()))?;
            let value = encoded(ANSWER, OctetString::new(value))?;
            Some(vec![Extension { extn_id: ID_PKIX_OCSP_NONCE, critical: false, extn_value: value }])
        }
    };
    let key_hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key_bits(responder.spki())?);
    let content = ResponseData {
        version: None,
        responder: ResponderId::ByKey(encoded(ANSWER, OctetString::new(key_hash.as_ref()))?),
        produced_at: this_update,
        responses: responses.collect::<Result<_>>()?,
        extensions,
    };
    let content = encoded(ANSWER, content.to_der())?;
    let signature = sign(key, scheme, &content, ctx)?;
    let algorithm = algorithm_identifier(scheme)?;
    let basic = BasicResponse {
        content: encoded(ANSWER, AnyRef::from_der(&content))?,
        algorithm: algorithm.owned_to_ref(),
        signature: encoded(ANSWER, BitStringRef::from_bytes(&signature))?,
        certificates: Some(vec![encoded(ANSWER, AnyRef::from_der(responder.der()))?]),
    };
    let basic = encoded(ANSWER, basic.to_der())?;
    let bytes =
        ResponseBytes { kind: ID_PKIX_OCSP_BASIC, response: encoded(ANSWER, OctetString::new(basic))? };
    encoded(ANSWER, Response { status: ResponseStatus::Successful, bytes: Some(bytes) }.to_der())
}

impl OcspRefusal {
    /// The DER of an OCSPResponse that says so.
    ///
    /// # Errors
    /// [`Error::Encoding`](crate::Error::Encoding); it does not happen.
    pub fn to_der(self) -> Result<Vec<u8>> {
        let status = match self {
            Self::MalformedRequest => ResponseStatus::MalformedRequest,
            Self::InternalError => ResponseStatus::InternalError,
            Self::TryLater => ResponseStatus::TryLater,
            Self::Unauthorized => ResponseStatus::Unauthorized,
        };
        encoded(ANSWER, Response { status, bytes: None }.to_der())
    }
}

/// The content of the BIT STRING in a SubjectPublicKeyInfo, which is what OCSP hashes.
fn key_bits(spki: &[u8]) -> Result<&[u8]> {
    let spki = in_field("public key", "SubjectPublicKeyInfo", SubjectPublicKeyInfoRef::from_der(spki))?;
    Ok(spki.subject_public_key.raw_bytes())
}

fn time(time: SystemTime) -> Result<GeneralizedTime> {
    // Without fractions of a second (RFC 5280 §4.1.2.5.2).
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    encoded(ANSWER, GeneralizedTime::from_unix_duration(std::time::Duration::from_secs(since.as_secs())))
}

#[derive(Sequence)]
struct WireRequest<'a> {
    content: TbsRequest<'a>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    signature: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct TbsRequest<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    version: Option<u8>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    requestor: Option<AnyRef<'a>>,
    list: Vec<SingleRequest>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Vec<Extension>>,
}

#[derive(Sequence)]
struct SingleRequest {
    certificate: CertId,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Vec<Extension>>,
}

#[derive(Sequence)]
struct Response {
    status: ResponseStatus,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    bytes: Option<ResponseBytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumerated)]
#[repr(u8)]
enum ResponseStatus {
    Successful = 0,
    MalformedRequest = 1,
    InternalError = 2,
    TryLater = 3,
    SigRequired = 5,
    Unauthorized = 6,
}

#[derive(Sequence)]
struct ResponseBytes {
    kind: ObjectIdentifier,
    response: OctetString,
}

#[derive(Sequence)]
struct BasicResponse<'a> {
    /// A [`ResponseData`], as it was signed.
    content: AnyRef<'a>,
    algorithm: AlgorithmIdentifierRef<'a>,
    signature: BitStringRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    certificates: Option<Vec<AnyRef<'a>>>,
}

/// The version is the default one, and left out by whoever knows DER.
#[derive(Sequence)]
struct ResponseData {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    version: Option<u8>,
    responder: ResponderId,
    produced_at: GeneralizedTime,
    responses: Vec<SingleResponse>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Vec<Extension>>,
}

#[derive(Choice)]
enum ResponderId {
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", constructed = "true")]
    ByName(Any),
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", constructed = "true")]
    ByKey(OctetString),
}

#[derive(Sequence)]
struct SingleResponse {
    certificate: CertId,
    status: WireStatus,
    this_update: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    next_update: Option<GeneralizedTime>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Vec<Extension>>,
}

#[derive(Choice)]
enum WireStatus {
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    Good(Null),
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true")]
    Revoked(RevokedInfo),
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT")]
    Unknown(Null),
}

#[derive(Sequence)]
struct RevokedInfo {
    at: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    reason: Option<CrlReason>,
}

impl WireStatus {
    fn of(status: &CertStatus) -> Result<Self> {
        Ok(match status {
            CertStatus::Good => Self::Good(Null),
            CertStatus::Revoked(revoked) => {
                Self::Revoked(RevokedInfo { at: time(revoked.at)?, reason: Some(revoked.reason.wire()) })
            }
            CertStatus::Unknown => Self::Unknown(Null),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `openssl ocsp -reqout` writes for one certificate, with a nonce of that length.
    fn request(nonce: Option<usize>, certificates: usize) -> Vec<u8> {
        let hash = |byte| OctetString::new([byte; 20]).unwrap();
        let single = || SingleRequest {
            certificate: CertId {
                hash_algorithm: AlgorithmIdentifierOwned {
                    oid: ID_SHA_1,
                    parameters: Some(der::asn1::Any::null()),
                },
                issuer_name_hash: hash(1),
                issuer_key_hash: hash(2),
                serial_number: Int::new(&[0, 0x80, 1]).unwrap(),
            },
            extensions: None,
        };
        let nonce = nonce.map(|length| {
            let value = OctetString::new(vec![7; length]).unwrap().to_der().unwrap();
            vec![Extension {
                extn_id: ID_PKIX_OCSP_NONCE,
                critical: false,
                extn_value: OctetString::new(value).unwrap(),
            }]
        });
        let list = (0..certificates).map(|_| single()).collect();
        let content = TbsRequest { version: None, requestor: None, list, extensions: nonce };
        WireRequest { content, signature: None }.to_der().unwrap()
    }

    #[test]
    fn requests_are_read_within_their_limits() {
        let read = OcspRequest::from_der(&request(Some(32), 1)).unwrap();
        assert_eq!(read.nonce(), Some(&[7; 32][..]));
        assert_eq!(read.certificates()[0].serial(), "8001");
        assert_eq!(OcspRequest::from_der(&request(None, MAX_CERTIFICATES)).unwrap().nonce(), None);
        for (bytes, reason) in [
            (request(None, 0), "0 certificates"),
            (request(None, MAX_CERTIFICATES + 1), "17 certificates"),
            (request(Some(0), 1), "nonce"),
            (request(Some(MAX_NONCE + 1), 1), "nonce"),
            (vec![0x30; MAX_REQUEST + 1], "longer than"),
            (b"\x30\x00".to_vec(), "the whole"),
            (Vec::new(), "empty"),
        ] {
            let error = OcspRequest::from_der(&bytes).unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
        let whole = request(Some(16), 1);
        for length in 0..whole.len() {
            assert!(OcspRequest::from_der(&whole[..length]).is_err(), "{length}");
        }
    }
}
