//! The structures that files hold, as their standards have them.

use super::node::{
    BIT_STRING, BOOLEAN, GENERALIZED_TIME, INTEGER, OCTET_STRING, OID, SEQUENCE, SET, UTC_TIME,
};
use super::shape::{Field, Shape, field, optional};

const ANY: Shape = Shape::Any;
const AN_INTEGER: Shape = Shape::Primitive(&[INTEGER]);
const AN_OID: Shape = Shape::Primitive(&[OID]);
const BITS: Shape = Shape::Primitive(&[BIT_STRING]);
const OCTETS: Shape = Shape::Primitive(&[OCTET_STRING]);
const FLAG: Shape = Shape::Primitive(&[BOOLEAN]);
const TIME: Shape = Shape::Primitive(&[UTC_TIME, GENERALIZED_TIME]);

const fn sequence(fields: &'static [Field]) -> Shape {
    Shape::Fields(SEQUENCE, fields)
}

/// AlgorithmIdentifier (RFC 5280 §4.1.1.2).
const ALGORITHM: Shape = sequence(&[field("algorithm", &AN_OID), optional("parameters", &ANY)]);

/// Name (RFC 5280 §4.1.2.4).
pub(super) const NAME: Shape = Shape::Of(SEQUENCE, &Shape::Of(SET, &NAME_ATTRIBUTE));
const NAME_ATTRIBUTE: Shape = sequence(&[field("type", &AN_OID), field("value", &ANY)]);

/// SubjectPublicKeyInfo (RFC 5280 §4.1).
pub(super) const PUBLIC_KEY: Shape =
    sequence(&[field("algorithm", &ALGORITHM), field("subjectPublicKey", &BITS)]);

const EXTENSION: Shape =
    sequence(&[field("extnID", &AN_OID), optional("critical", &FLAG), field("extnValue", &OCTETS)]);
/// Extensions (RFC 5280 §4.1).
pub(super) const EXTENSIONS: Shape = Shape::Of(SEQUENCE, &EXTENSION);

const ATTRIBUTE: Shape = sequence(&[field("type", &AN_OID), field("values", &Shape::Of(SET, &ANY))]);

/// CertificationRequest (RFC 2986 §4).
pub(super) const REQUEST: Shape = sequence(&[
    field("certificationRequestInfo", &REQUEST_INFO),
    field("signatureAlgorithm", &ALGORITHM),
    field("signature", &BITS),
]);
const REQUEST_INFO: Shape = sequence(&[
    field("version", &AN_INTEGER),
    field("subject", &NAME),
    field("subjectPKInfo", &PUBLIC_KEY),
    field("attributes", &Shape::Of(0xa0, &ATTRIBUTE)),
]);

/// Certificate (RFC 5280 §4.1).
pub(super) const CERTIFICATE: Shape = sequence(&[
    field("tbsCertificate", &TBS_CERTIFICATE),
    field("signatureAlgorithm", &ALGORITHM),
    field("signatureValue", &BITS),
]);
const TBS_CERTIFICATE: Shape = sequence(&[
    optional("version", &Shape::Fields(0xa0, &[field("", &AN_INTEGER)])),
    field("serialNumber", &AN_INTEGER),
    field("signature", &ALGORITHM),
    field("issuer", &NAME),
    field("validity", &sequence(&[field("notBefore", &TIME), field("notAfter", &TIME)])),
    field("subject", &NAME),
    field("subjectPublicKeyInfo", &PUBLIC_KEY),
    optional("issuerUniqueID", &Shape::Primitive(&[0x81])),
    optional("subjectUniqueID", &Shape::Primitive(&[0x82])),
    optional("extensions", &Shape::Fields(0xa3, &[field("", &EXTENSIONS)])),
]);

/// CertificateList (RFC 5280 §5.1).
pub(super) const REVOCATION_LIST: Shape = sequence(&[
    field("tbsCertList", &TBS_CERT_LIST),
    field("signatureAlgorithm", &ALGORITHM),
    field("signatureValue", &BITS),
]);
const TBS_CERT_LIST: Shape = sequence(&[
    optional("version", &AN_INTEGER),
    field("signature", &ALGORITHM),
    field("issuer", &NAME),
    field("thisUpdate", &TIME),
    optional("nextUpdate", &TIME),
    optional("revokedCertificates", &Shape::Of(SEQUENCE, &REVOKED)),
    optional("crlExtensions", &Shape::Fields(0xa0, &[field("", &EXTENSIONS)])),
]);
const REVOKED: Shape = sequence(&[
    field("userCertificate", &AN_INTEGER),
    field("revocationDate", &TIME),
    optional("crlEntryExtensions", &EXTENSIONS),
]);

/// OneAsymmetricKey (RFC 5958 §2), of which PrivateKeyInfo (RFC 5208) is the first version.
pub(super) const PRIVATE_KEY: Shape = sequence(&[
    field("version", &AN_INTEGER),
    field("privateKeyAlgorithm", &ALGORITHM),
    field("privateKey", &OCTETS),
    optional("attributes", &Shape::Of(0xa0, &ANY)),
    optional("publicKey", &Shape::Primitive(&[0x81])),
]);

/// EncryptedPrivateKeyInfo (RFC 5958 §3).
pub(super) const ENCRYPTED_KEY: Shape =
    sequence(&[field("encryptionAlgorithm", &ALGORITHM), field("encryptedData", &OCTETS)]);

/// ECPrivateKey (RFC 5915 §3).
pub(super) const EC_KEY: Shape = sequence(&[
    field("version", &AN_INTEGER),
    field("privateKey", &OCTETS),
    optional("parameters", &Shape::Fields(0xa0, &[field("", &ANY)])),
    optional("publicKey", &Shape::Fields(0xa1, &[field("", &BITS)])),
]);

/// RSAPrivateKey (RFC 8017 appendix A.1.2).
pub(super) const RSA_KEY: Shape = sequence(&[
    field("version", &AN_INTEGER),
    field("modulus", &AN_INTEGER),
    field("publicExponent", &AN_INTEGER),
    field("privateExponent", &AN_INTEGER),
    field("prime1", &AN_INTEGER),
    field("prime2", &AN_INTEGER),
    field("exponent1", &AN_INTEGER),
    field("exponent2", &AN_INTEGER),
    field("coefficient", &AN_INTEGER),
]);

/// RSAPublicKey (RFC 8017 appendix A.1.1).
pub(super) const RSA_PUBLIC_KEY: Shape =
    sequence(&[field("modulus", &AN_INTEGER), field("publicExponent", &AN_INTEGER)]);

/// Ecdsa-Sig-Value (RFC 3279 §2.2.3).
pub(super) const ECDSA_SIGNATURE: Shape = sequence(&[field("r", &AN_INTEGER), field("s", &AN_INTEGER)]);

/// TPMKey ("ASN.1 Specification for TPM 2.0 Key Files" §3.1).
pub(super) const TPM_KEY: Shape = sequence(&[
    field("type", &AN_OID),
    optional("emptyAuth", &Shape::Fields(0xa0, &[field("", &ANY)])),
    optional("policy", &Shape::Fields(0xa1, &[field("", &ANY)])),
    optional("secret", &Shape::Fields(0xa2, &[field("", &ANY)])),
    optional("authPolicy", &Shape::Fields(0xa3, &[field("", &ANY)])),
    optional("description", &Shape::Fields(0xa4, &[field("", &ANY)])),
    optional("rsaParent", &Shape::Fields(0xa5, &[field("", &ANY)])),
    field("parent", &AN_INTEGER),
    field("pubkey", &OCTETS),
    field("privkey", &OCTETS),
]);

/// PFX (RFC 7292 §4).
pub(super) const PFX: Shape = sequence(&[
    field("version", &AN_INTEGER),
    field(
        "authSafe",
        &sequence(&[
            field("contentType", &AN_OID),
            optional("content", &Shape::Fields(0xa0, &[field("", &ANY)])),
        ]),
    ),
    optional(
        "macData",
        &sequence(&[
            field("mac", &sequence(&[field("digestAlgorithm", &ALGORITHM), field("digest", &OCTETS)])),
            field("macSalt", &OCTETS),
            optional("iterations", &AN_INTEGER),
        ]),
    ),
]);
