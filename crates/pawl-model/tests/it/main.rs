//! Tests that need a whole model.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod causality;
mod decode;
mod foreign;
mod generate;
#[path = "../../examples/parity/inputs.rs"]
mod inputs;
mod library;
#[path = "../../examples/parity/machine.rs"]
mod machine;
mod many;
mod parity;
mod steps;
