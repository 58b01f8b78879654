//! What docs/hardware-servers.md prints, as it is printed: the commands with a key in a TPM, the setting of
//! the authority, and the units of systemd.

use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::harness::{Home, Running, free_port, needs, run};

const GUIDE: &str = include_str!("../../docs/hardware-servers.md");

#[test]
fn hardware_server_guide_works() {
    if !needs(&["bash", "openssl", "systemd-analyze"]) {
        return;
    }
    let home = Home::new();
    let Some(tpm) = home.tpm() else { return };
    let port = free_port();
    home.authority("ca", port);
    // The setting, in the place of the one that is there.
    let [setting] = &blocks("toml")[..] else { panic!("one setting") };
    let (profile, lifetime) = setting.trim().split_once('\n').expect("a profile and its lifetime");
    let settings = String::from_utf8(home.read("ca/authority.toml")).expect("text");
    let at = settings.find(profile).expect("every authority has it");
    let old = settings[at..].lines().find(|line| line.starts_with("default-lifetime")).expect("it has one");
    assert_ne!(old, lifetime);
    let changed = settings[at..].replacen(old, lifetime, 1);
    home.write("ca/authority.toml", format!("{}{changed}", &settings[..at]));
    home.enclasp("ca profile check --dir ca").succeeds();
    let _authority = home.serve("ca", port);

    let [commands] = &blocks("sh")[..] else { panic!("one block of commands") };
    let mut server = None;
    for line in commands.lines() {
        let line = line.replace("tpm:name=srv", &format!("'{}'", tpm.key("srv")));
        let line = line.replace(":8443", "127.0.0.1:0");
        if line.starts_with("enclasp server ") {
            let running = Running::start(home.bash(&line));
            running.port();
            server = Some(running);
        } else {
            run(home.bash(&line)).succeeds();
        }
    }
    let server = server.expect("the guide ends with a server");
    assert_eq!(days_of(&home, "srv"), 3);

    let units = blocks("ini");
    let folder = home.path(".config/systemd/user");
    std::fs::create_dir_all(&folder).expect("folders");
    std::fs::create_dir_all(home.path(".cargo/bin")).expect("folders");
    symlink(env!("CARGO_BIN_EXE_enclasp"), home.path(".cargo/bin/enclasp")).expect("a link");
    let mut verify = home.program("systemd-analyze", "verify --user");
    for unit in &units {
        let (name, _) = unit.strip_prefix("# ").and_then(|rest| rest.split_once('\n')).expect("its name");
        std::fs::write(folder.join(name), unit).expect("a file");
        verify.arg(folder.join(name));
    }
    assert_eq!(units.len(), 2, "a service and its timer");
    verify.env("HOME", home.path("")).env("XDG_RUNTIME_DIR", home.path(""));
    let verified = run(verify).succeeds();
    assert_eq!((verified.text(), &*verified.stderr), (String::new(), ""), "it warns of nothing");
    for command in units[0].lines().filter_map(|line| line.strip_prefix("ExecStart=")) {
        let command = command.replace("%h", home.path("").to_str().expect("text"));
        run(home.bash(&command)).succeeds();
    }
    server.stderr.wait_for("the identity was renewed");
}

/// For how many days the new certificate of an identity is good.
fn days_of(home: &Home, identity: &str) -> u32 {
    let shown: Value = home.enclasp(&format!("identity show {identity} --json")).succeeds().json();
    home.write("chain.pem", shown["chain_pem"][0].as_str().unwrap_or_default());
    let ends_within = |days: u32| {
        let line = format!("x509 -in chain.pem -noout -checkend {}", days * 86_400 + 3600);
        run(home.program("openssl", &line)).code == Some(1)
    };
    (1..60).find(|days| ends_within(*days)).expect("it ends")
}

fn blocks(language: &str) -> Vec<&'static str> {
    let blocks = GUIDE.split("```");
    // Every other one is text between blocks.
    blocks.skip(1).step_by(2).filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}
