//! How good a base model is: bits per UTF-8 byte on held-out text, and accuracy on published tasks.
//!
//! The host owns the measure: it normalises the logits itself, counts bytes itself, and excludes
//! special tokens. A recipe can reach none of it.

mod bits_per_byte;
pub mod env;
mod instructions;
mod pass_at;
mod python_random;
#[cfg(target_os = "linux")]
pub mod sandbox;
mod tasks;

pub use bits_per_byte::{BitsPerByte, EvalError, Evaluator, SEALED_BYTES, SEARCH_BYTES};
pub use instructions::{builtin_instructions, demonstrations};
pub use pass_at::{pass_at, pass_rate};
pub use tasks::{
    CoreScore, Kind, NUM_CORE, TASKS, Task, TaskError, TaskOptions, core_score, run_task, tasks_named,
};
#[cfg(target_os = "linux")]
pub use tasks::{WRITTEN, WrittenOptions, WrittenTask, run_written};
