//! Who may do what.

use enclasp_keystore::{Error, KeyInfo, KeyUri, Result};

/// The program at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) pid: Option<u32>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// What a peer is to the agent that serves it.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) peer: Peer,
    /// The agent's own user, or root: may do everything.
    pub(crate) owner: bool,
}

impl Caller {
    /// `agent_uid` is the agent's own.
    pub(crate) fn new(peer: Peer, agent_uid: u32) -> Self {
        let owner = peer.uid == agent_uid || peer.uid == 0;
        Self { peer, owner }
    }

    /// Whether a key may be seen and used.
    pub(crate) fn may_use(&self, key: &KeyInfo) -> bool {
        let Peer { uid, gid, groups, .. } = &self.peer;
        self.owner
            || key.access.uids.contains(uid)
            || key.access.gids.iter().any(|allowed| allowed == gid || groups.contains(allowed))
    }

    /// # Errors
    /// [`Error::Denied`] unless the caller may make and destroy keys.
    pub(crate) fn may_manage(&self, uri: &KeyUri, operation: &str) -> Result<()> {
        if self.owner {
            return Ok(());
        }
        Err(Error::Denied {
            key: uri.to_string(),
            operation: operation.into(),
            reason: format!("user {} is not the one that the agent runs as", self.peer.uid),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use enclasp_keystore::{Access, Algorithm, Capabilities, Origin, Policy};

    use super::*;

    #[test]
    fn others_use_only_keys_that_list_them() {
        let key = |uids: &[u32], gids: &[u32]| KeyInfo {
            uri: KeyUri::soft("web").unwrap(),
            spki: Vec::new(),
            algorithm: Algorithm::P256,
            policy: Policy::default(),
            capabilities: Capabilities::default(),
            access: Access { uids: uids.to_vec(), gids: gids.to_vec() },
            origin: Origin::Generated,
            created: SystemTime::UNIX_EPOCH,
        };
        let caller = |uid, gid, groups: &[u32]| {
            Caller::new(Peer { pid: None, uid, gid, groups: groups.to_vec() }, 1000)
        };
        let stranger = caller(1001, 1001, &[50]);
        for refused in [key(&[], &[]), key(&[1002], &[]), key(&[50], &[1002, 0])] {
            assert!(!stranger.may_use(&refused), "{:?}", refused.access);
        }
        for allowed in [key(&[1001], &[]), key(&[], &[1001]), key(&[], &[7, 50])] {
            assert!(stranger.may_use(&allowed), "{:?}", allowed.access);
        }
        assert!(stranger.may_manage(&KeyUri::soft("web").unwrap(), "delete").is_err());
        for owner in [caller(1000, 1, &[]), caller(0, 0, &[])] {
            assert!(owner.may_use(&key(&[], &[])));
            assert!(owner.may_manage(&KeyUri::soft("web").unwrap(), "delete").is_ok());
        }
    }
}
