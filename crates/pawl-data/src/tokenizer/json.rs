//! `tokenizer.json` in the form of the Hugging Face `tokenizers` library: a Split by our pattern, then
//! ByteLevel, then BPE.
//!
//! Reading accepts, of tokenizers with our pattern, what this file writes and nothing else; those with another
//! are read by `foreign.rs`, if it knows the pattern: an unknown splitter would silently give other tokens.

use super::split::PATTERN;
use super::train::Pair;
use super::{SPECIALS, Tokenizer};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

pub(super) fn to_json(tokenizer: &Tokenizer) -> String {
    let first_special = tokenizer.bos() as usize;
    let added: Vec<Value> = SPECIALS
        .iter()
        .enumerate()
        .map(|(idx, name)| {
            json!({"id": first_special + idx, "content": name, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let used = 256 + tokenizer.merges.len();
    let name = |token: usize| byte_level(&tokenizer.text[token]);
    let mut vocab: Map<String, Value> = (0..used).map(|token| (name(token), token.into())).collect();
    vocab.extend(
        SPECIALS.iter().enumerate().map(|(idx, name)| ((*name).to_owned(), (first_special + idx).into())),
    );
    let merges: Vec<Value> = tokenizer
        .merges
        .iter()
        .map(|&(left, right)| json!([name(left as usize), name(right as usize)]))
        .collect();
    let split =
        json!({"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": false});
    let bytes =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let document = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, bytes]},
        "post_processor": null,
        "decoder": bytes,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": false, "vocab": vocab, "merges": merges},
    });
    format!("{document:#}\n")
}

/// Errors say what differs from the form above.
pub(super) fn from_json(text: &str) -> Result<Tokenizer, String> {
    let document: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let pattern = &document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"];
    if pattern != PATTERN {
        return super::foreign::from_json(&document);
    }
    let vocab = document["model"]["vocab"].as_object().ok_or("it has no vocabulary")?;
    let id = |name: &str| vocab.get(name).and_then(Value::as_u64);
    let bos = id(SPECIALS[0]).ok_or("it has no BOS token")? as usize;

    let mut ids: HashMap<String, u32> =
        (0..=255_u8).map(|byte| (byte_level(&[byte]), u32::from(byte))).collect();
    let mut merges: Vec<Pair> = Vec::new();
    for merge in document["model"]["merges"].as_array().ok_or("it has no merges")? {
        let part = |idx: usize| merge[idx].as_str().and_then(|name| ids.get(name).copied());
        let (Some(left), Some(right)) = (part(0), part(1)) else {
            return Err(format!("merge {} is of unknown tokens", merges.len()));
        };
        let name = [merge[0].as_str(), merge[1].as_str()].map(Option::unwrap_or_default).concat();
        let token = 256 + merges.len();
        if id(&name) != Some(token as u64) || token >= bos {
            return Err(format!("the token of merge {} has an unexpected id", merges.len()));
        }
        ids.insert(name, token as u32);
        merges.push((left, right));
    }
    let tokenizer = Tokenizer::new(merges, bos + SPECIALS.len());
    let known = to_json(&tokenizer) == text;
    known.then_some(tokenizer).ok_or_else(|| "its text differs from what its merges give".to_owned())
}

/// The printable form of bytes that GPT-2 introduced: visible Latin-1 stands for itself, the other 68
/// bytes for U+0100 and up, in order.
pub(super) fn byte_level(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| byte_char(byte)).collect()
}

pub(super) fn byte_char(byte: u8) -> char {
    let hidden = match byte {
        0..=0x20 => u32::from(byte),
        0x7F..=0xA0 => u32::from(byte) - 0x7F + 0x21,
        0xAD => 0x43,
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => return char::from(byte),
    };
    char::from_u32(0x100 + hidden).expect("U+0100 to U+0143 are characters")
}
