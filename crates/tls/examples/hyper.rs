//! A hyper client over mutual TLS: `hyper HOST:PORT IDENTITY CA.pem`.

use std::error::Error;
use std::io::Write;

use enclasp_identity::State;
use enclasp_tls::{Client, Credential, Options, server_name};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, identity, ca] = arguments.as_slice() else {
        return Err("usage: hyper HOST:PORT IDENTITY CA.pem".into());
    };
    let (host, _) = address.rsplit_once(':').ok_or("the address has no port")?;

    let state = State::from_environment()?;
    let identity = state.identities()?.get(identity)?;
    let roots = enclasp_pki::certificates_from(&std::fs::read(ca)?)?;
    let roots: Vec<_> = roots.iter().map(|root| root.der().clone()).collect();
    let options = Options { alpn: vec!["http/1.1".into()], ..Options::default() };
    let client = Client::new(&roots, Some(Credential::open(&state, &identity)?), options)?;

    let stream = TcpStream::connect(address.as_str()).await?;
    let (stream, evidence) = client.connect(stream, &server_name(host)?, address).await?;
    eprint!("{evidence}");

    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/").header("host", host).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    eprintln!("{}", response.status());
    std::io::stdout().write_all(&response.into_body().collect().await?.to_bytes())?;
    Ok(())
}
