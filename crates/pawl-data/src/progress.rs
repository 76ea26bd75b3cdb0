//! How long work tells its caller where it is. The caller decides what a person sees of it.

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading documents; the unit is bytes of the input files.
    Read,
    /// Dividing documents into splits; bytes of text.
    Split,
    /// Learning a tokenizer: counting words; bytes of text.
    Count,
    /// Learning a tokenizer: merges.
    Merge,
    /// Turning text into tokens; bytes of text.
    Encode,
}

/// A position in long work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
}

/// Called now and then from the thread that does the work.
pub type OnProgress<'a> = &'a dyn Fn(Progress);
