//! What a key that waits does to handshakes that do not need it: `cargo bench --bench off_path`.
//!
//! A thousand handshakes with software keys on a runtime of two workers; the same while one
//! handshake waits two seconds for a touch; the same while twenty want a device that takes 50 ms for
//! a signature, one at a time. Beside them: what comes of it when such a key signs inline, on the
//! worker that drives the connection, as rustls does by itself.
//!
//! Handshakes arrive at a steady rate whatever becomes of those before them, and their latency counts
//! from when they were due: otherwise a worker that stands still would delay only those that it is at.

use std::error::Error;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use enclasp_benches::measure::{median, micros, quantile};
use enclasp_benches::process::played_a_role;
use enclasp_benches::report::{Bound, Report, Row, Settings};
use enclasp_benches::tls::{Authority, Ends, new_name};
use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{
    Algorithm, Input, Key, KeyInfo, KeyUri, Presence, Scheme, SignContext, Signature, Verification,
};
use enclasp_tls::Version;
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Worker threads of the runtime.
const WORKERS: usize = 2;

/// The handshakes that are measured, and how often one arrives.
const OTHERS: u32 = 1000;
const EVERY: Duration = Duration::from_millis(1);

const TOUCH: Duration = Duration::from_secs(2);
const DEVICE: Duration = Duration::from_millis(50);

/// What the p99 may be of that without a key that waits.
const P99: Bound = Bound::AtMost(1.2);

fn main() -> Outcome<()> {
    if played_a_role() {
        return Ok(());
    }
    let settings = Settings::from_arguments()?;
    let mut report = Report::new(settings.rounds);
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let authority = Authority::new()?;
    let soft = |name: &str| SoftKey::generate(KeyUri::soft(name)?, Algorithm::P256);
    let client = || authority.client_with(soft("client")?);
    let server = || authority.server_with(soft("server")?);
    let others = Ends::new(&authority, client()?, server()?, Version::Tls13)?;

    let waits = |way| {
        let (key, begun) = SlowKey::new(TOUCH, way)?;
        let ends = Ends::new(&authority, authority.client_with(key)?, server()?, Version::Tls13)?;
        Outcome::Ok(Slow { ends, begun, handshakes: 1 })
    };
    let is_slow = |way| {
        let (key, begun) = SlowKey::new(DEVICE, way)?;
        let ends = Ends::new(&authority, client()?, authority.server_with(key)?, Version::Tls13)?;
        Outcome::Ok(Slow { ends, begun, handshakes: 20 })
    };
    let subjects = [
        ("nobody waits", None),
        ("**1 client's key waits for a touch of 2 s**", Some(waits(Way::Touch)?)),
        ("the same, signing inline", Some(waits(Way::Inline)?)),
        ("**20 want a server's key that takes 50 ms**", Some(is_slow(Way::Hardware)?)),
        ("the same, signing inline", Some(is_slow(Way::Inline)?)),
    ];
    // The first is a rehearsal.
    let rounds: Vec<Vec<Run>> = (0..=settings.rounds)
        .map(|_| subjects.iter().map(|(_, slow)| run(&runtime, &others, slow.as_ref())).collect())
        .skip(1)
        .collect();

    let over_rounds =
        |value: &dyn Fn(&[Run]) -> f64| median(rounds.iter().map(|round| value(round)).collect());
    let row = |(i, (name, _)): (usize, &(&'static str, _))| Latencies {
        name,
        p50_us: over_rounds(&|round| round[i].p50_us),
        p99_us: over_rounds(&|round| round[i].p99_us),
        worst_us: over_rounds(&|round| round[i].worst_us),
        p99_ratio: over_rounds(&|round| round[i].p99_us / round[0].p99_us),
        meanwhile: over_rounds(&|round| round[i].meanwhile),
        slow_ms: over_rounds(&|round| round[i].slow_ms),
    };
    let rows: Vec<_> = subjects.iter().enumerate().map(row).collect();
    for (what, row) in [("a touch of 2 s", &rows[1]), ("a device of 50 ms", &rows[3])] {
        report.target(format!("p99 of handshakes beside {what}"), row.p99_ratio, P99);
    }
    let title = format!("{OTHERS} full TLS 1.3 handshakes, one each {EVERY:?}, on {WORKERS} workers");
    report.table(title, &rows);
    report.print(settings.json);
    Ok(())
}

/// The handshakes with a key that waits.
struct Slow {
    ends: Ends,
    /// Told when the key begins to sign.
    begun: Receiver<()>,
    handshakes: usize,
}

struct Run {
    p50_us: f64,
    p99_us: f64,
    worst_us: f64,
    meanwhile: f64,
    slow_ms: f64,
}

#[derive(Serialize)]
struct Latencies {
    name: &'static str,
    p50_us: f64,
    p99_us: f64,
    worst_us: f64,
    /// `p99_us` over that of the first row in the same round.
    p99_ratio: f64,
    /// The share of the handshakes that were due while the slow ones were under way.
    meanwhile: f64,
    /// How long all of the slow ones took.
    slow_ms: f64,
}

impl Row for Latencies {
    const COLUMNS: &'static [&'static str] =
        &["p50 µs", "p99 µs", "worst µs", "p99 ×", "meanwhile", "the slow ones, ms"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_owned(),
            format!("{:.0}", self.p50_us),
            format!("{:.0}", self.p99_us),
            format!("{:.0}", self.worst_us),
            format!("{:.2}", self.p99_ratio),
            format!("{:.0} %", self.meanwhile * 100.0),
            format!("{:.0}", self.slow_ms),
        ]
    }
}

/// Measures the others once, beginning when the slow key is at work.
fn run(runtime: &Runtime, others: &Ends, slow: Option<&Slow>) -> Run {
    let began = Instant::now();
    let waiting: Vec<_> = slow
        .map(|slow| (0..slow.handshakes).map(|_| handshake(runtime, &slow.ends)).collect())
        .unwrap_or_default();
    if let Some(slow) = slow {
        slow.begun.recv().expect("the key is there");
    }
    let first = Instant::now();
    let arriving = (0..OTHERS).map(|number| {
        let due = first + EVERY * number;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        (due, handshake(runtime, others))
    });
    let arrived: Vec<_> = arriving.collect();
    let measured: Vec<(Instant, Duration)> = runtime.block_on(async {
        let mut measured = Vec::with_capacity(arrived.len());
        for (due, task) in arrived {
            measured.push((due, task.await.expect("a task panicked") - due));
        }
        measured
    });
    let slow_until = runtime.block_on(async {
        let mut last = began;
        for task in waiting {
            last = last.max(task.await.expect("a task panicked"));
        }
        last
    });
    if let Some(slow) = slow {
        // The rest of what the key said.
        while slow.begun.try_recv().is_ok() {}
    }
    let meanwhile = measured.iter().filter(|(due, _)| *due < slow_until).count();
    let mut latencies: Vec<_> = measured.into_iter().map(|(_, latency)| latency).collect();
    latencies.sort_unstable();
    Run {
        p50_us: micros(quantile(&latencies, 50)),
        p99_us: micros(quantile(&latencies, 99)),
        worst_us: micros(quantile(&latencies, 100)),
        meanwhile: meanwhile as f64 / f64::from(OTHERS),
        slow_ms: micros(slow_until - began) / 1e3,
    }
}

/// One handshake on the workers; when it was done.
fn handshake(runtime: &Runtime, ends: &Ends) -> tokio::task::JoinHandle<Instant> {
    let ends = ends.clone();
    runtime.spawn(async move {
        assert!(!ends.handshake(&new_name()).await, "the handshake was resumed");
        Instant::now()
    })
}

/// How a slow key is known to TLS.
#[derive(Clone, Copy)]
enum Way {
    /// It asks a person.
    Touch,
    /// It is hardware.
    Hardware,
    /// It passes for a software key that signs at once, so that it is called on the worker.
    Inline,
}

/// A key that sleeps before it signs, and does one thing at a time.
struct SlowKey {
    key: SoftKey,
    info: KeyInfo,
    immediate: bool,
    lasts: Duration,
    device: Mutex<()>,
    begins: Sender<()>,
}

impl SlowKey {
    fn new(lasts: Duration, way: Way) -> Outcome<(Self, Receiver<()>)> {
        let key = SoftKey::generate(KeyUri::soft("slow")?, Algorithm::P256)?;
        let mut info = key.info().clone();
        match way {
            Way::Touch => info.policy.presence = Presence::Confirm,
            Way::Hardware => info.uri = KeyUri::tpm("slow", None)?,
            Way::Inline => {}
        }
        let immediate = matches!(way, Way::Inline);
        let (begins, begun) = mpsc::channel();
        Ok((Self { key, info, immediate, lasts, device: Mutex::default(), begins }, begun))
    }
}

impl Key for SlowKey {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(
        &self,
        scheme: Scheme,
        input: Input<'_>,
        ctx: &SignContext,
    ) -> enclasp_keystore::Result<Signature> {
        let _device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody listens to it when the bench is over.
        let _ = self.begins.send(());
        std::thread::sleep(self.lasts);
        self.key.sign(scheme, input, ctx)
    }

    fn verification(&self) -> Verification {
        self.key.verification()
    }

    fn is_immediate(&self) -> bool {
        self.immediate
    }
}
