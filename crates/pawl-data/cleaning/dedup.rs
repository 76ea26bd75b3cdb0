//! Drops documents that repeat an earlier one, exactly or nearly.
//!
//! Near duplicates are found by exact containment, not by MinHash: the corpus fits in memory, so the
//! set of all passages seen can be kept as it is. A passage is [`WINDOW`] consecutive non-empty
//! lines. A document is dropped when at least half of its passages were already seen, wherever they
//! were: this also catches a small file copied into a large one, which Jaccard similarity misses.

use std::collections::HashSet;

const WINDOW: usize = 3;

/// What was seen so far; the order of calls decides which of two copies is kept.
#[derive(Default)]
pub(crate) struct Seen {
    whole: HashSet<u64>,
    passages: HashSet<u64>,
}

/// How a document relates to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Novelty {
    /// Mostly text that was not seen before.
    New,
    /// The same lines as an earlier document.
    Exact,
    /// At least half of it was seen before.
    Near,
}

impl Seen {
    /// Judges `text` and, when it is new, remembers it.
    pub(crate) fn judge(&mut self, text: &str) -> Novelty {
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if !self.whole.insert(hash(&lines)) {
            return Novelty::Exact;
        }
        let passages: HashSet<u64> = lines.windows(WINDOW.min(lines.len().max(1))).map(hash).collect();
        let seen = passages.iter().filter(|passage| self.passages.contains(passage)).count();
        if seen * 2 >= passages.len().max(1) {
            return Novelty::Near;
        }
        self.passages.extend(passages);
        Novelty::New
    }
}

/// FNV-1a over 64 bits: with a million passages the chance of any false hit is about 3e-8.
fn hash(lines: &[&str]) -> u64 {
    let bytes = lines.iter().flat_map(|line| line.bytes().chain([b'\n']));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
