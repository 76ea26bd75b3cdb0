//! Turns a graph into steps on one arena: what is fused, where each value lies, what runs when.
//!
//! It knows shapes and operations; it refuses to know what a parameter or a model is.

// Matches here pick out operations that can be fused, moved or cut; any other is left as it is, and gets its
// kernel from the exhaustive match of the executor.
#![allow(clippy::wildcard_enum_match_arm)]

mod build;
mod epilogue;
mod finish;
mod fuse;
mod group;
mod halves;
mod memory;
mod packing;
mod recompute;
mod row_writer;
mod rows;
mod schedule;
mod simplify;
mod strides;
mod symmetry;
mod tail;

use crate::kernels::gemm::Dims;
use crate::kernels::map::{Axis, MapProgram};
use crate::kernels::row_program::RowProgram;
use crate::kernels::sequence::RopeTable;
use crate::kernels::{Isa, Precision};
use pawl_graph::{Binary, Graph, Mask, Reduction, ValueId};

/// Where a tensor lies, in elements of four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loc {
    /// In a buffer of the caller.
    Buffer { buffer: usize, offset: usize },
    /// In the arena; before memory is planned `base` names a block, afterwards it is 0.
    Arena { base: usize, offset: usize },
    /// In what outlives a round: written in the first, read in all.
    Kept { offset: usize },
}

impl Loc {
    pub(crate) fn shifted(self, by: usize) -> Loc {
        match self {
            Loc::Buffer { buffer, offset } => Loc::Buffer { buffer, offset: offset + by },
            Loc::Arena { base, offset } => Loc::Arena { base, offset: offset + by },
            Loc::Kept { offset } => Loc::Kept { offset: offset + by },
        }
    }
}

/// One kernel call. Operands are in `reads` and `writes` in the order of the operation's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) kernel: Kernel,
    pub(crate) reads: Vec<Loc>,
    pub(crate) writes: Vec<Loc>,
    /// Scratch of this step alone and its length.
    pub(crate) scratch: Option<(Loc, usize)>,
}

/// When a kernel adds to what it finds instead of overwriting it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adds {
    Never,
    /// In rounds after the first of the innermost loop.
    ToRounds,
    /// The same, and in all rounds of that loop where the program around it has run before.
    ToAllRounds,
}

/// Batch of equal products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Products {
    pub(crate) adds: Adds,
    pub(crate) batch: usize,
    pub(crate) dims: Dims,
    pub(crate) ta: bool,
    pub(crate) tb: bool,
    /// The second operand was packed by a step of `Plan::once`.
    pub(crate) packed: bool,
    /// Whether each operand is stored in halves.
    pub(crate) halves: [bool; 2],
    /// The result is a symmetric matrix.
    pub(crate) symmetric: bool,
    /// Elements from one row to the next of a third operand that is added to a single product; 0 where it is one
    /// row for all.
    pub(crate) addend: Option<usize>,
}

impl Products {
    /// Kind and sizes.
    fn label(&self) -> String {
        let p = self;
        let t = |on| if on { "T" } else { "N" };
        format!("product {}{} {} x {} x {} x {}", t(p.ta), t(p.tb), p.batch, p.dims.m, p.dims.n, p.dims.k)
            + match p.addend {
                Some(0) => " + row",
                Some(_) => " + rows",
                None if p.symmetric => " symmetric",
                None => "",
            }
    }
}

/// A product whose rows go through a map.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    pub(crate) products: Products,
    pub(crate) program: MapProgram,
    /// The operand of the map that is the result of the product.
    pub(crate) read: usize,
    /// Rows that run at a time.
    pub(crate) rows: usize,
    /// Whether the result of the product is written as a whole.
    pub(crate) is_kept: bool,
}

impl Tail {
    /// Elements of the rows that run at a time.
    pub(crate) fn chunk_len(&self) -> usize {
        self.rows * self.products.dims.n
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Kernel {
    Map {
        program: MapProgram,
        len: usize,
    },
    MapReduce {
        program: MapProgram,
        kind: Reduction,
        axis: Axis,
    },
    Rows {
        program: RowProgram,
        rows: usize,
    },
    /// Integer arithmetic; extents with the strides of both operands.
    IntBinary {
        op: Binary,
        axes: Vec<(usize, usize, usize)>,
    },
    Iota {
        n: usize,
    },
    ToFloat {
        len: usize,
    },
    /// Strided copy of four-byte elements: (extent, stride read, stride written).
    Copy {
        axes: Vec<(usize, usize, usize)>,
    },
    /// Zeros.
    Clear {
        len: usize,
    },
    Gemm(Products),
    /// A product and a map of its result, some rows at a time. Reads those of the product, then those of the map
    /// but the result; writes the result if it is kept, then those of the map.
    Mapped(Box<Tail>),
    /// The second operand (K, N) of products, in the order in which they read it.
    Pack {
        k: usize,
        n: usize,
        tb: bool,
    },
    RmsNorm {
        eps: f32,
        c: usize,
        rows: usize,
    },
    RmsNormBackward {
        c: usize,
        rows: usize,
    },
    Softmax {
        mask: Mask,
        c: usize,
        rows: usize,
    },
    SoftmaxBackward {
        c: usize,
        rows: usize,
    },
    /// The table lies in `Plan::tables`.
    Rope {
        shape: [usize; 4],
        table: usize,
        inverse: bool,
    },
    Embedding {
        v: usize,
        c: usize,
        n: usize,
    },
    EmbeddingBackward {
        v: usize,
        c: usize,
        n: usize,
        adds: Adds,
    },
    Attention {
        shape: [usize; 4],
        kv: usize,
        mask: Mask,
        scale: f32,
        /// Whether the result is stored in halves too.
        halves: bool,
    },
    AttentionBackward {
        shape: [usize; 4],
        kv: usize,
        mask: Mask,
        scale: f32,
        /// Whether each result is stored in halves too.
        halves: [bool; 3],
    },
    CrossEntropy {
        n: usize,
        v: usize,
    },
    CrossEntropyBackward {
        n: usize,
        v: usize,
        /// The result is stored in halves.
        halves: bool,
    },
    Scan {
        shape: [usize; 3],
        reverse: bool,
    },
    TopK {
        k: usize,
        c: usize,
        rows: usize,
    },
    Dropout {
        rate: f32,
        stream: u32,
        len: usize,
    },
    /// writes\[0\] = or += reads\[0\]
    Accumulate {
        len: usize,
        adds: Adds,
    },
    Loop(Box<RowLoop>),
}

impl Kernel {
    /// Name and sizes, for a table of costs.
    pub(crate) fn label(&self) -> String {
        match self {
            Kernel::Map { program, len } => {
                format!(
                    "map of {} operations, {} inputs, {len}",
                    program.instrs.len(),
                    program.patterns.len()
                )
            }
            Kernel::MapReduce { program, axis, .. } => {
                format!(
                    "reduce of {} operations, {} x {} x {}",
                    program.instrs.len(),
                    axis.outer,
                    axis.n,
                    axis.inner
                )
            }
            Kernel::Rows { program, rows } => {
                format!(
                    "rows of {} operations, {} inputs, {} outputs, {rows} x {}",
                    program.instrs.len(),
                    program.inputs.len(),
                    program.outputs.len(),
                    program.c
                )
            }
            Kernel::Gemm(p) => p.label(),
            Kernel::Mapped(tail) => {
                format!("{}, map of {} operations", tail.products.label(), tail.program.instrs.len())
            }
            Kernel::Copy { axes } => format!("copy {axes:?}"),
            other => {
                let text = format!("{other:?}");
                text.split(" {").next().unwrap_or_default().to_string()
            }
        }
    }
}

/// A part of the program run for one chunk of rows after another, so that values as wide as the
/// vocabulary exist for one chunk only.
#[derive(Clone, Debug)]
pub(crate) struct RowLoop {
    pub(crate) body: Plan,
    pub(crate) rounds: usize,
    /// Elements by which each read and write moves on each round; 0 for what is whole.
    pub(crate) read_strides: Vec<usize>,
    pub(crate) write_strides: Vec<usize>,
}

/// Where an output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// The value.
    pub value: ValueId,
    /// The caller's buffer.
    pub buffer: usize,
    /// Added to what earlier rounds of the same step left there, instead of overwriting it.
    pub accumulate: bool,
}

/// What a program is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Work is laid out for at most so many workers; results do not depend on it.
    pub num_threads: usize,
    /// The instruction set.
    pub isa: Isa,
    /// Of products and attention.
    pub precision: Precision,
    /// Whether parameters stay as they are over several rounds, so that it pays to pack them once.
    pub repeats: bool,
}

/// A compiled program.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) precision: Precision,
    /// Run before the first round only: what depends on parameters alone.
    pub(crate) once: Vec<Step>,
    pub(crate) steps: Vec<Step>,
    pub(crate) arena_len: usize,
    /// Elements that outlive a round.
    pub(crate) kept_len: usize,
    pub(crate) tables: Vec<RopeTable>,
    /// Elements of each buffer that is bound, by buffer index.
    pub(crate) buffer_lens: Vec<(usize, usize)>,
}

impl Plan {
    /// Compiles what `outputs` need. `inputs[k]` is the buffer of the graph's input k; an output may share
    /// the buffer of an input (an update in place).
    pub fn compile(graph: &Graph, inputs: &[usize], outputs: &[Output], target: Target) -> Plan {
        build::compile(graph, inputs, outputs, target)
    }

    /// Bytes of the arena: everything of a round but the caller's buffers.
    pub fn arena_bytes(&self) -> usize {
        self.arena_len * 4
    }

    /// Number of kernel calls of one run.
    pub fn num_steps(&self) -> usize {
        self.steps.len()
    }
}
