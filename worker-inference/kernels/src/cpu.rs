//! The handle that every operation hangs on: an instruction set that this CPU has, and a pool of threads.

use crate::attention::Scratch;
use crate::isa::Isa;
use crate::pool::{Pool, Shards, share};
use crate::simd::{self, Operation};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Work smaller than this many numbers stays on the calling thread: waking another costs more. Tests share
/// everything, so that they see every split.
const SHARED_MIN: usize = if cfg!(test) { 1 } else { 16 * 1024 };

/// Instructions and threads. Results depend on neither. Rounds of several callers take turns; a task must not
/// start another round.
pub struct Cpu {
    isa: Isa,
    pool: Pool,
    scratch: Mutex<Scratch>,
}

impl Cpu {
    /// `threads` counts the calling thread, which does its own share of the work. `on_start(i)` runs once on each
    /// other thread, `i` from 1 to `threads - 1`: the place to pin it and to lower its priority.
    ///
    /// # Panics
    /// If this CPU lacks the instructions (ask [`Isa::pick`]), or for 0 or more than 1024 threads.
    pub fn new(isa: Isa, threads: usize, on_start: impl Fn(usize) + Send + Sync + 'static) -> Cpu {
        // Every vector instruction of the crate relies on this check.
        assert!(isa.is_available(), "this CPU lacks the instructions of the {isa} kernels");
        Cpu { isa, pool: Pool::new(threads, on_start), scratch: Mutex::default() }
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Calls `task(i)` for every `i < n_tasks`, shared out by a fixed rule; returns when all are done.
    pub fn run(&self, n_tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.pool.run(n_tasks, task);
    }

    pub(crate) fn perform<O: Operation>(&self, operation: O) -> O::Output {
        simd::run(self.isa, operation)
    }

    /// How many threads share work on this many numbers.
    pub(crate) fn threads_for(&self, numbers: usize) -> usize {
        if numbers < SHARED_MIN { 1 } else { self.threads() }
    }

    /// What attention keeps between calls. Callers take turns.
    pub(crate) fn attention_scratch(&self) -> MutexGuard<'_, Scratch> {
        // Whatever a panic left there is overwritten before it is read.
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `task(thread, threads)` once on every thread, or once as the only one if there is little to do.
    pub(crate) fn on_threads(&self, numbers: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        let threads = self.threads_for(numbers);
        self.pool.run(threads, &|thread| task(thread, threads));
    }

    /// Gives every thread some whole rows of `x` to change: `task(first_row, rows)`.
    pub(crate) fn on_rows(&self, x: &mut [f32], row_len: usize, task: &(dyn Fn(usize, &mut [f32]) + Sync)) {
        let (rows, numbers) = (x.len() / row_len, x.len());
        let shards = Shards::new(x);
        self.on_threads(numbers, &|thread, threads| {
            let own = share(rows, thread, threads);
            // SAFETY: the shares of two threads have no row in common.
            let slice = unsafe { shards.slice(own.start * row_len..own.end * row_len) };
            task(own.start, slice);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_move_to_the_engines_thread() {
        fn movable<T: Send + Sync>() {}
        movable::<Cpu>();
        movable::<crate::Arena>();
        movable::<crate::Matrix>();
        movable::<crate::KvPool>();
        movable::<crate::RopeTable>();
        movable::<crate::Activations>();
    }

    #[test]
    fn rows_are_given_out_once() {
        for threads in [1, 2, 3] {
            let cpu = Cpu::new(Isa::Scalar, threads, |_| ());
            let mut x = vec![0.0; 5 * 7000];
            cpu.on_rows(&mut x, 5, &|first, rows| {
                for (row, values) in rows.chunks_exact_mut(5).enumerate() {
                    values.iter_mut().for_each(|value| *value += (first + row) as f32);
                }
            });
            assert!(x.iter().enumerate().all(|(index, value)| *value == (index / 5) as f32));
        }
    }
}
