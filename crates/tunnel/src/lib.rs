//! The mutual-TLS proxy, server and client.
