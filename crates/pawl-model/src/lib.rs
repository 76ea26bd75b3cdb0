//! A recipe made runnable: initial values, training steps, losses, logits, samples, checkpoints.
//!
//! It refuses to read data, to decide how long to train, and to know what a campaign is.

mod checkpoint;
mod decode;
mod foreign;
mod generate;
mod group;
mod init;
mod llama;
mod model;
mod sample;
mod weigh;

pub use checkpoint::{CheckpointError, load_checkpoint, load_start, save_checkpoint};
pub use decode::{DecodeError, DecodeOptions, Decoder, Logits};
pub use foreign::{
    Foreign, ForeignError, Gguf, GgufTokens, GgufType, HuggingFace, write_gguf, write_hugging_face,
};
pub use generate::{Emitted, Ended, Generator, LogProb, Request, log_prob, top_log_probs};
pub use group::{Draft, DraftSettings, draft};
pub use init::draw;
pub use llama::{HeadOrder, LLAMA, LlamaShape, NamedTensor, rows_from, rows_to};
pub use model::{Model, ModelError, Scorer, UPDATE_SECTION};
pub use pawl_engine::{Precision, Weights};
pub use sample::{Sampler, SamplerSettings, draw_token};
