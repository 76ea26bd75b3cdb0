//! Everything that can go wrong between a path and a batch, each with what happened and what to do.

use pawl_record::FileError;
use std::io;
use std::path::{Path, PathBuf};

/// A data set could not be read, made or used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A record could not be read or written.
    #[error(transparent)]
    Record(#[from] FileError),
    /// The operating system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried: "read", "write", ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A path given by the user matches nothing.
    #[error("{pattern} matches no file")]
    NoMatch {
        /// What was given.
        pattern: String,
    },
    /// A pattern is not a glob.
    #[error("{pattern} is not a valid pattern")]
    BadPattern {
        /// What was given.
        pattern: String,
        /// Where and why.
        source: glob::PatternError,
    },
    /// Nothing in the file.
    #[error("{path} holds no text")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Not text at all.
    #[error("{path} is a binary file: a zero byte at byte {byte}")]
    Binary {
        /// The file.
        path: PathBuf,
        /// Where, counted from 0.
        byte: u64,
    },
    /// Text, but not UTF-8.
    #[error("{path} is not UTF-8 text: line {line}")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
    },
    /// A compressed or columnar file ends too early or is damaged.
    #[error("{path} is damaged or truncated after {bytes} bytes of text")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Decompressed bytes that could be read.
        bytes: u64,
        /// Why.
        source: io::Error,
    },
    /// A line of a JSONL file is not JSON.
    #[error("{path}, line {line}: not a JSON object")]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
        /// Where in the line and why.
        source: serde_json::Error,
    },
    /// A line of a JSONL file does not end.
    #[error("{path}, line {line}: longer than any document")]
    LongLine {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
    },
    /// A JSON document has no text.
    #[error("{path}, line {line}: no string field `text` (fields: {found})")]
    NoTextField {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
        /// The fields it has.
        found: String,
    },
    /// A Parquet file has no text.
    #[error("{path}: no string column `text` (columns: {found})")]
    NoTextColumn {
        /// The file.
        path: PathBuf,
        /// The columns it has.
        found: String,
    },
    /// A Parquet file cannot be read.
    #[error("{path}: damaged Parquet file, after row {row}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Rows read before.
        row: u64,
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// The name of a data set cannot be a folder name.
    #[error("{name:?} cannot be the name of a data set")]
    BadName {
        /// What was given.
        name: String,
    },
    /// A data set of that name exists.
    #[error("the data set {name} exists")]
    Exists {
        /// Its name.
        name: String,
    },
    /// There is no data set of that name.
    #[error("there is no data set in {folder}")]
    Missing {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// A share given by the user is not one.
    #[error("{what} = {value} is not a share between 0 and {limit}")]
    BadShare {
        /// Which option.
        what: &'static str,
        /// What was given.
        value: f64,
        /// The largest share allowed.
        limit: f64,
    },
    /// Too little text to hold any of it out.
    #[error("{bytes} bytes of text are too few to train and to hold out from")]
    TooSmall {
        /// UTF-8 bytes of text found.
        bytes: u64,
    },
    /// A vocabulary cannot hold the bytes and the specials, or not be stored.
    #[error("a vocabulary of {asked} is not possible")]
    VocabSize {
        /// What was asked for.
        asked: usize,
    },
    /// A `tokenizer.json` that this crate did not write.
    #[error("{path} is not a tokenizer of pawl: {reason}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// A file of the data set is not what its manifest says.
    #[error("{path} is damaged: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// A mixture names a domain that the data set has not.
    #[error("the mixture names the domain {name}, but the data set has {known}")]
    UnknownDomain {
        /// As the recipe says it.
        name: String,
        /// The domains there are.
        known: String,
    },
    /// A mixture weight is not a positive number, or none is.
    #[error("the mixture gives {name} the weight {weight}")]
    BadWeight {
        /// Domain.
        name: String,
        /// Its weight.
        weight: f64,
    },
    /// A domain is too small for one row of a batch.
    #[error("the domain {name} has {tokens} tokens to train on, fewer than one row of {row} tokens")]
    TooFewTokens {
        /// Domain.
        name: String,
        /// What it has, BOS included.
        tokens: u64,
        /// What a row takes.
        row: u64,
    },
}

impl DataError {
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }

    /// What the user can do about it, when there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Record(_) | Self::Io { .. } | Self::BadPattern { .. } => None,
            Self::NoMatch { .. } => {
                Some("check the spelling; quote a pattern so that the shell leaves it alone")
            }
            Self::Empty { .. } => Some("leave it out"),
            Self::Binary { .. } => {
                Some("give text, .jsonl or .parquet files; compressed ones must end in .gz or .zst")
            }
            Self::NotUtf8 { .. } => Some("convert it first, for example with iconv -f latin1 -t utf-8"),
            Self::Damaged { .. } | Self::Parquet { .. } => Some("download or compress it again"),
            Self::Json { .. } | Self::LongLine { .. } => Some("a .jsonl file holds one JSON object per line"),
            Self::NoTextField { .. } | Self::NoTextColumn { .. } => {
                Some("rename the field that holds the text")
            }
            Self::BadName { .. } => Some("use letters, digits, '-' and '_'; `crates` is the carried corpus"),
            Self::Exists { .. } => Some("choose another name, or delete its folder first"),
            Self::Missing { .. } => Some("see `pawl data list`; make one with `pawl data add NAME PATH...`"),
            Self::BadShare { .. } => Some("0.1 holds out the last tenth"),
            Self::TooSmall { .. } => Some("give at least a few kilobytes of text"),
            Self::VocabSize { .. } => Some("choose between 265 (256 bytes and 9 specials) and 1000000"),
            Self::Tokenizer { .. } => Some("delete it: it is made again from the data set"),
            Self::Corrupt { .. } => Some("delete its folder: it is made again from the documents"),
            Self::UnknownDomain { .. } => Some("an empty mixture takes every domain by its size"),
            Self::BadWeight { .. } => Some("weights are positive and relative to each other"),
            Self::TooFewTokens { .. } => Some("lower seq_len, or add text"),
        }
    }
}
