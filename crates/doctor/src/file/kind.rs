//! What a file holds, whatever it was called.

use super::node::{BIT_STRING, Header, INTEGER, Node, OCTET_STRING, OID, SEQUENCE};
use super::shape::Shape;
use super::shapes::{
    CERTIFICATE, EC_KEY, ENCRYPTED_KEY, PFX, PRIVATE_KEY, PUBLIC_KEY, REQUEST, REVOCATION_LIST, RSA_KEY,
    RSA_PUBLIC_KEY, TPM_KEY,
};

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Request,
    Certificate,
    RevocationList,
    /// PKCS#8, in the clear.
    PrivateKey,
    /// PKCS#8, encrypted.
    EncryptedKey,
    /// SEC 1.
    EcKey,
    /// PKCS#1.
    RsaKey,
    PublicKey,
    RsaPublicKey,
    TpmKey,
    OpensshKey,
    Pkcs12,
    /// A PKCS#7 or CMS message, such as certs-only.
    Cms,
    JavaKeystore,
    PuttyKey,
    /// A line of OpenSSH's `.pub` files.
    OpensshPublicKey,
}

impl Content {
    /// For a person: "a certificate".
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Request => "a certification request",
            Self::Certificate => "a certificate",
            Self::RevocationList => "a certificate revocation list",
            Self::PrivateKey => "a private key (PKCS#8)",
            Self::EncryptedKey => "an encrypted private key (PKCS#8)",
            Self::EcKey => "an EC private key (SEC 1)",
            Self::RsaKey => "an RSA private key (PKCS#1)",
            Self::PublicKey => "a public key",
            Self::RsaPublicKey => "an RSA public key (PKCS#1)",
            Self::TpmKey => "a TPM 2.0 key file",
            Self::OpensshKey => "an OpenSSH private key",
            Self::Pkcs12 => "a PKCS#12 file",
            Self::Cms => "a PKCS#7 (CMS) message",
            Self::JavaKeystore => "a Java keystore (JKS)",
            Self::PuttyKey => "a PuTTY private key",
            Self::OpensshPublicKey => "an OpenSSH public key",
        }
    }

    /// The PEM label that it should have.
    pub(super) fn label(self) -> Option<&'static str> {
        Some(match self {
            Self::Request => "CERTIFICATE REQUEST",
            Self::Certificate => "CERTIFICATE",
            Self::RevocationList => "X509 CRL",
            Self::PrivateKey => "PRIVATE KEY",
            Self::EncryptedKey => "ENCRYPTED PRIVATE KEY",
            Self::EcKey => "EC PRIVATE KEY",
            Self::RsaKey => "RSA PRIVATE KEY",
            Self::PublicKey => "PUBLIC KEY",
            Self::RsaPublicKey => "RSA PUBLIC KEY",
            Self::TpmKey => "TSS2 PRIVATE KEY",
            Self::OpensshKey => "OPENSSH PRIVATE KEY",
            Self::Cms => "PKCS7",
            Self::Pkcs12 | Self::JavaKeystore | Self::PuttyKey | Self::OpensshPublicKey => return None,
        })
    }

    /// Whether `label` says this, in RFC 7468's words or in older ones.
    pub(super) fn is_labelled(self, label: &str) -> bool {
        let older: &[&str] = match self {
            Self::Request => &["NEW CERTIFICATE REQUEST"],
            Self::Certificate => &["X509 CERTIFICATE", "TRUSTED CERTIFICATE"],
            Self::RevocationList => &["CRL"],
            Self::Cms => &["CMS", "PKCS #7 SIGNED DATA"],
            Self::TpmKey => &["TSS2 KEY BLOB"],
            _ => &[],
        };
        self.label() == Some(label) || older.contains(&label)
    }

    /// The `doctor` command that looks at it.
    pub(super) fn command(self) -> Option<&'static str> {
        Some(match self {
            Self::Request => "csr",
            Self::Certificate => "cert",
            Self::RevocationList => "crl",
            Self::Pkcs12 => "p12",
            Self::Cms | Self::JavaKeystore => return None,
            _ => "key",
        })
    }
}

/// What `bytes` are, if that can be seen: by their whole structure, or else by how they begin.
pub(super) fn recognize(bytes: &[u8]) -> Option<Content> {
    by_magic(bytes).or_else(|| by_structure(bytes)).or_else(|| by_beginning(bytes))
}

fn by_magic(bytes: &[u8]) -> Option<Content> {
    const MAGIC: [(&[u8], Content); 7] = [
        (b"openssh-key-v1\0", Content::OpensshKey),
        (b"PuTTY-User-Key-File-", Content::PuttyKey),
        (&[0xfe, 0xed, 0xfe, 0xed], Content::JavaKeystore),
        (&[0xce, 0xce, 0xce, 0xce], Content::JavaKeystore),
        (b"ssh-", Content::OpensshPublicKey),
        (b"ecdsa-sha2-", Content::OpensshPublicKey),
        (b"sk-", Content::OpensshPublicKey),
    ];
    MAGIC.into_iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, content)| content)
}

fn by_structure(bytes: &[u8]) -> Option<Content> {
    const SHAPES: [(&Shape, Content); 11] = [
        (&REQUEST, Content::Request),
        (&CERTIFICATE, Content::Certificate),
        (&REVOCATION_LIST, Content::RevocationList),
        (&PRIVATE_KEY, Content::PrivateKey),
        (&EC_KEY, Content::EcKey),
        (&RSA_KEY, Content::RsaKey),
        (&PUBLIC_KEY, Content::PublicKey),
        (&RSA_PUBLIC_KEY, Content::RsaPublicKey),
        (&PFX, Content::Pkcs12),
        (&TPM_KEY, Content::TpmKey),
        (&ENCRYPTED_KEY, Content::EncryptedKey),
    ];
    let (mut node, _) = Node::read(bytes, 0, bytes.len(), 0).ok()?;
    SHAPES.into_iter().find_map(|(shape, content)| {
        let mut misfits = Vec::new();
        shape.fit(&mut node, "", &mut misfits);
        misfits.is_empty().then_some(content)
    })
}

/// By the first identifier octets and small numbers, which survive most damage.
fn by_beginning(bytes: &[u8]) -> Option<Content> {
    let outer = Header::read(bytes, 0, 0).ok().filter(|header| header.tag == SEQUENCE)?;
    let first_at = outer.size;
    let first = Header::read(bytes, first_at, 0).ok()?;
    let inside = first_at + first.size;
    match first.tag {
        SEQUENCE => {
            let (tag, after) = (*bytes.get(inside)?, bytes.get(inside..)?);
            match after {
                [0xa0, 3, INTEGER, ..] => Some(Content::Certificate),
                [INTEGER, 1, 0, SEQUENCE, ..] => Some(Content::Request),
                [INTEGER, 1, 1, SEQUENCE, _, OID, ..] => Some(Content::RevocationList),
                _ if tag == OID => {
                    let next = inside.checked_sub(first.size)?.checked_add(first.size + first.length?)?;
                    match *bytes.get(next)? {
                        BIT_STRING => Some(Content::PublicKey),
                        OCTET_STRING => Some(Content::EncryptedKey),
                        _ => None,
                    }
                }
                _ => None,
            }
        }
        INTEGER => match bytes.get(first_at..)? {
            [INTEGER, 1, 0, SEQUENCE, ..] => Some(Content::PrivateKey),
            [INTEGER, 1, 1, OCTET_STRING, ..] => Some(Content::EcKey),
            [INTEGER, 1, 0, INTEGER, ..] => Some(Content::RsaKey),
            [INTEGER, 1, 3, SEQUENCE, ..] => Some(Content::Pkcs12),
            _ => None,
        },
        // The OIDs of PKCS#7 content types begin with 1.2.840.113549.1.7, those of TPM key files
        // with 2.23.133.10.1.
        OID => match bytes.get(inside..)? {
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, ..] => Some(Content::Cms),
            [0x67, 0x81, 5, 10, 1, ..] => Some(Content::TpmKey),
            _ => None,
        },
        _ => None,
    }
}
