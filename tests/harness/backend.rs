//! Plain services for a tunnel to stand before.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A service on a port of its own. Its threads end with the test program.
pub(crate) struct Backend {
    pub(crate) port: u16,
    connections: Arc<AtomicUsize>,
}

impl Backend {
    /// Sends back what it gets, and ends its direction when the other has ended.
    pub(crate) fn echo() -> Self {
        Self::serve(|mut stream| {
            let mut reader = stream.try_clone()?;
            std::io::copy(&mut reader, &mut stream)?;
            stream.shutdown(Shutdown::Write)
        })
    }

    /// Answers one line with `heard: LINE`, and closes.
    pub(crate) fn one_line() -> Self {
        Self::serve(|mut stream| {
            let mut line = String::new();
            BufReader::new(stream.try_clone()?).read_line(&mut line)?;
            write!(stream, "heard: {line}")
        })
    }

    /// Never ends its direction.
    pub(crate) fn stays() -> Self {
        Self::serve(|mut stream| {
            stream.read_to_end(&mut Vec::new())?;
            loop {
                thread::park();
            }
        })
    }

    /// Speaks first, as mail servers do, and waits.
    pub(crate) fn greets() -> Self {
        Self::serve(|mut stream| {
            stream.write_all(b"220 ready\r\n")?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        })
    }

    /// Closes when the first bytes have come.
    pub(crate) fn closes() -> Self {
        Self::serve(|mut stream| stream.read(&mut [0; 4096]).map(drop))
    }

    /// The same as an IMAP server does.
    pub(crate) fn greets_imap() -> Self {
        Self::serve(|mut stream| {
            stream.write_all(b"* OK IMAP4rev1 ready\r\n")?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        })
    }

    /// Reads until the other direction has ended, and only then answers with the number of bytes.
    pub(crate) fn counts_until_the_end() -> Self {
        Self::serve(|mut stream| {
            let mut all = Vec::new();
            stream.read_to_end(&mut all)?;
            write!(stream, "{} bytes", all.len())
        })
    }

    /// HTTP/1.1: answers with the request's body, or with a greeting if it has none.
    pub(crate) fn http() -> Self {
        Self::serve(|mut stream| {
            let mut reader = BufReader::new(stream.try_clone()?);
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                let line = line.trim_end().to_ascii_lowercase();
                if let Some(text) = line.strip_prefix("content-length:") {
                    length = text.trim().parse().expect("a length");
                }
                if line == "expect: 100-continue" {
                    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            if body.is_empty() {
                body = b"hello from the backend\n".to_vec();
            }
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
            stream.write_all(&body)
        })
    }

    /// How many connections it has had.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn serve(service: fn(TcpStream) -> std::io::Result<()>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                // A peer that goes away early is part of some scenarios.
                thread::spawn(move || drop(service(stream)));
            }
        });
        Self { port, connections }
    }
}

/// So many bytes that differ from one seed to the next (xorshift32).
pub(crate) fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}
