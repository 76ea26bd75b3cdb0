//! Leaps: many settings turned at once.
//!
//! A single change is the clearest test and the slowest walk. Where a recipe starts far from what suits it, a trial that
//! turns a dozen settings costs no more than one that turns one, and the model of gains, which adds up over settings,
//! learns of all of them. So it is Thompson sampling again, over whole configurations: of one joint draw the best value of
//! each setting, those that are drawn as gains. A few are tried at the start, and a promotion buys a few more, so that a
//! campaign which has arrived goes on in steps. What rides along without carrying its weight is taken out by the campaign
//! ([`crate::prune`]).

use super::{Candidate, is_unproposed, prediction};
use crate::belief::{Belief, Move};
use crate::books::was_tested;
use crate::researcher::{Context, Draft, Researcher};
use pawl_record::{Category, Change, Proposal};

/// Settings of a leap.
pub(super) const LEAST: usize = 3;
const MOST: usize = 16;

/// Leaps that are tried before the first was promoted, what each promotion buys, and the steps that buy one more.
const TRIES: usize = 4;
const TRIES_OF_PROMOTED: usize = 3;
const STEPS_A_TRY: usize = 12;

/// Whether a leap is to be tried next.
pub(super) fn is_due(context: &Context<'_>) -> bool {
    let own = |proposal: &&Proposal| proposal.researcher == Researcher::Leaps.name();
    let (leaps, steps): (Vec<&Proposal>, Vec<&Proposal>) =
        context.history.proposals.iter().filter(own).partition(|proposal| is_leap(proposal));
    let verdict = |proposal: &&Proposal| context.history.verdicts.get(&proposal.number);
    let promoted = leaps.iter().filter_map(verdict).filter(|it| it.promoted).count();
    let tried = leaps.iter().filter_map(verdict).filter(|it| was_tested(it)).count();
    let pending = leaps.iter().filter(|it| verdict(it).is_none()).count();
    let steps = steps.iter().filter_map(verdict).filter(|it| was_tested(it)).count();
    tried + pending < TRIES + TRIES_OF_PROMOTED * promoted + steps / STEPS_A_TRY
}

fn is_leap(proposal: &Proposal) -> bool {
    proposal.changes.len() >= LEAST && proposal.recipe.is_none()
}

/// The best value of each setting by one joint draw, of those that are drawn as gains; nothing where they are few, or were
/// proposed before.
pub(super) fn draft(
    context: &Context<'_>,
    belief: &Belief,
    unit: f64,
    drawn: &[(&Candidate<'_>, f64)],
) -> Option<Draft> {
    let mut chosen: Vec<&Candidate<'_>> = Vec::new();
    for (candidate, gain) in drawn {
        let is_new = !chosen.iter().any(|other| other.spec.name == candidate.spec.name);
        if *gain > 0.0 && is_new && chosen.len() < MOST {
            chosen.push(candidate);
        }
    }
    if chosen.len() < LEAST || !is_unproposed(context, &chosen) {
        return None;
    }
    chosen.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    let moves: Vec<Move> = chosen.iter().flat_map(|it| it.moves.clone()).collect();
    let (mean, sd) = belief.gain(&moves);
    let (mean, sd) = (mean * unit, sd * unit);
    let change = |it: &&Candidate<'_>| Change {
        setting: it.spec.name.clone(),
        from: it.spec.value.clone(),
        to: it.to.clone(),
    };
    let changes: Vec<Change> = chosen.iter().map(change).collect();
    Some(Draft {
        recipe: None,
        category: Category::Combined,
        hypothesis: format!(
            "{} settings at once gain {mean:+.1} +- {sd:.1} pair sds by the additive model.",
            changes.len()
        ),
        changes,
        prediction: prediction(context, mean, sd),
        researcher: Researcher::Leaps.name(),
        author: None,
    })
}
