//! The program of a recipe: a flat list of a closed set of operations over static shapes, and what
//! can be known of it before a step is run: shapes, gradients, cost, causality, identity.
//!
//! Refuses to touch files, clocks, threads or the environment, and to know what a kernel is.

mod build;
mod graph;
mod infer;
mod op;

pub use graph::{Graph, Input, InputKind, Instr, ShapeError, Value, ValueId};
pub use op::{Binary, DType, Mask, Op, Reduction, Unary};
