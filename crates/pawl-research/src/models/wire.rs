//! What both protocols share: an answer that is none.

use super::message::Usage;

/// An answer that cannot be used; worth another try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// What is wrong with it.
    pub(super) what: String,
    /// What it says it cost so far.
    pub(super) usage: Usage,
}

impl Broken {
    pub(super) fn new(what: String) -> Broken {
        Broken { what, usage: Usage::default() }
    }
}
