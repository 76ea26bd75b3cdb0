//! Many texts at once from one decoder: requests of different lengths share its sequences, and a sequence that ends
//! is given to the next request at once. What a request gets depends on itself alone, to the bit.
//!
//! It knows tokens, not text: whoever reads them decides when a text has said what ends it.

use crate::decode::{DecodeError, DecodeOptions, Decoder};
use crate::model::Model;
use crate::sample::{SamplerSettings, draw_token};
use crate::weigh::{Weighed, place, rank};
use std::collections::VecDeque;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// What comes before; not empty.
    pub prompt: Vec<u32>,
    /// Tokens to draw at most.
    pub max_tokens: usize,
    /// How they are drawn.
    pub settings: SamplerSettings,
    /// Each of them ends the text.
    pub ends: Vec<u32>,
    /// The likeliest tokens that are told beside each one drawn.
    pub num_top: usize,
    /// Whether the tokens of the prompt are told with their log-probabilities first.
    pub echo: bool,
}

/// A token and its log-probability at temperature 1, nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogProb {
    /// Which.
    pub token: u32,
    /// Natural logarithm.
    pub log_prob: f32,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A token that ends texts was drawn.
    Stop,
    /// There is no token or no position left.
    Length,
}

/// What becomes known of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Emitted {
    /// A token of the prompt after the first.
    Prompt {
        /// It.
        token: LogProb,
        /// The likeliest in its place.
        top: Vec<LogProb>,
    },
    /// A token was drawn.
    Token {
        /// It.
        token: LogProb,
        /// The likeliest in its place.
        top: Vec<LogProb>,
    },
    /// Nothing follows.
    End(Ended),
}

struct Active {
    id: u64,
    request: Request,
    /// Prompt and what was drawn.
    tokens: Vec<u32>,
    /// Tokens that the decoder has taken.
    taken: usize,
}

/// What the logits after a token say.
#[derive(Default)]
struct Heard {
    /// The token that follows; none where no further one was asked for.
    token: Option<LogProb>,
    top: Vec<LogProb>,
}

/// What is asked of the logits after a token.
struct Question<'a> {
    active: &'a Active,
    place: usize,
    logits: &'a [f32],
    heard: Heard,
}

/// Requests in generation.
pub struct Generator {
    decoder: Decoder,
    rows: Vec<Option<Active>>,
    waiting: VecDeque<(u64, Request)>,
    lanes: Vec<(usize, u32, bool)>,
}

impl Generator {
    /// A generator of `batch` sequences with the parameters that `model` has now.
    pub fn new(model: &Model, batch: usize, options: DecodeOptions) -> Result<Generator, DecodeError> {
        let decoder = Decoder::new(model, batch, options)?;
        let rows = (0..batch).map(|_| None).collect();
        Ok(Generator { decoder, rows, waiting: VecDeque::new(), lanes: Vec::new() })
    }

    /// Takes the parameters of `model` as they are now; nothing may be in generation.
    pub fn refresh(&mut self, model: &Model) {
        assert!(!self.is_busy(), "parameters change between texts, not within one");
        self.decoder.refresh(model);
    }

    /// T of the recipe.
    pub fn seq_len(&self) -> usize {
        self.decoder.seq_len()
    }

    /// Requests that wait for a sequence.
    pub fn num_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests in generation.
    pub fn num_active(&self) -> usize {
        self.rows.iter().flatten().count()
    }

    /// Whether a step would do anything.
    pub fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || self.num_active() > 0
    }

    /// Adds a request; `id` names it in what is emitted. Refused when its prompt is empty or has more tokens than
    /// there are positions. The last token that is drawn needs none.
    pub fn submit(&mut self, id: u64, mut request: Request) -> Result<(), DecodeError> {
        let seq_len = self.seq_len();
        if request.prompt.is_empty() {
            return Err(DecodeError::Empty);
        }
        if request.prompt.len() > seq_len {
            return Err(DecodeError::Full { row: 0, seq_len });
        }
        request.max_tokens = request.max_tokens.min(seq_len + 1 - request.prompt.len());
        self.waiting.push_back((id, request));
        Ok(())
    }

    /// Forgets a request; nothing more of it is emitted.
    pub fn cancel(&mut self, id: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != id);
        for row in &mut self.rows {
            if row.as_ref().is_some_and(|active| active.id == id) {
                *row = None;
            }
        }
    }

    /// All requests to their end; `emit` says of each thing emitted whether that request goes on.
    pub fn run(&mut self, emit: &mut dyn FnMut(u64, Emitted) -> bool) {
        while self.is_busy() {
            self.step(emit);
        }
    }

    /// One pass: a token of each text in generation, and as much of the prompts as fits beside.
    pub fn step(&mut self, emit: &mut dyn FnMut(u64, Emitted) -> bool) {
        self.seat();
        let counts = self.fill_lanes();
        if self.lanes.is_empty() {
            return;
        }
        self.decoder.step_wanted(&self.lanes).expect("every lane has a position left");
        let mut heard = self.hear(&counts).into_iter();
        for (row, count) in counts.into_iter().enumerate() {
            let Some(active) = &mut self.rows[row] else { continue };
            let mut goes_on = true;
            for _ in 0..count {
                let place = active.taken;
                active.taken += 1;
                if !active.wants(place) {
                    continue;
                }
                let heard = heard.next().expect("every lane that was wanted was heard");
                if goes_on {
                    goes_on = active.tell(place, heard, emit);
                }
            }
            if !goes_on {
                self.rows[row] = None;
            }
        }
    }

    /// What the logits of the last pass say to those who wanted them, in order.
    fn hear(&self, counts: &[usize]) -> Vec<Heard> {
        let logits = self.decoder.logits();
        let mut questions: Vec<Question<'_>> = Vec::with_capacity(self.lanes.len());
        for (active, count) in self.rows.iter().zip(counts) {
            let Some(active) = active else { continue };
            for place in (active.taken..active.taken + count).filter(|place| active.wants(*place)) {
                let logits = logits.row(questions.len());
                questions.push(Question { active, place, logits, heard: Heard::default() });
            }
        }
        self.decoder.engine().for_each(&mut questions, |question| {
            question.heard = question.active.hear(question.place, question.logits);
        });
        questions.into_iter().map(|question| question.heard).collect()
    }

    /// Gives free sequences to those who wait.
    fn seat(&mut self) {
        for row in 0..self.rows.len() {
            if self.rows[row].is_none()
                && let Some((id, request)) = self.waiting.pop_front()
            {
                self.decoder.reset(row).expect("the decoder has the row");
                let tokens = request.prompt.clone();
                self.rows[row] = Some(Active { id, request, tokens, taken: 0 });
            }
        }
    }

    /// Lanes of the next pass, and how many each row has: first one for everybody, then what is left of prompts.
    fn fill_lanes(&mut self) -> Vec<usize> {
        let mut spare = self.decoder.max_tokens() - self.num_active();
        self.lanes.clear();
        let mut counts = vec![0; self.rows.len()];
        for (row, active) in self.rows.iter().enumerate() {
            let Some(active) = active else { continue };
            let left = active.tokens.len() - active.taken;
            let more = (left - 1).min(spare);
            spare -= more;
            counts[row] = 1 + more;
            for place in active.taken..active.taken + 1 + more {
                self.lanes.push((row, active.tokens[place], active.wants(place)));
            }
        }
        counts
    }
}

impl Active {
    /// Whether the logits after the token at `place` are read.
    fn wants(&self, place: usize) -> bool {
        self.request.echo || place + 1 >= self.request.prompt.len()
    }

    /// Reads the logits after the token at `place`.
    fn hear(&self, place: usize, logits: &[f32]) -> Heard {
        let top = top_log_probs(logits, self.request.num_top);
        let drawn = self.tokens.len() - self.request.prompt.len();
        let token = match self.request.prompt.get(place + 1) {
            Some(next) => *next,
            None if drawn == self.request.max_tokens => return Heard { token: None, top },
            None => draw_token(logits, self.request.settings, drawn as u64),
        };
        Heard { token: Some(LogProb { token, log_prob: log_prob(logits, token) }), top }
    }

    /// Tells what was heard. Whether the request goes on.
    fn tell(&mut self, place: usize, heard: Heard, emit: &mut dyn FnMut(u64, Emitted) -> bool) -> bool {
        let (id, Heard { token, top }) = (self.id, heard);
        let Some(token) = token else {
            emit(id, Emitted::End(Ended::Length));
            return false;
        };
        if place + 1 < self.request.prompt.len() {
            return emit(id, Emitted::Prompt { token, top });
        }
        if self.request.ends.contains(&token.token) {
            emit(id, Emitted::End(Ended::Stop));
            return false;
        }
        self.tokens.push(token.token);
        if !emit(id, Emitted::Token { token, top }) {
            return false;
        }
        if self.tokens.len() - self.request.prompt.len() == self.request.max_tokens {
            emit(id, Emitted::End(Ended::Length));
            return false;
        }
        true
    }
}

/// Natural logarithm of the probability of `token` by logits (V).
pub fn log_prob(logits: &[f32], token: u32) -> f32 {
    Weighed::new(logits, 1.0).log_prob(token as usize)
}

/// The `num` likeliest tokens by logits (V), likeliest first.
pub fn top_log_probs(logits: &[f32], num: usize) -> Vec<LogProb> {
    if num == 0 {
        return Vec::new();
    }
    let num = num.min(logits.len());
    let mut ranks: Vec<u64> = logits.iter().enumerate().map(|(i, logit)| rank(i, *logit)).collect();
    ranks.select_nth_unstable(num - 1);
    ranks.truncate(num);
    ranks.sort_unstable();
    let weighed = Weighed::new(logits, 1.0);
    let told = |i: usize| LogProb { token: i as u32, log_prob: weighed.log_prob(i) };
    ranks.into_iter().map(|rank| told(place(rank))).collect()
}
