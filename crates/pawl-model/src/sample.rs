//! Text from a model, one token after another. Every step runs the whole window: causality, which was
//! proved when the recipe was compiled, lets the unused positions hold anything.

use crate::model::{Model, ModelError, Scorer};
use pawl_engine::philox::uniform;

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerSettings {
    /// Divides the logits; 0 takes the largest.
    pub temperature: f32,
    /// Only the k most likely tokens take part; 0 means all.
    pub top_k: usize,
    /// Keys the draws.
    pub seed: u64,
}

/// Draws tokens from a model.
pub struct Sampler {
    scorer: Scorer,
    seq_len: usize,
    vocab: usize,
    settings: SamplerSettings,
    num_drawn: u64,
}

impl Sampler {
    /// A sampler with the model's own sequence length as window.
    pub fn new(model: &Model, settings: SamplerSettings) -> Result<Sampler, ModelError> {
        let seq_len = model.recipe().seq_len();
        let mut scorer = Scorer::logits(model, 1, seq_len)?;
        scorer.refresh(model);
        Ok(Sampler { scorer, seq_len, vocab: model.recipe().vocab_size(), settings, num_drawn: 0 })
    }

    /// The token after `context`, of which the last `seq_len` tokens are seen. `context` is not empty.
    pub fn next(&mut self, model: &Model, context: &[u32]) -> u32 {
        let seen = &context[context.len().saturating_sub(self.seq_len)..];
        assert!(!seen.is_empty(), "a context starts with at least BOS");
        let tokens = self.scorer.tokens_mut();
        tokens.fill(0);
        for (slot, token) in tokens.iter_mut().zip(seen) {
            *slot = *token as i32;
        }
        let vocab = self.vocab;
        let logits = &self.scorer.run(model)[(seen.len() - 1) * vocab..seen.len() * vocab];
        let token = choose(logits, self.settings, self.num_drawn);
        self.num_drawn += 1;
        token as u32
    }
}

/// The chosen index: ties go to the lowest.
fn choose(logits: &[f32], settings: SamplerSettings, draw: u64) -> usize {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    if settings.temperature <= 0.0 {
        return order[0];
    }
    if settings.top_k > 0 {
        order.truncate(settings.top_k);
    }
    let top = f64::from(logits[order[0]]);
    let weight = |i: &usize| ((f64::from(logits[*i]) - top) / f64::from(settings.temperature)).exp();
    let total: f64 = order.iter().map(weight).sum();
    let key = [settings.seed as u32, (settings.seed >> 32) as u32];
    let mut left = f64::from(uniform(key, 1, draw)) * total;
    for idx in &order {
        left -= weight(idx);
        if left < 0.0 {
            return *idx;
        }
    }
    order[order.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [0.0, 2.0_f32.ln(), 5.0_f32.ln()];
        let settings = SamplerSettings { temperature: 1.0, top_k: 0, seed: 3 };
        let mut counts = [0usize; 3];
        (0..80_000).for_each(|draw| counts[choose(&logits, settings, draw)] += 1);
        for (count, expected) in counts.iter().zip([10_000, 20_000, 50_000]) {
            assert!(count.abs_diff(expected) < 500, "{counts:?}");
        }
    }

    #[test]
    fn top_k_and_temperature_zero_cut_the_tail() {
        let logits = [1.0, 3.0, 2.0, 3.0];
        let greedy = SamplerSettings { temperature: 0.0, top_k: 0, seed: 0 };
        assert_eq!(choose(&logits, greedy, 0), 1);
        let two = SamplerSettings { temperature: 1.0, top_k: 2, seed: 0 };
        assert!((0..1000).all(|draw| [1, 3].contains(&choose(&logits, two, draw))));
    }
}
