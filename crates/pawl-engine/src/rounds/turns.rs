//! Who comes next where rounds that run side by side add to one sum: the same step of the round before must have
//! added first, so that the sum has one order.
//!
//! It refuses to wait for a round that panicked.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How often a thread looks for its turn before it sleeps: as long as a thread of the pool looks for work.
const NUM_SPINS: u32 = 2_000;

/// How far each round has come.
pub(super) struct Turns {
    next: AtomicUsize,
    /// Steps that each round has done.
    done: Vec<AtomicUsize>,
    failed: AtomicBool,
    num_waiting: AtomicUsize,
    sleep: Mutex<()>,
    changed: Condvar,
}

/// A round that its holder alone runs.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    pub(super) round: usize,
}

impl Turns {
    pub(super) fn new(num_rounds: usize) -> Turns {
        Turns {
            next: AtomicUsize::new(0),
            done: (0..num_rounds).map(|_| AtomicUsize::new(0)).collect(),
            failed: AtomicBool::new(false),
            num_waiting: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            changed: Condvar::new(),
        }
    }

    /// Begins again.
    pub(super) fn fill(&self) {
        self.done.iter().for_each(|done| done.store(0, SeqCst));
        self.failed.store(false, SeqCst);
        self.next.store(0, SeqCst);
    }

    /// The next round, which is given once all before it have been.
    pub(super) fn claim(&self) -> Option<Turn<'_>> {
        let round = self.next.fetch_add(1, SeqCst);
        (round < self.done.len() && !self.failed.load(SeqCst)).then_some(Turn { turns: self, round })
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // Nothing panics while it holds the lock.
        self.sleep.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Waits until the round before has done step `step_idx`; false if it never will.
    pub(super) fn wait(&self, step_idx: usize) -> bool {
        let Some(before) = self.round.checked_sub(1) else { return true };
        let Turns { done, failed, num_waiting, changed, .. } = self.turns;
        let is_over = || failed.load(SeqCst) || done[before].load(SeqCst) > step_idx;
        for _ in 0..NUM_SPINS {
            if is_over() {
                return !failed.load(SeqCst);
            }
            std::hint::spin_loop();
        }
        num_waiting.fetch_add(1, SeqCst);
        let mut guard = self.turns.lock();
        while !is_over() {
            guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        num_waiting.fetch_sub(1, SeqCst);
        !failed.load(SeqCst)
    }

    /// Step `step_idx` and all before it are done.
    pub(super) fn pass(&self, step_idx: usize) {
        self.turns.done[self.round].store(step_idx + 1, SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if self.turns.num_waiting.load(SeqCst) > 0 {
            drop(self.turns.lock());
            self.turns.changed.notify_all();
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.turns.failed.store(true, SeqCst);
            self.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_rounds_follow_one_another() {
        let turns = Turns::new(40);
        for _ in 0..3 {
            turns.fill();
            let seen = Mutex::new(Vec::new());
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        while let Some(turn) = turns.claim() {
                            for step in 0..4 {
                                assert!(turn.wait(step));
                                seen.lock().unwrap().push((step, turn.round));
                                turn.pass(step);
                            }
                        }
                    });
                }
            });
            for step in 0..4 {
                let seen = seen.lock().unwrap();
                let rounds: Vec<usize> =
                    seen.iter().filter(|(other, _)| *other == step).map(|(_, round)| *round).collect();
                assert_eq!(rounds, (0..40).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn nobody_waits_for_a_round_that_panicked() {
        let turns = Turns::new(3);
        let first = turns.claim().unwrap();
        let second = turns.claim().unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| second.wait(0));
            let panics = scope.spawn(move || {
                let _first = first;
                panic!("a kernel");
            });
            assert!(panics.join().is_err());
            assert!(!waits.join().unwrap());
        });
        assert!(turns.claim().is_none());
    }
}
