//! Spending a token and recording its certificate are one act.

use std::collections::BTreeSet;
use std::sync::Arc;

use enclasp_enroll::est;
use rustls_pki_types::pem::PemObject;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Ca, csr, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_racing_requests_one_key_wins() {
    let ca = Arc::new(Ca::start().await);
    let token = ca.token("web", &["dns:web"]).await;
    let keys: Vec<_> = (0..10).map(|i| ca.key(&format!("racer-{i}"))).collect();
    let racers: Vec<_> = (0..100)
        .map(|i| {
            let key = keys[i % keys.len()].clone();
            let (client, token) = (ca.client(), token.clone());
            let request = csr(&*key, "CN=web", &["dns:web"]);
            tokio::spawn(async move { (key, client.simpleenroll(&request, token.secret()).await) })
        })
        .collect();
    let (mut certificates, mut winners, mut refused) = (BTreeSet::new(), 0, 0);
    for racer in racers {
        match racer.await.unwrap() {
            (key, Ok(issued)) => {
                assert_eq!(issued[0].spki(), key.info().spki);
                certificates.insert(issued[0].serial().to_owned());
                winners += 1;
            }
            (_, Err(error)) => {
                assert!(error.to_string().contains("used already"), "{error}");
                refused += 1;
            }
        }
    }
    assert_eq!((certificates.len(), winners, refused), (1, 10, 90));
    let records = ca.issued().await;
    assert_eq!(records.len(), 1);
    assert!(certificates.contains(&records[0].serial));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_gets_the_same_certificate_and_others_get_none() {
    let mut ca = Ca::start().await;
    let token = ca.token("web", &["dns:web", "dns:www"]).await;
    let (key, other) = (ca.key("web"), ca.key("other"));
    let first = ca.client().simpleenroll(&csr(&*key, "CN=web", &["dns:web"]), token.secret()).await.unwrap();
    assert_eq!(first[0].subject_alt_names().len(), 2);
    ca.restart().await;
    // Another request of the same key, with fewer names.
    let again = ca.client().simpleenroll(&csr(&*key, "CN=web", &[]), token.secret()).await.unwrap();
    assert_eq!(again[0].der(), first[0].der());
    for request in [csr(&*other, "CN=web", &[]), csr(&*key, "CN=web", &["dns:elsewhere"])] {
        let error = ca.client().simpleenroll(&request, token.secret()).await.unwrap_err();
        assert!(error.to_string().contains("401"), "{error}");
    }
    assert_eq!(ca.issued().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_is_given_again() {
    let ca = Ca::start().await;
    let token = ca.token("web", &[]).await;
    let key = ca.key("web");
    let request = csr(&*key, "CN=web", &[]);
    // Sends a whole request and is gone before the answer.
    let mut stream = tls(&ca).await;
    let body = est::encode_body(&request);
    let credentials = est::basic_credentials(token.secret());
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: ca\r\nAuthorization: {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
        est::SIMPLEENROLL,
        &*credentials,
        est::PKCS10,
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    until("the certificate is recorded", || async { ca.issued().await.len() == 1 }).await;
    drop(stream);
    let issued = ca.client().simpleenroll(&request, token.secret()).await.unwrap();
    assert_eq!(issued[0].serial(), ca.issued().await[0].serial);
}

async fn tls(ca: &Ca) -> enclasp_tls::ClientStream<TcpStream> {
    let root = rustls_pki_types::CertificateDer::from_pem_file(ca.dir().join("root.pem")).unwrap();
    let client = enclasp_tls::Client::new(&[root], None, Default::default()).unwrap();
    let tcp = TcpStream::connect(ca.address).await.unwrap();
    let name = enclasp_tls::server_name("127.0.0.1").unwrap();
    client.connect(tcp, &name, "the authority").await.unwrap().0
}
