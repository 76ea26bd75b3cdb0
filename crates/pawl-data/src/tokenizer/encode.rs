//! Text to tokens: words from the splitter, merges from the lowest rank up, common words remembered.

use super::Tokenizer;
use super::split::words_by;
use super::train::{FastHash, merge_pair};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Longer words are rare; remembering them would only cost memory.
const MAX_CACHED_BYTES: usize = 32;
const MAX_CACHED_WORDS: usize = 1 << 20;
/// Above this many bytes a heap beats looking at every pair again.
const MAX_SCANNED_BYTES: usize = 48;

/// Encodes many texts, remembering the words it has seen. One per thread.
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    cache: HashMap<Box<str>, Box<[u32]>, FastHash>,
}

impl<'a> Encoder<'a> {
    /// An encoder that has seen nothing yet.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, cache: HashMap::default() }
    }

    /// Appends the tokens of `text` to `tokens`.
    pub fn encode_into(&mut self, text: &str, tokens: &mut Vec<u32>) {
        for word in words_by(text, self.tokenizer.splitter) {
            if let Some(known) = self.cache.get(word) {
                tokens.extend_from_slice(known);
                continue;
            }
            let encoded = encode_word(self.tokenizer, word.as_bytes());
            tokens.extend_from_slice(&encoded);
            if word.len() <= MAX_CACHED_BYTES && self.cache.len() < MAX_CACHED_WORDS {
                self.cache.insert(word.into(), encoded.into());
            }
        }
    }
}

fn encode_word(tokenizer: &Tokenizer, word: &[u8]) -> Vec<u32> {
    if word.len() > MAX_SCANNED_BYTES {
        return encode_long_word(tokenizer, word);
    }
    let mut tokens: Vec<u32> = word.iter().map(|byte| tokenizer.byte_ids[usize::from(*byte)]).collect();
    loop {
        let ranks = tokens.windows(2).filter_map(|pair| tokenizer.ranks.get(&(pair[0], pair[1])));
        let Some(&rank) = ranks.min() else { return tokens };
        merge_pair(&mut tokens, tokenizer.merges[rank as usize], tokenizer.merged[rank as usize]);
    }
}

const NONE: usize = usize::MAX;

struct Symbol {
    token: u32,
    previous: usize,
    next: usize,
}

/// The same merges in the same order (lowest rank, then leftmost) in O(n log n).
fn encode_long_word(tokenizer: &Tokenizer, word: &[u8]) -> Vec<u32> {
    let last = word.len() - 1;
    let symbol = |(idx, &byte): (usize, &u8)| Symbol {
        token: tokenizer.byte_ids[usize::from(byte)],
        previous: idx.wrapping_sub(1), // NONE for the first
        next: if idx == last { NONE } else { idx + 1 },
    };
    let mut symbols: Vec<Symbol> = word.iter().enumerate().map(symbol).collect();
    let mut heap: BinaryHeap<Reverse<(u32, usize)>> = BinaryHeap::new();
    let rank_at = |symbols: &[Symbol], left: usize| {
        let right = symbols.get(symbols[left].next)?;
        tokenizer.ranks.get(&(symbols[left].token, right.token)).map(|&rank| Reverse((rank, left)))
    };
    heap.extend((0..word.len()).filter_map(|left| rank_at(&symbols, left)));
    while let Some(Reverse((rank, left))) = heap.pop() {
        // A merged-away symbol has next = NONE, and a changed pair another rank: both entries are stale.
        if rank_at(&symbols, left) != Some(Reverse((rank, left))) {
            continue;
        }
        let right = symbols[left].next;
        let after = symbols[right].next;
        symbols[left].token = tokenizer.merged[rank as usize];
        symbols[left].next = after;
        symbols[right].next = NONE;
        symbols[right].previous = NONE;
        if after != NONE {
            symbols[after].previous = left;
        }
        heap.extend(rank_at(&symbols, left));
        let before = symbols[left].previous;
        if before != NONE {
            heap.extend(rank_at(&symbols, before));
        }
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    while at != NONE {
        tokens.push(symbols[at].token);
        at = symbols[at].next;
    }
    tokens
}
