//! Bits per byte of the search split on several amounts of its text, each a prefix of the next.

use pawl_data::{Validation, ValidationSettings, search_validation};
use pawl_model::{Model, Scorer};
use pawl_train::PreparedData;
use std::error::Error;

/// Amounts of text, KiB a domain. The last is what the product scores.
pub(crate) const SIZES: [u64; 5] = [8, 16, 32, 64, 128];

/// What a campaign's score is.
pub(crate) const FINAL: &str = "final 128";

/// Text of the scores along the way and of averaged weights, KiB a domain: several are taken of each run.
const LITTLE: u64 = 16;

const BATCH_TOKENS: usize = 2048;

pub(crate) fn of_size(size: u64) -> String {
    format!("final {size}")
}

pub(crate) struct HeldOut {
    scorer: Scorer,
    texts: Vec<Validation>,
    token_bytes: Vec<u32>,
}

impl HeldOut {
    pub(crate) fn new(model: &Model, data: &PreparedData) -> Result<HeldOut, Box<dyn Error>> {
        let seq_len = model.recipe().seq_len();
        let batch = BATCH_TOKENS / seq_len;
        let mut texts = Vec::new();
        for domain in data.shards.domains() {
            let limit_bytes = Some(SIZES[SIZES.len() - 1] << 10);
            let settings = ValidationSettings { domain: domain.to_string(), batch, seq_len, limit_bytes };
            texts.push(search_validation(&data.shards, &data.tokenizer, &settings)?);
        }
        let scorer = Scorer::losses(model, batch, seq_len)?;
        Ok(HeldOut { scorer, texts, token_bytes: data.tokenizer.token_bytes().to_vec() })
    }

    /// Scores of the model as it is, on each of [`SIZES`].
    pub(crate) fn by_size(&mut self, model: &Model) -> Vec<f64> {
        self.scores(model, &SIZES)
    }

    /// The score on a little text.
    pub(crate) fn little(&mut self, model: &Model) -> f64 {
        self.scores(model, &[LITTLE])[0]
    }

    fn scores(&mut self, model: &Model, sizes: &[u64]) -> Vec<f64> {
        self.scorer.refresh(model);
        let mut sums = vec![(0.0, 0u64); sizes.len()];
        for text in &self.texts {
            let mut bytes_so_far = 0;
            for idx in 0..text.num_batches() {
                let open: Vec<bool> = sizes.iter().map(|size| bytes_so_far < size << 10).collect();
                if !open.contains(&true) {
                    break;
                }
                let (nats, bytes) = batch(&mut self.scorer, model, text, idx, &self.token_bytes);
                bytes_so_far += bytes;
                for (sum, _) in sums.iter_mut().zip(&open).filter(|(_, open)| **open) {
                    *sum = (sum.0 + nats, sum.1 + bytes);
                }
            }
        }
        sums.iter().map(|(nats, bytes)| nats / std::f64::consts::LN_2 / *bytes as f64).collect()
    }
}

/// Nats and bytes of the targets of one batch that are text.
fn batch(
    scorer: &mut Scorer,
    model: &Model,
    text: &Validation,
    idx: usize,
    token_bytes: &[u32],
) -> (f64, u64) {
    let size = scorer.tokens_mut().len();
    let (mut inputs, mut targets) = (vec![0; size], vec![0; size]);
    text.batch(idx, &mut inputs, &mut targets);
    scorer.tokens_mut().copy_from_slice(&inputs);
    scorer.targets_mut().copy_from_slice(&targets);
    let (mut nats, mut bytes) = (0.0, 0);
    for (loss, target) in scorer.run(model).iter().zip(&targets) {
        let len = token_bytes[*target as usize];
        if len > 0 {
            nats += f64::from(*loss);
            bytes += u64::from(len);
        }
    }
    (nats, bytes)
}
