//! `pawl data add|list|show`: text into the lab, and what is there.

use crate::args::{BUILTIN_DATA, Data, DataAdd, DataList, DataShow};
use crate::errors::Failure;
use crate::lab::{data_folder, from_data};
use crate::output::{Align, Answer, Block, Table, bytes, count};
use crate::progress::DataProgress;
use pawl_data::{AddOptions, Dataset, Finding};
use pawl_record::{DataManifest, DataSource, DomainRecord, Split, SplitRule, TextSize};
use serde_json::{Value, json};

pub(crate) fn run(data: Data) -> Result<Answer, Failure> {
    match data {
        Data::Add(args) => add(&args),
        Data::List(args) => list(&args),
        Data::Show(args) => show(&args),
        Data::Check(args) => check(&args),
    }
}

fn add(args: &DataAdd) -> Result<Answer, Failure> {
    let progress = DataProgress::new(args.place.json);
    let folder = data_folder(&args.place.lab, &args.name);
    let options = AddOptions { held_out: args.held_out, sealed: args.sealed };
    let dataset = pawl_data::add(&folder, &args.paths, options, &|at| progress.show(at));
    let dataset = dataset.map_err(from_data)?;
    drop(progress);
    let overlap = pawl_data::overlap(&folder).map_err(from_data)?;
    let mut answer = describe(dataset.manifest());
    answer.text += &match overlap.len() {
        0 => "overlap: no held-out document stands in the training text\n".to_string(),
        n => format!(
            "overlap: {n} held-out documents stand in the training text: pawl data check {}\n",
            args.name
        ),
    };
    answer.json.insert("overlap".to_string(), findings(&overlap));
    Ok(answer)
}

fn check(args: &DataShow) -> Result<Answer, Failure> {
    let folder = data_folder(&args.place.lab, &args.name);
    let progress = DataProgress::new(args.place.json);
    let found = pawl_data::check(&folder, &|at| progress.show(at)).map_err(from_data)?;
    drop(progress);
    let mut text: String = found.iter().map(|it| format!("{}: {}\n", it.place, it.what)).collect();
    text += &match found.len() {
        0 => format!("checked: {}, nothing differs\n", args.name),
        n => format!("checked: {}, {n} differences\n", args.name),
    };
    Ok(Answer::of(found.is_empty(), text, json!({ "data": args.name, "findings": findings(&found) })))
}

fn findings(found: &[Finding]) -> Value {
    found.iter().map(|it| json!({ "place": it.place, "what": it.what })).collect()
}

fn show(args: &DataShow) -> Result<Answer, Failure> {
    let folder = data_folder(&args.place.lab, &args.name);
    let dataset = if args.name == BUILTIN_DATA {
        let progress = DataProgress::new(args.place.json);
        pawl_data::ensure_builtin(&folder, &|at| progress.show(at))
    } else {
        Dataset::open(&folder)
    };
    Ok(describe(dataset.map_err(from_data)?.manifest()))
}

fn list(args: &DataList) -> Result<Answer, Failure> {
    let manifests = pawl_data::list(&args.place.lab.join("data")).map_err(from_data)?;
    let mut table = Table::new(&[
        ("name", Align::Left),
        ("domains", Align::Left),
        ("documents", Align::Right),
        ("train", Align::Right),
        ("search", Align::Right),
        ("sealed", Align::Right),
        ("from", Align::Left),
    ]);
    for manifest in &manifests {
        let size = |split| total(&manifest.domains, split);
        let documents: u64 = Split::ALL.iter().map(|split| size(*split).documents).sum();
        let domains: Vec<&str> = manifest.domains.iter().map(|domain| domain.name.as_str()).collect();
        table.row(vec![
            manifest.name.clone(),
            domains.join(", "),
            count(documents as f64),
            bytes(size(Split::Train).bytes),
            bytes(size(Split::Search).bytes),
            bytes(size(Split::Sealed).bytes),
            origin(&manifest.source),
        ]);
    }
    if manifests.iter().all(|manifest| manifest.name != BUILTIN_DATA) {
        let corpus = pawl_data::carried_corpus();
        let documents: u64 = corpus.crates.iter().map(|part| part.documents).sum();
        let size: u64 = corpus.crates.iter().map(|part| part.code_bytes + part.prose_bytes).sum();
        let mut row =
            vec![BUILTIN_DATA.to_string(), "code, prose".into(), count(documents as f64), bytes(size)];
        row.extend(["-".to_string(), "-".into(), "carried, divided at first use".into()]);
        table.row(row);
    }
    Ok(Answer::new(table.text(), json!({ "data": manifests })))
}

fn total(domains: &[DomainRecord], split: Split) -> TextSize {
    let add = |sum: TextSize, size: TextSize| TextSize {
        documents: sum.documents + size.documents,
        bytes: sum.bytes + size.bytes,
    };
    domains.iter().map(|domain| domain.size(split)).fold(TextSize::default(), add)
}

fn origin(source: &DataSource) -> String {
    match source {
        DataSource::Carried { corpus } => format!("carried: {} crates", corpus.crates.len()),
        DataSource::Files { files, skipped } if skipped.is_empty() => format!("{} files", files.len()),
        DataSource::Files { files, skipped } => format!("{} files, {} left out", files.len(), skipped.len()),
    }
}

fn describe(manifest: &DataManifest) -> Answer {
    let mut table = Table::new(&[
        ("domain", Align::Left),
        ("split", Align::Left),
        ("documents", Align::Right),
        ("text", Align::Right),
    ]);
    for domain in &manifest.domains {
        for split in Split::ALL {
            let size = domain.size(split);
            let row =
                [domain.name.clone(), split.name().into(), count(size.documents as f64), bytes(size.bytes)];
            table.row(row.to_vec());
        }
    }
    let mut block = Block::default();
    block
        .line("data", &manifest.name)
        .line("hash", &manifest.hash)
        .line("from", origin(&manifest.source))
        .line("held_out", rule(manifest.split));
    if let DataSource::Files { skipped, .. } = &manifest.source {
        for file in skipped {
            block.line("left_out", format!("{}: {}", file.path, file.reason));
        }
    }
    let train = total(&manifest.domains, Split::Train);
    block.line("train", format!("{} in {} documents", bytes(train.bytes), count(train.documents as f64)));
    let text = format!("{}\n{}", table.text(), block.text());
    Answer::new(text, json!({ "data": manifest }))
}

fn rule(rule: SplitRule) -> String {
    match rule {
        SplitRule::Hash => "whole documents, by a hash of their text".to_string(),
        SplitRule::Position { held_out, sealed } => {
            format!("the last {:.1} %, {:.1} % of it sealed", 100.0 * held_out, 100.0 * sealed / held_out)
        }
    }
}
