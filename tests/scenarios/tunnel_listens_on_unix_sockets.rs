//! Both tunnels with Unix sockets on their plain sides: only who may open the file gets in.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use crate::harness::{Home, eventually};

#[test]
fn tunnel_listens_on_unix_sockets() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let service = UnixListener::bind(home.path("service.sock")).expect("a socket");
    thread::spawn(move || {
        for mut stream in service.incoming().map_while(Result::ok) {
            let mut heard = String::new();
            stream.read_to_string(&mut heard).expect("text");
            write!(stream, "heard {heard}").expect("it is open");
        }
    });
    let (_server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target unix:{} --identity srv --allow-cn laptop",
        home.path("service.sock").display()
    ));
    let socket = home.path("client.sock");
    let client = home.start(&format!(
        "client --listen unix:{} --target localhost:{port} --identity laptop",
        socket.display()
    ));
    client.stderr.wait_for("listening on unix:");
    let mut stream = UnixStream::connect(&socket).expect("the tunnel listens");
    stream.write_all(b"hello").expect("it takes it");
    stream.shutdown(Shutdown::Write).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "heard hello");
    drop(client);
    eventually("the socket is removed", || !socket.exists());
}
