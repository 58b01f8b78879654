//! Programs of others at the other end of a connection.

mod bindings;
mod java;
mod misbehaving;
mod nginx;
mod openssl;
mod situation;

pub(crate) use bindings::{JNA, Service, c, kotlin, python};
pub(crate) use java::{Java, JavaClient, java_on_revocation};
pub(crate) use misbehaving::{Ending, Lie, misbehave};
pub(crate) use nginx::Nginx;
pub(crate) use openssl::{s_client, s_server};
pub(crate) use situation::situations_are_understood;
