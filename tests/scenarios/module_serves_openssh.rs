//! OpenSSH logs in with the key of an identity, and with one that no identity uses.

use crate::harness::{Home, Running, free_port, is_root, module, needs, run, wait_until_listening};

#[test]
fn module_serves_openssh() {
    if !needs(&["openssl", "ssh", "sshd", "ssh-keygen"]) || !is_root() {
        return;
    }
    let home = Home::with_authority();
    home.identity("web", "p256", "client");
    home.enclasp("key create soft:name=ssh --algorithm p384").succeeds();
    let public_keys = |keys: &str| {
        let mut command = home.host("ssh-keygen", "-D");
        command.arg(module()).env("ENCLASP_PKCS11_KEYS", keys);
        run(command).succeeds().text()
    };
    let listed = public_keys("");
    assert!(listed.contains("ecdsa-sha2-nistp256") && !listed.contains("nistp384"), "{listed}");
    let listed = public_keys("soft:name=ssh");
    let mut host_key = home.program("ssh-keygen", "-q -t ed25519 -f hostkey -N");
    host_key.arg("");
    run(host_key).succeeds();
    // Where sshd looks for a folder that nobody can write to.
    std::fs::create_dir_all("/run/sshd").expect("a folder");
    for (kind, keys) in [("nistp256", ""), ("nistp384", "soft:name=ssh")] {
        let line = listed.lines().find(|line| line.contains(kind)).expect("a key");
        home.write("authorized", line);
        let port = free_port();
        let folder = home.path("");
        home.write(
            "sshd.conf",
            format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}hostkey\nAuthorizedKeysFile {0}authorized\n\
                 StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
                 PermitRootLogin yes\nPidFile none\n",
                folder.display()
            ),
        );
        let mut sshd = home.program("/usr/sbin/sshd", "-D -e -f");
        sshd.arg(home.path("sshd.conf"));
        let server = Running::start(sshd);
        wait_until_listening(port);
        let line = format!(
            "-F /dev/null -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o BatchMode=yes -I {} \
             -p {port} root@127.0.0.1 echo logged in",
            module().display()
        );
        let mut ssh = home.host("ssh", &line);
        ssh.env("ENCLASP_PKCS11_KEYS", keys).env_remove("SSH_AUTH_SOCK");
        run(ssh).succeeds().prints("logged in");
        server.stderr.wait_for("Accepted publickey for root");
    }
}
