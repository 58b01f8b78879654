//! A server's first flight for clients that no modern TLS stack speaks with: TLS 1.0 and 1.1, RSA
//! key exchange, suites with CBC.
//!
//! Up to CertificateVerify these handshakes are in the clear, so that it takes no decryption to see
//! what a client presents and signs; after that nothing can be said to the client, and the
//! connection ends.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::rand;
use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{Algorithm, Input, Key, KeyUri, Scheme, SignContext};

use crate::wire::names::{suite_key_exchange, suite_name};
use crate::wire::{ClientHello, KeyExchange, Version, kind, vector, version};

/// The common name of the doctor's own server certificates, by which it is known in a capture.
pub const SERVER_NAME: &str = "Enclasp doctor";

/// A certificate that the server can present: its chain in DER, leaf first, and its key.
pub struct Presented<'a> {
    /// DER, leaf first.
    pub chain: &'a [Vec<u8>],
    /// The leaf's key, P-256 or RSA.
    pub key: &'a dyn Key,
}

/// The schemes that the CertificateRequest offers in TLS 1.2.
const SCHEMES: [u16; 16] = [
    0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0809, 0x080a, 0x080b, 0x0401, 0x0501, 0x0601, 0x0807,
    0x0808, 0x0201, 0x0203,
];

const SECP256R1: u16 = 0x0017;

const RENEGOTIATION_SIGNAL: u16 = 0x00ff;
const RENEGOTIATION_INFO: u16 = 0xff01;

/// The server's flight from ServerHello to ServerHelloDone, as records, in answer to `hello`: in the
/// highest version up to `highest`, with the first of the client's suites that one of `presented`
/// serves. `None` if there is none.
pub fn first_flight(
    hello: &ClientHello,
    presented: &[Presented<'_>],
    authorities: &[Vec<u8>],
    highest: Version,
) -> Option<Vec<u8>> {
    let highest = highest.min(version::TLS12);
    let spoken = hello.versions.iter().copied().filter(|v| (version::TLS10..=highest).contains(v)).max()?;
    let (suite, served) = hello.suites.iter().find_map(|suite| {
        presented.iter().find(|presented| serves(presented, *suite, spoken, hello)).map(|p| (*suite, p))
    })?;
    let mut random = [0; 32];
    rand::fill(&mut random).ok()?;
    // Clients that know of the attack on renegotiation insist on an answer (RFC 5746 §3.6).
    let knows =
        hello.suites.contains(&RENEGOTIATION_SIGNAL) || hello.extensions.contains(&RENEGOTIATION_INFO);
    let renegotiation = vector(2, &[&RENEGOTIATION_INFO.to_be_bytes()[..], &[0, 1, 0]].concat());
    let server_hello = [
        &spoken.to_be_bytes()[..],
        &random,
        // No session to resume.
        &[0],
        &suite.to_be_bytes(),
        &[0],
        if knows { &renegotiation } else { &[] },
    ]
    .concat();
    let mut flight = message(kind::SERVER_HELLO, &server_hello);
    let list: Vec<u8> = served.chain.iter().flat_map(|der| vector(3, der)).collect();
    flight.extend(message(kind::CERTIFICATE, &vector(3, &list)));
    if suite_key_exchange(suite) == KeyExchange::Ecdhe {
        let exchange = key_exchange(served.key, spoken, &[&hello.random[..], &random].concat())?;
        flight.extend(message(kind::SERVER_KEY_EXCHANGE, &exchange));
    }
    // rsa_sign, dss_sign, ecdsa_sign.
    let mut request = vector(1, &[1, 2, 64]);
    if spoken == version::TLS12 {
        let schemes: Vec<u8> = SCHEMES.iter().flat_map(|scheme| scheme.to_be_bytes()).collect();
        request.extend(vector(2, &schemes));
    }
    let names: Vec<u8> = authorities.iter().flat_map(|name| vector(2, name)).collect();
    request.extend(vector(2, &names));
    flight.extend(message(kind::CERTIFICATE_REQUEST, &request));
    flight.extend(message(kind::SERVER_HELLO_DONE, &[]));
    // No record is longer than 2^14 bytes.
    Some(flight.chunks(1 << 14).flat_map(|part| record(22, spoken, part)).collect())
}

/// The alert that ends such a connection: closing, since nothing is wrong with the client.
pub fn farewell(spoken: Version) -> Vec<u8> {
    record(21, spoken, &[1, 0])
}

/// Whether a certificate and its key are of the kind that the suite needs, and can sign in the
/// version: RSA signs MD5 and SHA-1 together before TLS 1.2, which nothing here does any more.
fn serves(presented: &Presented<'_>, suite: u16, spoken: Version, hello: &ClientHello) -> bool {
    let algorithm = presented.key.info().algorithm;
    let name = suite_name(suite);
    let exchange = suite_key_exchange(suite);
    let has_group = hello.groups.is_empty() || hello.groups.contains(&SECP256R1);
    let usable = !name.contains("_NULL_") && (spoken == version::TLS12 || name.ends_with("_SHA"));
    usable
        && match exchange {
            KeyExchange::Rsa => algorithm == Algorithm::Rsa,
            KeyExchange::Ecdhe if name.contains("_ECDSA_") => algorithm == Algorithm::P256 && has_group,
            KeyExchange::Ecdhe => algorithm == Algorithm::Rsa && spoken == version::TLS12 && has_group,
            KeyExchange::Dhe | KeyExchange::Other => false,
        }
}

/// ServerECDHParams with a signature (RFC 8422 §5.4).
fn key_exchange(key: &dyn Key, spoken: Version, randoms: &[u8]) -> Option<Vec<u8>> {
    // Any point will do: what is agreed upon with it is never needed.
    let share = SoftKey::generate(KeyUri::soft("share").ok()?, Algorithm::P256).ok()?;
    let point = share.info().spki.last_chunk::<65>()?;
    let parameters = [&[3][..], &SECP256R1.to_be_bytes(), &vector(1, point)].concat();
    let input = [randoms, &parameters].concat();
    let context = SignContext::new("the doctor's server flight");
    let is_rsa = key.info().algorithm == Algorithm::Rsa;
    let scheme = if is_rsa { Scheme::RsaPkcs1Sha256 } else { Scheme::EcdsaP256Sha256 };
    let signature = if spoken == version::TLS12 {
        let signature = key.sign(scheme, Input::Message(&input), &context).ok()?;
        [&scheme.code_point().to_be_bytes()[..], &vector(2, signature.as_ref())].concat()
    } else {
        // SHA-1 as the number that ECDSA takes: 20 bytes at the end of 32.
        let mut number = [0; 32];
        number.last_chunk_mut::<20>()?.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, &input).as_ref());
        vector(2, key.sign(scheme, Input::Digest(&number), &context).ok()?.as_ref())
    };
    Some([parameters, signature].concat())
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &vector(3, body)].concat()
}

fn record(kind: u8, spoken: Version, payload: &[u8]) -> Vec<u8> {
    [&[kind][..], &spoken.to_be_bytes(), &vector(2, payload)].concat()
}
