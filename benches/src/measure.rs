//! Latency, throughput and CPU time of several subjects, measured in turns.

use std::fs;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// How long one subject has its turn, about.
const TURN: Duration = Duration::from_millis(60);

/// One thing that is measured.
pub struct Subject<'a> {
    name: String,
    processes: Vec<u32>,
    callers: usize,
    times: usize,
    work: Box<dyn Fn() + Sync + 'a>,
}

impl<'a> Subject<'a> {
    /// `work` is one operation.
    pub fn new(name: impl Into<String>, work: impl Fn() + Sync + 'a) -> Self {
        Self { name: name.into(), processes: Vec::new(), callers: 1, times: 1, work: Box::new(work) }
    }

    /// A process that `work` calls upon; its CPU time counts too.
    pub fn with_process(mut self, pid: u32) -> Self {
        self.processes.push(pid);
        self
    }

    /// How many threads do it at once; one otherwise.
    pub fn from_callers(mut self, callers: usize) -> Self {
        self.callers = callers;
        self
    }

    /// How many operations `work` is.
    pub fn of_operations(mut self, times: usize) -> Self {
        self.times = times;
        self
    }
}

/// What came out for one subject: the medians over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The subject.
    pub name: String,
    /// Latency of an operation that half of all keep, in microseconds.
    pub p50_us: f64,
    /// Latency that 99 of 100 keep, in microseconds.
    pub p99_us: f64,
    /// Operations per second of real time.
    pub per_second: f64,
    /// CPU time of an operation in all processes that take part, in microseconds.
    pub cpu_us: f64,
    /// `p50_us` over that of the first subject in the same round.
    pub latency_ratio: f64,
    /// `cpu_us` over that of the first subject in the same round.
    pub cpu_ratio: f64,
}

impl Measured {
    /// Operations per second of CPU time.
    pub fn per_cpu_second(&self) -> f64 {
        1e6 / self.cpu_us
    }
}

/// What came out, round by round.
pub struct Rounds {
    names: Vec<String>,
    runs: Vec<Vec<Run>>,
}

/// What came out for one subject in one round. The unit of time is the microsecond.
pub struct Run {
    /// As in [`Measured`].
    pub p50_us: f64,
    /// As in [`Measured`].
    pub p99_us: f64,
    /// As in [`Measured`].
    pub per_second: f64,
    /// As in [`Measured`].
    pub cpu_us: f64,
}

impl Rounds {
    /// The median over all rounds of a value that is taken within each round, of the runs in the
    /// order of the subjects.
    pub fn median(&self, value: impl Fn(&[Run]) -> f64) -> f64 {
        median(self.runs.iter().map(|round| value(round)).collect())
    }

    /// The medians for each subject. The first one is what the others' ratios refer to.
    pub fn summary(&self) -> Vec<Measured> {
        let summary = |(i, name): (usize, &String)| Measured {
            name: name.clone(),
            p50_us: self.median(|round| round[i].p50_us),
            p99_us: self.median(|round| round[i].p99_us),
            per_second: self.median(|round| round[i].per_second),
            cpu_us: self.median(|round| round[i].cpu_us),
            latency_ratio: self.median(|round| round[i].p50_us / round[0].p50_us),
            cpu_ratio: self.median(|round| round[i].cpu_us / round[0].cpu_us),
        };
        self.names.iter().enumerate().map(summary).collect()
    }
}

/// Gives each subject its turn in each of `rounds` rounds.
pub fn in_turns(rounds: usize, subjects: &[Subject<'_>]) -> Rounds {
    let calls: Vec<_> = subjects.iter().map(calls_in_a_turn).collect();
    let round = |_| subjects.iter().zip(&calls).map(|(subject, calls)| run(subject, *calls)).collect();
    Rounds {
        names: subjects.iter().map(|subject| subject.name.clone()).collect(),
        runs: (0..rounds).map(round).collect(),
    }
}

/// How often each caller calls, which also warms up what is called.
fn calls_in_a_turn(subject: &Subject<'_>) -> usize {
    let began = Instant::now();
    let mut calls = 0;
    while began.elapsed() < TURN / 4 {
        (subject.work)();
        calls += 1;
    }
    (4 * calls / subject.callers).max(10)
}

fn run(subject: &Subject<'_>, calls: usize) -> Run {
    let cpu = || own_cpu_time() + subject.processes.iter().map(|pid| cpu_time_of(*pid)).sum::<Duration>();
    let (before, began) = (cpu(), Instant::now());
    let mut latencies =
        if subject.callers == 1 { timed(&subject.work, calls) } else { side_by_side(subject, calls) };
    let (elapsed, spent) = (began.elapsed(), cpu() - before);
    latencies.sort_unstable();
    let times = subject.times as f64;
    let total = latencies.len() as f64 * times;
    Run {
        p50_us: micros(quantile(&latencies, 50)) / times,
        p99_us: micros(quantile(&latencies, 99)) / times,
        per_second: total / elapsed.as_secs_f64(),
        cpu_us: micros(spent) / total,
    }
}

/// What so many of 100 of the `sorted` latencies keep.
pub fn quantile(sorted: &[Duration], of_100: usize) -> Duration {
    sorted[(sorted.len() - 1) * of_100 / 100]
}

fn side_by_side(subject: &Subject<'_>, calls: usize) -> Vec<Duration> {
    let start = Barrier::new(subject.callers);
    std::thread::scope(|scope| {
        let caller = || {
            start.wait();
            timed(&subject.work, calls)
        };
        let callers: Vec<_> = (0..subject.callers).map(|_| scope.spawn(caller)).collect();
        callers.into_iter().flat_map(|caller| caller.join().expect("a caller panicked")).collect()
    })
}

fn timed(work: &dyn Fn(), calls: usize) -> Vec<Duration> {
    let mut latencies = Vec::with_capacity(calls);
    for _ in 0..calls {
        let began = Instant::now();
        work();
        latencies.push(began.elapsed());
    }
    latencies
}

/// The CPU time that this process has taken.
pub fn own_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The CPU time that another process has taken. The sum over its threads is exact while they sleep and
/// misses those that have ended; `/proc/PID/stat` misses none and counts in hundredths of a second.
pub fn cpu_time_of(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process is gone");
    let of_task = |task: std::io::Result<fs::DirEntry>| {
        // A thread may end meanwhile.
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let living = Duration::from_nanos(tasks.filter_map(of_task).sum());
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, which comes before, may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    living.max(Duration::from_millis(10 * ticks))
}

/// In microseconds.
pub fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}

/// The one in the middle of `values`, of which there is one at least.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
