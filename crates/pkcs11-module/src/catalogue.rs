//! What there is to show: the tokens, and the objects on them.
//!
//! Shown are the identities, each with its key and its chain, and the keys that `ENCLASP_PKCS11_KEYS`
//! names. One token, in slot 0, has everything that needs no PIN of the host: keys that sign freely,
//! and keys that ask a person, which the agent does. What a PIN opens has a token of its own, so that
//! no PIN goes to another: the token of a PKCS#11 module, a TPM's key with a PIN. So have Ed25519 keys:
//! hosts that do not know their type give up on the whole token (libp11 0.4.12).

use cryptoki_sys::CK_SLOT_ID;
use enclasp_identity::{Holder, Identity};
use enclasp_keystore::agent::pin_is_given;
use enclasp_keystore::{Algorithm, KeyInfo, KeyUri, Keystore, KeystoreKind};
use enclasp_pki::{Certificate, hex, sha256};

use crate::agents::Agents;
use crate::failure::log;
use crate::object::{Object, Place};

/// The environment variable that names keys to show although no identity uses them: URIs, with
/// spaces between them.
const KEYS: &str = "ENCLASP_PKCS11_KEYS";

/// The label of the token in slot 0.
const LABEL: &str = "Enclasp";

/// What tells the token of a PKCS#11 module from others (RFC 7512 §2.3).
const TOKEN: [&str; 5] = ["token", "manufacturer", "model", "serial", "slot-id"];

/// What was found at one time.
pub(crate) struct Catalogue {
    identities: Vec<Identity>,
    keys: Vec<(Holder, Vec<KeyInfo>)>,
    named: Vec<KeyInfo>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) objects: Vec<Object>,
}

/// A slot with a token in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slot {
    pub(crate) id: CK_SLOT_ID,
    pub(crate) label: String,
    pub(crate) serial: String,
    /// The key, or one of the keys, that the PIN of this token opens. None: there is no PIN.
    pub(crate) pin_opens: Option<KeyUri>,
}

impl Catalogue {
    /// Before anything was looked for.
    pub(crate) fn new() -> Self {
        Self::of(Vec::new(), Vec::new(), Vec::new())
    }

    /// Looks for identities and keys. A place that cannot be looked into is taken to be as it was in
    /// `previous`: an agent that is being started again, a folder that a worker process without
    /// privileges cannot read any more.
    pub(crate) fn load(agents: &Agents, previous: &Self) -> Self {
        let identities = match agents.state().identities().and_then(|store| store.list()) {
            Ok(listed) => listed
                .into_iter()
                .filter_map(|one| one.inspect_err(|e| log("identities", e, e.hint())).ok())
                .collect(),
            Err(error) => {
                log("identities", &error, error.hint());
                previous.identities.clone()
            }
        };
        let mut keys = Vec::new();
        for holder in holders(&identities) {
            let of_holder = |identity: &Identity| Holder::of(&identity.key).is_ok_and(|of| of == holder);
            let is_new =
                |identity: &Identity| of_holder(identity) && key_of(identity, &previous.keys).is_none();
            let known = previous.keys.iter().find(|(known, _)| *known == holder).map(|(_, keys)| keys);
            // Hardware is asked again only for what it did not have the last time.
            let found = match known {
                Some(known) if holder != Holder::Soft && !identities.iter().any(is_new) => known.clone(),
                _ => agents.keystore(&holder).list().unwrap_or_else(|error| {
                    log("keys", &error, error.hint());
                    known.cloned().unwrap_or_default()
                }),
            };
            keys.push((holder, found));
        }
        let named = named_keys().into_iter().filter_map(|uri| match agents.key(&uri) {
            Ok(key) => Some(KeyInfo { uri, ..key.info().clone() }),
            Err(error) => {
                log(KEYS, &error, error.hint());
                previous.named.iter().find(|info| info.uri == uri).cloned()
            }
        });
        Self::of(identities, keys, named.collect())
    }

    /// The same without what is known of the keys of `holder`, which are asked for anew next time.
    pub(crate) fn forget(&self, holder: &Holder) -> Self {
        let keys = self.keys.iter().filter(|(known, _)| known != holder).cloned().collect();
        Self {
            identities: self.identities.clone(),
            keys,
            named: self.named.clone(),
            slots: self.slots.clone(),
            objects: Vec::new(),
        }
    }

    fn of(identities: Vec<Identity>, keys: Vec<(Holder, Vec<KeyInfo>)>, named: Vec<KeyInfo>) -> Self {
        let mut shelf = Shelf { slots: vec![Slot::new(LABEL, LABEL.into(), None)], objects: Vec::new() };
        for identity in &identities {
            match key_of(identity, &keys) {
                Some(info) => shelf.put_identity(identity, info),
                None => {
                    let name = &identity.name;
                    log(
                        "identities",
                        format_args!("`{name}` is left out: no key `{}` is there", identity.key),
                        None,
                    );
                }
            }
        }
        for info in &named {
            let uri = info.uri.to_string();
            let name = info.uri.attribute("name").or(info.uri.attribute("object")).unwrap_or(&uri);
            let is_taken = identities.iter().any(|identity| identity.name == name);
            shelf.put_key(&info.uri, info, if is_taken { &uri } else { name });
        }
        Self { identities, keys, named, slots: shelf.slots, objects: shelf.objects }
    }
}

/// Slots and objects, as they come together.
struct Shelf {
    slots: Vec<Slot>,
    objects: Vec<Object>,
}

impl Shelf {
    fn put_identity(&mut self, identity: &Identity, info: &KeyInfo) {
        let place = self.put_key(&identity.key, info, &identity.name);
        for (index, der) in identity.chain.iter().enumerate() {
            let Ok(certificate) = Certificate::from_der(der) else { continue };
            let of_authority = certificate.name();
            let label = if index == 0 { place.label } else { &of_authority };
            let object = Object::certificate(Place { label, ..place }, &certificate, index > 0);
            self.objects.extend(object.filter(|object| !self.objects.contains(object)));
        }
    }

    fn put_key<'a>(&mut self, uri: &KeyUri, info: &KeyInfo, label: &'a str) -> Place<'a> {
        let slot = slot_of(uri, info, label);
        let place = Place { slot: slot.id, label, login: slot.pin_opens.is_some() };
        if !self.slots.iter().any(|known| known.id == slot.id) {
            self.slots.push(slot);
        }
        self.objects.extend(Object::private_key(place, uri, info));
        self.objects.extend(Object::public_key(place, info));
        place
    }
}

impl Slot {
    /// The slot for what is in `domain`.
    fn new(domain: &str, label: String, pin_opens: Option<KeyUri>) -> Self {
        let hash = sha256(domain.as_bytes());
        // Some hosts keep the number in a signed int.
        let id = u32::from_be_bytes([hash[0] & 0x7f, hash[1], hash[2], hash[3] | 1]);
        let id = if domain == LABEL { 0 } else { id.into() };
        // 16 digits, as many as a serial number has room for.
        Self { id, label, serial: hex(&hash[..8]), pin_opens }
    }
}

fn slot_of(uri: &KeyUri, info: &KeyInfo, label: &str) -> Slot {
    let (mut domain, mut label, pin_opens) = match uri.kind() {
        // A PIN that comes from a file or the environment is none of the host's business.
        _ if pin_is_given(uri) => (LABEL.to_owned(), LABEL.to_owned(), None),
        KeystoreKind::Pkcs11 => {
            let module = uri.query("module-path").unwrap_or("");
            let token = TOKEN.map(|name| uri.attribute(name).unwrap_or(""));
            let label = uri.attribute("token").unwrap_or("PKCS#11").to_owned();
            (format!("{module}\n{}", token.join("\n")), label, Some(uri.clone()))
        }
        _ if info.policy.pin => (uri.to_string(), label.to_owned(), Some(uri.clone())),
        _ => (LABEL.to_owned(), LABEL.to_owned(), None),
    };
    if info.algorithm == Algorithm::Ed25519 {
        domain += "\nEd25519";
        label += " Ed25519";
    }
    Slot::new(&domain, label, pin_opens)
}

/// What is known of the key that an identity's certificate is for.
fn key_of<'a>(identity: &Identity, keys: &'a [(Holder, Vec<KeyInfo>)]) -> Option<&'a KeyInfo> {
    let holder = Holder::of(&identity.key).ok()?;
    let leaf = identity.leaf().ok()?;
    let (_, keys) = keys.iter().find(|(known, _)| *known == holder)?;
    keys.iter().find(|info| info.spki == leaf.spki())
}

/// Those that hold the keys of identities.
fn holders(identities: &[Identity]) -> Vec<Holder> {
    let mut holders = Vec::new();
    for identity in identities {
        match Holder::of(&identity.key) {
            Ok(holder) if !holders.contains(&holder) => holders.push(holder),
            Ok(_) => {}
            Err(error) => log("identities", &error, error.hint()),
        }
    }
    holders
}

fn named_keys() -> Vec<KeyUri> {
    let names = std::env::var(KEYS).unwrap_or_default();
    let parse =
        |name: &str| name.parse().inspect_err(|e: &enclasp_keystore::Error| log(KEYS, e, e.hint())).ok();
    names.split_whitespace().filter_map(parse).collect()
}
