//! Leaps: many settings drawn anew at once.
//!
//! A single change is the clearest test and the slowest walk. A recipe may start on a plateau, where what is wrong is wrong
//! together and no change alone moves the score; a trial that turns everything costs no more than one that turns one thing. So a
//! campaign begins with a few whole configurations drawn at random. A promotion buys a few more, around what it came to; where
//! none wins, what is left is for steps. What rides along without carrying its weight is taken out by the
//! campaign ([`crate::prune`]). The model of gains learns nothing from a leap: so many at once are not the sum of their
//! parts.

use super::prediction_of;
use crate::baselines::{drawn, movable};
use crate::books::was_tested;
use crate::random::Random;
use crate::researcher::{Context, Draft, Researcher};
use pawl_record::{Category, Change, Proposal};

/// Changes from which on a proposal of settings counts as a leap.
const LEAST: usize = 4;

/// Settings of a space below which steps are quick enough.
const LEAST_SPACE: usize = 12;

/// Leaps that are tried before the first was promoted, and what each promotion buys.
const TRIES: usize = 3;
const TRIES_OF_PROMOTED: usize = 4;

/// Share of the settings that is drawn anew once a leap was promoted.
const REDRAWN: f64 = 0.4;

/// Draws of a leap until one compiles to a program that a trial can afford.
const DRAWS: usize = 20;

/// What became of the leaps so far.
struct Leaps {
    tried: usize,
    promoted: usize,
    due: bool,
}

fn leaps(context: &Context<'_>) -> Leaps {
    let own = |proposal: &&Proposal| proposal.researcher == Researcher::Optimizer.name();
    let leaps: Vec<&Proposal> =
        context.history.proposals.iter().filter(own).filter(|proposal| is_leap(proposal)).collect();
    let verdict = |proposal: &&Proposal| context.history.verdicts.get(&proposal.number);
    let promoted = leaps.iter().filter_map(&verdict).filter(|it| it.promoted).count();
    let pending = leaps.iter().filter(|it| verdict(it).is_none()).count();
    let tried = leaps.iter().filter_map(verdict).filter(|it| was_tested(it)).count();
    Leaps { tried, promoted, due: tried + pending < TRIES + TRIES_OF_PROMOTED * promoted }
}

pub(super) fn is_leap(proposal: &Proposal) -> bool {
    proposal.changes.len() >= LEAST && proposal.recipe.is_none()
}

/// The next leap, if it is time for one.
pub(super) fn draft(context: &Context<'_>) -> Option<Draft> {
    let leaps = leaps(context);
    if !leaps.due || movable(context).len() < LEAST_SPACE {
        return None;
    }
    let mut random = Random::new(&[context.seed, 0x6c65, context.number]);
    let share = if leaps.promoted == 0 { 1.0 } else { REDRAWN };
    let changes = (0..DRAWS).find_map(|_| turned(context, share, &mut random))?;
    // Laplace's rule on those before, which were as likely as a toss is fair.
    let keep_probability = (leaps.promoted + 1) as f64 / (leaps.tried + 3) as f64;
    Some(Draft {
        recipe: None,
        category: Category::Combined,
        hypothesis: format!(
            "A leap: {} settings drawn anew at once; {} of {} before it were promoted.",
            changes.len(),
            leaps.promoted,
            leaps.tried
        ),
        changes,
        prediction: prediction_of(0.0, keep_probability),
        researcher: Researcher::Optimizer.name(),
        author: None,
    })
}

/// So many settings of the champion drawn anew, if they make a program that a trial can afford.
fn turned(context: &Context<'_>, share: f64, random: &mut Random) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    for spec in movable(context) {
        if random.uniform() < share {
            let to = drawn(spec, random);
            if to != spec.value {
                changes.push(Change { setting: spec.name.clone(), from: spec.value.clone(), to });
            }
        }
    }
    let (_, checked) = context.compile_draft(None, &changes).ok()?;
    let steps = context.manifest.rungs.first().flops / checked.flops_per_step;
    (changes.len() >= LEAST && steps >= crate::campaign::MIN_STEPS).then_some(changes)
}
