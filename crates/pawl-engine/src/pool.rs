//! A fixed pool of threads that runs indexed tasks: the only parallelism of the engine.
//!
//! Tasks are claimed one by one, so a neighbour that takes a core slows the work down without stopping
//! it. The number of tasks is the caller's, a function of shapes and never of the number of threads:
//! that is what keeps results bit for bit the same on any machine of one kind. It refuses to nest, to
//! allocate per run, and to order tasks.

use std::any::Any;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How often an idle thread looks for work before it parks: about 40 us on Zen 4, longer than the gap
/// between two kernels of a step, short enough that two processes share a core fairly.
const NUM_SPINS: u32 = 2_000;

/// `num_threads - 1` parked workers and the caller.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `num_threads` threads, the caller of [`Pool::run`] included.
    pub fn new(num_threads: usize) -> Pool {
        assert!(num_threads >= 1, "a pool needs at least one thread, got {num_threads}");
        let shared = Arc::new(Shared::default());
        let workers = (1..num_threads)
            .map(|worker| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("pawl-{worker}"))
                    .spawn(move || shared.work(worker))
                    .expect("the system refused a thread")
            })
            .collect();
        Pool { shared, workers }
    }

    /// Threads that can run tasks at the same time; worker indices are below it.
    pub fn num_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(task_idx, worker_idx)` once for each of `num_tasks` tasks and returns when all are done.
    /// The caller takes part as worker 0. A panic in a task is raised again here once the others are done.
    pub fn run(&self, num_tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        if num_tasks <= 1 || self.workers.is_empty() {
            for idx in 0..num_tasks {
                task(idx, 0);
            }
            return;
        }
        self.shared.run(num_tasks, task);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches every panic of a task, so there is nothing to report here.
            drop(worker.join());
        }
    }
}

/// One call of [`Pool::run`]; lives on the caller's stack until its last task is done.
struct Batch<'a> {
    task: &'a (dyn Fn(usize, usize) + Sync),
    num_tasks: usize,
}

/// Keeps a counter on cache lines of its own (two: neighbours are prefetched in pairs).
#[repr(align(128))]
#[derive(Default)]
struct Apart<T>(T);

#[derive(Default)]
struct Shared {
    /// Epoch in the high half, unclaimed tasks in the low half. A claim that succeeds proves that the
    /// batch of that epoch is still running, so its pointer is still good.
    state: Apart<AtomicU64>,
    unfinished: Apart<AtomicUsize>,
    batch: AtomicPtr<Batch<'static>>,
    busy: AtomicBool,
    closing: AtomicBool,
    num_sleeping: AtomicUsize,
    caller_waits: AtomicBool,
    sleep: Mutex<()>,
    wake: Condvar,
    done: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Shared {
    fn run(&self, num_tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        assert!(num_tasks <= u32::MAX as usize, "{num_tasks} tasks are more than a pool counts");
        assert!(!self.busy.swap(true, SeqCst), "Pool::run does not nest and serves one caller at a time");
        let batch = Batch { task, num_tasks };
        self.batch.store((&raw const batch).cast_mut().cast(), SeqCst);
        self.unfinished.0.store(num_tasks, SeqCst);
        let epoch = (self.state.0.load(SeqCst) >> 32).wrapping_add(1) & u64::from(u32::MAX);
        self.state.0.store(epoch << 32 | num_tasks as u64, SeqCst);
        if self.num_sleeping.load(SeqCst) > 0 {
            drop(lock(&self.sleep));
            self.wake.notify_all();
        }
        while self.work_once(0) {}
        self.wait_until_done();
        let panic = lock(&self.panic).take();
        self.busy.store(false, SeqCst);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Claims and runs one task; false when none is left.
    fn work_once(&self, worker: usize) -> bool {
        let mut state = self.state.0.load(SeqCst);
        loop {
            if state as u32 == 0 {
                return false;
            }
            let batch = self.batch.load(SeqCst);
            match self.state.0.compare_exchange_weak(state, state - 1, SeqCst, SeqCst) {
                Ok(_) => {
                    // SAFETY: the claim succeeded, so this batch has an unfinished task (ours) and
                    // `run` cannot return, nor another batch be published, before we count it done.
                    let batch = unsafe { &*batch };
                    let idx = batch.num_tasks - (state as u32) as usize;
                    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| (batch.task)(idx, worker))) {
                        lock(&self.panic).get_or_insert(payload);
                    }
                    break;
                }
                Err(now) => state = now,
            }
        }
        if self.unfinished.0.fetch_sub(1, SeqCst) == 1 && self.caller_waits.load(SeqCst) {
            drop(lock(&self.sleep));
            self.done.notify_one();
        }
        true
    }

    fn wait_until_done(&self) {
        for _ in 0..NUM_SPINS {
            if self.unfinished.0.load(SeqCst) == 0 {
                return;
            }
            std::hint::spin_loop();
        }
        self.caller_waits.store(true, SeqCst);
        let mut guard = lock(&self.sleep);
        while self.unfinished.0.load(SeqCst) != 0 {
            guard = self.done.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.caller_waits.store(false, SeqCst);
    }

    /// The life of a worker: run what there is, spin a little, then park.
    fn work(&self, worker: usize) {
        let mut num_idle = 0;
        while !self.closing.load(SeqCst) {
            if self.work_once(worker) {
                num_idle = 0;
            } else if num_idle < NUM_SPINS {
                num_idle += 1;
                std::hint::spin_loop();
            } else {
                num_idle = 0;
                self.park();
            }
        }
    }

    fn park(&self) {
        let mut guard = lock(&self.sleep);
        self.num_sleeping.fetch_add(1, SeqCst);
        while self.state.0.load(SeqCst) as u32 == 0 && !self.closing.load(SeqCst) {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.num_sleeping.fetch_sub(1, SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A mutable slice that tasks of one run write in disjoint parts.
pub struct SharedMut<'a, T> {
    data: *const UnsafeCell<T>,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: parts are handed out under the promise of `part`, that no two overlap; then sharing the whole
// is sending the parts.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}
// SAFETY: as above; the borrow it stands for is unique.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    /// Borrows `data` for as long as parts of it are in use.
    pub fn new(data: &'a mut [T]) -> SharedMut<'a, T> {
        SharedMut { data: data.as_mut_ptr().cast(), len: data.len(), life: PhantomData }
    }

    /// Elements in the whole slice.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The part `start .. start + len`; panics when it is out of bounds.
    ///
    /// # Safety
    /// No two parts alive at the same time may overlap.
    #[allow(clippy::mut_from_ref)] // disjointness is the caller's promise: that is what this type is for
    pub unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "part {start}+{len} of {}", self.len);
        // SAFETY: in bounds by the assertion, unique by the promise of the caller.
        unsafe { std::slice::from_raw_parts_mut(UnsafeCell::raw_get(self.data.add(start)), len) }
    }

    /// The first element, for kernels that write strided blocks.
    pub fn as_ptr(&self) -> *mut T {
        UnsafeCell::raw_get(self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_task_runs_once() {
        for num_threads in [1, 2, 3, 5] {
            let pool = Pool::new(num_threads);
            for num_tasks in [0, 1, 2, 3, 7, 100] {
                for _ in 0..50 {
                    let counts: Vec<AtomicU32> = (0..num_tasks).map(|_| AtomicU32::new(0)).collect();
                    pool.run(num_tasks, &|task, worker| {
                        assert!(worker < num_threads);
                        counts[task].fetch_add(1, SeqCst);
                    });
                    assert!(counts.iter().all(|count| count.load(SeqCst) == 1));
                }
            }
        }
    }

    #[test]
    fn workers_that_parked_wake_again() {
        let pool = Pool::new(3);
        for _ in 0..20 {
            // Both workers and the caller must meet, so parked workers have to come.
            let barrier = std::sync::Barrier::new(3);
            pool.run(3, &|_, _| {
                barrier.wait();
            });
            while pool.shared.num_sleeping.load(SeqCst) < 2 {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_pool_survives() {
        let pool = Pool::new(2);
        let num_run = AtomicU32::new(0);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            pool.run(10, &|task, _| {
                num_run.fetch_add(1, SeqCst);
                assert!(task != 4, "task four");
            });
        }));
        let payload = caught.unwrap_err();
        assert!(payload.downcast_ref::<&str>().is_some_and(|text| text.contains("four")));
        assert_eq!(num_run.load(SeqCst), 10);
        let sum = AtomicU32::new(0);
        pool.run(10, &|task, _| {
            sum.fetch_add(task as u32, SeqCst);
        });
        assert_eq!(sum.load(SeqCst), 45);
    }

    #[test]
    fn parts_are_checked_against_the_whole() {
        let mut data = [0.0_f32; 8];
        let shared = SharedMut::new(&mut data);
        // SAFETY: the two parts do not overlap.
        let (head, tail) = unsafe { (shared.part(0, 3), shared.part(3, 5)) };
        head[2] = 1.0;
        tail[0] = 2.0;
        // SAFETY: never returns a slice.
        let caught = catch_unwind(AssertUnwindSafe(|| unsafe { shared.part(4, 5).len() }));
        assert!(caught.is_err());
        assert_eq!(data[2..4], [1.0, 2.0]);
    }
}
