//! Child processes that end with the test, and what they said.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything that is waited for may take. It is long, because machines are slow at times;
/// a scenario that works does not wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a program may take to end when asked to, before it is killed.
const FAREWELL: Duration = Duration::from_secs(5);

/// A program that runs. It ends with this value.
pub(crate) struct Running {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) stdout: Capture,
    pub(crate) stderr: Capture,
}

impl Running {
    /// Starts `command` and collects its output.
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = describe(&command);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let stdin = child.stdin.take();
        let stdout = Capture::of(child.stdout.take().expect("piped"));
        let stderr = Capture::of(child.stderr.take().expect("piped"));
        Self { name, child, stdin, stdout, stderr }
    }

    /// The port that it says it listens on.
    pub(crate) fn port(&self) -> u16 {
        let said = self.stderr.wait_for("listening on ");
        let address = said.split("listening on ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let address = address.map(|address| address.trim_end_matches([',', ';', ':']));
        let port =
            address.and_then(|address| address.rsplit_once(':')).and_then(|(_, port)| port.parse().ok());
        port.unwrap_or_else(|| panic!("no port in `{said}`"))
    }

    /// Writes to its standard input.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        stdin.write_all(bytes).and_then(|()| stdin.flush()).expect("it reads its standard input");
    }

    /// Ends its standard input.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap_or_else(|e| panic!("cannot signal {}: {e}", self.name));
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its status").is_none()
    }

    /// The processes that it started and that have not ended.
    pub(crate) fn children(&self) -> Vec<Pid> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let of_task = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.ok()?.path().join("children")).ok()
        };
        let lists: Vec<String> = tasks.filter_map(of_task).collect();
        let pids = lists.iter().flat_map(|list| list.split_whitespace());
        pids.filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
    }

    /// What the kernel shows of it under this name.
    pub(crate) fn proc(&self, name: &str) -> std::path::PathBuf {
        format!("/proc/{}/{name}", self.child.id()).into()
    }

    /// The arguments that everybody on this machine can see.
    pub(crate) fn arguments(&self) -> Vec<u8> {
        std::fs::read(self.proc("cmdline")).expect("it runs")
    }

    /// Waits until it has ended by itself. Its standard input is ended.
    pub(crate) fn finish(mut self) -> Done {
        self.close_stdin();
        let status = self.wait(PATIENCE).unwrap_or_else(|| {
            panic!(
                "{} did not end\nstdout: {}\nstderr: {}",
                self.name,
                self.stdout.text(),
                self.stderr.text()
            )
        });
        Done {
            name: self.name.clone(),
            code: status.code(),
            stdout: self.stdout.all(),
            stderr: String::from_utf8_lossy(&self.stderr.all()).into_owned(),
        }
    }

    /// Asks it to end, waits until it has, and returns what it said.
    pub(crate) fn finish_at_once(self) -> String {
        self.signal(Signal::TERM);
        self.finish().stderr
    }

    fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + patience;
        loop {
            match self.child.try_wait().expect("its status") {
                Some(status) => return Some(status),
                None if Instant::now() > until => return None,
                None => thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal(Signal::TERM);
            if self.wait(FAREWELL).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

/// What a program writes, as it comes.
#[derive(Clone)]
pub(crate) struct Capture(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    ended: bool,
}

impl Capture {
    fn of(mut source: impl Read + Send + 'static) -> Self {
        let capture = Self(Arc::default());
        let other = capture.clone();
        thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            loop {
                let count = source.read(&mut buffer).unwrap_or(0);
                let (heard, changed) = &*other.0;
                let mut heard = heard.lock().unwrap();
                heard.bytes.extend_from_slice(&buffer[..count]);
                heard.ended = count == 0;
                changed.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        capture
    }

    /// What has come so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap().bytes).into_owned()
    }

    /// Waits until `text` has come, and returns the whole line that it is in.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        self.wait_for_count(text, 1)
    }

    /// The same for `text` coming for the `count`th time.
    pub(crate) fn wait_for_count(&self, text: &str, count: usize) -> String {
        let find = |heard: &Heard| {
            let all = String::from_utf8_lossy(&heard.bytes).into_owned();
            let start = all.match_indices(text).nth(count - 1)?.0;
            let begin = all[..start].rfind('\n').map_or(0, |at| at + 1);
            let end = all[start..].find('\n').map(|at| start + at);
            match end {
                Some(end) => Some(all[begin..end].to_owned()),
                None => heard.ended.then(|| all[begin..].to_owned()),
            }
        };
        let heard = self.wait_until(|heard| heard.ended || find(heard).is_some());
        heard.unwrap_or_else(|| panic!("`{text}` did not come within {PATIENCE:?}:\n{}", self.text()));
        let found = find(&self.0.0.lock().unwrap());
        found.unwrap_or_else(|| panic!("it ended without `{text}`:\n{}", self.text()))
    }

    /// Everything, once it has ended.
    fn all(&self) -> Vec<u8> {
        // A program that was left behind may hold the pipe open; what matters has come.
        self.wait_until(|heard| heard.ended);
        self.0.0.lock().unwrap().bytes.clone()
    }

    fn wait_until(&self, condition: impl Fn(&Heard) -> bool) -> Option<()> {
        let (heard, changed) = &*self.0;
        let guard = heard.lock().unwrap();
        let (_guard, result) =
            changed.wait_timeout_while(guard, PATIENCE, |heard| !condition(heard)).unwrap();
        (!result.timed_out()).then_some(())
    }
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    name: String,
    /// Its exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Done {
    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        self.ends_with(0)
    }

    /// With that exit code.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> Self {
        self.ends_with(code)
    }

    /// With any exit code but 0.
    #[track_caller]
    pub(crate) fn fails_somehow(self) -> Self {
        assert_ne!(self.code, Some(0), "{self}");
        self
    }

    /// On standard error.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "it does not say `{text}`\n{self}");
        self
    }

    /// On standard output.
    #[track_caller]
    pub(crate) fn prints(self, text: &str) -> Self {
        assert!(self.text().contains(text), "it does not print `{text}`\n{self}");
        self
    }

    /// Its standard output.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Its standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|e| panic!("not JSON: {e}\n{self}"))
    }

    /// The JSON that is one line of its standard error.
    #[track_caller]
    pub(crate) fn json_said(&self) -> serde_json::Value {
        let lines: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with('{')).collect();
        assert_eq!(lines.len(), 1, "not one line of JSON\n{self}");
        serde_json::from_str(lines[0]).unwrap_or_else(|e| panic!("not JSON: {e}\n{self}"))
    }

    #[track_caller]
    fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stdout = self.text();
        let stdout: String = stdout.chars().take(4000).collect();
        write!(f, "{}\nexit code: {:?}\nstdout: {stdout}\nstderr: {}", self.name, self.code, self.stderr)
    }
}

/// Runs `command` without any input.
pub(crate) fn run(command: Command) -> Done {
    Running::start(command).finish()
}

/// Runs `command` with `input` on its standard input.
pub(crate) fn run_with_input(command: Command, input: &[u8]) -> Done {
    let mut running = Running::start(command);
    let mut stdin = running.stdin.take().expect("piped");
    let input = input.to_owned();
    // From a thread of its own: a program may stop reading until its output is read. One that
    // ends without reading is not at fault.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let done = running.finish();
    writer.join().unwrap();
    done
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
