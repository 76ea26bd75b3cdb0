//! Two runs side by side. Compares records and texts that it is given; reads no file.

use crate::RunRecord;
use pawl_record::{Budget, SettingValue, Settings};
use serde::Serialize;
use similar::{ChangeTag, TextDiff};
use std::collections::BTreeSet;

/// Lines of unchanged text shown around a change.
const CONTEXT_LINES: usize = 3;

/// What differs between two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunDiff {
    /// The first run.
    pub a: RunRecord,
    /// The second run.
    pub b: RunRecord,
    /// Whether the compiled programs are the same.
    pub same_program: bool,
    /// What besides the recipe differs and makes the scores hard to compare: data, budget, seed, ...
    pub conditions: Vec<SettingChange>,
    /// Dials, knobs and choices that differ, in name order.
    pub settings: Vec<SettingChange>,
    /// The recipe texts.
    pub recipe: RecipeDiff,
    /// Numbers that came out, side by side; those absent in both are left out.
    pub results: Vec<ResultChange>,
}

/// A value that differs; `None` where one side does not have it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SettingChange {
    /// What it is.
    pub name: String,
    /// In the first run.
    pub a: Option<SettingValue>,
    /// In the second run.
    pub b: Option<SettingValue>,
}

/// A number of both results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResultChange {
    /// What it is.
    pub name: String,
    /// Its unit; empty for a count.
    pub unit: &'static str,
    /// Whether less of it is better.
    pub lower_is_better: bool,
    /// In the first run.
    pub a: Option<f64>,
    /// In the second run.
    pub b: Option<f64>,
}

/// A line-by-line comparison with a little context.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RecipeDiff {
    /// Lines only in the second text.
    pub added: usize,
    /// Lines only in the first text.
    pub removed: usize,
    /// The changed places; none when the texts are the same.
    pub hunks: Vec<Hunk>,
}

/// One changed place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hunk {
    /// First line in the first text, 1-based.
    pub line_a: usize,
    /// First line in the second text, 1-based.
    pub line_b: usize,
    /// Its lines, in order.
    pub lines: Vec<DiffLine>,
}

/// One line of a hunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiffLine {
    /// Which text it is from.
    pub tag: LineTag,
    /// Without its line end.
    pub text: String,
}

/// Which text a line is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LineTag {
    /// Both.
    Same,
    /// Only the first.
    Removed,
    /// Only the second.
    Added,
}

impl LineTag {
    /// The sign of a unified diff.
    pub fn sign(self) -> char {
        match self {
            LineTag::Same => ' ',
            LineTag::Removed => '-',
            LineTag::Added => '+',
        }
    }
}

/// Compares two runs and the recipe texts that lie beside them.
pub fn diff_runs(a: RunRecord, text_a: &str, b: RunRecord, text_b: &str) -> RunDiff {
    RunDiff {
        same_program: a.manifest.fingerprint == b.manifest.fingerprint,
        conditions: conditions(&a, &b),
        settings: diff_settings(&a.manifest.settings, &b.manifest.settings),
        recipe: diff_text(text_a, text_b),
        results: results(&a, &b),
        a,
        b,
    }
}

/// Settings that differ or are on one side only, in name order.
pub fn diff_settings(a: &Settings, b: &Settings) -> Vec<SettingChange> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let pairs = names.into_iter().map(|name| (name, a.get(name), b.get(name)));
    let change = |(name, a, b): (&String, Option<&SettingValue>, Option<&SettingValue>)| SettingChange {
        name: name.clone(),
        a: a.cloned(),
        b: b.cloned(),
    };
    pairs.filter(|(_, a, b)| a != b).map(change).collect()
}

/// Compares two texts line by line.
pub fn diff_text(a: &str, b: &str) -> RecipeDiff {
    let diff = TextDiff::from_lines(a, b);
    let mut out = RecipeDiff::default();
    for group in diff.grouped_ops(CONTEXT_LINES) {
        let Some(first) = group.first() else { continue };
        let (line_a, line_b) = (first.old_range().start + 1, first.new_range().start + 1);
        let mut lines = Vec::new();
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let tag = match change.tag() {
                ChangeTag::Equal => LineTag::Same,
                ChangeTag::Delete => LineTag::Removed,
                ChangeTag::Insert => LineTag::Added,
            };
            out.removed += usize::from(tag == LineTag::Removed);
            out.added += usize::from(tag == LineTag::Added);
            lines.push(DiffLine { tag, text: change.value().trim_end_matches(['\n', '\r']).to_string() });
        }
        out.hunks.push(Hunk { line_a, line_b, lines });
    }
    out
}

fn conditions(a: &RunRecord, b: &RunRecord) -> Vec<SettingChange> {
    // A seed may be larger than a setting's whole number can be.
    let seed = |seed: u64| match i64::try_from(seed) {
        Ok(seed) => SettingValue::Int(seed),
        Err(_) => SettingValue::Text(seed.to_string()),
    };
    let of = |run: &RunRecord| -> Settings {
        let manifest = &run.manifest;
        let (unit, amount) = match manifest.budget {
            Budget::Flops(flops) => ("FLOPs", SettingValue::Float(flops)),
            Budget::Tokens(tokens) => ("tokens", SettingValue::Int(tokens as i64)),
            Budget::Steps(steps) => ("steps", SettingValue::Int(steps as i64)),
        };
        Settings::from([
            ("recipe".into(), SettingValue::Text(manifest.recipe.clone())),
            ("data".into(), SettingValue::Text(manifest.data.name.clone())),
            ("data hash".into(), SettingValue::Text(manifest.data.hash.clone())),
            ("budget".into(), SettingValue::Text(format!("{amount} {unit}"))),
            ("seed".into(), seed(manifest.seed)),
            ("init seed".into(), seed(manifest.init_seed)),
            ("precision".into(), SettingValue::Text(manifest.precision.name().into())),
            ("machine".into(), SettingValue::Text(manifest.machine.clone())),
            ("version".into(), SettingValue::Text(manifest.version.clone())),
        ])
    };
    diff_settings(&of(a), &of(b))
}

fn results(a: &RunRecord, b: &RunRecord) -> Vec<ResultChange> {
    let mut rows = Vec::new();
    let mut row = |name: &str, unit, lower_is_better, get: &dyn Fn(&RunRecord) -> Option<f64>| {
        let (a, b) = (get(a), get(b));
        if a.is_some() || b.is_some() {
            rows.push(ResultChange { name: name.to_string(), unit, lower_is_better, a, b });
        }
    };
    let bits = "bits/byte";
    row("val_bpb", bits, true, &|run| run.result.as_ref()?.val_bpb);
    let domains = [a, b].into_iter().filter_map(|run| run.result.as_ref());
    let domains: BTreeSet<&String> = domains.flat_map(|result| result.val_bpb_by_domain.keys()).collect();
    for domain in domains {
        row(&format!("val_bpb {domain}"), bits, true, &|run| {
            run.result.as_ref()?.val_bpb_by_domain.get(domain).copied()
        });
    }
    row("sealed_bpb", bits, true, &|run| run.result.as_ref()?.sealed_bpb);
    row("parameters", "", true, &|run| Some(run.manifest.num_params as f64));
    row("steps", "", false, &|run| Some(run.result.as_ref()?.steps as f64));
    row("tokens", "", false, &|run| Some(run.result.as_ref()?.tokens as f64));
    row("flops", "FLOPs", true, &|run| Some(run.result.as_ref()?.flops));
    row("train_seconds", "s", true, &|run| Some(run.result.as_ref()?.train_seconds));
    row("tokens_per_sec", "tokens/s", false, &|run| Some(run.result.as_ref()?.tokens_per_sec));
    row("mfu", "share of peak", false, &|run| Some(run.result.as_ref()?.mfu));
    row("peak_memory", "bytes", true, &|run| Some(run.result.as_ref()?.peak_memory_bytes as f64));
    rows
}
