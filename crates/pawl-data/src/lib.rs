//! Text to tokenizer to shards to batches.
//!
//! Every function takes the folder of a data set (`lab/data/NAME`); nothing here knows a lab, a model
//! or a recipe, prints, or reads a clock.

mod add;
mod audit;
mod chat;
mod conversations;
mod corpus;
mod dataset;
mod documents;
mod error;
mod loader;
mod lock;
mod mixture;
mod order;
mod pack;
mod progress;
mod shards;
mod store;
mod tokenizer;
mod validation;

pub use add::{AddOptions, add};
pub use audit::{Finding, check, check_files, overlap};
pub use chat::{CHAT_TEMPLATE, ChatError, ChatFormat, Rendered, ask, render};
pub use conversations::{Conversations, Row, Rows, read_conversations};
pub use corpus::carried_corpus;
pub use dataset::{CARRIED, Dataset, ensure_builtin, list, tokenizer, tokens};
pub use error::DataError;
pub use loader::{Loader, LoaderSettings, Packing};
pub use pack::{Crop, Segment, best_fit};
pub use progress::{OnProgress, Progress, Stage};
pub use shards::TokenShards;
pub use tokenizer::{
    Encoder, MIN_VOCAB_SIZE, Roles, SPECIALS, Splitter, TextStream, Tokenizer, Vocabulary, Words, words,
};
pub use validation::{Validation, ValidationSettings, sealed_validation, search_validation};
