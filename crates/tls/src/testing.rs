//! What the tests are made of: an authority, credentials, keys that misbehave, and pairs of ends.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{
    Algorithm, Input, Key, KeyInfo, KeyUri, Scheme, SignContext, Signature, Verification,
};
use enclasp_pki::{
    Certificate, CrlContents, DistinguishedName, Issuer, Leaf, Profile, SubjectAltName, create_root,
};
use rustls::SignatureScheme;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls_pki_types::CertificateDer;
use tokio::io::DuplexStream;

use crate::{
    Access, Client, ClientStream, Clients, Credential, Evidence, Options, Result, Revocation, Server,
    ServerStream, Version, server_name,
};

pub(crate) struct Authority {
    key: SoftKey,
    root: Certificate,
}

pub(crate) fn soft_key(name: &str, algorithm: Algorithm) -> SoftKey {
    SoftKey::generate(KeyUri::soft(name).unwrap(), algorithm).unwrap()
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = soft_key(name, Algorithm::P256);
        let subject = format!("CN={name}").parse().unwrap();
        let day = Duration::from_secs(86_400);
        let root = create_root(&key, &subject, day, SystemTime::now(), &SignContext::default()).unwrap();
        Self { key, root }
    }

    pub(crate) fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.der().clone()]
    }

    pub(crate) fn issue(&self, profile: &Profile, subject: &str, sans: &[&str], spki: &[u8]) -> Certificate {
        self.issue_at(SystemTime::now(), profile, subject, sans, spki)
    }

    pub(crate) fn issue_at(
        &self,
        now: SystemTime,
        profile: &Profile,
        subject: &str,
        sans: &[&str],
        spki: &[u8],
    ) -> Certificate {
        let subject: DistinguishedName = subject.parse().unwrap();
        let sans: Vec<SubjectAltName> = sans.iter().map(|san| san.parse().unwrap()).collect();
        let lifetime = Some(Duration::from_secs(3600));
        let leaf = Leaf { profile, subject: &subject, subject_alt_names: &sans, spki, lifetime };
        let issuer = Issuer::new(self.root.clone(), &self.key).unwrap();
        issuer.issue(&leaf, now, &SignContext::default()).unwrap()
    }

    /// A list (DER) that revokes nothing, of the hour before `next_update`.
    pub(crate) fn empty_list(&self, next_update: SystemTime) -> Vec<u8> {
        let this_update = next_update - Duration::from_secs(3600);
        let contents =
            CrlContents { number: 1, this_update, next_update, distribution_point: None, revoked: &[] };
        let issuer = Issuer::new(self.root.clone(), &self.key).unwrap();
        issuer.sign_crl(&contents, &SignContext::default()).unwrap()
    }

    /// A client certificate for a key that nobody has.
    pub(crate) fn client(&self, subject: &str, sans: &[&str]) -> Certificate {
        let key = soft_key("thrown-away", Algorithm::P256);
        self.issue(&Profile::client(), subject, sans, &key.info().spki)
    }

    pub(crate) fn credential(&self, profile: &Profile, name: &str, key: impl Key + 'static) -> Credential {
        let san = format!("dns:{name}");
        let leaf = self.issue(profile, &format!("CN={name}"), &[&san], &key.info().spki);
        Credential::new(vec![leaf.der().clone()], Arc::new(key)).unwrap()
    }

    pub(crate) fn client_credential(&self, algorithm: Algorithm) -> Credential {
        self.credential(&Profile::client(), "laptop-17", soft_key("laptop", algorithm))
    }

    pub(crate) fn server_credential(&self, algorithm: Algorithm) -> Credential {
        self.credential(&Profile::server(), "localhost", soft_key("web", algorithm))
    }

    pub(crate) fn server(&self, access: Access, options: Options) -> Server {
        let clients = Clients {
            roots: self.roots(),
            certificate_demanded: true,
            server_certificates: false,
            access,
            revocation: Revocation::default(),
        };
        Server::new(self.server_credential(Algorithm::P256), clients, options).unwrap()
    }
}

/// A key that says and does what it is told to.
#[derive(Clone)]
pub(crate) struct Puppet {
    pub(crate) info: KeyInfo,
    pub(crate) verification: Verification,
    pub(crate) answer: Answer,
}

type Answer =
    Arc<dyn Fn(Scheme, Input<'_>, &SignContext) -> enclasp_keystore::Result<Signature> + Send + Sync>;

impl Puppet {
    /// A P-256 key that behaves, to be changed.
    pub(crate) fn new() -> Self {
        Self::of(soft_key("puppet", Algorithm::P256))
    }

    pub(crate) fn of(key: SoftKey) -> Self {
        Self {
            info: key.info().clone(),
            verification: Verification::Needed,
            answer: Arc::new(move |scheme, input, ctx| key.sign(scheme, input, ctx)),
        }
    }
}

impl Key for Puppet {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(
        &self,
        scheme: Scheme,
        input: Input<'_>,
        ctx: &SignContext,
    ) -> enclasp_keystore::Result<Signature> {
        (self.answer)(scheme, input, ctx)
    }

    fn verification(&self) -> Verification {
        self.verification
    }
}

/// aws-lc-rs as a peer has it that verifies these schemes only.
pub(crate) fn provider_verifying(schemes: &[SignatureScheme]) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    let supported = provider.signature_verification_algorithms;
    let mapping: Vec<_> =
        supported.mapping.iter().copied().filter(|(scheme, _)| schemes.contains(scheme)).collect();
    provider.signature_verification_algorithms =
        WebPkiSupportedAlgorithms { all: supported.all, mapping: Vec::leak(mapping) };
    Arc::new(provider)
}

/// One version and nothing else out of the ordinary.
pub(crate) fn only(version: Version) -> Options {
    Options { versions: version..=version, ..Options::default() }
}

pub(crate) type Ends =
    (Result<(ClientStream<DuplexStream>, Evidence)>, Result<(ServerStream<DuplexStream>, Evidence)>);

/// Both ends of a handshake in memory, with the server called `localhost`.
pub(crate) async fn handshake(client: &Client, server: &Server) -> Ends {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = server_name("localhost").unwrap();
    tokio::join!(client.connect(near, &name, "localhost:443"), server.accept(far, "10.0.0.9:5000"))
}
