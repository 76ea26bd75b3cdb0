//! One file a command: what it asks of the other crates, and how its answer reads.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod check;
pub(crate) mod data;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod effects;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod mcp;
pub(crate) mod replicate;
pub(crate) mod report;
pub(crate) mod research;
pub(crate) mod researchers;
pub(crate) mod retract;
pub(crate) mod rl;
pub(crate) mod runs;
pub(crate) mod sample;
pub(crate) mod serve;
pub(crate) mod sft;
pub(crate) mod show;
pub(crate) mod train;
pub(crate) mod verify;
