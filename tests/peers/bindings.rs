//! Programs in other languages that use Enclasp as a library: `tests/peers/bindings`.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::harness::{Backend, Home, Running, generated, run};

impl Home {
    /// `program` in this home, where it finds the keys and identities and the command that starts agents.
    pub(crate) fn user(&self, mut program: Command) -> Command {
        program.current_dir(self.path("")).env("HOME", self.path("")).env("ENCLASP_STATE", self.state());
        program.env("ENCLASP_PROGRAM", env!("CARGO_BIN_EXE_enclasp"));
        program
    }
}

/// A service of HTTP behind a tunnel that demands certificates, and the authority that enrols who may come in.
pub(crate) struct Service {
    pub(crate) tunnel: Running,
    pub(crate) port: u16,
    _backend: Backend,
    _authority: Running,
    /// It has a certificate `srv` for other servers.
    pub(crate) home: Home,
}

impl Service {
    /// For the one with this common name.
    pub(crate) fn admitting(cn: &str) -> Self {
        let (home, authority, _) = Home::with_serving_authority();
        home.peer("srv", "p256", "server");
        home.identity("https", "p256", "server");
        let backend = Backend::http();
        let (tunnel, port) = home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity https --cacert ca/root.pem --allow-cn {cn}",
            backend.port
        ));
        Self { tunnel, port, _backend: backend, _authority: authority, home }
    }
}

/// The program SCRIPT.py.
pub(crate) fn python(script: &str) -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", generated()).env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUNBUFFERED", "1");
    command.arg(sources().join(script).with_extension("py"));
    command
}

/// The program PROGRAM.c, compiled against our header.
pub(crate) fn c(home: &Home, program: &str) -> Command {
    let library = generated();
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"]).arg(headers());
    cc.arg("-o").arg(home.path(program)).arg(sources().join(program).with_extension("c"));
    cc.arg("-L").arg(library).arg(format!("-Wl,-rpath,{}", library.display())).arg("-lenclasp_bindings");
    run(cc).succeeds();
    Command::new(home.path(program))
}

/// The program MAIN.kt, compiled with what was generated, on the JVM.
pub(crate) fn kotlin(main: &str) -> Command {
    let mut command = Command::new("java");
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
    command.arg(format!("{}:{}", kotlin_classes().display(), kotlin_libraries()));
    command.arg(format!("-Djna.library.path={}", generated().display())).arg(format!("{main}Kt"));
    command
}

/// The file of Debian's package libjna-java, which needs libjna-jni.
pub(crate) const JNA: &str = "/usr/share/java/jna.jar";

/// The classes, compiled once for all runs with the same sources: it takes half a minute.
fn kotlin_classes() -> &'static Path {
    static CLASSES: OnceLock<PathBuf> = OnceLock::new();
    CLASSES.get_or_init(|| {
        let sources = [generated().join("enclasp/enclasp.kt"), sources().join("Main.kt")];
        let mut hasher = DefaultHasher::new();
        for source in &sources {
            hasher.write(&fs::read(source).expect("a source"));
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kotlin");
        let classes = folder.join(format!("{:016x}", hasher.finish()));
        if !classes.exists() {
            // Those of other sources are of no use any more.
            if folder.exists() {
                fs::remove_dir_all(&folder).expect("it is ours");
            }
            let new = folder.join("new");
            // Its script is not marked as one that can be run.
            let mut command = Command::new("bash");
            command.arg(kotlin_compiler().join("bin/kotlinc")).args(["-J-Xmx1g", "-nowarn", "-d"]).arg(&new);
            command.args(["-classpath", &kotlin_libraries()]).args(&sources);
            let compiled = command.output().expect("bash runs");
            assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
            fs::rename(new, &classes).expect("a folder beside it");
        }
        classes
    })
}

fn kotlin_libraries() -> String {
    let stdlib = kotlin_compiler().join("lib/kotlin-stdlib.jar");
    format!("{}:{JNA}", stdlib.display())
}

/// The compiler, which is fetched if it is not there.
fn kotlin_compiler() -> &'static Path {
    static COMPILER: OnceLock<PathBuf> = OnceLock::new();
    COMPILER.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/kotlin/compiler.sh");
        // However long it takes.
        let fetched = Command::new("sh").arg(script).output().expect("sh runs");
        assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
        PathBuf::from(String::from_utf8_lossy(&fetched.stdout).trim())
    })
}

/// The folder of the header for C.
fn headers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../bindings/include")
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/bindings")
}
