//! The wire of EST (RFC 7030), for both ends: paths, media types, bodies, credentials.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use const_oid::db::rfc5912::{
    ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ID_EC_PUBLIC_KEY, ID_EXTENSION_REQ, RSA_ENCRYPTION, SECP_256_R_1,
    SECP_384_R_1, SHA_256_WITH_RSA_ENCRYPTION,
};
use const_oid::db::rfc8410::ID_ED_25519;
use der::asn1::{Any, ObjectIdentifier, SetOfVec};
use der::{Choice, Decode, Encode, Sequence};
use enclasp_keystore::Algorithm;
use zeroize::Zeroizing;

use crate::{Error, Result, TokenSecret};

/// GET: the certificates of the authority (RFC 7030 §4.1).
pub const CACERTS: &str = "/.well-known/est/cacerts";
/// POST: a first certificate (RFC 7030 §4.2.1).
pub const SIMPLEENROLL: &str = "/.well-known/est/simpleenroll";
/// POST: renewal of a certificate (RFC 7030 §4.2.2).
pub const SIMPLEREENROLL: &str = "/.well-known/est/simplereenroll";
/// GET: what a request should contain (RFC 7030 §4.5).
pub const CSRATTRS: &str = "/.well-known/est/csrattrs";
/// POST: full CMC (RFC 7030 §4.3).
pub const FULLCMC: &str = "/.well-known/est/fullcmc";
/// POST: a key made by the authority (RFC 7030 §4.4).
pub const SERVERKEYGEN: &str = "/.well-known/est/serverkeygen";

/// The label under which `simplereenroll` yields a certificate for a software key, to compare a key with.
pub const BISECT: &str = "bisect";

const OPERATIONS: [&str; 6] = [CACERTS, SIMPLEENROLL, SIMPLEREENROLL, CSRATTRS, FULLCMC, SERVERKEYGEN];

/// The path of an operation under a label: `/.well-known/est/LABEL/cacerts` (RFC 7030 §3.2.2).
pub fn labelled(operation: &str, label: &str) -> String {
    operation.replacen("/est/", &format!("/est/{label}/"), 1)
}

/// Whether a path segment names an operation, so that it cannot be a label (RFC 7030 §3.2.2).
pub fn is_operation(segment: &str) -> bool {
    OPERATIONS.iter().any(|path| path.rsplit('/').next() == Some(segment))
}

/// The media type of a PKCS#10 request.
pub const PKCS10: &str = "application/pkcs10";
/// The media type of certificates without signers.
pub const CERTS_ONLY: &str = "application/pkcs7-mime; smime-type=certs-only";
/// The media type of CSR attributes.
pub const CSR_ATTRIBUTES: &str = "application/csrattrs";

/// The length in bytes of the longest request body: 64 KiB of DER in base64, and room to spare.
pub const MAX_REQUEST: usize = 128 * 1024;

/// DER as a body: base64 (RFC 4648 §4) on one line, which every known client but libest reads.
pub fn encode_body(der: &[u8]) -> String {
    STANDARD.encode(der)
}

/// The same in lines of 64 characters, which libest needs.
pub fn encode_wrapped_body(der: &[u8]) -> String {
    let mut wrapped = String::new();
    for (index, character) in encode_body(der).chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            wrapped.push_str("\r\n");
        }
        wrapped.push(character);
    }
    wrapped + "\r\n"
}

/// The DER in a body: base64, wrapped or not, or the DER itself. The two cannot be confused: DER of
/// a SEQUENCE begins with 0x30, its base64 with `M`.
///
/// # Errors
/// [`Error::Body`].
pub fn decode_body(body: &[u8]) -> Result<Vec<u8>> {
    let error = |reason: &str| Error::Body { reason: reason.to_owned() };
    if body.first() == Some(&0x30) {
        return Ok(body.to_vec());
    }
    let text: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if text.is_empty() {
        return Err(error("it is empty"));
    }
    if text.starts_with(b"-----BEGIN") {
        return Err(error("it is PEM: leave out the BEGIN and END lines, or send DER"));
    }
    STANDARD.decode(&text).map_err(|_| error("it is neither base64 nor DER"))
}

/// The value of an `Authorization` header with `secret` as the password (RFC 7617).
pub fn basic_credentials(secret: &TokenSecret) -> Zeroizing<String> {
    let pair = Zeroizing::new(["enclasp:", &secret.to_line()].concat());
    let encoded = Zeroizing::new(STANDARD.encode(&*pair));
    Zeroizing::new(["Basic ", &encoded].concat())
}

/// The password in an `Authorization` header of the scheme `Basic`; the user name does not matter.
/// `None` if the header is anything else.
pub fn basic_password(header: &[u8]) -> Option<Zeroizing<String>> {
    let text = std::str::from_utf8(header).ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = Zeroizing::new(STANDARD.decode(encoded.trim()).ok()?);
    let (_, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    Some(Zeroizing::new(password.to_owned()))
}

/// One entry of the CSR attributes: `AttrOrOID` (RFC 7030 §4.5.2).
#[derive(Clone, Debug, PartialEq, Eq, Choice)]
pub enum CsrAttribute {
    /// An algorithm to use, or an attribute or extension to include.
    Oid(ObjectIdentifier),
    /// An attribute with the values to choose from.
    Attribute(Attribute),
}

/// `Attribute` (RFC 2986 §4): a type and its values.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Attribute {
    /// The type.
    pub oid: ObjectIdentifier,
    /// The values.
    pub values: SetOfVec<Any>,
}

/// What our authority suggests: a type of key with the signature that is natural for it, and, if
/// they are known, the extensions to ask for, as DER Extensions (RFC 9908 §3.2).
///
/// # Errors
/// [`Error::Body`] if `extensions` is not DER.
pub fn suggested_attributes(key: Algorithm, extensions: Option<&[u8]>) -> Result<Vec<CsrAttribute>> {
    let curve = |curve: ObjectIdentifier| attribute(ID_EC_PUBLIC_KEY, Any::encode_from(&curve));
    let (key, signature) = match key {
        Algorithm::P384 => (curve(SECP_384_R_1)?, ECDSA_WITH_SHA_384),
        Algorithm::Rsa => {
            (attribute(RSA_ENCRYPTION, Any::encode_from(&RSA_BITS))?, SHA_256_WITH_RSA_ENCRYPTION)
        }
        // The type is all that there is to say of it.
        Algorithm::Ed25519 => (CsrAttribute::Oid(ID_ED_25519), ID_ED_25519),
        _ => (curve(SECP_256_R_1)?, ECDSA_WITH_SHA_256),
    };
    let mut suggested = vec![key, CsrAttribute::Oid(signature)];
    suggested.dedup();
    if let Some(extensions) = extensions {
        suggested.push(attribute(ID_EXTENSION_REQ, Any::from_der(extensions))?);
    }
    Ok(suggested)
}

/// The length of the RSA keys that are suggested, in bits.
const RSA_BITS: u16 = 3072;

fn attribute(oid: ObjectIdentifier, value: der::Result<Any>) -> Result<CsrAttribute> {
    let values = value.and_then(|value| SetOfVec::try_from(vec![value]));
    let values = values.map_err(|e| Error::Body { reason: e.to_string() })?;
    Ok(CsrAttribute::Attribute(Attribute { oid, values }))
}

/// The DER of `CsrAttrs` (RFC 7030 §4.5.2).
///
/// # Errors
/// [`Error::Body`] if it is too large.
pub fn encode_csr_attributes(attributes: &[CsrAttribute]) -> Result<Vec<u8>> {
    attributes.to_vec().to_der().map_err(|e| Error::Body { reason: e.to_string() })
}

/// Reads the DER of `CsrAttrs`. Nothing at all is the empty list (RFC 7030 §4.5.2).
///
/// # Errors
/// [`Error::Body`].
pub fn decode_csr_attributes(der: &[u8]) -> Result<Vec<CsrAttribute>> {
    if der.is_empty() {
        return Ok(Vec::new());
    }
    Vec::from_der(der).map_err(|e| Error::Body { reason: format!("it is not a list of CSR attributes: {e}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_garbage() {
        for (body, reason) in [
            (&b""[..], "empty"),
            (b" \r\n", "empty"),
            (b"MII*", "neither"),
            (b"MIIB", ""),
            (b"-----BEGIN CERTIFICATE REQUEST-----\nMII=\n", "PEM"),
            (b"\xff\xfe", "neither"),
        ] {
            match decode_body(body) {
                Ok(_) => assert!(reason.is_empty()),
                Err(error) => {
                    assert!(!reason.is_empty() && error.to_string().contains(reason), "{error}")
                }
            }
        }
        for header in ["", "Basic", "Bearer YTpi", "Basic ****", "Basic YWI=", "Basic /w=="] {
            assert!(basic_password(header.as_bytes()).is_none(), "{header}");
        }
        assert!(decode_csr_attributes(b"\x30\x02\x05\x00").is_err());
    }

    #[test]
    fn reads_wrapped_unwrapped_and_raw() {
        let der = [&[0x30, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
        let encoded = encode_body(&der);
        assert!(!encoded.contains('\n'));
        let wrapped = encode_wrapped_body(&der);
        assert!(wrapped.lines().count() > 1 && wrapped.lines().all(|line| line.len() <= 64));
        for body in [encoded.as_bytes(), wrapped.as_bytes(), &der] {
            assert_eq!(decode_body(body).unwrap(), der);
        }
    }

    #[test]
    fn labels_are_no_operations() {
        assert_eq!(labelled(CACERTS, "printers"), "/.well-known/est/printers/cacerts");
        assert!(is_operation("cacerts") && !is_operation("printers"));
    }

    #[test]
    fn finds_the_password() {
        let encoded = STANDARD.encode("any user:pass:word");
        assert_eq!(basic_password(format!("bASIC {encoded}").as_bytes()).unwrap().as_str(), "pass:word");
    }

    #[test]
    fn csr_attributes_read_back() {
        for (key, number) in
            [(Algorithm::P256, 2), (Algorithm::P384, 2), (Algorithm::Ed25519, 1), (Algorithm::Rsa, 2)]
        {
            let attributes = suggested_attributes(key, None).unwrap();
            assert_eq!(attributes.len(), number, "{key}");
            let der = encode_csr_attributes(&attributes).unwrap();
            assert_eq!(decode_csr_attributes(&der).unwrap(), attributes);
        }
        assert_eq!(decode_csr_attributes(b"").unwrap(), []);
    }
}
