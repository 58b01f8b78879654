//! The process that owns a keystore and signs for others over a Unix socket.
