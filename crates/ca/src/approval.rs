//! What waits for a person: devices whose profile demands it, and replicas that want to join.

use std::sync::Arc;
use std::time::SystemTime;

use enclasp_enroll::subject_of;
use enclasp_keystore::Keystore;
use enclasp_pki::SubjectAltName;

use crate::{Authority, Error, Result};

/// Somebody who waits for approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// What to call it: the id of the device's token, or the SHA-256 of the replica's issuing key.
    pub id: String,
    /// The subject of its certificate to be.
    pub subject: String,
    /// The SHA-256 of its SubjectPublicKeyInfo in hexadecimal: what to compare with what it shows.
    pub key_sha256: String,
    /// When it asked.
    pub asked: SystemTime,
    /// What it wants.
    pub wants: WaitsFor,
}

/// What somebody waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// A device: a first certificate.
    Certificate {
        /// The profile that it would be issued under.
        profile: String,
        /// Its alternative names.
        subject_alt_names: Vec<SubjectAltName>,
    },
    /// A replica: to join.
    Admission,
}

impl Authority {
    /// Who waits for approval: devices, then replicas, those that asked first first.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn waiting(&self) -> Result<Vec<Waiting>> {
        let mut waiting = Vec::new();
        for asked in self.store().waiting_for_certificates(SystemTime::now()).await? {
            waiting.push(Waiting {
                id: asked.token.id,
                subject: subject_of(&asked.token.common_name)?.to_string(),
                key_sha256: asked.key_sha256,
                asked: asked.at,
                wants: WaitsFor::Certificate {
                    profile: asked.token.profile,
                    subject_alt_names: asked.token.subject_alt_names,
                },
            });
        }
        for joining in self.store().waiting_to_join().await? {
            waiting.push(Waiting {
                key_sha256: joining.id.clone(),
                id: joining.id,
                subject: joining.request.subject().to_string(),
                asked: joining.asked,
                wants: WaitsFor::Admission,
            });
        }
        Ok(waiting)
    }

    /// Grants what somebody waits for: a device gets its certificate when it asks again, and a
    /// replica's issuing certificate is signed with the root's key.
    ///
    /// # Errors
    /// [`Error::NotWaiting`]; of a replica, [`Error::NoRootKey`], [`Error::Pki`] if its request is not in
    /// order, what the keystore says.
    pub async fn approve(&self, keystore: Arc<dyn Keystore>, id: &str) -> Result<()> {
        if self.store().decide(id, true).await? { Ok(()) } else { self.let_join(keystore, id).await }
    }

    /// Refuses what somebody waits for. A device's token is of no use any more.
    ///
    /// # Errors
    /// [`Error::NotWaiting`], [`Error::Database`].
    pub async fn deny(&self, id: &str) -> Result<()> {
        if self.store().decide(id, false).await? || self.store().turn_away(id).await? {
            Ok(())
        } else {
            Err(Error::NotWaiting { id: id.to_owned() })
        }
    }
}
