//! Which token and which objects a URI names (RFC 7512 §2.3), and the URI of a key.

use std::path::Path;

use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::slot::Slot;

use super::token::TokenId;
use crate::KeyUri;

/// Whether the URI's token attributes fit the token. Those that it lacks fit any.
pub(super) fn names_token(uri: &KeyUri, id: &TokenId, slot: Slot) -> bool {
    let fits = |attribute: &str, value: &str| uri.attribute(attribute).is_none_or(|wanted| wanted == value);
    fits("token", &id.label)
        && fits("manufacturer", &id.manufacturer)
        && fits("model", &id.model)
        && fits("serial", &id.serial)
        && fits("slot-id", &slot.id().to_string())
}

/// The template that finds the URI's objects of one class.
pub(super) fn template(uri: &KeyUri, class: ObjectClass) -> Vec<Attribute> {
    let mut template = vec![Attribute::Class(class), Attribute::Token(true)];
    template.extend(uri.attribute("object").map(|label| Attribute::Label(label.as_bytes().to_vec())));
    template.extend(uri.id().map(Attribute::Id));
    template
}

/// The URI of a key: by its token's label, with the serial number if another token has the same
/// label, and by its own label, with the CKA_ID if that does not suffice.
pub(super) fn uri(
    module: &Path,
    token: &TokenId,
    with_serial: bool,
    label: &str,
    id: Option<&[u8]>,
) -> KeyUri {
    let mut path = vec![("token", token.label.clone())];
    if with_serial {
        path.push(("serial", token.serial.clone()));
    }
    if !label.is_empty() {
        path.push(("object", label.to_owned()));
    }
    KeyUri::pkcs11(path, id, module)
}
