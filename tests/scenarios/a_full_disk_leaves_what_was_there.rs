//! A state folder that is full, or cannot be written to: a clear error, and the old identity intact.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::{Done, Home, enclasp_at, eventually, is_root, kill_agent_of, needs, run};

#[test]
fn a_full_disk_leaves_what_was_there() {
    if !is_root() || !needs(&["mount", "umount"]) {
        return;
    }
    let home = Home::with_authority();
    let disk = Disk::new(&home, "size=64k");
    let small = |line: &str| enclasp(&home, &disk, line);
    small("key create soft:name=web").succeeds();
    let csr = small("csr create --key soft:name=web --subject CN=web").succeeds();
    home.write("web.csr", csr.stdout);
    home.enclasp("ca sign --dir ca web.csr --out web.pem").succeeds();
    small("identity import --name web --cert web.pem --cacert ca/root.pem").succeeds();
    let before = small("identity show web --json").succeeds().text();

    disk.fill();
    small("identity import --name web --cert web.pem --replace")
        .fails(1)
        .says("error: cannot write ")
        .says("No space left on device")
        .says("hint: check the space, the owner and the permissions there");
    small("key create soft:name=other").fails(1).says("No space left on device");
    assert_eq!(small("identity show web --json").succeeds().text(), before);
    small("key show soft:name=web").succeeds();
    small("key show soft:name=other").fails(1).says("there is no key");

    fs::remove_file(disk.path.join("filler")).expect("it is there");
    small("identity import --name web --cert web.pem --replace --cacert ca/root.pem").succeeds();
    small("key create soft:name=other").succeeds();
}

#[test]
fn a_read_only_one_too() {
    if !is_root() || !needs(&["mount", "umount"]) {
        return;
    }
    let home = Home::with_authority();
    let disk = Disk::new(&home, "size=1m");
    let small = |line: &str| enclasp(&home, &disk, line);
    small("key create soft:name=web").succeeds();
    let csr = small("csr create --key soft:name=web --subject CN=web").succeeds();
    home.write("web.csr", csr.stdout);
    home.enclasp("ca sign --dir ca web.csr --out web.pem").succeeds();
    small("identity import --name web --cert web.pem --cacert ca/root.pem").succeeds();
    let before = small("identity show web --json").succeeds().text();

    kill_agent_of(&disk.path);
    disk.remount("ro");
    small("identity import --name other --cert web.pem --replace").fails(1).says("Read-only file system");
    assert_eq!(small("identity show web --json").succeeds().text(), before);
    small("key create soft:name=other").fails(1).says("Read-only file system");

    disk.remount("rw");
    small("key create soft:name=other").succeeds();
    assert_eq!(small("identity show web --json").succeeds().text(), before);
}

fn enclasp(home: &Home, disk: &Disk, line: &str) -> Done {
    let mut command = enclasp_at(&home.path(""), &disk.path);
    command.args(line.split_whitespace());
    run(command)
}

/// A small file system of its own in a home.
struct Disk<'a> {
    home: &'a Home,
    path: PathBuf,
}

impl<'a> Disk<'a> {
    fn new(home: &'a Home, options: &str) -> Self {
        let path = home.path("disk");
        fs::create_dir(&path).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "enclasp-test"]).arg(&path);
        run(mount).succeeds();
        Self { home, path }
    }

    fn fill(&self) {
        use std::io::Write;
        let mut filler = fs::File::create(self.path.join("filler")).expect("room for a name");
        while filler.write_all(&[0; 4096]).is_ok() {}
    }

    fn remount(&self, mode: &str) {
        // It is busy until the agent's processes have let go of its log.
        eventually("it can be remounted", || {
            let mut mount = Command::new("mount");
            mount.args(["-o", &format!("remount,{mode}")]).arg(&self.path);
            run(mount).code == Some(0)
        });
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        self.home.end_agents();
        let mut umount = Command::new("umount");
        umount.arg("-l").arg(&self.path);
        let _ = umount.status();
    }
}
