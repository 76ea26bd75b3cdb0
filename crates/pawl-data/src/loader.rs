//! Batches to train on. The position is the whole state: batch k depends on (seed, k, data, settings)
//! and can be asked for without its predecessors, in any order, on any number of threads.
//!
//! Row number `k * batch + b` of the run is given a domain by the mixture, and is row i of that domain.
//! A domain goes through its documents epoch after epoch, each in an order that depends on the seed
//! alone. With [`Packing::BestFit`] an epoch is divided into chunks of about a million tokens; each is
//! packed on its own and its rows are shuffled. Seeking costs one sort of the domain's documents per
//! epoch skipped and one chunk (milliseconds); going on costs one chunk per million tokens.
//! With [`Packing::Crop`] packing has a long memory (nanochat's buffer), so seeking replays document
//! lengths from the nearest earlier snapshot in memory, in a new process from the start: about a
//! second per million rows.

use crate::DataError;
use crate::mixture::{Mixture, weights};
use crate::order::{key, named_key, shuffled};
use crate::pack::{Crop, Segment, best_fit};
use crate::shards::{Shard, TokenShards};
use pawl_record::Split;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tokens packed together. Larger wastes less and shuffles better; this takes a few milliseconds.
const CHUNK_TOKENS: u64 = 1 << 20;
/// Rows between two snapshots of a crop packer (about 16 KB each at nanochat's buffer of 1000).
const SNAPSHOT_ROWS: u64 = 4096;

/// How documents are put into rows of T + 1 tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Every token is used: see [`best_fit`].
    BestFit,
    /// As nanochat does: see [`Crop`].
    Crop {
        /// Documents buffered at least before a placement; nanochat's is 1000.
        buffer: usize,
        /// Documents pulled at once; nanochat's is 128.
        refill: usize,
    },
}

/// What batches depend on besides the data.
#[derive(Clone, Debug)]
pub struct LoaderSettings {
    /// Keys the order of documents and rows.
    pub seed: u64,
    /// T: tokens of a row that are inputs; a row has one more.
    pub seq_len: usize,
    /// B: rows of a batch.
    pub batch: usize,
    /// Weight of each domain; those not named get none; empty weighs all by their tokens.
    pub mixture: BTreeMap<String, f64>,
    /// How rows are filled.
    pub packing: Packing,
}

/// A source of batches.
#[derive(Debug)]
pub struct Loader {
    settings: LoaderSettings,
    mixture: Mixture,
    domains: Vec<DomainRows>,
    row: Vec<i32>,
}

impl Loader {
    /// Checks the mixture, and that each of its domains fills at least one row.
    pub fn new(shards: &TokenShards, settings: LoaderSettings) -> Result<Self, DataError> {
        assert!(settings.seq_len > 0 && settings.batch > 0, "{settings:?}");
        let names = shards.domains();
        let sizes: Vec<(&str, u64)> = names.iter().map(|&name| (name, shards.train_tokens(name))).collect();
        let weights = weights(&settings.mixture, &sizes)?;
        let row_len = settings.seq_len + 1;
        let mut domains = Vec::new();
        for (&(name, tokens), weight) in sizes.iter().zip(&weights) {
            if *weight > 0.0 && tokens < row_len as u64 {
                return Err(DataError::TooFewTokens { name: name.to_owned(), tokens, row: row_len as u64 });
            }
            let shard = shards.shard(name, Split::Train).expect("domains are those of the train split");
            domains.push(DomainRows::new(
                Arc::clone(shard),
                named_key(settings.seed, name),
                row_len,
                settings.packing,
            ));
        }
        Ok(Self { mixture: Mixture::new(&weights), domains, row: Vec::with_capacity(row_len), settings })
    }

    /// Fills `inputs` and `targets`, both (B, T), with batch number `position`.
    pub fn batch(&mut self, position: u64, inputs: &mut [i32], targets: &mut [i32]) -> Result<(), DataError> {
        let (b, t) = (self.settings.batch, self.settings.seq_len);
        assert!(inputs.len() == b * t && targets.len() == b * t, "{} and {}", inputs.len(), targets.len());
        for (idx, (inputs, targets)) in
            inputs.chunks_exact_mut(t).zip(targets.chunks_exact_mut(t)).enumerate()
        {
            let (domain, row_idx) = self.mixture.row(position * b as u64 + idx as u64);
            self.row.clear();
            self.domains[domain].read_row(row_idx, &mut self.row)?;
            inputs.copy_from_slice(&self.row[..t]);
            targets.copy_from_slice(&self.row[1..]);
        }
        Ok(())
    }
}

/// The endless rows of one domain.
#[derive(Debug)]
struct DomainRows {
    shard: Arc<Shard>,
    row_len: usize,
    order: DocumentOrder,
    packer: Packer,
}

#[derive(Debug)]
enum Packer {
    BestFit(Chunks),
    Crop(Replay),
}

impl DomainRows {
    fn new(shard: Arc<Shard>, key: u64, row_len: usize, packing: Packing) -> Self {
        let packer = match packing {
            Packing::BestFit => Packer::BestFit(Chunks::default()),
            Packing::Crop { buffer, refill } => Packer::Crop(Replay::new(Crop::new(row_len, buffer, refill))),
        };
        let order = DocumentOrder { key, epoch: 0, documents: Vec::new() };
        Self { shard, row_len, order, packer }
    }

    fn read_row(&mut self, row_idx: u64, tokens: &mut Vec<i32>) -> Result<(), DataError> {
        let row = match &mut self.packer {
            Packer::BestFit(chunks) => chunks.row(row_idx, self.row_len, &self.shard, &mut self.order),
            Packer::Crop(replay) => replay.row(row_idx, &self.shard, &mut self.order),
        };
        for segment in row {
            self.shard.read(segment.document as usize, segment.start, segment.len, tokens)?;
        }
        assert_eq!(tokens.len(), self.row_len, "row {row_idx}");
        Ok(())
    }
}

/// The order of documents in each epoch: a function of the key.
#[derive(Debug)]
struct DocumentOrder {
    key: u64,
    epoch: u64,
    /// Of `epoch`; empty before the first use.
    documents: Vec<u32>,
}

impl DocumentOrder {
    fn of(&mut self, epoch: u64, num_documents: usize) -> &[u32] {
        if self.documents.is_empty() || self.epoch != epoch {
            self.documents = shuffled(num_documents, key(self.key, epoch));
            self.epoch = epoch;
        }
        &self.documents
    }
}

/// Best-fit rows, chunk by chunk.
#[derive(Debug, Default)]
struct Chunks {
    /// First row of each epoch that was needed so far, and one more.
    epoch_starts: Vec<u64>,
    /// Of the current epoch: first place in the order and first row of each chunk, and one more.
    chunk_starts: Vec<(usize, u64)>,
    /// Of the current epoch: tokens that the first of the longest documents of each chunk leaves out.
    chunk_phases: Vec<usize>,
    /// (epoch, chunk) of `rows`.
    current: Option<(usize, usize)>,
    /// Rows of the current chunk, shuffled.
    rows: Vec<Vec<Segment>>,
}

impl Chunks {
    fn row(&mut self, row_idx: u64, row_len: usize, shard: &Shard, order: &mut DocumentOrder) -> &[Segment] {
        if self.epoch_starts.is_empty() {
            self.epoch_starts.push(0);
        }
        while self.epoch_starts[self.epoch_starts.len() - 1] <= row_idx {
            let epoch = self.epoch_starts.len() - 1;
            self.enter_epoch(epoch, row_len, shard, order);
            let rows = self.chunk_starts[self.chunk_starts.len() - 1].1;
            assert!(rows > 0, "the loader checked that a domain fills a row");
            self.epoch_starts.push(self.epoch_starts[epoch] + rows);
        }
        let epoch = self.epoch_starts.partition_point(|&start| start <= row_idx) - 1;
        let in_epoch = row_idx - self.epoch_starts[epoch];
        if self.current.is_none_or(|(current, _)| current != epoch) {
            self.enter_epoch(epoch, row_len, shard, order);
        }
        let chunk = self.chunk_starts.partition_point(|&(_, start)| start <= in_epoch) - 1;
        if self.current != Some((epoch, chunk)) {
            let places = self.chunk_starts[chunk].0..self.chunk_starts[chunk + 1].0;
            let sized = |&document: &u32| {
                let len = shard.document_len(document as usize);
                Segment { document: u64::from(document), start: 0, len }
            };
            let documents = &order.of(epoch as u64, shard.num_documents())[places];
            let mut documents: Vec<Segment> = documents.iter().map(sized).collect();
            let longest = documents.iter_mut().rev().max_by_key(|document| document.len).expect("not empty");
            longest.start = self.chunk_phases[chunk];
            longest.len -= self.chunk_phases[chunk];
            let mut packed = best_fit(&documents, row_len);
            let row_order = shuffled(packed.len(), key(key(order.key, !(epoch as u64)), chunk as u64));
            self.rows = row_order.into_iter().map(|row| std::mem::take(&mut packed[row as usize])).collect();
            self.current = Some((epoch, chunk));
        }
        &self.rows[(in_epoch - self.chunk_starts[chunk].1) as usize]
    }

    /// Divides the documents of `epoch` into chunks. The rows of a chunk follow from its lengths alone.
    ///
    /// A document that fills many rows would be cut at the same tokens in every epoch; so from the second
    /// epoch on the longest of a chunk leaves out a part of its first row, which moves all later cuts.
    fn enter_epoch(&mut self, epoch: usize, row_len: usize, shard: &Shard, order: &mut DocumentOrder) {
        let phase_key = key(order.key, epoch as u64 ^ u64::MAX);
        let documents = order.of(epoch as u64, shard.num_documents());
        let mut left = shard.num_tokens();
        let (mut tokens, mut longest, mut rows) = (0, 0, 0);
        self.current = None;
        self.chunk_starts.clear();
        self.chunk_starts.push((0, 0));
        self.chunk_phases.clear();
        for (place, &document) in documents.iter().enumerate() {
            let len = shard.document_len(document as usize) as u64;
            tokens += len;
            left -= len;
            longest = longest.max(len);
            // The last chunk takes what is too little for one of its own.
            if (tokens >= CHUNK_TOKENS && left >= CHUNK_TOKENS / 2) || left == 0 {
                let chunk = self.chunk_phases.len() as u64;
                let moved = epoch > 0 && longest >= 2 * row_len as u64;
                let phase = if moved { key(phase_key, !chunk) % row_len as u64 } else { 0 };
                rows += (tokens - phase) / row_len as u64;
                self.chunk_starts.push((place + 1, rows));
                self.chunk_phases.push(phase as usize);
                (tokens, longest) = (0, 0);
            }
        }
    }
}

/// Crop rows, one after the other, with snapshots to go back to.
#[derive(Debug)]
struct Replay {
    /// The packer before row 0, `SNAPSHOT_ROWS`, twice that, ...
    snapshots: Vec<Crop>,
    packer: Crop,
    next_row: u64,
    row: Vec<Segment>,
}

impl Replay {
    fn new(packer: Crop) -> Self {
        Self { snapshots: vec![packer.clone()], packer, next_row: 0, row: Vec::new() }
    }

    fn row(&mut self, row_idx: u64, shard: &Shard, order: &mut DocumentOrder) -> &[Segment] {
        let snapshot = (row_idx / SNAPSHOT_ROWS).min(self.snapshots.len() as u64 - 1);
        if row_idx < self.next_row || snapshot * SNAPSHOT_ROWS > self.next_row {
            self.packer = self.snapshots[snapshot as usize].clone();
            self.next_row = snapshot * SNAPSHOT_ROWS;
        }
        let num_documents = shard.num_documents();
        let mut pull = |place: u64| {
            let epoch = place / num_documents as u64;
            let document = order.of(epoch, num_documents)[(place % num_documents as u64) as usize];
            (u64::from(document), shard.document_len(document as usize))
        };
        while self.next_row <= row_idx {
            self.row = self.packer.next_row(&mut pull);
            self.next_row += 1;
            if self.next_row == self.snapshots.len() as u64 * SNAPSHOT_ROWS {
                self.snapshots.push(self.packer.clone());
            }
        }
        &self.row
    }
}
