//! The PROXY protocol, version 2 (haproxy's proxy-protocol.txt §2.2): tells the target of a server
//! tunnel who is at the other end.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use enclasp_pki::Certificate;
use enclasp_tls::Evidence;

/// How much the target is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxyProtocol {
    /// The addresses of the connection.
    Conn,
    /// Also what the handshake established: version, cipher suite, the names that were asked for and
    /// presented.
    Tls,
    /// Also the client's certificate, in DER.
    TlsFull,
}

impl FromStr for ProxyProtocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "conn" => Ok(Self::Conn),
            "tls" => Ok(Self::Tls),
            "tls-full" => Ok(Self::TlsFull),
            _ => Err(format!("`{text}` is not one of conn, tls, tls-full")),
        }
    }
}

/// The two ends of the client's connection: the client's address and ours.
pub(crate) type Addresses = (SocketAddr, SocketAddr);

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, and that the connection is relayed.
const PROXY: u8 = 0x21;

/// Address families and transports (§2.2).
const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// Types of values (§2.2).
const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
const SSL_GROUP: u8 = 0x26;
const SSL_CLIENT_CERT: u8 = 0x28;

/// The client connected with TLS; it presented a certificate on this connection, or when the
/// session began.
const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERT_CONN: u8 = 0x02;
const CLIENT_CERT_SESS: u8 = 0x04;

impl ProxyProtocol {
    /// The header that is sent before the client's bytes. `addresses` are unknown for a Unix socket;
    /// `leaf` is the client's certificate.
    pub(crate) fn header(
        self,
        addresses: Option<Addresses>,
        evidence: &Evidence,
        leaf: Option<&[u8]>,
    ) -> Vec<u8> {
        let (family, mut body) = match addresses {
            None => (UNSPECIFIED, Vec::new()),
            Some((from, to)) => encode_addresses(from, to),
        };
        if self >= Self::Tls {
            if let Some(protocol) = &evidence.alpn {
                value(&mut body, ALPN, protocol.as_bytes());
            }
            if let Some(name) = &evidence.server_name {
                value(&mut body, AUTHORITY, name.as_bytes());
            }
            let certificate = leaf.filter(|_| self == Self::TlsFull);
            value(&mut body, SSL, &encode_tls(evidence, leaf, certificate));
        }
        let length = u16::try_from(body.len()).unwrap_or(0);
        // A certificate that is too large for the header is left out, and with names of such a size all.
        if usize::from(length) != body.len() {
            let less = if self == Self::TlsFull { Self::Tls } else { Self::Conn };
            return less.header(addresses, evidence, leaf);
        }
        [&SIGNATURE[..], &[PROXY, family], &length.to_be_bytes(), &body].concat()
    }
}

fn encode_addresses(from: SocketAddr, to: SocketAddr) -> (u8, Vec<u8>) {
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    // A socket of both families gives IPv4 addresses in their IPv6 form.
    match (from.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            (TCP_OVER_IPV4, [&from.octets()[..], &to.octets(), &ports].concat())
        }
        (from, to) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            (TCP_OVER_IPV6, [&octets(from)[..], &octets(to), &ports].concat())
        }
    }
}

/// PP2_TYPE_SSL (§2.2.6).
fn encode_tls(evidence: &Evidence, leaf: Option<&[u8]>, certificate: Option<&[u8]>) -> Vec<u8> {
    use enclasp_tls::Handshake::Resumed;
    let mut client = CLIENT_SSL;
    if leaf.is_some() {
        client |= CLIENT_CERT_SESS;
        if evidence.handshake != Resumed {
            client |= CLIENT_CERT_CONN;
        }
    }
    // `verify` is 0 for a certificate that verified, and for none 1.
    let verify = u32::from(leaf.is_none());
    let mut body = [&[client][..], &verify.to_be_bytes()].concat();
    value(&mut body, SSL_VERSION, evidence.version.as_bytes());
    let common_name = leaf.and_then(|leaf| Certificate::from_der(leaf).ok()?.subject().common_name());
    if let Some(name) = common_name {
        value(&mut body, SSL_CN, name.as_bytes());
    }
    value(&mut body, SSL_CIPHER, evidence.cipher_suite.as_bytes());
    if let Some(group) = &evidence.group {
        value(&mut body, SSL_GROUP, group.as_bytes());
    }
    if let Some(certificate) = certificate {
        value(&mut body, SSL_CLIENT_CERT, certificate);
    }
    body
}

/// Appends a type, a length and a value. One that is too long makes the whole header too long, which
/// is noticed there.
fn value(body: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    body.push(kind);
    body.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    body.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(from: &str, to: &str) -> (u8, Vec<u8>) {
        encode_addresses(from.parse().unwrap(), to.parse().unwrap())
    }

    #[test]
    fn addresses_are_of_one_family() {
        let v4 = (TCP_OVER_IPV4, vec![192, 0, 2, 1, 127, 0, 0, 1, 0x30, 0x39, 0x20, 0xfb]);
        assert_eq!(addresses("192.0.2.1:12345", "127.0.0.1:8443"), v4);
        assert_eq!(addresses("[::ffff:192.0.2.1]:12345", "[::ffff:127.0.0.1]:8443"), v4);
        let (family, body) = addresses("[2001:db8::1]:1", "[::1]:2");
        assert_eq!((family, body.len()), (TCP_OVER_IPV6, 36));
        assert_eq!(&body[32..], [0, 1, 0, 2]);
        let (family, body) = addresses("[2001:db8::1]:1", "127.0.0.1:2");
        assert_eq!((family, &body[26..32]), (TCP_OVER_IPV6, &[0xff, 0xff, 127, 0, 0, 1][..]));
    }

    #[test]
    fn a_value_has_its_length_before_it() {
        let mut body = Vec::new();
        value(&mut body, ALPN, b"h2");
        assert_eq!(body, [1, 0, 2, b'h', b'2']);
    }

    #[test]
    fn modes_are_read() {
        assert_eq!("tls-full".parse(), Ok(ProxyProtocol::TlsFull));
        assert!("full".parse::<ProxyProtocol>().is_err());
    }
}
