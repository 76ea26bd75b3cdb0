//! Conversations to learn from: read from JSON lines, divided by their hash into those that are taught and those that
//! are held out, packed into rows. Packing cannot stall and gives no row without a taught token: what has none is left
//! out before it begins, and what is longer than a row is cut.

use crate::chat::{ChatError, Rendered, check_order, render};
use crate::tokenizer::Tokenizer;
use pawl_record::{Conversation, Message, Role};
use std::borrow::Cow;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Reads `{"messages": [{"role": .., "content": ..}, ..]}` lines; empty lines are skipped. Each conversation holds an
/// answer of the assistant.
pub fn read_conversations(path: &Path) -> Result<Vec<Vec<Message>>, ChatError> {
    let io = |source| ChatError::Io { path: path.to_path_buf(), source };
    let reader = BufReader::new(std::fs::File::open(path).map_err(io)?);
    let mut conversations = Vec::new();
    for (at, line) in reader.lines().enumerate() {
        let text = line.map_err(io)?;
        let line = at as u64 + 1;
        if text.trim().is_empty() {
            continue;
        }
        let Conversation { messages } = pawl_record::from_json(text.as_bytes())
            .map_err(|source| ChatError::Line { path: path.to_path_buf(), line, source })?;
        let answered = messages.iter().any(|message| message.role == Role::Assistant);
        check_order(&messages)
            .and_then(|()| if answered { Ok(()) } else { Err("no message of the assistant".to_string()) })
            .map_err(|because| ChatError::Turns { path: path.to_path_buf(), line, because })?;
        conversations.push(messages);
    }
    Ok(conversations)
}

/// Conversations as tokens, ready to be packed.
#[derive(Clone, Debug)]
pub struct Conversations {
    taught: Vec<Rendered>,
    held_out: Vec<Rendered>,
    row_len: usize,
    hash: String,
    /// Left out because no taught token fits.
    num_too_long: usize,
}

impl Conversations {
    /// Renders all for rows of `row_len` + 1 tokens. Equal conversations fall on one side; with two different ones
    /// both sides have at least one, unless `validation_share` is 0.
    pub fn new(
        tokenizer: &Tokenizer,
        conversations: &[Vec<Message>],
        what: &str,
        row_len: usize,
        validation_share: f64,
    ) -> Result<Conversations, ChatError> {
        let mut keyed = Vec::new();
        for messages in conversations {
            let mut rendered = render(tokenizer, messages)?;
            rendered.tokens.truncate(row_len + 1);
            rendered.taught.truncate(row_len + 1);
            if rendered.taught.contains(&true) {
                keyed.push((key(&rendered), rendered));
            }
        }
        let num_too_long = conversations.len() - keyed.len();
        if keyed.is_empty() {
            let (what, total) = (what.to_string(), conversations.len());
            return Err(ChatError::Nothing { what, too_long: num_too_long, total, row_len });
        }
        let mut hasher = blake3::Hasher::new();
        for (key, _) in &keyed {
            hasher.update(&key.to_le_bytes());
        }
        hasher.update(&(row_len as u64).to_le_bytes()).update(tokenizer.hash().as_bytes());
        let limit = held_out_below(keyed.iter().map(|(key, _)| *key).collect(), validation_share);
        let (held_out, taught): (Vec<_>, Vec<_>) = keyed.into_iter().partition(|(key, _)| *key < limit);
        let strip = |side: Vec<(u64, Rendered)>| side.into_iter().map(|(_, rendered)| rendered).collect();
        Ok(Conversations {
            taught: strip(taught),
            held_out: strip(held_out),
            row_len,
            hash: hasher.finalize().to_hex().to_string(),
            num_too_long,
        })
    }

    /// BLAKE3 of all tokens and the length of rows, hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Conversations that are taught, held out, and left out because no taught token fits a row.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.taught.len(), self.held_out.len(), self.num_too_long)
    }

    /// Endless rows of those that are taught, in an order that `seed` draws anew each time all have been seen.
    pub fn rows(&self, seed: u64) -> Rows<'_> {
        Rows { all: Cow::Borrowed(&self.taught), row_len: self.row_len, seed, round: 0, ready: Vec::new() }
    }

    /// The same, keeping the conversations.
    pub fn into_rows(self, seed: u64) -> Rows<'static> {
        Rows { all: Cow::Owned(self.taught), row_len: self.row_len, seed, round: 0, ready: Vec::new() }
    }

    /// Every held-out conversation once, in rows.
    pub fn held_out_rows(&self) -> Vec<Row> {
        let mut rows = pack(&self.held_out, (0..self.held_out.len()).collect(), self.row_len);
        rows.reverse();
        rows
    }
}

/// Hash of a conversation's tokens.
fn key(rendered: &Rendered) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for token in &rendered.tokens {
        hasher.update(&token.to_le_bytes());
    }
    u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("eight bytes"))
}

/// The keys below this are held out.
fn held_out_below(mut keys: Vec<u64>, share: f64) -> u64 {
    keys.sort_unstable();
    keys.dedup();
    if share <= 0.0 || keys.len() < 2 {
        return 0;
    }
    let limit = (share.min(1.0) * u64::MAX as f64) as u64;
    // At least the smallest, at most all but the largest.
    limit.clamp(keys[0] + 1, keys[keys.len() - 1])
}

/// One row: T inputs and T targets, -1 where nothing is taught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Token ids.
    pub inputs: Vec<i32>,
    /// Next-token ids, or -1.
    pub targets: Vec<i32>,
}

/// Endless rows.
pub struct Rows<'a> {
    all: Cow<'a, [Rendered]>,
    row_len: usize,
    seed: u64,
    round: u64,
    /// Of the round at hand, last first.
    ready: Vec<Row>,
}

impl Rows<'_> {
    /// The next row. It has at least one target.
    pub fn next_row(&mut self) -> Row {
        loop {
            if let Some(row) = self.ready.pop() {
                return row;
            }
            let order = permutation(self.all.len(), self.seed, self.round);
            self.ready = pack(&self.all, order, self.row_len);
            self.round += 1;
        }
    }
}

/// A permutation of 0..n by (seed, round): sorted by hash.
fn permutation(n: usize, seed: u64, round: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_cached_key(|at| {
        let bytes = [seed.to_le_bytes(), round.to_le_bytes(), (*at as u64).to_le_bytes()].concat();
        *blake3::hash(&bytes).as_bytes()
    });
    order
}

/// Rows that are filled at once: more would save little room and mix the order less.
const OPEN_ROWS: usize = 16;

/// Puts each conversation into the fullest open row that has room. The last row comes first: callers pop.
fn pack(all: &[Rendered], order: Vec<usize>, row_len: usize) -> Vec<Row> {
    let mut open: Vec<Vec<usize>> = Vec::new();
    let mut rows = Vec::new();
    let filled = |row: &Vec<usize>| row.iter().map(|at| all[*at].tokens.len()).sum::<usize>();
    for at in order {
        let len = all[at].tokens.len();
        let fits = |row: &&mut Vec<usize>| filled(row) + len <= row_len + 1;
        match open.iter_mut().filter(fits).max_by_key(|row| filled(row)) {
            Some(row) => row.push(at),
            None => {
                if open.len() == OPEN_ROWS {
                    let fullest = (0..open.len()).max_by_key(|k| filled(&open[*k])).expect("rows are open");
                    rows.push(lay(all, &open.remove(fullest), row_len));
                }
                open.push(vec![at]);
            }
        }
    }
    rows.extend(open.iter().map(|row| lay(all, row, row_len)));
    rows.reverse();
    rows
}

/// The conversations of a row one after another. What remains is filled with the first token and taught nothing.
fn lay(all: &[Rendered], members: &[usize], row_len: usize) -> Row {
    let mut tokens: Vec<i32> = Vec::with_capacity(row_len + 1);
    let mut taught: Vec<bool> = Vec::with_capacity(row_len + 1);
    for at in members {
        tokens.extend(all[*at].tokens.iter().map(|token| *token as i32));
        taught.extend(&all[*at].taught);
    }
    tokens.resize(row_len + 1, tokens[0]);
    taught.resize(row_len + 1, false);
    let targets =
        tokens[1..].iter().zip(&taught[1..]).map(|(token, taught)| if *taught { *token } else { -1 });
    Row { targets: targets.collect(), inputs: tokens[..row_len].to_vec() }
}
