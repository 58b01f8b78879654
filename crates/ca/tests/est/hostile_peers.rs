//! Peers that stall, flood or send garbage cost only themselves.

use std::time::Duration;

use enclasp_enroll::Error;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Ca, csr};

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_silence_hold_up_nobody() {
    let ca = Ca::start().await;
    let token = ca.token("web", &[]).await;
    let key = ca.key("web");
    let mut peers = Vec::new();
    for i in 0..200_usize {
        let mut peer = TcpStream::connect(ca.address).await.unwrap();
        let bytes: &[u8] = match i % 5 {
            0 => b"",
            1 => b"GET / HTTP/1.1\r\nHost: ca\r\n\r\n",
            2 => b"\x16\x03\x01\x40\x00\x01",
            3 => b"\x16\x03\x01\xff\xff",
            _ => &[0xa5; 4096],
        };
        // A server that has had enough may have closed already.
        let _ = peer.write_all(bytes).await;
        peers.push(peer);
    }
    let issued = ca.client().simpleenroll(&csr(&*key, "CN=web", &[]), token.secret()).await.unwrap();
    assert_eq!(issued.len(), 1);
    // Whoever speaks no TLS is told so at once, in TLS or by the end of the connection.
    let mut answer = Vec::new();
    let told = tokio::time::timeout(Duration::from_secs(5), peers[1].read_to_end(&mut answer));
    let _ = told.await.expect("the connection ends");
    assert!(!answer.starts_with(b"HTTP"));
}

/// More than may be at their requests at once.
#[tokio::test(flavor = "multi_thread")]
async fn silent_peers_take_no_place() {
    // Both ends are in this process.
    let files = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files }).unwrap();
    let ca = Ca::start().await;
    let mut silent = Vec::new();
    for _ in 0..1100 {
        silent.push(TcpStream::connect(ca.address).await.unwrap());
    }
    let token = ca.token("web", &[]).await;
    let request = csr(&*ca.key("web"), "CN=web", &[]);
    let client = ca.client();
    let issued = client.simpleenroll(&request, token.secret());
    tokio::time::timeout(Duration::from_secs(4), issued).await.expect("nobody waits for them").unwrap();
    // Sooner than a handshake would be.
    let ended = tokio::time::timeout(Duration::from_secs(8), silent[0].read(&mut [0])).await;
    assert_eq!(ended.expect("they are given up").unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_do_not_keep_a_server_from_stopping() {
    let mut ca = Ca::start().await;
    let root = ca.authority.root().der().clone();
    let client = enclasp_tls::Client::new(&[root], None, Default::default()).unwrap();
    let name = enclasp_tls::server_name("127.0.0.1").unwrap();
    let tcp = TcpStream::connect(ca.address).await.unwrap();
    let (mut idle, _) = client.connect(tcp, &name, "the authority").await.unwrap();
    // One request, answered, and the connection is kept.
    idle.write_all(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: ca\r\n\r\n").await.unwrap();
    let mut some = [0; 16];
    idle.read_exact(&mut some).await.unwrap();
    assert!(some.starts_with(b"HTTP/1.1 200 OK"));
    tokio::time::timeout(Duration::from_secs(5), ca.stop()).await.expect("an idle connection is closed");
}

/// Of many that come together some are told to come back, each at another time; and then they are served.
#[tokio::test(flavor = "multi_thread")]
async fn a_herd_is_spread() {
    let ca =
        Ca::start_with(|config| config.replacen("requests-at-once = 256", "requests-at-once = 1", 1)).await;
    let client = ca.client().with_patience(Duration::ZERO);
    let key = ca.key("web");
    let request = csr(&*key, "CN=web", &[]);
    let (mut served, mut sent_away) = (0, Vec::new());
    // Two meet in one moment by chance, and in fifty herds surely.
    for _ in 0..50 {
        let mut herd = JoinSet::new();
        for _ in 0..16 {
            let token = ca.token("web", &[]).await;
            let (client, request) = (client.clone(), request.clone());
            herd.spawn(async move { (client.simpleenroll(&request, token.secret()).await, token) });
        }
        for (answer, token) in herd.join_all().await {
            match answer {
                Ok(_) => served += 1,
                Err(error) => sent_away.push((error, token)),
            }
        }
        if !sent_away.is_empty() {
            break;
        }
    }
    assert!(!sent_away.is_empty(), "{served} were served, and nobody was sent away");
    assert!(served > 0);
    for (error, token) in &sent_away {
        assert!(matches!(error, Error::Later { status: 429, .. }), "{error}");
        let wait = error.retry_after().unwrap().as_secs();
        assert!((5..=60).contains(&wait), "{wait}");
        client.simpleenroll(&request, token.secret()).await.unwrap();
    }
    assert_eq!(ca.issued().await.len(), served + sent_away.len());
}
