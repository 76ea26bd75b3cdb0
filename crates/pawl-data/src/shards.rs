//! Token files: per domain and split the tokens of all documents in a row, and where each begins.
//!
//! `DOMAIN.SPLIT.tokens` holds u16 or u32 little-endian, `DOMAIN.SPLIT.offsets` one u64 more than there
//! are documents. BOS is not stored: a reader puts it before each document. Files are read by position
//! through the page cache, which is shared by all trials; a file that shrinks under us is an error,
//! not a signal.

use crate::dataset::{Dataset, for_each_batch, num_threads};
use crate::store::documents_path;
use crate::{DataError, Encoder, OnProgress, Progress, Stage, Tokenizer};
use pawl_record::{DomainRecord, Split, TokenFile, TokenManifest, read_json, write_json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The token files of one data set and one tokenizer.
#[derive(Clone, Debug)]
pub struct TokenShards {
    folder: PathBuf,
    manifest: TokenManifest,
    bos: u32,
    shards: BTreeMap<(String, Split), Arc<Shard>>,
}

/// The documents of one domain and split as tokens.
#[derive(Debug)]
pub(crate) struct Shard {
    path: PathBuf,
    file: File,
    token_width: usize,
    bos: u32,
    /// (documents + 1) in tokens.
    offsets: Vec<u64>,
    /// UTF-8 bytes of the text.
    pub(crate) bytes: u64,
}

impl TokenShards {
    /// Opens the token files in `folder` and checks their sizes. [`TokenShards::verify`] checks every byte.
    pub(crate) fn open(folder: &Path, bos: u32) -> Result<Self, DataError> {
        let manifest: TokenManifest = read_json(&folder.join("manifest.json"))?;
        let mut shards = BTreeMap::new();
        for entry in &manifest.files {
            let shard = Shard::open(folder, entry, usize::from(manifest.token_width), bos)?;
            shards.insert((entry.domain.clone(), entry.split), Arc::new(shard));
        }
        Ok(Self { folder: folder.to_path_buf(), manifest, bos, shards })
    }

    /// Sizes and hashes.
    pub fn manifest(&self) -> &TokenManifest {
        &self.manifest
    }

    /// Domains, by name.
    pub fn domains(&self) -> Vec<&str> {
        self.shards
            .keys()
            .filter(|(_, split)| *split == Split::Train)
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// V of the tokenizer they were made with.
    pub fn vocab_size(&self) -> usize {
        self.manifest.vocab_size as usize
    }

    /// The token before each document.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// Tokens of the train split of `domain`, BOS of each document included; 0 for an unknown domain.
    pub fn train_tokens(&self, domain: &str) -> u64 {
        self.shard(domain, Split::Train).map_or(0, |shard| shard.num_tokens())
    }

    /// Reads every file and compares it with its hash.
    pub fn verify(&self) -> Result<(), DataError> {
        for entry in &self.manifest.files {
            for (suffix, expected) in [("tokens", &entry.tokens_hash), ("offsets", &entry.offsets_hash)] {
                let path = shard_path(&self.folder, &entry.domain, entry.split, suffix);
                let file = File::open(&path).map_err(DataError::io("read", &path))?;
                let mut hash = blake3::Hasher::new();
                hash.update_reader(file).map_err(DataError::io("read", &path))?;
                if hash.finalize().to_hex().as_str() != expected.as_str() {
                    return Err(DataError::Corrupt {
                        path,
                        reason: "its hash is not that of the manifest".into(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Not public: the sealed split has one door, and it is not this one.
    pub(crate) fn shard(&self, domain: &str, split: Split) -> Option<&Arc<Shard>> {
        self.shards.get(&(domain.to_owned(), split))
    }
}

fn shard_path(folder: &Path, domain: &str, split: Split, suffix: &str) -> PathBuf {
    folder.join(format!("{domain}.{}.{suffix}", split.name()))
}

impl Shard {
    fn open(folder: &Path, entry: &TokenFile, token_width: usize, bos: u32) -> Result<Self, DataError> {
        let path = shard_path(folder, &entry.domain, entry.split, "offsets");
        let mut bytes = Vec::new();
        let mut file = File::open(&path).map_err(DataError::io("read", &path))?;
        file.read_to_end(&mut bytes).map_err(DataError::io("read", &path))?;
        let offsets: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|chunk| u64::from_le_bytes(chunk.try_into().expect("chunks have 8 bytes")))
            .collect();
        if offsets.len() as u64 != entry.documents + 1 || offsets.last() != Some(&entry.tokens) {
            return Err(DataError::Corrupt {
                path,
                reason: "it does not list the documents of the manifest".into(),
            });
        }
        let path = shard_path(folder, &entry.domain, entry.split, "tokens");
        let file = File::open(&path).map_err(DataError::io("read", &path))?;
        let len = file.metadata().map_err(DataError::io("read", &path))?.len();
        let expected = entry.tokens * token_width as u64;
        if len != expected {
            let reason = format!("it has {len} bytes where the manifest says {expected}");
            return Err(DataError::Corrupt { path, reason });
        }
        Ok(Self { path, file, token_width, bos, offsets, bytes: entry.bytes })
    }

    pub(crate) fn num_documents(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Tokens, BOS of each document included.
    pub(crate) fn num_tokens(&self) -> u64 {
        self.offsets[self.num_documents()] + self.num_documents() as u64
    }

    /// Tokens of one document, its BOS included.
    pub(crate) fn document_len(&self, document: usize) -> usize {
        (self.offsets[document + 1] - self.offsets[document]) as usize + 1
    }

    /// Appends tokens `start..start + len` of one document to `tokens`; token 0 is its BOS.
    pub(crate) fn read(
        &self,
        document: usize,
        start: usize,
        len: usize,
        tokens: &mut Vec<i32>,
    ) -> Result<(), DataError> {
        assert!(start + len <= self.document_len(document), "{start} + {len} in document {document}");
        let stored = if start == 0 && len > 0 {
            tokens.push(self.bos as i32);
            self.offsets[document]..self.offsets[document] + len as u64 - 1
        } else {
            let first = self.offsets[document] + start as u64 - 1;
            first..first + len as u64
        };
        let mut bytes = vec![0; (stored.end - stored.start) as usize * self.token_width];
        read_exact_at(&self.file, &mut bytes, stored.start * self.token_width as u64)
            .map_err(DataError::io("read", &self.path))?;
        let token =
            |chunk: &[u8]| chunk.iter().rev().fold(0_i32, |token, &byte| token << 8 | i32::from(byte));
        tokens.extend(bytes.chunks_exact(self.token_width).map(token));
        Ok(())
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, bytes, offset)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[read..];
        offset += read as u64;
    }
    Ok(())
}

/// Encodes every document of `dataset` into `folder`.
pub(crate) fn write_shards(
    dataset: &Dataset,
    tokenizer: &Tokenizer,
    folder: &Path,
    progress: OnProgress<'_>,
) -> Result<(), DataError> {
    let domains = &dataset.manifest().domains;
    let token_width = if tokenizer.vocab_size() <= 1 << 16 { 2 } else { 4 };
    let total = domains.iter().flat_map(|domain| Split::ALL.map(|split| domain.size(split).bytes)).sum();
    let mut encoders: Vec<Encoder<'_>> = (0..num_threads()).map(|_| Encoder::new(tokenizer)).collect();
    let mut files = Vec::new();
    let mut done = 0;
    for domain in domains {
        for split in Split::ALL {
            let mut writer = ShardWriter::create(folder, &domain.name, split, token_width)?;
            for_each_batch(dataset, domain, split, &mut |batch| {
                for (text, tokens) in batch.iter().zip(encode_all(batch, &mut encoders)) {
                    writer.push(&tokens)?;
                    done += text.len() as u64;
                }
                progress(Progress { stage: Stage::Encode, done, total });
                Ok(())
            })?;
            files.push(writer.finish(
                domain,
                split,
                &documents_path(dataset.folder(), &domain.name, split),
            )?);
        }
    }
    let manifest = TokenManifest {
        schema: pawl_record::SCHEMA,
        data_hash: dataset.manifest().hash.clone(),
        tokenizer_hash: tokenizer.hash().to_owned(),
        vocab_size: tokenizer.vocab_size() as u64,
        token_width: token_width as u8,
        files,
    };
    Ok(write_json(&folder.join("manifest.json"), &manifest)?)
}

/// The tokens of each text, in order, one thread per encoder.
fn encode_all(texts: &[String], encoders: &mut [Encoder<'_>]) -> Vec<Vec<u32>> {
    let next = &AtomicUsize::new(0);
    let mut results: Vec<Vec<u32>> = vec![Vec::new(); texts.len()];
    std::thread::scope(|scope| {
        let workers: Vec<_> = encoders
            .iter_mut()
            .map(|encoder| {
                scope.spawn(move || {
                    let mut encoded = Vec::new();
                    loop {
                        let idx = next.fetch_add(1, Ordering::Relaxed);
                        let Some(text) = texts.get(idx) else { return encoded };
                        let mut tokens = Vec::with_capacity(text.len() / 2);
                        encoder.encode_into(text, &mut tokens);
                        encoded.push((idx, tokens));
                    }
                })
            })
            .collect();
        for worker in workers {
            for (idx, tokens) in worker.join().expect("encoding does not panic") {
                results[idx] = tokens;
            }
        }
    });
    results
}

struct ShardWriter {
    tokens: HashedFile,
    token_width: usize,
    offsets: Vec<u64>,
    offsets_path: PathBuf,
}

impl ShardWriter {
    fn create(folder: &Path, domain: &str, split: Split, token_width: usize) -> Result<Self, DataError> {
        let tokens = HashedFile::create(shard_path(folder, domain, split, "tokens"))?;
        let offsets_path = shard_path(folder, domain, split, "offsets");
        Ok(Self { tokens, token_width, offsets: vec![0], offsets_path })
    }

    fn push(&mut self, tokens: &[u32]) -> Result<(), DataError> {
        let width = self.token_width;
        let bytes: Vec<u8> =
            tokens.iter().flat_map(|token| token.to_le_bytes().into_iter().take(width)).collect();
        self.offsets.push(self.offsets[self.offsets.len() - 1] + tokens.len() as u64);
        self.tokens.write(&bytes)
    }

    fn finish(self, domain: &DomainRecord, split: Split, documents: &Path) -> Result<TokenFile, DataError> {
        let mut offsets_file = HashedFile::create(self.offsets_path)?;
        for offset in &self.offsets {
            offsets_file.write(&offset.to_le_bytes())?;
        }
        let size = domain.size(split);
        let found = self.offsets.len() as u64 - 1;
        if found != size.documents {
            let reason = format!("it has {found} documents where the manifest says {}", size.documents);
            return Err(DataError::Corrupt { path: documents.to_path_buf(), reason });
        }
        Ok(TokenFile {
            domain: domain.name.clone(),
            split,
            documents: size.documents,
            tokens: self.offsets[self.offsets.len() - 1],
            bytes: size.bytes,
            tokens_hash: self.tokens.finish()?,
            offsets_hash: offsets_file.finish()?,
        })
    }
}

struct HashedFile {
    path: PathBuf,
    file: BufWriter<File>,
    hash: blake3::Hasher,
}

impl HashedFile {
    fn create(path: PathBuf) -> Result<Self, DataError> {
        let file = File::create(&path).map_err(DataError::io("create", &path))?;
        Ok(Self { path, file: BufWriter::with_capacity(1 << 18, file), hash: blake3::Hasher::new() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.hash.update(bytes);
        self.file.write_all(bytes).map_err(DataError::io("write", &self.path))
    }

    fn finish(self) -> Result<String, DataError> {
        let io = DataError::io("write", &self.path);
        let file = self.file.into_inner().map_err(|error| io(error.into_error()))?;
        file.sync_all().map_err(&io)?;
        Ok(self.hash.finalize().to_hex().to_string())
    }
}
