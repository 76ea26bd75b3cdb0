//! Tests that need a whole model.

mod parity;
