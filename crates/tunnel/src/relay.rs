//! One connection through a tunnel: its bytes, and its line in the log.

use std::time::Instant;

use enclasp_tls::{Error as TlsError, Evidence, Handshake, explain};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};

use crate::Error;

/// As large as a TLS record.
const BUFFER: usize = 16 * 1024;

/// Copies both ways until both ways have ended; the end of one is passed on at once. Logs how it
/// went.
pub(crate) async fn relay(
    mut tls: impl AsyncRead + AsyncWrite + Unpin,
    mut plain: impl AsyncRead + AsyncWrite + Unpin,
    evidence: &Evidence,
    started: Instant,
) {
    let copied = copy_bidirectional_with_sizes(&mut tls, &mut plain, BUFFER, BUFFER).await;
    let (received, sent, end) = match copied.map_err(|e| explain(e, evidence)) {
        Ok((received, sent)) => (Some(received), Some(sent), None),
        Err(error @ (TlsError::Refused { .. } | TlsError::CertificateDemanded { .. })) => {
            return refusal(&evidence.address, &error.into());
        }
        Err(error) => (None, None, Some(error.to_string())),
    };
    let signature = evidence.signature_by(evidence.local.role);
    tracing::info!(
        peer = %evidence.address,
        subject = evidence.peer_subject(),
        version = %evidence.version,
        scheme = signature.map(|signature| signature.scheme.as_str()),
        key = evidence.local.key.as_deref(),
        software = evidence.local.software,
        resumed = evidence.handshake == Handshake::Resumed,
        received,
        sent,
        end,
        elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "connection"
    );
}

/// The line of a connection that did not come about.
pub(crate) fn refusal(peer: &str, error: &Error) {
    let subject = match error {
        Error::Tls(error) => error.peer_subject(),
        _ => None,
    };
    tracing::warn!(peer, subject, cause = %error, hint = error.hint(), "refused");
}
