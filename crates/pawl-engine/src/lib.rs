//! The engine of pawl: CPU kernels and the threads they run on.
#![allow(unsafe_code)] // the one crate where it is allowed; each block says why it is sound

pub mod kernels;
pub mod pool;
