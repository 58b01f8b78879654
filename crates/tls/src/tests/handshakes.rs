//! Who gets in, who does not, and what each end is told.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use enclasp_keystore::{Algorithm, Key};
use enclasp_pki::Profile;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::signer::Resolver;
use crate::testing::{Authority, handshake, only, soft_key};
use crate::{
    Access, Client, ClientCertificate, Clients, Credential, Error, Evidence, Handshake, Options, Revocation,
    Role, Server, Term, Version, explain, server_name,
};

const BOTH: [Version; 2] = [Version::Tls12, Version::Tls13];

/// What the client is told in the end: in TLS 1.3 only after its handshake.
async fn refusals(client: &Client, server: &Server) -> (Error, Error) {
    let (ours, theirs) = handshake(client, server).await;
    let theirs = theirs.map(|(_, evidence)| evidence).unwrap_err();
    let ours = match ours {
        Err(error) => error,
        Ok((mut stream, evidence)) => {
            let confirmed = client.confirm(&mut stream, &evidence, Duration::from_secs(10)).await;
            confirmed.unwrap_err()
        }
    };
    (ours, theirs)
}

fn client(authority: &Authority, credential: Option<Credential>) -> Client {
    Client::new(&authority.roots(), credential, Options::default()).unwrap()
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let authority = Authority::new("Acme");
    for version in BOTH {
        let server = authority.server(Access::everyone(), only(version));
        let (ours, theirs) = refusals(&client(&authority, None), &server).await;
        assert_eq!(
            ours.to_string(),
            "localhost:443 demands a client certificate, and there is none to present"
        );
        assert_eq!(theirs.to_string(), "10.0.0.9:5000 presented no certificate");
    }
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let (authority, other) = (Authority::new("Acme"), Authority::new("Other"));
    let stranger = other.client_credential(Algorithm::P256);
    for (version, stage) in [(Version::Tls12, "during"), (Version::Tls13, "after")] {
        let server = authority.server(Access::everyone(), only(version));
        let (ours, theirs) = refusals(&client(&authority, Some(stranger.clone())), &server).await;
        assert_eq!(
            ours.to_string(),
            format!(
                "localhost:443 refused our certificate {stage} the handshake: it does not trust the CA that \
                 issued our certificate, or misses an intermediate (alert unknown_ca, 48)"
            )
        );
        assert!(
            ours.hint().unwrap().starts_with("the server's list of accepted CAs does not name CN=Other; ")
        );
        assert_eq!(
            theirs.to_string(),
            "the certificate of 10.0.0.9:5000 (CN=laptop-17) is not valid: no trusted root vouches for CN=Other"
        );
        assert_eq!(theirs.peer_subject(), Some("CN=laptop-17"));
    }
}

#[tokio::test]
async fn an_expired_client_is_refused() {
    let authority = Authority::new("Acme");
    let key = soft_key("laptop", Algorithm::P256);
    let yesterday = SystemTime::now() - Duration::from_secs(86_400);
    let leaf = authority.issue_at(yesterday, &Profile::client(), "CN=old", &[], &key.info().spki);
    let credential = Credential::new(vec![leaf.der().clone()], Arc::new(key)).unwrap();
    let server = authority.server(Access::everyone(), Options::default());
    let (ours, theirs) = refusals(&client(&authority, Some(credential)), &server).await;
    assert!(ours.to_string().ends_with("by its clock (alert certificate_expired, 45)"), "{ours}");
    assert!(
        theirs.to_string().contains("(CN=old) is not valid: it, or a CA certificate above it, has expired")
    );
}

/// The verifier is not called when a session is resumed.
#[tokio::test]
async fn a_session_ends_with_the_certificate_of_its_server() {
    let authority = Authority::new("Acme");
    let key = soft_key("web", Algorithm::P256);
    let issued = SystemTime::now() - Duration::from_secs(3600) + Duration::from_secs(5);
    let leaf =
        authority.issue_at(issued, &Profile::server(), "CN=localhost", &["dns:localhost"], &key.info().spki);
    let expiry = leaf.not_after();
    let credential = Credential::new(vec![leaf.der().clone()], Arc::new(key)).unwrap();
    let mut pairs = Vec::new();
    for version in BOTH {
        let clients = Clients {
            roots: authority.roots(),
            certificate_demanded: true,
            server_certificates: false,
            access: Access::everyone(),
            revocation: Revocation::default(),
        };
        let server = Server::new(credential.clone(), clients, only(version)).unwrap();
        let client = client(&authority, Some(authority.client_credential(Algorithm::P256)));
        for kind in [Handshake::Full, Handshake::Resumed] {
            let (ours, theirs) = handshake(&client, &server).await;
            let ((mut stream, evidence), _theirs) = (ours.unwrap(), theirs.unwrap());
            assert_eq!(evidence.handshake, kind);
            assert!(client.confirm(&mut stream, &evidence, Duration::from_secs(10)).await.unwrap());
        }
        pairs.push((client, server));
    }
    while SystemTime::now() <= expiry {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (client, server) in pairs {
        let (ours, theirs) = handshake(&client, &server).await;
        let error = ours.map(|(_, evidence)| evidence).unwrap_err();
        assert!(error.to_string().contains("(CN=localhost) is not valid: it, or a CA"), "{error}");
        assert_eq!(theirs.unwrap().1.handshake, Handshake::Resumed);
        // The session is forgotten: this is a full handshake, and the verifier refuses.
        let (_, theirs) = handshake(&client, &server).await;
        assert!(theirs.map(drop).unwrap_err().to_string().contains("certificate_expired"));
    }
}

#[tokio::test]
async fn a_server_certificate_does_not_make_a_client() {
    let authority = Authority::new("Acme");
    let server = authority.server(Access::everyone(), Options::default());
    let wrong = authority.server_credential(Algorithm::P256);
    let (ours, theirs) = refusals(&client(&authority, Some(wrong)), &server).await;
    assert!(ours.to_string().contains("unsupported_certificate"), "{ours}");
    assert!(theirs.to_string().ends_with("its extended key usages do not allow this use"), "{theirs}");
}

#[tokio::test]
async fn a_client_whom_no_rule_admits_is_refused() {
    let authority = Authority::new("Acme");
    for version in BOTH {
        let access = Access::any_of([Term::CommonName("laptop-18".into()).into()]);
        let server = authority.server(access, only(version));
        let credential = authority.client_credential(Algorithm::P256);
        let (ours, theirs) = refusals(&client(&authority, Some(credential)), &server).await;
        assert!(ours.to_string().contains("refused our certificate"), "{ours}");
        assert!(ours.to_string().ends_with("do not admit this subject (alert access_denied, 49)"), "{ours}");
        assert_eq!(
            theirs.to_string(),
            "10.0.0.9:5000 is not admitted as CN=laptop-17: CN=laptop-17 is not among the allowed CNs (laptop-18)"
        );
    }
}

#[tokio::test]
async fn the_client_refuses_what_it_does_not_trust() {
    let (authority, other) = (Authority::new("Acme"), Authority::new("Other"));
    let server = authority.server(Access::everyone(), Options::default());
    let (ours, theirs) = refusals(&client(&other, None), &server).await;
    assert_eq!(
        ours.to_string(),
        "the certificate of localhost:443 (CN=localhost) is not valid: no trusted root vouches for CN=Acme"
    );
    assert!(theirs.to_string().contains("unknown_ca"), "{theirs}");

    let (near, far) = tokio::io::duplex(64 * 1024);
    let wrong = server_name("db.internal").unwrap();
    let client = client(&authority, None);
    let (ours, _) =
        tokio::join!(client.connect(near, &wrong, "db.internal:5432"), server.accept(far, "10.0.0.9:5000"));
    assert_eq!(
        ours.map(|(_, evidence)| evidence).unwrap_err().to_string(),
        "the certificate of db.internal:5432 (CN=localhost) is not valid: it is not for this name, but for \
         dns:localhost"
    );
}

#[tokio::test]
async fn what_is_not_tls_is_named() {
    let authority = Authority::new("Acme");
    let server = authority.server(Access::everyone(), Options::default());
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    near.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    near.shutdown().await.unwrap();
    let error = server.accept(far, "10.0.0.9:5000").await.map(|(_, evidence)| evidence).unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("it does not seem to speak TLS"), "{error}");
    let mut alert = Vec::new();
    near.read_to_end(&mut alert).await.unwrap();
    assert_eq!(alert.first(), Some(&21), "an alert was sent");

    let (near, far) = tokio::io::duplex(64 * 1024);
    drop(near);
    let error = server.accept(far, "10.0.0.9:5000").await.map(|(_, evidence)| evidence).unwrap_err();
    assert_eq!(error.to_string(), "10.0.0.9:5000 closed the connection during the handshake");
}

#[tokio::test]
async fn an_end_after_the_handshake_is_explained() {
    let authority = Authority::new("Acme");
    let credential = authority.client_credential(Algorithm::P256);
    let client = client(&authority, Some(credential));
    let (ours, theirs) = handshake(&client, &authority.server(Access::everyone(), Options::default())).await;
    let ((mut stream, evidence), (server, _)) = (ours.unwrap(), theirs.unwrap());
    assert!(client.confirm(&mut stream, &evidence, Duration::from_secs(10)).await.unwrap());
    drop(server);
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(
        explain(error, &evidence).to_string(),
        "localhost:443 closed the connection after the handshake"
    );
}

#[tokio::test]
async fn every_algorithm_in_both_versions_with_evidence() {
    let authority = Authority::new("Acme");
    for (algorithm, scheme) in [
        (Algorithm::P256, "ecdsa_secp256r1_sha256"),
        (Algorithm::P384, "ecdsa_secp384r1_sha384"),
        (Algorithm::Ed25519, "ed25519"),
    ] {
        for version in BOTH {
            let mut options = only(version);
            options.alpn = vec!["h2".into(), "http/1.1".into()];
            let access = Access::any_of([Term::CommonName("laptop-17".into()).into()]);
            let clients = Clients {
                roots: authority.roots(),
                certificate_demanded: true,
                server_certificates: false,
                access,
                revocation: Revocation::default(),
            };
            let server = Server::new(authority.server_credential(algorithm), clients, options).unwrap();
            let options = Options { alpn: vec!["http/1.1".into()], ..Options::default() };
            let credential = authority.client_credential(algorithm);
            let client = Client::new(&authority.roots(), Some(credential), options).unwrap();
            let (ours, theirs) = handshake(&client, &server).await;
            let ((mut near, ours), (mut far, theirs)) = (ours.unwrap(), theirs.unwrap());

            let tls12 = version == Version::Tls12;
            let messages =
                ["CertificateVerify", if tls12 { "ServerKeyExchange" } else { "CertificateVerify" }];
            for evidence in [&ours, &theirs] {
                assert_eq!(evidence.version, if tls12 { "TLSv1.2" } else { "TLSv1.3" });
                assert_eq!(evidence.handshake, Handshake::Full);
                assert_eq!(evidence.group.as_deref(), Some(if tls12 { "X25519" } else { "X25519MLKEM768" }));
                assert_eq!(evidence.alpn.as_deref(), Some("http/1.1"));
                assert_eq!(evidence.server_name.as_deref(), Some("localhost"));
                assert_eq!(evidence.client_certificate, ClientCertificate::Sent);
                assert_eq!(evidence.signatures.len(), 2);
                for (role, message) in [Role::Client, Role::Server].into_iter().zip(messages) {
                    let signature = evidence.signature_by(role).unwrap();
                    assert_eq!((signature.scheme.as_str(), signature.message.as_str()), (scheme, message));
                    let ours = evidence.local.role == role;
                    assert_eq!(signature.key.is_some(), ours);
                    assert_eq!(signature.elapsed_us.is_some(), ours);
                }
            }
            assert_eq!(ours.local.chain, theirs.peer.chain);
            assert_eq!(ours.peer.chain, theirs.local.chain);
            assert_eq!(ours.local.key.as_deref(), Some("soft:name=laptop"));
            assert_eq!(theirs.local.key.as_deref(), Some("soft:name=web"));
            assert_eq!(ours.local.software, Some(false));
            assert_eq!(theirs.peer_subject(), Some("CN=laptop-17"));

            near.write_all(b"ping").await.unwrap();
            near.shutdown().await.unwrap();
            let mut heard = Vec::new();
            far.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"ping");
        }
    }
}

#[tokio::test]
async fn a_resumed_handshake_has_identities_and_no_signatures() {
    let authority = Authority::new("Acme");
    for version in BOTH {
        let server = authority.server(Access::everyone(), only(version));
        let credential = authority.client_credential(Algorithm::P256);
        let client = client(&authority, Some(credential.clone()));
        let first = established(&client, &server).await;
        let second = established(&client, &server).await;
        for (first, second) in [(first.0, second.0), (first.1, second.1)] {
            assert_eq!(first.handshake, Handshake::Full);
            assert_eq!(second.handshake, Handshake::Resumed);
            assert_eq!(second.client_certificate, ClientCertificate::FromSession);
            assert_eq!(second.signatures, []);
            assert_eq!((second.local.chain, second.peer.chain), (first.local.chain, first.peer.chain));
            assert!(
                second
                    .notes
                    .iter()
                    .any(|note| note.starts_with("a resumed handshake carries no certificate"))
            );
        }
        // Another client, even with the same credential, starts anew.
        let other = Client::new(&authority.roots(), Some(credential), Options::default()).unwrap();
        assert_eq!(established(&other, &server).await.0.handshake, Handshake::Full);
    }
}

/// A handshake after which the client has its ticket.
async fn established(client: &Client, server: &Server) -> (Evidence, Evidence) {
    let (ours, theirs) = handshake(client, server).await;
    let ((mut stream, ours), (_server, theirs)) = (ours.unwrap(), theirs.unwrap());
    assert!(client.confirm(&mut stream, &ours, Duration::from_secs(10)).await.unwrap());
    (ours, theirs)
}

#[tokio::test]
async fn a_server_that_does_not_ask_and_one_that_does_not_insist() {
    let authority = Authority::new("Acme");
    let clients = Clients {
        roots: authority.roots(),
        certificate_demanded: false,
        server_certificates: false,
        access: Access::everyone(),
        revocation: Revocation::default(),
    };
    let server =
        Server::new(authority.server_credential(Algorithm::P256), clients, Options::default()).unwrap();
    let (ours, theirs) = established(&client(&authority, None), &server).await;
    for evidence in [ours, theirs] {
        assert_eq!(evidence.client_certificate, ClientCertificate::RequestedNotSent);
        assert!(evidence.signature_by(Role::Client).is_none());
    }

    let web = authority.server_credential(Algorithm::P256);
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::SECP384R1];
    let config = ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver::new(Role::Server, Some(web))));
    let (near, far) = tokio::io::duplex(64 * 1024);
    let accepted = tokio::spawn(TlsAcceptor::from(Arc::new(config)).accept(far));
    let credential = authority.client_credential(Algorithm::P256);
    let name = server_name("localhost").unwrap();
    let client = client(&authority, Some(credential));
    let (_stream, evidence) = client.connect(near, &name, "localhost:443").await.unwrap();
    accepted.await.unwrap().unwrap();
    assert_eq!(evidence.client_certificate, ClientCertificate::NotRequested);
    assert_eq!((evidence.local.key.as_deref(), evidence.local.chain.len()), (None, 0));
    // It also wanted another group.
    assert_eq!(evidence.handshake, Handshake::FullWithRetry);
    assert_eq!(evidence.group.as_deref(), Some("secp384r1"));
    assert!(evidence.to_string().contains("client       no certificate: the server did not ask for one\n"));
}

#[test]
fn a_blocking_socket_gets_the_same() {
    use std::io::{Read, Write};
    let authority = Authority::new("Acme");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = authority.server(Access::everyone(), Options::default());
    let peer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for _ in 0..2 {
                let (stream, from) = listener.accept().unwrap();
                stream.set_nonblocking(true).unwrap();
                let stream = tokio::net::TcpStream::from_std(stream).unwrap();
                if let Ok((mut stream, _)) = server.accept(stream, &from.to_string()).await {
                    stream.write_all(b"pong").await.unwrap();
                    stream.shutdown().await.unwrap();
                }
            }
        });
    });
    let name = server_name("localhost").unwrap();
    let connect = |client: &Client| {
        client.connect_blocking(TcpStream::connect(address).unwrap(), &name, "localhost:443")
    };
    let credential = authority.client_credential(Algorithm::P256);
    let (mut stream, evidence) = connect(&client(&authority, Some(credential))).unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "pong");
    assert_eq!(evidence.client_certificate, ClientCertificate::Sent);
    let (mut stream, evidence) = connect(&client(&authority, None)).unwrap();
    let error = stream.write_all(b"ping").and_then(|()| stream.read_to_string(&mut heard)).unwrap_err();
    assert!(matches!(explain(error, &evidence), Error::CertificateDemanded { .. }));
    peer.join().unwrap();
}

#[tokio::test]
async fn the_json_field_names_are_stable() {
    let authority = Authority::new("Acme");
    let credential = authority.client_credential(Algorithm::P256);
    let server = authority.server(Access::everyone(), Options::default());
    let (evidence, _) = established(&client(&authority, Some(credential)), &server).await;
    let json = serde_json::to_value(&evidence).unwrap();
    let names = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(&json),
        [
            "address",
            "alpn",
            "cipher_suite",
            "client_certificate",
            "group",
            "handshake",
            "local",
            "notes",
            "peer",
            "server_name",
            "signatures",
            "version"
        ]
    );
    assert_eq!(names(&json["local"]), ["chain", "key", "role", "software"]);
    assert_eq!(
        names(&json["peer"]["chain"][0]),
        [
            "fingerprint_sha256",
            "issuer",
            "key_algorithm",
            "not_after",
            "not_before",
            "serial",
            "subject",
            "subject_alt_names"
        ]
    );
    assert_eq!(
        names(&json["signatures"][0]),
        ["by", "code_point", "elapsed_us", "key", "message", "scheme", "verified"]
    );
    assert_eq!(
        (&json["handshake"], &json["client_certificate"], &json["local"]["role"]),
        (&"full".into(), &"sent".into(), &"client".into())
    );
    assert_eq!(serde_json::from_value::<Evidence>(json).unwrap(), evidence);
}
