//! The engine from outside: every operation's gradient against finite differences, every program against
//! its definition, the same bits for any number of threads.
#![allow(missing_docs)]

mod cases;
mod counting;
mod decoding;
mod fuzz;
mod gradients;
mod programs;
