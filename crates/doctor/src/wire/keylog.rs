//! Key logs: the secrets of TLS 1.3 connections, in the format that began with NSS and that every
//! TLS stack writes (RFC 9850).

use std::collections::HashMap;

/// Secrets by the random value of the ClientHello and by label.
#[derive(Clone, Default)]
pub struct KeyLog(HashMap<([u8; 32], String), Vec<u8>>);

/// No line of a key log is longer than this: label, 32 bytes, 64 bytes in hexadecimal.
const MAX_LINE: usize = 512;

impl KeyLog {
    /// Reads the text of a key log. Lines that are not understood are passed over: others may be
    /// good.
    pub fn parse(text: &str) -> Self {
        let mut log = Self::default();
        for line in text.lines().filter(|line| line.len() <= MAX_LINE && !line.starts_with('#')) {
            let mut words = line.split_ascii_whitespace();
            if let (Some(label), Some(random), Some(secret), None) = (
                words.next(),
                words.next().and_then(enclasp_pki::unhex),
                words.next().and_then(enclasp_pki::unhex),
                words.next(),
            ) && let Ok(random) = random.try_into()
            {
                log.add(random, label, &secret);
            }
        }
        log
    }

    /// Adds a secret.
    pub fn add(&mut self, client_random: [u8; 32], label: &str, secret: &[u8]) {
        self.0.insert((client_random, label.to_owned()), secret.to_vec());
    }

    /// Adds all of another's.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(other.0.iter().map(|(name, secret)| (name.clone(), secret.clone())));
    }

    /// The secret of that label of the connection that began with `client_random`.
    pub(crate) fn secret(&self, client_random: &[u8; 32], label: &str) -> Option<&[u8]> {
        self.0.get(&(*client_random, label.to_owned())).map(Vec::as_slice)
    }

    /// The text of it.
    pub fn to_text(&self) -> String {
        let mut lines: Vec<String> = self
            .0
            .iter()
            .map(|((random, label), secret)| {
                format!("{label} {} {}\n", enclasp_pki::hex(random), enclasp_pki::hex(secret))
            })
            .collect();
        lines.sort_unstable();
        lines.concat()
    }
}

impl std::fmt::Debug for KeyLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyLog({} secrets)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_back() {
        let random = "11".repeat(32);
        let text = format!(
            "# a comment\nnot a line\nCLIENT_RANDOM {random} 0g\nSERVER_TRAFFIC_SECRET_0 {random} 0aff\r\n"
        );
        let log = KeyLog::parse(&text);
        assert_eq!(log.secret(&[0x11; 32], "SERVER_TRAFFIC_SECRET_0"), Some(&[0x0a, 0xff][..]));
        assert_eq!(log.to_text(), format!("SERVER_TRAFFIC_SECRET_0 {random} 0aff\n"));
    }
}
