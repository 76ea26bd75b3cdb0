//! The program of a recipe: a flat list of a closed set of operations over static shapes, and what
//! can be known of it before a step is run: shapes, gradients, cost, causality, identity.
//!
//! Refuses to touch files, clocks, threads or the environment, and to know what a kernel is.

mod autodiff;
mod build;
mod causality;
mod cost;
mod fingerprint;
mod graph;
mod incremental;
mod infer;
mod layers;
mod op;
mod stacked;

pub use causality::Leak;
pub use cost::{Cost, visible_pairs};
pub use fingerprint::Digest;
pub use graph::{Graph, Input, InputKind, Instr, ShapeError, Value, ValueId};
pub use incremental::{Incremental, NotIncremental, Source, State, Step};
pub use layers::Boundary;
pub use op::{Binary, DType, Mask, Op, Reduction, Unary};
pub use stacked::Stacked;
