//! Published tasks: a registry of data, one file a task. Adding one is a file with a [`Task`] and a line in [`TASKS`].
//!
//! Items are read from a folder that the user names, in the formats in which they are published; nothing is bundled.
//! Selection, examples before an item and prompts are those of nanochat's CORE, which are those of the DCLM evaluation.

mod files;
mod read;
mod run;
mod select;
mod sequences;
#[cfg(target_os = "linux")]
mod written;

mod agi_eval_lsat_ar;
mod arc_challenge;
mod arc_easy;
mod bigbench_cs_algorithms;
mod bigbench_dyck_languages;
mod bigbench_language_identification;
mod bigbench_operators;
mod bigbench_qa_wikidata;
mod bigbench_repeat_copy_logic;
mod blimp;
mod boolq;
mod commonsense_qa;
mod copa;
mod hellaswag;
mod hellaswag_zeroshot;
mod jeopardy;
mod lambada;
mod mmlu;
mod openbook_qa;
mod piqa;
mod winograd;
mod winogrande;

pub use run::{CoreScore, TaskOptions, core_score, run_task};
pub use select::tasks_named;
#[cfg(target_os = "linux")]
pub use written::{WRITTEN, WrittenOptions, WrittenTask, run_written};

use std::path::{Path, PathBuf};

/// One published task.
pub struct Task {
    /// As on the command line.
    pub name: &'static str,
    /// One line on what it asks.
    pub about: &'static str,
    /// What is right.
    pub kind: Kind,
    /// Examples before each item.
    pub shots: usize,
    /// Between what is asked and its continuation.
    pub delimiter: &'static str,
    /// Accuracy of a guess, 0 to 1, as published for centering.
    pub chance: f64,
    /// Whether it is one of the 22 of CORE.
    pub is_core: bool,
    /// Reads all items from the folder of data.
    pub(crate) read: fn(&Path) -> Result<TaskData, TaskError>,
}

/// When an item is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The choice of the lowest mean loss is the right one.
    Choice,
    /// The context after which the same continuation has the lowest mean loss is the right one.
    Schema,
    /// Each token of the continuation is the likeliest one.
    Completion,
    /// The whole text has a higher probability than its wrong twin.
    Pair,
}

/// Items of a task, and the hash of the files they were read from.
pub(crate) struct TaskData {
    pub(crate) items: Vec<Item>,
    pub(crate) hash: String,
}

/// One item. Of a `Choice`, `asked` holds the query and `continuations` the choices; of a `Schema`, `asked` the
/// contexts and `continuations` the one continuation; of a `Completion` one of each; of a `Pair` nothing is asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    pub(crate) asked: Vec<String>,
    pub(crate) continuations: Vec<String>,
    /// Place of the right one.
    pub(crate) gold: usize,
    /// Part of the task that it belongs to.
    pub(crate) part: Option<String>,
}

/// All tasks, CORE in its published order first.
pub const TASKS: &[Task] = &[
    hellaswag_zeroshot::TASK,
    jeopardy::TASK,
    bigbench_qa_wikidata::TASK,
    arc_easy::TASK,
    arc_challenge::TASK,
    copa::TASK,
    commonsense_qa::TASK,
    piqa::TASK,
    openbook_qa::TASK,
    lambada::TASK,
    hellaswag::TASK,
    winograd::TASK,
    winogrande::TASK,
    bigbench_dyck_languages::TASK,
    agi_eval_lsat_ar::TASK,
    bigbench_cs_algorithms::TASK,
    bigbench_operators::TASK,
    bigbench_repeat_copy_logic::TASK,
    boolq::TASK,
    bigbench_language_identification::TASK,
    blimp::TASK,
    mmlu::TASK,
];

/// Entries of CORE, of which [`TASKS`] holds those whose data can be had: SQuAD and CoQA are not among them.
pub const NUM_CORE: usize = 22;

/// A task could not be read or run.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// There is no such task.
    #[error("there is no task {name}; the tasks are {known}")]
    Unknown {
        /// As asked.
        name: String,
        /// Those there are.
        known: String,
    },
    /// The data is not where it should be.
    #[error("{path} is not there, and no compressed form of it")]
    Missing {
        /// The file or folder.
        path: PathBuf,
    },
    /// The operating system refused, or a compressed file is damaged.
    #[error("read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not what the format says.
    #[error("{path}, line {line}: {because}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// How.
        because: String,
    },
    /// The model cannot be run at this length.
    #[error(transparent)]
    Model(#[from] pawl_model::ModelError),
    /// Text cannot be generated with the model.
    #[error(transparent)]
    Decode(#[from] pawl_model::DecodeError),
    /// Programs cannot be run.
    #[cfg(target_os = "linux")]
    #[error(transparent)]
    Sandbox(#[from] crate::sandbox::SandboxError),
    /// A score could not be kept.
    #[error(transparent)]
    File(#[from] pawl_record::FileError),
}
