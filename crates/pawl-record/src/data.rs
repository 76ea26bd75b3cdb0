//! Data sets: where the text came from, how it is split, and the token files made of it.

use serde::{Deserialize, Serialize};

/// Which documents a piece of text belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// What models learn from.
    Train,
    /// Held out; its score is what a researcher sees.
    Search,
    /// Held out and never shown to a researcher.
    Sealed,
}

impl Split {
    /// All splits, in the order in which they are written.
    pub const ALL: [Self; 3] = [Self::Train, Self::Search, Self::Sealed];

    /// The name used in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Search => "search",
            Self::Sealed => "sealed",
        }
    }
}

/// Documents and UTF-8 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextSize {
    /// Number of documents.
    pub documents: u64,
    /// Their text, UTF-8 bytes.
    pub bytes: u64,
}

/// One domain of a data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRecord {
    /// Name, as a recipe's mixture says it.
    pub name: String,
    /// What models learn from.
    pub train: TextSize,
    /// What they are searched on.
    pub search: TextSize,
    /// What the final number is measured on.
    pub sealed: TextSize,
}

impl DomainRecord {
    /// The size of one split.
    pub fn size(&self, split: Split) -> TextSize {
        match split {
            Split::Train => self.train,
            Split::Search => self.search,
            Split::Sealed => self.sealed,
        }
    }
}

/// How the documents were divided.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum SplitRule {
    /// Whole documents by the BLAKE3 hash of their text: the smallest hashes are sealed, the next
    /// searched on.
    Hash,
    /// By position in the order of the input: train, then search, then sealed.
    Position {
        /// Share of the text that is held out, search and sealed together.
        held_out: f64,
        /// Share of the text that is sealed.
        sealed: f64,
    },
}

/// A crate whose text the binary carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusCrate {
    /// Crate name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its SPDX expression.
    pub licence: String,
    /// Documents kept.
    pub documents: u64,
    /// Bytes kept in the domain `code`.
    pub code_bytes: u64,
    /// Bytes kept in the domain `prose`.
    pub prose_bytes: u64,
}

/// Documents that cleaning left out, by reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusRefusal {
    /// Why.
    pub reason: String,
    /// How many.
    pub documents: u64,
    /// Their text, UTF-8 bytes.
    pub bytes: u64,
}

/// What the carried corpus is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusManifest {
    /// Crates by name, then newest version first.
    pub crates: Vec<CorpusCrate>,
    /// What was left out.
    pub refused: Vec<CorpusRefusal>,
}

/// Where a data set came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DataSource {
    /// Carried by the binary.
    Carried {
        /// The crates.
        corpus: CorpusManifest,
    },
    /// Read from files.
    Files {
        /// The files read, in order.
        files: Vec<SourceFile>,
        /// Files of a folder that were left out, and why.
        skipped: Vec<SkippedFile>,
    },
}

/// A file that was read into a data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// As it was found.
    pub path: String,
    /// Its size on disk.
    pub bytes: u64,
    /// Documents it gave.
    pub documents: u64,
}

/// A file of a folder that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedFile {
    /// As it was found.
    pub path: String,
    /// Why it is not text.
    pub reason: String,
}

/// `manifest.json` of a data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataManifest {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// Name in the lab.
    pub name: String,
    /// BLAKE3 over every document of every domain and its split, in order: 64 hex digits.
    pub hash: String,
    /// How held-out text was chosen.
    pub split: SplitRule,
    /// Domains by name.
    pub domains: Vec<DomainRecord>,
    /// Where the text came from.
    pub source: DataSource,
}

/// One token file: the documents of one domain and split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenFile {
    /// Domain.
    pub domain: String,
    /// Split.
    pub split: Split,
    /// Documents.
    pub documents: u64,
    /// Tokens, the BOS of each document not counted (it is not stored).
    pub tokens: u64,
    /// UTF-8 bytes of the text.
    pub bytes: u64,
    /// BLAKE3 of the token file.
    pub tokens_hash: String,
    /// BLAKE3 of the offsets file.
    pub offsets_hash: String,
}

/// `manifest.json` of a folder of token files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenManifest {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// Hash of the data set's manifest they were made of.
    pub data_hash: String,
    /// BLAKE3 of `tokenizer.json`.
    pub tokenizer_hash: String,
    /// Vocabulary size V, specials included.
    pub vocab_size: u64,
    /// Bytes of one stored token, little-endian: 2 or 4.
    pub token_width: u8,
    /// Files, by domain, then split.
    pub files: Vec<TokenFile>,
}
