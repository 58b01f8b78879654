//! What there is to show: the tokens, and the objects on them.
//!
//! One token, in slot 0, has everything that needs no PIN of the host: keys that sign freely, and
//! keys that ask a person, which the agent does. What a PIN opens has a token of its own, so that no
//! PIN goes to another: the token of a PKCS#11 module, a TPM's key with a PIN.

use cryptoki_sys::CK_SLOT_ID;
use enclasp_identity::{Holder, Identity};
use enclasp_keystore::agent::pin_is_given;
use enclasp_keystore::{KeyInfo, KeyUri, Keystore, KeystoreKind};
use enclasp_pki::{Certificate, hex, sha256};

use crate::agents::Agents;
use crate::failure::log;
use crate::object::{Object, Place};

/// What was found at one time.
pub(crate) struct Catalogue {
    identities: Vec<Identity>,
    keys: Vec<(Holder, Vec<KeyInfo>)>,
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

/// The label of the token in slot 0.
const LABEL: &str = "Enclasp";

/// What tells the token of a PKCS#11 module from others (RFC 7512 §2.3).
const TOKEN: [&str; 5] = ["token", "manufacturer", "model", "serial", "slot-id"];

impl Catalogue {
    /// Before anything was looked for.
    pub(crate) fn new() -> Self {
        Self::of(Vec::new(), Vec::new())
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
        Self::of(identities, keys)
    }

    /// The same without what is known of the keys of `holder`, which are asked for anew next time.
    pub(crate) fn forget(&self, holder: &Holder) -> Self {
        let keys = self.keys.iter().filter(|(known, _)| known != holder).cloned().collect();
        Self { identities: self.identities.clone(), keys, slots: self.slots.clone(), objects: Vec::new() }
    }

    fn of(identities: Vec<Identity>, keys: Vec<(Holder, Vec<KeyInfo>)>) -> Self {
        let mut slots = vec![Slot { id: 0, label: LABEL.into(), serial: serial(LABEL), pin_opens: None }];
        let mut objects = Vec::new();
        let mut used: Vec<&[u8]> = Vec::new();
        for identity in &identities {
            match key_of(identity, &keys) {
                Some(info) => {
                    used.push(&info.spki);
                    show_identity(identity, info, &mut slots, &mut objects);
                }
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
        // The old key of an identity waits to be deleted, and shall not be taken for the new one.
        let retired = |uri: &KeyUri| identities.iter().any(|identity| identity.retired.as_ref() == Some(uri));
        let software = keys.iter().filter(|(holder, _)| *holder == Holder::Soft).flat_map(|(_, keys)| keys);
        for info in software.filter(|info| !used.contains(&info.spki.as_slice()) && !retired(&info.uri)) {
            let taken = identities.iter().any(|identity| identity.name == info.uri.name());
            let uri = info.uri.to_string();
            let place = Place { slot: 0, label: if taken { &uri } else { info.uri.name() }, login: false };
            objects.extend(Object::private_key(place, &info.uri, info));
            objects.extend(Object::public_key(place, info));
        }
        Self { identities, keys, slots, objects }
    }
}

/// What is known of the key that an identity's certificate is for.
fn key_of<'a>(identity: &Identity, keys: &'a [(Holder, Vec<KeyInfo>)]) -> Option<&'a KeyInfo> {
    let holder = Holder::of(&identity.key).ok()?;
    let leaf = identity.leaf().ok()?;
    let (_, keys) = keys.iter().find(|(known, _)| *known == holder)?;
    keys.iter().find(|info| info.spki == leaf.spki())
}

/// Those that hold the keys of identities, and the software keys.
fn holders(identities: &[Identity]) -> Vec<Holder> {
    let mut holders = vec![Holder::Soft];
    for identity in identities {
        match Holder::of(&identity.key) {
            Ok(holder) if !holders.contains(&holder) => holders.push(holder),
            Ok(_) => {}
            Err(error) => log("identities", &error, error.hint()),
        }
    }
    holders
}

fn show_identity(identity: &Identity, info: &KeyInfo, slots: &mut Vec<Slot>, objects: &mut Vec<Object>) {
    let (slot, login) = match pin_slot(identity, info) {
        Some(slot) => {
            let id = slot.id;
            if !slots.iter().any(|known| known.id == id) {
                slots.push(slot);
            }
            (id, true)
        }
        None => (0, false),
    };
    let place = Place { slot, label: &identity.name, login };
    objects.extend(Object::private_key(place, &identity.key, info));
    objects.extend(Object::public_key(place, info));
    for (index, der) in identity.chain.iter().enumerate() {
        let Ok(certificate) = Certificate::from_der(der) else { continue };
        let of_authority = certificate.name();
        let label = if index == 0 { &identity.name } else { &of_authority };
        let object = Object::certificate(Place { label, ..place }, &certificate, index > 0);
        objects.extend(object.filter(|object| !objects.contains(object)));
    }
}

/// The slot of its own for what a PIN opens that the host has to give: not one that comes from a file
/// or the environment.
fn pin_slot(identity: &Identity, info: &KeyInfo) -> Option<Slot> {
    let uri = &identity.key;
    if pin_is_given(uri) {
        return None;
    }
    let (domain, label) = match uri.kind() {
        KeystoreKind::Pkcs11 => {
            let module = uri.query("module-path").unwrap_or("");
            let token = TOKEN.map(|name| uri.attribute(name).unwrap_or(""));
            (format!("{module}\n{}", token.join("\n")), uri.attribute("token").unwrap_or("PKCS#11"))
        }
        _ if info.policy.pin => (uri.to_string(), identity.name.as_str()),
        _ => return None,
    };
    let hash = sha256(domain.as_bytes());
    // Some hosts keep the number in a signed int.
    let id = u32::from_be_bytes([hash[0] & 0x7f, hash[1], hash[2], hash[3] | 1]);
    Some(Slot { id: id.into(), label: label.into(), serial: serial(&domain), pin_opens: Some(uri.clone()) })
}

/// 16 hexadecimal digits, as many as a serial number has room for.
fn serial(domain: &str) -> String {
    hex(&sha256(domain.as_bytes())[..8])
}
