//! Ports for programs that cannot be handed a listener.
//!
//! A port that was free a moment ago may be another's by the time such a program binds it: a test
//! that runs beside this one, or a connection that the system gave it to. So these lie below the
//! range that systems give to connections, and no two processes that ask here are given the same.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

/// The ports from here up to 32,000: `BLOCKS` times `LENGTH`.
const FIRST: u16 = 10_000;
const BLOCKS: u16 = 220;
const LENGTH: u16 = 100;

/// What this process has of them. A block is held by listening on its first port.
static HELD: Mutex<Held> = Mutex::new(Held { blocks: Vec::new(), next: 0, end: 0 });

struct Held {
    blocks: Vec<TcpListener>,
    next: u16,
    end: u16,
}

/// The first of `count` neighbouring ports of the loopback interface, given to nobody else as long as
/// this process lives.
///
/// # Panics
/// Without such ports.
pub(crate) fn free_ports(count: u16) -> u16 {
    let mut held = HELD.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    loop {
        while held.next + count <= held.end {
            let first = held.next;
            held.next += 1;
            if (first..first + count).all(|port| listen(port).is_some()) {
                held.next = first + count;
                return first;
            }
        }
        // Others that start now begin to look elsewhere.
        let start = std::process::id() % u32::from(BLOCKS);
        let (block, reservation) = (0..u32::from(BLOCKS))
            .map(|n| FIRST + LENGTH * ((start + n) % u32::from(BLOCKS)) as u16)
            .find_map(|block| Some((block, listen(block)?)))
            .expect("ports between 10,000 and 32,000 that nobody uses");
        held.blocks.push(reservation);
        (held.next, held.end) = (block + 1, block + LENGTH);
    }
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}
