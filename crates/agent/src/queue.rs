//! Work that may take long, in a bounded queue for each key.
//!
//! A key's queue has a few threads, as many as its keystore can use, which come when there is work
//! and go when there is none. Connections take turns in it, so that one that wants a thousand
//! signatures does not keep another from its first. Who comes when it is full is refused at once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use enclasp_keystore::Cancel;

use crate::server::STACK;

/// How many jobs may wait in one queue, and of one connection.
const LENGTH: usize = 64;
const LENGTH_OF_A_CONNECTION: usize = 32;

/// How many threads work at once for all keys.
const MAX_THREADS: usize = 64;

/// How long a thread waits for more to do.
const LINGER: Duration = Duration::from_secs(5);

/// How long after a job's deadline its thread is given up for lost.
const GRACE: Duration = Duration::from_secs(5);

/// A piece of work, and until when somebody waits for it.
pub(crate) struct Job {
    pub(crate) deadline: Instant,
    pub(crate) cancel: Cancel,
    /// Also called when the deadline has passed while it waited, to say so; not when it was
    /// cancelled.
    pub(crate) work: Box<dyn FnOnce() + Send>,
}

/// The queues of all keys.
#[derive(Clone)]
pub(crate) struct Queues(Arc<Shared>);

struct Shared {
    /// How many threads one queue may have.
    width: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queues: HashMap<String, Queue>,
    /// The deadlines of the jobs that are being done.
    running: HashMap<u64, Instant>,
    begun: u64,
    threads: usize,
}

#[derive(Default)]
struct Queue {
    /// The jobs of each connection; the connection at the front is next.
    waiting: VecDeque<(u64, VecDeque<Job>)>,
    length: usize,
    threads: usize,
    idle: usize,
    more: Arc<Condvar>,
}

impl Queues {
    pub(crate) fn new(width: usize) -> Self {
        Self(Arc::new(Shared { width, state: Mutex::default() }))
    }

    /// Puts a job of a connection into the queue `name`.
    ///
    /// # Errors
    /// Why it cannot be taken now.
    pub(crate) fn submit(&self, name: &str, connection: u64, job: Job) -> Result<(), String> {
        let mut state = self.0.state();
        let all_threads = state.threads;
        let queue = state.queues.entry(name.to_owned()).or_default();
        if queue.length >= LENGTH {
            queue.drop_cancelled();
        }
        if queue.length >= LENGTH {
            return Err(format!("{LENGTH} others wait for the key already"));
        }
        let own = queue.waiting.iter_mut().find(|(of, _)| *of == connection);
        match own {
            Some((_, jobs)) if jobs.len() >= LENGTH_OF_A_CONNECTION => {
                return Err(format!("{LENGTH_OF_A_CONNECTION} of this connection wait for the key already"));
            }
            Some((_, jobs)) => jobs.push_back(job),
            None => queue.waiting.push_back((connection, VecDeque::from([job]))),
        }
        queue.length += 1;
        if queue.idle >= queue.length {
            let more = queue.more.clone();
            drop(state);
            more.notify_one();
            return Ok(());
        }
        if queue.threads >= self.0.width {
            return Ok(());
        }
        let started = if all_threads < MAX_THREADS {
            let (shared, name) = (self.0.clone(), name.to_owned());
            let work = move || shared.work(&name);
            let thread = thread::Builder::new().name("key".into()).stack_size(STACK).spawn(work);
            thread.map(drop).map_err(|e| e.to_string())
        } else {
            Err(format!("{MAX_THREADS} threads work for other keys"))
        };
        match started {
            Ok(()) => {
                queue.threads += 1;
                state.threads += 1;
                Ok(())
            }
            // Another thread of this queue will come to it.
            Err(_) if queue.threads > 0 => Ok(()),
            Err(reason) => {
                state.queues.remove(name);
                Err(reason)
            }
        }
    }

    /// Ends this process when a job does not come back, since a call of a module or a driver cannot
    /// be interrupted. The next client starts another.
    pub(crate) fn watch(&self) -> std::io::Result<()> {
        let shared = self.0.clone();
        let watch = move || {
            loop {
                thread::sleep(Duration::from_secs(1));
                let now = Instant::now();
                let lost = |deadline: &Instant| now.saturating_duration_since(*deadline) > GRACE;
                if shared.state().running.values().any(lost) {
                    tracing::error!("ending: the keystore has not come back from a call; it hangs");
                    std::process::abort();
                }
            }
        };
        thread::Builder::new().name("watch".into()).spawn(watch).map(drop)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the jobs of a queue until there are none for a while.
    fn work(&self, name: &str) {
        let mut state = self.state();
        while let Some(queue) = state.queues.get_mut(name) {
            if let Some(job) = queue.next() {
                if job.cancel.is_cancelled() {
                    continue;
                }
                state.begun += 1;
                let number = state.begun;
                state.running.insert(number, job.deadline);
                drop(state);
                // A job that panics has answered nobody; its queue goes on.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job.work));
                state = self.state();
                state.running.remove(&number);
                continue;
            }
            queue.idle += 1;
            let more = queue.more.clone();
            let (woken, waited) = more.wait_timeout(state, LINGER).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            let Some(queue) = state.queues.get_mut(name) else { break };
            queue.idle -= 1;
            if waited.timed_out() && queue.length == 0 {
                queue.threads -= 1;
                if queue.threads == 0 {
                    state.queues.remove(name);
                }
                break;
            }
        }
        state.threads -= 1;
    }
}

impl Queue {
    /// The next connection's first job; the connection goes to the end.
    fn next(&mut self) -> Option<Job> {
        let (connection, mut jobs) = self.waiting.pop_front()?;
        let job = jobs.pop_front();
        if !jobs.is_empty() {
            self.waiting.push_back((connection, jobs));
        }
        self.length -= usize::from(job.is_some());
        job
    }

    fn drop_cancelled(&mut self) {
        for (_, jobs) in &mut self.waiting {
            jobs.retain(|job| !job.cancel.is_cancelled());
        }
        self.waiting.retain(|(_, jobs)| !jobs.is_empty());
        self.length = self.waiting.iter().map(|(_, jobs)| jobs.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    /// Jobs that wait until they are let go, and say their names.
    struct Bench {
        queues: Queues,
        said: (Sender<&'static str>, Receiver<&'static str>),
    }

    impl Bench {
        fn new(width: usize) -> Self {
            Self { queues: Queues::new(width), said: mpsc::channel() }
        }

        fn submit(&self, key: &str, connection: u64, says: &'static str) -> (Result<(), String>, Cancel) {
            self.submit_after(key, connection, says, None)
        }

        fn submit_after(
            &self,
            key: &str,
            connection: u64,
            says: &'static str,
            gate: Option<Receiver<()>>,
        ) -> (Result<(), String>, Cancel) {
            let (said, cancel) = (self.said.0.clone(), Cancel::default());
            let work = move || {
                if let Some(gate) = gate {
                    let _ = gate.recv();
                }
                let _ = said.send(says);
            };
            let deadline = Instant::now() + Duration::from_secs(60);
            let job = Job { deadline, cancel: cancel.clone(), work: Box::new(work) };
            (self.queues.submit(key, connection, job), cancel)
        }

        fn hears(&self, count: usize) -> Vec<&'static str> {
            let next = || self.said.1.recv_timeout(Duration::from_secs(20)).expect("a job is done");
            (0..count).map(|_| next()).collect()
        }
    }

    #[test]
    fn a_full_queue_refuses_at_once_and_only_its_own_key() {
        let bench = Bench::new(1);
        let (open, gate) = mpsc::channel();
        bench.submit_after("slow", 0, "first", Some(gate)).0.unwrap();
        let mut cancels = Vec::new();
        let refusal = loop {
            let (outcome, cancel) = bench.submit("slow", cancels.len() as u64, "next");
            match outcome {
                Ok(()) => cancels.push(cancel),
                Err(reason) => break reason,
            }
            assert!(cancels.len() <= LENGTH + 1);
        };
        assert!(refusal.contains("wait for the key"), "{refusal}");
        bench.submit("other", 0, "other").0.unwrap();
        assert_eq!(bench.hears(1), ["other"]);
        // Who has gone makes room.
        cancels.iter().for_each(Cancel::cancel);
        bench.submit("slow", 7, "last").0.unwrap();
        open.send(()).unwrap();
        assert_eq!(bench.hears(2), ["first", "last"]);
    }

    #[test]
    fn one_connection_does_not_fill_the_queue() {
        let bench = Bench::new(1);
        let (_open, gate) = mpsc::channel();
        bench.submit_after("k", 1, "first", Some(gate)).0.unwrap();
        let taken = (0..=LENGTH).take_while(|_| bench.submit("k", 1, "more").0.is_ok()).count();
        // The first may have been begun, or wait with them.
        assert!((LENGTH_OF_A_CONNECTION - 1..=LENGTH_OF_A_CONNECTION).contains(&taken), "{taken}");
        bench.submit("k", 2, "another's").0.unwrap();
    }

    #[test]
    fn connections_take_turns() {
        let bench = Bench::new(1);
        let (open, gate) = mpsc::channel();
        bench.submit_after("k", 9, "gate", Some(gate)).0.unwrap();
        for says in ["a1", "a2", "a3"] {
            bench.submit("k", 1, says).0.unwrap();
        }
        bench.submit("k", 2, "b1").0.unwrap();
        let cancelled = bench.submit("k", 3, "c1").1;
        cancelled.cancel();
        open.send(()).unwrap();
        assert_eq!(bench.hears(5), ["gate", "a1", "b1", "a2", "a3"]);
    }

    #[test]
    fn a_wide_queue_does_several_at_once() {
        let bench = Bench::new(2);
        let (open, gate) = mpsc::channel();
        bench.submit_after("k", 1, "waits", Some(gate)).0.unwrap();
        bench.submit("k", 1, "passes").0.unwrap();
        assert_eq!(bench.hears(1), ["passes"]);
        open.send(()).unwrap();
        assert_eq!(bench.hears(1), ["waits"]);
    }
}
