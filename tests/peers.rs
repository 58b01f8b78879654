//! Programs of others at the other end of a connection.

mod java;
mod misbehaving;
mod nginx;
mod openssl;

pub(crate) use java::{Java, JavaClient, java_on_revocation};
pub(crate) use misbehaving::{Ending, claim_rsa_with_an_ec_certificate};
pub(crate) use nginx::Nginx;
pub(crate) use openssl::{s_client, s_server};
