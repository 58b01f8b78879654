//! Agents, clients and terminals for the tests, each ended by its guard.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use enclasp_agent::{Backend, Config, PROMPTER_COMMAND, Socket, prompter_main, run};
use enclasp_keystore::agent::{
    AgentKeystore, FrameReader, Request, Response, SignRequest, VERSION, decode, encode,
};
use enclasp_keystore::{
    Access, Error, Input, KeyInfo, KeySpec, KeyUri, Keystore, Policy, Presence, Requester, Scheme,
};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

/// What this program was started for, if not to test.
pub fn play_role() -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [PROMPTER_COMMAND] => prompter_main().unwrap(),
        ["play-agent", socket, state, ref options @ ..] => play_agent(socket, state, options),
        ["play-stranger", socket] => crate::access::play_stranger(Path::new(socket)),
        _ => return false,
    }
    true
}

fn play_agent(socket: &str, state: &str, options: &[&str]) {
    let socket = if socket == "systemd" { Socket::Systemd } else { Socket::Path(socket.into()) };
    let mut config = Config::new(socket, state);
    for option in options {
        match option.split_once('=').unwrap_or((option, "")) {
            ("shared", _) => config.shared = true,
            ("exit-idle-ms", text) => config.exit_idle = Some(Duration::from_millis(text.parse().unwrap())),
            ("max-memory-mib", text) => config.reach.memory = Some(text.parse::<u64>().unwrap() << 20),
            ("pinentry", program) => config.pinentry = Some(program.into()),
            ("module", path) => config.backend = Backend::Pkcs11 { module: path.into() },
            ("tpm", tcti) => config.backend = Backend::Tpm { tcti: tcti.into() },
            _ => panic!("no option {option}"),
        }
    }
    let ran = run(config, |status| {
        println!("ready {}", status.pid);
    });
    if let Err(error) = ran {
        println!("failed {error}");
        std::process::exit(1);
    }
}

/// This program, where every user may run it.
pub fn program() -> &'static Path {
    use std::sync::OnceLock;
    static PROGRAM: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    &PROGRAM
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
            let path = folder.path().join("agent");
            fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
            (folder, path)
        })
        .1
}

/// A running agent and its folders.
pub struct Agent {
    child: Child,
    pub folder: TempDir,
}

impl Agent {
    pub fn start(options: &[&str]) -> Self {
        Self::start_in(folder(), options)
    }

    /// Starts one on the folders of another.
    pub fn start_in(folder: TempDir, options: &[&str]) -> Self {
        Self::start_as(folder, options, None)
    }

    pub fn start_as(folder: TempDir, options: &[&str], uid: Option<u32>) -> Self {
        let mut command = Self::command(&folder, options);
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        let (child, line) = Self::first_line(command);
        assert!(line.starts_with("ready"), "{line}");
        Self { child, folder }
    }

    /// What one says that cannot start.
    pub fn refusal(folder: &TempDir, options: &[&str]) -> String {
        let (mut child, line) = Self::first_line(Self::command(folder, options));
        assert!(!child.wait().unwrap().success());
        line
    }

    fn command(folder: &TempDir, options: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg("play-agent").arg(socket_in(folder)).arg(folder.path().join("state"));
        for option in options {
            match option.split_once('=') {
                // A setting for a module.
                Some((name, value)) if name.chars().all(|c| !c.is_lowercase()) => command.env(name, value),
                _ => command.arg(option),
            };
        }
        command
    }

    fn first_line(mut command: Command) -> (Child, String) {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (child, line)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn socket(&self) -> PathBuf {
        socket_in(&self.folder)
    }

    pub fn keystore(&self) -> AgentKeystore {
        AgentKeystore::new(&self.socket())
    }

    pub fn wire(&self) -> Wire {
        Wire::greeted(&self.socket())
    }

    /// The command line of one, for a shell.
    pub fn shell_command(folder: &TempDir, options: &[&str]) -> String {
        let command = Self::command(folder, options);
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        format!("{} {}", program().display(), words.join(" "))
    }

    /// Makes a P-256 key.
    pub fn make(&self, name: &str, presence: Presence, access: Access) -> KeyInfo {
        let spec =
            KeySpec { policy: Policy { presence, ..Policy::default() }, access, ..KeySpec::new(uri(name)) };
        self.keystore().create(&spec).unwrap().info().clone()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.unwrap().success());
    }

    /// Waits for the end, and gives the folders back.
    pub fn wait(mut self) -> (ExitStatus, TempDir) {
        let mut status = None;
        eventually("the agent ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap(), std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap()))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder that others may enter.
pub fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

pub fn socket_in(folder: &TempDir) -> PathBuf {
    folder.path().join("socket")
}

pub fn uri(name: &str) -> KeyUri {
    KeyUri::soft(name).unwrap()
}

/// A client that sends what it likes.
pub struct Wire {
    pub stream: UnixStream,
    reader: FrameReader,
}

impl Wire {
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { stream, reader: FrameReader::default() }
    }

    pub fn greeted(socket: &Path) -> Self {
        let mut wire = Self::connect(socket);
        assert_eq!(wire.call(0, &Request::Hello(VERSION)), Response::Hello(VERSION));
        wire
    }

    pub fn send(&mut self, id: u32, request: &Request<'_>) {
        let mut frame = Vec::new();
        encode(id, request, &mut frame).unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    pub fn receive(&mut self) -> (u32, Response) {
        let (id, body) = self.reader.next(&mut self.stream).unwrap().expect("an answer");
        (id, decode(body).unwrap())
    }

    pub fn call(&mut self, id: u32, request: &Request<'_>) -> Response {
        self.send(id, request);
        let (answered, response) = self.receive();
        assert_eq!(answered, id);
        response
    }

    /// Opens the connection's lane.
    pub fn lane(&mut self) -> WireLane {
        self.send(1, &Request::Lane);
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut along = RecvAncillaryBuffer::new(&mut room);
        let mut bytes = [0; 64];
        let buffer = &mut [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.stream, buffer, &mut along, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
        assert_eq!(bytes[..received], [0, 0, 0, 5, 0, 0, 0, 1, 3], "done, and nothing else");
        let messages = along.drain().map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.map(File::from).collect::<Vec<_>>(),
            _ => panic!("no descriptors"),
        });
        let [requests, answers, end, nudge] = messages.flatten().collect::<Vec<_>>().try_into().unwrap();
        (&nudge).write_all(b"!").unwrap();
        let mut nudged = [0; 2];
        assert_eq!(((&answers).read(&mut nudged).unwrap(), nudged[0]), (1, b'!'), "it is the answers' end");
        assert!(fcntl_getfl(&nudge).unwrap().contains(OFlags::NONBLOCK));
        WireLane { requests, answers, end, reader: FrameReader::default() }
    }

    /// The agent closes the connection without a further answer.
    pub fn is_closed(&mut self) {
        let mut rest = Vec::new();
        // Closing with unread bytes resets the connection, which is closing too.
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "{rest:?}"),
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

/// A lane of such a client.
pub struct WireLane {
    pub requests: File,
    pub answers: File,
    /// The other end of `requests`.
    pub end: File,
    reader: FrameReader,
}

impl WireLane {
    pub fn send(&mut self, id: u32, request: &Request<'_>) {
        let mut frame = Vec::new();
        encode(id, request, &mut frame).unwrap();
        self.requests.write_all(&frame).unwrap();
    }

    pub fn call(&mut self, id: u32, request: &Request<'_>) -> Response {
        self.send(id, request);
        let (answered, body) = self.reader.next(&mut self.answers).unwrap().expect("an answer");
        assert_eq!(answered, id);
        decode(body).unwrap()
    }

    /// The agent has let go of it.
    pub fn is_closed(&mut self) {
        assert!(self.reader.next(&mut self.answers).unwrap().is_none());
    }
}

pub fn sign<'a>(key: &'a str, message: &'a [u8], reason: &'a str, tty: Option<&str>) -> Request<'a> {
    Request::Sign(SignRequest {
        key,
        scheme: Scheme::EcdsaP256Sha256,
        input: Input::Message(message),
        reason,
        timeout_ms: None,
        requester: Requester {
            tty: tty.map(str::to_owned),
            term: Some("screen".into()),
            ..Requester::default()
        },
    })
}

/// The error in a refusal.
pub fn refused(response: Response) -> Error {
    match response {
        Response::Refused(error) => error,
        other => panic!("not refused: {other:?}"),
    }
}

/// A terminal with a screen that can be read and keys that can be pressed: a tmux session.
pub struct Terminal {
    name: String,
    pub tty: String,
}

impl Terminal {
    /// `None` where tmux or pinentry-curses is missing.
    pub fn open() -> Option<Self> {
        Self::running("exec sleep 600")
    }

    /// One in which a shell runs `script`.
    pub fn running(script: &str) -> Option<Self> {
        if missing("tmux", "-V") || missing("pinentry-curses", "--version") {
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut terminal =
            Self { name: format!("enclasp-test-{}-{number}", std::process::id()), tty: String::new() };
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", script]);
        terminal.tty = terminal.tmux(&["display-message", "-p", "#{pane_tty}"]).trim().to_owned();
        Some(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux").args(["-L", &self.name]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    pub fn shows(&self, text: &str) -> String {
        let mut screen = String::new();
        eventually(text, || {
            screen = self.screen();
            screen.contains(text)
        });
        screen
    }

    pub fn shows_no_question(&self) {
        eventually("the question vanishes", || !self.screen().contains("Sign with"));
    }

    pub fn agree(&self) {
        self.tmux(&["send-keys", "Enter"]);
    }

    pub fn refuse(&self) {
        self.tmux(&["send-keys", "Tab", "Enter"]);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.name, "kill-server"]).output();
    }
}

/// Whether a program that a test needs is missing: said loudly, and an error in CI.
pub fn missing(program: &str, harmless: &str) -> bool {
    let found = Command::new(program).arg(harmless).output().is_ok();
    !found && skip(&format!("{program} is not installed"))
}

/// Whether this is not root, who can become another user.
pub fn not_root() -> bool {
    rustix::process::geteuid().as_raw() != 0 && skip("it has to run as root")
}

fn skip(reason: &str) -> bool {
    assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: {reason}");
    println!("SKIPPED {}: {reason}", std::thread::current().name().unwrap_or("a test"));
    true
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < until, "it never came true: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
