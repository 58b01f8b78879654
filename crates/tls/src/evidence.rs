//! What a handshake established, for people and for machines.

use std::fmt;
use std::sync::Arc;

use enclasp_keystore::Algorithm;
use enclasp_pki::{Certificate, rfc3339};
use rustls::{CommonState, HandshakeKind, ProtocolVersion, SignatureScheme};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Credential;
use crate::known::Chain;
use crate::recorder::Record;

/// One side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Role {
    Client,
    Server,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// What a handshake established. The names of the JSON fields are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The other end, as the caller named it: `db.internal:5432`.
    pub address: String,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// The name in IANA's registry: `TLS_AES_256_GCM_SHA384`.
    pub cipher_suite: String,
    /// The key exchange: `X25519MLKEM768`. A resumed TLS 1.2 handshake has none.
    pub group: Option<String>,
    /// Whether certificates and signatures were exchanged.
    pub handshake: Handshake,
    /// The ALPN protocol that was agreed upon.
    pub alpn: Option<String>,
    /// The host name that the client asked for (SNI).
    pub server_name: Option<String>,
    /// What became of the client's certificate.
    pub client_certificate: ClientCertificate,
    /// This end.
    pub local: Party,
    /// The other end.
    pub peer: Party,
    /// The signatures of this handshake, in the order in which they were made or checked. A resumed
    /// handshake has none.
    pub signatures: Vec<SignatureEvidence>,
    /// What else is worth knowing, in sentences.
    pub notes: Vec<String>,
}

/// The kind of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handshake {
    /// Both ends authenticated themselves anew.
    Full,
    /// The same, after the server had asked for another key share (HelloRetryRequest).
    FullWithRetry,
    /// By a ticket or session of an earlier handshake, whose identities it takes over.
    Resumed,
}

/// What became of the client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificate {
    /// The client presented one.
    Sent,
    /// The server asked for one, and the client had none to present.
    RequestedNotSent,
    /// The server did not ask.
    NotRequested,
    /// The handshake was resumed: what the first one established counts.
    FromSession,
}

/// One end of a connection and what it presented.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Which end it is.
    pub role: Role,
    /// The URI of its key, if it is ours.
    pub key: Option<String>,
    /// Whether the key, if it is ours, is or was outside a keystore.
    pub software: Option<bool>,
    /// Its certificates, leaf first; empty if it presented none. At a resumed handshake: what the
    /// peer presented when the session began, and what we present when asked.
    #[serde(serialize_with = "serialize", deserialize_with = "deserialize")]
    pub chain: Arc<[CertificateSummary]>,
}

/// A certificate in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateSummary {
    /// RFC 4514 text: `CN=web,O=Acme`.
    pub subject: String,
    /// RFC 4514 text.
    pub issuer: String,
    /// Lower-case hexadecimal.
    pub serial: String,
    /// RFC 3339, UTC.
    pub not_before: String,
    /// RFC 3339, UTC.
    pub not_after: String,
    /// SHA-256 of the DER, in lower-case hexadecimal.
    pub fingerprint_sha256: String,
    /// `P-256`, `P-384`, `Ed25519`, `RSA`, or why it is none of them.
    pub key_algorithm: String,
    /// `dns:localhost`, `uri:…`, `email:…`, `ip:…`.
    pub subject_alt_names: Vec<String>,
}

/// One signature of a handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureEvidence {
    /// Who signed.
    pub by: Role,
    /// The message that carried it: `CertificateVerify`, or `ServerKeyExchange` (a TLS 1.2 server).
    pub message: String,
    /// The scheme: `ecdsa_secp256r1_sha256`.
    pub scheme: String,
    /// The scheme's code point on the wire: `0x0403`.
    pub code_point: String,
    /// The URI of the key, if it is ours.
    pub key: Option<String>,
    /// Whether this end verified it with the signer's public key. The peer's always are; one of
    /// ours is before it leaves, unless its keystore vouches for its own arithmetic.
    pub verified: bool,
    /// How long the key took, in microseconds, if it is ours.
    pub elapsed_us: Option<u64>,
}

impl SignatureEvidence {
    pub(crate) fn message(by: Role, tls13: bool) -> String {
        match (by, tls13) {
            (Role::Server, false) => "ServerKeyExchange",
            _ => "CertificateVerify",
        }
        .to_owned()
    }
}

impl CertificateSummary {
    /// Sums up a certificate.
    pub fn of(certificate: &Certificate) -> Self {
        Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: certificate.serial().to_owned(),
            not_before: rfc3339(certificate.not_before()),
            not_after: rfc3339(certificate.not_after()),
            fingerprint_sha256: certificate.fingerprint_hex(),
            key_algorithm: match certificate.algorithm() {
                Ok(algorithm) => algorithm.to_string(),
                Err(e) => e.to_string(),
            },
            subject_alt_names: certificate.subject_alt_names().iter().map(ToString::to_string).collect(),
        }
    }
}

impl Evidence {
    /// Of a connection whose handshake is done.
    pub(crate) fn new(
        role: Role,
        address: &str,
        connection: &CommonState,
        server_name: Option<String>,
        credential: Option<&Credential>,
        chain: Option<&Chain>,
        record: &mut Record,
    ) -> Self {
        let handshake = match connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => Handshake::Resumed,
            Some(HandshakeKind::FullWithHelloRetryRequest) => Handshake::FullWithRetry,
            _ => Handshake::Full,
        };
        let resumed = handshake == Handshake::Resumed;
        let peer_chain = chain.map(|chain| chain.summaries.clone()).unwrap_or_default();
        let client_certificate = match role {
            _ if resumed => ClientCertificate::FromSession,
            _ if !record.certificate_requested => ClientCertificate::NotRequested,
            Role::Client if credential.is_none() => ClientCertificate::RequestedNotSent,
            Role::Server if peer_chain.is_empty() => ClientCertificate::RequestedNotSent,
            _ => ClientCertificate::Sent,
        };
        let presented = match role {
            Role::Server => credential,
            Role::Client => credential.filter(|_| client_certificate != ClientCertificate::NotRequested),
        };
        let mut notes = std::mem::take(&mut record.notes);
        if resumed {
            notes.push(
                "a resumed handshake carries no certificate and no signature; \
                 the identities are those of the session's first handshake"
                    .to_owned(),
            );
        }
        Self {
            address: address.to_owned(),
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3".to_owned(),
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2".to_owned(),
                other => format!("{other:?}"),
            },
            cipher_suite: connection
                .negotiated_cipher_suite()
                .map(|suite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_"))
                .unwrap_or_default(),
            group: connection.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name())),
            handshake,
            alpn: connection.alpn_protocol().map(|protocol| String::from_utf8_lossy(protocol).into_owned()),
            server_name,
            client_certificate,
            local: Party {
                role,
                key: presented.map(|credential| credential.uri().to_string()),
                software: presented.map(Credential::is_software),
                chain: presented.map(|credential| credential.summaries().clone()).unwrap_or_default(),
            },
            peer: Party {
                role: match role {
                    Role::Client => Role::Server,
                    Role::Server => Role::Client,
                },
                key: None,
                software: None,
                chain: peer_chain,
            },
            signatures: std::mem::take(&mut record.signatures),
            notes,
        }
    }

    /// The subject of the peer's leaf, if it presented one.
    pub fn peer_subject(&self) -> Option<&str> {
        self.peer.chain.first().map(|leaf| leaf.subject.as_str())
    }

    /// The signature that one side made in this handshake.
    pub fn signature_by(&self, role: Role) -> Option<&SignatureEvidence> {
        self.signatures.iter().find(|signature| signature.by == role)
    }
}

impl fmt::Display for Evidence {
    /// A few aligned lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.handshake {
            Handshake::Full => "full handshake",
            Handshake::FullWithRetry => "full handshake after a HelloRetryRequest",
            Handshake::Resumed => "resumed",
        };
        let group = self.group.as_deref().unwrap_or("no key exchange");
        writeln!(f, "peer         {}", self.address)?;
        writeln!(f, "protocol     {}, {}, {group}, {kind}", self.version, self.cipher_suite)?;
        if let Some(name) = &self.server_name {
            writeln!(f, "server name  {name}")?;
        }
        if let Some(alpn) = &self.alpn {
            writeln!(f, "alpn         {alpn}")?;
        }
        for party in [&self.local, &self.peer] {
            write_party(f, party, self)?;
        }
        for signature in &self.signatures {
            let SignatureEvidence { by, message, scheme, code_point, verified, .. } = signature;
            write!(f, "signature    {by}'s {message}: {scheme} ({code_point})")?;
            if let (Some(key), Some(elapsed)) = (&signature.key, signature.elapsed_us) {
                write!(f, " by {key} in {elapsed} µs")?;
            }
            writeln!(f, "{}", if *verified { ", verified" } else { "" })?;
        }
        for note in &self.notes {
            writeln!(f, "note         {note}")?;
        }
        Ok(())
    }
}

fn write_party(f: &mut fmt::Formatter<'_>, party: &Party, evidence: &Evidence) -> fmt::Result {
    let Some((leaf, issuers)) = party.chain.split_first() else {
        let reason = match evidence.client_certificate {
            ClientCertificate::NotRequested => "the server did not ask for one",
            _ => "none was presented",
        };
        return writeln!(f, "{:<12} no certificate: {reason}", party.role.to_string());
    };
    writeln!(
        f,
        "{:<12} {} ({}, until {})",
        party.role.to_string(),
        leaf.subject,
        leaf.key_algorithm,
        leaf.not_after
    )?;
    for issuer in issuers {
        writeln!(f, "{:<12} ← {}", "", issuer.subject)?;
    }
    if let Some(last) = party.chain.last().filter(|last| last.issuer != last.subject) {
        writeln!(f, "{:<12} ← {}", "", last.issuer)?;
    }
    if let Some(key) = &party.key {
        let software = if party.software == Some(true) { " (software)" } else { "" };
        writeln!(f, "{:<12} key {key}{software}", "")?;
    }
    Ok(())
}

fn serialize<S: Serializer>(chain: &[CertificateSummary], to: S) -> Result<S::Ok, S::Error> {
    chain.serialize(to)
}

fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<[CertificateSummary]>, D::Error> {
    Vec::deserialize(from).map(Arc::from)
}

/// A certificate that does not parse took no part in the verification; it is left out.
pub(crate) fn summaries(chain: &[CertificateDer<'_>]) -> Arc<[CertificateSummary]> {
    chain
        .iter()
        .filter_map(|der| Certificate::from_der(der.as_ref()).ok())
        .map(|certificate| CertificateSummary::of(&certificate))
        .collect()
}

/// The scheme's name, given the type of the key that signed: an ECDSA code point of TLS 1.2 names
/// the hash only.
pub(crate) fn scheme_name(scheme: SignatureScheme, algorithm: Option<Algorithm>) -> String {
    let code_point = u16::from(scheme);
    let natural = [Algorithm::P256, Algorithm::P384, Algorithm::Ed25519].map(Algorithm::natural_scheme);
    let mut known = algorithm
        .map_or(&[][..], Algorithm::schemes)
        .iter()
        .chain(&natural)
        .chain(Algorithm::Rsa.schemes())
        .filter(|known| known.code_point() == code_point);
    match known.next() {
        Some(known) => known.name().to_owned(),
        None => match scheme {
            SignatureScheme::ECDSA_NISTP521_SHA512 => "ecdsa_secp521r1_sha512".to_owned(),
            SignatureScheme::ED448 => "ed448".to_owned(),
            SignatureScheme::RSA_PKCS1_SHA1 => "rsa_pkcs1_sha1".to_owned(),
            SignatureScheme::ECDSA_SHA1_Legacy => "ecdsa_sha1".to_owned(),
            _ => format!("0x{code_point:04x}"),
        },
    }
}
