//! Byte-level BPE: our own, learnt from a data set and saved as the `tokenizer.json` that others read, and
//! that of a model from elsewhere (`foreign.rs`).
//!
//! Our own token ids: 0..256 are the bytes, then the merges in the order they were learnt, and the
//! [`SPECIALS`] are the last nine. When the text has no pair left that occurs twice, the ids between
//! the last merge and the specials stay unused, so that V is always what was asked for. Text is
//! always encoded without interpreting the names of specials in it: a document cannot forge a BOS.

mod encode;
mod foreign;
mod json;
pub(crate) mod split;
mod stream;
pub(crate) mod train;

pub use encode::Encoder;
pub use foreign::{Roles, Vocabulary};
pub use split::{Splitter, Words, words};
pub use stream::TextStream;

use crate::{DataError, OnProgress, Progress, Stage};
use std::collections::HashMap;
use std::path::Path;
use train::{FastHash, Pair, WordCounts};

/// Special tokens, in the order of their ids.
pub const SPECIALS: [&str; 9] = [
    "<|bos|>",
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
];

/// The smallest V: every byte and every special.
pub const MIN_VOCAB_SIZE: usize = 256 + SPECIALS.len();
const MAX_VOCAB_SIZE: usize = 1_000_000;

/// A byte-level BPE tokenizer.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    merges: Vec<Pair>,
    /// The token that each merge makes.
    merged: Vec<u32>,
    /// The token of each byte.
    byte_ids: Vec<u32>,
    ranks: HashMap<Pair, u32, FastHash>,
    /// The bytes of each token, for specials those of their name, for unused ids none.
    text: Vec<Box<[u8]>>,
    token_bytes: Vec<u32>,
    /// Name and id of each token that text never gives.
    specials: Vec<(Box<str>, u32)>,
    roles: Roles,
    splitter: Splitter,
    hash: String,
}

impl Tokenizer {
    /// Learns a vocabulary of `vocab_size` from counted words.
    pub(crate) fn learn(
        counts: &WordCounts,
        vocab_size: usize,
        progress: OnProgress<'_>,
    ) -> Result<Self, DataError> {
        check_vocab_size(vocab_size)?;
        let total = vocab_size - MIN_VOCAB_SIZE;
        progress(Progress { stage: Stage::Merge, done: 0, total: total as u64 });
        let merges = train::learn_merges(counts, total);
        progress(Progress { stage: Stage::Merge, done: total as u64, total: total as u64 });
        Ok(Self::new(merges, vocab_size))
    }

    /// Learns a vocabulary of `vocab_size` from `documents`. The result does not depend on `threads`.
    pub fn train(documents: &[String], vocab_size: usize, threads: usize) -> Result<Self, DataError> {
        Self::learn(&train::count_words(documents, threads), vocab_size, &|_| ())
    }

    fn new(merges: Vec<Pair>, vocab_size: usize) -> Self {
        assert!(merges.len() + MIN_VOCAB_SIZE <= vocab_size, "{} merges, V = {vocab_size}", merges.len());
        let mut text: Vec<Box<[u8]>> = (0..=255).map(|byte| Box::from([byte])).collect();
        for &(left, right) in &merges {
            text.push([&*text[left as usize], &*text[right as usize]].concat().into());
        }
        text.resize(vocab_size - SPECIALS.len(), Box::from([]));
        let mut token_bytes: Vec<u32> = text.iter().map(|bytes| bytes.len() as u32).collect();
        text.extend(SPECIALS.iter().map(|name| Box::from(name.as_bytes())));
        token_bytes.resize(vocab_size, 0);
        let ranks = merges.iter().enumerate().map(|(rank, &pair)| (pair, rank as u32)).collect();
        let first = (vocab_size - SPECIALS.len()) as u32;
        let specials = SPECIALS.iter().zip(first..).map(|(name, id)| (Box::from(*name), id)).collect();
        let mut tokenizer = Self {
            merged: (256..256 + merges.len() as u32).collect(),
            byte_ids: (0..256).collect(),
            merges,
            ranks,
            text,
            token_bytes,
            specials,
            roles: Roles { bos: first, ends: vec![first], adds_bos: true, chat_template: None },
            splitter: Splitter::Own,
            hash: String::new(),
        };
        tokenizer.hash = blake3::hash(tokenizer.to_json().as_bytes()).to_hex().to_string();
        tokenizer
    }

    /// Reads the `tokenizer.json` that [`Tokenizer::save`] wrote.
    pub fn load(path: &Path) -> Result<Self, DataError> {
        let text = std::fs::read_to_string(path).map_err(DataError::io("read", path))?;
        json::from_json(&text).map_err(|reason| DataError::Tokenizer { path: path.to_path_buf(), reason })
    }

    /// Reads `tokenizer.json` of a folder in the form of Hugging Face, and what `tokenizer_config.json` beside
    /// it says of the roles of special tokens.
    pub fn load_folder(folder: &Path) -> Result<Self, DataError> {
        foreign::load_folder(folder)
    }

    /// Writes what [`Tokenizer::load_folder`] reads.
    pub fn save_folder(&self, folder: &Path) -> Result<(), DataError> {
        self.save(&folder.join("tokenizer.json"))?;
        Ok(pawl_record::write_json(&folder.join("tokenizer_config.json"), &foreign::config(self))?)
    }

    /// Writes `tokenizer.json` in the form of the Hugging Face `tokenizers` library, atomically.
    pub fn save(&self, path: &Path) -> Result<(), DataError> {
        Ok(pawl_record::write_atomic(path, self.to_json().as_bytes())?)
    }

    /// The text of `tokenizer.json`.
    pub fn to_json(&self) -> String {
        match self.splitter {
            Splitter::Own => json::to_json(self),
            Splitter::Gpt2 | Splitter::SingleDigits | Splitter::Llama3 | Splitter::Qwen2 => {
                foreign::to_json(self)
            }
        }
    }

    /// V, specials and unused ids included.
    pub fn vocab_size(&self) -> usize {
        self.text.len()
    }

    /// Merges learnt; `vocab_size` less 265 unless the text ran out of pairs.
    pub fn num_merges(&self) -> usize {
        self.merges.len()
    }

    /// The token that begins every document.
    pub fn bos(&self) -> u32 {
        self.roles.bos
    }

    /// What special tokens are for.
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// The same for a model that was taught to talk in our format: with its template, and an answer's end ending texts.
    pub fn with_chat(mut self) -> Tokenizer {
        if let Some(end) = self.special("<|assistant_end|>") {
            self.roles.chat_template = Some(crate::CHAT_TEMPLATE.to_string());
            self.roles.ends.insert(0, end);
        }
        self
    }

    /// How text is cut into words.
    pub fn splitter(&self) -> Splitter {
        self.splitter
    }

    /// The id of a special token such as those of [`SPECIALS`].
    pub fn special(&self, name: &str) -> Option<u32> {
        self.specials.iter().find(|(special, _)| **special == *name).map(|(_, id)| *id)
    }

    /// Name and id of each special token.
    pub fn specials(&self) -> impl Iterator<Item = (&str, u32)> {
        self.specials.iter().map(|(name, id)| (&**name, *id))
    }

    /// The two tokens that each merge joins, and the one it makes, in order.
    pub fn merges(&self) -> impl Iterator<Item = (u32, u32, u32)> {
        self.merges.iter().zip(&self.merged).map(|((left, right), merged)| (*left, *right, *merged))
    }

    /// UTF-8 bytes of each token, (V); 0 for specials and unused ids, which bits per byte excludes.
    pub fn token_bytes(&self) -> &[u32] {
        &self.token_bytes
    }

    /// BLAKE3 of `tokenizer.json`, 64 hex digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Tokens of `text`, without BOS. For many texts an [`Encoder`] is faster.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut tokens = Vec::new();
        Encoder::new(self).encode_into(text, &mut tokens);
        tokens
    }

    /// Tokens of a text to be continued: BOS first where the model expects one, and where there is nothing else.
    pub fn prompt(&self, text: &str) -> Vec<u32> {
        let mut tokens = self.encode(text);
        if self.roles.adds_bos || tokens.is_empty() {
            tokens.insert(0, self.roles.bos);
        }
        tokens
    }

    /// The bytes that `tokens` stand for; specials give their names.
    ///
    /// # Panics
    /// When a token is not below V.
    pub fn decode_bytes(&self, tokens: &[u32]) -> Vec<u8> {
        tokens.iter().flat_map(|&token| self.text[token as usize].iter().copied()).collect()
    }

    /// The text that `tokens` stand for; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        String::from_utf8_lossy(&self.decode_bytes(tokens)).into_owned()
    }
}

/// Refuses a V that cannot be.
pub(crate) fn check_vocab_size(asked: usize) -> Result<(), DataError> {
    if (MIN_VOCAB_SIZE..=MAX_VOCAB_SIZE).contains(&asked) {
        Ok(())
    } else {
        Err(DataError::VocabSize { asked })
    }
}
