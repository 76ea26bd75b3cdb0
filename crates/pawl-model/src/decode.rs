//! Generation one position at a time: each sequence keeps what its next position needs of the past, so a
//! token costs one pass over the weights instead of a pass over the whole sequence.
//!
//! It gives the logits of [`Scorer::logits`](crate::Scorer::logits) up to the order of sums, and refuses what
//! cannot be computed this way: recipes with such an operation, and positions beyond the recipe's `seq_len`.

use crate::model::{Model, ModelError};
use pawl_engine::{Decoding, Engine, Lane, Weights};
use pawl_graph::NotIncremental;

/// Sequences with which a recipe is traced: more than one, so that an axis of sequences is told from others.
const TRACED_BATCH: usize = 2;

/// How a decoder works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// How its matrices are stored.
    pub weights: Weights,
    /// Threads; they change no bit.
    pub num_threads: usize,
    /// Tokens that one call of [`Decoder::step`] may take, at least one for each sequence: prompts are read
    /// that many at once.
    pub max_tokens: usize,
}

impl Default for DecodeOptions {
    fn default() -> DecodeOptions {
        DecodeOptions { weights: Weights::F32, num_threads: 1, max_tokens: 32 }
    }
}

/// Why there is no decoder, or why it does not take a token.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The recipe refuses.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The recipe has an operation that needs the whole sequence; [`Scorer`](crate::Scorer) computes it.
    #[error(transparent)]
    NotIncremental(#[from] NotIncremental),
    /// There is no such sequence.
    #[error("sequence {row} of {batch}")]
    Row {
        /// As asked.
        row: usize,
        /// Sequences.
        batch: usize,
    },
    /// The sequence has taken a token at each position of the recipe.
    #[error("sequence {row} has used its {seq_len} positions")]
    Full {
        /// Which.
        row: usize,
        /// T.
        seq_len: usize,
    },
    /// More tokens at once than the decoder was made for.
    #[error("{num} tokens at once, the decoder takes {max}")]
    TooMany {
        /// As asked.
        num: usize,
        /// See [`DecodeOptions::max_tokens`].
        max: usize,
    },
    /// A decoder of no sequence, or a prompt of no token.
    #[error("nothing to decode")]
    Empty,
}

/// Some sequences of one model in generation.
pub struct Decoder {
    engine: Engine,
    decoding: Decoding,
    lanes: Vec<Lane>,
    /// Tokens of the call at hand by sequence, to check before anything is done.
    taken: Vec<usize>,
    max_tokens: usize,
}

/// Logits (V) of each token of a step, in its order.
#[derive(Clone, Copy)]
pub struct Logits<'a>(&'a Decoding);

impl<'a> Logits<'a> {
    /// Of the k-th token of the step.
    pub fn row(&self, k: usize) -> &'a [f32] {
        self.0.logits(k)
    }
}

impl Decoder {
    /// A decoder of `batch` sequences with the parameters that `model` has now.
    pub fn new(model: &Model, batch: usize, options: DecodeOptions) -> Result<Decoder, DecodeError> {
        let recipe = model.recipe();
        let traced = recipe.logits_graph(TRACED_BATCH, recipe.seq_len()).map_err(ModelError::from)?;
        let program = traced.graph.incremental(traced.logits)?;
        if batch == 0 {
            return Err(DecodeError::Empty);
        }
        let engine = Engine::new(options.num_threads.max(1));
        let max_tokens = options.max_tokens.max(batch);
        let mut read = |name: &str, to: &mut [f32]| copy_param(model, name, to);
        let decoding = Decoding::new(&engine, &program, batch, max_tokens, options.weights, &mut read);
        Ok(Decoder {
            engine,
            decoding,
            lanes: Vec::with_capacity(max_tokens),
            taken: vec![0; batch],
            max_tokens,
        })
    }

    /// Takes the parameters of `model`, which is of the same recipe, as they are now. Sequences keep what they
    /// remember of the old ones; reset them to forget it.
    pub fn refresh(&mut self, model: &Model) {
        self.decoding.refresh(&self.engine, &mut |name, to| copy_param(model, name, to));
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.taken.len()
    }

    /// T of the recipe: the tokens that a sequence can take.
    pub fn seq_len(&self) -> usize {
        self.decoding.positions()
    }

    /// Tokens that a sequence has taken since it began.
    pub fn position(&self, row: usize) -> Result<usize, DecodeError> {
        self.check_row(row)?;
        Ok(self.decoding.position(row))
    }

    /// Bytes of matrices that a step reads once, for all of its tokens together.
    pub fn weight_bytes(&self) -> usize {
        self.decoding.weight_bytes()
    }

    /// Bytes of what all sequences remember.
    pub fn state_bytes(&self) -> usize {
        self.decoding.state_bytes()
    }

    /// A new sequence begins in `row`; the others go on.
    pub fn reset(&mut self, row: usize) -> Result<(), DecodeError> {
        self.check_row(row)?;
        self.decoding.reset(row);
        Ok(())
    }

    /// The sequence `to` becomes what `from` is: both go on from what `from` has taken.
    pub fn copy(&mut self, from: usize, to: usize) -> Result<(), DecodeError> {
        self.check_row(from)?;
        self.check_row(to)?;
        if from != to {
            self.decoding.copy_row(from, to);
        }
        Ok(())
    }

    /// Takes (sequence, token) pairs and gives the logits after each. A sequence may occur several times: its
    /// tokens follow each other. What a sequence gets does not depend on the others in the call, nor on how its
    /// tokens are divided among calls, to the bit. An error leaves everything as it was.
    pub fn step(&mut self, tokens: &[(usize, u32)]) -> Result<Logits<'_>, DecodeError> {
        if tokens.len() > self.max_tokens {
            return Err(DecodeError::TooMany { num: tokens.len(), max: self.max_tokens });
        }
        self.lanes.clear();
        let lane = |(row, token): &(usize, u32)| Lane { row: *row, token: *token as i32, wanted: true };
        self.lanes.extend(tokens.iter().map(lane));
        self.run_lanes()
    }

    /// The same for (sequence, token, whether logits are wanted): the k-th row is of the k-th wanted token.
    pub fn step_wanted(&mut self, tokens: &[(usize, u32, bool)]) -> Result<Logits<'_>, DecodeError> {
        if tokens.len() > self.max_tokens {
            return Err(DecodeError::TooMany { num: tokens.len(), max: self.max_tokens });
        }
        self.lanes.clear();
        let lane = |(row, token, wanted): &(usize, u32, bool)| Lane {
            row: *row,
            token: *token as i32,
            wanted: *wanted,
        };
        self.lanes.extend(tokens.iter().map(lane));
        self.run_lanes()
    }

    fn run_lanes(&mut self) -> Result<Logits<'_>, DecodeError> {
        let lanes = std::mem::take(&mut self.lanes);
        let room = self.check_room(lanes.iter().map(|lane| lane.row));
        self.lanes = lanes;
        room?;
        self.decoding.run(&self.engine, &self.lanes);
        Ok(self.logits())
    }

    /// Those of the last step.
    pub(crate) fn logits(&self) -> Logits<'_> {
        Logits(&self.decoding)
    }

    /// What it runs on.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Tokens that one step may take.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Takes a prompt in `row` and gives the logits (V) after its last token alone.
    pub fn prefill(&mut self, row: usize, tokens: &[u32]) -> Result<&[f32], DecodeError> {
        if tokens.is_empty() {
            return Err(DecodeError::Empty);
        }
        self.check_room(tokens.iter().map(|_| row))?;
        let mut left = tokens.len();
        for part in tokens.chunks(self.max_tokens) {
            self.lanes.clear();
            for token in part {
                left -= 1;
                self.lanes.push(Lane { row, token: *token as i32, wanted: left == 0 });
            }
            self.decoding.run(&self.engine, &self.lanes);
        }
        Ok(self.decoding.logits(0))
    }

    fn check_row(&self, row: usize) -> Result<(), DecodeError> {
        let batch = self.batch();
        if row < batch { Ok(()) } else { Err(DecodeError::Row { row, batch }) }
    }

    /// Every sequence exists and has a position left for each of its tokens.
    fn check_room(&mut self, rows: impl Iterator<Item = usize>) -> Result<(), DecodeError> {
        self.taken.fill(0);
        for row in rows {
            self.check_row(row)?;
            self.taken[row] += 1;
            if self.decoding.position(row) + self.taken[row] > self.seq_len() {
                return Err(DecodeError::Full { row, seq_len: self.seq_len() });
            }
        }
        Ok(())
    }
}

fn copy_param(model: &Model, name: &str, to: &mut [f32]) {
    // The same recipe made both; a parameter that the training graph does not know is read by no logit.
    to.copy_from_slice(model.param(name).expect("the model has every parameter of its recipe"));
}
