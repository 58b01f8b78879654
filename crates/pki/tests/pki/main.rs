//! Requests, certificates and chains of software keys, checked with OpenSSL, and OpenSSL's with us.

mod certificates;
mod certs_only;
mod chains;
mod common;
mod ocsp;
mod requests;
