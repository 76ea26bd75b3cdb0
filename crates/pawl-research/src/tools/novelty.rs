//! Whether a change was tried before, or nearly: said before it is paid for.

use crate::books::was_tested;
use crate::researcher::Context;
use crate::store::Store;
use pawl_record::{Promotion, Proposal, RecipeRef, SettingValue, Settings};

/// Two numbers nearer than this, as a share of the larger, are the same experiment: learning rates are tried in
/// factors of two.
const NEAR: f64 = 0.1;

/// Why a program need not be tried.
pub(super) fn known(context: &Context<'_>, fingerprint: &str) -> Option<String> {
    if fingerprint == context.compiled.fingerprint {
        return Some("it compiles to the same program as the champion".to_string());
    }
    let number = context.history.tried(fingerprint)?;
    let verdict = &context.history.verdicts[&number];
    Some(format!(
        "it compiles to the same program as #{number}, which was tried: {}",
        verdict.decision.word()
    ))
}

/// The earlier experiment that this one nearly is: the same text but for comments, and settings that differ little.
pub(super) fn near(context: &Context<'_>, recipe: Option<&str>, settings: &Settings) -> Option<String> {
    let text = match recipe {
        Some(text) => bare(text),
        None => bare(&read(context, &context.champion.recipe)?),
    };
    let alike = |other: &RecipeRef, of: &Settings| {
        alike(settings, of) && read(context, other).is_some_and(|other| bare(&other) == text)
    };
    if alike(&context.champion.recipe, &context.champion.settings) {
        return Some(
            "it is nearly the champion: the same text, settings that differ by a few percent".to_string(),
        );
    }
    let tried = |proposal: &&Proposal| {
        context.history.verdicts.get(&proposal.number).is_none_or(was_tested)
            && alike(recipe_of(context, proposal), &proposal.settings)
    };
    let proposal = context.history.proposals.iter().rev().find(tried)?;
    let outcome =
        context.history.verdicts.get(&proposal.number).map_or("not decided yet", |v| v.decision.word());
    Some(format!(
        "it is nearly #{} ({outcome}): the same text, settings that differ by a few percent",
        proposal.number
    ))
}

fn recipe_of<'a>(context: &'a Context<'_>, proposal: &'a Proposal) -> &'a RecipeRef {
    let champion: &Promotion = &context.history.champions[proposal.generation as usize];
    proposal.recipe.as_ref().unwrap_or(&champion.recipe)
}

fn read(context: &Context<'_>, recipe: &RecipeRef) -> Option<String> {
    // A recipe whose file is gone is like no other.
    std::fs::read_to_string(Store::new(context.lab).path(&recipe.file)).ok()
}

fn alike(a: &Settings, b: &Settings) -> bool {
    a.len() == b.len()
        && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| same_value(value, other)))
}

fn same_value(a: &SettingValue, b: &SettingValue) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(x), Some(y)) => (x - y).abs() <= NEAR * x.abs().max(y.abs()),
        _ => a == b,
    }
}

/// The text without comments, blank lines and spaces at the ends of lines.
pub(super) fn bare(text: &str) -> String {
    text.lines().map(without_comment).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// A line up to a `#` outside of quotes.
fn without_comment(line: &str) -> &str {
    let mut quote: Option<char> = None;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match quote {
            _ if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '#' => return line[..at].trim_end(),
            None => {}
        }
    }
    line.trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_do_not_count() {
        assert_eq!(bare("a = 1  # one\n\n# two\nb = \"#\"  \n"), "a = 1\nb = \"#\"");
        assert_eq!(bare("x = \"\\\"#\" # y"), "x = \"\\\"#\"");
        assert_ne!(bare("a = 1"), bare("a = 2"));
    }

    #[test]
    fn settings_are_alike_within_a_tenth() {
        let one = |value| Settings::from([("lr".to_string(), SettingValue::Float(value))]);
        assert!(alike(&one(0.02), &one(0.0215)));
        assert!(!alike(&one(0.02), &one(0.03)));
        assert!(!alike(&one(0.02), &Settings::new()));
    }
}
