//! The rounds of one program whose results are summed: the micro-batches of a training step.
//!
//! Rounds fall into *lanes*, as many as the shapes say and never the threads. A lane adds its rounds up in
//! order, and the lanes are added up in order, so the bits are the same on any machine of one kind. Few threads
//! run a round each, in any order that keeps each lane's: there is nothing to wait for within a step, and a
//! thread that a neighbour slows down does fewer rounds. Many threads run one round after another together.

use crate::buffer::Buffer;
use crate::engine::Engine;
use crate::exec::{Memory, run_once, run_round};
use crate::kernels::Precision;
use crate::plan::{Output, Plan};
use crate::pool::SharedMut;
use pawl_graph::{Graph, InputKind};
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Most lanes of a step: enough for the few cores on which rounds run side by side.
const MAX_LANES: usize = 8;
/// Elements that the sums of the lanes after the first may take: 32 MiB.
const LANE_FLOATS: usize = 8 << 20;
/// Rounds from which on weights are packed once for all of them: in two they are read too seldom to win the time back.
const WORTH_PACKING: usize = 3;
/// Elements of the lanes' sums that a task adds up: with a part of one other lane they fill a part of the second-level
/// cache.
const SUM_GRAIN: usize = 1 << 14;

/// A compiled program with what its rounds need.
pub struct Rounds {
    plan: Plan,
    kept: Buffer,
    num_rounds: usize,
    lanes: Vec<Lane>,
    /// Buffers that hold what each round reads, one part after another, and the length of a part.
    moving: Vec<(usize, usize)>,
    /// Buffers of the results, each with the sums of the lanes after the first: of all of them if they run side
    /// by side, otherwise one that serves them in turn.
    sums: Vec<(usize, Vec<Buffer>)>,
    /// One for each thread that runs rounds by itself, or one.
    arenas: Vec<Buffer>,
    queue: Queue,
}

/// Where a lane's rounds find their buffers.
struct Lane {
    pointers: Vec<*mut f32>,
    /// The round that the pointers to moving buffers stand at.
    round: usize,
}

// SAFETY: the queue gives a lane to one thread at a time; its pointers are to buffers borrowed by `Rounds::run`.
unsafe impl Send for Lane {}

impl Rounds {
    /// Compiles a program of `num_rounds` rounds on the same parameters; see [`Plan::compile`]. Every output
    /// accumulates. Each buffer of `moving` is as long as its input times the number of rounds, and holds no
    /// parameter: those may be packed once for all rounds.
    pub fn new(
        graph: &Graph,
        inputs: &[usize],
        outputs: &[Output],
        engine: &Engine,
        precision: Precision,
        num_rounds: usize,
        moving: &[usize],
    ) -> Rounds {
        assert!(num_rounds > 0, "no rounds");
        for (input, buffer) in graph.inputs.iter().zip(inputs) {
            let moves = input.kind == InputKind::Param && moving.contains(buffer);
            assert!(!moves, "parameter {} moves from round to round", input.name);
        }
        let len_of = |output: &Output| graph.values[output.value.idx()].len();
        let num_lanes = num_lanes(num_rounds, outputs.iter().map(len_of).sum());
        let num_threads = engine.num_threads();
        let side_by_side = num_threads > 1 && num_lanes > 1 && num_threads < 2 * num_lanes;
        let mut target = engine.target(precision, num_rounds >= WORTH_PACKING);
        if side_by_side {
            target.num_threads = 1;
        }
        let plan = Plan::compile(graph, inputs, outputs, target);
        let part = |buffer: usize| {
            let known = plan.buffer_lens.iter().find(|(other, _)| *other == buffer);
            (buffer, known.expect("what moves is an input").1)
        };
        let num_sums = if side_by_side { num_lanes - 1 } else { (num_lanes - 1).min(1) };
        let sums = outputs.iter().map(|output| {
            assert!(output.accumulate || num_rounds == 1, "every output of several rounds is a sum");
            (output.buffer, (0..num_sums).map(|_| Buffer::zeros(len_of(output))).collect())
        });
        let num_arenas = if side_by_side { num_threads.min(num_lanes) } else { 1 };
        Rounds {
            kept: Buffer::zeros(plan.kept_len),
            num_rounds,
            lanes: (0..num_lanes).map(|_| Lane { pointers: Vec::new(), round: 0 }).collect(),
            moving: moving.iter().map(|buffer| part(*buffer)).collect(),
            sums: sums.collect(),
            arenas: (0..num_arenas).map(|_| Buffer::zeros(plan.arena_len)).collect(),
            queue: Queue::new(num_lanes),
            plan,
        }
    }

    /// Bytes of memory beside the buffers.
    pub fn memory_bytes(&self) -> usize {
        let sums = self.sums.iter().flat_map(|(_, lanes)| lanes);
        4 * (self.kept.len() + self.arenas.iter().chain(sums).map(Buffer::len).sum::<usize>())
    }

    /// Runs all rounds; the results are their sums.
    pub fn run(&mut self, engine: &Engine, buffers: &mut [Buffer]) {
        self.bind(buffers);
        let kept = self.kept.floats_mut().as_mut_ptr();
        let arena = self.arenas[0].floats_mut().as_mut_ptr();
        let (plan, moving) = (&self.plan, &self.moving);
        run_once(engine.together(), plan, Memory { arena, kept, buffers: &self.lanes[0].pointers });
        let num_lanes = self.lanes.len();
        if self.arenas.len() > 1 {
            self.run_side_by_side(engine);
            add_lanes(engine, &self.sums, buffers, 0..num_lanes - 1);
            return;
        }
        for (lane_idx, lane) in self.lanes.iter_mut().enumerate() {
            for (in_lane, round) in rounds_of(lane_idx, num_lanes, self.num_rounds).enumerate() {
                let buffers = lane.at(moving, round);
                run_round(engine.together(), plan, Memory { arena, kept, buffers }, in_lane);
            }
            if lane_idx > 0 {
                add_lanes(engine, &self.sums, buffers, 0..1);
            }
        }
    }

    /// Points every lane at the buffers, and lanes after the first at sums of their own.
    fn bind(&mut self, buffers: &mut [Buffer]) {
        for (buffer, len) in &self.plan.buffer_lens {
            let moves = self.moving.iter().any(|(moving, _)| moving == buffer);
            let len = if moves { len * self.num_rounds } else { *len };
            assert_eq!(buffers[*buffer].len(), len, "buffer {buffer} has another length than planned");
        }
        for (lane_idx, lane) in self.lanes.iter_mut().enumerate() {
            lane.round = 0;
            // Grows in the first run and is refilled in later ones.
            lane.pointers.clear();
            lane.pointers.extend(buffers.iter_mut().map(|buffer| buffer.floats_mut().as_mut_ptr()));
            if lane_idx > 0 {
                for (buffer, sums) in &mut self.sums {
                    let sum_idx = (lane_idx - 1).min(sums.len() - 1);
                    lane.pointers[*buffer] = sums[sum_idx].floats_mut().as_mut_ptr();
                }
            }
        }
    }

    /// Each thread takes rounds until none is left.
    fn run_side_by_side(&mut self, engine: &Engine) {
        struct Kept(*mut f32);
        // SAFETY: rounds only read what outlives them.
        unsafe impl Sync for Kept {}
        let kept = &Kept(self.kept.floats_mut().as_mut_ptr());
        let (plan, moving, queue) = (&self.plan, &self.moving, &self.queue);
        queue.fill(self.num_rounds);
        let num_workers = self.arenas.len();
        let (lanes, arenas) = (SharedMut::new(&mut self.lanes), SharedMut::new(&mut self.arenas));
        engine.pool().run(num_workers, &|worker, _| {
            // SAFETY: each worker index is run once.
            let arena = unsafe { &mut arenas.part(worker, 1)[0] }.floats_mut().as_mut_ptr();
            while let Some(claim) = queue.claim() {
                // SAFETY: the queue gives a lane to one thread at a time.
                let lane = unsafe { &mut lanes.part(claim.lane, 1)[0] };
                let memory = Memory { arena, kept: kept.0, buffers: lane.at(moving, claim.round) };
                run_round(engine.alone(), plan, memory, claim.in_lane);
            }
        });
    }
}

impl Lane {
    /// The buffers of one round.
    fn at(&mut self, moving: &[(usize, usize)], round: usize) -> &[*mut f32] {
        for (buffer, len) in moving {
            let pointer = &mut self.pointers[*buffer];
            *pointer = pointer.wrapping_add(len * (round - self.round));
        }
        self.round = round;
        &self.pointers
    }
}

/// Lanes of so many rounds whose results have `summed` elements.
fn num_lanes(num_rounds: usize, summed: usize) -> usize {
    MAX_LANES.min(num_rounds).min(1 + LANE_FLOATS / summed.max(1))
}

/// The rounds of a lane, in order.
fn rounds_of(lane_idx: usize, num_lanes: usize, num_rounds: usize) -> Range<usize> {
    lane_idx * num_rounds / num_lanes..(lane_idx + 1) * num_rounds / num_lanes
}

/// results += what lies in the sums `sum_idxs` of each, one after another: a part of a result stays in the caches until
/// all of them are added.
fn add_lanes(engine: &Engine, sums: &[(usize, Vec<Buffer>)], buffers: &mut [Buffer], sum_idxs: Range<usize>) {
    for (buffer, sums) in sums {
        let to = SharedMut::new(buffers[*buffer].floats_mut());
        engine.pool().run(to.len().div_ceil(SUM_GRAIN), &|task, _| {
            let part = task * SUM_GRAIN..to.len().min((task + 1) * SUM_GRAIN);
            // SAFETY: tasks add to disjoint parts.
            let to = unsafe { to.part(part.start, part.len()) };
            for sum in &sums[sum_idxs.clone()] {
                to.iter_mut().zip(&sum.floats()[part.clone()]).for_each(|(to, from)| *to += from);
            }
        });
    }
}

/// Which rounds are to be run, and which lanes are being worked on.
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

struct QueueState {
    lanes: Vec<QueuedLane>,
    /// A round panicked: nobody waits for its lane.
    failed: bool,
}

#[derive(Clone)]
struct QueuedLane {
    first: usize,
    rounds: Range<usize>,
    is_taken: bool,
}

/// A round that its holder alone runs; dropping it gives the lane back.
struct Claim<'a> {
    queue: &'a Queue,
    lane: usize,
    round: usize,
    in_lane: usize,
}

impl Queue {
    fn new(num_lanes: usize) -> Queue {
        let lanes = vec![QueuedLane { first: 0, rounds: 0..0, is_taken: false }; num_lanes];
        Queue { state: Mutex::new(QueueState { lanes, failed: false }), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, num_rounds: usize) {
        let mut state = self.lock();
        let num_lanes = state.lanes.len();
        for (lane_idx, lane) in state.lanes.iter_mut().enumerate() {
            let rounds = rounds_of(lane_idx, num_lanes, num_rounds);
            *lane = QueuedLane { first: rounds.start, rounds, is_taken: false };
        }
        state.failed = false;
    }

    /// The next round of the free lane that has most left, once there is one; `None` when all rounds are taken.
    fn claim(&self) -> Option<Claim<'_>> {
        let mut state = self.lock();
        loop {
            let open = state.lanes.iter().enumerate().filter(|(_, lane)| !lane.rounds.is_empty());
            if state.failed || open.clone().next().is_none() {
                return None;
            }
            let free = open.filter(|(_, lane)| !lane.is_taken);
            // The lane with most rounds left; of equal ones the first.
            let most = free.max_by_key(|(lane_idx, lane)| (lane.rounds.len(), usize::MAX - lane_idx));
            if let Some(lane) = most.map(|(lane_idx, _)| lane_idx) {
                let queued = &mut state.lanes[lane];
                let round = queued.rounds.start;
                queued.rounds.start += 1;
                queued.is_taken = true;
                return Some(Claim { queue: self, lane, round, in_lane: round - queued.first });
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.lanes[self.lane].is_taken = false;
        state.failed |= std::thread::panicking();
        drop(state);
        self.queue.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_follow_from_shapes_and_hold_every_round_once() {
        assert_eq!(num_lanes(16, 1000), MAX_LANES);
        assert_eq!(num_lanes(3, 1000), 3);
        assert_eq!(num_lanes(16, LANE_FLOATS), 2);
        assert_eq!(num_lanes(16, LANE_FLOATS + 1), 1);
        let all: Vec<usize> = (0..3).flat_map(|lane| rounds_of(lane, 3, 7)).collect();
        assert_eq!(all, (0..7).collect::<Vec<_>>());
    }

    #[test]
    fn a_lane_is_given_to_one_thread_at_a_time_and_in_order() {
        let queue = Queue::new(2);
        queue.fill(5);
        let first = queue.claim().unwrap();
        let second = queue.claim().unwrap();
        assert_eq!((first.lane, first.round, first.in_lane), (1, 2, 0));
        assert_eq!((second.lane, second.round, second.in_lane), (0, 0, 0));
        drop(first);
        let third = queue.claim().unwrap();
        assert_eq!((third.lane, third.round, third.in_lane), (1, 3, 1));
        drop((second, third));
        let rest: Vec<usize> = std::iter::from_fn(|| queue.claim().map(|claim| claim.round)).collect();
        assert_eq!(rest, [1, 4]);
    }

    #[test]
    fn nobody_waits_for_a_lane_whose_round_panicked() {
        let queue = Queue::new(1);
        queue.fill(2);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _claim = queue.claim();
            panic!("a kernel");
        }));
        assert!(caught.is_err() && queue.claim().is_none());
    }
}
