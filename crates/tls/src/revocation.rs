//! What is known of certificates that were revoked.

use enclasp_pki::sort_newest_first;
use rustls_pki_types::CertificateRevocationListDer;

/// Lists of revoked certificates (RFC 5280 §5), and what happens where they say nothing. Nothing is
/// fetched while a handshake is under way: who has newer lists makes a new configuration of them.
#[derive(Clone, Debug, Default)]
pub struct Revocation {
    /// The lists, of any number of issuers; where there are several for a certificate, the newest
    /// counts.
    pub lists: Vec<CertificateRevocationListDer<'static>>,
    /// Whether a certificate is refused, anywhere in the chain, of whose issuer there is no list, or
    /// one that is past its `nextUpdate`. Otherwise those are refused that a list names.
    pub strict: bool,
}

impl Revocation {
    /// Whether everybody is refused, for want of any list.
    pub(crate) fn is_blind(&self) -> bool {
        self.strict && self.lists.is_empty()
    }

    /// webpki asks the first list that is for a certificate, and no other.
    pub(crate) fn newest_first(mut self) -> Self {
        sort_newest_first(&mut self.lists);
        self
    }
}
