//! `ca serve` without `--listen` is where tokens send devices; its files are its owner's alone.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::harness::{Home, free_port};

#[test]
fn authority_listens_where_its_url_says() {
    let home = Home::new();
    let port = free_port();
    home.authority("ca", port);
    let server = home.start("ca serve --dir ca");
    server.stderr.wait_for(&format!("listening on 127.0.0.1:{port} "));
    home.token("--cn laptop");
    home.enclasp("enroll --token-file token --identity laptop").succeeds();
    for file in ["authority.db", "authority.db-wal", "authority.db-shm"] {
        let mode = fs::metadata(home.path("ca").join(file)).expect(file).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let (elsewhere, _) = home.start_listening("ca serve --dir ca --listen 127.0.0.1:0");
    elsewhere.stderr.wait_for(&format!("devices are sent to https://127.0.0.1:{port}"));
}

#[test]
fn unknown_profiles_are_refused() {
    let home = Home::with_authority();
    home.enclasp("ca list --dir ca --profile clint").fails(1).says("clint");
    home.enclasp("ca list --dir ca --profile client").succeeds().says("no certificate");
}

/// A folder that others use is not closed to them.
#[test]
fn a_folder_of_others_is_refused() {
    let home = Home::new();
    fs::create_dir(home.path("project")).expect("a folder");
    home.write("project/README", "ours");
    fs::set_permissions(home.path("project"), Permissions::from_mode(0o755)).expect("a mode");
    let folder = home.path("project");
    home.enclasp("ca init --dir project --name Acme")
        .fails(1)
        .says("is open to others (mode 755)")
        .says("chmod 700");
    let mut command = home.command("key create soft:name=web");
    command.env("ENCLASP_STATE", &folder);
    crate::harness::run(command).fails(1).says("is open to others");
    assert_eq!(fs::metadata(&folder).expect("it is there").permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read_dir(&folder).expect("it is there").count(), 1);
}
