//! What can be looked at: experiments, recipes, the library, effects, the budget. Answers are JSON, in which text
//! that others wrote stands in strings, or quoted text.

use super::arguments::{Arguments, number, text};
use super::words::{cut, line, quoted};
use crate::researcher::Context;
use crate::store::Store;
use pawl_record::{
    Category, Decision, GroupVitals, Proposal, RecipeRef, RunResult, Verdict, Vitals, read_json,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Bytes of one answer.
const MAX_ANSWER: usize = 60_000;

/// Experiments of a list that was not told how many.
const LAST: usize = 40;

pub(super) fn list_experiments(context: &Context<'_>, arguments: &Arguments) -> Result<String, String> {
    let (verdict, category) = (text(arguments, "verdict")?, text(arguments, "category")?);
    let last = number(arguments, "last")?.map_or(LAST, |last| last.clamp(1.0, 1000.0) as usize);
    let wanted = |(proposal, decided): &(&Proposal, &Verdict)| {
        verdict.is_none_or(|word| decided.decision.word() == word)
            && category.is_none_or(|word| proposal.category.word() == word)
    };
    let lines: Vec<Value> = context
        .history
        .history()
        .filter(wanted)
        .map(|(proposal, verdict)| experiment_line(proposal, verdict))
        .collect();
    let skipped = lines.len().saturating_sub(last);
    Ok(cut(json!({"earlier_left_out": skipped, "experiments": lines[skipped..]}).to_string(), MAX_ANSWER))
}

/// A proposal and its verdict in a line.
pub(crate) fn experiment_line(proposal: &Proposal, verdict: &Verdict) -> Value {
    let gain =
        verdict.evidence.as_ref().map(|evidence| json!([round(evidence.mean), round(evidence.half_width)]));
    json!({
        "number": proposal.number,
        "category": proposal.category.word(),
        "change": change(proposal),
        "verdict": verdict.decision.word(),
        "gain_and_half_width": gain,
        "pairs": verdict.pairs.len(),
        "hypothesis": line(&proposal.hypothesis, 200),
        "researcher": proposal.researcher,
    })
}

fn change(proposal: &Proposal) -> Value {
    let turned = proposal.changes.iter().map(|c| format!("{}: {} -> {}", c.setting, c.from, c.to));
    let turned: Vec<String> = turned.collect();
    match proposal.recipe.is_some() {
        true => json!({"text": "changed", "settings": turned}),
        false => json!({"settings": turned}),
    }
}

fn round(x: f64) -> f64 {
    // Through text: a difference in the sixth digit says nothing.
    format!("{x:.5}").parse().expect("a formatted number is a number")
}

pub(super) fn experiment(context: &Context<'_>, arguments: &Arguments) -> Result<String, String> {
    let number = number(arguments, "number")?.ok_or("number: which experiment?")?;
    let found = context.history.proposals.iter().find(|proposal| proposal.number as f64 == number);
    let proposal = found.ok_or_else(|| {
        format!("there is no experiment #{number}; there are {}", context.history.proposals.len())
    })?;
    let mut shown = json!({
        "number": proposal.number,
        "against_champion": proposal.generation,
        "category": proposal.category.word(),
        "change": change(proposal),
        "hypothesis": proposal.hypothesis,
        "prediction": proposal.prediction,
        "researcher": proposal.researcher,
        "settings": proposal.settings,
    });
    if let Some(verdict) = context.history.verdicts.get(&proposal.number) {
        shown["verdict"] = json!(verdict.decision.word());
        shown["reason"] = json!(verdict.decision.reason());
        shown["became_champion"] = json!(verdict.promoted);
        shown["evidence"] = json!(verdict.evidence);
        shown["num_params"] = json!(verdict.num_params);
        shown["training_seconds_over_champion"] = json!(verdict.seconds_ratio);
        let pairs = verdict.pairs.iter().map(|pair| {
            json!({"champion_bpb": pair.champion_bpb, "challenger_bpb": pair.challenger_bpb, "difference": pair.difference,
                "tokens_per_sec_over_champion": round(pair.tokens_per_sec_ratio)})
        });
        shown["pairs"] = pairs.collect();
        if let Some(pair) = verdict.pairs.first() {
            shown["challenger_run"] = curve(context, &pair.challenger_run);
            shown["champion_run"] = curve(context, &pair.champion_run);
        }
    } else {
        shown["verdict"] = json!("not decided yet");
    }
    Ok(cut(shown.to_string(), MAX_ANSWER))
}

/// What a run's result says on its way to its score; null when the run is gone. Never its sealed score.
pub(crate) fn curve(context: &Context<'_>, run: &str) -> Value {
    let is_id = !run.is_empty() && run.len() <= 64 && run.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id {
        return Value::Null;
    }
    let Ok(result) = read_json::<RunResult>(&context.lab.join("runs").join(run).join("result.json")) else {
        return Value::Null;
    };
    let points: Vec<Value> =
        result.curve.iter().map(|point| json!([point.step, round(point.loss)])).collect();
    let mut shown = json!({
        "status": result.status,
        "val_bpb": result.val_bpb,
        "val_bpb_by_domain": result.val_bpb_by_domain,
        "steps": result.steps,
        "tokens": result.tokens,
        "tokens_per_sec": result.tokens_per_sec.round(),
        "peak_memory_bytes": result.peak_memory_bytes,
        "training_loss_by_step": points,
    });
    if let Some(vitals) = &result.vitals {
        shown["parameter_groups"] = groups(vitals);
        shown["activation_rms"] =
            vitals.layers.iter().map(|it| json!([line(&it.name, 80), it.rms])).collect();
        shown["share_of_time"] = json!(vitals.time);
    }
    shown
}

/// Groups of parameters as a table: root mean squares at the first, the middle and the last look.
fn groups(vitals: &Vitals) -> Value {
    let last = vitals.steps.len().saturating_sub(1);
    let mut at = vec![0, last / 2, last];
    at.dedup();
    let of = |numbers: &[Option<f64>]| -> Vec<Option<f64>> {
        at.iter().map(|idx| numbers.get(*idx).copied().flatten()).collect()
    };
    let row = |group: &GroupVitals| {
        let ratio = |idx: &usize| {
            let (update, weight) =
                (group.update_rms.get(*idx)?.as_ref()?, group.weight_rms.get(*idx)?.as_ref()?);
            (*weight > 0.0).then(|| three_digits(update / weight))
        };
        let ratios: Vec<Option<f64>> = at.iter().map(ratio).collect();
        let numbers = (of(&group.weight_rms), of(&group.gradient_rms));
        json!([line(&group.name, 80), group.num_params, numbers.0, numbers.1, ratios])
    };
    json!({
        "columns": ["group", "parameters", "weight_rms", "gradient_rms", "update_rms_over_weight_rms"],
        "after_steps": at.iter().filter_map(|idx| vitals.steps.get(*idx)).collect::<Vec<_>>(),
        "rows": vitals.groups.iter().map(row).collect::<Vec<_>>(),
    })
}

fn three_digits(x: f64) -> f64 {
    format!("{x:.2e}").parse().expect("a formatted number is a number")
}

pub(super) fn recipe(context: &Context<'_>, arguments: &Arguments) -> Result<String, String> {
    let which = match (text(arguments, "which"), number(arguments, "which")) {
        (Ok(Some(which)), _) => which.trim().trim_start_matches('#').to_string(),
        (_, Ok(Some(number))) => number.to_string(),
        _ => return Err("which: champion, start, or a proposal's number".to_string()),
    };
    let recipe = match which.as_str() {
        "champion" => &context.champion.recipe,
        "start" => &context.manifest.recipe,
        number => {
            let proposal = context.history.proposals.iter().find(|p| p.number.to_string() == number);
            let proposal = proposal.ok_or("which: champion, start, or a proposal's number")?;
            let champion = &context.history.champions[proposal.generation as usize];
            proposal.recipe.as_ref().unwrap_or(&champion.recipe)
        }
    };
    let text = recipe_text(context, recipe)?;
    Ok(cut(quoted("recipe", &text), MAX_ANSWER))
}

/// The text of a recipe that a record names.
pub(crate) fn recipe_text(context: &Context<'_>, recipe: &RecipeRef) -> Result<String, String> {
    std::fs::read_to_string(Store::new(context.lab).path(&recipe.file))
        .map_err(|error| format!("the recipe cannot be read: {}", error.kind()))
}

pub(super) fn library(arguments: &Arguments) -> Result<String, String> {
    let file = text(arguments, "file")?.ok_or("file: which?")?;
    let text = pawl_recipe::shipped(file).ok_or_else(|| {
        format!(
            "there is no library file {}; recipe_reference lists them, and the shipped recipes are {}",
            line(file, 60),
            pawl_recipe::shipped_recipes().join(", ")
        )
    })?;
    Ok(cut(quoted("library", text), MAX_ANSWER))
}

/// Counts and the best gain of some experiments.
#[derive(Default)]
struct Tally {
    counts: BTreeMap<&'static str, u64>,
    best: Option<(f64, f64, u64)>,
}

impl Tally {
    fn add(&mut self, proposal: &Proposal, verdict: &Verdict) {
        *self.counts.entry(verdict.decision.word()).or_default() += 1;
        if let Some(evidence) = &verdict.evidence
            && self.best.is_none_or(|(best, ..)| evidence.mean > best)
        {
            self.best = Some((evidence.mean, evidence.half_width, proposal.number));
        }
    }

    fn json(&self) -> Value {
        let best = self.best.map(
            |(mean, half, number)| json!({"gain": round(mean), "half_width": round(half), "number": number}),
        );
        json!({"counts": self.counts, "best": best})
    }
}

/// What was tried of each category that has anything.
pub(crate) fn by_category(context: &Context<'_>) -> Value {
    let mut tallies: BTreeMap<Category, Tally> = BTreeMap::new();
    for (proposal, verdict) in context.history.history() {
        tallies.entry(proposal.category).or_default().add(proposal, verdict);
    }
    tallies
        .iter()
        .map(|(category, tally)| (category.word().to_string(), tally.json()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// What did not compile and why, newest last.
pub(crate) fn compile_failures(context: &Context<'_>) -> Vec<Value> {
    let failed = |(proposal, verdict): (&Proposal, &Verdict)| match &verdict.decision {
        Decision::Skipped(reason) if verdict.fingerprint.is_none() => {
            Some(json!({"number": proposal.number, "why": line(reason, 300)}))
        }
        Decision::Skipped(_)
        | Decision::Keep
        | Decision::Reject(_)
        | Decision::Undecided(_)
        | Decision::Failed(_) => None,
    };
    let failures: Vec<Value> = context.history.history().filter_map(failed).collect();
    failures[failures.len().saturating_sub(10)..].to_vec()
}

pub(super) fn effects(context: &Context<'_>) -> String {
    let mut settings: BTreeMap<String, Tally> = BTreeMap::new();
    for (proposal, verdict) in context.history.history() {
        for change in &proposal.changes {
            settings.entry(change.setting.clone()).or_default().add(proposal, verdict);
        }
    }
    let settings: serde_json::Map<String, Value> =
        settings.iter().map(|(name, tally)| (name.clone(), tally.json())).collect();
    let shown = json!({
        "unit": "bits per byte, positive is better",
        "sd_of_a_pair_of_no_change": round(context.measured.pair_sd),
        "by_category": by_category(context),
        "by_setting": settings,
        "did_not_compile": compile_failures(context),
    });
    cut(shown.to_string(), MAX_ANSWER)
}

pub(super) fn budget_left(context: &Context<'_>) -> String {
    json!({
        "seconds": context.left.seconds.map(f64::round),
        "training_runs": context.left.trials,
        "seconds_of_a_run": round(context.left.trial_s),
        "runs_side_by_side": context.left.workers,
        "runs_of_a_decided_change": [2 * context.judge.min_pairs, 2 * context.judge.max_pairs],
    })
    .to_string()
}
