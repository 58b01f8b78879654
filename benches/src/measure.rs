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
    process: Option<u32>,
    work: Box<dyn Fn() + Sync + 'a>,
}

impl<'a> Subject<'a> {
    /// `work` is one operation.
    pub fn new(name: impl Into<String>, work: impl Fn() + Sync + 'a) -> Self {
        Self { name: name.into(), process: None, work: Box::new(work) }
    }

    /// The process that `work` calls upon; its CPU time counts too.
    pub fn with_process(mut self, pid: u32) -> Self {
        self.process = Some(pid);
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

/// Gives each subject its turn in each of `rounds` rounds, with `threads` callers at once. The
/// first subject is what the others' ratios refer to.
pub fn in_turns(rounds: usize, threads: usize, subjects: &[Subject<'_>]) -> Vec<Measured> {
    let calls: Vec<_> = subjects.iter().map(|subject| calls_in_a_turn(subject, threads)).collect();
    let runs: Vec<Vec<Run>> = (0..rounds)
        .map(|_| subjects.iter().zip(&calls).map(|(subject, calls)| run(subject, threads, *calls)).collect())
        .collect();
    let over_rounds = |value: &dyn Fn(&[Run]) -> f64| median(runs.iter().map(|round| value(round)).collect());
    let summary = |(i, subject): (usize, &Subject<'_>)| Measured {
        name: subject.name.clone(),
        p50_us: over_rounds(&|round| round[i].p50_us),
        p99_us: over_rounds(&|round| round[i].p99_us),
        per_second: over_rounds(&|round| round[i].per_second),
        cpu_us: over_rounds(&|round| round[i].cpu_us),
        latency_ratio: over_rounds(&|round| round[i].p50_us / round[0].p50_us),
        cpu_ratio: over_rounds(&|round| round[i].cpu_us / round[0].cpu_us),
    };
    subjects.iter().enumerate().map(summary).collect()
}

struct Run {
    p50_us: f64,
    p99_us: f64,
    per_second: f64,
    cpu_us: f64,
}

/// How often each thread calls, which also warms up what is called.
fn calls_in_a_turn(subject: &Subject<'_>, threads: usize) -> usize {
    let began = Instant::now();
    let mut calls = 0;
    while began.elapsed() < TURN / 4 {
        (subject.work)();
        calls += 1;
    }
    (4 * calls / threads).max(10)
}

fn run(subject: &Subject<'_>, threads: usize, calls: usize) -> Run {
    let cpu = || own_cpu_time() + subject.process.map_or(Duration::ZERO, cpu_time_of);
    let (before, began) = (cpu(), Instant::now());
    let mut latencies =
        if threads == 1 { timed(&subject.work, calls) } else { side_by_side(subject, threads, calls) };
    let (elapsed, spent) = (began.elapsed(), cpu() - before);
    latencies.sort_unstable();
    let quantile = |of_100: usize| micros(latencies[(latencies.len() - 1) * of_100 / 100]);
    let total = latencies.len() as f64;
    Run {
        p50_us: quantile(50),
        p99_us: quantile(99),
        per_second: total / elapsed.as_secs_f64(),
        cpu_us: micros(spent) / total,
    }
}

fn side_by_side(subject: &Subject<'_>, threads: usize, calls: usize) -> Vec<Duration> {
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        let caller = || {
            start.wait();
            timed(&subject.work, calls)
        };
        let callers: Vec<_> = (0..threads).map(|_| scope.spawn(caller)).collect();
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

fn own_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The CPU time of the threads that another process has, in nanoseconds and exact while they
/// sleep (`/proc/PID/stat` counts in hundredths of a second).
fn cpu_time_of(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process is gone");
    let of_task = |task: std::io::Result<fs::DirEntry>| {
        // A thread may end meanwhile.
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(of_task).sum())
}

fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
