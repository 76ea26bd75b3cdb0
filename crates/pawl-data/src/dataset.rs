//! A data set in its folder: made once, then only read.
//!
//! A folder appears all at once when it is complete. The carried corpus is written the first time it
//! is asked for; a lab keeps the corpus it began with, also when a newer pawl carries another one, so
//! that its runs stay comparable.

use crate::lock::{create_folder, lock};
use crate::shards::{TokenShards, write_shards};
use crate::store::{Staging, content_hash, documents_path, read_documents};
use crate::tokenizer::train::{WordCounts, count_words, merge_counts};
use crate::tokenizer::{Tokenizer, check_vocab_size};
use crate::{DataError, OnProgress, Progress, Stage, carried_corpus, corpus};
use pawl_record::{DataManifest, DataSource, DomainRecord, Split, SplitRule, read_json, write_json};
use std::num::NonZero;
use std::path::{Path, PathBuf};

/// Name of the carried corpus.
pub const CARRIED: &str = "crates";
/// More text than this changes the merges of a small vocabulary no more.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
/// Text held in memory at once while it is counted or encoded.
const BATCH_BYTES: usize = 16 << 20;

/// A data set that exists on disk.
#[derive(Clone, Debug)]
pub struct Dataset {
    folder: PathBuf,
    manifest: DataManifest,
}

impl Dataset {
    /// Opens the data set in `folder`.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let path = manifest_path(folder);
        if !path.exists() {
            return Err(DataError::Missing { folder: folder.to_path_buf() });
        }
        Ok(Self { folder: folder.to_path_buf(), manifest: read_json(&path)? })
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Domains, sizes, hash and sources.
    pub fn manifest(&self) -> &DataManifest {
        &self.manifest
    }
}

fn manifest_path(folder: &Path) -> PathBuf {
    folder.join("manifest.json")
}

/// Every data set below `data_folder` (`lab/data`), by name. An absent folder holds none.
pub fn list(data_folder: &Path) -> Result<Vec<DataManifest>, DataError> {
    if !data_folder.exists() {
        return Ok(Vec::new());
    }
    let io = DataError::io("read", data_folder);
    let mut manifests = Vec::new();
    for entry in std::fs::read_dir(data_folder).map_err(&io)? {
        let path = entry.map_err(&io)?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && manifest_path(&path).exists() {
            manifests.push(Dataset::open(&path)?.manifest);
        }
    }
    manifests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(manifests)
}

/// Opens the carried corpus in `folder`, writing it there on first use.
pub fn ensure_builtin(folder: &Path, progress: OnProgress<'_>) -> Result<Dataset, DataError> {
    if manifest_path(folder).exists() {
        return Dataset::open(folder);
    }
    let _lock = lock(folder)?;
    if !manifest_path(folder).exists() {
        create_folder(folder, |temporary| {
            let corpus = carried_corpus();
            let total = corpus.crates.iter().map(|c| c.code_bytes + c.prose_bytes).sum();
            let mut staging = Staging::new(temporary)?;
            let mut done = 0;
            for (idx, document) in corpus::carried_documents().enumerate() {
                staging.push(&document.domain, &document.text)?;
                done += document.text.len() as u64;
                if idx % 256 == 0 {
                    progress(Progress { stage: Stage::Read, done, total });
                }
            }
            finish(temporary, CARRIED, staging, None, DataSource::Carried { corpus }, progress)
        })?;
    }
    Dataset::open(folder)
}

/// Divides what was staged and writes the manifest, which is what makes a folder a data set.
pub(crate) fn finish(
    folder: &Path,
    name: &str,
    staging: Staging<'_>,
    rule: Option<SplitRule>,
    source: DataSource,
    progress: OnProgress<'_>,
) -> Result<(), DataError> {
    let (split, domains, hash) = staging.divide(rule, progress)?;
    let schema = pawl_record::SCHEMA;
    let manifest = DataManifest { schema, name: name.to_owned(), hash, split, domains, source };
    Ok(write_json(&manifest_path(folder), &manifest)?)
}

/// The tokenizer of V = `vocab_size` of the data set in `folder`, learnt from its train split on first
/// use.
pub fn tokenizer(folder: &Path, vocab_size: usize, progress: OnProgress<'_>) -> Result<Tokenizer, DataError> {
    check_vocab_size(vocab_size)?;
    let path = folder.join("tokenizers").join(format!("{vocab_size}.json"));
    if path.exists() {
        return Tokenizer::load(&path);
    }
    let dataset = Dataset::open(folder)?;
    let _lock = lock(folder)?;
    if path.exists() {
        return Tokenizer::load(&path);
    }
    let parent = folder.join("tokenizers");
    std::fs::create_dir_all(&parent).map_err(DataError::io("create", &parent))?;
    let counts = count_train_words(&dataset, progress)?;
    let tokenizer = Tokenizer::learn(&counts, vocab_size, progress)?;
    tokenizer.save(&path)?;
    Ok(tokenizer)
}

pub(crate) fn count_train_words(
    dataset: &Dataset,
    progress: OnProgress<'_>,
) -> Result<WordCounts, DataError> {
    let domains = &dataset.manifest.domains;
    let total: u64 = domains.iter().map(|domain| domain.train.bytes).sum();
    let kept_share = (MAX_TOKENIZER_BYTES as f64 / total as f64).min(1.0);
    let kept_below = (kept_share * u64::MAX as f64) as u64; // saturates at "all"
    let mut counts = WordCounts::default();
    let mut done = 0;
    for domain in domains {
        for_each_batch(dataset, domain, Split::Train, &mut |batch| {
            done += batch.iter().map(|text| text.len() as u64).sum::<u64>();
            batch.retain(|text| kept_share >= 1.0 || content_hash(text) <= kept_below);
            merge_counts(&mut counts, count_words(batch, num_threads()));
            progress(Progress { stage: Stage::Count, done, total });
            Ok(())
        })?;
    }
    Ok(counts)
}

/// The token files of the data set in `folder` for `tokenizer`, written on first use.
pub fn tokens(
    folder: &Path,
    tokenizer: &Tokenizer,
    progress: OnProgress<'_>,
) -> Result<TokenShards, DataError> {
    let dataset = Dataset::open(folder)?;
    let target = folder.join(format!("tokens-{}-{}", tokenizer.vocab_size(), &tokenizer.hash()[..8]));
    if !manifest_path(&target).exists() {
        let _lock = lock(folder)?;
        if !manifest_path(&target).exists() {
            create_folder(&target, |temporary| write_shards(&dataset, tokenizer, temporary, progress))?;
        }
    }
    TokenShards::open(&target, tokenizer.bos())
}

/// Calls `each` with the documents of one domain and split, in order, some megabytes at a time.
pub(crate) fn for_each_batch(
    dataset: &Dataset,
    domain: &DomainRecord,
    split: Split,
    each: &mut dyn FnMut(&mut Vec<String>) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    read_documents(&documents_path(&dataset.folder, &domain.name, split), &mut |text| {
        bytes += text.len();
        batch.push(text);
        if bytes >= BATCH_BYTES {
            each(&mut batch)?;
            batch.clear();
            bytes = 0;
        }
        Ok(())
    })?;
    if batch.is_empty() { Ok(()) } else { each(&mut batch) }
}

/// Nothing that is written depends on this number.
pub(crate) fn num_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}
