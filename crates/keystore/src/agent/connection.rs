//! One connection to an agent, and how long its user is ready to wait.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use zeroize::Zeroize;

use super::lane::{Lane, Receiving};
use super::watch::Watch;
use super::{FrameReader, Request, Response, decode, encode};
use crate::{Cancel, Error};

/// How often who waits looks at its deadline and at its cancellation.
pub(super) const TICK: Duration = Duration::from_millis(50);

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
    stream: Arc<UnixStream>,
    reader: FrameReader,
    buffer: Vec<u8>,
    last_id: u32,
    signatures: u64,
    lane: Option<Lane>,
    /// The keys in hardware that this connection has been used for.
    pub(super) prepared: HashSet<String>,
}

impl Connection {
    /// `stream` comes from [`open`].
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream: Arc::new(stream),
            reader: FrameReader::default(),
            buffer: Vec::new(),
            last_id: 0,
            signatures: 0,
            lane: None,
            prepared: HashSet::new(),
        }
    }

    /// Sends a request and waits for its response. After a failure the connection is good for
    /// nothing any more.
    pub(super) fn call(
        &mut self,
        request: &Request<'_>,
        patience: Patience<'_>,
        watch: &Watch,
    ) -> Result<Response, Failure> {
        let signs = matches!(request, Request::Sign(_));
        if signs {
            self.signatures = self.signatures.saturating_add(1);
            // Who signs once does not need one.
            if self.signatures == 2 {
                self.ask_for_lane(patience, watch)?;
            }
        }
        self.encode(request)?;
        if signs
            && Lane::admits(&self.buffer)
            && let Some(lane) = &self.lane
        {
            lane.send(&self.buffer).map_err(Failure::Io)?;
            return receive(&mut self.reader, self.last_id, &mut lane.answers(patience), patience);
        }
        let written = self.write(patience);
        if matches!(request, Request::Import { .. } | Request::Unlock { .. }) {
            self.buffer.zeroize();
        }
        written?;
        receive(&mut self.reader, self.last_id, &mut &*self.stream, patience)
    }

    /// Without one, signatures stay on the socket.
    fn ask_for_lane(&mut self, patience: Patience<'_>, watch: &Watch) -> Result<(), Failure> {
        self.encode(&Request::Lane)?;
        self.write(patience)?;
        let mut incoming = Receiving { stream: &self.stream, descriptors: Vec::new() };
        if receive(&mut self.reader, self.last_id, &mut incoming, patience)? == Response::Done {
            self.lane = Lane::new(incoming.descriptors, &self.stream, watch);
        }
        Ok(())
    }

    fn encode(&mut self, request: &Request<'_>) -> Result<(), Failure> {
        self.last_id = self.last_id.wrapping_add(1);
        encode(self.last_id, request, &mut self.buffer).map_err(Failure::Protocol)
    }

    fn write(&mut self, patience: Patience<'_>) -> Result<(), Failure> {
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            match (&*self.stream).write(rest) {
                Ok(0) => return Err(Failure::Io(io::ErrorKind::WriteZero.into())),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(e) => patience.after(e)?,
            }
        }
        Ok(())
    }
}

/// The response to the request `id`, the only one under way.
fn receive(
    reader: &mut FrameReader,
    id: u32,
    incoming: &mut impl Read,
    patience: Patience<'_>,
) -> Result<Response, Failure> {
    loop {
        match reader.next(incoming) {
            Ok(Some((of, body))) => {
                let response = decode(body).map_err(Failure::Protocol)?;
                if of == id {
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
