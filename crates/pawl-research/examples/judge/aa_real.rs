//! `judge aa --real`: proposals that change nothing, trained for real. How many does the judge keep, and how many
//! does the compiler know for what they are?

use crate::exact;
use crate::trained::{Asked, How, campaign, is_over, shown, verdict_on};
use pawl_record::Decision;
use pawl_research::random::Random;
use std::collections::BTreeMap;

/// The rung: two blocks of width 64, some seconds on a core.
const DEPTH: u64 = 2;
const FLOPS: f64 = 2e11;

/// (kind, setting, values): other options of `no_ops.star` than the first.
const KINDS: &[(&str, &str, &[&str])] = &[
    (
        "renamed: other initial values",
        "mixer",
        &[
            "self_attention",
            "tokens",
            "lookup",
            "heads",
            "read",
            "mix",
            "look",
            "focus",
            "seek",
            "recall",
            "gaze",
            "link",
        ],
    ),
    (
        "renamed: other initial values",
        "hidden",
        &[
            "feed_forward",
            "channels",
            "expand",
            "ffn",
            "think",
            "dense",
            "ff",
            "units",
            "wide",
            "body",
            "inner",
            "cells",
        ],
    ),
    (
        "renamed: other initial values",
        "table",
        &[
            "wte",
            "token_table",
            "words",
            "lexicon",
            "symbols",
            "rows",
            "alphabet",
            "codes",
            "entries",
            "vectors",
        ],
    ),
    ("renamed: nothing drawn", "norm_name", &["ln", "scale_and_shift"]),
    ("scale taken back", "scale", &["2", "4", "8", "0.5", "0.25", "3", "5", "7"]),
    ("shift of the logits", "shift_by", &["1", "-1", "2", "5", "0.1"]),
    ("mathematically equal", "signs", &["True"]),
    ("permuted heads", "exchanged", &["True"]),
    ("mathematically equal", "by_hand", &["True"]),
    ("mathematically equal", "gelu_form", &["product", "halves"]),
    ("mathematically equal", "halves", &["True"]),
    ("order of a sum", "residual", &["minus_minus", "turned"]),
    ("mathematically equal", "norm_twice", &["True"]),
    ("unused", "unused", &["b", "c", "d"]),
    ("decoy knob", "decoy", &["0.2", "0.05", "0.5"]),
    ("constant written otherwise", "folded", &["3", "4"]),
    ("reordered lines", "order", &["second"]),
    ("how the engine runs it", "at_once", &["2", "4"]),
];

/// Runs or goes on with the campaign; false when anything was kept.
pub(crate) fn run(args: &[&str]) -> Result<bool, String> {
    let how = How::read(args)?;
    let asked = Asked {
        name: format!("aa-seed{}", how.seed),
        recipe: include_str!("no_ops.star"),
        script: script(how.seed),
        depth: DEPTH,
        flops: FLOPS,
        seed: how.seed,
    };
    let Some(records) = campaign(&asked, &how)? else { return Err("no time was given".to_string()) };
    let mut kinds: BTreeMap<&str, [u64; 5]> = BTreeMap::new();
    let mut lower_once = 0;
    for (kind, setting, values) in KINDS {
        for value in *values {
            let Some((proposal, verdict)) = verdict_on(&records, setting, value) else { continue };
            let at = match &verdict.decision {
                Decision::Keep => 0,
                Decision::Reject(_) => 1,
                Decision::Undecided(_) => 2,
                Decision::Skipped(_) => 3,
                Decision::Failed(_) => 4,
            };
            if at == 0 || at == 4 {
                println!("#{} {setting} -> {value}: {}", proposal.number, shown(verdict));
            }
            kinds.entry(kind).or_default()[at] += 1;
            let first = verdict.pairs.first().and_then(|pair| pair.difference);
            lower_once += u64::from(first.is_some_and(|difference| difference > 0.0));
        }
    }
    println!("{:<32} kept  rejected  undecided  recognised  failed", "proposals that change nothing");
    for (kind, [kept, rejected, undecided, skipped, failed]) in &kinds {
        println!("{kind:<32} {kept:>4}  {rejected:>8}  {undecided:>9}  {skipped:>10}  {failed:>6}");
    }
    let sum = |at: usize| kinds.values().map(|counts| counts[at]).sum::<u64>();
    let tried = sum(0) + sum(1) + sum(2) + sum(4);
    let (low, high) = if tried == 0 { (0.0, 1.0) } else { exact::interval(sum(0), tried) };
    println!(
        "\nkept: {} of {tried} trained ({:.1} to {:.1} %); {} recognised as the same program",
        sum(0),
        100.0 * low,
        100.0 * high,
        sum(3)
    );
    println!("of the trained, scored lower than the champion on their first pair: {lower_once}");
    if let Some(end) = &records.end {
        println!(
            "cost: {} runs, {:.1} TFLOP, {:.0} core seconds",
            end.runs,
            end.flops / 1e12,
            end.run_seconds
        );
    }
    if !is_over(&records) {
        println!("not finished: the same command goes on");
    }
    Ok(sum(0) == 0)
}

fn script(seed: u64) -> Vec<String> {
    let one = |(_, setting, values): &(&str, &str, &[&str])| {
        values.iter().map(|value| format!("{setting}={value}")).collect::<Vec<_>>()
    };
    let mut lines: Vec<String> = KINDS.iter().flat_map(one).collect();
    let mut random = Random::new(&[seed, 0xaa]);
    for last in (1..lines.len()).rev() {
        lines.swap(last, random.below(last + 1));
    }
    lines
}
