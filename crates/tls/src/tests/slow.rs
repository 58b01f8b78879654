//! Keys that take their time.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use enclasp_keystore::{Error as KeyError, Presence};
use enclasp_pki::Profile;
use tokio::time::timeout;

use crate::testing::{Authority, Puppet, handshake};
use crate::{Access, Client, Error, Options, server_name};

/// Far more than any of this takes, so that a hang is a failure.
const LONG: Duration = Duration::from_secs(30);

/// A key that asks a person. It tells when it was asked and for what, and waits for the answer, or
/// until its caller is gone or too late.
fn asking() -> (Puppet, Receiver<String>, Sender<()>) {
    let (asked, was_asked) = channel();
    let (answer, answered) = channel();
    let answered = Mutex::new(answered);
    let mut key = Puppet::new();
    key.info.policy.presence = Presence::Confirm;
    let uri = key.info.uri.clone();
    let honest = key.answer;
    key.answer = Arc::new(move |scheme, input, ctx| {
        asked.send(ctx.reason.clone()).unwrap();
        while answered.lock().unwrap().recv_timeout(Duration::from_millis(1)).is_err() {
            if let Err(error) = ctx.check(&uri) {
                asked.send(error.to_string()).unwrap();
                return Err(error);
            }
        }
        honest(scheme, input, ctx)
    });
    (key, was_asked, answer)
}

fn client(authority: &Authority, key: Puppet, options: Options) -> Client {
    let credential = authority.credential(&Profile::client(), "laptop-17", key);
    Client::new(&authority.roots(), Some(credential), options).unwrap()
}

async fn received(events: &Receiver<String>) -> String {
    loop {
        match events.try_recv() {
            Ok(event) => return event,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// The runtime has this one thread: a signature made on it would hold up everything.
#[tokio::test]
async fn a_person_who_thinks_holds_up_nobody_else() {
    let authority = Authority::new("Acme");
    let server = authority.server(Access::everyone(), Options::default());
    let (key, asked, answer) = asking();
    let waiting = client(&authority, key, Options::default());
    let quick = client(&authority, Puppet::new(), Options::default());
    let one = handshake(&waiting, &server);
    let others = async {
        assert_eq!(received(&asked).await, "TLS client authentication to localhost:443");
        for _ in 0..3 {
            let (ours, theirs) = handshake(&quick, &server).await;
            assert!(ours.is_ok() && theirs.is_ok());
        }
        answer.send(()).unwrap();
    };
    let ((ours, theirs), ()) = timeout(LONG, async { tokio::join!(one, others) }).await.unwrap();
    assert!(theirs.is_ok());
    assert_eq!(ours.unwrap().1.local.key.as_deref(), Some("soft:name=puppet"));
}

#[tokio::test]
async fn the_key_is_told_when_its_caller_is_gone() {
    let authority = Authority::new("Acme");
    let server = authority.server(Access::everyone(), Options::default());
    let (key, asked, _answer) = asking();
    let client = client(&authority, key, Options::default());
    let abandoned = async {
        tokio::select! {
            _ = handshake(&client, &server) => panic!("nobody answered"),
            _ = received(&asked) => {}
        }
        received(&asked).await
    };
    assert_eq!(timeout(LONG, abandoned).await.unwrap(), "cannot sign with `soft:name=puppet`: cancelled");
}

#[tokio::test]
async fn a_person_who_does_not_answer_is_the_error() {
    let authority = Authority::new("Acme");
    let server = authority.server(Access::everyone(), Options::default());
    let (key, _asked, _answer) = asking();
    let options = Options { prompt_timeout: Duration::from_millis(50), ..Options::default() };
    let (ours, _) = handshake(&client(&authority, key, options), &server).await;
    assert!(matches!(ours, Err(Error::Key(KeyError::Deadline { .. }))));
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_given_up() {
    let authority = Authority::new("Acme");
    let options = Options { handshake_timeout: Duration::from_millis(50), ..Options::default() };
    let server = authority.server(Access::everyone(), options.clone());
    let client = client(&authority, Puppet::new(), options);
    let (near, _silent) = tokio::io::duplex(64 * 1024);
    let name = server_name("localhost").unwrap();
    assert!(matches!(client.connect(near, &name, "localhost:443").await, Err(Error::Timeout { .. })));
    let (near, _silent) = tokio::io::duplex(64 * 1024);
    assert!(matches!(server.accept(near, "10.0.0.9:5000").await, Err(Error::Timeout { .. })));
}
