//! Many completions at once, each drawn from the model's own distribution: what reinforcement learning learns from. A
//! row of the decoder that has come to its end takes the next prompt. What a sequence gets depends on its key and
//! its prompt alone, not on its neighbours.

use crate::decode::{DecodeError, Decoder};
use pawl_engine::philox::uniform;

/// How completions are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DraftSettings {
    /// Divides the logits; 0 takes the likeliest token. Only at 1 are log-probabilities those that training sees.
    pub temperature: f32,
    /// Most tokens of a completion, the end token included.
    pub max_tokens: usize,
    /// The token that ends a completion.
    pub end: u32,
    /// Keys all draws.
    pub seed: u64,
}

/// A completion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// Without the prompt, with the end token if it came.
    pub tokens: Vec<u32>,
    /// Of each token under the distribution it was drawn from, nats.
    pub log_probs: Vec<f32>,
    /// Whether the end token came before the limit.
    pub finished: bool,
}

/// Completes each prompt, which comes with the key of its draws.
pub fn draft(
    decoder: &mut Decoder,
    prompts: &[(u64, &[u32])],
    settings: DraftSettings,
) -> Result<Vec<Draft>, DecodeError> {
    let mut drafts = vec![Draft::default(); prompts.len()];
    let (batch, seq_len) = (decoder.batch(), decoder.seq_len());
    // The sequence in each row, and the next to begin.
    let mut rows: Vec<Option<usize>> = vec![None; batch];
    let mut waiting = 0..prompts.len();
    let mut lanes: Vec<(usize, u32)> = Vec::with_capacity(batch);
    loop {
        for row in 0..batch {
            while rows[row].is_none() {
                let Some(at) = waiting.next() else { break };
                let (key, prompt) = prompts[at];
                let room = seq_len.saturating_sub(prompt.len());
                if room == 0 || settings.max_tokens == 0 {
                    continue;
                }
                decoder.reset(row)?;
                let logits = decoder.prefill(row, prompt)?;
                if !take(&mut drafts[at], logits, key, settings, room) {
                    rows[row] = Some(at);
                }
            }
        }
        lanes.clear();
        for (row, at) in rows.iter().enumerate() {
            if let Some(at) = at {
                lanes.push((row, *drafts[*at].tokens.last().expect("a draft in a row has begun")));
            }
        }
        if lanes.is_empty() {
            return Ok(drafts);
        }
        let logits = decoder.step(&lanes)?;
        for (k, (row, _)) in lanes.iter().enumerate() {
            let at = rows[*row].expect("the lane is of a row in use");
            let (key, prompt) = prompts[at];
            if take(&mut drafts[at], logits.row(k), key, settings, seq_len - prompt.len()) {
                rows[*row] = None;
            }
        }
    }
}

/// Draws the next token of a draft, which has `room` positions. Whether it is at its end.
fn take(draft: &mut Draft, logits: &[f32], key: u64, settings: DraftSettings, room: usize) -> bool {
    let (token, log_prob) = draw(logits, key, draft.tokens.len() as u64, settings);
    draft.tokens.push(token);
    draft.log_probs.push(log_prob);
    draft.finished = token == settings.end;
    draft.finished || draft.tokens.len() >= settings.max_tokens.min(room)
}

/// A token and its log-probability. Sums are float64 in the order of the vocabulary.
fn draw(logits: &[f32], key: u64, position: u64, settings: DraftSettings) -> (u32, f32) {
    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let greedy = settings.temperature <= 0.0;
    let scale = if greedy { 1.0 } else { 1.0 / f64::from(settings.temperature) };
    let weight = |logit: f32| (f64::from(logit - peak) * scale).exp();
    let total: f64 = logits.iter().map(|logit| weight(*logit)).sum();
    let mut chosen = logits.iter().position(|logit| *logit == peak).unwrap_or(0);
    if !greedy {
        let hash = blake3::hash(&[settings.seed.to_le_bytes(), key.to_le_bytes()].concat());
        let word = |k: usize| u32::from_le_bytes(hash.as_bytes()[k..k + 4].try_into().expect("four bytes"));
        let mut left = f64::from(uniform([word(0), word(4)], 2, position)) * total;
        // What rounding leaves belongs to the likeliest.
        for (token, logit) in logits.iter().enumerate() {
            left -= weight(*logit);
            if left < 0.0 {
                chosen = token;
                break;
            }
        }
    }
    let log_prob = f64::from(logits[chosen] - peak) * scale - total.ln();
    (chosen as u32, log_prob as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_softmax_and_know_their_probability() {
        let logits = [0.0_f32, 2.0_f32.ln(), f32::NEG_INFINITY, 5.0_f32.ln()];
        let settings = DraftSettings { temperature: 1.0, max_tokens: 1, end: 9, seed: 3 };
        let mut counts = [0usize; 4];
        for key in 0..40_000 {
            let (token, log_prob) = draw(&logits, key, key % 7, settings);
            counts[token as usize] += 1;
            let expected: f64 = [1.0, 2.0, 0.0, 5.0][token as usize] / 8.0;
            assert!((f64::from(log_prob) - expected.ln()).abs() < 1e-6);
        }
        for (count, expected) in counts.iter().zip([5_000usize, 10_000, 0, 25_000]) {
            assert!(count.abs_diff(expected) < 400, "{counts:?}");
        }
        let greedy = DraftSettings { temperature: 0.0, ..settings };
        assert_eq!(draw(&logits, 1, 0, greedy).0, 3);
    }
}
