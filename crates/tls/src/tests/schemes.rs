//! Which scheme a signature goes out with, whatever the keystore says about the key.

use std::sync::Arc;
use std::time::Duration;

use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{Algorithm, Error as KeyError, Input, Key, Scheme, SignContext, Signature};
use enclasp_pki::Profile;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SignatureAlgorithm, SignatureScheme, SupportedProtocolVersion};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::signer::Resolver;
use crate::testing::{Authority, Puppet, handshake, only, provider_verifying, soft_key};
use crate::{
    Access, Client, Clients, Credential, Error, Evidence, Options, Result, Revocation, Role, Server, Version,
    server_name,
};

fn client(authority: &Authority, key: impl Key + 'static) -> Client {
    let credential = authority.credential(&Profile::client(), "laptop-17", key);
    Client::new(&authority.roots(), Some(credential), Options::default()).unwrap()
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let authority = Authority::new("Acme");
    let leaf = authority.client("CN=laptop-17", &[]);
    let error = Credential::new(vec![leaf.der().clone()], Arc::new(Puppet::new())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot use `soft:name=puppet` with the certificate of CN=laptop-17: its public key is not the key's"
    );
    let error = Credential::new(Vec::new(), Arc::new(Puppet::new())).unwrap_err();
    assert!(error.to_string().ends_with("the chain is empty"), "{error}");
}

#[test]
fn a_key_that_was_proved_to_do_nothing_is_refused() {
    let mut puppet = Puppet::new();
    // Only a scheme that does not fit the public key is claimed.
    puppet.info.capabilities.proved = [Scheme::RsaPkcs1Sha256].into();
    let leaf = Authority::new("Acme").issue(&Profile::client(), "CN=a", &[], &puppet.info.spki);
    let error = Credential::new(vec![leaf.der().clone()], Arc::new(puppet)).unwrap_err();
    assert!(error.to_string().ends_with("proved to do none of the schemes of P-256"), "{error}");
}

#[tokio::test]
async fn metadata_that_says_rsa_changes_nothing() {
    let authority = Authority::new("Acme");
    let server = authority.server(Access::everyone(), Options::default());
    let mut liar = Puppet::new();
    liar.info.algorithm = Algorithm::Rsa;
    liar.info.capabilities.proved.extend([Scheme::RsaPkcs1Sha256, Scheme::RsaPssSha256]);
    let (ours, theirs) = handshake(&client(&authority, liar), &server).await;
    for evidence in [ours.unwrap().1, theirs.unwrap().1] {
        let signature = evidence.signature_by(Role::Client).unwrap();
        assert_eq!(signature.scheme, "ecdsa_secp256r1_sha256");
        assert_eq!(signature.code_point, "0x0403");
        assert!(signature.verified);
    }
}

#[tokio::test]
async fn a_wrong_signature_never_leaves() {
    type Answer = fn(Signature) -> Signature;
    let stranger = soft_key("stranger", Algorithm::P256);
    let garbage: Answer = |_| Signature::new([0x5a; 64]);
    let padded: Answer = |signature| {
        let mut der = signature.into_bytes();
        // SEQUENCE { INTEGER r, … } with one zero byte too many in front of r.
        der[1] += 1;
        der[3] += 1;
        der.insert(4, 0);
        Signature::new(der)
    };
    let fixed_width: Answer = |signature| {
        let der = signature.into_bytes();
        let r = usize::from(der[3]);
        let integer = |bytes: &[u8]| {
            let mut padded = vec![0; 32usize.saturating_sub(bytes.len())];
            padded.extend_from_slice(&bytes[bytes.len().saturating_sub(32)..]);
            padded
        };
        Signature::new([integer(&der[4..4 + r]), integer(&der[6 + r..])].concat())
    };
    let nothing: Answer = |_| Signature::new([]);
    for spoil in [garbage, padded, fixed_width, nothing] {
        let mut liar = Puppet::new();
        let honest = liar.answer;
        liar.answer = Arc::new(move |scheme, input, ctx| honest(scheme, input, ctx).map(spoil));
        assert_wrong(liar).await;
    }
    let mut liar = Puppet::new();
    liar.answer = Arc::new(move |scheme, input, ctx| stranger.sign(scheme, input, ctx));
    assert_wrong(liar).await;
}

async fn assert_wrong(liar: Puppet) {
    let authority = Authority::new("Acme");
    for version in [Version::Tls12, Version::Tls13] {
        let server = authority.server(Access::everyone(), only(version));
        let (ours, theirs) = handshake(&client(&authority, liar.clone()), &server).await;
        let error = ours.map(|(_, evidence)| evidence).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`soft:name=puppet` returned a signature for ecdsa_secp256r1_sha256 that does not verify with its \
             own public key",
            "{version}"
        );
        // The server has seen no signature, only that the client left.
        let error = theirs.map(|(_, evidence)| evidence).unwrap_err();
        assert!(matches!(error, Error::Closed { .. }), "{version}: {error}");
        assert!(error.hint().unwrap().starts_with("the client knows why"), "{version}");
    }
}

#[tokio::test]
async fn an_error_of_the_key_is_the_error_of_the_connection() {
    let authority = Authority::new("Acme");
    let mut key = Puppet::new();
    key.answer = Arc::new(|_, _, _| {
        Err(KeyError::Denied {
            key: "soft:name=puppet".into(),
            operation: "sign with".into(),
            reason: "the person said no".into(),
        })
    });
    let server = authority.server(Access::everyone(), Options::default());
    let (ours, _) = handshake(&client(&authority, key.clone()), &server).await;
    let error = ours.map(|(_, evidence)| evidence).unwrap_err();
    assert_eq!(error.to_string(), "cannot sign with `soft:name=puppet`: denied: the person said no");

    // As a server too.
    let server = server_of(&authority, key);
    let client = Client::new(&authority.roots(), None, Options::default()).unwrap();
    let (ours, theirs) = handshake(&client, &server).await;
    assert!(matches!(theirs, Err(Error::Key(KeyError::Denied { .. }))));
    let error = ours.map(|(_, evidence)| evidence).unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "the peer learns nothing: {error}");
    assert!(error.hint().unwrap().starts_with("its log says why; it may not speak TLS"));
}

fn server_of(authority: &Authority, key: impl Key + 'static) -> Server {
    let clients = Clients {
        roots: authority.roots(),
        certificate_demanded: false,
        server_certificates: false,
        access: Access::everyone(),
        revocation: Revocation::default(),
    };
    let credential = authority.credential(&Profile::server(), "localhost", key);
    Server::new(credential, clients, Options::default()).unwrap()
}

/// Our client meets a server that takes only certain schemes from clients.
async fn meet_server(
    authority: &Authority,
    key: Algorithm,
    takes: &[SignatureScheme],
    version: &'static SupportedProtocolVersion,
) -> Result<Evidence> {
    let provider = provider_verifying(takes);
    let roots = crate::options::trust(&authority.roots())?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).allow_unauthenticated();
    let web = authority.server_credential(Algorithm::P384);
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_cert_resolver(Arc::new(Resolver::new(Role::Server, Some(web))));
    let (near, far) = tokio::io::duplex(64 * 1024);
    let accepted = tokio::spawn(TlsAcceptor::from(Arc::new(config)).accept(far));
    let credential = authority.client_credential(key);
    let client = Client::new(&authority.roots(), Some(credential), Options::default())?;
    let name = server_name("localhost")?;
    let (mut stream, evidence) = client.connect(near, &name, "localhost:443").await?;
    let accepted = accepted.await.unwrap().unwrap();
    assert!(accepted.get_ref().1.peer_certificates().is_some(), "the server knows who we are");
    client.confirm(&mut stream, &evidence, Duration::from_secs(10)).await?;
    Ok(evidence)
}

#[tokio::test]
async fn without_a_scheme_in_common_the_client_does_not_go_on_as_nobody() {
    let authority = Authority::new("Acme");
    for version in [&TLS12, &TLS13] {
        let takes = [SignatureScheme::ECDSA_NISTP256_SHA256];
        let error = meet_server(&authority, Algorithm::Ed25519, &takes, version).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "`soft:name=laptop` cannot sign for localhost:443: it can do ed25519; offered were \
             ecdsa_secp256r1_sha256"
        );
    }
}

#[tokio::test]
async fn tls_1_3_binds_curve_and_hash() {
    let authority = Authority::new("Acme");
    let takes = [SignatureScheme::ECDSA_NISTP384_SHA384];
    let error = meet_server(&authority, Algorithm::P256, &takes, &TLS13).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "`soft:name=laptop` cannot sign for localhost:443: it can do ecdsa_secp256r1_sha256; offered were \
         ecdsa_secp384r1_sha384"
    );
    // In TLS 1.2 the same code point names the hash alone.
    let evidence = meet_server(&authority, Algorithm::P256, &takes, &TLS12).await.unwrap();
    let signature = evidence.signature_by(Role::Client).unwrap();
    assert_eq!(
        (signature.scheme.as_str(), signature.code_point.as_str()),
        ("ecdsa_secp256r1_sha384", "0x0503")
    );
    // The natural scheme is preferred, whatever the order of the offer.
    let takes = [SignatureScheme::ECDSA_NISTP384_SHA384, SignatureScheme::ECDSA_NISTP256_SHA256];
    for version in [&TLS12, &TLS13] {
        let evidence = meet_server(&authority, Algorithm::P256, &takes, version).await.unwrap();
        assert_eq!(evidence.signature_by(Role::Client).unwrap().scheme, "ecdsa_secp256r1_sha256");
    }
}

#[tokio::test]
async fn a_server_key_without_a_scheme_in_common_says_so() {
    let authority = Authority::new("Acme");
    let server = server_of(&authority, soft_key("web", Algorithm::P256));
    for (takes, able) in [
        (SignatureScheme::ED25519, "ecdsa_secp256r1_sha256, ecdsa_secp256r1_sha384"),
        (SignatureScheme::ECDSA_NISTP384_SHA384, "ecdsa_secp256r1_sha256"),
    ] {
        let provider = provider_verifying(&[takes]);
        let roots = crate::options::trust(&authority.roots()).unwrap();
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = server_name("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let (ours, theirs) = tokio::join!(server.accept(far, "10.0.0.9:5000"), connector.connect(name, near));
        let error = ours.map(|(_, evidence)| evidence).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!(
                "`soft:name=web` cannot sign for 10.0.0.9:5000: it can do {able}; offered"
            )),
            "{error}"
        );
        assert!(theirs.is_err());
    }
}

/// A client key whose TLS stack was told that it is RSA, as in the story that this began with.
#[derive(Debug)]
struct Misled(SoftKey);

impl SigningKey for Misled {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(MisledSigner(self.0.sign(
            Scheme::EcdsaP256Sha256,
            Input::Message(b"of no use"),
            &SignContext::default(),
        ))))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::RSA
    }
}

#[derive(Debug)]
struct MisledSigner(enclasp_keystore::Result<Signature>);

impl Signer for MisledSigner {
    fn sign(&self, _: &[u8]) -> std::result::Result<Vec<u8>, rustls::Error> {
        Ok(self.0.clone().unwrap().into_bytes())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::RSA_PKCS1_SHA256
    }
}

#[tokio::test]
async fn a_client_that_claims_rsa_with_an_ec_certificate_is_refused_and_named() {
    let authority = Authority::new("Acme");
    let key = soft_key("enclave", Algorithm::P256);
    let leaf = authority.issue(&Profile::client(), "CN=iphone", &[], &key.info().spki);
    let misled = Arc::new(CertifiedKey::new(vec![leaf.der().clone()], Arc::new(Misled(key))));
    for version in [&TLS12, &TLS13] {
        let config = ClientConfig::builder_with_provider(crate::options::provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(crate::options::trust(&authority.roots()).unwrap())
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(misled.clone())));
        let (near, far) = tokio::io::duplex(64 * 1024);
        let connector = TlsConnector::from(Arc::new(config));
        let client = tokio::spawn(connector.connect(server_name("localhost").unwrap(), near));
        let server = authority.server(Access::everyone(), Options::default());
        let error = server.accept(far, "10.0.0.9:5000").await.map(|(_, evidence)| evidence).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the CertificateVerify of 10.0.0.9:5000 claims rsa_pkcs1_sha256, but its certificate (CN=iphone) \
             holds a P-256 key"
        );
        drop(client);
    }
}
