//! An authority on a free port, and the programs that talk to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use enclasp_ca::{Authority, NewAuthority, Server, TokenRequest, init};
use enclasp_enroll::{Client, Enrolment, Token, Trust};
use enclasp_identity::Store;
use enclasp_keystore::soft::{Protection, SoftKeystore};
use enclasp_keystore::{Confirm, Error, Key, KeyInfo, KeySpec, KeyUri, Keystore, SignContext};
use enclasp_pki::{DistinguishedName, SubjectAltName, create_csr};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Keys that ask a person do not occur here.
pub(crate) struct Nobody;

impl Confirm for Nobody {
    fn confirm(&self, key: &KeyInfo, _: &SignContext) -> Result<(), Error> {
        Err(Error::Denied {
            key: key.uri.to_string(),
            operation: "sign with".into(),
            reason: "nobody is there".into(),
        })
    }
}

pub(crate) fn soft_keystore(folder: &Path) -> Arc<dyn Keystore> {
    Arc::new(SoftKeystore::open(folder, &Protection::KeyFile, Nobody).unwrap())
}

/// An authority that serves until it is stopped or dropped.
pub(crate) struct Ca {
    pub(crate) folder: TempDir,
    pub(crate) keystore: Arc<dyn Keystore>,
    pub(crate) authority: Authority,
    pub(crate) address: SocketAddr,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Ca {
    pub(crate) async fn start() -> Self {
        Self::start_with(|config| config).await
    }

    /// Starts with a changed `authority.toml`.
    pub(crate) async fn start_with(edit: impl FnOnce(String) -> String) -> Self {
        let folder = TempDir::new().unwrap();
        let keystore = soft_keystore(&folder.path().join("keys"));
        let new = NewAuthority {
            name: "Acme".into(),
            url: "https://127.0.0.1:1".parse().unwrap(),
            keys: None,
            root_key: None,
            http_url: None,
            database: None,
            name_constraints: Default::default(),
        };
        let dir = folder.path().join("ca");
        init(&dir, &new, &*keystore).unwrap();
        let config = dir.join("authority.toml");
        std::fs::write(&config, edit(std::fs::read_to_string(&config).unwrap())).unwrap();
        let authority = Authority::open(&dir).await.unwrap();
        let (address, running) = serve(&authority, &keystore, "127.0.0.1:0").await;
        // Tokens name the port, which only now is known.
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("https://127.0.0.1:1\"", &format!("https://{address}\"")))
            .unwrap();
        let authority = Authority::open(&dir).await.unwrap();
        Self { folder, keystore, authority, address, running: Some(running) }
    }

    pub(crate) async fn stop(&mut self) {
        if let Some((stop, task)) = self.running.take() {
            stop.send(()).unwrap();
            task.await.unwrap();
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        let listen = self.address.to_string();
        let (_, running) = serve(&self.authority, &self.keystore, &listen).await;
        self.running = Some(running);
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("ca")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    pub(crate) fn client(&self) -> Client {
        let trust = Trust::RootFingerprint(self.authority.root().fingerprint());
        Client::new(self.authority.config().url.clone(), trust).unwrap()
    }

    pub(crate) async fn token(&self, common_name: &str, names: &[&str]) -> Token {
        self.authority.token(token_request(common_name, names)).await.unwrap()
    }

    /// How many certificates of devices there are.
    pub(crate) async fn issued(&self) -> Vec<enclasp_ca::Record> {
        let mut records = self.authority.certificates(&Default::default(), None, usize::MAX).await.unwrap();
        records.retain(|record| record.issued_by != enclasp_ca::IssuedBy::Server);
        records
    }

    pub(crate) fn enrolment(&self, identity: &str) -> Enrolment {
        let folder = self.folder.path().join("device");
        Enrolment {
            identity: identity.to_owned(),
            key: KeySpec::new(KeyUri::soft(identity).unwrap()),
            keystore: self.keystore.clone(),
            store: Store::open(&folder.join("identities")).unwrap(),
            pending: folder.join("enrolling"),
            patience: Duration::ZERO,
        }
    }

    pub(crate) fn key(&self, name: &str) -> Arc<dyn Key> {
        let spec = KeySpec::new(KeyUri::soft(name).unwrap());
        Arc::from(self.keystore.create(&spec).unwrap())
    }

    /// Runs curl with the root as the only trusted certificate. Gives status, head and body.
    pub(crate) fn curl(&self, arguments: &[&str]) -> Answer {
        let root = self.dir().join("root.pem");
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--include", "--max-time", "30", "--cacert"])
            .arg(root)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("curl is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let interim = "HTTP/1.1 100 Continue\r\n\r\n";
        let text = text.strip_prefix(interim).unwrap_or(&text);
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }
}

async fn serve(
    authority: &Authority,
    keystore: &Arc<dyn Keystore>,
    listen: &str,
) -> (SocketAddr, (oneshot::Sender<()>, JoinHandle<()>)) {
    let server = Server::bind(authority.clone(), keystore.clone(), listen).await.unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(server.run(async { drop(stopped.await) }));
    (address, (stop, task))
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) fn token_request(common_name: &str, names: &[&str]) -> TokenRequest {
    TokenRequest {
        common_name: common_name.into(),
        subject_alt_names: names.iter().map(|name| name.parse().unwrap()).collect(),
        profile: "client".into(),
        lifetime: Duration::from_secs(600),
    }
}

/// A request by one of our keys.
pub(crate) fn csr(key: &dyn Key, subject: &str, names: &[&str]) -> Vec<u8> {
    let subject: DistinguishedName = subject.parse().unwrap();
    let names: Vec<SubjectAltName> = names.iter().map(|name| name.parse().unwrap()).collect();
    create_csr(key, &subject, &names, &SignContext::new("a test")).unwrap()
}

/// A request by OpenSSL, with its key in `folder/NAME.key`.
pub(crate) fn openssl_csr(folder: &Path, name: &str, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(["req", "-new", "-nodes", "-outform", "DER", "-keyout"]);
    command.arg(folder.join(format!("{name}.key")));
    if !arguments.contains(&"-newkey") {
        command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    }
    run(command.args(arguments))
}

/// Runs a program that has to succeed, and gives its stdout.
pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A file in `folder` with these contents; its path as curl takes it.
pub(crate) fn file(folder: &Path, name: &str, contents: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    std::fs::write(&path, contents).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Waits until `condition` holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never came true: {what}"));
}
