use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use enclasp_keystore::agent::{AgentKeystore, Request, Response, Secret};
use enclasp_keystore::{Access, Error, KeySpec, Keystore, Presence};

use crate::support::{Agent, Wire, folder, missing, not_root, program, sign, uri};

/// What another user's program may do: it prints one line for each thing it tries.
pub fn play_stranger(socket: &Path) {
    let names = |keystore: AgentKeystore| match keystore.list() {
        Ok(keys) => keys.iter().map(|key| key.uri.name().to_owned()).collect::<Vec<_>>().join(" "),
        Err(error) => error.to_string(),
    };
    println!("list: {}", names(AgentKeystore::new(socket)));
    if std::os::unix::net::UnixStream::connect(socket).is_err() {
        return;
    }
    let mut wire = Wire::greeted(socket);
    for name in ["mine", "group", "other", "absent"] {
        let key = format!("soft:name={name}");
        for (verb, request) in [
            ("open", Request::Open(uri(name))),
            ("sign", sign(&key, b"x", "", None)),
            ("create", Request::Create(KeySpec::new(uri(name)))),
            ("delete", Request::Delete(uri(name))),
            ("import", Request::Import { uri: uri(name), pkcs8: Secret::new(vec![0x30, 0].into()) }),
        ] {
            let outcome = match wire.call(1, &request) {
                Response::Refused(Error::Absent { .. }) => "absent",
                Response::Refused(Error::Denied { .. }) => "denied",
                Response::Refused(_) => "refused",
                _ => "done",
            };
            println!("{verb} {name}: {outcome}");
        }
    }
    let mut lane = wire.lane();
    for name in ["mine", "group", "other", "absent"] {
        let outcome = match lane.call(1, &sign(&format!("soft:name={name}"), b"x", "", None)) {
            Response::Refused(Error::Absent { .. }) => "absent",
            Response::Signature(_) => "done",
            other => panic!("{other:?}"),
        };
        println!("lane {name}: {outcome}");
    }
    let Response::Status(status) = wire.call(1, &Request::Status) else { panic!("no status") };
    println!("counted: {}", status.keys.len());
}

pub fn others_see_only_what_lists_them() {
    if not_root() || missing("setpriv", "--version") {
        return;
    }
    // An agent under a user of its own, as root would not be a stranger to anybody.
    let folder = folder();
    chown(folder.path(), Some(65533), Some(65533)).unwrap();
    let agent = Agent::start_as(folder, &["shared"], Some(65533));
    agent.make("mine", Presence::None, Access { uids: vec![65534], gids: vec![] });
    agent.make("group", Presence::None, Access { uids: vec![], gids: vec![4242] });
    agent.make("other", Presence::None, Access { uids: vec![1, 2], gids: vec![3] });
    let plays = |uid: &str, groups: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", uid, "--regid", uid]).args(groups);
        let output = command.arg(program()).arg("play-stranger").arg(agent.socket()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };

    let alone = plays("65534", &["--clear-groups"]);
    assert!(alone.starts_with("list: mine\n"), "{alone}");
    for name in ["mine", "group", "other", "absent"] {
        let outcome = if name == "mine" { "done" } else { "absent" };
        for expected in ["open", "sign", "lane"].map(|verb| format!("\n{verb} {name}: {outcome}\n")) {
            assert!(alone.contains(&expected), "{expected}{alone}");
        }
        for expected in ["create", "delete", "import"].map(|verb| format!("\n{verb} {name}: denied\n")) {
            assert!(alone.contains(&expected), "{expected}{alone}");
        }
    }
    assert!(alone.ends_with("\ncounted: 0\n"), "{alone}");
    let in_group = plays("65534", &["--groups", "7,4242"]);
    assert!(in_group.starts_with("list: group mine\n"), "{in_group}");
    assert!(in_group.contains("\nsign group: done\n") && in_group.contains("\nsign other: absent\n"));
    // Root is no stranger, nor is the agent's own user.
    assert_eq!(agent.keystore().list().unwrap().len(), 3);
    let own = plays("65533", &["--clear-groups"]);
    assert!(own.starts_with("list: group mine other\n") && !own.contains("denied"), "{own}");
    assert!(own.ends_with("\ncounted: 3\n"), "{own}");
    for expected in ["sign other: done", "create other: refused", "delete other: done", "create absent: done"]
    {
        assert!(own.contains(expected), "{expected} is missing in {own}");
    }
}

pub fn others_are_kept_off_a_private_socket() {
    if not_root() || missing("setpriv", "--version") {
        return;
    }
    let agent = Agent::start(&[]);
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(program())
        .arg("play-stranger")
        .arg(agent.socket())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Permission denied"), "{said}");
}
