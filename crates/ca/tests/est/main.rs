//! The authority against real clients: our own, curl with OpenSSL's requests, strongSwan's
//! `pki --est`; and against clients that mean harm.

mod support;

mod an_authority_is_made_whole;
mod enrolment_resumes;
mod hostile_peers;
mod labels_and_profiles;
mod refusals;
mod renewal;
mod standard_clients;
mod token_yields_one_certificate;
