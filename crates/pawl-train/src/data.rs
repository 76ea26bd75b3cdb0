//! A data set made ready for one vocabulary: tokenizer and token files.

use pawl_data::{CARRIED, DataError, Dataset, OnProgress, TokenShards, Tokenizer};
use pawl_record::DataRef;
use std::path::Path;

/// Tokens of a data set and the tokenizer that made them.
pub struct PreparedData {
    /// Name and content.
    pub reference: DataRef,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// Tokens on disk.
    pub shards: TokenShards,
}

/// Opens data set `name` of a lab for vocabulary `vocab_size`; the carried corpus is unpacked, the
/// tokenizer learnt and the text encoded on first use.
pub fn prepare(
    lab: &Path,
    name: &str,
    vocab_size: usize,
    progress: OnProgress<'_>,
) -> Result<PreparedData, DataError> {
    let folder = lab.join("data").join(name);
    let dataset =
        if name == CARRIED { pawl_data::ensure_builtin(&folder, progress)? } else { Dataset::open(&folder)? };
    let reference = DataRef { name: name.to_string(), hash: dataset.manifest().hash.clone() };
    let tokenizer = pawl_data::tokenizer(&folder, vocab_size, progress)?;
    let shards = pawl_data::tokens(&folder, &tokenizer, progress)?;
    Ok(PreparedData { reference, tokenizer, shards })
}
