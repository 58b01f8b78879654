//! Handshakes between our own ends, and with ends that misbehave.

mod handshakes;
mod schemes;
mod slow;
