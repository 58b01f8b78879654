//! Wrong usage: exit code 2, nothing on standard output, and what was probably meant.

use crate::harness::Home;

#[test]
fn wrong_usage_exits_2_and_suggests() {
    let home = Home::new();
    for (line, said) in [
        ("conect localhost:1", "connect"),
        ("key crate soft:name=web", "create"),
        ("key create soft:name=web --algoritm p256", "--algorithm"),
        ("key create soft:name=web --algorithm p265", "p256"),
        ("key create soft:name=web --presence always", "confirm"),
        ("key create web", "soft:name=web"),
        ("key create sofd:name=web", "soft"),
        ("key create soft:nam=web", "name"),
        ("connect localhost", "HOST:PORT"),
        ("connect localhost:", "not a number from 0 to 65535"),
        ("connect localhost:99999", "hint: for example localhost:8443"),
        ("connect localhost:abc", "HOST:PORT"),
        ("connect :443", "a host and a port"),
        ("connect localhost:0", "a host and a port"),
        ("connect ::1:1", "an IPv6 address stands in brackets"),
        ("connect unix:/run/app.sock", "HOST:PORT"),
        ("connect localhost:1 --tls 1.1", "1.3"),
        ("connect localhost:1 --connect-timeout 10", "10s"),
        ("csr create --subject CN=web", "--key"),
        ("identity import --name web", "--cert"),
        ("server --target 127.0.0.1:1 --identity srv --allow-all", "--listen"),
        ("server --listen :0 --target :8080 --identity srv --allow-all", "--target :8080 has no host"),
        ("server --listen :0 --target 10.0.0.1:1 --identity srv --allow-all", "--unsafe-target"),
        ("client --listen 0.0.0.0:0 --target localhost:1 --identity web", "--unsafe-listen"),
        ("enroll --identity web", "--token-file"),
        ("completions bsh", "bash"),
        ("", "Show the whole story on this machine"),
        ("key", "Destroy a key for good"),
    ] {
        let done = home.enclasp(line).fails(2).says(said);
        assert!(done.stdout.is_empty(), "{done}");
        assert!(!done.stderr.contains("agent-prompter"), "it is not for people: {done}");
    }
    assert!(!home.state().exists(), "wrong usage makes nothing");
}

#[test]
fn help_and_version_exit_0() {
    let home = Home::new();
    for line in ["--help", "key --help", "key create --help", "connect -h", "ca sign --help", "server --help"]
    {
        home.enclasp(line).succeeds().prints("Usage: enclasp");
    }
    home.enclasp("--version").succeeds().prints("enclasp ");
}

/// A keystore that this build or machine lacks is an error, and not a key in software.
#[test]
fn nothing_falls_back_to_software() {
    let home = Home::new();
    for uri in ["apple:label=web", "windows:name=web"] {
        home.enclasp(&format!("key create {uri}"))
            .fails(1)
            .says("this build has no")
            .says("hint: keystores in this build: soft");
    }
    let tpm = home.enclasp("key create tpm:name=web;tcti=device:/dev/nowhere").fails(1);
    tpm.says(if cfg!(feature = "tpm") { "there is no /dev/nowhere" } else { "this build has no `tpm`" });
    home.enclasp("key create pkcs11:token=t;object=web")
        .fails(1)
        .says("which PKCS#11 module")
        .says("hint: say it in the URI");
    home.enclasp("key create pkcs11:token=t;object=web?module-path=/nowhere.so").fails(1).says("/nowhere.so");
    assert_eq!(home.enclasp("key list --json").succeeds().json(), serde_json::json!([]));
}
