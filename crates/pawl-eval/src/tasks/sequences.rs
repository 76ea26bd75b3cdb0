//! Items as sequences of tokens: what is read, and which of it is scored.

use super::{Item, Kind, Task, select};
use pawl_data::{Encoder, Tokenizer};

/// Tokens, BOS first, and the places `start..end` whose prediction counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) tokens: Vec<u32>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Makes the sequences of items; remembers words.
pub(super) struct Renderer<'a> {
    task: &'static Task,
    encoder: Encoder<'a>,
    bos: u32,
    max_len: usize,
    /// Sequences that lost their beginning.
    pub(super) num_cut: u64,
}

impl<'a> Renderer<'a> {
    pub(super) fn new(task: &'static Task, tokenizer: &'a Tokenizer, max_len: usize) -> Renderer<'a> {
        Renderer { task, encoder: Encoder::new(tokenizer), bos: tokenizer.bos(), max_len, num_cut: 0 }
    }

    /// One sequence an option, in order.
    pub(super) fn render(&mut self, items: &[Item], idx: usize) -> Vec<Sequence> {
        let (item, delimiter) = (&items[idx], self.task.delimiter);
        let mut before = String::new();
        for example in select::examples(idx, items.len(), self.task.shots) {
            let example = &items[example];
            before.push_str(&shown(self.task.kind, example, delimiter));
            before.push_str("\n\n");
        }
        let sequences = match self.task.kind {
            Kind::Choice => {
                let query = &item.asked[0];
                let options =
                    item.continuations.iter().map(|choice| format!("{before}{query}{delimiter}{choice}"));
                self.after_common_prefix(options)
            }
            Kind::Schema => {
                let continuation = &item.continuations[0];
                let options =
                    item.asked.iter().map(|context| format!("{before}{context}{delimiter}{continuation}"));
                self.common_suffix(options)
            }
            Kind::Completion => {
                let (context, continuation) = (item.asked[0].trim(), &item.continuations[0]);
                let without = format!("{before}{context}{delimiter}");
                let with = format!("{without}{continuation}");
                self.after_prompt(without.trim(), &with)
            }
            Kind::Pair => item.continuations.iter().map(|text| whole(self.tokens(text))).collect(),
        };
        sequences.into_iter().map(|sequence| self.fitted(sequence)).collect()
    }

    fn tokens(&mut self, text: &str) -> Vec<u32> {
        let mut tokens = vec![self.bos];
        self.encoder.encode_into(text, &mut tokens);
        tokens
    }

    /// What follows the tokens that all options share.
    fn after_common_prefix(&mut self, options: impl Iterator<Item = String>) -> Vec<Sequence> {
        let all: Vec<Vec<u32>> = options.map(|text| self.tokens(&text)).collect();
        let start = common(&all, |tokens, at| tokens.get(at));
        all.into_iter().map(|tokens| Sequence { start: start.max(1), end: tokens.len(), tokens }).collect()
    }

    /// The tokens that all options share at their end.
    fn common_suffix(&mut self, options: impl Iterator<Item = String>) -> Vec<Sequence> {
        let all: Vec<Vec<u32>> = options.map(|text| self.tokens(&text)).collect();
        let shared = common(&all, |tokens, at| tokens.len().checked_sub(at + 1).map(|at| &tokens[at]));
        let sequence = |tokens: Vec<u32>| {
            let end = tokens.len();
            Sequence { start: (end - shared).max(1), end, tokens }
        };
        all.into_iter().map(sequence).collect()
    }

    /// What `with` adds to `without`; a token across the border counts as added.
    fn after_prompt(&mut self, without: &str, with: &str) -> Vec<Sequence> {
        let (without, tokens) = (self.tokens(without), self.tokens(with));
        let start = without.iter().zip(&tokens).take_while(|(a, b)| a == b).count();
        vec![Sequence { start, end: tokens.len(), tokens }]
    }

    /// The last tokens, where there are more than the model has positions.
    fn fitted(&mut self, mut sequence: Sequence) -> Sequence {
        // The last token is predicted, not read.
        let over = sequence.tokens.len().saturating_sub(self.max_len + 1);
        if over > 0 {
            self.num_cut += 1;
            sequence.tokens.drain(..over);
            sequence.start = sequence.start.saturating_sub(over).max(1);
            sequence.end -= over;
        }
        sequence
    }
}

/// An example with its right answer.
fn shown(kind: Kind, example: &Item, delimiter: &str) -> String {
    match kind {
        Kind::Choice => format!("{}{delimiter}{}", example.asked[0], example.continuations[example.gold]),
        Kind::Schema => format!("{}{delimiter}{}", example.asked[example.gold], example.continuations[0]),
        Kind::Completion => format!("{}{delimiter}{}", example.asked[0].trim(), example.continuations[0]),
        Kind::Pair => example.continuations[example.gold].clone(),
    }
}

fn whole(tokens: Vec<u32>) -> Sequence {
    Sequence { start: 1, end: tokens.len(), tokens }
}

/// How many places from one end hold the same token in all.
fn common(all: &[Vec<u32>], at: impl Fn(&Vec<u32>, usize) -> Option<&u32>) -> usize {
    let Some(first) = all.first() else { return 0 };
    (0..first.len())
        .take_while(|place| all.iter().all(|tokens| at(tokens, *place) == at(first, *place)))
        .count()
}
