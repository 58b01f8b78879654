//! Driving a handshake over an async stream without letting a slow key hold up the worker.
//!
//! rustls signs inside `process_new_packets`, and cannot be told to come back later. So bytes are
//! read and written here, and that one call is made on a blocking thread unless the key is in this
//! process. One that another process holds signs in microseconds too, until that process hangs. A
//! peer that sends nothing occupies no thread.

use std::io;
use std::ops::DerefMut;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ConnectionCommon, SideData};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::recorder::Recorder;
use crate::{Credential, Error, Options, Result};

pub(crate) const DURING: &str = "during the handshake";

/// How long a key has that asks nobody. An agent answers in microseconds; this ends a hang, and
/// before the handshake's own time is over, so that the key is what is blamed.
const SIGN_TIMEOUT: Duration = Duration::from_secs(8);

/// How long we wait for the peer to take our last alert before the socket is closed.
const LINGER: Duration = Duration::from_secs(1);

/// A peer may be in the middle of sending when it is refused; this much more is read.
const LINGER_BYTES: usize = 256 * 1024;

/// How long one signature may take.
pub(crate) fn sign_timeout(credential: Option<&Credential>, options: &Options) -> Duration {
    match credential {
        Some(credential) if credential.prompts() => options.prompt_timeout,
        _ => SIGN_TIMEOUT,
    }
}

/// Completes the handshake of `connection` over `stream`, within the time that `options` allow.
pub(crate) async fn complete<C, D, S>(
    connection: C,
    stream: &mut S,
    recorder: &Arc<Recorder>,
    credential: Option<&Credential>,
    options: &Options,
) -> Result<C>
where
    C: DerefMut<Target = ConnectionCommon<D>> + Send + 'static,
    D: SideData,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _cancel = recorder.cancel_on_drop();
    let prompt = match credential {
        Some(credential) if credential.prompts() => options.prompt_timeout,
        _ => Duration::ZERO,
    };
    let after = options.handshake_timeout.saturating_add(prompt);
    let driver = Driver { stream, recorder, offloads: credential.and_then(Credential::offloads) };
    timeout(after, driver.run(connection))
        .await
        .unwrap_or_else(|_| Err(Error::timeout(recorder.whom(), after)))
}

/// Ends a connection by close_notify, or by the fatal alert that rustls has for the peer, in a way that
/// reaches it: a socket that is closed with unread bytes in it is reset, and the reset overtakes the
/// alert. It takes a second at most.
pub async fn close<C, D, S>(connection: &mut C, stream: &mut S)
where
    C: DerefMut<Target = ConnectionCommon<D>>,
    D: SideData,
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Without effect if a fatal alert is queued or sent already.
    connection.send_close_notify();
    let farewell = async {
        flush(connection, stream).await?;
        stream.shutdown().await?;
        let mut discarded = 0;
        let mut buffer = [0; 4096];
        while discarded < LINGER_BYTES {
            match stream.read(&mut buffer).await? {
                0 => break,
                read => discarded += read,
            }
        }
        io::Result::Ok(())
    };
    // Whether the peer listens is not our concern any more.
    let _ = timeout(LINGER, farewell).await;
}

struct Driver<'a, S> {
    stream: &'a mut S,
    recorder: &'a Arc<Recorder>,
    offloads: Option<&'a Arc<Semaphore>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<'_, S> {
    async fn run<C, D>(self, mut connection: C) -> Result<C>
    where
        C: DerefMut<Target = ConnectionCommon<D>> + Send + 'static,
        D: SideData,
    {
        let Self { stream, recorder, offloads } = self;
        let io_error = |e| Error::of_io(recorder.whom(), DURING, e, &recorder.record());
        // No more than rustls buffers of decrypted data, so that it takes all of what was read.
        let mut buffer = vec![0; 8192];
        loop {
            flush(&mut connection, stream).await.map_err(io_error)?;
            if !connection.is_handshaking() {
                return Ok(connection);
            }
            let read = stream.read(&mut buffer).await.map_err(io_error)?;
            if read == 0 {
                return Err(io_error(io::ErrorKind::UnexpectedEof.into()));
            }
            let processed;
            // A key that may be slow is asked once; what is left after that is arithmetic.
            let key_is_done =
                recorder.has_signed() || connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            (connection, processed) = match offloads.filter(|_| !key_is_done) {
                None => {
                    let processed = process(&mut connection, recorder, &buffer[..read]);
                    (connection, processed)
                }
                Some(offloads) => {
                    let received = buffer[..read].to_vec();
                    let recorder = recorder.clone();
                    // The semaphore is never closed.
                    let permit = offloads.clone().acquire_owned().await.ok();
                    let job = tokio::task::spawn_blocking(move || {
                        let _permit = permit;
                        let processed = process(&mut connection, &recorder, &received);
                        (connection, processed)
                    });
                    match job.await {
                        Ok(done) => done,
                        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                        // The runtime is shutting down.
                        Err(e) => return Err(io_error(io::Error::other(e))),
                    }
                }
            };
            if let Err(error) = processed {
                close(&mut connection, stream).await;
                return Err(error);
            }
        }
    }
}

/// Lets rustls see what was received.
fn process<C, D>(connection: &mut C, recorder: &Arc<Recorder>, mut received: &[u8]) -> Result<()>
where
    C: DerefMut<Target = ConnectionCommon<D>>,
    D: SideData,
{
    recorder.during(|| {
        while !received.is_empty() {
            let taken = connection.read_tls(&mut received);
            taken.map_err(|e| Error::of_io(recorder.whom(), DURING, e, &recorder.record()))?;
            let processed = connection.process_new_packets();
            settle(recorder, processed.map(drop))?;
        }
        Ok(())
    })
}

/// What was recorded is the cause of what rustls says.
pub(crate) fn settle(recorder: &Recorder, processed: std::result::Result<(), rustls::Error>) -> Result<()> {
    processed.map_err(|e| {
        let recorded = recorder.take_failure();
        recorded.unwrap_or_else(|| Error::of_tls(recorder.whom(), DURING, e, &recorder.record()))
    })
}

async fn flush<C, D, S>(connection: &mut C, stream: &mut S) -> io::Result<()>
where
    C: DerefMut<Target = ConnectionCommon<D>>,
    D: SideData,
    S: AsyncWrite + Unpin,
{
    let mut outgoing = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut outgoing)?;
    }
    if !outgoing.is_empty() {
        stream.write_all(&outgoing).await?;
        stream.flush().await?;
    }
    Ok(())
}
