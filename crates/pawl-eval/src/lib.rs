//! How good a base model is: bits per UTF-8 byte on held-out text, and accuracy on published tasks.
//!
//! The host owns the measure: it normalises the logits itself, counts bytes itself, and excludes
//! special tokens. A recipe can reach none of it.

mod bits_per_byte;
mod python_random;
mod tasks;

pub use bits_per_byte::{BitsPerByte, EvalError, Evaluator, SCORED_BYTES};
pub use tasks::{
    CoreScore, Kind, NUM_CORE, TASKS, Task, TaskError, TaskOptions, core_score, run_task, tasks_named,
};
