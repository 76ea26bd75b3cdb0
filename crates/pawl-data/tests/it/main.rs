//! Behaviour of the data crate, one module per concept.

#![allow(missing_docs)]

mod packing;
