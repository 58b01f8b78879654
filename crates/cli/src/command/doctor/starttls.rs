//! Asking a server that begins in the clear to change to TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::failure::{Failure, Outcome};

/// A protocol that begins in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum StartTls {
    /// RFC 3207
    Smtp,
    /// RFC 9051 §6.2.1
    Imap,
    /// RFC 4511 §4.14
    Ldap,
    /// SSLRequest
    Postgres,
    /// SSLRequest
    Mysql,
}

/// No answer that is waited for is longer.
const MAX_ANSWER: usize = 16 * 1024;

/// Asks; when it returns, the ClientHello may follow.
pub(super) fn start(protocol: StartTls, stream: &mut TcpStream) -> Outcome {
    match protocol {
        StartTls::Smtp => {
            expect(stream, "220 ")?;
            say(stream, b"EHLO enclasp.invalid\r\n")?;
            expect(stream, "250 ")?;
            say(stream, b"STARTTLS\r\n")?;
            expect(stream, "220 ")
        }
        StartTls::Imap => {
            expect(stream, "* OK")?;
            say(stream, b"a1 STARTTLS\r\n")?;
            expect(stream, "a1 OK")
        }
        StartTls::Ldap => ldap(stream),
        StartTls::Postgres => {
            // Length 8, and the number that stands for a request to change to TLS.
            say(stream, &[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f])?;
            match array(stream)? {
                [b'S'] => Ok(()),
                [b'N'] => {
                    Err(Failure::new("the PostgreSQL server does not do TLS").hint("set `ssl = on` there"))
                }
                [other] => {
                    Err(Failure::new(format!("the server answered {other:#04x}, which PostgreSQL would not")))
                }
            }
        }
        StartTls::Mysql => mysql(stream),
    }
}

fn ldap(stream: &mut TcpStream) -> Outcome {
    let oid = b"1.3.6.1.4.1.1466.20037";
    // LDAPMessage { messageID 1, ExtendedRequest { requestName } }
    let mut request = vec![0x30, 29, 2, 1, 1, 0x77, 24, 0x80, 22];
    request.extend_from_slice(oid);
    say(stream, &request)?;
    let [tag, first] = array(stream)?;
    // Active Directory writes each length in four octets.
    let length = match first {
        short @ ..0x80 => usize::from(short),
        0x84 => u32::from_be_bytes(array(stream)?) as usize,
        _ => MAX_ANSWER + 1,
    };
    if tag == 0x30 && length <= MAX_ANSWER {
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).map_err(silent)?;
        // messageID 1, ExtendedResponse, resultCode ENUMERATED success.
        if answer.starts_with(&[2, 1, 1, 0x78]) && answer.windows(3).any(|window| window == [0x0a, 1, 0]) {
            return Ok(());
        }
    }
    Err(Failure::new("the LDAP server refuses StartTLS")
        .hint("it may want TLS from the beginning: ldaps, port 636"))
}

fn mysql(stream: &mut TcpStream) -> Outcome {
    const PROTOCOL_41: u32 = 0x200;
    const SSL: u32 = 0x800;
    const SECURE_CONNECTION: u32 = 0x8000;
    let [low, middle, high, _sequence] = array(stream)?;
    let length = usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16;
    if length > MAX_ANSWER {
        return Err(Failure::new("the server does not greet as MySQL does"));
    }
    let mut greeting = vec![0; length];
    stream.read_exact(&mut greeting).map_err(silent)?;
    // Protocol version, server version, zero, thread, 8 bytes, zero, then the capabilities.
    let after_version = greeting.iter().position(|byte| *byte == 0).map_or(0, |end| end + 1);
    let capabilities = greeting.get(after_version + 13..after_version + 15).unwrap_or_default();
    if greeting.first() != Some(&10) || capabilities.get(1).is_none_or(|byte| byte & 8 == 0) {
        return Err(
            Failure::new("the server does not offer TLS as MySQL does").hint("configure a certificate there")
        );
    }
    let capabilities = PROTOCOL_41 | SSL | SECURE_CONNECTION;
    let mut request = vec![32, 0, 0, 1];
    request.extend(capabilities.to_le_bytes());
    request.extend((1_u32 << 24).to_le_bytes());
    // utf8mb4, and 23 reserved bytes.
    request.push(45);
    request.extend([0; 23]);
    say(stream, &request)
}

fn say(stream: &mut TcpStream, bytes: &[u8]) -> Outcome {
    stream.write_all(bytes).map_err(silent)
}

fn array<const N: usize>(stream: &mut TcpStream) -> Outcome<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map_err(silent)?;
    Ok(bytes)
}

/// Reads lines until one begins with `wanted`; one that refuses ends it. Byte by byte: what follows
/// the line is not ours.
fn expect(stream: &mut TcpStream, wanted: &str) -> Outcome {
    let mut line = Vec::new();
    let mut total = 0;
    loop {
        let [byte] = array(stream)?;
        total += 1;
        if total > MAX_ANSWER {
            return Err(Failure::new("the server talks without end before TLS begins"));
        }
        if byte != b'\n' {
            line.push(byte);
            continue;
        }
        let text = String::from_utf8_lossy(&std::mem::take(&mut line)).trim_end().to_owned();
        if text.starts_with(wanted) {
            return Ok(());
        }
        let continues =
            text.as_bytes().get(3) == Some(&b'-') || (text.starts_with("* ") && !text.starts_with("* BYE"));
        if !continues {
            return Err(Failure::new(format!(
                "the server does not change to TLS: it says `{}`",
                text.escape_debug()
            ))
            .hint("is the protocol given with --starttls the one of this port?"));
        }
    }
}

fn silent(error: std::io::Error) -> Failure {
    let reason = match error.kind() {
        // So a read says that nothing came in time.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "nothing came within --connect-timeout".to_owned(),
        _ => error.to_string(),
    };
    Failure::new(format!("the server did not answer before TLS: {reason}"))
        .hint("without --starttls TLS begins at once; is the protocol the one of this port?")
}
