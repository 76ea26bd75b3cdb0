//! The built binary as a person or a script meets it: texts, exit codes, documents.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bench;
mod check;
mod data;
mod foreign;
mod lab;
mod misuse;
mod process;
mod research;
mod surface;
mod train;
