//! What a TLS alert means, in a sentence (RFC 8446 §6.2).

use rustls::AlertDescription;

/// An alert as its sender means it.
pub(crate) struct Meaning {
    /// Its name in the RFC.
    pub(crate) name: &'static str,
    /// Whether it speaks of the certificate that we presented, or did not.
    pub(crate) of_certificate: bool,
    /// What the peer is saying, to complete "it …".
    pub(crate) sentence: &'static str,
    /// What to try.
    pub(crate) hint: Option<&'static str>,
}

pub(crate) fn meaning(alert: AlertDescription) -> Meaning {
    use AlertDescription as Alert;
    let of_certificate =
        |name, sentence, hint| Meaning { name, of_certificate: true, sentence, hint: Some(hint) };
    let other = |name, sentence, hint| Meaning { name, of_certificate: false, sentence, hint };
    match alert {
        Alert::CertificateRequired => of_certificate(
            "certificate_required",
            "demands a certificate and received none",
            "give an identity that the peer's CA issued",
        ),
        Alert::UnknownCA => of_certificate(
            "unknown_ca",
            "does not trust the CA that issued our certificate, or misses an intermediate",
            "import the whole chain, or add our root to what the peer trusts",
        ),
        Alert::CertificateExpired => of_certificate(
            "certificate_expired",
            "finds our certificate expired, or not yet valid, by its clock",
            "renew the certificate; if it is valid here, compare the clocks",
        ),
        Alert::CertificateRevoked => {
            of_certificate("certificate_revoked", "finds our certificate revoked", "enrol again")
        }
        Alert::AccessDenied => of_certificate(
            "access_denied",
            "accepts our certificate, but its rules do not admit this subject",
            "compare the subject with the peer's rules; its log says which one refused",
        ),
        Alert::BadCertificate => of_certificate(
            "bad_certificate",
            "finds our certificate damaged, or not valid for the name or the use",
            "the peer's log says what it found; some servers answer so when no certificate came",
        ),
        Alert::UnsupportedCertificate => of_certificate(
            "unsupported_certificate",
            "does not take a certificate of this kind: its key type, or an extended key usage that does not fit",
            "a client needs clientAuth among its extended key usages, a server serverAuth",
        ),
        Alert::CertificateUnknown => of_certificate(
            "certificate_unknown",
            "rejects our certificate for a reason that it does not tell",
            "Java answers so for a CA that its trust store lacks; the peer's log says more",
        ),
        Alert::HandshakeFailure => other(
            "handshake_failure",
            "finds no version, cipher suite, group or signature scheme in common",
            Some("some TLS 1.2 servers answer so when no client certificate came"),
        ),
        Alert::ProtocolVersion => other(
            "protocol_version",
            "does not speak any TLS version that we offer",
            Some("TLS 1.2 and 1.3 are supported; allow both"),
        ),
        Alert::InsufficientSecurity => {
            other("insufficient_security", "demands stronger ciphers than we have in common", None)
        }
        Alert::DecryptError => other(
            "decrypt_error",
            "could not verify a signature or a Finished message of ours",
            Some("the private key may not be the certificate's, or something changed bytes on the way"),
        ),
        Alert::NoApplicationProtocol => other(
            "no_application_protocol",
            "speaks none of the ALPN protocols that we offer",
            Some("offer another protocol, or none"),
        ),
        Alert::UnrecognisedName => other(
            "unrecognized_name",
            "does not serve the host name that was asked for",
            Some("the name that was sent is the host part of the address unless another was given"),
        ),
        Alert::IllegalParameter => other("illegal_parameter", "found a field that contradicts another", None),
        Alert::DecodeError => other("decode_error", "could not parse a message", None),
        Alert::UnexpectedMessage => other("unexpected_message", "received a message out of order", None),
        Alert::BadRecordMac => other("bad_record_mac", "received a record that was changed on the way", None),
        Alert::InternalError => other("internal_error", "failed on its side", Some("its log says why")),
        Alert::UserCanceled => other("user_canceled", "gave up for a reason outside TLS", None),
        _ => other("unlisted", "gives no more than the alert", None),
    }
}
