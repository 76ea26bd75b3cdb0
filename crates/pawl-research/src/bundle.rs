//! Changes that look promising and that no duel has settled, together: small gains are common, add up, and are beyond what one duel can
//! decide. This file chooses; a bundle is then a proposal like any other, and what wins is pruned to the parts that
//! carry it ([`crate::prune`]).
//!
//! What chooses is the posterior mean of each change's gain under a normal prior about zero, one pair standard deviation
//! wide, given its pairs. It does not depend on why its duel ended (Berger and Wolpert, *The likelihood principle*,
//! 1988), and it shrinks what was lucky. It is a choice of what to try, never evidence.

use crate::books::Books;
use crate::judge::NoiseScale;
use crate::library::{estimate, posterior};
use crate::researcher::Draft;
use crate::upkeep::{CAMPAIGN, expected};
use crate::world::Checked;
use pawl_record::{Category, Change, Decision, JudgeSettings, Proposal, Verdict};

/// Most changes in a bundle: each is one more that pruning has to look at.
const MOST: usize = 4;

/// Spread of gains before anything is seen, pair sds: most changes of the shipped recipe are worth about one.
const PRIOR_SDS: f64 = 1.0;

/// Expected gain, pair sds, from which on a bundle is worth its pairs: the judge keeps half of what gains this much.
/// Of 0.5, 1, 1.5 and 2 it kept most small gains in simulated campaigns (LOG.md).
const WORTH_SDS: f64 = 1.5;

/// Variance, in pair sds squared, that a champion since adds to what is known of a gain.
const AGEING: f64 = 0.25;

/// A change that no duel has settled.
struct Open {
    proposal: u64,
    change: Change,
    mean: f64,
    variance: f64,
}

/// The bundle that is due beside the present champion, if there is one.
pub(crate) fn draft(
    books: &Books,
    compiled: &Checked,
    noise: &NoiseScale,
    judge: &JudgeSettings,
) -> Option<Draft> {
    let sd = noise.sd();
    let mut open: Vec<Open> =
        books.history().filter_map(|(proposal, verdict)| open_change(books, proposal, verdict, sd)).collect();
    open.retain(|it| it.mean * sd > judge.min_effect_bpb && fits(compiled, &it.change));
    open.sort_by(|a, b| b.mean.total_cmp(&a.mean));
    let mut bundle: Vec<Open> = Vec::new();
    for one in open {
        if bundle.len() < MOST && bundle.iter().all(|other| other.change.setting != one.change.setting) {
            bundle.push(one);
        }
    }
    let gains: Vec<(f64, f64)> = bundle.iter().map(|it| (it.mean, it.variance)).collect();
    if bundle.len() < 2 || gains.iter().map(|(mean, _)| mean).sum::<f64>() < WORTH_SDS {
        return None;
    }
    bundle.sort_by(|a, b| a.change.setting.cmp(&b.change.setting));
    let names: Vec<String> =
        bundle.iter().map(|it| format!("#{} ({:+.4})", it.proposal, it.mean * sd)).collect();
    Some(Draft {
        recipe: None,
        changes: bundle.into_iter().map(|it| it.change).collect(),
        category: Category::Combined,
        hypothesis: format!("Undecided alone, perhaps decided together: {}.", names.join(" with ")),
        prediction: expected(&gains, sd),
        researcher: CAMPAIGN.to_string(),
        author: None,
    })
}

/// A single change that was neither kept nor hopeless at first sight, and that has not been in a bundle since. A
/// reject after several pairs says that the change is not worth more pairs of its own, not that it is worth nothing.
fn open_change(books: &Books, proposal: &Proposal, verdict: &Verdict, sd: f64) -> Option<Open> {
    let is_open = match verdict.decision {
        Decision::Undecided(_) => true,
        Decision::Reject(_) => {
            verdict.pairs.len() > 1 && verdict.pairs.iter().all(|pair| pair.difference.is_some())
        }
        Decision::Keep | Decision::Skipped(_) | Decision::Failed(_) => false,
    };
    let [change] = proposal.changes.as_slice() else { return None };
    if !is_open {
        return None;
    }
    let rode = |other: &Proposal| {
        other.number > proposal.number
            && other.researcher == CAMPAIGN
            && other.changes.iter().any(|it| it.setting == change.setting && it.to == change.to)
    };
    if proposal.recipe.is_some() || books.proposals.iter().any(rode) {
        return None;
    }
    let differences: Vec<f64> = verdict.pairs.iter().filter_map(|pair| pair.difference).collect();
    let seen = estimate(&differences, sd)?;
    let age = (books.champion().generation - proposal.generation) as f64;
    let variance = (seen.standard_error / sd).powi(2) + AGEING * age;
    let (mean, variance) = posterior(seen.mean / sd, variance, PRIOR_SDS);
    Some(Open { proposal: proposal.number, change: change.clone(), mean, variance })
}

/// Whether the champion still stands where the change was tried from.
fn fits(compiled: &Checked, change: &Change) -> bool {
    compiled.settings.iter().any(|spec| spec.name == change.setting && spec.value == change.from)
}
