//! The codes of findings. They are stable: a code never changes its meaning and is never given to
//! another finding. Each has a page in `docs/doctor/`.

use std::fmt;

use serde::{Serialize, Serializer};

/// What kind of thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code {
    /// `EN-TLS-0012`.
    pub id: &'static str,
    /// What it stands for, in a line: the title of its page.
    pub summary: &'static str,
}

impl Code {
    /// Where its page is, in the source tree.
    pub fn page(&self) -> String {
        format!("docs/doctor/{}.md", self.id)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id)
    }
}

/// Declares codes as constants, and a list of them all.
macro_rules! codes {
    ($(#[$of_list:meta])* $list:ident: $($name:ident = $id:literal, $summary:literal;)+) => {
        $(
            #[doc = $summary]
            pub const $name: $crate::Code = $crate::Code { id: $id, summary: $summary };
        )+
        $(#[$of_list])*
        pub const $list: &[$crate::Code] = &[$($name),+];
    };
}

codes! {
    /// Findings about keys in keystores.
    KEY:
    KEY_ABSENT = "EN-KEY-0001", "there is no such key";
    KEYSTORE_UNREACHABLE = "EN-KEY-0002", "the keystore cannot be reached";
    KEY_LOCKED = "EN-KEY-0003", "the key or its device is locked";
    KEY_DENIED = "EN-KEY-0004", "the key refused, or nobody could be asked";
    KEY_WRONG_SIGNATURE = "EN-KEY-0005", "the key returned a signature that is not its own";
    KEY_PROVED_NOTHING = "EN-KEY-0006", "the key signs with no scheme at all";
    KEY_SCHEME_MISSING = "EN-KEY-0007", "the key cannot sign with a scheme that fits its type";
    KEY_SLOW = "EN-KEY-0008", "the key signs slowly";
    KEY_FAILED = "EN-KEY-0009", "the key failed in a way that has no name yet";
}

/// Every list of codes.
pub const ALL: &[&[Code]] = &[KEY];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Each code has a page under its title, and each page a code.
    #[test]
    fn codes_and_pages_match() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/doctor");
        let mut pages: BTreeSet<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("EN-"))
            .collect();
        for code in ALL.iter().copied().flatten() {
            let name = format!("{code}.md");
            let page = std::fs::read_to_string(folder.join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
            let title = format!("# {code}: {}", code.summary);
            assert_eq!(page.lines().next(), Some(title.as_str()), "{name}");
            assert!(pages.remove(&name), "{code} is there twice");
        }
        assert!(pages.is_empty(), "pages without a code: {pages:?}");
    }
}
