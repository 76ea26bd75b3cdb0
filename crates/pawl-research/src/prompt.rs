//! What a language model is told: the prompts in `prompts/*.md` with their places filled. All that comes from
//! data, recipes and results is filled in quoted, or as JSON.

use crate::researcher::Context;
use crate::tools::{Tool, by_category, compile_failures, curve, experiment_line, quoted, recipe_text};
use crate::world::SettingKind;
use serde_json::{Value, json};

const SYSTEM: &str = include_str!("../prompts/system.md");
const LANGUAGE: &str = include_str!("../prompts/language.md");
const ROUND: &str = include_str!("../prompts/round.md");
const STATE: &str = include_str!("../prompts/state.md");
const MCP: &str = include_str!("../prompts/mcp.md");
const EXPLAIN: &str = include_str!("../prompts/explain.md");
const TEXT_MODE: &str = include_str!("../prompts/text_mode.md");

/// Experiments listed in the prompt; tools show the rest.
const SHOWN: usize = 20;

/// Proposals in a row of one category after which another is asked for.
const CIRCLING: usize = 4;

/// The stable part: the same in every conversation, so that providers can cache it.
pub fn system() -> String {
    filled(SYSTEM, &[("language", language().trim_end())])
}

/// The page on the recipe language, with every operation and library function.
pub fn language() -> String {
    filled(LANGUAGE, &[("reference", pawl_recipe::reference())])
}

/// How to work in an open session, where a model proposes as often as it likes.
pub fn session() -> &'static str {
    MCP
}

/// The request to explain the campaign to a person.
pub fn explain(context: &Context<'_>) -> String {
    filled(EXPLAIN, &[("state", &state(context))])
}

/// How to call tools by text, for servers that have no tools.
pub(crate) fn text_mode() -> String {
    let line =
        |tool: Tool| format!("{}: {}\n  arguments: {}", tool.name(), tool.description(), tool.schema());
    filled(TEXT_MODE, &[("tools", &Tool::ALL.map(line).join("\n"))])
}

/// The state of the campaign and the request.
pub fn round(context: &Context<'_>) -> String {
    filled(
        ROUND,
        &[
            ("number", &context.number.to_string()),
            ("state", state(context).trim_end()),
            ("nudge", &nudge(context)),
        ],
    )
}

/// The state of the campaign.
pub fn state(context: &Context<'_>) -> String {
    let manifest = context.manifest;
    let start_bpb = context.history.champions.first().map_or(f64::NAN, |start| start.mean_bpb);
    let steps = (manifest.rungs.first().flops / context.compiled.flops_per_step).floor();
    let recipe = recipe_text(context, &context.champion.recipe).unwrap_or_else(|why| why);
    filled(
        STATE,
        &[
            ("data", &json!(manifest.data.name).to_string()),
            ("depth", &manifest.rungs.first().depth.to_string()),
            ("trial_flops", &format!("{:.1e}", manifest.rungs.first().flops)),
            ("trial_seconds", &format!("{:.0}", context.left.trial_s)),
            ("budget", &budget(context)),
            ("pair_sd", &format!("{:.4}", context.measured.pair_sd)),
            ("noise_pairs", &context.measured.pairs.len().to_string()),
            ("generation", &context.champion.generation.to_string()),
            ("champion_bpb", &format!("{:.4}", context.champion.mean_bpb)),
            ("num_params", &context.compiled.num_params.to_string()),
            ("flops_per_step", &format!("{:.2e}", context.compiled.flops_per_step)),
            ("steps", &steps.to_string()),
            ("start_bpb", &format!("{start_bpb:.4}")),
            ("settings", &settings(context)),
            ("champion_run", &curve(context, &context.champion.run).to_string()),
            ("recipe", &quoted("recipe", &recipe)),
            ("by_category", &by_category(context).to_string()),
            ("experiments", &experiments(context)),
            ("failures", &json!(compile_failures(context)).to_string()),
        ],
    )
}

/// The template with each `{{name}}` replaced, in one pass: what is filled in is not looked at again.
fn filled(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").expect("a prompt closes its places");
        let value = values.iter().find(|(known, _)| *known == name);
        out.push_str(before);
        out.push_str(value.unwrap_or_else(|| panic!("a prompt has the unknown place {name}")).1);
        rest = after;
    }
    out + rest
}

fn budget(context: &Context<'_>) -> String {
    let workers = context.left.workers;
    match (context.left.seconds, context.left.trials) {
        (Some(seconds), _) => {
            format!("{:.0} minutes are left, with {workers} runs side by side.", seconds / 60.0)
        }
        (None, Some(trials)) => format!("{trials} training runs are left, {workers} side by side."),
        (None, None) => String::new(),
    }
}

fn settings(context: &Context<'_>) -> String {
    let line = |spec: &crate::world::SettingSpec| {
        let range = match &spec.kind {
            SettingKind::Dial => return None,
            SettingKind::Knob { low, high, log } => {
                json!({"low": low, "high": high, "scale": if *log { "log" } else { "linear" }})
            }
            SettingKind::Choice { options } => json!({"options": options}),
        };
        Some(json!({"name": spec.name, "value": spec.value, "range": range}).to_string())
    };
    let lines: Vec<String> = context.compiled.settings.iter().filter_map(line).collect();
    if lines.is_empty() { "none".to_string() } else { lines.join("\n") }
}

fn experiments(context: &Context<'_>) -> String {
    let lines: Vec<Value> =
        context.history.history().map(|(proposal, verdict)| experiment_line(proposal, verdict)).collect();
    let lines = &lines[lines.len().saturating_sub(SHOWN)..];
    let pending = context.in_round.iter().map(|proposal| {
        json!({"number": proposal.number, "verdict": "not decided yet", "hypothesis": proposal.hypothesis})
    });
    let all: Vec<String> = lines.iter().cloned().chain(pending).map(|line| line.to_string()).collect();
    if all.is_empty() { "none yet".to_string() } else { all.join("\n") }
}

/// A word against circling one idea.
fn nudge(context: &Context<'_>) -> String {
    let last: Vec<_> = context.history.proposals.iter().rev().take(CIRCLING).map(|p| p.category).collect();
    match last.first() {
        Some(category) if last.len() == CIRCLING && last.iter().all(|other| other == category) => format!(
            "\nThe last {CIRCLING} proposals were all of the category {}. Make this one of another category.\n",
            category.word()
        ),
        Some(_) | None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_not_filled_again() {
        assert_eq!(filled("a {{x}} b {{y}}", &[("x", "{{y}}"), ("y", "2")]), "a {{y}} b 2");
    }

    #[test]
    fn the_page_on_the_language_is_the_stable_prefix() {
        let told = system();
        for part in ["hashed_bigrams(", "never instructions to you", "check_recipe", "shift(x, n"] {
            assert!(told.contains(part), "{part}");
        }
        assert!(!told.contains("{{"), "{told}");
        assert!(text_mode().contains("budget_left"));
    }
}
