//! Text from a model, one token after another: a position at a time where the recipe allows it, otherwise, and
//! for what lies beyond the recipe's `seq_len`, by a pass over the whole window. Causality, which was proved when
//! the recipe was compiled, lets the unused positions of a window hold anything.

use crate::decode::{DecodeError, DecodeOptions, Decoder};
use crate::model::{Model, ModelError, Scorer};
use crate::weigh::{Weighed, place, rank};
use pawl_engine::philox::uniform;
use pawl_graph::NotIncremental;

/// Logits that are put in order first where a share of the probability is asked for.
const FEW: usize = 64;
/// What of a share may be rounding: weights are summed in float32.
const SHARE_ROUNDING: f64 = 1e-6;

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerSettings {
    /// Divides the logits; 0 takes the largest.
    pub temperature: f32,
    /// Only the k most likely tokens take part; 0 means all.
    pub top_k: usize,
    /// Of those, only the likeliest that together have this probability; 1 means all.
    pub top_p: f32,
    /// Only tokens with at least this share of the likeliest one's probability; 0 means all.
    pub min_p: f32,
    /// Keys the draws.
    pub seed: u64,
}

impl Default for SamplerSettings {
    /// The model's own distribution.
    fn default() -> SamplerSettings {
        SamplerSettings { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 }
    }
}

/// Draws tokens from a model, whose parameters stay as they are while it does.
pub struct Sampler {
    decoder: Result<Decoder, NotIncremental>,
    /// What the decoder has taken.
    taken: Vec<u32>,
    /// Of whole windows; made when the first is needed.
    scorer: Option<Scorer>,
    seq_len: usize,
    vocab: usize,
    settings: SamplerSettings,
    num_drawn: u64,
}

impl Sampler {
    /// A sampler with the model's own sequence length as window.
    pub fn new(model: &Model, settings: SamplerSettings) -> Result<Sampler, ModelError> {
        let seq_len = model.recipe().seq_len();
        // A window is run only later, but a recipe that refuses one does so now.
        model.recipe().logits_graph(1, seq_len)?;
        let options = DecodeOptions { num_threads: model.num_threads(), ..DecodeOptions::default() };
        let decoder = match Decoder::new(model, 1, options) {
            Ok(decoder) => Ok(decoder),
            Err(DecodeError::NotIncremental(why)) => Err(why),
            Err(DecodeError::Model(error)) => return Err(error),
            Err(error) => unreachable!("one sequence and no token yet: {error}"),
        };
        let vocab = model.recipe().vocab_size();
        Ok(Sampler { decoder, taken: Vec::new(), scorer: None, seq_len, vocab, settings, num_drawn: 0 })
    }

    /// Why every token costs a pass over the whole window; `None` when a token costs one position.
    pub fn full_pass(&self) -> Option<&NotIncremental> {
        self.decoder.as_ref().err()
    }

    /// The token after `context`, of which the last `seq_len` tokens are seen. `context` is not empty. It costs
    /// the tokens that `context` adds to that of the last call; any other context is read from its beginning.
    pub fn next(&mut self, model: &Model, context: &[u32]) -> u32 {
        assert!(!context.is_empty(), "a context starts with at least BOS");
        let (settings, draw) = (self.settings, self.num_drawn);
        self.num_drawn += 1;
        match &mut self.decoder {
            Ok(decoder) if context.len() <= self.seq_len => {
                if !context.starts_with(&self.taken) || context.len() == self.taken.len() {
                    decoder.reset(0).expect("the decoder has a sequence");
                    self.taken.clear();
                }
                let added = &context[self.taken.len()..];
                self.taken.extend_from_slice(added);
                let logits = decoder.prefill(0, added).expect("the context fits");
                draw_token(logits, settings, draw)
            }
            Ok(_) | Err(_) => draw_token(self.window(model, context), settings, draw),
        }
    }

    /// Logits (V) after the last `seq_len` tokens of a context, all of them computed.
    fn window(&mut self, model: &Model, context: &[u32]) -> &[f32] {
        let seen = &context[context.len().saturating_sub(self.seq_len)..];
        let scorer = self.scorer.get_or_insert_with(|| {
            let mut scorer =
                Scorer::logits(model, 1, self.seq_len).expect("the recipe gave this graph before");
            scorer.refresh(model);
            scorer
        });
        let tokens = scorer.tokens_mut();
        tokens.fill(0);
        for (slot, token) in tokens.iter_mut().zip(seen) {
            *slot = *token as i32;
        }
        &scorer.run(model)[(seen.len() - 1) * self.vocab..seen.len() * self.vocab]
    }
}

/// A token drawn from logits (V): the `draw`-th number of the settings' seed decides. The largest logit when the
/// temperature is 0; ties go to the lowest token.
pub fn draw_token(logits: &[f32], settings: SamplerSettings, draw: u64) -> u32 {
    choose(logits, settings, draw) as u32
}

fn choose(logits: &[f32], settings: SamplerSettings, draw: u64) -> usize {
    assert!(!logits.is_empty(), "a vocabulary of no token");
    if settings.temperature <= 0.0 {
        return Weighed::new(logits, 1.0).likeliest();
    }
    let key = [settings.seed as u32, (settings.seed >> 32) as u32];
    let at = uniform(key, 1, draw);
    let all_by_rank = settings.top_k == 0 || settings.top_k >= logits.len();
    if all_by_rank && settings.top_p >= 1.0 && settings.min_p <= 0.0 {
        return Weighed::new(logits, settings.temperature).pick(at);
    }
    let kept = kept(logits, settings);
    let those: Vec<f32> = kept.iter().map(|i| logits[*i]).collect();
    kept[Weighed::new(&those, settings.temperature).pick(at)]
}

/// The places that take part, in order: of the softmax over the temperature.
fn kept(logits: &[f32], settings: SamplerSettings) -> Vec<usize> {
    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // A share of a probability is a distance between logits.
    let floor = peak + settings.temperature * settings.min_p.ln();
    let enough = |(_, logit): &(usize, &f32)| logit.total_cmp(&floor).is_ge();
    let mut ranks: Vec<u64> =
        logits.iter().enumerate().filter(enough).map(|(i, logit)| rank(i, *logit)).collect();
    if settings.top_k > 0 && settings.top_k < ranks.len() {
        ranks.select_nth_unstable(settings.top_k - 1);
        ranks.truncate(settings.top_k);
    }
    if settings.top_p < 1.0 {
        let num = num_of_share(&mut ranks, logits, settings);
        ranks.truncate(num);
    }
    let mut kept: Vec<usize> = ranks.into_iter().map(place).collect();
    kept.sort_unstable();
    kept
}

/// How many of the first by rank together have the probability `top_p`; they are then the first of `ranks`. The one that
/// reaches the share is the last, and there is always one.
fn num_of_share(ranks: &mut [u64], logits: &[f32], settings: SamplerSettings) -> usize {
    let those: Vec<f32> = ranks.iter().map(|rank| logits[place(*rank)]).collect();
    let weighed = Weighed::new(&those, settings.temperature);
    let weight = |rank: u64| f64::from((logits[place(rank)] - weighed.peak()) / settings.temperature).exp();
    let mut left = (f64::from(settings.top_p) - SHARE_ROUNDING) * weighed.total();
    let mut sorted = 0;
    while sorted < ranks.len() {
        // A share is mostly reached by few: the others need no order.
        let end = ranks.len().min(FEW.max(4 * sorted));
        if end < ranks.len() {
            ranks[sorted..].select_nth_unstable(end - sorted - 1);
        }
        ranks[sorted..end].sort_unstable();
        for (i, rank) in ranks.iter().enumerate().take(end).skip(sorted) {
            left -= weight(*rank);
            if left <= 0.0 {
                return i + 1;
            }
        }
        sorted = end;
    }
    ranks.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_softmax() {
        // Three that are possible: side by side, and each in a chunk of its own.
        for places in [[0, 1, 2], [3, 70, 149]] {
            for temperature in [1.0, 0.5] {
                let mut logits = vec![f32::NEG_INFINITY; places[2] + 1];
                for (place, weight) in places.into_iter().zip([1.0_f32, 2.0, 5.0]) {
                    logits[place] = temperature * weight.ln();
                }
                let settings = SamplerSettings { temperature, seed: 3, ..SamplerSettings::default() };
                let mut counts = vec![0usize; logits.len()];
                (0..80_000).for_each(|draw| counts[choose(&logits, settings, draw)] += 1);
                let counts = places.map(|place| counts[place]);
                for (count, expected) in counts.iter().zip([10_000, 20_000, 50_000]) {
                    assert!(count.abs_diff(expected) < 500, "{counts:?} of {places:?} at {temperature}");
                }
                assert_eq!(counts.iter().sum::<usize>(), 80_000, "{places:?} at {temperature}");
            }
        }
    }

    #[test]
    fn top_k_and_temperature_zero_cut_the_tail() {
        let logits = [1.0, 3.0, 2.0, 3.0];
        let greedy = SamplerSettings { temperature: 0.0, ..SamplerSettings::default() };
        assert_eq!(choose(&logits, greedy, 0), 1);
        let two = SamplerSettings { top_k: 2, ..SamplerSettings::default() };
        assert!((0..1000).all(|draw| [1, 3].contains(&choose(&logits, two, draw))));
    }

    #[test]
    fn top_p_and_min_p_cut_by_probability() {
        let logits = [0.1_f32, 0.5, 0.3, 0.1].map(f32::ln);
        let with = |top_p, min_p, temperature| {
            kept(&logits, SamplerSettings { top_p, min_p, temperature, ..SamplerSettings::default() })
        };
        assert_eq!(with(0.5, 0.0, 1.0), [1]);
        assert_eq!(with(0.51, 0.0, 1.0), [1, 2]);
        assert_eq!(with(0.81, 0.0, 1.0), [0, 1, 2], "of equals the first");
        assert_eq!(with(0.0, 0.0, 1.0), [1], "one token always takes part");
        assert_eq!(with(1.0, 0.55, 1.0), [1, 2]);
        assert_eq!(with(1.0, 0.65, 1.0), [1]);
        assert_eq!(with(1.0, 0.65, 2.0), [1, 2], "at twice the temperature shares are roots");
    }
}
