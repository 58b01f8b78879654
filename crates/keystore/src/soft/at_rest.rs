//! Soft keys on disk: one JSON file each, whose private part is encrypted PKCS#8.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use pkcs8::der::SecretDocument;
use pkcs8::der::pem::LineEnding;
use pkcs8::pkcs5::{pbes2, scrypt};
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::pair::Pair;
use crate::{Algorithm, Error, KeyInfo, ProtectionFault, Result, durable};

/// What encrypts the private keys on disk.
#[derive(Clone)]
pub enum Protection {
    /// A random key in a file `at-rest.key` beside the keys, made when it is missing. Whoever can
    /// read that file can read the keys: this keeps them from backups of the key files alone, and
    /// from nobody who has the whole folder.
    KeyFile,
    /// A passphrase, stretched with scrypt (N = 2^15, r = 8, p = 1: 32 MiB) for each key.
    Passphrase(Zeroizing<String>),
}

impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeyFile => "KeyFile",
            Self::Passphrase(_) => "Passphrase(…)",
        })
    }
}

/// Which protection a folder of keys was begun with, so that it is never mixed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Marker {
    version: u32,
    protection: Kind,
    /// A throw-away key under the same passphrase: tells a wrong one before it encrypts anything.
    check: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    KeyFile,
    Passphrase,
}

/// One key's file. The private part is PEM, so that it can be told and moved apart.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct KeyFile {
    pub(super) version: u32,
    pub(super) key: KeyInfo,
    pub(super) encrypted_private_key: String,
}

const VERSION: u32 = 1;
const MAX_FILE: u64 = 256 * 1024;
const AT_REST_KEY_LENGTH: usize = 32;

/// A folder of key files and the secret that encrypts them.
pub(super) struct Folder {
    path: PathBuf,
    password: Zeroizing<Vec<u8>>,
    stretch: Stretch,
}

#[derive(Clone, Copy)]
enum Stretch {
    /// The password is 256 random bits already.
    Little,
    Much,
}

impl Marker {
    fn read(path: &Path) -> Result<Option<Self>> {
        let Some(bytes) = durable::read(path, MAX_FILE)? else { return Ok(None) };
        let marker: Self = serde_json::from_slice(&bytes).map_err(|e| corrupt(path, &e.to_string()))?;
        if marker.version != VERSION {
            return Err(corrupt(path, &format!("version {} is not known", marker.version)));
        }
        Ok(Some(marker))
    }
}

impl Folder {
    /// Opens the folder, or begins it.
    pub(super) fn open(path: &Path, protection: &Protection) -> Result<Self> {
        durable::private_folder(path)?;
        let marker_path = path.join("protection.json");
        let marker = Marker::read(&marker_path)?;
        let begun_with = marker.as_ref().map(|marker| marker.protection);
        let refused = |fault| Error::Protection { folder: path.display().to_string(), fault };
        let (kind, stretch, password) = match (protection, begun_with) {
            (Protection::KeyFile, Some(Kind::Passphrase)) => {
                return Err(refused(ProtectionFault::NeedsPassphrase));
            }
            (Protection::Passphrase(_), Some(Kind::KeyFile)) => {
                return Err(refused(ProtectionFault::NeedsKeyFile));
            }
            (Protection::KeyFile, begun) => {
                let file = path.join("at-rest.key");
                let key = match read_at_rest_key(&file)? {
                    Some(key) => key,
                    // A new one would open none of the keys.
                    None if begun.is_some() => return Err(refused(ProtectionFault::MissingKeyFile)),
                    None => make_at_rest_key(&file)?,
                };
                (Kind::KeyFile, Stretch::Little, key)
            }
            (Protection::Passphrase(passphrase), _) => {
                (Kind::Passphrase, Stretch::Much, Zeroizing::new(passphrase.as_bytes().to_vec()))
            }
        };
        let folder = Self { path: path.to_owned(), password, stretch };
        let Some(marker) = marker else {
            let check = folder.encrypt(&Pair::generate(Algorithm::Ed25519)?.to_pkcs8()?)?;
            let marker = Marker { version: VERSION, protection: kind, check };
            if durable::create(&marker_path, &to_json(&marker)?)? {
                return Ok(folder);
            }
            return Self::open(path, protection);
        };
        folder.decrypt(&marker.check).map_err(|_| {
            refused(match kind {
                Kind::Passphrase => ProtectionFault::WrongPassphrase,
                Kind::KeyFile => ProtectionFault::WrongKeyFile,
            })
        })?;
        Ok(folder)
    }

    /// The names of the keys there, sorted.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let failed = |e: std::io::Error| Error::Storage {
            operation: "list".into(),
            path: self.path.display().to_string(),
            reason: e.to_string(),
        };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".key.json"));
            names.extend(name.filter(|name| !name.starts_with('.')).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<KeyFile>> {
        let path = self.file(name);
        let Some(bytes) = durable::read(&path, MAX_FILE)? else { return Ok(None) };
        let file: KeyFile = serde_json::from_slice(&bytes).map_err(|e| corrupt(&path, &e.to_string()))?;
        if file.version != VERSION {
            return Err(corrupt(&path, &format!("version {} is not known", file.version)));
        }
        if file.key.uri.name() != name {
            return Err(corrupt(&path, &format!("it holds the key `{}`", file.key.uri)));
        }
        Ok(Some(file))
    }

    /// The private key of `file`, checked to be the one whose public key the file states.
    pub(super) fn unlock(&self, file: &KeyFile) -> Result<Pair> {
        let path = self.file(file.key.uri.name());
        let pkcs8 = self.decrypt(&file.encrypted_private_key).map_err(|e| corrupt(&path, &e))?;
        let pair = Pair::from_pkcs8(&pkcs8)?;
        if pair.spki()? != file.key.spki {
            return Err(corrupt(&path, "its private and public key do not belong together"));
        }
        Ok(pair)
    }

    /// Records a new key. `Ok(false)` if there is one of that name.
    pub(super) fn add(&self, info: &KeyInfo, pair: &Pair) -> Result<bool> {
        let encrypted_private_key = self.encrypt(&pair.to_pkcs8()?)?;
        let file = KeyFile { version: VERSION, key: info.clone(), encrypted_private_key };
        durable::create(&self.file(info.uri.name()), &to_json(&file)?)
    }

    /// Records what changed about a key; the private part stays as it is.
    pub(super) fn update(&self, info: &KeyInfo) -> Result<()> {
        let name = info.uri.name();
        let mut file = self.read(name)?.ok_or_else(|| Error::Absent { key: info.uri.to_string() })?;
        file.key = info.clone();
        durable::replace(&self.file(name), &to_json(&file)?)
    }

    pub(super) fn remove(&self, name: &str) -> Result<bool> {
        durable::remove(&self.file(name))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.key.json"))
    }

    fn encrypt(&self, pkcs8: &[u8]) -> Result<String> {
        let mut random = [0; 32];
        rand::fill(&mut random).map_err(|_| internal("no randomness"))?;
        let (salt, iv) = random.split_at(16);
        let iv: [u8; 16] = iv.try_into().map_err(|_| internal("iv"))?;
        let parameters = match self.stretch {
            Stretch::Little => pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(1000, salt, iv),
            Stretch::Much => scrypt::Params::new(15, 8, 1)
                .map_err(|_| pkcs8::pkcs5::Error::AlgorithmParametersInvalid { oid: pbes2::SCRYPT_OID })
                .and_then(|params| pbes2::Parameters::generate_scrypt_aes256cbc(params, salt, iv)),
        }
        .map_err(|e| internal(&e.to_string()))?;
        PrivateKeyInfoRef::try_from(pkcs8)
            .and_then(|info| info.encrypt_with_params(parameters, &*self.password))
            .and_then(|document| Ok(document.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF)?.to_string()))
            .map_err(|e| internal(&e.to_string()))
    }

    fn decrypt(&self, pem: &str) -> std::result::Result<Zeroizing<Vec<u8>>, String> {
        let (label, document) = SecretDocument::from_pem(pem).map_err(|e| e.to_string())?;
        if label != "ENCRYPTED PRIVATE KEY" {
            return Err(format!("its private key is a PEM `{label}`, not an ENCRYPTED PRIVATE KEY"));
        }
        let plain = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
            .and_then(|info| info.decrypt(&*self.password))
            .map_err(|_| "its private key cannot be decrypted".to_owned())?;
        Ok(plain.to_bytes())
    }
}

fn read_at_rest_key(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let Some(key) = durable::read(path, AT_REST_KEY_LENGTH as u64)?.map(Zeroizing::new) else {
        return Ok(None);
    };
    if key.len() != AT_REST_KEY_LENGTH {
        return Err(corrupt(path, "it does not hold 32 bytes"));
    }
    Ok(Some(key))
}

fn make_at_rest_key(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let mut key = Zeroizing::new(vec![0; AT_REST_KEY_LENGTH]);
    rand::fill(&mut key).map_err(|_| internal("no randomness"))?;
    if durable::create(path, &key)? {
        return Ok(key);
    }
    // Somebody else made one at the same time.
    read_at_rest_key(path)?.ok_or_else(|| corrupt(path, "it vanished"))
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| internal(&e.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn internal(reason: &str) -> Error {
    Error::PrivateKey { reason: format!("cannot be encrypted: {reason}") }
}

fn corrupt(path: &Path, reason: &str) -> Error {
    Error::Storage { operation: "use".into(), path: path.display().to_string(), reason: reason.into() }
}
