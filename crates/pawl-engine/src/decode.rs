//! Runs a program of single positions: several sequences at once, each at its own position.
//!
//! One run takes lanes, each the next token of a sequence; a sequence may take several lanes in a row, which
//! are then its next positions. Steps are done one after another for all lanes, so a matrix is read once for
//! all of them. Every other step is done lane by lane on memory of that lane alone: what a lane computes
//! depends neither on the other lanes nor on how many there are, to the bit. It refuses to choose tokens.

mod memory;

use crate::buffer::Buffer;
use crate::engine::Engine;
use crate::exec::Program;
use crate::kernels::decode::matrices::Matrices;
pub use crate::kernels::decode::matrices::Weights;
use crate::kernels::decode::{past, products};
use crate::kernels::rows::softmax_forward;
use crate::kernels::sequence::{rope, rope_table};
use crate::plan::Output;
use memory::Memory;
use pawl_graph::{Graph, Incremental, InputKind, Mask, Source, State, Step, ValueId};

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
    scores: Buffer,
    x: Vec<*const f32>,
    y: Vec<*mut f32>,
    pointers: Vec<*mut f32>,
}

// SAFETY: the pointers are scratch, rebuilt in every run from memory that the value owns.
unsafe impl Send for Decoding {}

enum Compiled {
    Segment {
        program: Program,
        inputs: Vec<Source>,
        outputs: Vec<usize>,
    },
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
            program.steps.iter().map(|step| compile(step, &mut shapes, engine)).collect();
        let remembers =
            |step: &Step| matches!(step, Step::Remember { .. } | Step::Attention { .. } | Step::Scan { .. });
        let max_rows =
            program.steps.iter().map(|step| if let Step::Linear { rows, .. } = step { *rows } else { 1 });
        let max_rows = max_rows.max().unwrap_or(1);
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
            scores: Buffer::zeros(engine.num_threads() * program.positions),
            x: Vec::with_capacity(max_rows * max_lanes),
            y: Vec::with_capacity(max_rows * max_lanes),
            pointers: Vec::with_capacity(64),
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

    /// Takes one token for each lane. Panics when a sequence has no position left or lanes are too many.
    pub fn run(&mut self, engine: &Engine, lanes: &[Lane]) {
        self.memory.take(lanes, self.positions);
        for idx in 0..self.steps.len() {
            if idx == self.tail {
                self.memory.keep_wanted();
            }
            self.step(engine, idx);
        }
        if self.tail >= self.steps.len() {
            self.memory.keep_wanted();
        }
    }

    /// Logits (V) after the k-th wanted lane of the last run.
    pub fn logits(&self, k: usize) -> &[f32] {
        // SAFETY: the source of the logits is V floats of that lane, and the borrow keeps them as they are.
        unsafe { std::slice::from_raw_parts(self.memory.at(&self.logits, k), self.vocab) }
    }

    fn step(&mut self, engine: &Engine, idx: usize) {
        let memory = &mut self.memory;
        match &mut self.steps[idx] {
            Compiled::Segment { program, inputs, outputs } => {
                for lane in 0..memory.lanes.len() {
                    self.pointers.clear();
                    self.pointers.extend(inputs.iter().map(|source| memory.at(source, lane).cast_mut()));
                    self.pointers.extend(outputs.iter().map(|slot| memory.slot(*slot, lane)));
                    // SAFETY: operands are as long as their values, outputs are slots of this lane alone.
                    unsafe { program.run_at(engine, &self.pointers) };
                }
            }
            Compiled::Linear { x, matrix, rows, out } => {
                let w = self.matrices.get(*matrix);
                let (k, n) = w.dims();
                self.x.clear();
                self.y.clear();
                for lane in 0..memory.lanes.len() {
                    let (x, y) = (memory.at(x, lane), memory.slot(*out, lane));
                    self.x.extend((0..*rows).map(|row| x.wrapping_add(row * k)));
                    self.y.extend((0..*rows).map(|row| y.wrapping_add(row * n)));
                }
                // SAFETY: each lane holds `rows` rows of K and of N, the latter in a slot that nothing else reads now.
                unsafe { products::linear(engine.pool(), engine.isa(), &self.y, &self.x, w) };
            }
            Compiled::Rope { x, ahead, shape, cos, sin, inverse, out } => {
                let [_, _, heads, d] = *shape;
                for lane in 0..memory.lanes.len() {
                    let position = ahead.map_or(0, |ahead| memory.position_of(lane, ahead, self.positions));
                    let table = position * d / 2..(position + 1) * d / 2;
                    // SAFETY: (H, D) each, and the slot is not the operand.
                    let (y, x) =
                        unsafe { (memory.write(*out, lane, heads * d), memory.read(x, lane, heads * d)) };
                    rope(
                        engine.pool(),
                        engine.isa(),
                        y,
                        x,
                        &cos[table.clone()],
                        &sin[table],
                        *shape,
                        *inverse,
                    );
                }
            }
            Compiled::Other(step) => other(engine, memory, &mut self.scores, step),
        }
    }
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
fn compile(step: &Step, shapes: &mut Vec<(usize, usize, usize, bool)>, engine: &Engine) -> Compiled {
    match step {
        Step::Segment { graph, inputs, outputs } => {
            let buffers: Vec<usize> = (0..inputs.len()).collect();
            let bound = outputs.iter().enumerate().map(|(k, (value, _))| Output {
                value: *value,
                buffer: inputs.len() + k,
                accumulate: false,
            });
            let program = Program::new(graph, &buffers, &bound.collect::<Vec<_>>(), engine);
            let outputs = outputs.iter().map(|(_, slot)| *slot).collect();
            Compiled::Segment { program, inputs: inputs.clone(), outputs }
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

/// Steps that read or write states, and those that depend on the position.
fn other(engine: &Engine, memory: &mut Memory, scores: &mut Buffer, step: &Step) {
    let isa = engine.isa();
    match step {
        Step::Attention { .. } => attention(engine, memory, scores, step),
        Step::Scan { a, x, state, len, out } => {
            for lane in 0..memory.lanes.len() {
                // SAFETY: C floats each; the state belongs to the lane's sequence and the slot to the lane.
                unsafe {
                    let h = memory.state(*state, lane, 0, *len);
                    past::advance_scan(isa, h, memory.read(a, lane, *len), memory.read(x, lane, *len));
                    memory.write(*out, lane, *len).copy_from_slice(h);
                }
            }
        }
        Step::Softmax { x, rows, positions, window, out } => {
            for lane in 0..memory.lanes.len() {
                let position = memory.position_of(lane, 0, *positions);
                let seen = position.saturating_sub(*window)..position + 1;
                // SAFETY: (rows, T) floats each, in different slots.
                let (y, x) = unsafe {
                    (memory.write(*out, lane, rows * positions), memory.read(x, lane, rows * positions))
                };
                for (y, x) in y.chunks_exact_mut(*positions).zip(x.chunks_exact(*positions)) {
                    y.fill(0.0);
                    let (y, x) = (&mut y[seen.clone()], &x[seen.clone()]);
                    softmax_forward(engine.pool(), isa, y, x, seen.len(), Mask::Full);
                }
            }
        }
        Step::Pick { cases, len, out } => {
            for lane in 0..memory.lanes.len() {
                let p = memory.lanes[lane].position;
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
            for lane in 0..memory.lanes.len() {
                memory.remember(x, *state, *at, lane);
            }
        }
        Step::Segment { .. } | Step::Linear { .. } | Step::Rope { .. } => unreachable!("planned ahead"),
    }
}

/// Keys and values of all lanes join their sequences first, so that lanes of one sequence see each other.
fn attention(engine: &Engine, memory: &Memory, scores: &mut Buffer, step: &Step) {
    let Step::Attention { q, k, v, state, heads, kv_heads, head_dim, window, scale, out } = step else {
        unreachable!("called for attention alone")
    };
    let State::Attention { positions, width } = memory.states[*state] else {
        unreachable!("the state of an attention")
    };
    let head_len = positions * head_dim;
    for lane in 0..memory.lanes.len() {
        let p = memory.position_of(lane, 0, positions);
        // SAFETY: (K, T, D) keys and as many values belong to the lane's sequence; k and v are (K, D).
        unsafe {
            let new = memory.read(k, lane, width).chunks_exact(*head_dim);
            for (head, new) in new.chain(memory.read(v, lane, width).chunks_exact(*head_dim)).enumerate() {
                memory.state(*state, lane, head * head_len + p * head_dim, *head_dim).copy_from_slice(new);
            }
        }
    }
    let scores = crate::pool::SharedMut::new(scores.floats_mut());
    let memory = &Shared(memory);
    engine.pool().run(memory.get().lanes.len() * heads, &|task, worker| {
        let (memory, lane, head) = (memory.get(), task / heads, task % heads);
        let p = memory.position_of(lane, 0, positions);
        let first = p.saturating_sub(*window);
        let num = p + 1 - first;
        let start = head / (heads / kv_heads) * head_len + first * head_dim;
        // SAFETY: keys and values are only read now; each task writes its own head, and a worker its own scores.
        unsafe {
            let keys = memory.state(*state, lane, start, num * head_dim);
            let values = memory.state(*state, lane, kv_heads * head_len + start, num * head_dim);
            let q = &memory.read(q, lane, heads * head_dim)[head * head_dim..][..*head_dim];
            let out = std::slice::from_raw_parts_mut(memory.slot(*out, lane).add(head * head_dim), *head_dim);
            let scores = scores.part(worker * positions, num);
            past::attend(engine.isa(), out, scores, q, keys, values, *scale);
        }
    });
}

/// Memory that tasks of one run share.
struct Shared<'a>(&'a Memory);
// SAFETY: tasks read what no task writes, and write slots of their own.
unsafe impl Sync for Shared<'_> {}

impl Shared<'_> {
    fn get(&self) -> &Memory {
        self.0
    }
}
