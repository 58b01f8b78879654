//! `libenclasp_pkcs11.so`: the keys of agents and the identities that use them, for every program
//! that takes a PKCS#11 module (OASIS PKCS#11 3.0, and 2.40 for hosts that know no later one).
//!
//! The module holds no key. It shows the identities of the user whose
//! [`State`](enclasp_identity::State) it is, has the agents sign, and enforces nothing: who may sign,
//! and what a person or a PIN has to say to it, is the agents' business. What it says of a key is what
//! the key was proved to do.
//!
//! Nothing is written, neither to tokens nor to the host's standard error; `ENCLASP_PKCS11_LOG`
//! names a file for what went wrong.
//!
//! Invariant: no panic and no lock crosses into the host. Each call is caught (`calls`); the one
//! lock is held for no longer than looking something up takes, and by the forking thread while a
//! process forks, so that a child can go on with what it inherited (`module`).
#![deny(unsafe_code)]
#![cfg(unix)]

mod agents;
mod calls;
mod catalogue;
mod exports;
mod failure;
mod mechanism;
mod module;
mod object;
mod pointers;
