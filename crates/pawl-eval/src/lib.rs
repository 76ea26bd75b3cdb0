//! How good a base model is: bits per UTF-8 byte on held-out text.
//!
//! The host owns the measure: it normalises the logits itself, counts bytes itself, and excludes
//! special tokens. A recipe can reach none of it.

mod bits_per_byte;

pub use bits_per_byte::{BitsPerByte, EvalError, Evaluator, SEALED_BYTES, SEARCH_BYTES};
