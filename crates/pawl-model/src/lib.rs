//! A recipe made runnable: initial values, training steps, losses, logits, samples, checkpoints.
//!
//! It refuses to read data, to decide how long to train, and to know what a campaign is.

mod checkpoint;
mod decode;
mod group;
mod init;
mod model;
mod sample;

pub use checkpoint::{CheckpointError, load_checkpoint, load_start, save_checkpoint};
pub use decode::{DecodeError, DecodeOptions, Decoder, Logits};
pub use group::{Draft, DraftSettings, draft};
pub use init::draw;
pub use model::{Model, ModelError, Scorer, UPDATE_SECTION};
pub use pawl_engine::{Precision, Weights};
pub use sample::{Sampler, SamplerSettings, draw_token};
