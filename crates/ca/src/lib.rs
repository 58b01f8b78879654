//! The authority: policy, issuance, durable store and EST server.
