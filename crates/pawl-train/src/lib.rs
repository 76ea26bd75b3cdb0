//! The loops that teach a model. A loop reads batches, steps the model, writes what happened into a run
//! directory, and can be killed at any moment and resumed to the same bits.
//!
//! It refuses to know the ledger, a researcher, or a terminal.

mod data;
mod identity;
mod imported;
mod lesson;
mod measure;
mod pretrain;
mod rl;
mod rollout;
mod run_dir;
mod sft;
mod vitals;

pub use data::{PreparedData, prepare};
pub use identity::{RunRequest, identify};
pub use imported::{IMPORTED, gguf_tokens, import, run_tokenizer};
pub use lesson::{LessonRequest, Taught, lesson};
pub use measure::measure;
pub use pretrain::{TrainError, TrainOptions, TrainProgress, pretrain};
pub use rl::rl;
pub use rollout::RL_SIGNALS;
pub use run_dir::{RunDir, load_frozen, load_model, recipe_of};
pub use sft::{SFT_SIGNALS, sft};
