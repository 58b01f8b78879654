//! A connection over mutual TLS.

use std::io;

use enclasp_tls::{ClientCertificate, ClientStream, Handshake, Role, explain};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, watch};

use crate::EnclaspError;
use crate::error::Result;
use crate::runtime::block_on;

/// What a handshake established.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Evidence {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// The name in IANA's registry: `TLS_AES_256_GCM_SHA384`.
    pub cipher_suite: String,
    /// The protocol that was agreed upon (ALPN).
    pub alpn: Option<String>,
    /// Whether an earlier session was resumed: then nobody signed.
    pub resumed: bool,
    /// Whether our certificate was presented, now or when the session began.
    pub certificate_sent: bool,
    /// The scheme (RFC 8446 §4.2.3) that our key signed by.
    pub signed_with: Option<String>,
    /// The subject of the server's certificate, as RFC 4514 writes it.
    pub peer: Option<String>,
    /// All of it, with both chains and all signatures, as the command `enclasp connect --json` shows it.
    pub json: String,
}

/// A connection over mutual TLS, for one thread that reads and one that writes.
#[derive(uniffi::Object)]
pub struct Stream {
    reader: Mutex<Option<ReadHalf<ClientStream<TcpStream>>>>,
    writer: Mutex<Option<WriteHalf<ClientStream<TcpStream>>>>,
    evidence: enclasp_tls::Evidence,
    closed: watch::Sender<bool>,
}

/// The most that one read returns, in bytes.
const MAX_READ: u32 = 1 << 20;

#[uniffi::export]
impl Stream {
    /// Waits for data and returns some of it: `max` bytes at most, and a mebibyte. Nothing means that
    /// the server has ended its direction.
    ///
    /// # Errors
    /// `Refused` if a TLS 1.3 server does not accept our certificate; `Unavailable` if the connection
    /// broke, or ended without TLS's close_notify, so that what came may be cut short.
    pub fn read(&self, max: u32) -> Result<Vec<u8>> {
        if max == 0 {
            return Err(EnclaspError::new(EnclaspError::Invalid, "cannot read 0 bytes", None));
        }
        let mut buffer = vec![0; max.min(MAX_READ) as usize];
        let read = self.until_closed(async {
            match &mut *self.reader.lock().await {
                Some(reader) => reader.read(&mut buffer).await,
                None => Err(closed()),
            }
        })?;
        buffer.truncate(read);
        Ok(buffer)
    }

    /// Sends all of `data`.
    ///
    /// # Errors
    /// `Unavailable` if the connection broke. Why a server refuses, a read says.
    pub fn write(&self, data: Vec<u8>) -> Result<()> {
        self.until_closed(async {
            match &mut *self.writer.lock().await {
                Some(writer) => {
                    writer.write_all(&data).await?;
                    writer.flush().await
                }
                None => Err(closed()),
            }
        })
    }

    /// Ends our direction by TLS's close_notify. The server's stays open.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn finish(&self) -> Result<()> {
        self.until_closed(async {
            match &mut *self.writer.lock().await {
                Some(writer) => writer.shutdown().await,
                None => Err(closed()),
            }
        })
    }

    /// Closes the connection at once. Whoever reads or writes gets an error. `finish` first, if the server
    /// shall know that it got everything.
    ///
    /// # Errors
    /// `Failed` if there are no threads to be had.
    pub fn close(&self) -> Result<()> {
        self.closed.send_replace(true);
        block_on(async {
            *self.reader.lock().await = None;
            *self.writer.lock().await = None;
        })
    }

    /// What the handshake established.
    pub fn evidence(&self) -> Evidence {
        let evidence = &self.evidence;
        let ours = evidence.signatures.iter().find(|signature| signature.by == Role::Client);
        Evidence {
            version: evidence.version.clone(),
            cipher_suite: evidence.cipher_suite.clone(),
            alpn: evidence.alpn.clone(),
            resumed: evidence.handshake == Handshake::Resumed,
            certificate_sent: match evidence.client_certificate {
                ClientCertificate::Sent => true,
                ClientCertificate::FromSession => !evidence.local.chain.is_empty(),
                ClientCertificate::RequestedNotSent | ClientCertificate::NotRequested => false,
            },
            signed_with: ours.map(|signature| signature.scheme.clone()),
            peer: evidence.peer.chain.first().map(|leaf| leaf.subject.clone()),
            // Text, numbers and lists: encoding them cannot fail.
            json: serde_json::to_string(evidence).unwrap_or_default(),
        }
    }
}

impl Stream {
    pub(crate) fn new(stream: ClientStream<TcpStream>, evidence: enclasp_tls::Evidence) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader: Mutex::new(Some(reader)),
            writer: Mutex::new(Some(writer)),
            evidence,
            closed: watch::Sender::new(false),
        }
    }

    /// Runs `work` until it is done or the stream is closed.
    fn until_closed<T>(&self, work: impl Future<Output = io::Result<T>>) -> Result<T> {
        let mut watched = self.closed.subscribe();
        let outcome = block_on(async {
            tokio::select! {
                // The sender is this stream's own.
                _ = watched.wait_for(|closed| *closed) => Err(closed()),
                done = work => done,
            }
        })?;
        outcome.map_err(|e| failed(e, &self.evidence))
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "it was closed here")
}

/// What an I/O error on the connection means.
pub(crate) fn failed(error: io::Error, evidence: &enclasp_tls::Evidence) -> EnclaspError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        let message = format!(
            "{} ended the connection without TLS's close_notify: what came may be cut short",
            evidence.address
        );
        return EnclaspError::new(EnclaspError::Unavailable, message, None);
    }
    explain(error, evidence).into()
}
