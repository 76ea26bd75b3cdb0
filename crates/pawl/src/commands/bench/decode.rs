//! Speed of generation from a small nano of some 15 million parameters, by the format of its matrices, beside what
//! reading them costs.

use super::limits::Limits;
use super::{How, percent, shipped_recipe};
use crate::errors::Failure;
use crate::output::{Align, Table, bytes, count};
use pawl_model::{DecodeError, DecodeOptions, Decoder, Model, SamplerSettings, Weights, draw_token};
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
    weights: Weights,
    num_sequences: usize,
    num_params: usize,
    /// Bytes of matrices that a step reads, for all sequences together.
    weight_bytes: usize,
    /// Of all sequences together.
    tokens_per_sec: f64,
}

pub(super) fn table(decodes: &[Decode], limits: &Limits) -> String {
    let mut table = Table::new(&[
        ("decode", Align::Left),
        ("weights", Align::Left),
        ("tokens/s", Align::Right),
        ("weights/step", Align::Right),
        ("weights GB/s", Align::Right),
        ("of bandwidth", Align::Right),
    ]);
    for decode in decodes {
        let plural = if decode.num_sequences == 1 { "" } else { "s" };
        table.row(vec![
            format!("{} sequence{plural}", decode.num_sequences),
            word(decode.weights).to_string(),
            count(decode.tokens_per_sec),
            bytes(decode.weight_bytes as u64),
            format!("{:.1}", decode.weight_bytes_per_sec() / 1e9),
            percent(decode.bandwidth_share(limits)),
        ]);
    }
    table.text()
}

impl Decode {
    /// A step gives each sequence a token and reads every matrix once.
    fn weight_bytes_per_sec(&self) -> f64 {
        self.weight_bytes as f64 / self.num_sequences as f64 * self.tokens_per_sec
    }

    fn bandwidth_share(&self, limits: &Limits) -> f64 {
        self.weight_bytes_per_sec() / limits.all.bandwidth()
    }

    pub(super) fn json(&self, limits: &Limits) -> Value {
        json!({
            "weights": word(self.weights),
            "sequences": self.num_sequences,
            "num_params": self.num_params,
            "tokens_per_sec": self.tokens_per_sec,
            "weight_bytes_per_step": self.weight_bytes,
            "weight_bytes_per_sec": self.weight_bytes_per_sec(),
            "bandwidth_share": self.bandwidth_share(limits),
        })
    }
}

/// As the table and the document write it.
fn word(weights: Weights) -> &'static str {
    match weights {
        Weights::F32 => "f32",
        Weights::Bf16 => "bf16",
        Weights::Int8 => "int8",
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
    let mut decodes = Vec::new();
    for weights in [Weights::F32, Weights::Bf16, Weights::Int8] {
        for num_sequences in [1, 16] {
            let options =
                DecodeOptions { weights, num_threads: model.num_threads(), ..DecodeOptions::default() };
            let mut decoder = Decoder::new(&model, num_sequences, options).map_err(refused)?;
            let tokens_per_sec = generate(&mut decoder, num_tokens).map_err(refused)?;
            let weight_bytes = decoder.weight_bytes();
            decodes.push(Decode { weights, num_sequences, num_params, weight_bytes, tokens_per_sec });
        }
    }
    Ok(decodes)
}

fn refused(error: DecodeError) -> Failure {
    Failure::new("nano cannot be decoded").caused_by(&error)
}

/// Tokens/s of all sequences of a decoder, which grow together after a prompt.
fn generate(decoder: &mut Decoder, num_tokens: usize) -> Result<f64, DecodeError> {
    let settings = SamplerSettings::default();
    let num_sequences = decoder.batch();
    let prompt: Vec<u32> = (1..=PROMPT_TOKENS as u32).collect();
    let mut next = Vec::with_capacity(num_sequences);
    for row in 0..num_sequences {
        let logits = decoder.prefill(row, &prompt)?;
        next.push((row, draw_token(logits, settings, row as u64)));
    }
    let begun = Instant::now();
    let mut drawn = 0;
    while drawn < num_tokens && (drawn == 0 || begun.elapsed().as_secs_f64() < SECONDS) {
        let logits = decoder.step(&next)?;
        drawn += 1;
        for (row, token) in &mut next {
            *token = draw_token(logits.row(*row), settings, (drawn * num_sequences + *row) as u64);
        }
    }
    Ok((drawn * num_sequences) as f64 / begun.elapsed().as_secs_f64())
}
