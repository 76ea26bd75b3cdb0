//! Held-out text for bits per byte: every token of it is a target exactly once, whatever T is, so the
//! bytes that a score divides by do not depend on the recipe.
//!
//! Documents follow each other as a stream, each after its BOS. A row begins with the last token of the
//! row before as context. What remains of the last batch is BOS, whose `token_bytes` is 0: not counted.
//! The order of held-out documents is that of their hashes, so a prefix of them is a fair sample.

use crate::shards::{Shard, TokenShards};
use crate::{DataError, Tokenizer};
use pawl_record::Split;

/// Which part of which text is scored, and in what shape.
#[derive(Clone, Debug)]
pub struct ValidationSettings {
    /// Domain, as [`TokenShards::domains`] says it.
    pub domain: String,
    /// B: rows of a batch.
    pub batch: usize,
    /// T: tokens of a row.
    pub seq_len: usize,
    /// Stop at the first token that would go over this many bytes of text; `None` scores all of it.
    pub limit_bytes: Option<u64>,
}

/// Batches of held-out text.
#[derive(Clone, Debug)]
pub struct Validation {
    batch: usize,
    seq_len: usize,
    bos: i32,
    /// All tokens in a row; token i + 1 is the target of token i.
    stream: Vec<i32>,
    bytes: u64,
}

/// The search split: what a researcher's score is measured on.
pub fn search_validation(
    shards: &TokenShards,
    tokenizer: &Tokenizer,
    settings: &ValidationSettings,
) -> Result<Validation, DataError> {
    Validation::new(shards, tokenizer, settings, Split::Search)
}

/// The sealed split: for the final number and nothing else. The only way to its tokens.
pub fn sealed_validation(
    shards: &TokenShards,
    tokenizer: &Tokenizer,
    settings: &ValidationSettings,
) -> Result<Validation, DataError> {
    Validation::new(shards, tokenizer, settings, Split::Sealed)
}

impl Validation {
    fn new(
        shards: &TokenShards,
        tokenizer: &Tokenizer,
        settings: &ValidationSettings,
        split: Split,
    ) -> Result<Self, DataError> {
        assert!(settings.batch > 0 && settings.seq_len > 0, "{settings:?}");
        let shard = shards.shard(&settings.domain, split).ok_or_else(|| DataError::UnknownDomain {
            name: settings.domain.clone(),
            known: shards.domains().join(", "),
        })?;
        let limit = settings.limit_bytes.unwrap_or(u64::MAX);
        let (stream, bytes) = read_stream(shard, tokenizer, limit)?;
        Ok(Self { batch: settings.batch, seq_len: settings.seq_len, bos: shards.bos() as i32, stream, bytes })
    }

    /// Bytes of text that all batches together score; 0 when nothing is held out in this split.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Targets that are text.
    pub fn num_targets(&self) -> usize {
        self.stream.len().saturating_sub(1)
    }

    /// Batches of (B, T), the last one filled up with BOS.
    pub fn num_batches(&self) -> usize {
        self.num_targets().div_ceil(self.batch * self.seq_len)
    }

    /// Fills `inputs` and `targets`, both (B, T), with batch `idx`.
    ///
    /// # Panics
    /// When there is no such batch or a buffer has another size.
    pub fn batch(&self, idx: usize, inputs: &mut [i32], targets: &mut [i32]) {
        let size = self.batch * self.seq_len;
        assert!(idx < self.num_batches() && inputs.len() == size && targets.len() == size, "batch {idx}");
        // Rows are consecutive stretches of T targets, so a batch is one stretch of B * T.
        let start = idx * size;
        let at = |position: usize| self.stream.get(position).copied().unwrap_or(self.bos);
        for offset in 0..size {
            inputs[offset] = at(start + offset);
            targets[offset] = at(start + offset + 1);
        }
    }
}

/// Documents in order, each after its BOS, up to `limit` bytes of text; and those bytes.
fn read_stream(shard: &Shard, tokenizer: &Tokenizer, limit: u64) -> Result<(Vec<i32>, u64), DataError> {
    let mut stream = Vec::new();
    let mut bytes = 0;
    for document in 0..shard.num_documents() {
        let first = stream.len();
        shard.read(document, 0, shard.document_len(document), &mut stream)?;
        for place in first..stream.len() {
            let token_bytes = u64::from(tokenizer.token_bytes()[stream[place] as usize]);
            if bytes + token_bytes > limit {
                stream.truncate(place);
                return Ok((stream, bytes));
            }
            bytes += token_bytes;
        }
    }
    assert!(bytes == shard.bytes, "tokens of {bytes} bytes for {} bytes of text", shard.bytes);
    Ok((stream, bytes))
}
