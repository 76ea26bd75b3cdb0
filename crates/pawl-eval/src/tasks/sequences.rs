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
        let start = num_equal(&all, |tokens, at| tokens.get(at));
        all.into_iter().map(|tokens| Sequence { start: start.max(1), end: tokens.len(), tokens }).collect()
    }

    /// The tokens that all options share at their end.
    fn common_suffix(&mut self, options: impl Iterator<Item = String>) -> Vec<Sequence> {
        let all: Vec<Vec<u32>> = options.map(|text| self.tokens(&text)).collect();
        let shared = num_equal(&all, |tokens, at| tokens.len().checked_sub(at + 1).map(|at| &tokens[at]));
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
fn num_equal(all: &[Vec<u32>], at: impl Fn(&Vec<u32>, usize) -> Option<&u32>) -> usize {
    let Some(first) = all.first() else { return 0 };
    (0..first.len())
        .take_while(|place| all.iter().all(|tokens| at(tokens, *place) == at(first, *place)))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(kind: Kind, shots: usize) -> &'static Task {
        let found = super::super::TASKS.iter().find(|task| task.kind == kind && task.shots == shots);
        found.expect("the registry has such a task")
    }

    fn item(n: usize, asked: &[&str], continuations: &[&str]) -> Item {
        let texts = |texts: &[&str]| texts.iter().map(|text| format!("{text}{n}")).collect();
        Item { asked: texts(asked), continuations: texts(continuations), gold: 0, part: None }
    }

    #[test]
    fn prompts_are_examples_and_then_the_item() {
        let tokenizer = Tokenizer::train(&["a b c".to_string()], 270, 1).expect("a vocabulary");
        let text = |sequence: &Sequence| tokenizer.decode(&sequence.tokens[1..]);
        // Python: random.Random(1235).sample([0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], 10)
        let others = [7, 9, 8, 11, 2, 6, 3, 4, 0, 5];
        let items: Vec<Item> = (0..12).map(|n| item(n, &["  what is "], &["one", "two"])).collect();
        let mut choice = Renderer::new(task(Kind::Choice, 10), &tokenizer, 9999);
        assert_eq!(choice.task.delimiter, "\nAnswer: ");
        let rendered = choice.render(&items, 1);
        let before: String = others.iter().map(|n| format!("  what is {n}\nAnswer: one{n}\n\n")).collect();
        assert_eq!(text(&rendered[1]), format!("{before}  what is 1\nAnswer: two1"));
        let scored = |sequence: &Sequence| tokenizer.decode(&sequence.tokens[sequence.start..sequence.end]);
        assert_eq!((scored(&rendered[0]), scored(&rendered[1])), ("one1".into(), "two1".into()));

        let mut completion = Renderer::new(task(Kind::Completion, 10), &tokenizer, 9999);
        let rendered = completion.render(&items, 1);
        let delimiter = completion.task.delimiter;
        let before: String = others.iter().map(|n| format!("what is {n}{delimiter}one{n}\n\n")).collect();
        assert_eq!(text(&rendered[0]), format!("{before}what is 1{delimiter}one1"));
        assert_eq!(scored(&rendered[0]).trim(), "one1");

        let mut schema = Renderer::new(task(Kind::Schema, 0), &tokenizer, 9999);
        let rendered = schema.render(&[item(3, &["the cat", "the hat"], &["sat"])], 0);
        assert_eq!(
            (text(&rendered[0]), text(&rendered[1])),
            ("the cat3 sat3".into(), "the hat3 sat3".into())
        );
        assert_eq!((scored(&rendered[0]), scored(&rendered[1])), ("at3 sat3".into(), "at3 sat3".into()));

        let mut pair = Renderer::new(task(Kind::Pair, 0), &tokenizer, 3);
        let rendered = pair.render(&[item(1, &[], &["abcdef", "xy"])], 0);
        assert_eq!((scored(&rendered[0]), scored(&rendered[1])), ("ef1".into(), "xy1".into()));
        assert_eq!(pair.num_cut, 1);
    }
}
