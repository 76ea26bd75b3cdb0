//! Data made ready for a recipe before it is used: the carried corpus on first use, the tokenizer of
//! the recipe's vocabulary, the token files. Each is made once a lab.

use crate::errors::Failure;
use crate::lab::{data_folder, from_data};
use crate::output::bytes;
use crate::progress::DataProgress;
use pawl_data::Dataset;
use pawl_record::{DomainRecord, Split};
use pawl_train::PreparedData;
use std::path::Path;

/// Opens the data set `name` of the lab, making what is missing, with progress on stderr.
pub(crate) fn prepare(
    lab: &Path,
    name: &str,
    vocab_size: usize,
    quiet: bool,
) -> Result<PreparedData, Failure> {
    let progress = DataProgress::new(quiet);
    pawl_train::prepare(lab, name, vocab_size, &|at| progress.show(at)).map_err(from_data)
}

/// `crates  31.4 MB: code 24.1 MB, prose 7.3 MB to train on   tokenizer 4096, 2.90 bytes a token`
pub(crate) fn describe(lab: &Path, data: &PreparedData) -> Result<String, Failure> {
    let dataset = Dataset::open(&data_folder(lab, &data.reference.name)).map_err(from_data)?;
    let domains = &dataset.manifest().domains;
    let size = |domain: &DomainRecord| Split::ALL.iter().map(|split| domain.size(*split).bytes).sum::<u64>();
    let total: u64 = domains.iter().map(size).sum();
    let domains = domains.iter().map(|domain| format!("{} {}", domain.name, bytes(domain.train.bytes)));
    let train = data.shards.manifest().files.iter().filter(|file| file.split == Split::Train);
    let (tokens, text) = train.fold((0, 0), |(tokens, text), file| (tokens + file.tokens, text + file.bytes));
    Ok(format!(
        "{}  {}: {} to train on   tokenizer {}, {:.2} bytes a token",
        data.reference.name,
        bytes(total),
        domains.collect::<Vec<_>>().join(", "),
        data.tokenizer.vocab_size(),
        text as f64 / tokens.max(1) as f64,
    ))
}
