//! Enrolment over EST: wire types and client.
