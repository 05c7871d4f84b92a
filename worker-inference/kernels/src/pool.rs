//! A few threads that share out numbered tasks by a fixed rule.
//!
//! No queue and no stealing: task `i` of `n` always belongs to the same thread, and nothing is summed across
//! threads, so timing can never reach a result. The calling thread works too. An idle thread spins for a moment,
//! because the next round of a forward pass is microseconds away, and then parks.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::hint::spin_loop;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

const SPIN_MAX: Duration = Duration::from_micros(50);

type Task<'a> = dyn Fn(usize) + Sync + 'a;

thread_local! {
    /// Set while this thread works for a pool: rounds do not nest.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held for a whole round: one round at a time.
    turn: Mutex<()>,
}

struct Shared {
    /// Counts rounds; a change is the signal to start.
    round: AtomicU64,
    /// Written by the caller before `round` moves, read by workers after they saw it move.
    job: UnsafeCell<Option<Job>>,
    /// Workers that have not finished this round.
    pending: AtomicUsize,
    stop: AtomicBool,
    caller_parked: AtomicBool,
    worker_parked: Vec<AtomicBool>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only while no worker is in a round (`pending == 0`, under `turn`), and read only in a
// round; `round` and `pending` order the two.
unsafe impl Sync for Shared {}
// SAFETY: the pointer inside `job` is used only during the round in which its referent is borrowed by `run`.
unsafe impl Send for Shared {}

#[derive(Clone)]
struct Job {
    task: *const Task<'static>,
    n_tasks: usize,
    caller: Thread,
}

impl Pool {
    /// A pool of `threads`, the caller's included; `on_start(i)` runs first on each worker, `i` from 1.
    pub(crate) fn new(threads: usize, on_start: impl Fn(usize) + Send + Sync + 'static) -> Pool {
        assert!((1..=1024).contains(&threads), "a pool has 1 to 1024 threads, not {threads}");
        let shared = Arc::new(Shared::new(threads));
        let on_start = Arc::new(on_start);
        let workers = (1..threads).map(|index| spawn(index, threads, &shared, on_start.clone())).collect();
        Pool { shared, workers, turn: Mutex::new(()) }
    }

    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(i)` for every `i < n_tasks`, each on the thread to which it belongs; returns when all are done.
    /// A panic in a task is raised here once the round is over.
    pub(crate) fn run(&self, n_tasks: usize, task: &Task<'_>) {
        assert!(!BUSY.get(), "a task of the pool started another round");
        if self.workers.is_empty() || n_tasks <= 1 {
            return (0..n_tasks).for_each(task);
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.start(n_tasks, task);
        let own = work(task, share(n_tasks, 0, self.threads()));
        self.shared.wait_for_workers();
        let others = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = own.err().or(others) {
            resume_unwind(panic);
        }
    }

    fn start(&self, n_tasks: usize, task: &Task<'_>) {
        // SAFETY: only the lifetime changes; `run` does not return before every worker is done with it.
        let task = unsafe { std::mem::transmute::<&Task<'_>, &Task<'static>>(task) };
        let job = Job { task, n_tasks, caller: thread::current() };
        // SAFETY: `turn` is held and `pending` is 0, so no worker reads.
        unsafe { *self.shared.job.get() = Some(job) };
        self.shared.pending.store(self.workers.len(), SeqCst);
        self.shared.round.fetch_add(1, SeqCst);
        for (worker, parked) in self.workers.iter().zip(&self.shared.worker_parked) {
            if parked.load(SeqCst) {
                worker.thread().unpark();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.shared.round.fetch_add(1, SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of its tasks, so this fails only if `on_start` panicked; not ours to raise.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn new(threads: usize) -> Shared {
        Shared {
            round: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            pending: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            caller_parked: AtomicBool::new(false),
            worker_parked: (1..threads).map(|_| AtomicBool::new(false)).collect(),
            panic: Mutex::new(None),
        }
    }

    fn wait_for_workers(&self) {
        wait(&self.caller_parked, || self.pending.load(SeqCst) == 0);
    }

    /// One worker's part of the round.
    fn take_part(&self, index: usize, threads: usize) {
        // SAFETY: in a round, `job` is set and not written.
        let job = unsafe { (*self.job.get()).clone() }.expect("a round has a job");
        // SAFETY: `run` borrows the task until `pending` is 0.
        let task = unsafe { &*job.task };
        if let Err(panic) = work(task, share(job.n_tasks, index, threads)) {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
        // `job.caller` is a clone: after the last decrement the caller may already write the next job.
        if self.pending.fetch_sub(1, SeqCst) == 1 && self.caller_parked.load(SeqCst) {
            job.caller.unpark();
        }
    }
}

fn spawn(
    index: usize,
    threads: usize,
    shared: &Arc<Shared>,
    on_start: Arc<impl Fn(usize) + Send + Sync + 'static>,
) -> JoinHandle<()> {
    let shared = shared.clone();
    let body = move || {
        on_start(index);
        let mut seen = 0;
        loop {
            wait(&shared.worker_parked[index - 1], || shared.round.load(SeqCst) != seen);
            seen += 1;
            if shared.stop.load(SeqCst) {
                return;
            }
            shared.take_part(index, threads);
        }
    };
    thread::Builder::new()
        .name(format!("kernels-{index}"))
        .spawn(body)
        .unwrap_or_else(|error| panic!("compute thread {index} of {threads} could not be started: {error}"))
}

/// Spins, then parks, until `ready`. Whoever makes it ready looks at `parked` afterwards and unparks.
fn wait(parked: &AtomicBool, ready: impl Fn() -> bool) {
    let start = Instant::now();
    while start.elapsed() < SPIN_MAX {
        for _ in 0..64 {
            if ready() {
                return;
            }
            spin_loop();
        }
    }
    parked.store(true, SeqCst);
    while !ready() {
        thread::park();
    }
    parked.store(false, SeqCst);
}

fn work(task: &Task<'_>, tasks: Range<usize>) -> thread::Result<()> {
    BUSY.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| tasks.for_each(task)));
    BUSY.set(false);
    result
}

/// The tasks of thread `index`: contiguous, and as even as whole numbers allow.
pub(crate) fn share(n_tasks: usize, index: usize, threads: usize) -> Range<usize> {
    n_tasks * index / threads..n_tasks * (index + 1) / threads
}

/// Items that several tasks of one round write, each in its own places.
pub(crate) struct Shards<'a, T> {
    start: *mut T,
    len: usize,
    borrowed: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]` whose users promise (in `slice`) to keep apart.
unsafe impl<T: Send> Sync for Shards<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shards<'_, T> {}

impl<'a, T> Shards<'a, T> {
    pub(crate) fn new(items: &'a mut [T]) -> Shards<'a, T> {
        Shards { start: items.as_mut_ptr(), len: items.len(), borrowed: std::marker::PhantomData }
    }

    /// Where the items `range` begin, for who writes some of them.
    #[inline(always)]
    pub(crate) fn pointer(&self, range: Range<usize>) -> *mut T {
        assert!(range.start <= range.end && range.end <= self.len, "shard {range:?} of {}", self.len);
        // SAFETY: inside the borrowed items.
        unsafe { self.start.add(range.start) }
    }

    /// The items `range`, to be written.
    ///
    /// # Safety
    /// No other slice that overlaps `range` may be alive.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        // SAFETY: inside the borrowed items, and exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(range.clone()), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn every_task_runs_once_in_every_round() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads, |_| ());
            for n_tasks in [0, 1, 2, 3, 7, 64] {
                let counts: Vec<AtomicUsize> = (0..n_tasks).map(|_| AtomicUsize::new(0)).collect();
                for _ in 0..20 {
                    pool.run(n_tasks, &|task| {
                        counts[task].fetch_add(1, Relaxed);
                    });
                }
                assert!(
                    counts.iter().all(|count| count.load(Relaxed) == 20),
                    "{threads} threads, {n_tasks} tasks"
                );
            }
        }
    }

    #[test]
    fn a_parked_pool_wakes_up() {
        let pool = Pool::new(3, |_| ());
        let deadline = Instant::now() + Duration::from_secs(10);
        for _ in 0..3 {
            while !pool.shared.worker_parked.iter().all(|parked| parked.load(SeqCst)) {
                assert!(Instant::now() < deadline, "idle workers never parked");
                thread::yield_now();
            }
            let count = AtomicUsize::new(0);
            pool.run(9, &|_| {
                count.fetch_add(1, Relaxed);
            });
            assert_eq!(count.load(Relaxed), 9);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2, |_| ());
        for bad in 0..4 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(4, &|task| assert_ne!(task, bad, "planted"));
            }));
            assert!(result.is_err());
            pool.run(4, &|_| ());
        }
    }

    #[test]
    fn workers_start_with_their_number() {
        let started = Arc::new(AtomicUsize::new(0));
        let seen = started.clone();
        let pool = Pool::new(4, move |index| {
            seen.fetch_add(index, Relaxed);
        });
        pool.run(4, &|_| ());
        assert_eq!(started.load(Relaxed), 1 + 2 + 3);
    }

    #[test]
    fn a_task_cannot_start_a_round() {
        let pool = Pool::new(2, |_| ());
        let nested = catch_unwind(AssertUnwindSafe(|| pool.run(2, &|_| pool.run(2, &|_| ()))));
        assert!(nested.is_err());
    }

    #[test]
    fn shares_cover_all_tasks_in_order() {
        for n_tasks in 0..20 {
            for threads in 1..6 {
                let all: Vec<usize> = (0..threads).flat_map(|index| share(n_tasks, index, threads)).collect();
                assert_eq!(all, (0..n_tasks).collect::<Vec<_>>());
            }
        }
    }
}
