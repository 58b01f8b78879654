//! Three replicas on one PostgreSQL behind a load balancer, a thousand devices: one replica is killed
//! and the database crashes meanwhile, and nothing is lost, repeated or given to two keys.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use enclasp_ca::{Authority, Filter, IssuedBy, TokenRequest};
use enclasp_enroll::{Client, Token, Trust};
use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{Algorithm, Key, SignContext};
use enclasp_pki::{Certificate, DistinguishedName, create_csr};
use enclasp_tls::Credential;
use rustix::process::Signal;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::harness::{Home, Postgres, Running, eventually, needs, run};

const DEVICES: usize = 1000;
/// Every so many tokens, two keys want the same one.
const CONTESTED: usize = 10;
/// How many devices ask at once.
const AT_ONCE: usize = 32;
/// How long a device goes on asking. It is long, because machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn replicas_share_a_database() {
    if !needs(&["curl"]) {
        return;
    }
    let Some(mut postgres) = Postgres::start() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let balancer = runtime.block_on(Balancer::start());
    let (home, url) = (Home::new(), postgres.url());
    let at = format!("--url https://{} --database {url}", balancer.address);
    home.enclasp(&format!("ca init --dir ca --name Acme {at}")).succeeds();
    // A replica needs nobody's word but that of whoever has the root's key.
    home.enclasp("ca approve --dir ca 00ff").fails(1).says("nothing with the id 00ff waits");
    join(&home, &url, "ca2");
    join(&home, &url, "ca3");
    home.enclasp("ca approve --dir ca2 00ff").fails(1).says("nothing with the id 00ff waits");
    let mut replicas: Vec<_> = ["ca", "ca2", "ca3"].map(|dir| Some(serve(&home, dir, &balancer))).into();

    let authority = runtime.block_on(Authority::open(&home.path("ca"))).unwrap();
    assert_eq!(runtime.block_on(authority.authorities()).unwrap().len(), 4);
    let devices = Arc::new(runtime.block_on(Devices::new(authority.clone())));
    let enrolling = {
        let devices = devices.clone();
        runtime.spawn(async move { devices.enrol().await })
    };
    eventually("a quarter is enrolled", || devices.done.load(Ordering::Relaxed) > DEVICES / 4);
    let health = |path: &str| {
        let line = format!(
            "-sS --cacert ca/root.pem -o answer -w %{{http_code}} https://{}/{path}",
            balancer.address
        );
        run(home.program("curl", &line)).succeeds().text()
    };
    eventually("it is ready", || health("ready") == "200");
    let killed = replicas[1].take().unwrap();
    killed.signal(Signal::KILL);
    drop(killed);
    eventually("a half is enrolled", || devices.done.load(Ordering::Relaxed) > DEVICES / 2);
    postgres.crash();
    eventually("it is ready no more", || health("ready") == "503");
    assert_eq!(health("health"), "200");
    postgres.resume();
    runtime.block_on(enrolling).unwrap();

    let records = runtime.block_on(authority.certificates(&Filter::default(), None, usize::MAX)).unwrap();
    let recorded: BTreeMap<_, _> = records
        .into_iter()
        .filter(|record| record.issued_by == IssuedBy::Token)
        .map(|record| (record.serial.clone(), record))
        .collect();
    let handed_out = devices.handed_out.lock().unwrap();
    // Every one that was handed out is recorded, and none is recorded that no token paid for.
    assert_eq!(handed_out.len(), DEVICES);
    assert_eq!(recorded.len(), DEVICES);
    let spent = postgres.sql("SELECT COUNT(DISTINCT certificate) FROM token");
    assert_eq!(spent, DEVICES.to_string());
    let serials: BTreeSet<_> = handed_out.iter().map(|issued| issued.certificate.serial()).collect();
    assert_eq!(serials.len(), DEVICES, "a certificate was handed out twice");
    for issued in &*handed_out {
        assert_eq!(recorded[issued.certificate.serial()].der, issued.certificate.der().as_ref());
    }
    let issuers: BTreeSet<_> = recorded.values().map(|record| record.issuer.clone()).collect();
    assert_eq!(issuers.len(), 3, "each replica has issued");

    // The replica ca2 is lost, with its key. Its devices renew with the others.
    let lost = runtime.block_on(Authority::open(&home.path("ca2"))).unwrap().issuing().clone();
    let orphan = handed_out
        .iter()
        .find(|issued| recorded[issued.certificate.serial()].issuer == lost.fingerprint_hex())
        .expect("it has issued");
    let chain = vec![orphan.certificate.der().clone(), lost.der().clone()];
    let credential = Credential::new(chain, orphan.key.clone()).unwrap();
    let names = orphan.certificate.subject();
    let csr = create_csr(&*orphan.key, names, &[], &SignContext::new("a test")).unwrap();
    let renewed = runtime.block_on(devices.client().simplereenroll(&csr, &credential)).unwrap();
    assert_eq!(renewed[0].subject(), names);
    assert_ne!(renewed[0].issuer(), lost.subject());
}

/// Moves an authority whose server runs.
#[test]
fn records_move_from_sqlite_to_postgresql() {
    let Some(postgres) = Postgres::start() else { return };
    let (home, server, port) = Home::with_serving_authority();
    home.token("--cn before");
    home.enclasp("enroll --token-file token --identity before").succeeds();
    home.token("--cn after");
    let before = home.issued();
    let url = postgres.url();
    // Without its records it would begin anew.
    home.enclasp(&format!("ca list --dir ca --database {url}")).fails(1).says("hint: `enclasp ca migrate");
    home.enclasp("ca migrate --dir ca --from sqlite").fails(2).says("--database");
    home.enclasp("ca migrate --dir ca --from sqlite --database postgres://ca:secret@localhost/ca")
        .fails(2)
        .says("a password in an argument");
    let moved =
        home.enclasp(&format!("ca migrate --dir ca --from sqlite --database {url} --json")).succeeds();
    assert_eq!(moved.json()["certificates"], before.len());
    assert_eq!(home.issued(), before);
    // The server that still runs issues nothing that would be lost.
    home.enclasp("enroll --token-file token --identity after").fails(1).says("503");
    drop(server);
    let _server = home.serve("ca", port);
    home.enclasp("enroll --token-file token --identity after").succeeds();
    assert_eq!(home.issued().len(), before.len() + 1);
    home.enclasp(&format!("ca migrate --dir ca --from sqlite --database {url}")).fails(1).says("already");

    // Nobody else's database is taken for ours.
    home.enclasp("ca init --dir other --name Other").succeeds();
    home.enclasp(&format!("ca migrate --dir other --from sqlite --database {url}"))
        .fails(1)
        .says("another authority");
    home.enclasp(&format!("ca list --dir other --database {url}")).fails(1).says("another authority");
    assert_eq!(home.issued().len(), before.len() + 1);
}

/// A replica in `dir`, which is shown, turned away once, and then let in.
fn join(home: &Home, url: &str, dir: &str) {
    let line = format!("ca join --dir {dir} --database {url}");
    let asked = home.start(&line);
    let said = asked.stderr.wait_for("waiting for: enclasp ca approve --dir DIR ");
    let id = said.rsplit(' ').next().unwrap();
    eventually("it is listed", || home.enclasp("ca pending --dir ca").succeeds().text().contains(id));
    home.enclasp(&format!("ca deny --dir ca {id}")).succeeds();
    asked.finish().fails(1).says("was not let join");
    home.enclasp(&format!("ca serve --dir {dir}")).fails(1).says("there is no authority");
    // The same keys ask again.
    let asked = home.start(&line);
    asked.stderr.wait_for(id);
    eventually("it is listed", || home.enclasp("ca pending --dir ca").succeeds().text().contains(id));
    home.enclasp(&format!("ca approve --dir ca {id}")).succeeds();
    asked.finish().succeeds().says("joined");
    home.enclasp(&line).fails(1).says("there is an authority in");
}

fn serve(home: &Home, dir: &str, balancer: &Balancer) -> Running {
    let (running, port) = home.start_listening(&format!("ca serve --dir {dir} --listen 127.0.0.1:0"));
    balancer.replicas.lock().unwrap().push(SocketAddr::from(([127, 0, 0, 1], port)));
    running
}

/// Passes connections on to whichever replica is there, in turn.
struct Balancer {
    address: SocketAddr,
    replicas: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Balancer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let replicas: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let known = replicas.clone();
        tokio::spawn(async move {
            for turn in 0.. {
                let Ok((mut front, _)) = listener.accept().await else { return };
                let mut order = known.lock().unwrap().clone();
                let count = order.len().max(1);
                order.rotate_left(turn % count);
                tokio::spawn(async move {
                    for replica in order {
                        if let Ok(mut back) = TcpStream::connect(replica).await {
                            let _ = tokio::io::copy_bidirectional(&mut front, &mut back).await;
                            return;
                        }
                    }
                });
            }
        });
        Self { address, replicas }
    }
}

/// A token, and the keys that want a certificate for it.
struct Device {
    token: Token,
    keys: Vec<Arc<SoftKey>>,
}

struct Issued {
    certificate: Certificate,
    key: Arc<dyn Key>,
}

struct Devices {
    authority: Authority,
    waiting: Mutex<Vec<Device>>,
    handed_out: Mutex<Vec<Issued>>,
    done: AtomicUsize,
}

impl Devices {
    async fn new(authority: Authority) -> Self {
        let keys: Vec<_> = (0..50).map(|_| key()).collect();
        let mut waiting = Vec::new();
        for number in 0..DEVICES {
            let request = TokenRequest {
                common_name: format!("device-{number}"),
                subject_alt_names: Vec::new(),
                profile: "client".into(),
                lifetime: Duration::from_secs(3600),
            };
            let token = authority.token(request).await.unwrap();
            let wanted = if number % CONTESTED == 0 { 2 } else { 1 };
            let keys = keys.iter().cycle().skip(number).take(wanted).cloned().collect();
            waiting.push(Device { token, keys });
        }
        Self {
            authority,
            waiting: Mutex::new(waiting),
            handed_out: Mutex::default(),
            done: AtomicUsize::new(0),
        }
    }

    fn client(&self) -> Client {
        let trust = Trust::RootFingerprint(self.authority.root().fingerprint());
        Client::new(self.authority.config().url.clone(), trust).unwrap()
    }

    async fn enrol(self: Arc<Self>) {
        let mut workers = JoinSet::new();
        for _ in 0..AT_ONCE {
            let devices = self.clone();
            workers.spawn(async move {
                loop {
                    let Some(device) = devices.waiting.lock().unwrap().pop() else { return };
                    devices.enrol_one(device).await;
                    devices.done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        workers.join_all().await;
    }

    /// Until one of the keys has its certificate, and each other one a refusal.
    async fn enrol_one(&self, device: Device) {
        let won = Arc::new(AtomicBool::new(false));
        let mut racers = JoinSet::new();
        for key in device.keys {
            let (client, token, won) = (self.client(), device.token.clone(), won.clone());
            racers.spawn(async move {
                let csr = create_csr(&*key, &DistinguishedName::default(), &[], &SignContext::new("a test"))
                    .unwrap();
                let until = Instant::now() + PATIENCE;
                loop {
                    match client.simpleenroll(&csr, token.secret()).await {
                        Ok(mut issued) => {
                            assert!(!won.swap(true, Ordering::Relaxed), "one token, two keys");
                            let certificate = issued.remove(0);
                            assert_eq!(certificate.spki(), key.info().spki);
                            return Some(Issued { certificate, key });
                        }
                        Err(error) if error.to_string().contains("used already") => return None,
                        Err(error) => assert!(Instant::now() < until, "{error}"),
                    }
                }
            });
        }
        let outcomes = racers.join_all().await;
        let issued = outcomes.into_iter().flatten().next().expect("somebody has won");
        self.handed_out.lock().unwrap().push(issued);
    }
}

fn key() -> Arc<SoftKey> {
    Arc::new(SoftKey::generate("soft:name=device".parse().unwrap(), Algorithm::P256).unwrap())
}
