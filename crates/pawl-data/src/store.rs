//! Documents on disk: first staged as they come, one file per domain, then divided into splits.
//!
//! A data set holds `documents/DOMAIN.SPLIT.jsonl.zst`, one `{"text": ...}` per line, which any other
//! tool can read. Memory is bounded by an index of 12 bytes per document and by the held-out text.

use crate::{DataError, OnProgress, Progress, Stage};
use pawl_record::{DomainRecord, Split, SplitRule, TextSize};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// Share of a domain that each of search and sealed gets.
const HELD_OUT_SHARE: f64 = 0.01;
/// Fewer bytes than this measure too coarsely, ...
const MIN_HELD_OUT_BYTES: u64 = 160_000;
/// ... but no more than this share is worth it, ...
const MAX_HELD_OUT_SHARE: f64 = 0.1;
/// ... and more bytes than this only cost time and memory.
const MAX_HELD_OUT_BYTES: u64 = 20_000_000;
/// A set of fewer documents in any domain is divided by position.
const MIN_HASHED_DOCUMENTS: usize = 50;
/// What position holds out when nothing else was asked for.
const POSITION: SplitRule = SplitRule::Position { held_out: 0.1, sealed: 0.05 };
/// Staged text is read again within seconds and then deleted.
const COMPRESSION_LEVEL: i32 = 1;

#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
}

#[derive(Deserialize)]
struct OwnedLine {
    text: String,
}

/// Where documents of one domain and split lie.
pub(crate) fn documents_path(folder: &Path, domain: &str, split: Split) -> PathBuf {
    folder.join("documents").join(format!("{domain}.{}.jsonl.zst", split.name()))
}

/// Calls `each` with every document of a file written by [`Documents`].
pub(crate) fn read_documents(
    path: &Path,
    each: &mut dyn FnMut(String) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let file = File::open(path).map_err(DataError::io("read", path))?;
    let reader = zstd::Decoder::new(file).map_err(DataError::io("read", path))?;
    for line in BufReader::with_capacity(1 << 18, reader).lines() {
        let line = line.map_err(DataError::io("read", path))?;
        let line: OwnedLine = serde_json::from_str(&line)
            .map_err(|error| DataError::Corrupt { path: path.to_path_buf(), reason: error.to_string() })?;
        each(line.text)?;
    }
    Ok(())
}

/// The first eight bytes of the BLAKE3 hash of a text: decides its split.
pub(crate) fn content_hash(text: &str) -> u64 {
    let hash = blake3::hash(text.as_bytes());
    u64::from_be_bytes(hash.as_bytes()[..8].try_into().expect("a BLAKE3 hash has 32 bytes"))
}

/// A file of documents being written.
struct Documents {
    path: PathBuf,
    file: zstd::Encoder<'static, File>,
    hash: blake3::Hasher,
    size: TextSize,
}

impl Documents {
    fn create(path: PathBuf) -> Result<Self, DataError> {
        let file = File::create(&path).map_err(DataError::io("create", &path))?;
        let file = zstd::Encoder::new(file, COMPRESSION_LEVEL).map_err(DataError::io("create", &path))?;
        Ok(Self { path, file, hash: blake3::Hasher::new(), size: TextSize::default() })
    }

    fn push(&mut self, text: &str) -> Result<(), DataError> {
        let mut line = serde_json::to_vec(&Line { text }).expect("a string is valid JSON");
        line.push(b'\n');
        self.file.write_all(&line).map_err(DataError::io("write", &self.path))?;
        self.hash.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        self.size.documents += 1;
        self.size.bytes += text.len() as u64;
        Ok(())
    }

    fn finish(self) -> Result<(TextSize, blake3::Hash), DataError> {
        let file = self.file.finish().map_err(DataError::io("write", &self.path))?;
        file.sync_all().map_err(DataError::io("write", &self.path))?;
        Ok((self.size, self.hash.finalize()))
    }
}

/// Documents as they come, before they are divided.
pub(crate) struct Staging<'a> {
    folder: &'a Path,
    domains: BTreeMap<String, Staged>,
}

struct Staged {
    documents: Documents,
    /// (hash, bytes) of each document, in order.
    index: Vec<(u64, u32)>,
}

impl<'a> Staging<'a> {
    pub(crate) fn new(folder: &'a Path) -> Result<Self, DataError> {
        let documents = folder.join("documents");
        fs::create_dir_all(&documents).map_err(DataError::io("create", &documents))?;
        Ok(Self { folder, domains: BTreeMap::new() })
    }

    pub(crate) fn push(&mut self, domain: &str, text: &str) -> Result<(), DataError> {
        if !self.domains.contains_key(domain) {
            let path = self.folder.join("documents").join(format!("{domain}.staged.jsonl.zst"));
            let staged = Staged { documents: Documents::create(path)?, index: Vec::new() };
            self.domains.insert(domain.to_owned(), staged);
        }
        let staged = self.domains.get_mut(domain).expect("it was just inserted");
        let bytes = u32::try_from(text.len()).expect("readers bound the size of a document");
        staged.index.push((content_hash(text), bytes));
        staged.documents.push(text)
    }

    /// Divides everything by `rule`, or by the rule that suits the set, and removes the staged files.
    pub(crate) fn divide(
        self,
        rule: Option<SplitRule>,
        progress: OnProgress<'_>,
    ) -> Result<(SplitRule, Vec<DomainRecord>, String), DataError> {
        let total: u64 = self.domains.values().map(|staged| staged.documents.size.bytes).sum();
        let few = self.domains.values().any(|staged| staged.index.len() < MIN_HASHED_DOCUMENTS);
        let rule = rule.unwrap_or(if few { POSITION } else { SplitRule::Hash });
        let mut hash = blake3::Hasher::new();
        let mut records = Vec::new();
        let mut done = 0;
        for (name, staged) in self.domains {
            let step = staged.documents.size.bytes;
            let record = divide_domain(self.folder, &name, staged, rule, &mut hash)?;
            if record.train.bytes == 0 || record.search.bytes == 0 {
                return Err(DataError::TooSmall { bytes: total });
            }
            records.push(record);
            done += step;
            progress(Progress { stage: Stage::Split, done, total });
        }
        if records.is_empty() {
            return Err(DataError::TooSmall { bytes: 0 });
        }
        Ok((rule, records, hash.finalize().to_hex().to_string()))
    }
}

fn divide_domain(
    folder: &Path,
    name: &str,
    staged: Staged,
    rule: SplitRule,
    hash: &mut blake3::Hasher,
) -> Result<DomainRecord, DataError> {
    let path = staged.documents.path.clone();
    let (size, _) = staged.documents.finish()?;
    let mut files = Vec::new();
    for split in Split::ALL {
        files.push(Documents::create(documents_path(folder, name, split))?);
    }
    match rule {
        SplitRule::Hash => divide_by_hash(&path, &staged.index, &mut files)?,
        SplitRule::Position { held_out, sealed } => {
            let share = |kept_out: f64| (size.bytes as f64 * (1.0 - kept_out)) as u64;
            divide_by_position(&path, [share(held_out), share(sealed)], &mut files)?;
        }
    }
    fs::remove_file(&path).map_err(DataError::io("remove", &path))?;
    let mut sizes = [TextSize::default(); 3];
    hash.update(name.as_bytes());
    for (file, size) in files.into_iter().zip(&mut sizes) {
        let (written, file_hash) = file.finish()?;
        *size = written;
        hash.update(file_hash.as_bytes());
    }
    let [train, search, sealed] = sizes;
    Ok(DomainRecord { name: name.to_owned(), train, search, sealed })
}

/// Whole documents: the smallest hashes are sealed, the next ones searched on. Equal texts have equal
/// hashes and so stay together. A document that would be more than an eighth of what is held out is not
/// eligible, unless most text is in documents so large: one of them would decide every score.
/// Held-out documents are written in the order of their hashes, so that any prefix of them is a fair
/// sample.
fn divide_by_hash(path: &Path, index: &[(u64, u32)], files: &mut [Documents]) -> Result<(), DataError> {
    let mut sorted = index.to_vec();
    sorted.sort_unstable();
    let total: u64 = index.iter().map(|&(_, bytes)| u64::from(bytes)).sum();
    let target = ((total as f64 * HELD_OUT_SHARE) as u64)
        .clamp(MIN_HELD_OUT_BYTES, MAX_HELD_OUT_BYTES)
        .min((total as f64 * MAX_HELD_OUT_SHARE) as u64);
    let largest = typical_bytes(index).max(target / 8);
    sorted.retain(|&(_, bytes)| u64::from(bytes) <= largest);
    let sealed_below = hash_after(&sorted, 0, target);
    let search_below = hash_after(&sorted, sealed_below, target);
    let (mut search, mut sealed) = (Vec::new(), Vec::new());
    read_documents(path, &mut |text| {
        let hash = content_hash(&text);
        if text.len() as u64 > largest {
            files[0].push(&text)?;
        } else if hash < sealed_below {
            sealed.push((hash, text));
        } else if hash < search_below {
            search.push((hash, text));
        } else {
            files[0].push(&text)?;
        }
        Ok(())
    })?;
    for (held_out, file) in [search, sealed].iter_mut().zip(&mut files[1..]) {
        held_out.sort();
        held_out.iter().try_for_each(|(_, text)| file.push(text))?;
    }
    Ok(())
}

/// Half of all bytes are in documents of at most this size.
fn typical_bytes(index: &[(u64, u32)]) -> u64 {
    let mut sizes: Vec<u64> = index.iter().map(|&(_, bytes)| u64::from(bytes)).collect();
    sizes.sort_unstable();
    let half = sizes.iter().sum::<u64>() / 2;
    let mut below = 0;
    sizes
        .into_iter()
        .find(|bytes| {
            below += bytes;
            below >= half
        })
        .unwrap_or(0)
}

/// The bound under which the hashes from `first` on make up at least `target` bytes.
fn hash_after(sorted: &[(u64, u32)], first: u64, target: u64) -> u64 {
    let mut bytes = 0;
    let mut rest = sorted.iter().skip_while(|&&(hash, _)| hash < first);
    let last = rest.find(|&&(_, len)| {
        bytes += u64::from(len);
        bytes >= target
    });
    last.map_or(u64::MAX, |&(hash, _)| hash.saturating_add(1))
}

/// The text of all documents in a row is cut at two byte positions, moved down to a character
/// boundary; a document that a cut goes through becomes two.
fn divide_by_position(path: &Path, cuts: [u64; 2], files: &mut [Documents]) -> Result<(), DataError> {
    let mut start = 0;
    read_documents(path, &mut |text| {
        let local =
            |cut: u64| text.floor_char_boundary(cut.saturating_sub(start).min(text.len() as u64) as usize);
        let [first, second] = cuts.map(local);
        for (range, file) in [0..first, first..second, second..text.len()].into_iter().zip(files.iter_mut()) {
            if !range.is_empty() {
                file.push(&text[range])?;
            }
        }
        start += text.len() as u64;
        Ok(())
    })
}
