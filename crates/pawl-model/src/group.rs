//! Many completions at once, each drawn from the model's own distribution: what reinforcement learning learns from. A
//! row of the decoder that has come to its end takes the next prompt. What a sequence gets depends on its key and
//! its prompt alone, not on its neighbours.

use crate::decode::{DecodeError, Decoder};
use crate::weigh::Weighed;
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

/// A draft in a row of the decoder.
#[derive(Clone, Copy)]
struct Seat {
    /// Which prompt.
    at: usize,
    /// Tokens of the prompt that the decoder has taken.
    taken: usize,
    /// The row that reads the same prompt for this one too.
    reader: Option<usize>,
}

/// Completes each prompt, which comes with the key of its draws. A prompt that several rows begin with at the same time
/// is read once.
pub fn draft(
    decoder: &mut Decoder,
    prompts: &[(u64, &[u32])],
    settings: DraftSettings,
) -> Result<Vec<Draft>, DecodeError> {
    let mut drafts = vec![Draft::default(); prompts.len()];
    if prompts.iter().any(|(_, prompt)| prompt.is_empty()) {
        return Err(DecodeError::Empty);
    }
    let (batch, seq_len) = (decoder.batch(), decoder.seq_len());
    let room = |at: usize| seq_len.saturating_sub(prompts[at].1.len()).min(settings.max_tokens);
    let mut seats: Vec<Option<Seat>> = vec![None; batch];
    let mut waiting = (0..prompts.len()).filter(|at| room(*at) > 0);
    let mut lanes: Vec<(usize, u32, bool)> = Vec::with_capacity(decoder.max_tokens());
    loop {
        seat(decoder, &mut seats, &mut waiting, prompts)?;
        fill(&mut lanes, &mut seats, &drafts, prompts, decoder.max_tokens());
        if lanes.is_empty() {
            return Ok(drafts);
        }
        decoder.step_wanted(&lanes)?;
        let logits = decoder.logits();
        let mut draws: Vec<Draw<'_>> = Vec::with_capacity(batch);
        for (k, (reader, _, _)) in lanes.iter().filter(|(_, _, wanted)| *wanted).enumerate() {
            for (row, seat) in seats.iter().enumerate() {
                let Some(seat) = seat.filter(|seat| row == *reader || seat.reader == Some(*reader)) else {
                    continue;
                };
                let (key, position) = (prompts[seat.at].0, drafts[seat.at].tokens.len() as u64);
                draws.push(Draw { row, logits: logits.row(k), key, position, drawn: (0, 0.0) });
            }
        }
        decoder.engine().for_each(&mut draws, |it| it.drawn = draw(it.logits, it.key, it.position, settings));
        let drawn: Vec<(usize, (u32, f32))> = draws.into_iter().map(|draw| (draw.row, draw.drawn)).collect();
        for (row, (token, log_prob)) in drawn {
            let Some(seat) = &mut seats[row] else { continue };
            if let Some(reader) = seat.reader.take() {
                decoder.copy(reader, row)?;
                seat.taken = prompts[seat.at].1.len();
            }
            let at = seat.at;
            let draft = &mut drafts[at];
            draft.tokens.push(token);
            draft.log_probs.push(log_prob);
            draft.finished = token == settings.end;
            if draft.finished || draft.tokens.len() >= room(at) {
                seats[row] = None;
            }
        }
    }
}

/// A token to be drawn for a row.
struct Draw<'a> {
    row: usize,
    logits: &'a [f32],
    key: u64,
    position: u64,
    drawn: (u32, f32),
}

/// Gives free rows to prompts that wait.
fn seat(
    decoder: &mut Decoder,
    seats: &mut [Option<Seat>],
    waiting: &mut impl Iterator<Item = usize>,
    prompts: &[(u64, &[u32])],
) -> Result<(), DecodeError> {
    let mut last: Option<(usize, usize)> = None;
    for row in 0..seats.len() {
        if seats[row].is_some() {
            continue;
        }
        let Some(at) = waiting.next() else { break };
        let reader = last.filter(|(_, other)| prompts[*other].1 == prompts[at].1).map(|(reader, _)| reader);
        if reader.is_none() {
            decoder.reset(row)?;
            last = Some((row, at));
        }
        seats[row] = Some(Seat { at, taken: 0, reader });
    }
    Ok(())
}

/// Lanes of the next step: what was drawn last, or a token of the prompt, for each row, then what is left of prompts.
fn fill(
    lanes: &mut Vec<(usize, u32, bool)>,
    seats: &mut [Option<Seat>],
    drafts: &[Draft],
    prompts: &[(u64, &[u32])],
    max_tokens: usize,
) {
    lanes.clear();
    let reads = |seat: &Option<Seat>| seat.is_some_and(|seat| seat.reader.is_none());
    let mut spare = max_tokens - seats.iter().filter(|seat| reads(seat)).count();
    for (row, seat) in seats.iter_mut().enumerate() {
        let Some(seat) = seat.as_mut().filter(|seat| seat.reader.is_none()) else { continue };
        let prompt = prompts[seat.at].1;
        if seat.taken == prompt.len() {
            lanes.push((row, *drafts[seat.at].tokens.last().expect("what follows a prompt was drawn"), true));
            continue;
        }
        let more = (prompt.len() - seat.taken - 1).min(spare);
        spare -= more;
        for _ in 0..=more {
            seat.taken += 1;
            lanes.push((row, prompt[seat.taken - 1], seat.taken == prompt.len()));
        }
    }
}

/// A token and its log-probability.
fn draw(logits: &[f32], key: u64, position: u64, settings: DraftSettings) -> (u32, f32) {
    let greedy = settings.temperature <= 0.0;
    let weighed = Weighed::new(logits, if greedy { 1.0 } else { settings.temperature });
    let chosen = if greedy {
        weighed.likeliest()
    } else {
        let hash = blake3::hash(&[settings.seed.to_le_bytes(), key.to_le_bytes()].concat());
        let word = |k: usize| u32::from_le_bytes(hash.as_bytes()[k..k + 4].try_into().expect("four bytes"));
        weighed.pick(uniform([word(0), word(4)], 2, position))
    };
    (chosen as u32, weighed.log_prob(chosen))
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
