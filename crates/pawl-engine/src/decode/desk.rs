//! What a thread works with while it takes lanes through the steps.

use crate::buffer::Buffer;

/// Memory of one thread, whose content means nothing between steps.
pub(super) struct Desk {
    /// Of the programs of segments.
    pub(super) arena: Buffer,
    /// Operands of lanes, side by side.
    pub(super) staging: Buffer,
    /// Of one head's attention: a number for each position.
    pub(super) scores: Buffer,
    pub(super) pointers: Vec<*mut f32>,
}

// SAFETY: the pointers are scratch, rebuilt for every program from memory that outlives it.
unsafe impl Send for Desk {}
