//! Learns byte-pair merges from counted words.
//!
//! The result depends on the counts alone: words are sorted before they are numbered, and of two
//! pairs with one count the smaller ids win. Threads only count.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A merge of two tokens into a new one.
pub(crate) type Pair = (u32, u32);
/// How often each word occurs.
pub(crate) type WordCounts = HashMap<Box<str>, u64, FastHash>;
pub(crate) type FastHash = BuildHasherDefault<FastHasher>;

/// A pair that occurs once teaches nothing but that place.
const MIN_COUNT: i64 = 2;

/// Counts words on `threads` threads that take the next document from a shared list.
pub(crate) fn count_words(documents: &[String], threads: usize) -> WordCounts {
    let next = AtomicUsize::new(0);
    let count = || {
        let mut counts = WordCounts::default();
        while let Some(document) = documents.get(next.fetch_add(1, Ordering::Relaxed)) {
            add_words(&mut counts, document);
        }
        counts
    };
    std::thread::scope(|scope| {
        let counters: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(count)).collect();
        let mut total = WordCounts::default();
        for counter in counters {
            merge_counts(&mut total, counter.join().expect("counting words does not panic"));
        }
        total
    })
}

fn add_words(counts: &mut WordCounts, document: &str) {
    for word in super::split::words(document) {
        if let Some(count) = counts.get_mut(word) {
            *count += 1;
        } else {
            counts.insert(word.into(), 1);
        }
    }
}

/// Adds `counts` to `total`.
pub(crate) fn merge_counts(total: &mut WordCounts, counts: WordCounts) {
    if total.is_empty() {
        *total = counts;
        return;
    }
    for (word, count) in counts {
        *total.entry(word).or_default() += count;
    }
}

/// Learns at most `num_merges` merges; fewer when no pair is left that occurs twice.
/// Token ids: 0..256 are the bytes, 256 + i is merge i.
pub(crate) fn learn_merges(counts: &WordCounts, num_merges: usize) -> Vec<Pair> {
    let mut sorted: Vec<(&str, u64)> = counts.iter().map(|(word, &count)| (&**word, count)).collect();
    sorted.sort_unstable();
    let mut words: Vec<Word> = sorted
        .iter()
        .map(|&(word, count)| Word { tokens: word.bytes().map(u32::from).collect(), count: count as i64 })
        .collect();
    let mut pairs = PairTable::default();
    for (idx, word) in words.iter().enumerate() {
        for pair in word.tokens.windows(2) {
            pairs.add((pair[0], pair[1]), word.count, idx as u32);
        }
    }
    let mut heap: BinaryHeap<(i64, Reverse<Pair>)> =
        pairs.counts.iter().map(|(&pair, &count)| (count, Reverse(pair))).collect();

    let mut merges = Vec::with_capacity(num_merges);
    while merges.len() < num_merges {
        let Some((count, Reverse(pair))) = heap.pop() else { break };
        let current = pairs.counts.get(&pair).copied().unwrap_or(0);
        if current != count {
            // The entry is stale. Counts only shrink between pushes, so re-queue the true one.
            if current >= MIN_COUNT {
                heap.push((current, Reverse(pair)));
            }
            continue;
        }
        if count < MIN_COUNT {
            break;
        }
        let token = 256 + merges.len() as u32;
        merges.push(pair);
        let mut affected = pairs.places.remove(&pair).unwrap_or_default();
        affected.sort_unstable();
        affected.dedup();
        let mut born = HashSet::<Pair, FastHash>::default();
        for idx in affected {
            words[idx as usize].merge(pair, token, idx, &mut pairs, &mut born);
        }
        pairs.counts.remove(&pair);
        for pair in born {
            if let Some(&count) = pairs.counts.get(&pair) {
                heap.push((count, Reverse(pair)));
            }
        }
    }
    merges
}

struct Word {
    tokens: Vec<u32>,
    count: i64,
}

#[derive(Default)]
struct PairTable {
    counts: HashMap<Pair, i64, FastHash>,
    /// Words that hold or held the pair, with repeats.
    places: HashMap<Pair, Vec<u32>, FastHash>,
}

impl PairTable {
    fn add(&mut self, pair: Pair, count: i64, word_idx: u32) {
        *self.counts.entry(pair).or_default() += count;
        let places = self.places.entry(pair).or_default();
        if places.last() != Some(&word_idx) {
            places.push(word_idx);
        }
    }

    fn remove(&mut self, pair: Pair, count: i64) {
        if let Some(entry) = self.counts.get_mut(&pair) {
            *entry -= count;
        }
    }
}

impl Word {
    /// Replaces every `pair` by `token`, left to right, and keeps the pair table true.
    fn merge(
        &mut self,
        pair: Pair,
        token: u32,
        idx: u32,
        pairs: &mut PairTable,
        born: &mut HashSet<Pair, FastHash>,
    ) {
        if !self.tokens.windows(2).any(|window| (window[0], window[1]) == pair) {
            return;
        }
        for window in self.tokens.windows(2) {
            pairs.remove((window[0], window[1]), self.count);
        }
        merge_pair(&mut self.tokens, pair, token);
        for window in self.tokens.windows(2) {
            let new = (window[0], window[1]);
            if new.0 == token || new.1 == token {
                pairs.add(new, self.count, idx);
                born.insert(new);
            } else if let Some(entry) = pairs.counts.get_mut(&new) {
                *entry += self.count;
            }
        }
    }
}

/// Replaces every `pair` by `token`, left to right.
pub(crate) fn merge_pair(tokens: &mut Vec<u32>, pair: Pair, token: u32) {
    let (mut from, mut to) = (0, 0);
    while from < tokens.len() {
        let found = from + 1 < tokens.len() && (tokens[from], tokens[from + 1]) == pair;
        tokens[to] = if found { token } else { tokens[from] };
        from += 1 + usize::from(found);
        to += 1;
    }
    tokens.truncate(to);
}

/// Multiply and fold over eight bytes at a time: several times faster than SipHash on short words,
/// and these tables are never keyed by an adversary who would gain from collisions.
#[derive(Clone, Copy, Default)]
pub(crate) struct FastHasher(u64);

impl FastHasher {
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

impl Hasher for FastHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(word) ^ ((chunk.len() as u64) << 56));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.fold(u64::from(value) | 1 << 40);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
