//! Published tasks on a small model, and environments from outside.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod environments;
mod published;
mod tasks;
