//! Behaviour of the data crate, one module per concept.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod adding;
mod carried;
mod chatting;
mod cleaned;
#[allow(dead_code, reason = "the build script uses all of it, the tests most of it")]
#[path = "../../cleaning/mod.rs"]
mod cleaning;
mod foreign;
mod loading;
mod packing;
mod scoring;
mod tokenizing;

use pawl_data::{AddOptions, Dataset, TokenShards, Tokenizer};
use std::path::{Path, PathBuf};

/// Progress that nobody watches.
fn quiet(_: pawl_data::Progress) {}

/// Text of some English-like words, different for each seed.
fn babble(seed: u64, num_words: usize) -> String {
    const WORDS: [&str; 16] = [
        "the", "lab", "runs", "a", "trial", "and", "keeps", "what", "is", "better", "than", "noise", "over",
        "many", "paired", "seeds",
    ];
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = String::new();
    for idx in 0..num_words {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(WORDS[(state >> 60) as usize]);
        text.push_str(if idx % 12 == 11 { ".\n" } else { " " });
    }
    format!("{seed}: {text}")
}

/// Writes `documents` as JSONL files, one per domain, and adds them as the data set `name`.
fn add_domains(lab: &Path, name: &str, domains: &[(&str, &[String])]) -> Dataset {
    let mut paths = Vec::new();
    for (domain, documents) in domains {
        let lines: Vec<String> =
            documents.iter().map(|text| serde_json::json!({ "text": text }).to_string()).collect();
        let path = lab.join(format!("{name}-{domain}.jsonl"));
        std::fs::write(&path, lines.join("\n")).unwrap();
        paths.push(format!("{domain}={}", path.display()));
    }
    pawl_data::add(&lab.join("data").join(name), &paths, AddOptions::default(), &quiet).unwrap()
}

/// A data set of two domains with its token files.
struct Prepared {
    /// Removed when dropped.
    _lab: tempfile::TempDir,
    folder: PathBuf,
    tokenizer: Tokenizer,
    shards: TokenShards,
}

fn prepared() -> Prepared {
    let lab = tempfile::tempdir().unwrap();
    let left: Vec<String> = (0..120).map(|seed| babble(seed, 20 + (seed as usize * 37) % 300)).collect();
    let right: Vec<String> = (0..80).map(|seed| babble(seed + 1000, 500).to_uppercase()).collect();
    let dataset = add_domains(lab.path(), "two", &[("left", &left), ("right", &right)]);
    let folder = dataset.folder().to_path_buf();
    let tokenizer = pawl_data::tokenizer(&folder, 300, &quiet).unwrap();
    let shards = pawl_data::tokens(&folder, &tokenizer, &quiet).unwrap();
    Prepared { _lab: lab, folder, tokenizer, shards }
}
