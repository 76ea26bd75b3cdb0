//! Runs a graph: plans it once, then executes the plan on a fixed pool of threads with no allocation and
//! the same bits at any thread count. The only crate with `unsafe`.
//!
//! It refuses to know what a model is.
#![allow(unsafe_code)]

mod buffer;
mod decode;
mod engine;
mod exec;
pub mod kernels;
pub mod limits;
mod parts;
pub mod philox;
mod plan;
pub mod pool;
mod profile;
pub mod reference;
mod rounds;

pub use buffer::Buffer;
pub use decode::{Decoding, Lane, Weights};
pub use engine::Engine;
pub use exec::Program;
pub use kernels::{Isa, Precision};
pub use parts::Parts;
pub use plan::{Output, Plan, Target};
pub use profile::{Group, KernelCost, Profile};
pub use rounds::Rounds;
