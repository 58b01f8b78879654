//! Certificates in a CMS SignedData without signers (RFC 5652 §5), the *certs-only* message that
//! EST answers with (RFC 7030 §4.1.3) and that `openssl crl2pkcs7 -nocrl` makes.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5911::{ID_DATA, ID_SIGNED_DATA};
use der::asn1::{AnyRef, SetOfVec};
use der::{Decode, Encode, Sequence, Tag, Tagged};
use rustls_pki_types::CertificateDer;

use crate::Result;
use crate::encoding::{encoded, in_field, malformed, sequence};

const WHAT: &str = "certs-only message";

/// The DER of a message with `certificates`, in their order. (A SET has no order in DER, and CMS
/// does not ask for DER here; like OpenSSL, we keep the leaf where its reader looks first.)
///
/// # Errors
/// [`Error::Encoding`](crate::Error::Encoding) if a certificate is not one DER element.
pub fn encode(certificates: &[CertificateDer<'_>]) -> Result<Vec<u8>> {
    let certificates = certificates.iter().map(|certificate| AnyRef::from_der(certificate));
    let message = ContentInfo {
        content_type: ID_SIGNED_DATA,
        content: SignedData {
            version: 1,
            digest_algorithms: SetOfVec::new(),
            encapsulated: EncapsulatedContentInfo { content_type: ID_DATA, content: None },
            certificates: Some(encoded(WHAT, certificates.collect())?),
            crls: None,
            signer_infos: SetOfVec::new(),
        },
    };
    encoded(WHAT, message.to_der())
}

/// The certificates of a message, in its order. Signatures and CRLs that it may have are passed
/// over; the certificates themselves are not looked into.
///
/// # Errors
/// [`Error::Malformed`](crate::Error::Malformed) if it is not a SignedData in DER with at least one
/// certificate.
pub fn decode(der: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let mut reader = sequence(WHAT, der)?;
    let content_type = in_field(WHAT, "contentType", ObjectIdentifier::decode(&mut reader))?;
    if content_type != ID_SIGNED_DATA {
        return Err(malformed(WHAT, format!("its content type is {content_type}, not signedData")));
    }
    let message = in_field(WHAT, "signedData", ContentInfo::from_der(der))?;
    // What is not a SEQUENCE is an attribute certificate or the like (RFC 5652 §10.2.2).
    let certificates = message.content.certificates.unwrap_or_default();
    let certificates = certificates.iter().filter(|element| element.tag() == Tag::Sequence);
    let certificates: Vec<_> = certificates
        .map(|element| in_field(WHAT, "certificates", element.to_der()).map(CertificateDer::from))
        .collect::<Result<_>>()?;
    if certificates.is_empty() {
        return Err(malformed(WHAT, "it has no certificates"));
    }
    Ok(certificates)
}

#[derive(Sequence)]
struct ContentInfo<'a> {
    content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    content: SignedData<'a>,
}

#[derive(Sequence)]
struct SignedData<'a> {
    version: u8,
    digest_algorithms: SetOfVec<AnyRef<'a>>,
    encapsulated: EncapsulatedContentInfo<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    certificates: Option<Vec<AnyRef<'a>>>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    crls: Option<Vec<AnyRef<'a>>>,
    signer_infos: SetOfVec<AnyRef<'a>>,
}

#[derive(Sequence)]
struct EncapsulatedContentInfo<'a> {
    content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    content: Option<AnyRef<'a>>,
}
