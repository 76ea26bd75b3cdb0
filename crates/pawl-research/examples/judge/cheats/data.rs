//! Held-out text that training sees, and data sets that are not what they say.

use super::bench::{Lab, told};
use super::{Bench, Case, Catcher, Outcome};
use pawl_research::random::Random;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A text of its own, whatever its number.
fn article(number: u64) -> String {
    let mut random = Random::new(&[number, 0xa27]);
    let mut text = String::new();
    for sentence in 0..40 {
        let words: Vec<String> = (0..12).map(|_| word(&mut random)).collect();
        writeln!(text, "{} {}.", sentence + 1, words.join(" ")).expect("a string takes it");
    }
    text
}

fn word(random: &mut Random) -> String {
    const SYLLABLES: [&str; 24] = [
        "ba", "co", "di", "fe", "gu", "ha", "ki", "lo", "me", "nu", "pa", "ri", "so", "ta", "vu", "we", "ya",
        "zo", "ster", "lin", "mor", "tan", "vel", "dor",
    ];
    (0..2 + random.below(3)).map(|_| SYLLABLES[random.below(SYLLABLES.len())]).collect()
}

const LICENCE: &str = "Licensed under the terms of this notice, which may be copied, changed and given away by anyone, \
as long as this paragraph stands at the head of every copy and no one is held to account for what comes of it. ";

/// Articles 0..n as the lines of a JSONL file, each changed as asked.
fn write(path: &Path, texts: impl Iterator<Item = String>) -> Result<(), String> {
    let lines: String = texts.map(|text| format!("{}\n", serde_json::json!({ "text": text }))).collect();
    fs::write(path, lines).map_err(told)
}

/// Makes the data set `set` of those files and returns its lab's folder.
fn add(bench: &Bench, folder: &Path, more: &[&str]) -> Result<Outcome, String> {
    bench.pawl(folder, &[&["data", "add", "set", "set.jsonl"], more].concat())
}

fn check(bench: &Bench, folder: &Path) -> Result<Outcome, String> {
    bench.pawl(folder, &["data", "check", "set"])
}

/// A data set with articles, then `change` to its folder, then the check.
fn tampered(
    bench: &Bench,
    change: impl Fn(&Bench, &Path, &Path) -> Result<(), String>,
) -> Result<Outcome, String> {
    let folder = bench.fresh()?;
    write(&folder.join("set.jsonl"), (0..200).map(article))?;
    if add(bench, &folder, &[])?.caught {
        return Err("the data set cannot be made".to_string());
    }
    let set = folder.join("lab/data/set");
    // A run makes the tokenizer and the token files.
    fs::write(folder.join("case.star"), RECIPE).map_err(told)?;
    bench
        .ask(&folder, &["train", "case.star", "--data", "set", "--steps", "1", "--threads", "1", "--json"])?;
    change(bench, &folder, &set)?;
    check(bench, &folder)
}

const RECIPE: &str = r#"
load("std/layers.star", "embedding", "linear")
load("std/optim.star", "adamw")
depth = dial("depth", 1)
def model(tokens):
    return linear(embedding(tokens, "embed", 8 * depth), "head", vocab_size())
recipe(model = model, optimizer = lambda p: adamw(0.003), seq_len = 64, tokens_per_step = 64, vocab_size = 400)
"#;

/// The folder of token files.
fn tokens(set: &Path) -> Result<PathBuf, String> {
    let entries = fs::read_dir(set).map_err(told)?.filter_map(Result::ok).map(|entry| entry.path());
    let mut folders =
        entries.filter(|path| path.file_name().is_some_and(|it| it.to_string_lossy().starts_with("tokens-")));
    folders.next().ok_or("no token files".to_string())
}

/// A document file replaced by another of the same set.
fn swap_documents(set: &Path, from: &str, to: &str) -> Result<(), String> {
    fs::copy(set.join("documents").join(from), set.join("documents").join(to)).map(|_| ()).map_err(told)
}

/// Articles, with copies of the held-out ones changed a little: which are held out is for the hash to say, so each
/// article has a copy.
fn with_copies(bench: &Bench, copy: impl Fn(&str) -> String) -> Result<Outcome, String> {
    let folder = bench.fresh()?;
    let copies = (0..200).map(article).chain((0..200).map(|number| copy(&article(number))));
    write(&folder.join("set.jsonl"), copies)?;
    let added = add(bench, &folder, &[])?;
    if added.caught || !added.said.contains("held-out documents stand in the training text") {
        return Ok(Outcome { caught: false, said: added.said });
    }
    check(bench, &folder)
}

type Planted = fn(&Bench) -> Result<Outcome, String>;

#[rustfmt::skip]
const CHEATS: &[(&str, &str, &[&str], Planted)] = &[
    ("near copies of held-out documents in training", "contamination of web corpora", &["held-out text in training"],
        |bench| with_copies(bench, |text| format!("Reposted. {}", text.replace(". ", " ; ")))),
    ("copies in capitals", "contamination of web corpora", &["held-out text in training"],
        |bench| with_copies(bench, str::to_uppercase)),
    ("copies inside a larger document", "contamination of web corpora", &["held-out text in training"],
        |bench| with_copies(bench, |text| format!("{}{text}{}", article(1000), article(1001)))),
    ("held-out documents appended to training", "validation text trained on", &["train: "],
        |bench| tampered(bench, |_, _, set| swap_documents(set, "text.search.jsonl.zst", "text.train.jsonl.zst"))),
    ("held-out text exchanged for easy text", "easier validation sets", &["their text is not the one"],
        |bench| tampered(bench, |_, _, set| swap_documents(set, "text.sealed.jsonl.zst", "text.search.jsonl.zst"))),
    ("byte counts doubled", "bits per byte over inflated bytes", &["bytes of text are said"],
        |bench| tampered(bench, |_, _, set| edit_tokens(set, |it| {
            let bytes = it["files"][1]["bytes"].as_u64().unwrap_or(0);
            it["files"][1]["bytes"] = (2 * bytes).into();
        }))),
    ("tokens exchanged in a shard", "validation shards swapped", &["its hash is not that of the manifest"],
        |bench| tampered(bench, |_, _, set| {
            let path = tokens(set)?.join("text.search.tokens");
            let mut bytes = fs::read(&path).map_err(told)?;
            bytes.iter_mut().for_each(|byte| *byte = if *byte == 1 { 1 } else { 32 });
            fs::write(path, bytes).map_err(told)
        })),
    ("token files of another data set", "validation shards swapped", &["made of another data set"],
        |bench| tampered(bench, |_, _, set| edit_tokens(set, |it| it["data_hash"] = "00".into()))),
    ("tokenizer learnt with held-out text", "tokenizers trained on the test set", &["not the one that the training text gives"],
        |bench| tampered(bench, |bench, folder, set| {
            // The tokenizer of a set whose training text has the held-out articles too, and its token files' hash.
            write(&folder.join("other.jsonl"), (0..400).map(article))?;
            bench.ask(folder, &["data", "add", "other", "other.jsonl"])?;
            bench.ask(folder, &["train", "case.star", "--data", "other", "--steps", "1", "--threads", "1", "--json"])?;
            let other = folder.join("lab/data/other");
            fs::copy(other.join("tokenizers/400.json"), set.join("tokenizers/400.json")).map_err(told)?;
            Ok(())
        })),
    ("manifest that says another hash", "data sets swapped under a name", &["their text is not the one"],
        |bench| tampered(bench, |_, folder, _| {
            Lab { root: folder.join("lab") }.edit("data/set/manifest.json", |it| it["hash"] = "00".into())
        })),
];

fn edit_tokens(set: &Path, change: impl FnOnce(&mut serde_json::Value)) -> Result<(), String> {
    Lab { root: tokens(set)? }.edit("manifest.json", change)
}

#[rustfmt::skip]
const HONEST: &[(&str, Planted)] = &[
    ("articles of their own", |bench| tampered(bench, |_, _, _| Ok(()))),
    ("articles under one licence", |bench| {
        let folder = bench.fresh()?;
        write(&folder.join("set.jsonl"), (0..200).map(|number| format!("{}{}", LICENCE.repeat(2), article(number))))?;
        add(bench, &folder, &[])?;
        check(bench, &folder)
    }),
    ("articles that quote each other", |bench| {
        let folder = bench.fresh()?;
        let quoting = |number: u64| {
            let quote: String = article((number + 1) % 200).chars().take(400).collect();
            format!("{}\nAs was said: {quote}", article(number))
        };
        write(&folder.join("set.jsonl"), (0..200).map(quoting))?;
        add(bench, &folder, &[])?;
        check(bench, &folder)
    }),
    ("exact copies, which the division keeps together", |bench| {
        let folder = bench.fresh()?;
        write(&folder.join("set.jsonl"), (0..200).chain(0..200).map(article))?;
        add(bench, &folder, &[])?;
        check(bench, &folder)
    }),
    ("one long text divided by position", |bench| {
        let folder = bench.fresh()?;
        write(&folder.join("set.jsonl"), std::iter::once((0..200).map(article).collect()))?;
        add(bench, &folder, &["--held-out", "0.1", "--sealed", "0.05"])?;
        check(bench, &folder)
    }),
];

pub(super) fn cases() -> Vec<Case> {
    let catcher = Catcher::Data;
    let cheats = CHEATS.iter().map(|&(name, from, words, plant)| Case {
        name,
        from,
        catcher,
        words,
        honest: false,
        plant: Box::new(plant),
    });
    let from = "ordinary text";
    let honest = HONEST.iter().map(|&(name, plant)| Case {
        name,
        from,
        catcher,
        words: &[],
        honest: true,
        plant: Box::new(plant),
    });
    cheats.chain(honest).collect()
}
