//! Runs a program of single positions: several sequences at once, each at its own position.
//!
//! One run takes lanes, each the next token of a sequence; a sequence may take several lanes in a row, which
//! are then its next positions. Few lanes go through the steps together, so a matrix is read once for all of them;
//! many are dealt out in groups, so that threads need not wait for each other. What a lane computes depends neither on
//! the other lanes nor on how many there are, to the bit. It refuses to choose tokens.

mod desk;
mod memory;
mod segment;
mod turn;

use crate::buffer::Buffer;
use crate::engine::Engine;
use crate::exec::Program;
use crate::kernels::decode::matrices::Matrices;
pub use crate::kernels::decode::matrices::Weights;
use crate::kernels::sequence::rope_table;
use crate::plan::Output;
use crate::pool::SharedMut;
use desk::Desk;
use memory::Memory;
use pawl_graph::{Graph, Incremental, InputKind, Source, Step, ValueId};
use segment::Segment;
use turn::{Crew, Group, Turn};

/// Lanes of a group at least, where each thread has groups: each group reads all matrices.
const LEAST_LANES: usize = 16;
/// Lanes of a group about, where lanes are many: what they compute stays in the second-level cache.
const MANY_LANES: usize = 32;
/// Groups for each thread at most while lanes are few: a thread that a neighbour slows down takes fewer of them.
const GROUPS_EACH: usize = 2;

/// The next token of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Which sequence.
    pub row: usize,
    /// Its next token.
    pub token: i32,
    /// Whether the logits that follow it are wanted.
    pub wanted: bool,
}

/// A program of single positions with its constants, its states and memory for its lanes.
pub struct Decoding {
    frozen: Program,
    /// What `frozen` runs, and its outputs.
    graph: Graph,
    constants: Vec<ValueId>,
    steps: Vec<Compiled>,
    /// First of the steps from which on nothing is remembered: done for wanted lanes alone.
    tail: usize,
    matrices: Matrices,
    /// Constant, K, N and whether it is stored transposed, of each of `matrices`.
    shapes: Vec<(usize, usize, usize, bool)>,
    /// Constants that are read other than as panels.
    kept: Vec<bool>,
    memory: Memory,
    logits: Source,
    vocab: usize,
    positions: usize,
    groups: Vec<Group>,
    /// Lanes of a run by sequence.
    order: Vec<usize>,
    /// One for each thread.
    desks: Vec<Desk>,
}

enum Compiled {
    Segment(Segment),
    Linear {
        x: Source,
        matrix: usize,
        rows: usize,
        out: usize,
    },
    Rope {
        x: Source,
        ahead: Option<i64>,
        shape: [usize; 4],
        cos: Vec<f32>,
        sin: Vec<f32>,
        inverse: bool,
        out: usize,
    },
    Other(Step),
}

impl Decoding {
    /// The program for `num_rows` sequences and at most `max_lanes` lanes a run. `param(name, to)` writes the
    /// parameter of that name.
    pub fn new(
        engine: &Engine,
        program: &Incremental,
        num_rows: usize,
        max_lanes: usize,
        weights: Weights,
        param: &mut dyn FnMut(&str, &mut [f32]),
    ) -> Decoding {
        assert!(num_rows > 0 && max_lanes > 0, "{num_rows} sequences, {max_lanes} lanes");
        let num_inputs = program.graph.inputs.len();
        let inputs: Vec<usize> = (0..num_inputs).collect();
        let output = |(k, value): (usize, _)| Output { value, buffer: num_inputs + k, accumulate: false };
        let outputs: Vec<Output> = program.constants.iter().copied().enumerate().map(output).collect();
        let mut kept = vec![false; program.constants.len()];
        sources(program).for_each(|source| match source {
            Source::Constant(constant) | Source::ConstantAt { constant, .. } => kept[*constant] = true,
            Source::Slot(_) | Source::Recent { .. } | Source::State(_) => {}
        });
        let mut shapes = Vec::new();
        let steps: Vec<Compiled> =
            program.steps.iter().map(|step| compile(step, &mut shapes, max_lanes, engine)).collect();
        let remembers =
            |step: &Step| matches!(step, Step::Remember { .. } | Step::Attention { .. } | Step::Scan { .. });
        let max_rows =
            program.steps.iter().map(|step| if let Step::Linear { rows, .. } = step { *rows } else { 1 });
        let max_rows = max_rows.max().unwrap_or(1);
        let desks = desks(&steps, program.positions, engine.num_threads());
        let num_groups = num_groups(max_lanes, engine.num_threads());
        let mut decoding = Decoding {
            frozen: Program::new(&program.graph, &inputs, &outputs, engine),
            graph: program.graph.clone(),
            constants: program.constants.clone(),
            steps,
            tail: program.steps.iter().rposition(remembers).map_or(0, |idx| idx + 1),
            matrices: Matrices::zeros(
                &shapes.iter().map(|(_, k, n, _)| (*k, *n)).collect::<Vec<_>>(),
                weights,
            ),
            shapes,
            kept,
            memory: Memory::new(program, num_rows, max_lanes),
            logits: program.logits.clone(),
            vocab: program.vocab,
            positions: program.positions,
            groups: (0..num_groups).map(|_| Group::new(max_lanes, max_rows)).collect(),
            order: Vec::with_capacity(max_lanes),
            desks,
        };
        decoding.refresh(engine, param);
        decoding
    }

    /// Takes parameters anew; sequences keep what they remember. Allocates.
    pub fn refresh(&mut self, engine: &Engine, param: &mut dyn FnMut(&str, &mut [f32])) {
        let len = |value: ValueId| self.graph.values[value.idx()].len();
        let mut buffers: Vec<Buffer> = Vec::new();
        for input in &self.graph.inputs {
            let mut buffer = Buffer::zeros(len(input.value));
            if input.kind == InputKind::Param {
                param(&input.name, buffer.floats_mut());
            }
            buffers.push(buffer);
        }
        let num_inputs = buffers.len();
        buffers.extend(self.constants.iter().map(|value| Buffer::zeros(len(*value))));
        self.frozen.run(engine, &mut buffers, 0);
        let mut constants = buffers.split_off(num_inputs);
        for (idx, (constant, _, _, transposed)) in self.shapes.iter().enumerate() {
            self.matrices.set(idx, constants[*constant].floats(), *transposed);
        }
        for (constant, kept) in constants.iter_mut().zip(&self.kept) {
            if !kept {
                *constant = Buffer::default();
            }
        }
        self.memory.constants = constants;
    }

    /// Forgets a sequence: its next token is its first.
    pub fn reset(&mut self, row: usize) {
        self.memory.reset(row);
    }

    /// Tokens that a sequence has taken.
    pub fn position(&self, row: usize) -> usize {
        self.memory.next[row]
    }

    /// Positions that a sequence has.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Bytes of constant matrices that one run reads.
    pub fn weight_bytes(&self) -> usize {
        self.matrices.bytes()
    }

    /// Bytes of states, of all sequences together.
    pub fn state_bytes(&self) -> usize {
        self.memory.state_bytes()
    }

    /// The sequence `to` becomes what `from` is, whatever it was.
    pub fn copy_row(&mut self, from: usize, to: usize) {
        self.memory.copy_row(from, to);
    }

    /// Takes one token for each lane. Panics when a sequence has no position left or lanes are too many.
    pub fn run(&mut self, engine: &Engine, lanes: &[Lane]) {
        self.memory.take(lanes, self.positions);
        let num_groups = self.deal(engine);
        let turn = Turn {
            engine,
            steps: &self.steps,
            tail: self.tail,
            matrices: &self.matrices,
            memory: &self.memory,
            desks: SharedMut::new(&mut self.desks),
        };
        if num_groups == 1 {
            turn.run(Crew { hands: engine.together(), desk: 0 }, &mut self.groups[0]);
        } else {
            let groups = SharedMut::new(&mut self.groups);
            engine.pool().run(num_groups, &|group, worker| {
                // SAFETY: each group belongs to one task.
                let group = unsafe { &mut groups.part(group, 1)[0] };
                turn.run(Crew { hands: engine.alone(), desk: worker }, group);
            });
        }
        self.memory.keep_wanted();
    }

    /// Puts the lanes into groups of about the same size, those of one sequence into the same, and says how many: one
    /// where a sequence has so many lanes that the other threads would wait for its group.
    fn deal(&mut self, engine: &Engine) -> usize {
        let (num_lanes, num_threads) = (self.memory.lanes.len(), engine.num_threads());
        let mut num_groups = num_groups(num_lanes, num_threads);
        self.groups.iter_mut().for_each(|group| group.lanes.clear());
        if num_groups > 1 {
            // Stable, so that the lanes of a sequence stay in their order.
            self.order.clear();
            self.order.extend(0..num_lanes);
            let row = |lane: &usize| self.memory.lanes[*lane].row;
            self.order.sort_unstable_by_key(|lane| (row(lane), *lane));
            let largest = self.order.chunk_by(|a, b| row(a) == row(b)).map(<[usize]>::len).max();
            if largest.is_some_and(|largest| largest * num_threads > num_lanes) {
                num_groups = 1;
            }
        }
        let (mut group, mut last) = (0, None);
        for k in 0..num_lanes {
            let lane = self.memory.lanes[if num_groups > 1 { self.order[k] } else { k }];
            if k * num_groups >= (group + 1) * num_lanes && last != Some(lane.row) {
                group += 1;
            }
            last = Some(lane.row);
            self.groups[group].lanes.push(lane);
        }
        num_groups
    }

    /// Logits (V) after the k-th wanted lane of the last run.
    pub fn logits(&self, k: usize) -> &[f32] {
        // SAFETY: the source of the logits is V floats of that lane, and the borrow keeps them as they are.
        unsafe { std::slice::from_raw_parts(self.memory.at(&self.logits, &self.memory.lanes[k]), self.vocab) }
    }
}

/// Groups of so many lanes: one for all threads together, or several for each thread by itself.
fn num_groups(num_lanes: usize, num_threads: usize) -> usize {
    let (most, many) = (num_lanes / LEAST_LANES, num_lanes / MANY_LANES);
    match num_threads {
        1 => many.max(1),
        _ if most < num_threads => 1,
        _ => many.max(most.min(GROUPS_EACH * num_threads)),
    }
}

/// Memory for each thread, as large as any step needs.
fn desks(steps: &[Compiled], positions: usize, num_threads: usize) -> Vec<Desk> {
    let segments = || {
        steps.iter().filter_map(|step| match step {
            Compiled::Segment(segment) => Some(segment),
            Compiled::Linear { .. } | Compiled::Rope { .. } | Compiled::Other(_) => None,
        })
    };
    let most = |of: fn(&Segment) -> usize| segments().map(of).max().unwrap_or(0);
    let desk = |_| Desk {
        arena: Buffer::zeros(most(Segment::arena_len)),
        staging: Buffer::zeros(most(Segment::staging_len)),
        scores: Buffer::zeros(positions),
        pointers: Vec::with_capacity(most(Segment::num_operands)),
    };
    (0..num_threads).map(desk).collect()
}

/// Every operand of a program, the logits included.
fn sources(program: &Incremental) -> impl Iterator<Item = &Source> {
    program.steps.iter().flat_map(operands).chain(std::iter::once(&program.logits))
}

fn operands(step: &Step) -> Vec<&Source> {
    match step {
        Step::Segment { inputs, .. } => inputs.iter().collect(),
        Step::Linear { x, .. }
        | Step::Rope { x, .. }
        | Step::Softmax { x, .. }
        | Step::Remember { x, .. } => {
            vec![x]
        }
        Step::Attention { q, k, v, .. } => vec![q, k, v],
        Step::Scan { a, x, .. } => vec![a, x],
        Step::Pick { cases, .. } => cases.iter().map(|(_, _, source)| source).collect(),
    }
}

/// Plans what can be planned ahead; matrices of `Linear` are listed in `shapes`, each once.
fn compile(
    step: &Step,
    shapes: &mut Vec<(usize, usize, usize, bool)>,
    max_lanes: usize,
    engine: &Engine,
) -> Compiled {
    match step {
        Step::Segment { graph, inputs, outputs } => {
            Compiled::Segment(Segment::new(graph, inputs, outputs, max_lanes, engine))
        }
        Step::Linear { x, weight, transposed, rows, k, n, out } => {
            let shape = (*weight, *k, *n, *transposed);
            let known = shapes.iter().position(|known| *known == shape);
            let matrix = known.unwrap_or_else(|| {
                shapes.push(shape);
                shapes.len() - 1
            });
            Compiled::Linear { x: x.clone(), matrix, rows: *rows, out: *out }
        }
        Step::Rope { x, ahead, positions, heads, head_dim, base, inverse, out } => {
            let len = positions * head_dim / 2;
            let (mut cos, mut sin) = (vec![0.0; len], vec![0.0; len]);
            rope_table(&mut cos, &mut sin, *positions, *head_dim, *base);
            let shape = [1, 1, *heads, *head_dim];
            Compiled::Rope { x: x.clone(), ahead: *ahead, shape, cos, sin, inverse: *inverse, out: *out }
        }
        Step::Attention { .. }
        | Step::Scan { .. }
        | Step::Softmax { .. }
        | Step::Pick { .. }
        | Step::Remember { .. } => Compiled::Other(step.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pawl_graph::{DType, Mask, Op};

    const T: usize = 64;
    const ROWS: usize = 8;

    /// Attention on an embedding, and logits.
    fn decoding(engine: &Engine) -> Decoding {
        let (v, c) = (40, 32);
        let mut graph = Graph::new();
        let tokens = graph.input("tokens", InputKind::Tokens, &[ROWS, T], DType::I32);
        let table = graph.input("table", InputKind::Param, &[v, c], DType::F32);
        let x = graph.add(Op::Embedding, &[table, tokens]).unwrap();
        let heads = graph.add(Op::Reshape { shape: vec![ROWS, T, 2, c / 2] }, &[x]).unwrap();
        let seen = Op::Attention { mask: Mask::Causal { window: T }, scale: 0.3 };
        let seen = graph.add(seen, &[heads; 3]).unwrap();
        let seen = graph.add(Op::Reshape { shape: vec![ROWS, T, c] }, &[seen]).unwrap();
        let logits = graph.add(Op::Matmul { ta: false, tb: true }, &[seen, table]).unwrap();
        let program = graph.incremental(logits).unwrap();
        let mut param = |_: &str, to: &mut [f32]| {
            to.iter_mut().enumerate().for_each(|(i, x)| *x = (i * 31 % 61) as f32 / 30.0 - 1.0);
        };
        Decoding::new(engine, &program, ROWS, 64, Weights::F32, &mut param)
    }

    /// Groups, and the bits of all logits, of one run with so many lanes for each sequence.
    fn run(lanes: &[usize], num_threads: usize) -> (usize, Vec<u32>) {
        let engine = Engine::new(num_threads);
        let mut decoding = decoding(&engine);
        let of_row = |(row, num): (usize, &usize)| {
            (0..*num).map(move |k| Lane { row, token: ((row + 7 * k) % 40) as i32, wanted: true })
        };
        let lanes: Vec<Lane> = lanes.iter().enumerate().flat_map(of_row).collect();
        decoding.run(&engine, &lanes);
        let logits = (0..lanes.len()).flat_map(|k| decoding.logits(k).to_vec()).map(f32::to_bits).collect();
        (decoding.deal(&engine), logits)
    }

    #[test]
    fn threads_read_one_prompt_together_and_share_out_many_sequences() {
        for (lanes, num_groups) in
            [(&[32][..], 1), (&[64], 1), (&[30, 1, 1], 1), (&[4; 8], 2), (&[16, 16], 2), (&[8; 8], 4)]
        {
            let (_, one) = run(lanes, 1);
            let (dealt, two) = run(lanes, 2);
            assert_eq!(dealt, num_groups, "{lanes:?}");
            assert!(one == two, "{lanes:?}");
        }
    }
}
