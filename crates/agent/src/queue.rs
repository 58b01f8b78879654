//! Work that may take long, in a bounded queue for each key.
//!
//! As much is done at once with one key as its keystore can use. Who brings work either leaves it
//! here ([`Queues::submit`]), for a few threads that come when there is such work and go when there is
//! none, or waits for its turn and does it itself ([`Queues::perform`]), which wakes one thread less.
//! Connections take turns, so that one that wants a thousand signatures does not keep another from its
//! first. Who comes when the queue is full is refused at once.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use enclasp_keystore::Cancel;

use crate::leaks::Limits;
use crate::server::STACK;

/// How many jobs may wait in one queue, and of one connection.
const LENGTH: usize = 64;
const LENGTH_OF_A_CONNECTION: usize = 32;

/// How many threads work at once for all keys.
const MAX_THREADS: usize = 64;

/// How long a thread waits for more to do.
const LINGER: Duration = Duration::from_secs(5);

/// How often who waits for its turn looks whether it is still wanted.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
    /// How many jobs of one queue are done at once.
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
    /// What waits, of each connection; the connection at the front is next.
    waiting: VecDeque<(u64, VecDeque<Waiting>)>,
    length: usize,
    /// How many jobs are being done.
    busy: usize,
    /// The threads that do what was left here.
    threads: usize,
    idle: usize,
    more: Arc<Condvar>,
}

enum Waiting {
    /// For a thread of the queue.
    Job(Job),
    /// For the thread that waits for this.
    Turn(Arc<Turn>),
}

/// The turn of a thread that does its job itself.
struct Turn {
    cancel: Cancel,
    /// Changes while the state is locked.
    has_come: AtomicBool,
    told: Condvar,
}

impl Queues {
    pub(crate) fn new(width: usize) -> Self {
        Self(Arc::new(Shared { width, state: Mutex::default() }))
    }

    /// Leaves a job of a connection in the queue `name`.
    ///
    /// # Errors
    /// Why it cannot be taken now.
    pub(crate) fn submit(&self, name: &str, connection: u64, job: Job) -> Result<(), String> {
        let mut state = self.0.state();
        let all_threads = state.threads;
        let queue = state.queues.entry(name.to_owned()).or_default();
        queue.push(connection, Waiting::Job(job))?;
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
                queue.take_back(connection, |waiting| matches!(waiting, Waiting::Job(_)));
                state.tidy(name);
                Err(reason)
            }
        }
    }

    /// Waits for the turn of a job of a connection in the queue `name`, and does it on this thread.
    ///
    /// # Errors
    /// Why it cannot be taken now.
    pub(crate) fn perform(&self, name: &str, connection: u64, job: Job) -> Result<(), String> {
        let mut state = self.0.state();
        let queue = state.queues.entry(name.to_owned()).or_default();
        if queue.length == 0 && queue.busy < self.0.width {
            queue.busy += 1;
            drop(self.0.do_job(state, name, job));
            return Ok(());
        }
        let turn = Arc::new(Turn {
            cancel: job.cancel.clone(),
            has_come: AtomicBool::new(false),
            told: Condvar::new(),
        });
        queue.push(connection, Waiting::Turn(turn.clone()))?;
        loop {
            let rest = job.deadline.saturating_duration_since(Instant::now());
            if turn.has_come.load(Ordering::Relaxed) {
                drop(self.0.do_job(state, name, job));
                return Ok(());
            }
            if job.cancel.is_cancelled() || rest.is_zero() {
                if let Some(queue) = state.queues.get_mut(name) {
                    let own = |waiting: &Waiting| matches!(waiting, Waiting::Turn(other) if Arc::ptr_eq(other, &turn));
                    queue.take_back(connection, own);
                }
                state.tidy(name);
                drop(state);
                if !job.cancel.is_cancelled() {
                    // It says that it is late.
                    (job.work)();
                }
                return Ok(());
            }
            let waited = turn.told.wait_timeout(state, rest.min(LOOK_AGAIN));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends this process when a job does not come back, since a call of a module or a driver cannot
    /// be interrupted, and when it is beyond its `limits`. The next client starts another.
    pub(crate) fn watch(&self, limits: Option<Limits>) -> std::io::Result<()> {
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
                if let Some(what) = limits.as_ref().and_then(Limits::exceeded) {
                    tracing::error!("ending: {what}; the keystore leaks");
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
            queue.give_turns(self.width);
            if let Some(job) = queue.next_job(self.width) {
                state = self.do_job(state, name, job);
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
                state.tidy(name);
                break;
            }
        }
        state.threads -= 1;
    }

    /// Does a job whose turn has come, and gives the turn to the next.
    fn do_job<'a>(&'a self, mut state: MutexGuard<'a, State>, name: &str, job: Job) -> MutexGuard<'a, State> {
        if !job.cancel.is_cancelled() {
            state.begun += 1;
            let number = state.begun;
            state.running.insert(number, job.deadline);
            drop(state);
            // A job that panics has answered nobody; its queue goes on.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job.work));
            state = self.state();
            state.running.remove(&number);
        }
        if let Some(queue) = state.queues.get_mut(name) {
            queue.busy -= 1;
            queue.give_turns(self.width);
            if queue.length > 0 && queue.idle > 0 {
                queue.more.notify_one();
            }
        }
        state.tidy(name);
        state
    }
}

impl State {
    /// Removes a queue that nobody needs any more.
    fn tidy(&mut self, name: &str) {
        if self.queues.get(name).is_some_and(|queue| queue.length + queue.busy + queue.threads == 0) {
            self.queues.remove(name);
        }
    }
}

impl Queue {
    fn push(&mut self, connection: u64, waiting: Waiting) -> Result<(), String> {
        if self.length >= LENGTH {
            self.drop_cancelled();
        }
        if self.length >= LENGTH {
            return Err(format!("{LENGTH} others wait for the key already"));
        }
        match self.waiting.iter_mut().find(|(of, _)| *of == connection) {
            Some((_, own)) if own.len() >= LENGTH_OF_A_CONNECTION => {
                return Err(format!("{LENGTH_OF_A_CONNECTION} of this connection wait for the key already"));
            }
            Some((_, own)) => own.push_back(waiting),
            None => self.waiting.push_back((connection, VecDeque::from([waiting]))),
        }
        self.length += 1;
        Ok(())
    }

    /// Takes back what of a connection came last, of that which is meant.
    fn take_back(&mut self, connection: u64, meant: impl Fn(&Waiting) -> bool) {
        let Some((_, own)) = self.waiting.iter_mut().find(|(of, _)| *of == connection) else { return };
        if let Some(last) = own.iter().rposition(meant) {
            own.remove(last);
            self.length -= 1;
        }
        self.waiting.retain(|(_, own)| !own.is_empty());
    }

    /// Gives their turn to the threads that are next, up to the next job for one of the queue's.
    fn give_turns(&mut self, width: usize) {
        while self.busy < width
            && let Some(Waiting::Turn(_)) = self.waiting.front().and_then(|(_, own)| own.front())
            && let Some(Waiting::Turn(turn)) = self.next()
        {
            // One that was cancelled leaves by itself.
            self.busy += 1;
            turn.has_come.store(true, Ordering::Relaxed);
            turn.told.notify_one();
        }
    }

    /// The next job for a thread of the queue, counted as being done.
    fn next_job(&mut self, width: usize) -> Option<Job> {
        if self.busy >= width {
            return None;
        }
        let Some(Waiting::Job(job)) = self.next() else { return None };
        self.busy += 1;
        Some(job)
    }

    /// What is next of the connection that is next; the connection goes to the end.
    fn next(&mut self) -> Option<Waiting> {
        let (connection, mut own) = self.waiting.pop_front()?;
        let next = own.pop_front();
        if !own.is_empty() {
            self.waiting.push_back((connection, own));
        }
        self.length -= usize::from(next.is_some());
        next
    }

    fn drop_cancelled(&mut self) {
        for (_, own) in &mut self.waiting {
            own.retain(|waiting| match waiting {
                Waiting::Job(job) => !job.cancel.is_cancelled(),
                Waiting::Turn(turn) => !turn.cancel.is_cancelled(),
            });
        }
        self.waiting.retain(|(_, own)| !own.is_empty());
        self.length = self.waiting.iter().map(|(_, own)| own.len()).sum();
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
            let (job, cancel) = self.job(says, gate, Duration::from_secs(60));
            (self.queues.submit(key, connection, job), cancel)
        }

        /// Has a thread of its own do a job in its turn, which takes longer than this to come or to end.
        fn perform(&self, key: &'static str, connection: u64, (job, cancel): (Job, Cancel)) -> Cancel {
            let before = self.present(key);
            let queues = self.queues.clone();
            thread::spawn(move || queues.perform(key, connection, job).unwrap());
            while self.present(key) == before {
                thread::yield_now();
            }
            cancel
        }

        fn job(&self, says: &'static str, gate: Option<Receiver<()>>, limit: Duration) -> (Job, Cancel) {
            let (said, cancel) = (self.said.0.clone(), Cancel::default());
            let work = move || {
                if let Some(gate) = gate {
                    let _ = gate.recv();
                }
                let _ = said.send(says);
            };
            let deadline = Instant::now() + limit;
            (Job { deadline, cancel: cancel.clone(), work: Box::new(work) }, cancel)
        }

        /// How many jobs of a key wait or are being done.
        fn present(&self, key: &str) -> usize {
            self.queues.0.state().queues.get(key).map_or(0, |queue| queue.length + queue.busy)
        }

        fn is_deserted(&self) {
            let until = Instant::now() + Duration::from_secs(20);
            while !self.queues.0.state().queues.is_empty() {
                assert!(Instant::now() < until, "a queue is left over");
                thread::sleep(Duration::from_millis(5));
            }
            assert!(self.queues.0.state().running.is_empty());
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

    #[test]
    fn who_does_its_job_itself_waits_for_its_turn_among_the_others() {
        let bench = Bench::new(1);
        let (open, gate) = mpsc::channel();
        let minute = Duration::from_secs(60);
        bench.perform("k", 9, bench.job("gate", Some(gate), minute));
        bench.perform("k", 1, bench.job("a1", None, minute));
        bench.submit("k", 1, "a2").0.unwrap();
        bench.perform("k", 2, bench.job("b1", None, minute));
        bench.perform("k", 3, bench.job("c1", None, minute)).cancel();
        bench.submit("k", 2, "b2").0.unwrap();
        // It leaves when nobody waits for it any more, and says so when it is late.
        bench.queues.perform("k", 4, bench.job("late", None, Duration::from_millis(1)).0).unwrap();
        assert_eq!(bench.hears(1), ["late"]);
        open.send(()).unwrap();
        assert_eq!(bench.hears(5), ["gate", "a1", "b1", "a2", "b2"]);
        bench.is_deserted();
    }

    #[test]
    fn a_job_that_panics_gives_its_turn_on() {
        let bench = Bench::new(1);
        let deadline = Instant::now() + Duration::from_secs(60);
        let job = || Job { deadline, cancel: Cancel::default(), work: Box::new(|| panic!("expected")) };
        bench.queues.perform("k", 1, job()).unwrap();
        bench.queues.submit("k", 1, job()).unwrap();
        bench.submit("k", 1, "next").0.unwrap();
        assert_eq!(bench.hears(1), ["next"]);
        bench.queues.perform("k", 2, bench.job("last", None, Duration::from_secs(60)).0).unwrap();
        assert_eq!(bench.hears(1), ["last"]);
    }
}
