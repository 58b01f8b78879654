use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use crate::support::{Agent, folder, missing, not_root};

pub fn everything_is_in_force() {
    let agent = Agent::start(&[]);
    let status = agent.keystore().status().unwrap();
    let names: Vec<_> = status.protections.iter().map(|(name, _)| name.as_str()).collect();
    let expected =
        ["not-dumpable", "no-core-files", "memory-locked", "no-new-privileges", "landlock", "seccomp"];
    assert_eq!(names, expected);
    for (name, outcome) in &status.protections {
        // An ordinary user may not lock memory, and is told so.
        assert!(outcome.is_ok() || (name == "memory-locked" && !is_root()), "{name}: {outcome:?}");
    }
    let of_agent = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", agent.pid())).unwrap();
    let seen = of_agent("status");
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1"] {
        assert!(seen.contains(line), "{line} is missing in {seen}");
    }
    assert!(!is_root() || !seen.contains("VmLck:\t       0 kB"), "{seen}");
    let cores =
        of_agent("limits").lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
    assert_eq!(cores.split_whitespace().rev().skip(1).take(2).collect::<Vec<_>>(), ["0", "0"], "{cores}");
}

pub fn its_own_user_cannot_trace_it() {
    if not_root() || missing("strace", "-V") {
        return;
    }
    let folder = folder();
    chown(folder.path(), Some(65532), Some(65532)).unwrap();
    let agent = Agent::start_as(folder, &[], Some(65532));
    // The kernel gives the files in /proc of a process that may not be dumped to root.
    assert_eq!(fs::metadata(format!("/proc/{}/mem", agent.pid())).unwrap().uid(), 0);
    let as_user = |program: &str, arguments: &[&str]| -> Output {
        Command::new(program).args(arguments).uid(65532).gid(65532).output().unwrap()
    };
    let pid = agent.pid().to_string();
    let traced = as_user("timeout", &["-s", "INT", "2", "strace", "-p", &pid]);
    let said = String::from_utf8_lossy(&traced.stderr);
    assert!(said.contains("Operation not permitted"), "{said}");
    for file in ["mem", "environ", "maps"] {
        let read = as_user("head", &["-c", "1", &format!("/proc/{pid}/{file}")]);
        assert!(!read.status.success(), "/proc/{pid}/{file} can be read");
    }
    // The same attempt on a process like any other.
    let mut sleep = Command::new("sleep").arg("60").uid(65532).gid(65532).spawn().unwrap();
    let traced = as_user("timeout", &["-s", "INT", "1", "strace", "-p", &sleep.id().to_string()]);
    let said = String::from_utf8_lossy(&traced.stderr).into_owned();
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    assert!(said.contains("attached"), "the control failed: {said}");
}

fn is_root() -> bool {
    rustix::process::geteuid().as_raw() == 0
}
