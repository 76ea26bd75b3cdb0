//! The built binary as a person or a script meets it: texts, exit codes, documents.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bench;
mod cheats;
mod check;
mod data;
mod foreign;
mod keeps;
mod lab;
mod mcp;
mod misuse;
mod models;
mod process;
mod research;
#[cfg(target_os = "linux")]
mod sandbox;
mod surface;
mod teach;
mod train;
#[cfg(target_os = "linux")]
mod written;
