//! Checkpoints of the Llama family in the formats of others: GGUF files, and folders in the layout of Hugging
//! Face. Reading gives the sizes and, one at a time, the tensors of `recipes/llama.star`; writing takes them.
//!
//! It refuses what the recipe does not compute: other architectures, biases, scaled rotary positions.

mod gguf_read;
mod gguf_write;
mod hugging_face;
mod quants;

pub use gguf_read::{Gguf, GgufTokens};
pub use gguf_write::{GgufType, write_gguf};
pub use hugging_face::{HuggingFace, write_hugging_face};

use crate::llama::{HeadOrder, LlamaShape, rows_from};
use crate::model::Model;
use pawl_record::FileError;
use std::path::{Path, PathBuf};

/// A file of others could not be read, or not as it was meant.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// The operating system refused.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A record beside the tensors.
    #[error(transparent)]
    File(#[from] FileError),
    /// It holds something else than this crate can run.
    #[error("{path} cannot be imported: {because}")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why not.
        because: String,
    },
}

impl ForeignError {
    fn unfit(path: &Path) -> impl Fn(String) -> ForeignError + '_ {
        move |because| ForeignError::Unfit { path: path.to_path_buf(), because }
    }

    fn io<'a>(action: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> ForeignError + 'a {
        move |source| ForeignError::Io { action, path: path.to_path_buf(), source }
    }
}

/// A checkpoint from elsewhere, opened.
pub enum Foreign {
    /// One file with everything in it.
    Gguf(Box<Gguf>),
    /// A folder with `config.json`, safetensors and `tokenizer.json`.
    HuggingFace(Box<HuggingFace>),
}

impl Foreign {
    /// Opens a GGUF file or a folder in the layout of Hugging Face.
    pub fn open(path: &Path) -> Result<Foreign, ForeignError> {
        match path.is_dir() {
            true => Ok(Foreign::HuggingFace(Box::new(HuggingFace::open(path)?))),
            false => Ok(Foreign::Gguf(Box::new(Gguf::open(path)?))),
        }
    }

    /// Its sizes, the longest sequence it was made for included.
    pub fn shape(&self) -> &LlamaShape {
        match self {
            Foreign::Gguf(file) => file.shape(),
            Foreign::HuggingFace(folder) => folder.shape(),
        }
    }

    /// BLAKE3 of what the tensors are read from, hex.
    pub fn hash(&self) -> String {
        match self {
            Foreign::Gguf(file) => file.hash(),
            Foreign::HuggingFace(folder) => folder.hash(),
        }
    }

    /// Whether every tensor that its sizes speak of is there, in these sizes.
    pub fn check(&self) -> Result<(), ForeignError> {
        for tensor in self.shape().tensors() {
            match self {
                Foreign::Gguf(file) => file.check(&tensor.gguf, &tensor.shape)?,
                Foreign::HuggingFace(folder) => folder.check(&tensor.hugging_face, &tensor.shape)?,
            }
        }
        Ok(())
    }

    /// Writes every tensor into a model of the recipe with these sizes.
    pub fn fill(&self, model: &mut Model) -> Result<(), ForeignError> {
        let shape = self.shape();
        for tensor in shape.tensors() {
            let (values, order) = match self {
                Foreign::Gguf(file) => (file.tensor(&tensor.gguf, &tensor.shape)?, HeadOrder::Pairs),
                Foreign::HuggingFace(folder) => {
                    (folder.tensor(&tensor.hugging_face, &tensor.shape)?, HeadOrder::Halves)
                }
            };
            let values = match tensor.rotated_heads {
                Some(heads) => rows_from(order, &values, heads, shape.head_dim),
                None => values,
            };
            let buffer = model.tensor_mut(&tensor.ours).expect("the recipe of these sizes has it");
            buffer.floats_mut().copy_from_slice(&values);
        }
        Ok(())
    }
}
