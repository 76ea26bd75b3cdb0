//! The rounds of one program whose results are summed: the micro-batches of a training step.
//!
//! Rounds fall into *lanes*, as many as the shapes say and never the threads. A lane adds its rounds up in
//! order, and the lanes are added up in order, so the bits are the same on any machine of one kind. Few threads
//! run a round each, in any order that keeps each lane's: there is nothing to wait for within a step, and a
//! thread that a neighbour slows down does fewer rounds. Where sums are so large that there is one lane, few threads
//! still run a round each, one behind the other, if that takes little memory: what adds to the sums waits for its turn.
//! Many threads run one round after another together.

mod turns;

use crate::buffer::Buffer;
use crate::engine::Engine;
use crate::exec::{Memory, run_once, run_round, run_round_in_turn};
use crate::kernels::Precision;
use crate::plan::{Output, Plan, Target};
use crate::pool::SharedMut;
use pawl_graph::{Graph, InputKind};
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use turns::Turns;

/// Most lanes of a step: enough for the few cores on which rounds run side by side. Each costs memory for its sums
/// and the time to add them up.
const MAX_LANES: usize = 4;
/// Elements that the sums of the lanes after the first may take: 32 MiB.
const LANE_FLOATS: usize = 8 << 20;
/// Rounds from which on weights are packed once for all of them: in two they are read too seldom to win the time back.
const WORTH_PACKING: usize = 3;
/// Most threads that run rounds of one lane behind one another: each needs an arena.
const MAX_IN_TURN: usize = 4;
/// Elements that the arenas of such threads after the first may take, where the sums are no larger: 128 MiB.
const IN_TURN_FLOATS: usize = 32 << 20;
/// Elements of the lanes' sums that a task adds up.
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
    /// Parts of the sums that a thread adds up at a time: which result, from which element.
    parts: Vec<(usize, usize)>,
    /// One for each thread that runs rounds by itself, or one.
    arenas: Vec<Buffer>,
    order: Order,
}

/// How threads share the rounds.
enum Order {
    /// All run one round after another.
    Together,
    /// Each runs rounds of a lane of its own.
    SideBySide(Queue),
    /// Each runs rounds of the one lane, whose sums they add to in turn.
    InTurn(Turns),
}

impl Order {
    fn of(num_threads: usize, num_lanes: usize, num_rounds: usize) -> Order {
        match num_threads {
            2.. if num_lanes > 1 && num_threads < 2 * num_lanes => Order::SideBySide(Queue::new(num_lanes)),
            2..=MAX_IN_TURN if num_lanes == 1 && num_rounds > 1 => Order::InTurn(Turns::new(num_rounds)),
            _ => Order::Together,
        }
    }
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
        Rounds::in_lanes(graph, inputs, outputs, engine, precision, num_rounds, moving, num_lanes)
    }

    fn in_lanes(
        graph: &Graph,
        inputs: &[usize],
        outputs: &[Output],
        engine: &Engine,
        precision: Precision,
        num_rounds: usize,
        moving: &[usize],
        num_lanes: usize,
    ) -> Rounds {
        let len_of = |output: &Output| graph.values[output.value.idx()].len();
        let num_threads = engine.num_threads();
        let together = engine.target(precision, num_rounds >= WORTH_PACKING);
        let compile = |num_threads| Plan::compile(graph, inputs, outputs, Target { num_threads, ..together });
        let mut order = Order::of(num_threads, num_lanes, num_rounds);
        let mut plan = compile(if matches!(order, Order::Together) { num_threads } else { 1 });
        let in_turn = num_threads.min(num_rounds);
        let most = IN_TURN_FLOATS.max(outputs.iter().map(len_of).sum());
        if matches!(order, Order::InTurn(_)) && (in_turn - 1) * plan.arena_len > most {
            order = Order::Together;
            plan = compile(num_threads);
        }
        let (num_arenas, num_bound) = match order {
            Order::Together => (1, num_lanes),
            Order::SideBySide(_) => (num_threads.min(num_lanes), num_lanes),
            Order::InTurn(_) => (in_turn, in_turn),
        };
        let part = |buffer: usize| {
            let known = plan.buffer_lens.iter().find(|(other, _)| *other == buffer);
            (buffer, known.expect("what moves is an input").1)
        };
        let num_sums = if num_arenas > 1 { num_lanes - 1 } else { (num_lanes - 1).min(1) };
        let parts = |(k, output): (usize, &Output)| {
            (0..len_of(output)).step_by(SUM_GRAIN).map(move |start| (k, start))
        };
        let parts = outputs.iter().enumerate().flat_map(parts).collect();
        let sums = outputs.iter().map(|output| {
            assert!(output.accumulate || num_rounds == 1, "every output of several rounds is a sum");
            (output.buffer, (0..num_sums).map(|_| Buffer::zeros(len_of(output))).collect())
        });
        Rounds {
            kept: Buffer::zeros(plan.kept_len),
            num_rounds,
            lanes: (0..num_bound).map(|_| Lane { pointers: Vec::new(), round: 0 }).collect(),
            moving: moving.iter().map(|buffer| part(*buffer)).collect(),
            sums: sums.collect(),
            parts,
            arenas: (0..num_arenas).map(|_| Buffer::zeros(plan.arena_len)).collect(),
            order,
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
        match &self.order {
            Order::Together => {}
            Order::SideBySide(queue) => {
                queue.fill(self.num_rounds);
                self.run_side_by_side(engine);
                return self.add_lanes(engine);
            }
            Order::InTurn(turns) => {
                turns.fill();
                return self.run_side_by_side(engine);
            }
        }
        for (lane_idx, lane) in self.lanes.iter_mut().enumerate() {
            for (in_lane, round) in rounds_of(lane_idx, num_lanes, self.num_rounds).enumerate() {
                let buffers = lane.at(moving, round);
                run_round(engine.together(), plan, Memory { arena, kept, buffers }, in_lane);
            }
            if lane_idx > 0 {
                add_lane(engine, &self.sums, buffers, 0);
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
            if lane_idx > 0 && !matches!(self.order, Order::InTurn(_)) {
                for (buffer, sums) in &mut self.sums {
                    let sum_idx = (lane_idx - 1).min(sums.len() - 1);
                    lane.pointers[*buffer] = sums[sum_idx].floats_mut().as_mut_ptr();
                }
            }
        }
    }

    /// results += the sums of all other lanes, in order
    fn add_lanes(&self, engine: &Engine) {
        struct Results<'a>(&'a [*mut f32]);
        // SAFETY: tasks add to disjoint parts.
        unsafe impl Sync for Results<'_> {}
        impl Results<'_> {
            // Through `self`, so that closures capture the wrapper.
            fn at(&self, buffer: usize, start: usize) -> *mut f32 {
                self.0[buffer].wrapping_add(start)
            }
        }
        let results = &Results(&self.lanes[0].pointers);
        let (sums, parts) = (&self.sums, &self.parts);
        engine.pool().run(parts.len(), &|task, _| {
            let (result, start) = parts[task];
            let (buffer, lanes) = &sums[result];
            let len = SUM_GRAIN.min(lanes[0].len() - start);
            // SAFETY: the buffer is as long as its sums, and nobody else writes this part.
            let to = unsafe { std::slice::from_raw_parts_mut(results.at(*buffer, start), len) };
            for lane in lanes {
                to.iter_mut().zip(&lane.floats()[start..]).for_each(|(to, from)| *to += from);
            }
        });
    }

    /// Each thread takes rounds until none is left.
    fn run_side_by_side(&mut self, engine: &Engine) {
        struct Kept(*mut f32);
        // SAFETY: rounds only read what outlives them.
        unsafe impl Sync for Kept {}
        let kept = &Kept(self.kept.floats_mut().as_mut_ptr());
        let (plan, moving, order) = (&self.plan, &self.moving, &self.order);
        let num_workers = self.arenas.len();
        let (lanes, arenas) = (SharedMut::new(&mut self.lanes), SharedMut::new(&mut self.arenas));
        engine.pool().run(num_workers, &|worker, _| {
            // SAFETY: each worker index is run once.
            let arena = unsafe { &mut arenas.part(worker, 1)[0] }.floats_mut().as_mut_ptr();
            let kept = kept.0;
            match order {
                Order::Together => unreachable!("one arena serves all threads"),
                Order::SideBySide(queue) => {
                    while let Some(claim) = queue.claim() {
                        // SAFETY: the queue gives a lane to one thread at a time.
                        let lane = unsafe { &mut lanes.part(claim.lane, 1)[0] };
                        let memory = Memory { arena, kept, buffers: lane.at(moving, claim.round) };
                        run_round(engine.alone(), plan, memory, claim.in_lane);
                    }
                }
                Order::InTurn(turns) => {
                    // SAFETY: each worker has its own pointers; what they share is written in turn.
                    let lane = unsafe { &mut lanes.part(worker, 1)[0] };
                    while let Some(turn) = turns.claim() {
                        let memory = Memory { arena, kept, buffers: lane.at(moving, turn.round) };
                        let (wait, pass) = (|step| turn.wait(step), |step| turn.pass(step));
                        run_round_in_turn(engine.alone(), plan, memory, turn.round, wait, pass);
                    }
                }
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

/// results += what lies in sum `sum_idx` of each
fn add_lane(engine: &Engine, sums: &[(usize, Vec<Buffer>)], buffers: &mut [Buffer], sum_idx: usize) {
    for (buffer, sums) in sums {
        let from = sums[sum_idx].floats();
        let to = SharedMut::new(buffers[*buffer].floats_mut());
        engine.pool().run(from.len().div_ceil(SUM_GRAIN), &|task, _| {
            let start = task * SUM_GRAIN;
            let from = &from[start..from.len().min(start + SUM_GRAIN)];
            // SAFETY: tasks add to disjoint parts.
            let to = unsafe { to.part(start, from.len()) };
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
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
    use pawl_graph::{DType, Op, Unary};

    /// Sums of gradients over rounds of two layers and a loss over a vocabulary that is cut into rows.
    fn sums(num_threads: usize, num_lanes: usize, precision: Precision) -> Vec<Vec<u32>> {
        let (rows, c, v, num_rounds) = (32, 8, 16_384, 5);
        let mut graph = Graph::new();
        let kind = InputKind::Param;
        let table = graph.input("table", kind.clone(), &[v, c], DType::F32);
        let layer = graph.input("layer", kind.clone(), &[c, c], DType::F32);
        let head = graph.input("head", kind, &[v, c], DType::F32);
        let tokens = graph.input("tokens", InputKind::Tokens, &[rows], DType::I32);
        let targets = graph.input("targets", InputKind::Targets, &[rows], DType::I32);
        let x = graph.add(Op::Embedding, &[table, tokens]).unwrap();
        let hidden = graph.add(Op::Matmul { ta: false, tb: true }, &[x, layer]).unwrap();
        let hidden = graph.add(Op::Unary(Unary::Relu), &[hidden]).unwrap();
        let hidden = graph.add(Op::Matmul { ta: false, tb: false }, &[hidden, layer]).unwrap();
        let logits = graph.add(Op::Matmul { ta: false, tb: true }, &[hidden, head]).unwrap();
        let loss = graph.add_all(Op::CrossEntropy, &[logits, targets]).unwrap()[0];
        let loss = graph.sum_all(loss);
        let params = [table, layer, head];
        let grads = graph.gradients(loss, &params);
        let outputs: Vec<Output> = grads
            .iter()
            .chain([&loss])
            .enumerate()
            .map(|(k, value)| Output { value: *value, buffer: 5 + k, accumulate: true })
            .collect();
        let engine = Engine::new(num_threads);
        let inputs = [0, 1, 2, 3, 4];
        let mut compiled =
            Rounds::in_lanes(&graph, &inputs, &outputs, &engine, precision, num_rounds, &[3, 4], num_lanes);
        let ids = num_rounds * rows;
        let lens = [v * c, c * c, v * c, ids, ids, v * c, c * c, v * c, 1];
        let mut buffers: Vec<Buffer> = lens.into_iter().map(Buffer::zeros).collect();
        for (k, buffer) in buffers[..3].iter_mut().enumerate() {
            let number = |i: usize| ((i * 31 + k * 7) % 61) as f32 / 30.0 - 1.0;
            buffer.floats_mut().iter_mut().enumerate().for_each(|(i, x)| *x = number(i));
        }
        for (k, buffer) in buffers[3..5].iter_mut().enumerate() {
            let id = |i: usize| ((i * 7919 + k * 31) % v) as i32;
            buffer.ints_mut().iter_mut().enumerate().for_each(|(i, x)| *x = id(i));
        }
        compiled.run(&engine, &mut buffers);
        compiled.run(&engine, &mut buffers);
        buffers[5..].iter().map(|b| b.floats().iter().map(|x| x.to_bits()).collect()).collect()
    }

    #[test]
    fn rounds_in_turn_have_the_bits_of_one_after_another() {
        for precision in [Precision::F32, Precision::Bf16] {
            let one = sums(1, 1, precision);
            assert!(one.iter().all(|sum| sum.iter().any(|x| *x != 0)));
            assert!((2..=5).all(|num_threads| sums(num_threads, 1, precision) == one), "{precision:?}");
            let lanes = sums(1, 3, precision);
            // The same numbers in another order: what a loop over rows adds to counts the rounds around it.
            for (one, lanes) in one.iter().zip(&lanes) {
                let [one, lanes] = [one, lanes].map(|sum| sum.iter().map(|x| f32::from_bits(*x)));
                let largest = one.clone().fold(0.0, |most, x: f32| x.abs().max(most));
                assert!(one.zip(lanes).all(|(a, b)| (a - b).abs() <= 1e-4 * largest), "{precision:?}");
            }
            assert!((2..=3).all(|num_threads| sums(num_threads, 3, precision) == lanes), "{precision:?}");
        }
    }

    #[test]
    fn rounds_in_turn_have_a_bound_on_memory() {
        // A hidden layer that lies in the arena as a whole.
        let order = |rows: usize, width: usize| {
            let mut graph = Graph::new();
            let mut input =
                |name: &str, shape: &[usize]| graph.input(name, InputKind::Param, shape, DType::F32);
            let (x, w) = (input("x", &[rows, 8]), input("w", &[8, width]));
            let hidden = graph.add(Op::Matmul { ta: false, tb: false }, &[x, w]).unwrap();
            let hidden = graph.add(Op::Unary(Unary::Tanh), &[hidden]).unwrap();
            let out = graph.add(Op::Matmul { ta: true, tb: false }, &[hidden, x]).unwrap();
            let output = Output { value: out, buffer: 2, accumulate: true };
            let engine = Engine::new(3);
            Rounds::in_lanes(&graph, &[0, 1], &[output], &engine, Precision::F32, 5, &[], 1)
        };
        let (small, large) = (order(512, 1024), order(4096, 5000));
        assert!(matches!(small.order, Order::InTurn(_)) && small.arenas.len() == 3);
        assert!(matches!(large.order, Order::Together) && large.arenas.len() == 1);
        assert!(large.arenas[0].len() >= 4096 * 5000, "{}", large.arenas[0].len());
        assert!(small.memory_bytes() < large.memory_bytes());
    }

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
