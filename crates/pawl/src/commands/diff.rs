//! `pawl diff A B`: two runs side by side: what was set, what the recipes say, what came out.

use crate::args::Diff;
use crate::errors::Failure;
use crate::lab::{from_ledger, ledger};
use crate::output::{Align, Answer, Block, Table};
use pawl_ledger::{RecipeDiff, ResultChange, RunDiff, SettingChange};
use serde_json::json;
use std::fmt::Write;

pub(crate) fn run(args: Diff) -> Result<Answer, Failure> {
    let diff = ledger(&args.place.lab)?.diff(&args.a, &args.b).map_err(from_ledger)?;
    let text = format!(
        "{}{}{}{}",
        recipe(&diff.recipe, &diff.a.manifest.recipe, &diff.b.manifest.recipe),
        changes("condition", &diff.conditions),
        changes("setting", &diff.settings),
        results(&diff.results),
    );
    let mut block = Block::default();
    block
        .line("a", &diff.a.manifest.id)
        .line("b", &diff.b.manifest.id)
        .line("program", if diff.same_program { "the same" } else { "different" })
        .line("settings", format!("{} differ", diff.settings.len()))
        .line("recipe_lines", format!("+{} -{}", diff.recipe.added, diff.recipe.removed))
        .maybe("val_bpb", gain(&diff));
    Ok(Answer::new(text + block.text(), json!({ "diff": diff })))
}

/// How much better b is, where both have a score.
fn gain(diff: &RunDiff) -> Option<String> {
    let bpb = |run: &pawl_ledger::RunRecord| run.result.as_ref().and_then(|result| result.val_bpb);
    let (a, b) = (bpb(&diff.a)?, bpb(&diff.b)?);
    let word = match b.total_cmp(&a) {
        std::cmp::Ordering::Less => "b is better",
        std::cmp::Ordering::Equal => "the same",
        std::cmp::Ordering::Greater => "a is better",
    };
    Some(format!("{a:.4} -> {b:.4} ({:+.4}, {word})", b - a))
}

fn recipe(diff: &RecipeDiff, a: &str, b: &str) -> String {
    let mut text = String::new();
    if diff.hunks.is_empty() {
        return text;
    }
    let mut line = |said: String| writeln!(text, "{said}").expect("a string takes every write");
    line(format!("--- {a}"));
    line(format!("+++ {b}"));
    for hunk in &diff.hunks {
        line(format!("@@ -{} +{} @@", hunk.line_a, hunk.line_b));
        for changed in &hunk.lines {
            line(format!("{}{}", changed.tag.sign(), changed.text));
        }
    }
    text + "\n"
}

fn changes(what: &'static str, changes: &[SettingChange]) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[(what, Align::Left), ("a", Align::Right), ("b", Align::Right)]);
    for change in changes {
        let value = |value: &Option<pawl_record::SettingValue>| {
            value.as_ref().map_or_else(|| "-".to_string(), ToString::to_string)
        };
        table.row(vec![change.name.clone(), value(&change.a), value(&change.b)]);
    }
    table.text() + "\n"
}

fn results(results: &[ResultChange]) -> String {
    if results.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("result", Align::Left),
        ("a", Align::Right),
        ("b", Align::Right),
        ("b - a", Align::Right),
        ("unit", Align::Left),
    ]);
    for result in results {
        let value = |value: Option<f64>| value.map_or_else(|| "-".to_string(), figure);
        let difference = result.a.zip(result.b).map(|(a, b)| b - a);
        table.row(vec![
            result.name.clone(),
            value(result.a),
            value(result.b),
            value(difference),
            result.unit.to_string(),
        ]);
    }
    table.text() + "\n"
}

/// Scores need their fourth digit, counts none.
fn figure(number: f64) -> String {
    match number {
        x if x.fract() == 0.0 && x.abs() < 1e7 => format!("{x}"),
        x if x.abs() >= 1e5 => format!("{x:.4e}"),
        x => format!("{x:.4}"),
    }
}
