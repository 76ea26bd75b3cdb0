//! Speed of generation from a small nano of some 15 million parameters.

use super::{How, shipped_recipe};
use crate::errors::Failure;
use pawl_model::{DecodeError, DecodeOptions, Decoder, Model, SamplerSettings, draw_token};
use pawl_recipe::Overrides;
use pawl_record::SettingValue;
use serde_json::{Value, json};
use std::time::Instant;

const PROMPT_TOKENS: usize = 32;
/// Tokens to draw for each sequence at most, and seconds after which no further one is begun.
const TOKENS: usize = 128;
const SECONDS: f64 = 2.0;
const QUICK_TOKENS: usize = 4;

/// What generation of some sequences at a time reached.
pub(super) struct Decode {
    num_sequences: usize,
    num_params: usize,
    /// Of all sequences together.
    pub(super) tokens_per_sec: f64,
}

impl Decode {
    pub(super) fn words(&self) -> String {
        let plural = if self.num_sequences == 1 { "" } else { "s" };
        format!("{} sequence{plural}", self.num_sequences)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "sequences": self.num_sequences,
            "num_params": self.num_params,
            "tokens_per_sec": self.tokens_per_sec,
        })
    }
}

pub(super) fn measure(how: &How<'_>) -> Result<Vec<Decode>, Failure> {
    how.status.show("decoding".to_string());
    let (depth, seq_len, head_dim, vocab_size) =
        if how.quick { (2, 64, 16, 256) } else { (6, 256, 64, 2048) };
    let values =
        [("seq_len", seq_len), ("head_dim", head_dim), ("vocab_size", vocab_size), ("tokens_per_step", 4096)];
    let values = values.map(|(name, value)| (name.to_string(), SettingValue::Int(value)));
    let recipe =
        shipped_recipe("nano", &Overrides { depth: Some(depth), values: values.into_iter().collect() })?;
    let num_params = recipe.params().iter().map(|param| param.shape.iter().product::<usize>()).sum();
    let model = Model::new(recipe, how.num_threads, 0)?;
    let num_tokens = if how.quick { QUICK_TOKENS } else { TOKENS };
    let speed = |num_sequences| {
        let tokens_per_sec = generate(&model, num_sequences, num_tokens)?;
        Ok(Decode { num_sequences, num_params, tokens_per_sec })
    };
    [1, 16].into_iter().map(speed).collect()
}

/// Tokens/s of `num_sequences` sequences that grow together after a prompt.
fn generate(model: &Model, num_sequences: usize, num_tokens: usize) -> Result<f64, Failure> {
    let settings = SamplerSettings { temperature: 1.0, top_k: 0, seed: 0 };
    let options = DecodeOptions { num_threads: model.num_threads(), ..DecodeOptions::default() };
    let refused = |error: DecodeError| Failure::new("nano cannot be decoded").caused_by(&error);
    let mut decoder = Decoder::new(model, num_sequences, options).map_err(refused)?;
    let prompt: Vec<u32> = (1..=PROMPT_TOKENS as u32).collect();
    let mut next = Vec::with_capacity(num_sequences);
    for row in 0..num_sequences {
        let logits = decoder.prefill(row, &prompt).map_err(refused)?;
        next.push((row, draw_token(logits, settings, row as u64)));
    }
    let begun = Instant::now();
    let mut drawn = 0;
    while drawn < num_tokens && (drawn == 0 || begun.elapsed().as_secs_f64() < SECONDS) {
        let logits = decoder.step(&next).map_err(refused)?;
        drawn += 1;
        for (row, token) in &mut next {
            *token = draw_token(logits.row(*row), settings, (drawn * num_sequences + *row) as u64);
        }
    }
    Ok((drawn * num_sequences) as f64 / begun.elapsed().as_secs_f64())
}
