//! Handshakes between our own ends, and with ends that misbehave.

mod handshakes;
mod known_chains;
mod schemes;
mod slow;
