//! How well a model does in an environment: completions at temperature 1 of different problems of one split.

use crate::pretrain::TrainError;
use pawl_data::{Tokenizer, ask};
use pawl_eval::env::{Environment, Problem};
use pawl_eval::pass_rate;
use pawl_model::{DecodeOptions, Decoder, Draft, DraftSettings, Model, draft};
use pawl_record::{EnvScore, Message, Role};

/// Sequences that are decoded at once.
const SEQUENCES: usize = 32;
/// A completion that solves its problem; environments may give parts of it.
const SOLVED: f64 = 1.0 - 1e-9;

/// Draws completions from a model as it is at that time.
pub(crate) struct Speaker {
    decoder: Decoder,
    max_tokens: usize,
    end: u32,
}

impl Speaker {
    /// For answers of at most `max_tokens`.
    pub(crate) fn new(
        model: &Model,
        tokenizer: &Tokenizer,
        max_tokens: usize,
    ) -> Result<Speaker, TrainError> {
        let options = DecodeOptions { num_threads: model.num_threads(), ..DecodeOptions::default() };
        let end = tokenizer.special("<|assistant_end|>").expect("every tokenizer has the tokens of chat");
        Ok(Speaker { decoder: Decoder::new(model, SEQUENCES, options)?, max_tokens, end })
    }

    /// Takes the model's parameters as they are now.
    pub(crate) fn refresh(&mut self, model: &Model) {
        self.decoder.refresh(model);
    }

    /// A completion of each (key, prompt), at temperature 1.
    pub(crate) fn speak(&mut self, prompts: &[(u64, &[u32])], seed: u64) -> Result<Vec<Draft>, TrainError> {
        let settings = DraftSettings { temperature: 1.0, max_tokens: self.max_tokens, end: self.end, seed };
        Ok(draft(&mut self.decoder, prompts, settings)?)
    }
}

/// The tokens of a problem up to where its answer begins.
pub(crate) fn prompt(tokenizer: &Tokenizer, problem: &Problem) -> Result<Vec<u32>, TrainError> {
    Ok(ask(tokenizer, &[Message::new(Role::User, problem.prompt.as_str())])?)
}

/// What was said, without the end token.
pub(crate) fn text(tokenizer: &Tokenizer, draft: &Draft) -> String {
    let said = draft.tokens.len() - usize::from(draft.finished);
    tokenizer.decode(&draft.tokens[..said])
}

/// Scores a model on problems with `samples` completions each.
pub(crate) fn score(
    speaker: &mut Speaker,
    tokenizer: &Tokenizer,
    env: &mut Environment,
    problems: &[Problem],
    samples: usize,
    seed: u64,
) -> Result<EnvScore, TrainError> {
    let prompts = problems.iter().map(|p| prompt(tokenizer, p)).collect::<Result<Vec<_>, _>>()?;
    let keyed: Vec<(u64, &[u32])> =
        (0..problems.len() * samples).map(|at| (at as u64, prompts[at / samples].as_slice())).collect();
    let drafts = speaker.speak(&keyed, seed)?;
    let mut right = vec![0u64; problems.len()];
    let (mut tokens, mut truncated) = (0, 0);
    for (at, draft) in drafts.iter().enumerate() {
        tokens += draft.tokens.len();
        if !draft.finished {
            truncated += 1;
            continue;
        }
        let reward = env.reward(&problems[at / samples], &text(tokenizer, draft))?;
        right[at / samples] += u64::from(reward >= SOLVED);
    }
    let ks = [1, 2, 4, 8, 16, 32, 64, 128].into_iter().filter(|k| *k <= samples as u64);
    let total = drafts.len().max(1) as f64;
    Ok(EnvScore {
        problems: problems.len() as u64,
        samples: samples as u64,
        pass_at: ks.map(|k| pass_rate(&right, samples as u64, k)).collect(),
        mean_tokens: tokens as f64 / total,
        truncated: f64::from(truncated) / total,
    })
}

/// Scores the model of a run on the test split as it is, with no lesson.
pub fn measure(
    model: &Model,
    tokenizer: &Tokenizer,
    env: &mut Environment,
    difficulty: u32,
    problems: usize,
    samples: usize,
    max_tokens: usize,
) -> Result<EnvScore, TrainError> {
    let mut speaker = Speaker::new(model, tokenizer, max_tokens)?;
    let problems = env.distinct(pawl_eval::env::ProblemSplit::Test, MEASURE_SEED, problems, difficulty)?;
    score(&mut speaker, tokenizer, env, &problems, samples, MEASURE_SEED)
}

/// Keys problems and draws of measurements: the same for every run, so that runs can be compared.
pub(crate) const MEASURE_SEED: u64 = 0x6d65_6173;
