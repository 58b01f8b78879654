//! The doctor's own authority, for a server that any client can be pointed at.
//!
//! Its key is in the agent like any other. The root is made once per state folder and lives for a
//! month: nobody should trust it for longer than a diagnosis takes. The server's keys are made anew
//! by each run, in this process, and never written: no user's data is protected by them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use enclasp_doctor::old_server::SERVER_NAME;
use enclasp_identity::State;
use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{Algorithm, Key, KeySpec, KeyUri, Keystore, SignContext, durable};
use enclasp_pki::{Certificate, DistinguishedName, Issuer, Leaf, Profile, SubjectAltName, create_root};
use enclasp_tls::Credential;
use rustls_pki_types::CertificateDer;

use crate::failure::{Failure, Outcome};

/// The doctor's authority of a state folder.
pub(super) struct Authority {
    key: Box<dyn Key>,
    pub(super) root: Certificate,
    folder: PathBuf,
}

/// A key of this process with its certificate.
pub(super) struct OwnKey {
    pub(super) chain: Vec<Vec<u8>>,
    pub(super) key: Arc<SoftKey>,
}

impl OwnKey {
    /// Both, for TLS.
    pub(super) fn credential(&self) -> Outcome<Credential> {
        let chain = self.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        Ok(Credential::new(chain, self.key.clone())?)
    }
}

const DAY: Duration = Duration::from_secs(86_400);
const LIFETIME: Duration = DAY.saturating_mul(30);

/// The root is made anew when it has no more than this left.
const REST: Duration = DAY.saturating_mul(2);

const ROOT: &str = "ca.pem";
const PROFILE: &str = "ca.mobileconfig";

/// No file of ours is larger.
const LIMIT: u64 = 1 << 16;

impl Authority {
    /// Opens it, or makes it.
    pub(super) fn open(state: &State) -> Outcome<Self> {
        let folder = state.root().join("doctor");
        durable::private_folder(state.root())?;
        durable::private_folder(&folder)?;
        let uri = KeyUri::soft("enclasp-doctor-ca")?;
        let keystore = state.keystore(&uri)?;
        let key = keystore.open_or_create(&KeySpec::new(uri))?;
        let known = durable::read(&folder.join(ROOT), LIMIT)?;
        let known = known.and_then(|pem| enclasp_pki::certificates_from(&pem).ok()?.into_iter().next());
        let now = SystemTime::now();
        let good = known.filter(|root| root.spki() == key.info().spki && root.not_after() > now + REST);
        let root = match good {
            Some(root) => root,
            None => {
                let subject = "CN=Enclasp doctor (for a diagnosis only),O=Enclasp".parse()?;
                let root =
                    create_root(&*key, &subject, LIFETIME, now, &SignContext::new("the doctor's root"))?;
                durable::replace(&folder.join(ROOT), root.to_pem().as_bytes())?;
                durable::replace(&folder.join(PROFILE), mobileconfig(&root).as_bytes())?;
                root
            }
        };
        Ok(Self { key, root, folder })
    }

    /// The root in PEM.
    pub(super) fn root_file(&self) -> PathBuf {
        self.folder.join(ROOT)
    }

    /// The root as a profile for iOS and macOS.
    pub(super) fn profile_file(&self) -> PathBuf {
        self.folder.join(PROFILE)
    }

    /// A P-256 and an RSA server key with certificates for these names.
    pub(super) fn server_keys(&self, names: &[String], addresses: &[IpAddr]) -> Outcome<Vec<OwnKey>> {
        let mut sans: Vec<SubjectAltName> = Vec::new();
        for name in names {
            // A machine may be called something that is no DNS name.
            sans.extend(format!("dns:{name}").parse::<SubjectAltName>().ok());
        }
        sans.extend(addresses.iter().map(|address| SubjectAltName::Ip(*address)));
        let subject = format!("CN={SERVER_NAME}").parse()?;
        let profile = Profile::server();
        [("doctor-p256", Algorithm::P256), ("doctor-rsa", Algorithm::Rsa)]
            .into_iter()
            .map(|(name, algorithm)| self.certify(software_key(name, algorithm)?, &profile, &subject, &sans))
            .collect()
    }

    /// A software key of the type of `certificate`'s, with a certificate of this authority for the same names.
    pub(super) fn twin(&self, certificate: &Certificate) -> Outcome<OwnKey> {
        let key = software_key("doctor-twin", certificate.algorithm()?)?;
        self.certify(key, &Profile::client(), certificate.subject(), certificate.subject_alt_names())
    }

    fn certify(
        &self,
        key: SoftKey,
        profile: &Profile,
        subject: &DistinguishedName,
        subject_alt_names: &[SubjectAltName],
    ) -> Outcome<OwnKey> {
        let leaf = Leaf { profile, subject, subject_alt_names, spki: &key.info().spki, lifetime: None };
        let issuer = Issuer::new(self.root.clone(), &*self.key)?;
        let certificate =
            issuer.issue(&leaf, SystemTime::now(), &SignContext::new("a certificate of the doctor's"))?;
        Ok(OwnKey { chain: vec![certificate.der().to_vec()], key: Arc::new(key) })
    }
}

/// A key in this process, which ends with it.
pub(super) fn software_key(name: &str, algorithm: Algorithm) -> Outcome<SoftKey> {
    let name = KeyUri::soft(name)?;
    if algorithm != Algorithm::Rsa {
        return Ok(SoftKey::generate(name, algorithm)?);
    }
    let failed = |_| Failure::new("cannot make an RSA key");
    let pair: Pkcs8V1Der<'_> =
        RsaKeyPair::generate(KeySize::Rsa2048).and_then(|pair| pair.as_der()).map_err(failed)?;
    Ok(SoftKey::from_pkcs8(name, pair.as_ref())?)
}

/// A configuration profile with a root certificate (Apple's Configuration Profile Reference).
fn mobileconfig(root: &Certificate) -> String {
    // Stable for the root, so that a new one does not stand beside the same one.
    let uuid = |byte: usize| {
        let hex = enclasp_pki::hex(&root.fingerprint()[byte..byte + 16]);
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    };
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>PayloadType</key><string>Configuration</string>
  <key>PayloadVersion</key><integer>1</integer>
  <key>PayloadIdentifier</key><string>enclasp.doctor</string>
  <key>PayloadUUID</key><string>{}</string>
  <key>PayloadDisplayName</key><string>Enclasp doctor (remove after the diagnosis)</string>
  <key>PayloadContent</key>
  <array>
    <dict>
      <key>PayloadType</key><string>com.apple.security.root</string>
      <key>PayloadVersion</key><integer>1</integer>
      <key>PayloadIdentifier</key><string>enclasp.doctor.root</string>
      <key>PayloadUUID</key><string>{}</string>
      <key>PayloadDisplayName</key><string>Enclasp doctor root</string>
      <key>PayloadContent</key><data>{}</data>
    </dict>
  </array>
</dict>
</plist>
"#,
        uuid(0),
        uuid(16),
        STANDARD.encode(root.der())
    )
}
