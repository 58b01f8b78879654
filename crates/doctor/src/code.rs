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
    KEY_LAST_TRY = "EN-KEY-0010", "one more wrong PIN locks the device";
}

codes! {
    /// Findings about files: what they are wrapped in, and how DER is written in them.
    FILE:
    FILE_UNKNOWN = "EN-FILE-0001", "the file is of no kind that is known";
    FILE_OTHER_KIND = "EN-FILE-0002", "the file holds something else than was said";
    FILE_TEXT = "EN-FILE-0003", "the PEM text is in another text encoding";
    FILE_UNFRAMED = "EN-FILE-0004", "base64 or hexadecimal without a PEM frame";
    FILE_BINARY_IN_FRAME = "EN-FILE-0005", "binary DER inside a PEM frame";
    FILE_FRAMED_TWICE = "EN-FILE-0006", "PEM inside PEM or base64";
    FILE_FRAME_BROKEN = "EN-FILE-0007", "the PEM frame is broken";
    FILE_BASE64 = "EN-FILE-0008", "the base64 is damaged";
    FILE_LABEL = "EN-FILE-0009", "the PEM label is that of something else";
    FILE_CUT_SHORT = "EN-FILE-0010", "the file is cut short";
    FILE_WRONG_LENGTH = "EN-FILE-0011", "a length does not add up";
    FILE_TRAILING = "EN-FILE-0012", "bytes follow the end";
    FILE_WRONG_ELEMENT = "EN-FILE-0013", "an element is of another type than is due";
    FILE_MISSING_ELEMENT = "EN-FILE-0014", "an element is missing";
    FILE_EXTRA_ELEMENT = "EN-FILE-0015", "there is an element too many";
    FILE_LENGTH_FORM = "EN-FILE-0016", "a length is not in the form that DER has";
    FILE_INTEGER = "EN-FILE-0017", "an INTEGER is not in the form that DER has";
    FILE_BIT_STRING = "EN-FILE-0018", "a BIT STRING does not count its unused bits rightly";
    FILE_VALUE = "EN-FILE-0019", "a BOOLEAN, NULL or OBJECT IDENTIFIER is not in the form that DER has";
    FILE_DEFAULT = "EN-FILE-0020", "a default value is written out";
    FILE_STRING = "EN-FILE-0021", "a string is of the wrong type, length or encoding";
    FILE_TIME = "EN-FILE-0022", "a time is not in the form that X.509 has";
    FILE_SET_ORDER = "EN-FILE-0023", "the members of a SET are not in order";
}

codes! {
    /// Findings about public keys, wherever they are.
    PUBLIC_KEY:
    PUBLIC_KEY_HEADER = "EN-PUB-0001", "the header of the public key is missing";
    PUBLIC_KEY_POINT = "EN-PUB-0002", "the point is not 04 ‖ X ‖ Y, or not on its curve";
    PUBLIC_KEY_CURVE = "EN-PUB-0003", "the curve that is named is not that of the key";
    PUBLIC_KEY_OTHER_ALGORITHM = "EN-PUB-0004", "the algorithm that is named is not that of the key";
    PUBLIC_KEY_NESTED = "EN-PUB-0005", "the public key is wrapped twice";
    PUBLIC_KEY_PARAMETERS = "EN-PUB-0006", "the parameters of the key's algorithm are wrong";
    PUBLIC_KEY_MALFORMED = "EN-PUB-0007", "the public key is malformed";
    PUBLIC_KEY_WEAK = "EN-PUB-0008", "the key is too weak";
    PUBLIC_KEY_UNSUPPORTED = "EN-PUB-0009", "few or none accept keys of this type";
}

codes! {
    /// Findings about signatures on requests, certificates and revocation lists.
    SIGNATURE:
    SIGNATURE_RAW_PAIR = "EN-SIG-0001", "the ECDSA signature is r ‖ s, not DER";
    SIGNATURE_ENCODING = "EN-SIG-0002", "the ECDSA signature is not well-formed DER";
    SIGNATURE_OTHER_ALGORITHM = "EN-SIG-0003", "the signature was made with another algorithm than is named";
    SIGNATURE_OTHER_HASH = "EN-SIG-0004", "the signature was made with another hash than is named";
    SIGNATURE_OVER_OTHER = "EN-SIG-0005", "the signature is over something else than the signed part";
    SIGNATURE_WEAK = "EN-SIG-0006", "the signature is over a broken hash";
    SIGNATURE_WRONG = "EN-SIG-0007", "the signature does not verify";
    SIGNATURE_PARAMETERS = "EN-SIG-0008", "the parameters of the signature algorithm are wrong";
    SIGNATURE_MALFORMED = "EN-SIG-0009", "what stands for the signature is none";
}

codes! {
    /// Findings about certification requests.
    REQUEST:
    REQUEST_ATTRIBUTES = "EN-CSR-0001", "the attributes of the request are missing or mislabelled";
    REQUEST_VERSION = "EN-CSR-0002", "the request has another version than 0";
    REQUEST_EXTENSIONS = "EN-CSR-0003", "the requested extensions are not in one list";
    REQUEST_NAMES = "EN-CSR-0004", "the request asks for no names";
    REQUEST_OTHER_KEY = "EN-CSR-0005", "the request is for another key";
}

codes! {
    /// Findings about certificates, and about the extensions that requests ask for.
    CERTIFICATE:
    CERT_EXTENSION = "EN-CERT-0001", "an extension is malformed or there twice";
    CERT_NAME = "EN-CERT-0002", "a subject alternative name is not what its kind has";
    CERT_VERSION = "EN-CERT-0003", "the certificate is of another version than 3";
    CERT_SERIAL = "EN-CERT-0004", "the serial number is not a positive number of 20 bytes at most";
    CERT_ALGORITHMS = "EN-CERT-0005", "two signature algorithms are named, and differ";
    CERT_VALIDITY = "EN-CERT-0006", "the validity ends before it begins";
    CERT_EXPIRED = "EN-CERT-0007", "the certificate has expired";
    CERT_NOT_YET_VALID = "EN-CERT-0008", "the certificate is not valid yet";
    CERT_CRITICAL = "EN-CERT-0009", "a critical extension that few programs know";
    CERT_CONSTRAINTS = "EN-CERT-0010", "the certificate is a CA's where it should not be, or the reverse";
    CERT_KEY_USAGE = "EN-CERT-0011", "the key usage does not allow signing a handshake";
    CERT_PURPOSE = "EN-CERT-0012", "the certificate is not for this use";
    CERT_NO_NAMES = "EN-CERT-0013", "the certificate names no host";
    CERT_OTHER_NAME = "EN-CERT-0014", "the certificate is for other names";
    CERT_OTHER_KEY = "EN-CERT-0015", "the certificate is for another key";
    CERT_WITH_KEY = "EN-CERT-0016", "a private key is beside the certificate";
    CERT_ORDER = "EN-CERT-0017", "the certificates are not in the order of the chain";
    CERT_UNRELATED = "EN-CERT-0018", "a certificate that does not belong to the chain";
    CERT_ROOT = "EN-CERT-0019", "the root is in the chain";
    CERT_ISSUER_MISSING = "EN-CERT-0020", "the certificate of an issuer is missing";
    CERT_OTHER_AUTHORITY = "EN-CERT-0021", "another authority of the same name";
    CERT_KEY_IDENTIFIER = "EN-CERT-0022", "the key identifier names another key of the issuer";
    CERT_ISSUER_ENCODING = "EN-CERT-0023", "the issuer's name is written in other string types";
    CERT_NAME_CONSTRAINTS = "EN-CERT-0024", "a name that the CA may not issue for";
    CERT_PATH_LENGTH = "EN-CERT-0025", "more CAs in the chain than one of them allows";
    CERT_CHAIN = "EN-CERT-0026", "the chain is not acceptable";
}

codes! {
    /// Findings about key files.
    KEY_FILE:
    KEY_FILE_PUBLIC = "EN-PKEY-0001", "a public key where a private one is due";
    KEY_FILE_OTHER_FORMAT = "EN-PKEY-0002", "a key in a format that TLS programs do not read";
    KEY_FILE_OPENSSH = "EN-PKEY-0003", "a key in OpenSSH's own format";
    KEY_FILE_LEGACY_ENCRYPTION = "EN-PKEY-0004", "a key that is encrypted in an old way";
    KEY_FILE_ENCRYPTED = "EN-PKEY-0005", "an encrypted key that could not be looked into";
    KEY_FILE_PASSWORD = "EN-PKEY-0006", "the passphrase does not open the key";
    KEY_FILE_NUMBER = "EN-PKEY-0007", "the private number is of the wrong size or range";
    KEY_FILE_HALVES = "EN-PKEY-0008", "the parts of the key do not belong together";
    KEY_FILE_TPM = "EN-PKEY-0009", "a key that only its TPM can use";
    KEY_FILE_OTHER_CERTIFICATE = "EN-PKEY-0010", "the key of another certificate";
}

codes! {
    /// Findings about PKCS#12 files.
    P12:
    P12_BER = "EN-P12-0001", "the PKCS#12 file is BER";
    P12_LEGACY = "EN-P12-0002", "the PKCS#12 file has old encryption";
    P12_MAC = "EN-P12-0003", "the PKCS#12 file has no MAC";
    P12_ROUNDS = "EN-P12-0004", "too few or too many rounds of hashing";
    P12_NO_PASSWORD = "EN-P12-0005", "the PKCS#12 file could not be looked into";
    P12_PASSWORD = "EN-P12-0006", "the passphrase does not open the PKCS#12 file";
    P12_UNREADABLE = "EN-P12-0007", "the contents of the PKCS#12 file cannot be read";
    P12_NO_KEY = "EN-P12-0008", "no private key in the PKCS#12 file";
    P12_SEVERAL_KEYS = "EN-P12-0009", "several private keys in the PKCS#12 file";
    P12_NO_CERTIFICATE = "EN-P12-0010", "no certificate for the private key";
    P12_NO_CHAIN = "EN-P12-0011", "the issuer's certificate is not in the PKCS#12 file";
    P12_NOT_PAIRED = "EN-P12-0012", "key and certificate are not paired";
}

codes! {
    /// Findings about certificate revocation lists.
    CRL:
    CRL_VERSION = "EN-CRL-0001", "the list is of another version than 2";
    CRL_NO_NUMBER = "EN-CRL-0002", "the list has no number";
    CRL_NO_KEY_IDENTIFIER = "EN-CRL-0003", "the list does not say which key signed it";
    CRL_NOT_YET = "EN-CRL-0004", "the list is from the future";
    CRL_NO_NEXT_UPDATE = "EN-CRL-0005", "the list does not say when the next one comes";
    CRL_EXPIRED = "EN-CRL-0006", "the list is too old";
    CRL_DELTA = "EN-CRL-0007", "the list is a delta";
    CRL_INDIRECT = "EN-CRL-0008", "the list is indirect";
    CRL_SCOPE = "EN-CRL-0009", "the list speaks of some certificates only";
    CRL_OTHER_POINT = "EN-CRL-0010", "the list of another distribution point";
    CRL_ENTRY = "EN-CRL-0011", "an entry of the list is wrong";
    CRL_UNCHECKED = "EN-CRL-0012", "the list's signature was not checked";
    CRL_OTHER_ISSUER = "EN-CRL-0013", "the list of another issuer";
    CRL_ISSUER_MAY_NOT = "EN-CRL-0014", "the issuer may not sign lists";
}

codes! {
    /// Findings about handshakes.
    TLS:
    NOT_TLS = "EN-TLS-0001", "what came is not TLS";
    NOTHING_SENT = "EN-TLS-0002", "nobody answered";
    NO_COMMON_VERSION = "EN-TLS-0003", "no TLS version in common";
    NO_COMMON_PARAMETERS = "EN-TLS-0004", "no cipher suite, group or scheme in common";
    SERVER_NOT_TRUSTED = "EN-TLS-0005", "the client does not trust the server's issuer";
    SERVER_REJECTED = "EN-TLS-0006", "the client rejects the server's certificate";
    CLIENT_LEFT = "EN-TLS-0007", "the client left after it saw the server's certificate";
    NO_CLIENT_CERTIFICATE = "EN-TLS-0008", "the client presented no certificate";
    CERTIFICATE_DEMANDED = "EN-TLS-0009", "the server demands a certificate and received none";
    NOT_ASKED = "EN-TLS-0010", "the server asked for no certificate";
    NO_COMMON_SCHEME = "EN-TLS-0011", "the key can sign with nothing that the server takes";
    EC_KEY_RSA_CLAIM = "EN-TLS-0012", "an EC certificate, and a signature that claims RSA";
    SCHEME_DOES_NOT_FIT = "EN-TLS-0013", "a signature scheme that does not fit the certificate's key";
    SCHEME_NOT_OFFERED = "EN-TLS-0014", "a signature scheme that the other side did not offer";
    RAW_ECDSA = "EN-TLS-0015", "a plain ECDSA signature where DER is due";
    LAX_DER = "EN-TLS-0016", "an ECDSA signature that is not quite DER";
    WRONG_HASH = "EN-TLS-0017", "a signature with another hash than it claims";
    WRONG_INPUT = "EN-TLS-0018", "a signature over something else";
    OTHER_KEY = "EN-TLS-0019", "a signature by the key of another certificate";
    BAD_SIGNATURE = "EN-TLS-0020", "a signature that verifies in no way that is known";
    WRONG_PADDING = "EN-TLS-0021", "an RSA signature with another padding than it claims";
    CERTIFICATE_UNREADABLE = "EN-TLS-0022", "a certificate that cannot be read";
    CERTIFICATE_EXPIRED = "EN-TLS-0023", "an expired certificate";
    CERTIFICATE_NOT_YET_VALID = "EN-TLS-0024", "a certificate that is not valid yet";
    WRONG_PURPOSE = "EN-TLS-0025", "a certificate that is not for this use";
    CHAIN_INCOMPLETE = "EN-TLS-0026", "a chain that leads to no trusted root";
    CHAIN_ORDER = "EN-TLS-0027", "a chain in the wrong order";
    CA_AS_LEAF = "EN-TLS-0028", "a CA's certificate used as a client's or server's";
    CHAIN_BROKEN = "EN-TLS-0029", "a certificate that its issuer did not sign";
    WEAK_KEY = "EN-TLS-0030", "a certificate with a weak or rare key";
    REFUSED_UNKNOWN_CA = "EN-TLS-0031", "the server does not trust the client's issuer";
    REFUSED_EXPIRED = "EN-TLS-0032", "the server finds the client's certificate expired";
    REFUSED_REVOKED = "EN-TLS-0033", "the server finds the client's certificate revoked";
    REFUSED_ACCESS = "EN-TLS-0034", "the server does not admit this client";
    REFUSED_UNSUPPORTED = "EN-TLS-0035", "the server does not take a client certificate of this kind";
    REFUSED_CERTIFICATE = "EN-TLS-0036", "the server rejects the client's certificate without saying why";
    REFUSED_SIGNATURE = "EN-TLS-0037", "the server could not verify the client's signature";
    REFUSED_OTHER = "EN-TLS-0038", "the server refused after the client's certificate";
    ISSUER_NOT_LISTED = "EN-TLS-0039", "the client's issuer is not among the CAs that the server names";
    WRONG_NAME = "EN-TLS-0040", "a server certificate for another name";
    CUT = "EN-TLS-0041", "the connection was cut";
    MALFORMED = "EN-TLS-0042", "a message that does not follow its grammar";
    UNREADABLE = "EN-TLS-0043", "what was encrypted cannot be read";
    RESUMED = "EN-TLS-0044", "a session was resumed";
    OLD_VERSION = "EN-TLS-0045", "an old version of TLS";
    NAME_NOT_SERVED = "EN-TLS-0046", "the server does not serve the name that was asked for";
    NO_COMMON_ALPN = "EN-TLS-0047", "no application protocol in common";
    NO_CERTIFICATE_VERIFY = "EN-TLS-0048", "a client certificate without proof of its key";
    KEY_TYPE_NOT_ASKED = "EN-TLS-0049", "a certificate of a key type that the server did not ask for";
    NOT_UNDERSTOOD = "EN-TLS-0050", "something that is not understood";
    SIGNATURE_REJECTED = "EN-TLS-0051", "the client could not verify the server's signature";
    SHA1_SIGNATURE = "EN-TLS-0052", "a handshake signature with SHA-1";
    ALTERED = "EN-TLS-0053", "bytes were changed on the way";
    LOST = "EN-TLS-0054", "bytes did not arrive";
    NOT_THE_SAME = "EN-TLS-0055", "the two ends saw different connections";
}

codes! {
    /// Findings about the same connection with two keys.
    BISECT:
    BISECT_KEY = "EN-BIS-0001", "the software key is accepted, and the key in hardware is not";
    BISECT_CONTROL = "EN-BIS-0002", "the key in hardware is accepted, and the software key is not";
    BISECT_BOTH_PASS = "EN-BIS-0003", "both keys are accepted";
    BISECT_ALIKE = "EN-BIS-0004", "both keys are refused alike";
    BISECT_BOTH_FAIL = "EN-BIS-0005", "both keys are refused, for different reasons";
    BISECT_NOTHING = "EN-BIS-0006", "no connection put both keys to the test";
    BISECT_STAND_IN = "EN-BIS-0007", "the keys were compared at the doctor's own server";
}

/// Every list of codes.
pub const ALL: &[&[Code]] =
    &[KEY, TLS, FILE, PUBLIC_KEY, SIGNATURE, REQUEST, CERTIFICATE, KEY_FILE, P12, CRL, BISECT];

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
