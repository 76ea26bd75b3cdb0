//! What a data set on disk claims, against what it is: documents and token files against their hashes, tokenizers
//! against the text they may be learnt from, and held-out text against training text.
//!
//! Reads and compares; repairs nothing.

use crate::dataset::{Dataset, count_train_words, for_each_batch};
use crate::store::{documents_path, read_documents};
use crate::{DataError, OnProgress, TokenShards, Tokenizer};
use pawl_record::{DomainRecord, Split, TextSize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Something that a data set says and is not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where: `text.search`, `tokenizer 512`, ...
    pub place: String,
    /// What is there, and what should be.
    pub what: String,
}

fn finding(place: impl Into<String>, what: impl Into<String>) -> Finding {
    Finding { place: place.into(), what: what.into() }
}

/// Compares the documents, the token files and the tokenizers of the data set in `folder` with their manifests
/// and with each other. Every byte is read; nothing is learnt or encoded again.
pub fn check_files(folder: &Path) -> Result<Vec<Finding>, DataError> {
    let dataset = Dataset::open(folder)?;
    let mut found = check_documents(&dataset)?;
    for (path, vocab_size) in token_folders(folder)? {
        let place = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let tokenizer = match Tokenizer::load(&tokenizer_path(folder, vocab_size)) {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                found.push(finding(place, error.to_string()));
                continue;
            }
        };
        match TokenShards::open(&path, tokenizer.bos()) {
            Ok(shards) => found.extend(check_shards(&dataset, &shards, &tokenizer, &place)?),
            Err(error) => found.push(finding(place, error.to_string())),
        }
    }
    Ok(found)
}

/// All of [`check_files`], and: each tokenizer learnt again from the training text alone, and held-out documents
/// looked for in the training text.
pub fn check(folder: &Path, progress: OnProgress<'_>) -> Result<Vec<Finding>, DataError> {
    let dataset = Dataset::open(folder)?;
    let mut found = check_files(folder)?;
    for vocab_size in tokenizers(folder)? {
        let place = format!("tokenizer {vocab_size}");
        let counts = count_train_words(&dataset, progress)?;
        let learnt = Tokenizer::learn(&counts, vocab_size, progress)?;
        match Tokenizer::load(&tokenizer_path(folder, vocab_size)) {
            Ok(stored) if stored.to_json() == learnt.to_json() => {}
            Ok(_) => found.push(finding(place, "it is not the one that the training text gives")),
            Err(error) => found.push(finding(place, error.to_string())),
        }
    }
    found.extend(overlap(folder)?);
    Ok(found)
}

fn tokenizer_path(folder: &Path, vocab_size: usize) -> PathBuf {
    folder.join("tokenizers").join(format!("{vocab_size}.json"))
}

/// Names in a folder, in order; none where there is no folder.
fn names(folder: &Path) -> Result<Vec<String>, DataError> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let io = DataError::io("read", folder);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(&io)? {
        names.extend(entry.map_err(&io)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn tokenizers(folder: &Path) -> Result<Vec<usize>, DataError> {
    let names = names(&folder.join("tokenizers"))?;
    let mut sizes: Vec<usize> =
        names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect();
    sizes.sort_unstable();
    Ok(sizes)
}

/// Folders of token files, with V.
fn token_folders(folder: &Path) -> Result<Vec<(PathBuf, usize)>, DataError> {
    let vocab_size = |name: &str| name.strip_prefix("tokens-")?.split('-').next()?.parse().ok();
    Ok(names(folder)?.iter().filter_map(|name| Some((folder.join(name), vocab_size(name)?))).collect())
}

/// The documents as the manifest counts and hashes them.
fn check_documents(dataset: &Dataset) -> Result<Vec<Finding>, DataError> {
    let mut found = Vec::new();
    let mut all = blake3::Hasher::new();
    for domain in &dataset.manifest().domains {
        all.update(domain.name.as_bytes());
        for split in Split::ALL {
            let mut hash = blake3::Hasher::new();
            let mut size = TextSize::default();
            let read = read_documents(&documents_path(dataset.folder(), &domain.name, split), &mut |text| {
                hash.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
                size.documents += 1;
                size.bytes += text.len() as u64;
                Ok(())
            });
            let place = format!("{}.{}", domain.name, split.name());
            match read {
                Ok(()) if size == domain.size(split) => {}
                Ok(()) => found.push(finding(
                    place,
                    format!(
                        "{} documents of {} bytes, the manifest says {} of {}",
                        size.documents,
                        size.bytes,
                        domain.size(split).documents,
                        domain.size(split).bytes
                    ),
                )),
                Err(error) => found.push(finding(place, error.to_string())),
            }
            all.update(hash.finalize().as_bytes());
        }
    }
    if all.finalize().to_hex().as_str() != dataset.manifest().hash {
        found.push(finding("documents", "their text is not the one that the data set was made of"));
    }
    Ok(found)
}

fn check_shards(
    dataset: &Dataset,
    shards: &TokenShards,
    tokenizer: &Tokenizer,
    place: &str,
) -> Result<Vec<Finding>, DataError> {
    let mut found = Vec::new();
    let manifest = shards.manifest();
    if manifest.data_hash != dataset.manifest().hash {
        found.push(finding(place, "it was made of another data set"));
    }
    if manifest.tokenizer_hash != tokenizer.hash() {
        found.push(finding(place, "it was made with another tokenizer than the one beside it"));
    }
    if let Err(error) = shards.verify() {
        found.push(finding(place, error.to_string()));
    }
    for entry in &manifest.files {
        let place = format!("{place}/{}.{}", entry.domain, entry.split.name());
        let domain = dataset.manifest().domains.iter().find(|domain| domain.name == entry.domain);
        let size = domain.map_or(TextSize::default(), |domain| domain.size(entry.split));
        if (entry.documents, entry.bytes) != (size.documents, size.bytes) {
            found.push(finding(
                &*place,
                format!("{} bytes of text are said, the documents have {}", entry.bytes, size.bytes),
            ));
        }
        let Some(shard) = shards.shard(&entry.domain, entry.split) else { continue };
        let (mut bytes, mut tokens) = (0, Vec::new());
        for document in 0..shard.num_documents() {
            tokens.clear();
            shard.read(document, 0, shard.document_len(document), &mut tokens)?;
            let sizes = tokens.iter().map(|token| tokenizer.token_bytes().get(*token as usize).copied());
            bytes += sizes.map(|size| u64::from(size.unwrap_or(0))).sum::<u64>();
        }
        if bytes != size.bytes {
            found.push(finding(
                &*place,
                format!("its tokens are {bytes} bytes of text, the documents have {}", size.bytes),
            ));
        }
    }
    Ok(found)
}

/// Words of a passage, and the share of its passages that makes a held-out document a copy: PaLM's measure
/// (Chowdhery et al. 2022, arXiv 2204.02311, section 8), held against one training document at a time, because
/// licences and boilerplate share passages with everything.
const WORDS: usize = 8;
const COPIED: f64 = 0.7;
/// Held-out documents of fewer passages say too little.
const MIN_PASSAGES: usize = 8;
/// Passages looked for at most; of more, a sample by their hash.
const MAX_PASSAGES: usize = 4 << 20;

/// A held-out document: where it lies, and how many passages of it are looked for.
struct HeldOut {
    place: String,
    passages: usize,
}

/// Held-out documents of which most stands in one training document.
pub fn overlap(folder: &Path) -> Result<Vec<Finding>, DataError> {
    let dataset = Dataset::open(folder)?;
    let domains = &dataset.manifest().domains;
    let held_out_bytes: u64 = domains.iter().map(|it| it.search.bytes + it.sealed.bytes).sum();
    // A word and the space after it are six bytes or so.
    let every = (held_out_bytes / 6 / MAX_PASSAGES as u64).max(1);
    let (mut held_out, mut index) = (Vec::new(), HashMap::<u64, Vec<u32>>::new());
    for domain in domains {
        for split in [Split::Search, Split::Sealed] {
            let mut number = 0;
            each_document(&dataset, domain, split, &mut |text| {
                number += 1;
                let passages = passages(text, every);
                if passages.len() >= MIN_PASSAGES {
                    let idx = held_out.len() as u32;
                    let place = format!("{}.{}, document {number}", domain.name, split.name());
                    held_out.push(HeldOut { place, passages: passages.len() });
                    passages.into_iter().for_each(|passage| index.entry(passage).or_default().push(idx));
                }
            })?;
        }
    }
    let mut best: BTreeMap<u32, (usize, String)> = BTreeMap::new();
    for domain in domains {
        let mut number = 0;
        each_document(&dataset, domain, Split::Train, &mut |text| {
            number += 1;
            let mut shared: BTreeMap<u32, usize> = BTreeMap::new();
            for passage in passages(text, every) {
                for idx in index.get(&passage).into_iter().flatten() {
                    *shared.entry(*idx).or_default() += 1;
                }
            }
            for (idx, count) in shared {
                let is_copy = count as f64 >= COPIED * held_out[idx as usize].passages as f64;
                if is_copy && best.get(&idx).is_none_or(|(most, _)| count > *most) {
                    best.insert(idx, (count, format!("{}.train, document {number}", domain.name)));
                }
            }
        })?;
    }
    let named = best.into_iter().map(|(idx, (count, train))| {
        let HeldOut { place, passages } = &held_out[idx as usize];
        let share = 100.0 * count as f64 / *passages as f64;
        finding(place, format!("held-out text in training: {share:.0} % of it stands in {train}"))
    });
    Ok(named.collect())
}

fn each_document(
    dataset: &Dataset,
    domain: &DomainRecord,
    split: Split,
    each: &mut dyn FnMut(&str),
) -> Result<(), DataError> {
    for_each_batch(dataset, domain, split, &mut |batch| {
        batch.iter().for_each(|text| each(text));
        Ok(())
    })
}

/// Hashes of all runs of [`WORDS`] words, case and punctuation aside; of every so many, one.
fn passages(text: &str, every: u64) -> HashSet<u64> {
    let words: Vec<u64> = text.split_whitespace().map(word).filter(|word| *word != EMPTY).collect();
    let mix = |hash: u64, word: &u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hashes = words.windows(WORDS).map(|window| window.iter().fold(0, mix));
    // The low bits of a product are the weakest.
    hashes.filter(|hash| (hash >> 20).is_multiple_of(every)).collect()
}

/// FNV-1a of nothing.
const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

fn word(word: &str) -> u64 {
    let letters = word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase);
    letters.fold(EMPTY, |hash, c| (hash ^ u64::from(c)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_punctuation_and_spaces_make_no_other_passage() {
        let plain = passages("one two three four five six seven eight nine", 1);
        assert_eq!(plain.len(), 2);
        assert_eq!(plain, passages("One  two, three\nfour; FIVE six - seven eight nine.", 1));
        assert_ne!(plain, passages("one two three four five six seven nine eight", 1));
        assert!(passages("too short", 1).is_empty());
    }
}
