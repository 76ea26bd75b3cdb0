//! Takes some lanes through the steps of a position, one step after another.

use super::desk::Desk;
use super::memory::{Active, Memory};
use super::{Compiled, segment::Segment};
use crate::engine::{Engine, Hands};
use crate::kernels::decode::matrices::Matrices;
use crate::kernels::decode::{past, products};
use crate::kernels::rows::softmax_forward;
use crate::kernels::sequence::rope;
use crate::pool::SharedMut;
use pawl_graph::{Mask, State, Step};

/// Elements of all lanes together from which on a segment is worth handing to other threads.
const WORTH_SHARING: usize = 1 << 14;

/// Lanes that go through all steps together. Those of one sequence are in one group.
pub(super) struct Group {
    pub(super) lanes: Vec<Active>,
    x: Vec<*const f32>,
    y: Vec<*mut f32>,
}

// SAFETY: the pointers are scratch, rebuilt for every product from memory that outlives it.
unsafe impl Send for Group {}

impl Group {
    /// For at most `max_lanes` lanes of at most `max_rows` rows each.
    pub(super) fn new(max_lanes: usize, max_rows: usize) -> Group {
        let rows = max_lanes * max_rows;
        Group {
            lanes: Vec::with_capacity(max_lanes),
            x: Vec::with_capacity(rows),
            y: Vec::with_capacity(rows),
        }
    }
}

/// What the threads of a run share. Each group writes the slots of its own lanes and the states of its own
/// sequences, and reads beside them what nothing writes.
pub(super) struct Turn<'a> {
    pub(super) engine: &'a Engine,
    pub(super) steps: &'a [Compiled],
    /// First of the steps that are done for wanted lanes alone.
    pub(super) tail: usize,
    pub(super) matrices: &'a Matrices,
    pub(super) memory: &'a Memory,
    pub(super) desks: SharedMut<'a, Desk>,
}

// SAFETY: see above; a desk is used by one thread at a time.
unsafe impl Sync for Turn<'_> {}

/// Who takes a group through the steps: all threads, or one of them by itself.
#[derive(Clone, Copy)]
pub(super) struct Crew<'a> {
    pub(super) hands: Hands<'a>,
    /// The desk of the crew's first thread.
    pub(super) desk: usize,
}

impl Turn<'_> {
    /// All steps for one group.
    pub(super) fn run(&self, crew: Crew<'_>, group: &mut Group) {
        for (idx, step) in self.steps.iter().enumerate() {
            if idx == self.tail {
                group.lanes.retain(|lane| lane.wanted);
            }
            self.step(crew, group, step);
        }
    }

    /// # Safety
    /// The worker uses its desk for nothing else meanwhile.
    #[allow(clippy::mut_from_ref)] // each worker has its own
    unsafe fn desk(&self, crew: Crew<'_>, worker: usize) -> &mut Desk {
        // SAFETY: the caller's promise.
        unsafe { &mut self.desks.part(crew.desk + worker, 1)[0] }
    }

    fn step(&self, crew: Crew<'_>, group: &mut Group, step: &Compiled) {
        let (memory, isa) = (self.memory, crew.hands.isa);
        match step {
            Compiled::Segment(segment) => self.segment(crew, &group.lanes, segment),
            Compiled::Linear { x, matrix, rows, out } => {
                let w = self.matrices.get(*matrix);
                let (k, n) = w.dims();
                group.x.clear();
                group.y.clear();
                for lane in &group.lanes {
                    let (x, y) = (memory.at(x, lane), memory.slot(*out, lane));
                    group.x.extend((0..*rows).map(|row| x.wrapping_add(row * k)));
                    group.y.extend((0..*rows).map(|row| y.wrapping_add(row * n)));
                }
                // SAFETY: each lane holds `rows` rows of K and of N, the latter in a slot that nothing else reads now.
                unsafe { products::linear(crew.hands.pool, isa, &group.y, &group.x, w) };
            }
            Compiled::Rope { x, ahead, shape, cos, sin, inverse, out } => {
                let [_, _, heads, d] = *shape;
                for lane in &group.lanes {
                    let position = ahead.map_or(0, |ahead| lane.position_in(ahead, cos.len() / (d / 2)));
                    let table = position * d / 2..(position + 1) * d / 2;
                    // SAFETY: (H, D) each, and the slot is not the operand.
                    let (y, x) =
                        unsafe { (memory.write(*out, lane, heads * d), memory.read(x, lane, heads * d)) };
                    let (cos, sin) = (&cos[table.clone()], &sin[table]);
                    rope(self.engine.alone().pool, isa, y, x, cos, sin, *shape, *inverse);
                }
            }
            Compiled::Other(step) => self.other(crew, &group.lanes, step),
        }
    }

    fn segment(&self, crew: Crew<'_>, lanes: &[Active], segment: &Segment) {
        let num_pieces = segment.num_pieces(lanes.len());
        // SAFETY: pieces are of different lanes; a worker runs one at a time at its desk.
        let run = |hands: Hands<'_>, piece: usize, worker: usize| unsafe {
            segment.run(hands, self.memory, lanes, piece, self.desk(crew, worker));
        };
        if num_pieces > 1 && lanes.len() * segment.work() >= WORTH_SHARING {
            let alone = self.engine.alone();
            crew.hands.pool.run(num_pieces, &|piece, worker| run(alone, piece, worker));
        } else {
            (0..num_pieces).for_each(|piece| run(crew.hands, piece, 0));
        }
    }

    /// Steps that read or write states, and those that depend on the position.
    fn other(&self, crew: Crew<'_>, lanes: &[Active], step: &Step) {
        let (memory, isa) = (self.memory, crew.hands.isa);
        match step {
            Step::Attention { .. } => self.attention(crew, lanes, step),
            Step::Scan { a, x, state, len, out } => {
                for lane in lanes {
                    // SAFETY: C floats each; the state belongs to the lane's sequence and the slot to the lane.
                    unsafe {
                        let h = memory.state(*state, lane, 0, *len);
                        past::advance_scan(isa, h, memory.read(a, lane, *len), memory.read(x, lane, *len));
                        memory.write(*out, lane, *len).copy_from_slice(h);
                    }
                }
            }
            Step::Softmax { x, rows, positions, window, out } => {
                for lane in lanes {
                    let position = lane.position_in(0, *positions);
                    let seen = position.saturating_sub(*window)..position + 1;
                    // SAFETY: (rows, T) floats each, in different slots.
                    let (y, x) = unsafe {
                        (memory.write(*out, lane, rows * positions), memory.read(x, lane, rows * positions))
                    };
                    for (y, x) in y.chunks_exact_mut(*positions).zip(x.chunks_exact(*positions)) {
                        y.fill(0.0);
                        let (y, x) = (&mut y[seen.clone()], &x[seen.clone()]);
                        softmax_forward(self.engine.alone().pool, isa, y, x, seen.len(), Mask::Full);
                    }
                }
            }
            Step::Pick { cases, len, out } => {
                for lane in lanes {
                    let p = lane.position;
                    let case = cases.iter().find(|(from, to, _)| (*from..*to).contains(&p));
                    // SAFETY: `len` floats each; a slot is not its own operand.
                    unsafe {
                        let y = memory.write(*out, lane, *len);
                        match case {
                            Some((_, _, source)) => y.copy_from_slice(memory.read(source, lane, *len)),
                            None => y.fill(0.0),
                        }
                    }
                }
            }
            Step::Remember { x, state, at } => {
                for lane in lanes {
                    // SAFETY: the state belongs to the lane's sequence, which is in this group alone.
                    unsafe { memory.remember(x, *state, *at, lane) };
                }
            }
            Step::Segment { .. } | Step::Linear { .. } | Step::Rope { .. } => unreachable!("planned ahead"),
        }
    }

    /// Keys and values of all lanes join their sequences first, so that lanes of one sequence see each other.
    fn attention(&self, crew: Crew<'_>, lanes: &[Active], step: &Step) {
        let Step::Attention { q, k, v, state, heads, kv_heads, head_dim, window, scale, out } = step else {
            unreachable!("called for attention alone")
        };
        let memory = self.memory;
        let State::Attention { positions, .. } = memory.states[*state] else {
            unreachable!("the state of an attention")
        };
        let (head_len, width) = (positions * head_dim, kv_heads * head_dim);
        for lane in lanes {
            let p = lane.position_in(0, positions);
            // SAFETY: (K, T, D) keys and as many values belong to the lane's sequence; k and v are (K, D).
            unsafe {
                let new = memory.read(k, lane, width).chunks_exact(*head_dim);
                for (head, new) in new.chain(memory.read(v, lane, width).chunks_exact(*head_dim)).enumerate()
                {
                    memory
                        .state(*state, lane, head * head_len + p * head_dim, *head_dim)
                        .copy_from_slice(new);
                }
            }
        }
        let num_tasks = lanes.len() * heads;
        // First key and positions that a task sees.
        let seen = |task: usize| {
            let (lane, head) = (&lanes[task / heads], task % heads);
            let p = lane.position_in(0, positions);
            let first = p.saturating_sub(*window);
            (head / (heads / kv_heads) * head_len + first * head_dim, p + 1 - first)
        };
        // SAFETY: keys and values are only read from here on.
        let keys = |task: usize| unsafe {
            let (start, num) = seen(task);
            memory.state_read(*state, &lanes[task / heads], start, num * head_dim)
        };
        crew.hands.pool.run(num_tasks, &|task, worker| {
            let (lane, head) = (&lanes[task / heads], task % heads);
            let (start, num) = seen(task);
            // SAFETY: as above; each task writes its own head, and a worker its own scores.
            unsafe {
                let scores = &mut self.desk(crew, worker).scores.floats_mut()[..num];
                let values = memory.state_read(*state, lane, kv_heads * head_len + start, num * head_dim);
                let q = &memory.read(q, lane, heads * head_dim)[head * head_dim..][..*head_dim];
                let out = memory.slot(*out, lane).add(head * head_dim);
                let out = std::slice::from_raw_parts_mut(out, *head_dim);
                let ahead = if task + 1 < num_tasks { keys(task + 1) } else { &[] };
                past::attend(crew.hands.isa, out, scores, q, keys(task), values, *scale, ahead);
            }
        });
    }
}
