//! One connection to an agent, and how long its user is ready to wait.

use std::collections::HashSet;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use zeroize::Zeroize;

use super::{FrameReader, Request, Response, decode, encode};
use crate::{Cancel, Error};

/// How often who waits looks at its deadline and at its cancellation.
const TICK: Duration = Duration::from_millis(50);

/// Until when and unless what a caller waits.
#[derive(Clone, Copy)]
pub(super) struct Patience<'a> {
    pub(super) until: Instant,
    pub(super) cancel: &'a Cancel,
}

impl Patience<'_> {
    pub(super) fn check(self) -> Result<(), Failure> {
        if self.cancel.is_cancelled() {
            Err(Failure::Cancelled)
        } else if Instant::now() >= self.until {
            Err(Failure::Deadline)
        } else {
            Ok(())
        }
    }

    /// Goes on after a tick; other errors are returned.
    fn after(self, error: io::Error) -> Result<(), Failure> {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => self.check(),
            _ => Err(Failure::Io(error)),
        }
    }
}

pub(super) enum Failure {
    Io(io::Error),
    Protocol(Error),
    Cancelled,
    Deadline,
}

/// Whether the other end closed the connection instead of answering.
pub(super) fn hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | BrokenPipe | ConnectionReset)
}

/// Connects to a socket, whose queue is full if its owner hangs.
pub(super) fn open(socket: &Path, patience: Patience<'_>) -> Result<UnixStream, Failure> {
    let connecting = || {
        let address = SocketAddrUnix::new(socket)?;
        let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, close_on_exec(), None)?;
        #[cfg(target_vendor = "apple")]
        rustix::io::ioctl_fioclex(&stream)?;
        // On Linux the time to send is that to connect, too.
        sockopt::set_socket_timeout(&stream, sockopt::Timeout::Send, Some(TICK))?;
        sockopt::set_socket_timeout(&stream, sockopt::Timeout::Recv, Some(TICK))?;
        io::Result::Ok((stream, address))
    };
    let (stream, address) = connecting().map_err(Failure::Io)?;
    while let Err(e) = connect(&stream, &address) {
        patience.after(e.into())?;
    }
    Ok(stream.into())
}

fn close_on_exec() -> SocketFlags {
    #[cfg(target_vendor = "apple")]
    return SocketFlags::empty();
    #[cfg(not(target_vendor = "apple"))]
    return SocketFlags::CLOEXEC;
}

pub(super) struct Connection {
    stream: UnixStream,
    reader: FrameReader,
    buffer: Vec<u8>,
    last_id: u32,
    /// The keys in hardware that this connection has been used for.
    pub(super) prepared: HashSet<String>,
}

impl Connection {
    /// `stream` comes from [`open`].
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            reader: FrameReader::default(),
            buffer: Vec::new(),
            last_id: 0,
            prepared: HashSet::new(),
        }
    }

    /// Sends a request and waits for its response. After a failure the connection is good for
    /// nothing any more.
    pub(super) fn call(
        &mut self,
        request: &Request<'_>,
        patience: Patience<'_>,
    ) -> Result<Response, Failure> {
        self.last_id = self.last_id.wrapping_add(1);
        encode(self.last_id, request, &mut self.buffer).map_err(Failure::Protocol)?;
        let written = self.write(patience);
        if matches!(request, Request::Import { .. } | Request::Unlock { .. }) {
            self.buffer.zeroize();
        }
        written?;
        loop {
            match self.reader.next(&mut self.stream) {
                Ok(Some((id, body))) => {
                    let response = decode(body).map_err(Failure::Protocol)?;
                    if id == self.last_id {
                        return Ok(response);
                    }
                    let reason = "the agent answered a request that was not sent".into();
                    return Err(Failure::Protocol(Error::Protocol { reason }));
                }
                Ok(None) => return Err(Failure::Io(io::ErrorKind::UnexpectedEof.into())),
                Err(e) => patience.after(e)?,
            }
        }
    }

    fn write(&mut self, patience: Patience<'_>) -> Result<(), Failure> {
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(0) => return Err(Failure::Io(io::ErrorKind::WriteZero.into())),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(e) => patience.after(e)?,
            }
        }
        Ok(())
    }
}
