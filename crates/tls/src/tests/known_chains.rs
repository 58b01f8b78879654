//! Chains that are remembered: what counts again at each handshake.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use enclasp_keystore::{Algorithm, Key, Signature, Verification};
use enclasp_pki::Profile;
use rustls::CertificateError;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::known::KnownChains;
use crate::options::{provider, trust};
use crate::testing::{Authority, Puppet, handshake, only, soft_key};
use crate::verifier::{ClientVerifier, ServerVerifier};
use crate::{Access, Client, Clients, Credential, Options, Revocation, Server, Term, Version, server_name};

fn client_verifier(authority: &Authority, known: &Arc<KnownChains>) -> ClientVerifier {
    let roots = trust(&authority.roots()).unwrap();
    ClientVerifier::new(roots, provider(), true, Access::everyone(), Revocation::default(), known.clone())
        .unwrap()
}

fn server_verifier(authority: &Authority, known: &Arc<KnownChains>) -> ServerVerifier {
    let roots = trust(&authority.roots()).unwrap();
    ServerVerifier::new(roots, provider(), Access::everyone(), Revocation::default(), known.clone()).unwrap()
}

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap())
}

fn cause<T>(verified: Result<T, rustls::Error>) -> Option<CertificateError> {
    match verified {
        Ok(_) => None,
        Err(rustls::Error::InvalidCertificate(cause)) => Some(cause),
        Err(other) => panic!("{other}"),
    }
}

/// A verifier that trusts nothing shares the memory of one that has verified, so that what it takes
/// was remembered. Ours never share.
#[test]
fn a_chain_is_verified_once_and_refused_when_it_has_expired() {
    let (acme, other) = (Authority::new("Acme"), Authority::new("Other"));
    let leaf = acme.client("CN=laptop-17", &[]);
    let known = Arc::new(KnownChains::new(&Revocation::default()));
    let (knows, trusts_others) = (client_verifier(&acme, &known), client_verifier(&other, &known));
    let verify = |verifier: &ClientVerifier, time| {
        let verified = verifier.verify_client_cert(leaf.der(), &[], unix(time)).map(drop);
        cause(verified)
    };
    let now = SystemTime::now();
    assert_eq!(verify(&trusts_others, now), Some(CertificateError::UnknownIssuer));
    assert_eq!(verify(&knows, now), None);
    assert_eq!(verify(&trusts_others, now), None, "it is remembered");
    let expired = verify(&knows, leaf.not_after() + Duration::from_secs(1));
    assert!(matches!(expired, Some(CertificateError::ExpiredContext { .. })), "{expired:?}");
    let early = verify(&knows, leaf.not_before() - Duration::from_secs(1));
    assert!(matches!(early, Some(CertificateError::NotValidYetContext { .. })), "{early:?}");
    assert_eq!(
        verify(&trusts_others, now + Duration::from_secs(3000)),
        Some(CertificateError::UnknownIssuer)
    );
}

/// As it would be without the memory.
#[test]
fn a_strict_list_is_not_outlived() {
    let acme = Authority::new("Acme");
    let leaf = acme.client("CN=laptop-17", &[]);
    let now = SystemTime::now();
    let ends = now + Duration::from_secs(60);
    let earlier = acme.empty_list(now - Duration::from_secs(30));
    let lists = vec![earlier.into(), acme.empty_list(ends).into()];
    for strict in [true, false] {
        let revocation = Revocation { lists: lists.clone(), strict };
        let known = Arc::new(KnownChains::new(&revocation));
        let roots = trust(&acme.roots()).unwrap();
        let verifier =
            ClientVerifier::new(roots, provider(), true, Access::everyone(), revocation, known).unwrap();
        let verify = |time| cause(verifier.verify_client_cert(leaf.der(), &[], unix(time)).map(drop));
        assert_eq!(verify(now), None);
        assert_eq!(verify(ends - Duration::from_secs(2)), None);
        let after = verify(ends + Duration::from_secs(2));
        match strict {
            true => assert!(
                matches!(after, Some(CertificateError::ExpiredRevocationListContext { .. })),
                "{after:?}"
            ),
            false => assert_eq!(after, None),
        }
    }
}

#[test]
fn a_server_is_known_by_the_name_that_it_verified_for() {
    let acme = Authority::new("Acme");
    let known = Arc::new(KnownChains::new(&Revocation::default()));
    let verifier = server_verifier(&acme, &known);
    let leaf = acme.server_credential(Algorithm::P256).leaf().der().clone();
    let verify = |name: &str, others: &[CertificateDer<'_>]| {
        let name = server_name(name).unwrap();
        cause(verifier.verify_server_cert(&leaf, others, &name, &[], UnixTime::now()))
    };
    for _ in 0..2 {
        assert_eq!(verify("localhost", &[]), None);
        let refused = verify("elsewhere", &[]);
        assert!(matches!(refused, Some(CertificateError::NotValidForNameContext { .. })), "{refused:?}");
    }
    // What else is presented may change what is found.
    assert_eq!(verify("localhost", &[CertificateDer::from(vec![0])]), None);
}

/// What one end knows is of no use to another one: not to a new configuration with other roots, and
/// not for another usage.
#[tokio::test]
async fn each_configuration_begins_with_nothing() {
    let (acme, other) = (Authority::new("Acme"), Authority::new("Other"));
    let laptop = acme.client_credential(Algorithm::P256);
    let client = |credential: &Credential| {
        Client::new(&acme.roots(), Some(credential.clone()), Options::default()).unwrap()
    };
    for version in [Version::Tls12, Version::Tls13] {
        let server = acme.server(Access::everyone(), only(version));
        for _ in 0..2 {
            let (ours, theirs) = handshake(&client(&laptop), &server).await;
            assert_eq!(ours.unwrap().1.local.chain, theirs.unwrap().1.peer.chain);
        }
        let clients = Clients {
            roots: other.roots(),
            certificate_demanded: true,
            server_certificates: false,
            access: Access::everyone(),
            revocation: Revocation::default(),
        };
        let reloaded = Server::new(server.credential().clone(), clients, only(version)).unwrap();
        let (_, theirs) = handshake(&client(&laptop), &reloaded).await;
        let error = theirs.map(drop).unwrap_err().to_string();
        assert!(error.contains("(CN=laptop-17)"), "{error}");
        // The server's own certificate, which its clients have verified, makes no client.
        let web = acme.server_credential(Algorithm::P256);
        for _ in 0..2 {
            let (_, theirs) = handshake(&client(&web), &server).await;
            let error = theirs.map(drop).unwrap_err().to_string();
            assert!(error.contains("extended key usages"), "{error}");
        }
    }
}

#[tokio::test]
async fn rules_and_signatures_are_checked_though_the_chain_is_known() {
    let acme = Authority::new("Acme");
    let key = Puppet::of(soft_key("laptop", Algorithm::P256));
    let leaf = acme.issue(&Profile::client(), "CN=laptop-17", &[], &key.info().spki);
    let client = |key: &Puppet| {
        let credential = Credential::new(vec![leaf.der().clone()], Arc::new(key.clone())).unwrap();
        Client::new(&acme.roots(), Some(credential), Options::default()).unwrap()
    };
    let mut liar = key.clone();
    let stranger = soft_key("stranger", Algorithm::P256);
    liar.answer = Arc::new(move |scheme, input, ctx| stranger.sign(scheme, input, ctx));
    liar.verification = Verification::Done;
    let mut garbler = liar.clone();
    garbler.answer = Arc::new(|_, _, _| Ok(Signature::new([0x5a; 64])));
    for version in [Version::Tls12, Version::Tls13] {
        let server = acme.server(Access::everyone(), only(version));
        let (_, theirs) = handshake(&client(&key), &server).await;
        theirs.map(drop).unwrap();
        for key in [&liar, &garbler] {
            let (_, theirs) = handshake(&client(key), &server).await;
            assert_eq!(
                theirs.map(drop).unwrap_err().to_string(),
                "the certificate of 10.0.0.9:5000 (CN=laptop-17) is not valid: a signature does not verify"
            );
        }

        let rule = Term::CommonName("laptop-18".into()).into();
        let server = acme.server(Access::any_of([rule]), only(version));
        for _ in 0..2 {
            let (_, theirs) = handshake(&client(&key), &server).await;
            let error = theirs.map(drop).unwrap_err().to_string();
            assert!(error.contains("CN=laptop-17 is not among the allowed CNs"), "{error}");
        }
    }
}
