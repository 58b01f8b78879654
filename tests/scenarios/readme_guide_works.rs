//! The commands of the README's guide, "a client identity for a Java server", as they are printed,
//! but for the host.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use crate::harness::{Elsewhere, Home, NOW, Running, free_port, needs, run};
use crate::peers::Java;

#[test]
fn readme_guide_works() {
    if !needs(&["openssl", "java", "javac", "keytool", "bash"]) {
        return;
    }
    let home = Home::new();
    let company = Elsewhere::new(&home, "company");
    home.write("ca.pem", home.read("company-ca.pem"));
    home.write("ca.key", home.read("company-ca.key"));
    company.peer("srv", NOW);
    let java = Java::server(&home, "ca.pem", &["srv"]);
    let server = format!("localhost:{}", java.port("srv", "1.3"));
    let local = free_port();

    let blocks = shell_blocks_of_the_guide();
    assert!(blocks.len() >= 7, "{blocks:#?}");
    let mut tunnel = None;
    for block in blocks {
        let script = block.replace("java.internal:8443", &server).replace(":8080", &format!(":{local}"));
        let command = home.bash(&script);
        if script.starts_with("enclasp client ") {
            let running = Running::start(command);
            running.stderr.wait_for("listening on ");
            tunnel = Some(running);
        } else {
            let done = run(command).succeeds();
            if script.contains("enclasp connect") {
                let done = done.prints("java heard: GET / HTTP/1.1");
                assert!(done.stderr.contains("ecdsa_secp256r1_sha256"), "the evidence of -v: {done}");
            }
        }
    }
    java.says("CN=web, OU=Ops, O=Acme, C=CH", 1);

    assert!(tunnel.is_some(), "the guide ends with a tunnel");
    let mut stream = TcpStream::connect(("127.0.0.1", local)).expect("the tunnel listens");
    stream.write_all(b"through the tunnel\n").expect("it takes it");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).expect("an answer");
    assert_eq!(answer, "java heard: through the tunnel\n");
    java.says("CN=web, OU=Ops, O=Acme, C=CH", 2);
}

/// Lines with an ellipsis are for the reader to complete.
fn shell_blocks_of_the_guide() -> Vec<String> {
    let readme = include_str!("../../README.md");
    let guide = readme.split("\n## Guide").nth(1).expect("a guide");
    let guide = guide.split("\n## ").next().unwrap_or(guide);
    let blocks = guide.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let complete =
        |block: &str| block.lines().filter(|line| !line.contains('…')).collect::<Vec<_>>().join("\n");
    blocks.map(complete).collect()
}
