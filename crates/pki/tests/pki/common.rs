//! Keys, an authority, and other people's programs.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{self, KeyPair as _};
use enclasp_keystore::soft::{Protection, SoftKeystore};
use enclasp_keystore::{
    Access, Algorithm, Capabilities, Confirm, Error, Input, Key, KeyInfo, KeySpec, KeyUri, Keystore, Origin,
    Policy, Result, Scheme, SignContext, Signature,
};
use enclasp_pki::{
    Certificate, DEFAULT_INTERMEDIATE_LIFETIME, DEFAULT_ROOT_LIFETIME, DistinguishedName, Intermediate,
    Issuer, Leaf, Profile, create_root,
};
use tempfile::TempDir;

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A folder of keys, which is also where OpenSSL's files go.
pub(crate) struct Bench {
    folder: TempDir,
    keystore: SoftKeystore,
}

struct Nobody;

impl Confirm for Nobody {
    fn confirm(&self, key: &KeyInfo, _: &SignContext) -> Result<()> {
        Err(Error::Denied {
            key: key.uri.to_string(),
            operation: "sign with".into(),
            reason: "nobody is here".into(),
        })
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let keystore = SoftKeystore::open(&folder.path().join("keys"), &Protection::KeyFile, Nobody).unwrap();
        Self { folder, keystore }
    }

    pub(crate) fn key(&self, name: &str, algorithm: Algorithm) -> Box<dyn Key> {
        self.key_of(KeySpec { algorithm, ..KeySpec::new(KeyUri::soft(name).unwrap()) })
    }

    pub(crate) fn key_of(&self, spec: KeySpec) -> Box<dyn Key> {
        self.keystore.create(&spec).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Runs `openssl` in the folder and returns what it says on both outputs. It must succeed.
    pub(crate) fn openssl(&self, arguments: &str) -> String {
        self.run("openssl", arguments).expect("openssl is installed")
    }

    /// The same with another program; `None` if it is not installed, which fails where `CI` is set.
    pub(crate) fn run(&self, program: &str, arguments: &str) -> Option<String> {
        let output =
            Command::new(program).current_dir(self.folder.path()).args(arguments.split_whitespace()).output();
        let output = match output {
            Ok(output) => output,
            Err(error) if error.kind() == ErrorKind::NotFound && std::env::var_os("CI").is_none() => {
                eprintln!("SKIPPED: {program} is not installed");
                return None;
            }
            Err(error) => panic!("{program}: {error}"),
        };
        let text =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "{program} {arguments}: {text}");
        Some(text)
    }
}

pub(crate) fn name(text: &str) -> DistinguishedName {
    text.parse().unwrap()
}

pub(crate) fn context() -> SignContext {
    SignContext::new("test")
}

/// 2026-01-01, so that nothing depends on the day of the test.
pub(crate) fn new_year() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

/// A root and an issuing CA, made at `new_year`.
pub(crate) struct Authority {
    pub(crate) root: Certificate,
    pub(crate) issuing: Certificate,
    key: Box<dyn Key>,
}

impl Authority {
    pub(crate) fn new(bench: &Bench, prefix: &str, organization: &str, algorithm: Algorithm) -> Self {
        let root_key = bench.key(&format!("{prefix}-root"), algorithm);
        let key = bench.key(&format!("{prefix}-issuing"), algorithm);
        let subject = name(&format!("CN={organization} Root,O={organization}"));
        let root = create_root(&*root_key, &subject, DEFAULT_ROOT_LIFETIME, new_year(), &context()).unwrap();
        let request = Intermediate {
            subject: &name(&format!("CN={organization} Issuing,O={organization}")),
            spki: &key.info().spki,
            lifetime: DEFAULT_INTERMEDIATE_LIFETIME,
            path_length: Some(0),
            name_constraints: None,
        };
        let issuer = Issuer::new(root.clone(), &*root_key).unwrap();
        let issuing = issuer.issue_intermediate(&request, new_year(), &context()).unwrap();
        Self { root, issuing, key }
    }

    pub(crate) fn issuer(&self) -> Issuer<'_> {
        Issuer::new(self.issuing.clone(), &*self.key).unwrap()
    }

    /// A certificate for `CN=web` and localhost.
    pub(crate) fn issue(&self, key: &dyn Key, profile: &Profile) -> Certificate {
        let leaf = Leaf {
            profile,
            subject: &name("CN=web,O=Acme"),
            subject_alt_names: &["dns:localhost".parse().unwrap()],
            spki: &key.info().spki,
            lifetime: None,
        };
        self.issuer().issue(&leaf, new_year(), &context()).unwrap()
    }
}

/// A key whose signatures are damaged on their way.
pub(crate) struct Damaged(pub(crate) Box<dyn Key>);

impl Key for Damaged {
    fn info(&self) -> &KeyInfo {
        self.0.info()
    }

    fn sign(&self, scheme: Scheme, _: Input<'_>, ctx: &SignContext) -> Result<Signature> {
        self.0.sign(scheme, Input::Message(b"something else"), ctx)
    }
}

/// An RSA key of 2048 bits, which the software keystore does not make.
pub(crate) struct RsaKey {
    info: KeyInfo,
    pair: KeyPair,
}

impl RsaKey {
    /// `proved` are the schemes that it is said to have been proved to do.
    pub(crate) fn new(proved: &[Scheme]) -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let info = KeyInfo {
            uri: "pkcs11:object=rsa".parse().unwrap(),
            spki: spki.as_ref().to_vec(),
            algorithm: Algorithm::Rsa,
            policy: Policy::default(),
            capabilities: Capabilities { proved: BTreeSet::from_iter(proved.iter().copied()) },
            access: Access::default(),
            origin: Origin::Generated,
            created: SystemTime::now(),
        };
        Self { info, pair }
    }
}

impl Key for RsaKey {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, scheme: Scheme, input: Input<'_>, _: &SignContext) -> Result<Signature> {
        let padding: &dyn signature::RsaEncoding = match scheme {
            Scheme::RsaPssSha256 => &signature::RSA_PSS_SHA256,
            Scheme::RsaPssSha384 => &signature::RSA_PSS_SHA384,
            Scheme::RsaPssSha512 => &signature::RSA_PSS_SHA512,
            Scheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_SHA256,
            Scheme::RsaPkcs1Sha384 => &signature::RSA_PKCS1_SHA384,
            Scheme::RsaPkcs1Sha512 => &signature::RSA_PKCS1_SHA512,
            other => panic!("{other} with RSA"),
        };
        let Input::Message(message) = input else { panic!("a digest") };
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
        Ok(Signature::new(signature))
    }
}
