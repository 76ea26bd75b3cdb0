//! Tasks on a small model: what is selected, what is read, what is right.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod published;
mod tasks;
