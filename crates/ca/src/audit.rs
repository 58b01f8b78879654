//! The audit log as its reader sees it: exported, and verified.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use enclasp_keystore::{Input, Key, Keystore, Scheme, SignContext, verify};
use enclasp_pki::{hex, rfc3339, sign_message, unhex};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::issuance::{SIGN_TIMEOUT, blocking};
use crate::store::{BEGINNING, ChainEnd, link};
use crate::{Authority, Error, Result};

/// How often a running server signs where its chain ends, if it has grown.
pub(crate) const HEAD_INTERVAL: Duration = Duration::from_secs(5);

/// How many records are held in memory.
const PAGE: usize = 500;

/// Where a chain ended at some moment, signed by its replica's audit key. Kept elsewhere, it shows later whether what came
/// before was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditHead {
    /// The replica: the SHA-256 of its issuing certificate, in hexadecimal.
    pub chain: String,
    /// How many records the chain had.
    pub position: i64,
    /// The hash of the last one, in hexadecimal.
    pub hash: String,
    /// When it was signed, as RFC 3339.
    pub at: String,
    /// DER SubjectPublicKeyInfo of the audit key, in hexadecimal.
    pub key: String,
    /// How it is signed.
    pub scheme: Scheme,
    /// Over the chain, the position, the hash and the time, each with a line break after it, after
    /// the line `enclasp audit head`. In hexadecimal.
    pub signature: String,
}

/// A chain that holds together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedChain {
    /// The replica: the SHA-256 of its issuing certificate, in hexadecimal.
    pub chain: String,
    /// How many records it has.
    pub records: i64,
    /// How many signed heads were compared with it.
    pub heads: usize,
}

impl AuditHead {
    /// Reads a line of JSON, as [`Authority::export_audit`] gives it in the field `head`, or alone.
    ///
    /// # Errors
    /// [`Error::Audit`].
    pub fn parse(line: &str) -> Result<Self> {
        let error = |e: serde_json::Error| broken("-", 0, format!("a signed head cannot be read: {e}"));
        let mut value: Value = serde_json::from_str(line).map_err(error)?;
        let head = value.get_mut("head").map(Value::take).unwrap_or(value);
        serde_json::from_value(head).map_err(error)
    }

    fn is_signed(&self) -> bool {
        let (Some(key), Some(signature)) = (unhex(&self.key), unhex(&self.signature)) else {
            return false;
        };
        let message = message(&self.chain, self.position, &self.hash, &self.at);
        verify(&key, self.scheme, Input::Message(message.as_bytes()), &signature).is_ok()
    }
}

impl Authority {
    /// Gives every record of every replica as a line of JSON to `line`, and then the latest signed heads.
    ///
    /// # Errors
    /// [`Error::Database`]; what `line` says.
    pub async fn export_audit<E: From<Error>>(
        &self,
        mut line: impl FnMut(&str) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        for end in self.store().chain_ends().await? {
            let mut position = 0;
            loop {
                let page = self.store().audit(&end.chain, position, PAGE).await?;
                for record in &page {
                    line(&record.to_line(&end.chain))?;
                    position = record.position;
                }
                if page.len() < PAGE {
                    break;
                }
            }
        }
        for head in self.store().audit_heads().await? {
            line(&json!({ "head": AuditHead::parse(&head)? }).to_string())?;
        }
        Ok(())
    }

    /// Checks that no record was edited, removed or put elsewhere, and that every chain goes on from
    /// each of `heads`, which were exported before and kept elsewhere. Without them, a log that was written anew
    /// from its beginning, or whose end was cut off, looks whole.
    ///
    /// # Errors
    /// [`Error::Audit`] says where it is broken; [`Error::Database`].
    pub async fn verify_audit(&self, heads: &[AuditHead]) -> Result<Vec<VerifiedChain>> {
        let mut known = heads.to_vec();
        for head in self.store().audit_heads().await? {
            known.push(AuditHead::parse(&head)?);
        }
        if let Some(forged) = known.iter().find(|head| !head.is_signed()) {
            let reason = "the signature of a head is wrong".to_owned();
            return Err(broken(&forged.chain, forged.position, reason));
        }
        // After the heads, so that no head is younger.
        let ends = self.store().chain_ends().await?;
        let chains: BTreeSet<_> = ends.iter().map(|end| end.chain.as_str()).collect();
        if let Some(lost) = known.iter().find(|head| !chains.contains(head.chain.as_str())) {
            return Err(broken(&lost.chain, lost.position, "the chain of a signed head is gone".into()));
        }
        let mut verified = Vec::new();
        for end in &ends {
            let mut expected = BTreeMap::<i64, Vec<Expected>>::new();
            let noted = Expected { hash: hex(&end.hash), from: "its noted end".into() };
            expected.entry(end.position).or_default().push(noted);
            let heads = known.iter().filter(|head| head.chain == end.chain);
            for head in heads.clone() {
                let signed =
                    Expected { hash: head.hash.clone(), from: format!("what was signed at {}", head.at) };
                expected.entry(head.position).or_default().push(signed);
            }
            let records = self.verify_chain(&end.chain, &expected).await?;
            if let Some((beyond, what)) = expected.iter().next_back().filter(|(beyond, _)| **beyond > records)
            {
                let from = &what[0].from;
                let reason =
                    format!("its end was cut off: {beyond} records belong to {from}, and {records} are left");
                return Err(broken(&end.chain, records, reason));
            }
            verified.push(VerifiedChain { chain: end.chain.clone(), records, heads: heads.count() });
        }
        Ok(verified)
    }

    /// Follows a chain from its beginning, and returns how many records it has.
    async fn verify_chain(&self, chain: &str, expected: &BTreeMap<i64, Vec<Expected>>) -> Result<i64> {
        let (mut position, mut hash) = (0, BEGINNING);
        loop {
            let page = self.store().audit(chain, position, PAGE).await?;
            for record in &page {
                position += 1;
                if record.position != position {
                    return Err(broken(chain, position, "a record was removed".into()));
                }
                hash = link(&hash, position, chain, &record.event);
                if record.hash != hash {
                    return Err(broken(chain, position, "a record was changed, or put elsewhere".into()));
                }
                let text = hex(&hash);
                let contradiction =
                    expected.get(&position).into_iter().flatten().find(|what| what.hash != text);
                if let Some(contradiction) = contradiction {
                    let reason = format!("it was written anew: it is not {}", contradiction.from);
                    return Err(broken(chain, position, reason));
                }
            }
            if page.len() < PAGE {
                return Ok(position);
            }
        }
    }
}

/// What the hash of a record has to be.
struct Expected {
    /// In hexadecimal.
    hash: String,
    from: String,
}

/// Signs heads of this replica's chains: it has a new one with each issuing certificate.
pub(crate) struct HeadSigner {
    authority: Authority,
    key: Arc<dyn Key>,
    /// By chain, up to which position.
    signed: BTreeMap<String, i64>,
}

impl HeadSigner {
    /// Opens the audit key, if the settings name one.
    pub(crate) async fn open(authority: Authority, keystore: Arc<dyn Keystore>) -> Result<Option<Self>> {
        let Some(uri) = authority.config().audit_key.clone() else { return Ok(None) };
        let key = Arc::from(blocking(move || Ok(keystore.open(&uri)?)).await?);
        let former = authority.config().former_issuers.iter().map(|former| former.sha256.clone());
        let chains = former.chain([authority.issuing().fingerprint_hex()]);
        let signed = chains.map(|chain| (chain, 0)).collect();
        Ok(Some(Self { authority, key, signed }))
    }

    /// Signs where the chains end that have grown since the last time.
    pub(crate) async fn sign(&mut self) -> Result<()> {
        for end in self.authority.store().chain_ends().await? {
            if self.signed.get(&end.chain).is_some_and(|signed| end.position > *signed) {
                self.sign_one(end).await?;
            }
        }
        Ok(())
    }

    async fn sign_one(&mut self, end: ChainEnd) -> Result<()> {
        let chain = end.chain;
        let (key, at) = (self.key.clone(), rfc3339(SystemTime::now()));
        let (position, hash, spki) = (end.position, hex(&end.hash), hex(&key.info().spki));
        let message = message(&chain, position, &hash, &at);
        let (scheme, signature) = blocking(move || {
            let ctx = SignContext::new("head of the audit log").with_deadline(Instant::now() + SIGN_TIMEOUT);
            Ok(sign_message(&*key, message.as_bytes(), &ctx)?)
        })
        .await?;
        let head = AuditHead { chain, position, hash, at, key: spki, scheme, signature: hex(&signature) };
        let line = serde_json::to_string(&head).map_err(|e| Error::Record { reason: e.to_string() })?;
        self.authority.store().keep_audit_head(&head.chain, &line).await?;
        // The server's log is a place elsewhere, too.
        tracing::info!(head = %line, "audit log");
        self.signed.insert(head.chain, position);
        Ok(())
    }
}

fn broken(chain: &str, position: i64, reason: String) -> Error {
    Error::Audit { chain: chain.get(..16).unwrap_or(chain).to_owned(), position, reason }
}

/// What the signature of a head is over.
fn message(chain: &str, position: i64, hash: &str, at: &str) -> String {
    format!("enclasp audit head\n{chain}\n{position}\n{hash}\n{at}\n")
}
