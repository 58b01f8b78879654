//! Issuing certificates: roots, intermediates and end entities.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{ANY_POLICY, ID_AD_CA_ISSUERS, ID_AD_OCSP, ID_KP_OCSP_SIGNING, ID_QT_UNOTICE};
use const_oid::db::rfc6960::ID_PKIX_OCSP_NOCHECK;
use der::asn1::{Any, BitString, Null, OctetString};
use der::flagset::FlagSet;
use der::{Decode, Document, Encode};
use enclasp_keystore::{Key, SignContext};
use spki::{
    AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, EncodePublicKey, SubjectPublicKeyInfoOwned,
    SubjectPublicKeyInfoRef,
};
use x509_cert::TbsCertificate;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder};
use x509_cert::ext::pkix::certpolicy::{DisplayText, PolicyInformation, PolicyQualifierInfo, UserNotice};
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::{
    AccessDescription, AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints,
    CertificatePolicies, CrlDistributionPoints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};

use crate::certificate::sha256;
use crate::crl::{full_name, uri};
use crate::encoding::{encoded, in_field};
use crate::public_key::algorithm_of;
use crate::signing::{algorithm_identifier, scheme_for, sign};
use crate::{Certificate, DistinguishedName, Error, NameConstraints, Profile, Result, SubjectAltName, san};

const WHAT: &str = "certificate";

/// noRevAvail (RFC 9608 §2).
const ID_CE_NO_REV_AVAIL: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.56");

const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// How long a root lives unless told otherwise: ten years of 365 days.
pub const DEFAULT_ROOT_LIFETIME: Duration = YEAR.saturating_mul(10);

/// How long an intermediate lives unless told otherwise: five years of 365 days.
pub const DEFAULT_INTERMEDIATE_LIFETIME: Duration = YEAR.saturating_mul(5);

/// Certificates begin a minute ago, for peers whose clock is behind.
const BACKDATED: Duration = Duration::from_secs(60);

/// An end-entity certificate to be issued.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'a> {
    /// The rules that it follows.
    pub profile: &'a Profile,
    /// Whom it is about; it may be empty if there are alternative names.
    pub subject: &'a DistinguishedName,
    /// Its alternative names. They are critical if the subject is empty (RFC 5280 §4.2.1.6).
    pub subject_alt_names: &'a [SubjectAltName],
    /// DER SubjectPublicKeyInfo of its key. That somebody has the private half is for the caller
    /// to have checked ([`CertificationRequest::verify`](crate::CertificationRequest::verify)).
    pub spki: &'a [u8],
    /// From now on. `None` is the profile's default; it is cut to the profile's maximum and to
    /// the issuer's own end.
    pub lifetime: Option<Duration>,
}

/// A CA certificate to be issued.
#[derive(Clone, Copy, Debug)]
pub struct Intermediate<'a> {
    /// Its name.
    pub subject: &'a DistinguishedName,
    /// DER SubjectPublicKeyInfo of its key.
    pub spki: &'a [u8],
    /// From now on, cut to the issuer's own end.
    pub lifetime: Duration,
    /// How many CAs may follow below it; 0 for one that signs end-entity certificates only, `None` for a root
    /// that another root vouches for.
    pub path_length: Option<u8>,
    /// Which names it may certify, if not all.
    pub name_constraints: Option<&'a NameConstraints>,
}

/// A CA certificate together with its key.
#[derive(Clone)]
pub struct Issuer<'k> {
    certificate: Certificate,
    key: &'k dyn Key,
    pointers: Option<Pointers>,
}

/// The URLs in an end-entity certificate that say whether it is still good, and who issued it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointers {
    /// The CRL that would list it (RFC 5280 §4.2.1.13).
    pub crl: String,
    /// The OCSP responder, if there is one (RFC 5280 §4.2.2.1).
    pub ocsp: Option<String>,
    /// The certificate of its issuer.
    pub issuer: String,
}

/// Makes a self-signed root certificate for `key`: CA:TRUE, keyCertSign and cRLSign, a random
/// 128-bit serial number, valid from a minute before `now`.
///
/// # Errors
/// [`Error::NotIssued`] if the subject is empty or the lifetime is zero or beyond the year 9999;
/// [`Error::Key`] if the key refuses, or signs wrongly.
pub fn create_root(
    key: &dyn Key,
    subject: &DistinguishedName,
    lifetime: Duration,
    now: SystemTime,
    ctx: &SignContext,
) -> Result<Certificate> {
    let spki = &key.info().spki;
    let extensions = Extensions::new(subject, spki)?.authority(None, None)?;
    build(key, extensions, validity(subject, lifetime, now, None)?, ctx)
}

impl<'k> Issuer<'k> {
    /// Pairs a CA certificate with its key.
    ///
    /// # Errors
    /// [`Error::NotAnIssuer`] if it is not a CA certificate, or is not for this key.
    pub fn new(certificate: Certificate, key: &'k dyn Key) -> Result<Self> {
        let refuse = |reason: String| Err(Error::NotAnIssuer { issuer: certificate.name(), reason });
        if !certificate.is_ca() {
            return refuse("it is not a CA".into());
        }
        if certificate.spki() != key.info().spki {
            return refuse(format!("it is not for the key {}: their public keys differ", key.info().uri));
        }
        Ok(Self { certificate, key, pointers: None })
    }

    /// The same issuer, whose end-entity certificates carry these URLs, unless their profile says noRevAvail.
    #[must_use]
    pub fn with_pointers(self, pointers: Option<Pointers>) -> Self {
        Self { pointers, ..self }
    }

    /// Its own certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Issues an end-entity certificate: the profile's extended key usages, digitalSignature,
    /// CA:FALSE, key identifiers, a random 128-bit serial number, valid from a minute before `now`.
    ///
    /// # Errors
    /// [`Error::NotIssued`] if it would name nobody, its lifetime is zero, the issuer has expired, or
    /// its name constraints forbid a name; [`Error::Name`] for an alternative name that breaks the rules of its kind;
    /// [`Error::Weak`] or [`Error::Unsupported`] for its key; [`Error::Key`] if the issuer's key
    /// refuses, or signs wrongly.
    pub fn issue(&self, leaf: &Leaf<'_>, now: SystemTime, ctx: &SignContext) -> Result<Certificate> {
        if leaf.subject.is_empty() && leaf.subject_alt_names.is_empty() {
            return Err(not_issued(leaf.subject, "it would name nobody"));
        }
        if let Some(constraints) = self.certificate.name_constraints() {
            constraints
                .check(leaf.subject, leaf.subject_alt_names)
                .map_err(|reason| not_issued(leaf.subject, &format!("by name constraints, {reason}")))?;
        }
        let lifetime = leaf.lifetime.unwrap_or(leaf.profile.default_lifetime).min(leaf.profile.max_lifetime);
        let validity = validity(leaf.subject, lifetime, now, Some(&self.certificate))?;
        let mut extensions = Extensions::new(leaf.subject, leaf.spki)?
            .end_entity(leaf.profile, leaf.subject_alt_names)?
            .issued_by(&self.certificate)?;
        match &self.pointers {
            _ if leaf.profile.no_rev_avail => extensions = extensions.with_null(ID_CE_NO_REV_AVAIL)?,
            Some(pointers) => extensions = extensions.pointing_at(pointers)?,
            None => {}
        }
        build(self.key, extensions, validity, ctx)
    }

    /// Issues the certificate of an OCSP responder that answers in this issuer's name (RFC 6960
    /// §4.2.2.2): OCSPSigning, and id-pkix-ocsp-nocheck, as nobody could be asked about itself.
    ///
    /// # Errors
    /// As [`issue`](Self::issue).
    pub fn issue_responder(
        &self,
        subject: &DistinguishedName,
        spki: &[u8],
        lifetime: Duration,
        now: SystemTime,
        ctx: &SignContext,
    ) -> Result<Certificate> {
        let validity = validity(subject, lifetime, now, Some(&self.certificate))?;
        let extensions = Extensions::new(subject, spki)?
            .with(&BasicConstraints { ca: false, path_len_constraint: None })?
            .with(&KeyUsage(FlagSet::from(KeyUsages::DigitalSignature)))?
            .with(&ExtendedKeyUsage(vec![ID_KP_OCSP_SIGNING]))?
            .with_null(ID_PKIX_OCSP_NOCHECK)?
            .issued_by(&self.certificate)?;
        build(self.key, extensions, validity, ctx)
    }

    /// Issues a CA certificate: CA:TRUE, keyCertSign and cRLSign.
    ///
    /// # Errors
    /// As [`issue`](Self::issue), and [`Error::NotIssued`] if this issuer is itself not allowed to
    /// have a CA below it.
    pub fn issue_intermediate(
        &self,
        request: &Intermediate<'_>,
        now: SystemTime,
        ctx: &SignContext,
    ) -> Result<Certificate> {
        if self.certificate.path_length() == Some(0) {
            let reason = format!("{} may not sign for other CAs", self.certificate.name());
            return Err(not_issued(request.subject, &reason));
        }
        let validity = validity(request.subject, request.lifetime, now, Some(&self.certificate))?;
        let extensions = Extensions::new(request.subject, request.spki)?
            .authority(request.path_length, request.name_constraints)?
            .issued_by(&self.certificate)?;
        build(self.key, extensions, validity, ctx)
    }

    pub(crate) fn key(&self) -> &'k dyn Key {
        self.key
    }

    pub(crate) fn authority_key_identifier(&self) -> Result<AuthorityKeyIdentifier> {
        authority_key_identifier(&self.certificate)
    }
}

fn not_issued(subject: &DistinguishedName, reason: &str) -> Error {
    let subject = if subject.is_empty() { "an empty subject".into() } else { subject.to_string() };
    Error::NotIssued { subject, reason: reason.to_owned() }
}

/// From a minute before `now` to `lifetime` after it, or to the issuer's end if that is sooner.
fn validity(
    subject: &DistinguishedName,
    lifetime: Duration,
    now: SystemTime,
    issuer: Option<&Certificate>,
) -> Result<Validity> {
    if lifetime.as_secs() == 0 {
        return Err(not_issued(subject, "its lifetime is zero"));
    }
    if let Some(issuer) = issuer.filter(|issuer| issuer.not_after() <= now) {
        return Err(not_issued(subject, &format!("{} has expired", issuer.name())));
    }
    let end = now.checked_add(lifetime).map(|end| issuer.map_or(end, |issuer| end.min(issuer.not_after())));
    let times = now
        .checked_sub(BACKDATED)
        .zip(end)
        .and_then(|(start, end)| Some((Time::try_from(start).ok()?, Time::try_from(end).ok()?)));
    let (not_before, not_after) =
        times.ok_or_else(|| not_issued(subject, "its validity is not within the years 1970 to 9999"))?;
    Ok(Validity::new(not_before, not_after))
}

/// 16 random bytes as a positive integer, which takes at most 17 of the 20 octets that RFC 5280
/// §4.1.2.2 allows.
fn random_serial() -> Result<SerialNumber> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes)
        .map_err(|_| Error::Encoding { what: WHAT, reason: "the system has no randomness".into() })?;
    encoded(WHAT, SerialNumber::new(&bytes))
}

/// The parts of a certificate that depend on its kind.
struct Extensions<'a> {
    subject: &'a DistinguishedName,
    spki: &'a [u8],
    issuer: Name,
    list: Vec<Extension>,
}

impl<'a> Extensions<'a> {
    fn new(subject: &'a DistinguishedName, spki: &'a [u8]) -> Result<Self> {
        algorithm_of(spki)?;
        let extensions = Self { subject, spki, issuer: subject.as_name().clone(), list: Vec::new() };
        extensions.with(&SubjectKeyIdentifier(key_identifier(spki)?))
    }

    fn authority(
        self,
        path_len_constraint: Option<u8>,
        name_constraints: Option<&NameConstraints>,
    ) -> Result<Self> {
        if self.subject.is_empty() {
            return Err(not_issued(self.subject, "a CA needs a name"));
        }
        let extensions = self
            .with(&BasicConstraints { ca: true, path_len_constraint })?
            .with(&KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign))?;
        match name_constraints {
            Some(constraints) => extensions.with(&constraints.to_extension()?),
            None => Ok(extensions),
        }
    }

    fn end_entity(self, profile: &Profile, sans: &[SubjectAltName]) -> Result<Self> {
        let usages = profile.extended_key_usages.iter().map(|purpose| purpose.0).collect();
        let extensions = self
            .with(&BasicConstraints { ca: false, path_len_constraint: None })?
            .with(&KeyUsage(FlagSet::from(KeyUsages::DigitalSignature)))?
            .with(&ExtendedKeyUsage(usages))?;
        let extensions = match &profile.notice {
            Some(text) => extensions.with(&notice(text)?)?,
            None => extensions,
        };
        if sans.is_empty() { Ok(extensions) } else { extensions.with(&san::extension(sans)?) }
    }

    fn issued_by(mut self, issuer: &Certificate) -> Result<Self> {
        self.issuer = issuer.subject().as_name().clone();
        self.with(&authority_key_identifier(issuer)?)
    }

    fn pointing_at(self, pointers: &Pointers) -> Result<Self> {
        let point = DistributionPoint {
            distribution_point: Some(full_name(&pointers.crl)?),
            reasons: None,
            crl_issuer: None,
        };
        let access = |access_method, url: &str| {
            Ok::<_, Error>(AccessDescription { access_method, access_location: uri(url)? })
        };
        let mut places = Vec::new();
        if let Some(ocsp) = &pointers.ocsp {
            places.push(access(ID_AD_OCSP, ocsp)?);
        }
        places.push(access(ID_AD_CA_ISSUERS, &pointers.issuer)?);
        self.with(&CrlDistributionPoints(vec![point]))?.with(&AuthorityInfoAccessSyntax(places))
    }

    /// An extension that is not critical, whose value is NULL and whose presence says all.
    fn with_null(mut self, extn_id: ObjectIdentifier) -> Result<Self> {
        let extn_value = encoded(WHAT, Null.to_der().and_then(OctetString::new))?;
        self.list.push(Extension { extn_id, critical: false, extn_value });
        Ok(self)
    }

    fn with<E>(mut self, extension: &E) -> Result<Self>
    where
        for<'e> &'e E: ToExtension<Error = der::Error>,
    {
        let extension = extension.to_extension(self.subject.as_name(), &self.list);
        self.list.push(encoded(WHAT, extension)?);
        Ok(self)
    }
}

impl BuilderProfile for Extensions<'_> {
    fn get_issuer(&self, _: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.as_name().clone()
    }

    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        _: SubjectPublicKeyInfoRef<'_>,
        _: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        Ok(self.list.clone())
    }
}

/// Any policy, with a text for people.
fn notice(text: &str) -> Result<CertificatePolicies> {
    let notice =
        UserNotice { notice_ref: None, explicit_text: Some(DisplayText::Utf8String(text.to_owned())) };
    let qualifier = PolicyQualifierInfo {
        policy_qualifier_id: ID_QT_UNOTICE,
        qualifier: Some(encoded(WHAT, Any::encode_from(&notice))?),
    };
    Ok(CertificatePolicies(vec![PolicyInformation {
        policy_identifier: ANY_POLICY,
        policy_qualifiers: Some(vec![qualifier]),
    }]))
}

fn authority_key_identifier(issuer: &Certificate) -> Result<AuthorityKeyIdentifier> {
    let key_identifier = match issuer.subject_key_identifier() {
        Some(identifier) => encoded(WHAT, OctetString::new(identifier))?,
        None => key_identifier(issuer.spki())?,
    };
    Ok(AuthorityKeyIdentifier { key_identifier: Some(key_identifier), ..Default::default() })
}

/// The leftmost 160 bits of the SHA-256 of the public key (RFC 7093 §2, method 1).
fn key_identifier(spki: &[u8]) -> Result<OctetString> {
    let spki = in_field("public key", "SubjectPublicKeyInfo", SubjectPublicKeyInfoRef::from_der(spki))?;
    let digest = sha256(spki.subject_public_key.raw_bytes());
    encoded(WHAT, OctetString::new(&digest[..20]))
}

fn build(
    key: &dyn Key,
    extensions: Extensions<'_>,
    validity: Validity,
    ctx: &SignContext,
) -> Result<Certificate> {
    let unbuilt =
        |error: x509_cert::builder::Error| Error::Encoding { what: WHAT, reason: error.to_string() };
    let scheme = scheme_for(key)?;
    let signer = Signer { spki: &key.info().spki, algorithm: algorithm_identifier(scheme)? };
    let spki =
        in_field("public key", "SubjectPublicKeyInfo", SubjectPublicKeyInfoOwned::from_der(extensions.spki))?;
    let mut builder =
        CertificateBuilder::new(extensions, random_serial()?, validity, spki).map_err(unbuilt)?;
    let content = builder.finalize(&signer).map_err(unbuilt)?;
    let signature = sign(key, scheme, &content, ctx)?;
    let signature = encoded(WHAT, BitString::from_bytes(&signature))?;
    let certificate = builder.assemble(signature, &signer).map_err(unbuilt)?;
    Certificate::from_der(&encoded(WHAT, certificate.to_der())?)
}

/// What the builder wants to know of a signer. It does not sign: a key's error has to stay whole.
struct Signer<'a> {
    spki: &'a [u8],
    algorithm: AlgorithmIdentifierOwned,
}

impl<'a> signature::Keypair for Signer<'a> {
    type VerifyingKey = PublicKey<'a>;

    fn verifying_key(&self) -> PublicKey<'a> {
        PublicKey(self.spki)
    }
}

impl DynSignatureAlgorithmIdentifier for Signer<'_> {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        Ok(self.algorithm.clone())
    }
}

#[derive(Clone)]
struct PublicKey<'a>(&'a [u8]);

impl EncodePublicKey for PublicKey<'_> {
    fn to_public_key_der(&self) -> spki::Result<Document> {
        Ok(Document::from_der(self.0)?)
    }
}
