//! What docs/doctor/a-handshake.md tells, from failure to fix: the lines that it quotes are what is said.

use crate::harness::{CaptureFile, Home, Tap, needs};
use crate::peers::{Java, Lie, misbehave};

const STORY: &str = include_str!("../../docs/doctor/a-handshake.md");

#[test]
fn the_story_is_explained() {
    if !needs(&["openssl", "java", "javac", "keytool"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    home.peer("phone", "p256", "client");
    let [java_says, doctor_says, capture_says, bisect_says] = &blocks()[..] else { panic!("four blocks") };

    // The real server refuses it.
    let java = Java::server(&home, "ca/root.pem", &["srv"]);
    let tap = Tap::before(java.port("srv", "1.2"));
    misbehave(&home, tap.port, "phone", Lie::RsaClaim);
    java.says(java_says.trim(), 1);

    // The doctor says why, as a server and of a capture.
    let (doctor, port) = home.start_listening("doctor listen --listen 127.0.0.1:0 --count 1");
    misbehave(&home, port, "phone", Lie::RsaClaim);
    let said = doctor.finish().fails(1);
    all_of(doctor_says, |line| said.text().contains(line));
    assert!(said.text().contains("radar 25978027"), "{said}");
    let packets = tap.recorded();
    let file = CaptureFile::all()[0].write(&packets);
    home.write("handshake.pcap", file);
    let said = home.enclasp("doctor capture handshake.pcap").fails(1);
    all_of(capture_says, |line| said.text().contains(line));

    // Its experiment, with a key of ours in hardware.
    let Some(token) = home.softhsm() else { return };
    token.identity("laptop", "p256", "client");
    home.openssl("pkcs12 -export -inkey phone.key -in phone.pem -passout pass:secret -out laptop.p12");
    home.write("passphrase", "secret\n");
    let port = java.port("srv", "1.3");
    let line = format!(
        "doctor bisect localhost:{port} --identity laptop --p12 laptop.p12 --password-file passphrase"
    );
    let said = home.enclasp(&line).succeeds();
    all_of(bisect_says, |line| said.text().contains(line));
    java.says("accepted TLSv1.3", 2);
}

/// What is between the fences.
fn blocks() -> Vec<&'static str> {
    STORY.split("```\n").skip(1).step_by(2).collect()
}

/// Each line of a block but the commands.
#[track_caller]
fn all_of(block: &str, is_said: impl Fn(&str) -> bool) {
    for line in block.lines().filter(|line| !line.starts_with("$ ")) {
        assert!(is_said(line), "nobody says: {line}");
    }
}
