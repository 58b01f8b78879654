//! Certification requests, certificates, profiles and chains, without any I/O.
//!
//! A key asks for a certificate with [`create_csr`]; an [`Issuer`] answers with one that follows a
//! [`Profile`]; [`verify_chain`] says whether a chain is good for a [`Purpose`], and if not, which
//! certificate is to blame. Bytes from outside become types in `from_der` and the like, which never
//! panic and say in one line what is wrong. No signature of a key leaves this crate before it has
//! verified against the key's own public key.
#![forbid(unsafe_code)]

mod certificate;
mod chain;
mod constraints;
mod crl;
mod encoding;
mod error;
mod instant;
mod issue;
mod name;
mod ocsp;
mod profile;
mod public_key;
mod request;
mod san;
mod signing;

pub mod certs_only;
pub mod pem;

pub use certificate::{Certificate, certificates_from, sha256};
pub use chain::{ChainError, is_for_host, order_chain, verify_chain};
pub use constraints::{NameConstraint, NameConstraints, is_in_network};
pub use crl::{CrlContents, PublishedCrl, RevocationReason, Revoked, crl_to_pem, sort_newest_first};
pub use encoding::{hex, unhex};
pub use error::{Error, Result};
pub use instant::rfc3339;
pub use issue::{
    DEFAULT_INTERMEDIATE_LIFETIME, DEFAULT_ROOT_LIFETIME, Intermediate, Issuer, Leaf, Pointers, create_root,
};
pub use name::DistinguishedName;
pub use ocsp::{
    CertId, CertStatus, MAX_REQUEST as MAX_OCSP_REQUEST, OcspAnswer, OcspRefusal, OcspRequest, ocsp_request,
    ocsp_response,
};
pub use profile::{KeyPurpose, Profile, Purpose};
pub use public_key::{algorithm_of, describe as oid_in_words};
pub use request::{CertificationRequest, create_csr, extension_request};
pub use san::SubjectAltName;
pub use signing::sign_message;
