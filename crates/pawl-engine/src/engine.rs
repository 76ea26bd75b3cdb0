//! The threads and the instruction set that programs run on, together or each thread by itself.

use crate::kernels::{Isa, Precision};
use crate::plan::Target;
use crate::pool::{Pool, SharedMut};
use crate::profile::{KernelCost, Profile};

/// The threads and the instruction set that programs run on.
pub struct Engine {
    pool: Pool,
    /// No threads: what runs beside other work of the pool runs on this.
    alone: Pool,
    isa: Isa,
    profile: Option<Profile>,
}

impl Engine {
    /// An engine of `num_threads` threads on the best instruction set of this machine.
    pub fn new(num_threads: usize) -> Engine {
        Engine::with_isa(num_threads, Isa::detect())
    }

    /// The same on a chosen instruction set, which must be available.
    pub fn with_isa(num_threads: usize, isa: Isa) -> Engine {
        assert!(isa.is_available(), "{isa:?} is not available on this machine");
        Engine { pool: Pool::new(num_threads), alone: Pool::new(1), isa, profile: None }
    }

    /// Counts from now on what each kernel costs.
    pub fn start_profile(&mut self) {
        self.profile = Some(Profile::new(self.num_threads()));
    }

    /// What [`Engine::start_profile`] has counted.
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// What kernels cost since [`Engine::start_profile`], which is over.
    pub fn end_profile(&mut self) -> Vec<KernelCost> {
        self.profile.take().map_or_else(Vec::new, |profile| profile.take())
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// All threads for one kernel after another.
    pub(crate) fn together(&self) -> Hands<'_> {
        Hands { pool: &self.pool, isa: self.isa, profile: self.profile.as_ref(), share: 1.0 }
    }

    /// The calling thread alone, while others of the pool do the same.
    pub(crate) fn alone(&self) -> Hands<'_> {
        let share = 1.0 / self.num_threads() as f64;
        Hands { pool: &self.alone, isa: self.isa, profile: self.profile.as_ref(), share }
    }

    /// What a program of this engine is compiled for.
    pub fn target(&self, precision: Precision, repeats: bool) -> Target {
        Target { num_threads: self.num_threads(), isa: self.isa, precision, repeats }
    }

    /// Calls `work` once on each item, on all threads, the first items first.
    pub fn for_each<T: Send>(&self, items: &mut [T], work: impl Fn(&mut T) + Sync) {
        let num_items = items.len();
        let items = SharedMut::new(items);
        self.pool.run(num_items, &|item, _| {
            // SAFETY: each item belongs to one task.
            work(unsafe { &mut items.part(item, 1)[0] });
        });
    }

    /// Number of threads.
    pub fn num_threads(&self) -> usize {
        self.pool.num_threads()
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }
}

/// What runs a plan.
#[derive(Clone, Copy)]
pub(crate) struct Hands<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) isa: Isa,
    pub(crate) profile: Option<&'a Profile>,
    /// Of the threads' time: what several count at once adds up to the time that passes.
    pub(crate) share: f64,
}
