//! From the program of whole sequences (B, T) -> (B, T, V) to one that takes a single new position and what
//! earlier positions left behind. The cache of keys and values is one case of that; others are the last
//! embedding of a smear, the last positions of a short convolution, the state of a scan.
//!
//! `demand.rs` asks, from the logits back, at which positions each value is read; `lower.rs` turns values at
//! positions into nodes and states; `segments.rs` gathers nodes into the steps of a program. What cannot be
//! computed one position at a time is refused by the name of the operation. Nothing here is guessed: the
//! meaning of each axis is what the proof of causality found.

mod demand;
mod lower;
mod segments;

use crate::graph::{Graph, Instr, ValueId};

/// Where a step finds an operand, at position p of a sequence. Lengths are elements of one position.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Constant by index, whole.
    Constant(usize),
    /// One row of a constant whose first axis counts positions: row p + ahead, clamped to those there are.
    ConstantAt {
        /// Constant by index.
        constant: usize,
        /// Rows after p; negative before.
        ahead: i64,
    },
    /// What an earlier step of this position has written.
    Slot(usize),
    /// What a ring held `lag` positions ago; zeros before the sequence began.
    Recent {
        /// A [`State::Ring`].
        state: usize,
        /// Positions ago, 0 for this one.
        lag: usize,
    },
    /// A state, whole.
    State(usize),
}

/// What a sequence carries from one position to the next. All start as zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The last values of `len` elements, read up to `lag` positions back.
    Ring {
        /// Elements of a value.
        len: usize,
        /// The farthest read.
        lag: usize,
    },
    /// (outer, T, inner): every position of a value, for an operation that sees all keys at once. Positions
    /// not yet seen hold the first one's value, so that what a mask hides is as finite as what it shows.
    Keys {
        /// Product of the axes before time.
        outer: usize,
        /// T.
        positions: usize,
        /// Product of the axes after time.
        inner: usize,
    },
    /// One value, kept from a certain position on: `len` elements.
    Latch {
        /// Elements.
        len: usize,
    },
    /// Keys and then values of an attention, (K, T, D) each: what a head reads lies together.
    Attention {
        /// T.
        positions: usize,
        /// K.
        heads: usize,
        /// D.
        head_dim: usize,
    },
    /// h of a scan: `len` elements.
    Scan {
        /// Elements.
        len: usize,
    },
}

/// One step of a program of single positions. `out` is a slot.
#[derive(Clone, Debug)]
pub enum Step {
    /// A stateless program: leaf k of `graph` is read from `inputs[k]`.
    Segment {
        /// Its program, of static shapes.
        graph: Graph,
        /// Operands.
        inputs: Vec<Source>,
        /// Values and the slots they go to.
        outputs: Vec<(ValueId, usize)>,
    },
    /// x (rows, K) times a constant matrix (K, N), stored transposed when `transposed` -> (rows, N).
    Linear {
        /// Rows of one position.
        x: Source,
        /// Constant by index.
        weight: usize,
        /// Stored (N, K).
        transposed: bool,
        /// Rows of one position.
        rows: usize,
        /// K.
        k: usize,
        /// N.
        n: usize,
        /// Slot.
        out: usize,
    },
    /// x (H, D) rotated by its position.
    Rope {
        /// (H, D).
        x: Source,
        /// Position after p, or the first position whatever p is.
        ahead: Option<i64>,
        /// T.
        positions: usize,
        /// H.
        heads: usize,
        /// D.
        head_dim: usize,
        /// Base of the frequencies.
        base: f32,
        /// Rotate back.
        inverse: bool,
        /// Slot.
        out: usize,
    },
    /// q (H, D) against all keys up to its own position, which k and v (K, D) join.
    Attention {
        /// (H, D).
        q: Source,
        /// (K, D).
        k: Source,
        /// (K, D).
        v: Source,
        /// A [`State::Attention`].
        state: usize,
        /// H.
        heads: usize,
        /// K.
        kv_heads: usize,
        /// D.
        head_dim: usize,
        /// Distance to the farthest key seen.
        window: usize,
        /// Multiplies the scores.
        scale: f32,
        /// Slot.
        out: usize,
    },
    /// h = a h + x, (C) each.
    Scan {
        /// Decay.
        a: Source,
        /// Input.
        x: Source,
        /// A [`State::Scan`].
        state: usize,
        /// C.
        len: usize,
        /// Slot.
        out: usize,
    },
    /// Softmax of each of `rows` rows of T scores over keys `p - window ..= p`; 0 elsewhere.
    Softmax {
        /// (rows, T).
        x: Source,
        /// Rows of one position.
        rows: usize,
        /// T.
        positions: usize,
        /// Distance to the farthest key seen.
        window: usize,
        /// Slot.
        out: usize,
    },
    /// The case that holds p, zeros if none does: (first p, p after the last, operand).
    Pick {
        /// Ranges do not overlap.
        cases: Vec<(i64, i64, Source)>,
        /// Elements.
        len: usize,
        /// Slot.
        out: usize,
    },
    /// Puts x into a ring, a latch at position `at`, or the keys.
    Remember {
        /// One position's value.
        x: Source,
        /// Ring, latch or keys.
        state: usize,
        /// The one position that a latch takes.
        at: Option<i64>,
    },
}

/// A program of single positions. Slot 0 is the token, an I32.
#[derive(Clone, Debug)]
pub struct Incremental {
    /// The graph that makes the constants out of parameters.
    pub graph: Graph,
    /// Values of `graph` that depend on no token.
    pub constants: Vec<ValueId>,
    /// In order.
    pub steps: Vec<Step>,
    /// Elements of each slot.
    pub slots: Vec<usize>,
    /// By index.
    pub states: Vec<State>,
    /// Where the logits (V) of the position are.
    pub logits: Source,
    /// V.
    pub vocab: usize,
    /// T: positions 0 .. T exist.
    pub positions: usize,
}

/// An operation that cannot be computed one position after another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op} cannot be computed one position at a time: {because}")]
pub struct NotIncremental {
    /// Name of the operation.
    pub op: &'static str,
    /// `file:line` in the recipe, when known.
    pub origin: String,
    /// What stands in the way.
    pub because: String,
}

impl NotIncremental {
    fn new(instr: &Instr, because: impl Into<String>) -> NotIncremental {
        NotIncremental { op: instr.op.name(), origin: instr.origin.clone(), because: because.into() }
    }
}

impl Graph {
    /// The program that computes `logits` (B, T, V) one position of one sequence at a time. Constants that
    /// differ between sequences of a batch are those of the first.
    pub fn incremental(&self, logits: ValueId) -> Result<Incremental, NotIncremental> {
        let flows = self.flows(logits).map_err(|leak| NotIncremental {
            op: leak.op,
            origin: leak.origin,
            because: leak.because,
        })?;
        if !flows[logits.idx()].depends {
            return Err(NotIncremental::new(self.producer(logits), "the logits depend on no token"));
        }
        let demand = demand::trace(self, &flows, logits)?;
        let lowered = lower::lower(self, &flows, &demand, logits)?;
        segments::assemble(lowered)
    }
}
