//! Bits per UTF-8 byte: the summed cross-entropy of every token that is text, over the bytes of that
//! text. It does not depend on the tokenizer's vocabulary, so recipes that differ in it can be compared.

use pawl_data::{
    DataError, TokenShards, Tokenizer, Validation, ValidationSettings, sealed_validation, search_validation,
};
use pawl_model::{Model, ModelError, Scorer};
use std::collections::BTreeMap;

/// Text of the search split scored in each domain, bytes. Seeds are the noise of a pair, not the text (`cargo xtask
/// judge pairing`): with half as much the variance of a pair is 0.99 to 1.17 of what it is at 128 KiB and effects
/// move by 0.0004 bits per byte, while scoring 128 KiB costs 14 % of the FLOPs of a trial of 4e11 a domain.
pub const SEARCH_BYTES: u64 = 64 << 10;

/// Text of the sealed split scored in each domain, bytes: it is scored once a promotion.
pub const SEALED_BYTES: u64 = 128 << 10;

/// Tokens of one batch, which bounds the memory of scoring.
const BATCH_TOKENS: usize = 2048;

/// A score.
#[derive(Clone, Debug, PartialEq)]
pub struct BitsPerByte {
    /// Over all text.
    pub all: f64,
    /// By domain.
    pub by_domain: BTreeMap<String, f64>,
}

/// Scoring failed.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The held-out text.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The recipe's evaluation graph.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Nothing is held out.
    #[error("the {split} split of the data holds no text")]
    Empty {
        /// Which one.
        split: &'static str,
    },
}

/// Held-out text of one split, ready to be scored again and again.
pub struct Evaluator {
    scorer: Scorer,
    /// Sequences of a batch.
    batch: usize,
    domains: Vec<(String, Validation)>,
    token_bytes: Vec<u32>,
}

impl Evaluator {
    /// The search split: the score that a researcher sees.
    pub fn search(
        model: &Model,
        shards: &TokenShards,
        tokenizer: &Tokenizer,
    ) -> Result<Evaluator, EvalError> {
        Evaluator::new(model, shards, tokenizer, ("search", SEARCH_BYTES), search_validation)
    }

    /// The sealed split: read for reported numbers only, never shown to a researcher.
    pub fn sealed(
        model: &Model,
        shards: &TokenShards,
        tokenizer: &Tokenizer,
    ) -> Result<Evaluator, EvalError> {
        Evaluator::new(model, shards, tokenizer, ("sealed", SEALED_BYTES), sealed_validation)
    }

    fn new(
        model: &Model,
        shards: &TokenShards,
        tokenizer: &Tokenizer,
        (split, bytes): (&'static str, u64),
        read: fn(&TokenShards, &Tokenizer, &ValidationSettings) -> Result<Validation, DataError>,
    ) -> Result<Evaluator, EvalError> {
        let seq_len = model.recipe().seq_len();
        let batch = (BATCH_TOKENS / seq_len).max(1);
        let mut domains = Vec::new();
        for domain in shards.domains() {
            let limit_bytes = Some(bytes);
            let settings = ValidationSettings { domain: domain.to_string(), batch, seq_len, limit_bytes };
            let text = read(shards, tokenizer, &settings)?;
            if text.bytes() > 0 {
                domains.push((domain.to_string(), text));
            }
        }
        if domains.is_empty() {
            return Err(EvalError::Empty { split });
        }
        let scorer = Scorer::losses(model, batch, seq_len)?;
        Ok(Evaluator { scorer, batch, domains, token_bytes: tokenizer.token_bytes().to_vec() })
    }

    /// Scores the model as it is now.
    pub fn score(&mut self, model: &Model) -> BitsPerByte {
        self.scorer.refresh(model);
        let (mut bits, mut bytes) = (0.0, 0);
        let mut by_domain = BTreeMap::new();
        for (name, text) in &self.domains {
            let (domain_bits, domain_bytes) = score_domain(&mut self.scorer, model, text, &self.token_bytes);
            by_domain.insert(name.clone(), domain_bits / domain_bytes as f64);
            bits += domain_bits;
            bytes += domain_bytes;
        }
        BitsPerByte { all: bits / bytes as f64, by_domain }
    }

    /// Root mean squares of what runs between layers, over the first sequence of each domain.
    pub fn layer_scales(&self, model: &Model) -> Result<Vec<(String, f64)>, EvalError> {
        let seq_len = model.recipe().seq_len();
        let mut tokens = Vec::new();
        for (_, text) in &self.domains {
            let size = self.batch * seq_len;
            let (mut inputs, mut targets) = (vec![0; size], vec![0; size]);
            text.batch(0, &mut inputs, &mut targets);
            tokens.extend_from_slice(&inputs[..seq_len]);
        }
        Ok(model.layer_scales(&tokens, seq_len)?)
    }
}

/// Bits and bytes of one domain, summed in float64 in the order of the text.
fn score_domain(scorer: &mut Scorer, model: &Model, text: &Validation, token_bytes: &[u32]) -> (f64, u64) {
    let size = scorer.tokens_mut().len();
    let (mut inputs, mut targets) = (vec![0; size], vec![0; size]);
    let (mut nats, mut bytes) = (0.0, 0);
    for idx in 0..text.num_batches() {
        text.batch(idx, &mut inputs, &mut targets);
        scorer.tokens_mut().copy_from_slice(&inputs);
        scorer.targets_mut().copy_from_slice(&targets);
        let losses = scorer.run(model);
        let (batch_nats, batch_bytes) = count(losses, &targets, token_bytes);
        nats += batch_nats;
        bytes += batch_bytes;
    }
    assert_eq!(bytes, text.bytes(), "every byte of the text is scored once");
    (nats / std::f64::consts::LN_2, bytes)
}

/// Nats and bytes of the targets that are text; specials have no bytes and are left out of both sums.
fn count(losses: &[f32], targets: &[i32], token_bytes: &[u32]) -> (f64, u64) {
    let (mut nats, mut bytes) = (0.0, 0);
    for (loss, target) in losses.iter().zip(targets) {
        let size = usize::try_from(*target).map_or(0, |id| token_bytes[id]);
        if size > 0 {
            nats += f64::from(*loss);
            bytes += u64::from(size);
        }
    }
    (nats, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpb_ignores_special_tokens() {
        let token_bytes = [3, 1, 0];
        let (nats, bytes) = count(&[1.0, 0.5, 100.0, 7.0], &[0, 1, 2, -1], &token_bytes);
        assert_eq!((nats, bytes), (1.5, 4));
    }
}
