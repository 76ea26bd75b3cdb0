//! The corpus that the binary carries, as the build script left it.

use pawl_record::CorpusManifest;
use serde::Deserialize;
use std::io::{BufRead, BufReader};

const DOCUMENTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/corpus.jsonl.zst"));
const MANIFEST: &str = include_str!(concat!(env!("OUT_DIR"), "/corpus.json"));

/// A carried document.
#[derive(Debug, Deserialize)]
pub(crate) struct CarriedDocument {
    pub(crate) domain: String,
    pub(crate) text: String,
}

/// Crates, versions, licences and sizes of the carried corpus.
pub fn carried_corpus() -> CorpusManifest {
    serde_json::from_str(MANIFEST).expect("the build script writes a valid manifest")
}

/// The carried documents, in their fixed order.
pub(crate) fn carried_documents() -> impl Iterator<Item = CarriedDocument> {
    let reader = zstd::Decoder::new(DOCUMENTS).expect("a decoder of a slice cannot fail to start");
    BufReader::with_capacity(1 << 20, reader).lines().map(|line| {
        let line = line.expect("the carried corpus is part of the binary and whole");
        serde_json::from_str(&line).expect("the build script writes one document per line")
    })
}
