//! A TLS 1.2 client that may lie about its key, its signature and its certificate.
//!
//! Up to CertificateVerify a TLS 1.2 handshake (RFC 5246 §7.3) is in the clear, and a server has to
//! check that message before it looks at anything that is encrypted. So this client needs no
//! cryptography of its own: it sends its Finished as rubbish, and tells by the alert how far the
//! server went.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::str::FromStr;
use std::time::Duration;

use crate::harness::Home;

/// How the server ended the handshake.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It did not let CertificateVerify pass: the alert that it sent, or none before it closed.
    AtCertificateVerify(Option<u8>),
    /// It took CertificateVerify, and refused the Finished message that nobody could decrypt.
    AtFinished,
}

/// The code points of TLS 1.2 that this needs.
mod code {
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const ALERT: u8 = 21;
    pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
    pub(super) const CLIENT_HELLO: u8 = 1;
    pub(super) const CERTIFICATE: u8 = 11;
    pub(super) const SERVER_HELLO_DONE: u8 = 14;
    pub(super) const CERTIFICATE_REQUEST: u8 = 13;
    pub(super) const CERTIFICATE_VERIFY: u8 = 15;
    pub(super) const CLIENT_KEY_EXCHANGE: u8 = 16;
    pub(super) const ECDSA_SECP256R1_SHA256: u16 = 0x0403;
    pub(super) const RSA_PKCS1_SHA256: u16 = 0x0401;
    pub(super) const ECDSA_SHA224: u16 = 0x0303;
    pub(super) const BAD_RECORD_MAC: u8 = 20;
}

/// What is wrong with what the client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Nothing: an ECDSA signature with SHA-256.
    Nothing,
    /// CertificateVerify claims rsa_pkcs1_sha256 and carries 256 bits, as the seed's did.
    RsaClaim,
    /// r and s side by side, not in DER.
    RawPair,
    /// DER with a zero byte too many before r.
    PaddedInteger,
    /// SHA-384 where SHA-256 is claimed.
    OtherHash,
    /// The digest was hashed once more.
    DigestHashed,
    /// The transcript without its last message.
    OtherTranscript,
    /// By the key `other.key`.
    OtherKey,
    /// The digest in place of a signature.
    DigestAlone,
    /// No signature at all.
    Empty,
    /// A scheme that the server did not offer.
    NotOffered,
    /// No CertificateVerify.
    NoProof,
    /// A certificate that is none.
    Unreadable,
    /// A Certificate message whose lengths contradict each other.
    Malformed,
    /// It leaves when it sees the server's certificate.
    Leaves,
}

impl FromStr for Lie {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "nothing" => Self::Nothing,
            "rsa-claim" => Self::RsaClaim,
            "raw-pair" => Self::RawPair,
            "padded-integer" => Self::PaddedInteger,
            "other-hash" => Self::OtherHash,
            "digest-hashed" => Self::DigestHashed,
            "other-transcript" => Self::OtherTranscript,
            "other-key" => Self::OtherKey,
            "digest-alone" => Self::DigestAlone,
            "empty" => Self::Empty,
            "not-offered" => Self::NotOffered,
            "no-proof" => Self::NoProof,
            "unreadable" => Self::Unreadable,
            "malformed" => Self::Malformed,
            "leaves" => Self::Leaves,
            other => return Err(format!("no such lie: {other}")),
        })
    }
}

/// Connects to a server at `port` with the P-256 key and certificate of `peer` in `home`, and lies.
pub(crate) fn misbehave(home: &Home, port: u16, peer: &str, lie: Lie) -> Ending {
    let mut handshake = Handshake::connect(port);
    handshake.send(code::CLIENT_HELLO, &client_hello());
    let mut certificate_requested = false;
    loop {
        let (kind, _) = handshake.receive();
        certificate_requested |= kind == code::CERTIFICATE_REQUEST;
        if kind == code::SERVER_HELLO_DONE {
            break;
        }
    }
    assert!(certificate_requested, "the server does not ask for a certificate");
    if lie == Lie::Leaves {
        return Ending::AtCertificateVerify(None);
    }
    let certificates = match lie {
        Lie::Unreadable => vector(3, &[0x30, 0x03, 0x02, 0x01, 0x05]),
        _ => certificates(home, peer, &handshake),
    };
    let mut body = vector(3, &certificates);
    if lie == Lie::Malformed {
        body[2] ^= 1;
    }
    handshake.send(code::CERTIFICATE, &body);
    let before = handshake.transcript.clone();
    handshake.send(code::CLIENT_KEY_EXCHANGE, &vector(1, &GENERATOR));
    if let Some((scheme, signature)) = proof(home, peer, lie, &before, &handshake) {
        let verify = [&scheme.to_be_bytes()[..], &vector(2, &signature)].concat();
        handshake.send(code::CERTIFICATE_VERIFY, &verify);
    }
    handshake.finish()
}

/// The scheme and the signature of CertificateVerify, if there is one. `before` lacks the last message of the
/// transcript.
fn proof(home: &Home, peer: &str, lie: Lie, before: &[u8], handshake: &Handshake) -> Option<(u16, Vec<u8>)> {
    let transcript = handshake.transcript.as_slice();
    let own = format!("lie-{}", handshake.port);
    let sign =
        |hash: &str, key: &str, bytes: &[u8]| signature(home, &own, hash, &format!("{key}.key"), bytes);
    let honest = || sign("sha256", peer, transcript);
    let digest = || {
        home.write(&own, transcript);
        home.openssl(&format!("dgst -sha256 -binary -out {own}-digest {own}"));
        home.read(&format!("{own}-digest"))
    };
    let claimed = match lie {
        Lie::RsaClaim => code::RSA_PKCS1_SHA256,
        Lie::NotOffered => code::ECDSA_SHA224,
        _ => code::ECDSA_SECP256R1_SHA256,
    };
    let signature = match lie {
        Lie::NoProof => return None,
        Lie::RsaClaim => vec![0x5a; 32],
        Lie::RawPair => raw_pair(&honest()),
        Lie::PaddedInteger => padded(&honest()),
        Lie::OtherHash => sign("sha384", peer, transcript),
        Lie::NotOffered => sign("sha224", peer, transcript),
        Lie::DigestHashed => sign("sha256", peer, &digest()),
        Lie::OtherTranscript => sign("sha256", peer, before),
        Lie::OtherKey => sign("sha256", "other", transcript),
        Lie::DigestAlone => digest(),
        Lie::Empty => Vec::new(),
        _ => honest(),
    };
    Some((claimed, signature))
}

/// The two INTEGERs of a DER signature of less than 128 bytes, 32 bytes each.
fn raw_pair(der: &[u8]) -> Vec<u8> {
    let (mut rest, mut pair) = (&der[2..], Vec::new());
    for _ in 0..2 {
        let (number, after) = rest[2..].split_at(usize::from(rest[1]));
        let number: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
        pair.extend(vec![0; 32 - number.len()]);
        pair.extend(number);
        rest = after;
    }
    pair
}

/// A DER signature with a zero byte more before its first INTEGER.
fn padded(der: &[u8]) -> Vec<u8> {
    [&[der[0], der[1] + 1, der[2], der[3] + 1, 0], &der[4..]].concat()
}

struct Handshake {
    stream: TcpStream,
    /// Our end's, which no other connection has at this time.
    port: u16,
    /// All handshake messages so far, which CertificateVerify signs (RFC 5246 §7.4.8).
    transcript: Vec<u8>,
    /// What came in handshake records and was not looked at yet.
    pending: Vec<u8>,
}

impl Handshake {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let own = stream.local_addr().expect("its address").port();
        Self { stream, port: own, transcript: Vec::new(), pending: Vec::new() }
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        let message = [&[kind][..], &vector(3, body)].concat();
        self.transcript.extend_from_slice(&message);
        // A server may have closed already, which is seen when it is read from.
        let _ = self.stream.write_all(&record(code::HANDSHAKE, &message));
    }

    /// The next handshake message.
    fn receive(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some(header) = self.pending.get(..4) {
                let end = 4
                    + usize::from(header[1]) * 65536
                    + usize::from(header[2]) * 256
                    + usize::from(header[3]);
                if self.pending.len() >= end {
                    let message: Vec<u8> = self.pending.drain(..end).collect();
                    self.transcript.extend_from_slice(&message);
                    return (message[0], message[4..].to_vec());
                }
            }
            match self.receive_record() {
                Some((code::HANDSHAKE, body)) => self.pending.extend(body),
                other => panic!("not a handshake record: {other:?}"),
            }
        }
    }

    /// Sends ChangeCipherSpec and rubbish in the place of Finished, and reads how the server ends.
    fn finish(mut self) -> Ending {
        let rubbish = [record(code::CHANGE_CIPHER_SPEC, &[1]), record(code::HANDSHAKE, &[0xa5; 40])].concat();
        let _ = self.stream.write_all(&rubbish);
        match self.receive_record() {
            None => Ending::AtCertificateVerify(None),
            Some((code::ALERT, alert)) if alert.get(1) == Some(&code::BAD_RECORD_MAC) => Ending::AtFinished,
            Some((code::ALERT, alert)) => Ending::AtCertificateVerify(alert.get(1).copied()),
            Some((kind, _)) => panic!("the server goes on with a record of type {kind}"),
        }
    }

    /// The type and body of the next record; none if the server has closed.
    fn receive_record(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 5];
        match self.stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return None;
            }
            Err(e) => panic!("the server neither answers nor closes: {e}"),
        }
        let mut body = vec![0; usize::from(header[3]) * 256 + usize::from(header[4])];
        self.stream.read_exact(&mut body).expect("a whole record");
        Some((header[0], body))
    }
}

/// The generator of P-256 (SEC 2 §2.4.2): the public key of the private key 1.
const GENERATOR: [u8; 65] = [
    0x04, 0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2,
    0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96, 0x4f,
    0xe3, 0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16, 0x2b, 0xce,
    0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
];

/// TLS 1.2, ECDHE over P-256, and the signature schemes that clients commonly offer.
fn client_hello() -> Vec<u8> {
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &vector(2, body)].concat();
    let schemes = [0x04, 0x03, 0x05, 0x03, 0x04, 0x01, 0x08, 0x04];
    let extensions = [
        extension(10, &vector(2, &[0x00, 0x17])),
        extension(11, &vector(1, &[0])),
        extension(13, &vector(2, &schemes)),
        extension(0xff01, &vector(1, &[])),
        extension(23, &[]),
    ];
    let suites = [0xc0, 0x2b, 0xc0, 0x2c, 0xc0, 0x2f, 0xc0, 0x30];
    [
        &[0x03, 0x03][..],
        &[0x42; 32],
        &vector(1, &[]),
        &vector(2, &suites),
        &vector(1, &[0]),
        &vector(2, &extensions.concat()),
    ]
    .concat()
}

/// The chain of `peer` in DER, as the body of a Certificate message.
fn certificates(home: &Home, peer: &str, handshake: &Handshake) -> Vec<u8> {
    let pem = String::from_utf8(home.read(&format!("{peer}.pem"))).expect("PEM");
    let begin = "-----BEGIN CERTIFICATE-----";
    let mut list = Vec::new();
    for (index, one) in pem.split(begin).skip(1).enumerate() {
        let own = format!("lie-{}-{index}", handshake.port);
        home.write(&own, format!("{begin}{one}"));
        home.openssl(&format!("x509 -in {own} -outform DER -out {own}.der"));
        list.extend(vector(3, &home.read(&format!("{own}.der"))));
    }
    list
}

/// Files that begin with `own` are of this connection.
fn signature(home: &Home, own: &str, hash: &str, key: &str, message: &[u8]) -> Vec<u8> {
    home.write(own, message);
    home.openssl(&format!("dgst -{hash} -sign {key} -out {own}-signature {own}"));
    home.read(&format!("{own}-signature"))
}

/// `body` after its length in `width` bytes.
fn vector(width: usize, body: &[u8]) -> Vec<u8> {
    [&body.len().to_be_bytes()[size_of::<usize>() - width..], body].concat()
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 0x03, 0x03][..], &vector(2, body)].concat()
}
