//! From recorded bytes to what happened: who said what, in which order, and what was signed.

use std::time::Duration;

use aws_lc_rs::digest;
use serde::Serialize;

use crate::recording::{End, Recording};
use crate::wire::names::{
    alert_name, message_name, scheme_name, suite_key_exchange, suite_name, version_name,
};
use crate::wire::{
    CertificateRequest, CertificateVerify, ClientHello, Deframer, Framing, KeyLog, Malformed, Reader,
    RecordKey, ServerHello, ServerKeyExchange, Side, Stranger, Version, certificates, content,
    encrypted_extensions_alpn, kind, traffic_update, version,
};

/// What happened on one connection.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Everything in its order.
    pub events: Vec<Event>,
    /// The ClientHellos; two after a HelloRetryRequest.
    pub client_hellos: Vec<ClientHello>,
    /// The HelloRetryRequest.
    pub retry: Option<ServerHello>,
    /// What the server chose.
    pub server_hello: Option<ServerHello>,
    /// The application protocol that was agreed upon.
    pub alpn: Option<String>,
    /// The server's DER certificates, in its order.
    pub server_chain: Vec<Vec<u8>>,
    /// The server's key exchange, before TLS 1.3.
    pub server_key_exchange: Option<ServerKeyExchange>,
    /// What the server asked for.
    pub request: Option<CertificateRequest>,
    /// The client's DER certificates, in its order; empty if it answered that it has none.
    pub client_chain: Option<Vec<Vec<u8>>>,
    /// What the server signed with its certificate's key.
    pub server_signature: Option<SignatureSeen>,
    /// What the client signed.
    pub client_signature: Option<SignatureSeen>,
    /// The alerts that could be read.
    pub alerts: Vec<Alert>,
    /// How far each side got.
    pub client: Progress,
    /// The same of the server.
    pub server: Progress,
    /// Whether a session was resumed: neither certificates nor signatures then.
    pub resumed: bool,
    /// Whether some of it was encrypted and there were no secrets to read it with.
    pub opaque: bool,
    /// Whether bytes are missing in between.
    pub has_gaps: bool,
    /// Messages that do not follow their grammar: who sent it, and its name.
    pub malformed: Vec<(Side, String)>,
}

/// How far one side got.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Bytes that it sent, of whatever kind.
    pub bytes: usize,
    /// Whether it sent its Finished message, readable or not.
    pub finished: bool,
    /// Application data, in bytes as they were encrypted.
    pub data: usize,
    /// What it sent that is not TLS.
    pub stranger: Option<Stranger>,
    /// How it ended.
    pub end: Option<End>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// After the connection's beginning, in microseconds.
    pub at_us: u64,
    /// Who did it.
    pub by: Side,
    /// What, in a few words: `ClientHello`, `alert certificate_required`.
    pub what: String,
    /// What is worth knowing of it.
    pub detail: String,
}

/// An alert that could be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alert {
    /// Who sent it.
    pub by: Side,
    /// The level field says "fatal".
    pub fatal: bool,
    /// Its code point.
    pub description: u8,
}

impl Alert {
    /// Whether it says no more than goodbye.
    pub fn is_closure(&self) -> bool {
        matches!(self.description, 0 | 90 | 100)
    }

    /// Its name in the RFC.
    pub fn name(&self) -> String {
        alert_name(self.description)
    }
}

/// A signature of the handshake and what it ought to be over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureSeen {
    /// Who signed.
    pub by: Side,
    /// The code point that was claimed; before TLS 1.2 there is none.
    pub scheme: Option<u16>,
    /// The signature as it was sent.
    pub signature: Vec<u8>,
    /// The bytes that it has to be over, before hashing.
    pub input: Vec<u8>,
    /// All handshake messages before it; empty for a ServerKeyExchange.
    pub transcript: Vec<u8>,
}

impl Observation {
    /// The version that is spoken, once the server has said so.
    pub fn version(&self) -> Option<Version> {
        self.server_hello.as_ref().map(|hello| hello.version)
    }

    /// One side's progress.
    pub fn progress(&self, side: Side) -> &Progress {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// The first alert of that side that is more than a goodbye.
    pub fn refusal_by(&self, side: Side) -> Option<&Alert> {
        self.alerts.iter().find(|alert| alert.by == side && !alert.is_closure())
    }

    /// Whether both sides completed the handshake.
    pub fn is_complete(&self) -> bool {
        self.client.finished && self.server.finished
    }
}

/// Reads a recording.
pub fn observe(recording: &Recording) -> Observation {
    let mut flow = Flow::new(&recording.secrets);
    let mut ends = recording.ends.iter().peekable();
    for chunk in &recording.chunks {
        while let Some((side, at, end)) = ends.next_if(|(_, at, _)| *at < chunk.at) {
            flow.end(*side, *at, *end);
        }
        flow.push(chunk.by, chunk.at, &chunk.bytes);
    }
    for (side, at, end) in ends {
        flow.end(*side, *at, *end);
    }
    flow.seen.has_gaps = recording.has_gaps;
    flow.finish()
}

/// No handshake message that is worth reading is longer.
const MAX_MESSAGE: usize = 1 << 18;

/// One direction.
#[derive(Default)]
struct Direction {
    records: Deframer,
    /// Handshake messages that are not complete yet.
    pending: Vec<u8>,
    /// Since its ChangeCipherSpec (before TLS 1.3).
    encrypted: bool,
    key: Option<RecordKey>,
    /// What `key` was made of.
    secret: Vec<u8>,
    /// Whether its messages cannot be followed any more.
    lost: bool,
}

struct Flow<'a> {
    secrets: &'a KeyLog,
    seen: Observation,
    client: Direction,
    server: Direction,
    transcript: Vec<u8>,
    at: Duration,
}

impl<'a> Flow<'a> {
    fn new(secrets: &'a KeyLog) -> Self {
        Self {
            secrets,
            seen: Observation::default(),
            client: Direction::default(),
            server: Direction::default(),
            transcript: Vec::new(),
            at: Duration::ZERO,
        }
    }

    fn direction(&mut self, side: Side) -> &mut Direction {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    fn progress(&mut self, side: Side) -> &mut Progress {
        match side {
            Side::Client => &mut self.seen.client,
            Side::Server => &mut self.seen.server,
        }
    }

    fn push(&mut self, side: Side, at: Duration, bytes: &[u8]) {
        self.at = at;
        self.progress(side).bytes += bytes.len();
        self.direction(side).records.push(bytes);
        while let Some(framing) = self.direction(side).records.next() {
            match framing {
                Framing::Record(record) => self.record(side, record.kind, record.payload),
                Framing::Stranger(stranger) => return self.stranger(side, stranger),
            }
        }
    }

    fn stranger(&mut self, side: Side, stranger: Stranger) {
        self.event(side, "not TLS", format!("{}: {}", stranger.protocol, stranger.sample));
        self.progress(side).stranger = Some(stranger);
    }

    fn end(&mut self, side: Side, at: Duration, end: End) {
        self.at = at;
        if let Some(stranger) = self.direction(side).records.finish() {
            self.stranger(side, stranger);
        }
        self.progress(side).end = Some(end);
        let what = match end {
            End::Closed => "closes the connection",
            End::Reset => "resets the connection",
            End::TimedOut => "says no more",
        };
        let within = self.direction(side).records.is_within();
        self.event(side, what, if within { "within a record" } else { "" });
    }

    fn finish(mut self) -> Observation {
        for side in [Side::Client, Side::Server] {
            if let Some(stranger) = self.direction(side).records.finish() {
                self.stranger(side, stranger);
            }
        }
        self.seen
    }

    fn event(&mut self, by: Side, what: impl Into<String>, detail: impl Into<String>) {
        let at_us = u64::try_from(self.at.as_micros()).unwrap_or(u64::MAX);
        self.seen.events.push(Event { at_us, by, what: what.into(), detail: detail.into() });
    }

    fn is_tls13(&self) -> bool {
        self.seen.version().is_some_and(|version| version >= version::TLS13)
    }

    fn record(&mut self, side: Side, kind: u8, payload: Vec<u8>) {
        let tls13 = self.is_tls13();
        match kind {
            content::CHANGE_CIPHER_SPEC => {
                // In TLS 1.3 it is for old devices on the way, and means nothing.
                if !tls13 && self.seen.server_hello.is_some() {
                    self.direction(side).encrypted = true;
                    self.event(side, "ChangeCipherSpec", "");
                    self.seen.resumed |= side == Side::Server
                        && self.seen.server_chain.is_empty()
                        && self
                            .seen
                            .server_hello
                            .as_ref()
                            .is_some_and(|hello| hello.session_id_or_ticket(&self.seen));
                }
            }
            content::APPLICATION_DATA if tls13 => self.encrypted_record(side, &payload),
            // Early data, before there is an answer.
            content::APPLICATION_DATA => self.data(side, payload.len()),
            _ if self.direction(side).encrypted => self.unreadable(side, kind),
            _ => self.plain(side, kind, &payload),
        }
    }

    /// A TLS 1.3 record that hides what it is.
    fn encrypted_record(&mut self, side: Side, payload: &[u8]) {
        let early =
            side == Side::Client && self.seen.client_hellos.last().is_some_and(|hello| hello.early_data);
        let Some(key) = &mut self.direction(side).key else {
            self.seen.opaque = true;
            // Without secrets it can be the rest of the handshake or data; nobody knows.
            return self.data(side, payload.len());
        };
        match key.open(payload) {
            Some((content::APPLICATION_DATA, plain)) => self.data(side, plain.len()),
            Some((kind, plain)) => self.plain(side, kind, &plain),
            None if early => self.data(side, payload.len()),
            None => {
                self.seen.opaque = true;
                self.direction(side).key = None;
                self.event(side, "a record that its secret does not decrypt", "");
            }
        }
    }

    fn data(&mut self, side: Side, length: usize) {
        const WHAT: &str = "application data";
        let known = self.direction(side).key.is_some() || !self.is_tls13();
        let what = if known { WHAT } else { "encrypted records" };
        let progress = self.progress(side);
        progress.data += length;
        let total = progress.data;
        match self.seen.events.last_mut() {
            Some(last) if last.by == side && last.what == what => last.detail = format!("{total} bytes"),
            _ => self.event(side, what, format!("{length} bytes")),
        }
    }

    /// A record after ChangeCipherSpec: Finished comes first, and once.
    fn unreadable(&mut self, side: Side, kind: u8) {
        match kind {
            content::HANDSHAKE if !self.progress(side).finished => {
                self.progress(side).finished = true;
                self.event(side, "Finished", "encrypted");
            }
            content::ALERT => self.event(side, "alert", "encrypted"),
            _ => self.event(side, "encrypted record", ""),
        }
    }

    fn plain(&mut self, side: Side, kind: u8, payload: &[u8]) {
        match (kind, payload) {
            (content::ALERT, [level, description]) => {
                let alert = Alert { by: side, fatal: *level == 2, description: *description };
                let level = if alert.fatal { "fatal" } else { "warning" };
                self.event(side, format!("alert {}", alert.name()), level);
                self.seen.alerts.push(alert);
            }
            (content::HANDSHAKE, _) => {
                self.direction(side).pending.extend_from_slice(payload);
                self.messages(side);
            }
            (content::ALERT, _) => self.malformed(side, "alert".into()),
            _ => self.event(side, format!("record of type {kind}"), ""),
        }
    }

    fn malformed(&mut self, side: Side, what: String) {
        self.event(side, format!("malformed {what}"), "");
        self.seen.malformed.push((side, what));
    }

    /// Takes the complete messages out of what came.
    fn messages(&mut self, side: Side) {
        loop {
            let direction = self.direction(side);
            if direction.lost {
                direction.pending.clear();
                return;
            }
            let mut reader = Reader::new(&direction.pending);
            let (Some(kind), Some(length)) = (reader.u8(), reader.u24()) else { return };
            if length > MAX_MESSAGE {
                direction.lost = true;
                self.malformed(
                    side,
                    format!("{}: it says that it is {length} bytes long", message_name(kind)),
                );
                continue;
            }
            let Some(message) = direction.pending.get(..4 + length) else { return };
            let message = message.to_vec();
            direction.pending.drain(..4 + length);
            if self.message(side, kind, &message).is_err() {
                self.malformed(side, message_name(kind));
            }
        }
    }

    /// One handshake message, header included.
    fn message(&mut self, side: Side, kind: u8, message: &[u8]) -> Result<(), Malformed> {
        let body = message.get(4..).unwrap_or_default();
        let spoken = self.seen.version().unwrap_or(version::TLS12);
        let in_transcript = match kind {
            kind::HELLO_REQUEST | kind::KEY_UPDATE => false,
            // After the handshake: session tickets.
            4 => spoken < version::TLS13,
            _ => true,
        };
        // A signature is over what came before it.
        let before = self.transcript.len();
        if in_transcript {
            self.transcript.extend_from_slice(message);
        }
        let before = self.transcript.get(..before).unwrap_or_default();
        let mut detail = String::new();
        match kind {
            kind::CLIENT_HELLO => {
                let hello = ClientHello::parse(body)?;
                let versions: Vec<String> = hello.versions.iter().map(|v| version_name(*v)).collect();
                detail = versions.join(", ");
                if let Some(name) = &hello.server_name {
                    detail += &format!("; for {name}");
                }
                self.seen.client_hellos.push(hello);
            }
            kind::SERVER_HELLO => {
                let hello = ServerHello::parse(body)?;
                detail = format!("{}, {}", version_name(hello.version), suite_name(hello.suite));
                if hello.is_retry {
                    self.event(side, "HelloRetryRequest", detail);
                    self.retried(&hello, message);
                    self.seen.retry = Some(hello);
                    return Ok(());
                }
                self.seen.resumed = hello.version >= version::TLS13 && hello.resumes_psk;
                self.seen.alpn = hello.alpn.clone();
                self.seen.server_hello = Some(hello);
                self.rekey(Side::Server, "SERVER_HANDSHAKE_TRAFFIC_SECRET");
                self.rekey(Side::Client, "CLIENT_HANDSHAKE_TRAFFIC_SECRET");
            }
            kind::ENCRYPTED_EXTENSIONS => self.seen.alpn = encrypted_extensions_alpn(body)?,
            kind::CERTIFICATE => {
                let chain = certificates(body, spoken)?;
                detail = match chain.len() {
                    0 => "empty".into(),
                    1 => "1 certificate".into(),
                    count => format!("{count} certificates"),
                };
                match side {
                    Side::Server => self.seen.server_chain = chain,
                    Side::Client => self.seen.client_chain = Some(chain),
                }
            }
            kind::SERVER_KEY_EXCHANGE => {
                let suite = self.seen.server_hello.as_ref().map_or(0, |hello| hello.suite);
                let exchange = ServerKeyExchange::parse(body, spoken, suite_key_exchange(suite))?;
                self.seen.server_signature = self.exchange_signature(&exchange);
                self.seen.server_key_exchange = Some(exchange);
            }
            kind::CERTIFICATE_REQUEST => {
                let request = CertificateRequest::parse(body, spoken)?;
                let schemes: Vec<String> = request.schemes.iter().map(|s| scheme_name(*s)).collect();
                detail = schemes.join(", ");
                self.seen.request = Some(request);
            }
            kind::CERTIFICATE_VERIFY => {
                let verify = CertificateVerify::parse(body, spoken)?;
                let scheme = verify.scheme.map_or_else(|| "no scheme field".into(), scheme_name);
                detail = format!("{scheme}, {} bytes", verify.signature.len());
                let suite = self.seen.server_hello.as_ref().map_or(0, |hello| hello.suite);
                let seen = SignatureSeen {
                    by: side,
                    scheme: verify.scheme,
                    signature: verify.signature,
                    input: signature_input(side, spoken, suite, before),
                    transcript: before.to_vec(),
                };
                match side {
                    Side::Server => self.seen.server_signature = Some(seen),
                    Side::Client => self.seen.client_signature = Some(seen),
                }
            }
            kind::FINISHED => {
                self.progress(side).finished = true;
                self.rekey(
                    side,
                    match side {
                        Side::Client => "CLIENT_TRAFFIC_SECRET_0",
                        Side::Server => "SERVER_TRAFFIC_SECRET_0",
                    },
                );
            }
            kind::KEY_UPDATE => self.update(side),
            kind::COMPRESSED_CERTIFICATE => detail = "not decompressed".into(),
            _ => {}
        }
        self.event(side, message_name(kind), detail);
        Ok(())
    }

    /// After a HelloRetryRequest the first ClientHello is a hash in the transcript (RFC 8446 §4.4.1).
    fn retried(&mut self, hello: &ServerHello, message: &[u8]) {
        let first = self.transcript.get(..self.transcript.len() - message.len()).unwrap_or_default();
        let hash = digest::digest(suite_hash(hello.suite), first);
        let mut transcript = vec![254, 0, 0, hash.as_ref().len() as u8];
        transcript.extend_from_slice(hash.as_ref());
        transcript.extend_from_slice(message);
        self.transcript = transcript;
    }

    /// From here on `side` encrypts with that secret, if it is known.
    fn rekey(&mut self, side: Side, label: &str) {
        if !self.is_tls13() {
            return;
        }
        let suite = self.seen.server_hello.as_ref().map_or(0, |hello| hello.suite);
        let random = self.seen.client_hellos.first().map(|hello| hello.random);
        let secret =
            random.and_then(|random| self.secrets.secret(&random, label)).unwrap_or_default().to_vec();
        let direction = self.direction(side);
        direction.key = RecordKey::new(suite, &secret).filter(|_| !secret.is_empty());
        direction.secret = secret;
    }

    fn update(&mut self, side: Side) {
        let suite = self.seen.server_hello.as_ref().map_or(0, |hello| hello.suite);
        let direction = self.direction(side);
        if let Some(secret) = traffic_update(suite, &direction.secret) {
            direction.key = RecordKey::new(suite, &secret);
            direction.secret = secret;
        }
    }

    /// A TLS 1.2 server signs both random values and its parameters (RFC 8422 §5.4).
    fn exchange_signature(&self, exchange: &ServerKeyExchange) -> Option<SignatureSeen> {
        let CertificateVerify { scheme, signature } = exchange.signature.clone()?;
        let client = self.seen.client_hellos.last()?.random;
        let server = self.seen.server_hello.as_ref()?.random;
        let input = [&client[..], &server, &exchange.parameters].concat();
        Some(SignatureSeen { by: Side::Server, scheme, signature, input, transcript: Vec::new() })
    }
}

impl ServerHello {
    /// Whether an abbreviated handshake can follow (RFC 5246 §7.3, RFC 5077 §3.4).
    fn session_id_or_ticket(&self, seen: &Observation) -> bool {
        let offered = seen.client_hellos.last();
        offered.is_some_and(|hello| hello.session_id == self.session_id && !self.session_id.is_empty())
    }
}

/// What a CertificateVerify has to be over, before hashing.
fn signature_input(by: Side, version: Version, suite: u16, transcript: &[u8]) -> Vec<u8> {
    if version < version::TLS13 {
        return transcript.to_vec();
    }
    tls13_input(by, digest::digest(suite_hash(suite), transcript).as_ref())
}

/// RFC 8446 §4.4.3.
pub(crate) fn tls13_input(by: Side, transcript_hash: &[u8]) -> Vec<u8> {
    let context = format!("TLS 1.3, {by} CertificateVerify");
    [&[b' '; 64], context.as_bytes(), &[0], transcript_hash].concat()
}

/// The hash of a TLS 1.3 suite.
fn suite_hash(suite: u16) -> &'static digest::Algorithm {
    if suite == 0x1302 { &digest::SHA384 } else { &digest::SHA256 }
}
