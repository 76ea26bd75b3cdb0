//! Byte-level BPE of models from elsewhere: the `tokenizer.json` of Hugging Face and the vocabulary of GGUF
//! files, as far as their splitter is one of [`Splitter`].
//!
//! It refuses what would silently give other tokens: normalizers, unknown patterns, merges of unknown tokens.

use super::json::{byte_char, byte_level};
use super::split::Splitter;
use super::train::Pair;
use super::{SPECIALS, Tokenizer};
use crate::DataError;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::Path;

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Special tokens that end a text wherever a vocabulary has them, in the order of preference for a beginning too.
const ENDS: [&str; 4] = ["<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>"];

/// Ids without a token that a vocabulary may have, beside as many as it has tokens.
const MAX_GAP: u64 = 1 << 16;

/// What special tokens are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Begins every document.
    pub bos: u32,
    /// Each of them ends a text.
    pub ends: Vec<u32>,
    /// Whether a prompt is given a BOS.
    pub adds_bos: bool,
    /// Jinja text of the chat template.
    pub chat_template: Option<String>,
}

/// A vocabulary as files state it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vocabulary {
    /// Text of each token in the printable form of bytes; specials literally.
    pub tokens: Vec<String>,
    /// Whether each token is special.
    pub special: Vec<bool>,
    /// Left and right of each merge.
    pub merges: Vec<(String, String)>,
    /// Splitter by the name that GGUF files use: `gpt-2`, `smollm`, `llama-bpe`, `qwen2`.
    pub splitter: String,
    /// The declared BOS.
    pub bos: Option<u32>,
    /// The declared end.
    pub eos: Option<u32>,
    /// Whether prompts are given the BOS.
    pub adds_bos: bool,
    /// Jinja text of the chat template.
    pub chat_template: Option<String>,
}

impl Splitter {
    /// The name in GGUF files. Ours has none there: `llama-bpe` differs from it in digits and rare scripts alone.
    pub fn gguf_name(self) -> &'static str {
        match self {
            Splitter::Own | Splitter::Llama3 => "llama-bpe",
            Splitter::Gpt2 => "gpt-2",
            Splitter::SingleDigits => "smollm",
            Splitter::Qwen2 => "qwen2",
        }
    }

    fn from_gguf_name(name: &str) -> Option<Splitter> {
        match name {
            "gpt-2" | "gpt2" => Some(Splitter::Gpt2),
            "smollm" => Some(Splitter::SingleDigits),
            "llama-bpe" | "llama3" => Some(Splitter::Llama3),
            "qwen2" => Some(Splitter::Qwen2),
            _ => None,
        }
    }
}

impl Tokenizer {
    /// A tokenizer of the vocabulary of a file; errors say what cannot be read as it was meant.
    pub fn from_vocabulary(vocabulary: Vocabulary) -> Result<Tokenizer, String> {
        let splitter = Splitter::from_gguf_name(&vocabulary.splitter).ok_or_else(|| {
            let name = &vocabulary.splitter;
            format!("its splitter {name:?} is none of gpt-2, smollm, llama-bpe and qwen2")
        })?;
        build(vocabulary, splitter)
    }

    /// The vocabulary as files state it.
    pub fn vocabulary(&self) -> Vocabulary {
        let mut special: Vec<bool> = self.text.iter().map(|text| text.is_empty()).collect();
        let mut names: HashMap<u32, &str> = HashMap::new();
        for (name, id) in self.specials() {
            special[id as usize] = true;
            names.entry(id).or_insert(name);
        }
        let name = |id: u32| match names.get(&id) {
            Some(name) => (*name).to_string(),
            None => self.plain_name(id),
        };
        Vocabulary {
            tokens: (0..self.vocab_size() as u32).map(name).collect(),
            special,
            merges: self.merges().map(|(left, right, _)| (name(left), name(right))).collect(),
            splitter: self.splitter().gguf_name().to_string(),
            bos: Some(self.roles.bos),
            eos: self.roles.ends.first().copied(),
            adds_bos: self.roles.adds_bos,
            chat_template: self.roles.chat_template.clone(),
        }
    }

    /// The same with unused ids up to V = `vocab_size`, as a model whose table has more rows needs it.
    pub fn padded(mut self, vocab_size: usize) -> Tokenizer {
        for id in self.vocab_size()..vocab_size {
            let name = format!("[UNUSED{id}]");
            self.text.push(name.as_bytes().into());
            self.token_bytes.push(0);
            self.specials.push((name.into(), id as u32));
        }
        self
    }

    /// The text of a token in the form of files; unused ids get a name of their own.
    fn token_name(&self, id: u32) -> String {
        match self.specials.iter().find(|(_, special)| *special == id) {
            Some((name, _)) => name.to_string(),
            None => self.plain_name(id),
        }
    }

    /// The same of a token that is not special.
    fn plain_name(&self, id: u32) -> String {
        let text = &self.text[id as usize];
        if text.is_empty() { format!("[UNUSED{id}]") } else { byte_level(text) }
    }
}

fn build(vocabulary: Vocabulary, splitter: Splitter) -> Result<Tokenizer, String> {
    let Vocabulary { tokens, special, merges, bos, eos, adds_bos, chat_template, .. } = vocabulary;
    if tokens.len() != special.len() || tokens.is_empty() {
        return Err(format!("{} tokens with {} types", tokens.len(), special.len()));
    }
    let bytes_of: HashMap<char, u8> = (0..=255).map(|byte| (byte_char(byte), byte)).collect();
    let mut ids: HashMap<&str, u32> = HashMap::new();
    let (mut text, mut token_bytes, mut specials) = (Vec::new(), Vec::new(), Vec::new());
    for (id, (token, special)) in tokens.iter().zip(&special).enumerate() {
        let bytes: Option<Vec<u8>> = token.chars().map(|c| bytes_of.get(&c).copied()).collect();
        match bytes {
            Some(bytes) if !*special => {
                ids.insert(token, id as u32);
                token_bytes.push(bytes.len() as u32);
                text.push(bytes.into());
            }
            // A token that no bytes spell is never made by merges: a name like those of specials.
            Some(_) | None => {
                specials.push((Box::from(token.as_str()), id as u32));
                token_bytes.push(0);
                text.push(Box::from(token.as_bytes()));
            }
        }
    }
    let named = |name: &str| specials.iter().find(|(known, _)| **known == *name).map(|(_, id)| *id);
    let mut byte_ids = Vec::new();
    for byte in 0..=255 {
        let id = ids.get(byte_char(byte).to_string().as_str()).copied();
        // Bytes that valid UTF-8 never has, or that training never met, become what has no name.
        byte_ids
            .push(id.or(named("<|endoftext|>")).or(eos).ok_or(format!("it has no token for byte {byte}"))?);
    }
    let (mut pairs, mut merged): (Vec<Pair>, Vec<u32>) = Default::default();
    let mut ranks = HashMap::default();
    for (left, right) in &merges {
        let whole = format!("{left}{right}");
        let known = [left.as_str(), right, &whole].map(|part| ids.get(part).copied());
        let [Some(left), Some(right), Some(token)] = known else {
            return Err(format!("merge {} is of unknown tokens", pairs.len()));
        };
        ranks.entry((left, right)).or_insert(pairs.len() as u32);
        pairs.push((left, right));
        merged.push(token);
    }
    let known_ends = ENDS.iter().filter_map(|name| named(name));
    let mut ends: Vec<u32> = eos.into_iter().collect();
    known_ends.for_each(|id| {
        if !ends.contains(&id) {
            ends.push(id)
        }
    });
    let declared = bos.filter(|_| adds_bos);
    let begins = declared.or(named(ENDS[0])).or(bos).or(eos).unwrap_or(0);
    if let Some(wrong) = [bos, eos].into_iter().flatten().find(|id| *id as usize >= text.len()) {
        return Err(format!("special token {wrong} is beyond its {} tokens", text.len()));
    }
    let roles = Roles { bos: begins, ends, adds_bos, chat_template };
    let mut tokenizer = Tokenizer {
        merges: pairs,
        merged,
        byte_ids,
        ranks,
        text,
        token_bytes,
        specials,
        roles,
        splitter,
        hash: String::new(),
    };
    tokenizer.hash = blake3::hash(tokenizer.to_json().as_bytes()).to_hex().to_string();
    Ok(tokenizer)
}

pub(super) fn to_json(tokenizer: &Tokenizer) -> String {
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let sequence = |first: Value, last: Value| json!({"type": "Sequence", "pretokenizers": [first, last]});
    let pre_tokenizer = match tokenizer.splitter {
        Splitter::Own => unreachable!("json.rs writes ours"),
        Splitter::Gpt2 => byte_level(true),
        Splitter::SingleDigits => {
            sequence(json!({"type": "Digits", "individual_digits": true}), byte_level(true))
        }
        Splitter::Llama3 => sequence(split(LLAMA3), byte_level(false)),
        Splitter::Qwen2 => sequence(split(QWEN2), byte_level(false)),
    };
    let added: Vec<Value> = tokenizer
        .specials()
        .map(|(name, id)| {
            json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    let Vocabulary { tokens, merges, .. } = tokenizer.vocabulary();
    let vocab: Map<String, Value> = tokens.into_iter().enumerate().map(|(id, t)| (t, id.into())).collect();
    let merges: Vec<Value> = merges.into_iter().map(|(left, right)| json!([left, right])).collect();
    let document = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": byte_level(true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": false, "vocab": vocab, "merges": merges},
    });
    format!("{document:#}\n")
}

/// Errors say what this reader cannot honour.
pub(super) fn from_json(document: &Value) -> Result<Tokenizer, String> {
    let model = &document["model"];
    if model["type"].as_str().is_some_and(|kind| kind != "BPE") || !model["vocab"].is_object() {
        return Err("it is not a byte-pair encoding".to_owned());
    }
    if !document["normalizer"].is_null() {
        return Err(format!("it normalizes text ({})", document["normalizer"]["type"]));
    }
    if model["ignore_merges"] == true || model["byte_fallback"] == true {
        return Err("it ignores merges or falls back to bytes".to_owned());
    }
    let splitter = splitter_of(&document["pre_tokenizer"])?;
    let entries = model["vocab"].as_object().ok_or("it has no vocabulary")?.iter();
    let added = document["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    let added: Vec<(&str, u64)> =
        added.iter().filter_map(|token| token["content"].as_str().zip(token["id"].as_u64())).collect();
    let mut by_id: Vec<(u64, &str, bool)> = entries
        .map(|(token, id)| id.as_u64().map(|id| (id, token.as_str(), false)))
        .collect::<Option<_>>()
        .ok_or("an id of its vocabulary is no number")?;
    by_id.extend(added.iter().map(|(token, id)| (*id, *token, true)));
    let largest = by_id.iter().map(|(id, ..)| *id).max().ok_or("its vocabulary is empty")?;
    // Ids have gaps in some files, but not more of them than tokens.
    if largest >= MAX_GAP + 2 * by_id.len() as u64 {
        return Err(format!("one of its {} tokens has the id {largest}", by_id.len()));
    }
    let size = largest + 1;
    let unused = |id: u64| (format!("[UNUSED{id}]"), true);
    let mut tokens: Vec<(String, bool)> = (0..size).map(unused).collect();
    for (id, token, special) in by_id {
        tokens[id as usize] = (token.to_string(), special);
    }
    let mut merges = Vec::new();
    for merge in model["merges"].as_array().ok_or("it has no merges")? {
        let pair = match merge {
            Value::String(both) => both.split_once(' ').map(|(l, r)| (l.to_string(), r.to_string())),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                merge[0].as_str().zip(merge[1].as_str()).map(|(l, r)| (l.to_string(), r.to_string()))
            }
        };
        merges.push(pair.ok_or_else(|| format!("merge {} is no pair", merges.len()))?);
    }
    let (tokens, special) = tokens.into_iter().unzip();
    build(Vocabulary { tokens, special, merges, ..Vocabulary::default() }, splitter)
}

fn splitter_of(pre: &Value) -> Result<Splitter, String> {
    let unknown = || Err("it splits text by another pattern".to_owned());
    if pre["type"] == "ByteLevel" {
        let plain = pre["use_regex"] != false && pre["add_prefix_space"] != true;
        return if plain { Ok(Splitter::Gpt2) } else { unknown() };
    }
    let [first, last] = pre["pretokenizers"].as_array().map_or(&[][..], Vec::as_slice) else {
        return unknown();
    };
    if last["type"] != "ByteLevel" || last["add_prefix_space"] == true {
        return unknown();
    }
    let by_pattern = last["use_regex"] == false;
    match (first["type"].as_str(), first["pattern"]["Regex"].as_str()) {
        (Some("Digits"), _) if first["individual_digits"] == true && !by_pattern => {
            Ok(Splitter::SingleDigits)
        }
        (Some("Split"), Some(LLAMA3)) if by_pattern => Ok(Splitter::Llama3),
        (Some("Split"), Some(QWEN2)) if by_pattern => Ok(Splitter::Qwen2),
        _ => unknown(),
    }
}

/// `tokenizer_config.json`: which tokens begin and end a text, and the chat template.
pub(super) fn config(tokenizer: &Tokenizer) -> Value {
    let roles = &tokenizer.roles;
    let name = |id: &u32| tokenizer.token_name(*id);
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": name(&roles.bos),
        "eos_token": roles.ends.first().map(name),
        "add_bos_token": roles.adds_bos,
        "chat_template": roles.chat_template,
        "clean_up_tokenization_spaces": false,
    })
}

/// See [`Tokenizer::load_folder`].
pub(super) fn load_folder(folder: &Path) -> Result<Tokenizer, DataError> {
    let path = folder.join("tokenizer.json");
    let mut tokenizer = Tokenizer::load(&path)?;
    if tokenizer.splitter == Splitter::Own && tokenizer.special(SPECIALS[0]).is_some() {
        return Ok(tokenizer);
    }
    let beside = folder.join("tokenizer_config.json");
    if !beside.exists() {
        return Ok(tokenizer);
    }
    let config: Value = pawl_record::read_json(&beside)?;
    // A token is written as its name, or as an object that holds it.
    let named = |key: &str| {
        let value = &config[key];
        let name = value.as_str().or_else(|| value["content"].as_str())?;
        tokenizer.special(name)
    };
    let (bos, eos) = (named("bos_token"), named("eos_token"));
    let adds_bos = config["add_bos_token"] == true;
    let chat_template = match config["chat_template"].as_str() {
        Some(text) => Some(text.to_string()),
        None => std::fs::read_to_string(folder.join("chat_template.jinja")).ok(),
    };
    let begins = bos.filter(|_| adds_bos).or(tokenizer.special(ENDS[0])).or(bos).or(eos);
    let roles = &mut tokenizer.roles;
    roles.bos = begins.unwrap_or(roles.bos);
    if let Some(eos) = eos {
        roles.ends.retain(|id| *id != eos);
        roles.ends.insert(0, eos);
    }
    (roles.adds_bos, roles.chat_template) = (adds_bos, chat_template);
    Ok(tokenizer)
}
