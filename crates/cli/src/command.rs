//! One file per command.

pub(crate) mod agent;
pub(crate) mod ca;
pub(crate) mod completions;
pub(crate) mod connect;
pub(crate) mod csr;
pub(crate) mod demo;
pub(crate) mod enroll;
pub(crate) mod identity;
pub(crate) mod key;
pub(crate) mod renew;
pub(crate) mod tunnel;
