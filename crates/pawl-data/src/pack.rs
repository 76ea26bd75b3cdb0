//! Documents into rows of equal length.
//!
//! Two ways. [`best_fit`] uses every token: a document that is cut goes on at the start of the next
//! row of its chunk, without a BOS, as it would in a stream; every other piece begins with BOS, and
//! only a row's last few tokens belong to a document that had to be cut. [`Crop`] is nanochat's way:
//! what does not fit is thrown away (about a third of all tokens), every row begins with BOS.

use std::collections::{BTreeMap, VecDeque};

/// A piece of a document in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Which document, in the numbering of the caller.
    pub document: u64,
    /// Its first token in the document; the document's BOS is token 0.
    pub start: usize,
    /// Tokens.
    pub len: usize,
}

/// Packs `documents`, in order, into exactly `sum of lengths / row_len` rows of `row_len` tokens; the rest
/// of the division is left out.
///
/// A row takes what is left of a cut document first, then again and again the longest document that
/// fits; when none does, the longest of all is cut: it has to be cut somewhere most probably anyway.
pub fn best_fit(documents: &[Segment], row_len: usize) -> Vec<Vec<Segment>> {
    let mut by_len: BTreeMap<usize, VecDeque<Segment>> = BTreeMap::new();
    for &document in documents {
        by_len.entry(document.len).or_default().push_back(document);
    }
    let total: usize = documents.iter().map(|document| document.len).sum();
    let mut cut: Option<Segment> = None; // what is left of the document that was cut last
    let mut rows = Vec::with_capacity(total / row_len);
    for _ in 0..total / row_len {
        let mut row = Vec::new();
        let mut space = row_len;
        while space > 0 {
            let piece = cut.take().unwrap_or_else(|| {
                let fitting = by_len.range(..=space).next_back().or(by_len.last_key_value());
                let len = *fitting.expect("there are tokens left for every row").0;
                take_first(&mut by_len, len)
            });
            let len = piece.len.min(space);
            row.push(Segment { len, ..piece });
            space -= len;
            if len < piece.len {
                cut = Some(Segment { start: piece.start + len, len: piece.len - len, ..piece });
            }
        }
        rows.push(row);
    }
    rows
}

fn take_first(by_len: &mut BTreeMap<usize, VecDeque<Segment>>, len: usize) -> Segment {
    let queue = by_len.get_mut(&len).expect("the length was just found");
    let document = queue.pop_front().expect("empty queues are removed");
    if queue.is_empty() {
        by_len.remove(&len);
    }
    document
}

/// nanochat's packer: best fit from a buffer that is refilled before every placement.
#[derive(Clone, Debug)]
pub struct Crop {
    row_len: usize,
    buffer_size: usize,
    refill: usize,
    buffer: Vec<(u64, usize)>,
    next_place: u64,
}

impl Crop {
    /// An empty buffer before place 0.
    ///
    /// # Panics
    /// When one of the numbers is 0.
    pub fn new(row_len: usize, buffer_size: usize, refill: usize) -> Self {
        assert!(row_len > 0 && buffer_size > 0 && refill > 0, "{row_len}, {buffer_size}, {refill}");
        Self { row_len, buffer_size, refill, buffer: Vec::new(), next_place: 0 }
    }

    /// The next row. `pull` gives the document (and its tokens, BOS included) at place 0, 1, ... of an
    /// endless sequence.
    pub fn next_row(&mut self, mut pull: impl FnMut(u64) -> (u64, usize)) -> Vec<Segment> {
        let mut row = Vec::new();
        let mut space = self.row_len;
        while space > 0 {
            while self.buffer.len() < self.buffer_size {
                let places = self.next_place..self.next_place + self.refill as u64;
                self.next_place = places.end;
                self.buffer.extend(places.map(&mut pull));
            }
            let fitting = self.buffer.iter().enumerate().filter(|(_, (_, len))| *len <= space);
            // Of equal lengths the first in the buffer: max_by_key would give the last.
            let longest = fitting.rev().max_by_key(|(_, (_, len))| *len).map(|(idx, _)| idx);
            let idx = longest.unwrap_or_else(|| {
                let shortest = self.buffer.iter().enumerate().min_by_key(|(_, (_, len))| *len);
                shortest.expect("the buffer was just filled").0
            });
            let (document, len) = self.buffer.remove(idx);
            let len = len.min(space);
            row.push(Segment { document, start: 0, len });
            space -= len;
        }
        row
    }
}
