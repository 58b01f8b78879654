//! OCSP from the asking side: a request about one certificate, and what came back, which a server
//! hands on in its handshakes (RFC 6066 §8).

use std::time::{Duration, SystemTime};

use const_oid::db::rfc6960::ID_PKIX_OCSP_BASIC;
use der::{Decode, Encode};

use super::{
    ANSWER, BasicResponse, CertId, CertStatus, Response, ResponseData, ResponseStatus, SingleRequest,
    TbsRequest, WHAT, WireRequest, WireStatus,
};
use crate::encoding::{Signed, encoded, in_field, malformed, sequence};
use crate::signing::check;
use crate::{Certificate, Result, RevocationReason, Revoked, rfc3339};

/// How far a responder's clock may be ahead of ours.
const SKEW: Duration = Duration::from_secs(300);

/// The DER of a request about `certificate`, which `issuer` issued. Without a nonce, so that the
/// answer can be one that is kept (RFC 5019 §2.1).
///
/// # Errors
/// [`Error::Encoding`](crate::Error::Encoding); not for certificates that were read.
pub fn ocsp_request(certificate: &Certificate, issuer: &Certificate) -> Result<Vec<u8>> {
    let one = SingleRequest { certificate: CertId::new(issuer, certificate.serial())?, extensions: None };
    let content = TbsRequest { version: None, requestor: None, list: vec![one], extensions: None };
    encoded(WHAT, WireRequest { content, signature: None }.to_der())
}

/// What a responder says about one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcspAnswer {
    /// How it is.
    pub status: CertStatus,
    /// When that was known to be so.
    pub this_update: SystemTime,
    /// By when there is a newer answer, if the responder says so.
    pub next_update: Option<SystemTime>,
}

impl OcspAnswer {
    /// Reads the DER of an OCSPResponse that is good at `now`, and checks that it is about
    /// `certificate` and signed by its `issuer`, or by whom that one has speak for it.
    ///
    /// # Errors
    /// [`Error::Malformed`](crate::Error::Malformed), also if the responder refuses to answer, the answer is about another
    /// certificate, or its time is over; [`Error::Signature`](crate::Error::Signature).
    pub fn from_der(
        der: &[u8],
        certificate: &Certificate,
        issuer: &Certificate,
        now: SystemTime,
    ) -> Result<Self> {
        sequence(ANSWER, der)?;
        let response = in_field(ANSWER, "the whole", Response::from_der(der))?;
        let bytes = match (response.status, response.bytes) {
            (ResponseStatus::Successful, Some(bytes)) if bytes.kind == ID_PKIX_OCSP_BASIC => bytes.response,
            (ResponseStatus::Successful, _) => return Err(malformed(ANSWER, "it has no basic response")),
            (refusal, _) => {
                return Err(malformed(ANSWER, format!("it is a refusal: {}", in_words(refusal))));
            }
        };
        let basic = in_field(ANSWER, "basic response", BasicResponse::from_der(bytes.as_bytes()))?;
        let content = in_field(ANSWER, "tbsResponseData", basic.content.to_der())?;
        let data = in_field(ANSWER, "tbsResponseData", ResponseData::from_der(&content))?;
        let names_it = |id: &CertId| id.serial() == certificate.serial() && id.is_of(issuer);
        let mut answers = data.responses.into_iter();
        let answer = answers.find(|one| names_it(&one.certificate)).ok_or_else(|| {
            malformed(ANSWER, format!("it is not about certificate {}", certificate.serial()))
        })?;
        let this_update = answer.this_update.to_system_time();
        let next_update = answer.next_update.map(|time| time.to_system_time());
        if this_update > now + SKEW {
            return Err(malformed(ANSWER, format!("it is of a time to come, {}", rfc3339(this_update))));
        }
        if let Some(over) = next_update.filter(|next| *next < now) {
            return Err(malformed(ANSWER, format!("its time was over at {}", rfc3339(over))));
        }
        let signature = basic.signature.as_bytes().unwrap_or_default();
        let signed = Signed { content: &content, algorithm: basic.algorithm, signature };
        check(ANSWER, &signed, issuer.spki()).or_else(|error| {
            // The certificate of whom the issuer has speak for it comes along (RFC 6960 §4.2.2.2).
            let others = basic.certificates.iter().flatten().filter_map(|any| any.to_der().ok());
            let others = others.filter_map(|der| Certificate::from_der(&der).ok());
            let mut speakers = others.filter(|other| speaks_for(other, issuer, now));
            speakers.find_map(|speaker| check(ANSWER, &signed, speaker.spki()).ok()).ok_or(error)
        })?;
        Ok(Self { status: status(answer.status, certificate), this_update, next_update })
    }
}

fn speaks_for(other: &Certificate, issuer: &Certificate, now: SystemTime) -> bool {
    other.extended_key_usages().iter().any(|usage| usage == "OCSPSigning")
        && (other.not_before()..=other.not_after()).contains(&now)
        && other.verify_signed_by(issuer).is_ok()
}

fn status(wire: WireStatus, certificate: &Certificate) -> CertStatus {
    match wire {
        WireStatus::Good(_) => CertStatus::Good,
        WireStatus::Unknown(_) => CertStatus::Unknown,
        WireStatus::Revoked(info) => CertStatus::Revoked(Revoked {
            serial: certificate.serial().to_owned(),
            at: info.at.to_system_time(),
            reason: info
                .reason
                .and_then(|reason| RevocationReason::from_code(reason as u8))
                .unwrap_or(RevocationReason::Unspecified),
        }),
    }
}

fn in_words(refusal: ResponseStatus) -> &'static str {
    match refusal {
        ResponseStatus::Successful => "none",
        ResponseStatus::MalformedRequest => "it finds the request malformed",
        ResponseStatus::InternalError => "it failed",
        ResponseStatus::TryLater => "it asks to try later",
        ResponseStatus::SigRequired => "it wants signed requests",
        ResponseStatus::Unauthorized => "it does not answer for this issuer",
    }
}
