//! HTTP over mutual TLS with a blocking socket: `blocking HOST:PORT IDENTITY CA.pem`.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;

use enclasp_identity::State;
use enclasp_tls::{Client, Credential, Options, explain, server_name};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, identity, ca] = arguments.as_slice() else {
        return Err("usage: blocking HOST:PORT IDENTITY CA.pem".into());
    };
    let (host, _) = address.rsplit_once(':').ok_or("the address has no port")?;

    let state = State::from_environment()?;
    let identity = state.identities()?.get(identity)?;
    let roots = enclasp_pki::certificates_from(&std::fs::read(ca)?)?;
    let roots: Vec<_> = roots.iter().map(|root| root.der().clone()).collect();
    let client = Client::new(&roots, Some(Credential::open(&state, &identity)?), Options::default())?;

    let stream = TcpStream::connect(address.as_str())?;
    let (mut stream, evidence) = client.connect_blocking(stream, &server_name(host)?, address)?;
    eprint!("{evidence}");

    let mut answer = Vec::new();
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.read_to_end(&mut answer))
        .map_err(|e| explain(e, &evidence))?;
    std::io::stdout().write_all(&answer)?;
    Ok(())
}
