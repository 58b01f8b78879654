//! Why something could not be looked at at all.

/// The result of reading what is to be examined.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something could not be looked at at all. What is wrong *in* it is a
/// [`Finding`](crate::Finding).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("not a capture that can be read: {reason}")]
    Capture { reason: String },
}

impl Error {
    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Capture { .. } => {
                "write one with `tcpdump -w FILE` or Wireshark: pcap or pcapng, not compressed".into()
            }
        })
    }
}
