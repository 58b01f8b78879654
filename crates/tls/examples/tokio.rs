//! HTTP over mutual TLS with tokio: `tokio HOST:PORT IDENTITY CA.pem`.

use std::error::Error;

use enclasp_identity::State;
use enclasp_tls::{Client, Credential, Options, explain, server_name};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, identity, ca] = arguments.as_slice() else {
        return Err("usage: tokio HOST:PORT IDENTITY CA.pem".into());
    };
    let (host, _) = address.rsplit_once(':').ok_or("the address has no port")?;

    let state = State::from_environment()?;
    let identity = state.identities()?.get(identity)?;
    let roots = enclasp_pki::certificates_from(&std::fs::read(ca)?)?;
    let roots: Vec<_> = roots.iter().map(|root| root.der().clone()).collect();
    let client = Client::new(&roots, Some(Credential::open(&state, &identity)?), Options::default())?;

    let stream = TcpStream::connect(address.as_str()).await?;
    let (mut stream, evidence) = client.connect(stream, &server_name(host)?, address).await?;
    eprint!("{evidence}");

    let mut answer = Vec::new();
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let exchange = async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    exchange.await.map_err(|e| explain(e, &evidence))?;
    tokio::io::stdout().write_all(&answer).await?;
    Ok(())
}
