//! Who judges well: predictions against verdicts, by researcher, model and category, and what asking has cost.
//!
//! A prediction counts when its proposal took a test; a skip says nothing about the world. The score is Brier's
//! (1950), the mean squared error of the probabilities: 0 is perfect, and whoever always says the share that was
//! kept gets `base`.

use crate::books::was_tested;
use crate::models::record::{self, Entry};
use crate::models::spend::{Spent, spent};
use crate::store::Store;
use pawl_record::{Decision, FileError, Proposal, Verdict};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Predictions that belong together, against what came.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// `researcher`, `model` or `category`.
    pub by: &'static str,
    /// Which.
    pub name: String,
    /// Proposals.
    pub proposals: u64,
    /// Those that took a test.
    pub tested: u64,
    /// Kept.
    pub kept: u64,
    /// Gains that were promoted, bits per byte, as they were measured when they won.
    pub promoted_gain: f64,
    /// Mean squared error of the probabilities.
    pub brier: Option<f64>,
    /// That of always saying the share that was kept.
    pub base: Option<f64>,
    /// Mean of predicted gain less measured gain, bits per byte: above 0 is hopeful.
    pub gain_bias: Option<f64>,
    /// What the conversations behind the proposals cost, US dollars.
    pub cost_usd: f64,
    /// Probabilities in bands, where there are any.
    pub calibration: Vec<Band>,
}

/// Predictions with about the same probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Band {
    /// From...
    pub low: f64,
    /// ...to.
    pub high: f64,
    /// How many.
    pub tested: u64,
    /// Their mean probability.
    pub said: f64,
    /// The share that was kept.
    pub kept: f64,
}

/// The ends of the bands: most changes are long shots, so that low probabilities are told apart.
const BANDS: [f64; 6] = [0.0, 0.05, 0.15, 0.35, 0.65, 1.0];

/// Conversations of one researcher, with those that led nowhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Conversations {
    /// Who asked.
    pub researcher: String,
    /// How many.
    pub conversations: u64,
    /// That ended with a proposal.
    pub proposed: u64,
    /// Requests, those that failed included.
    pub requests: u64,
    /// Requests without an answer that could be used.
    pub failed_requests: u64,
    /// Tokens sent.
    pub input_tokens: u64,
    /// Tokens answered.
    pub output_tokens: u64,
    /// US dollars.
    pub cost_usd: f64,
    /// Why the others ended, and how often.
    pub nowhere: BTreeMap<String, u64>,
    /// Models that answered, and how many conversations.
    pub models: BTreeMap<String, u64>,
}

/// Everything known of the researchers of a lab.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judgement {
    /// By researcher, then by model, then by category.
    pub groups: Vec<Group>,
    /// By researcher.
    pub conversations: Vec<Conversations>,
    /// All of it, requests that may have been charged included.
    pub spent: Spent,
}

/// Reads the campaign of a lab.
pub fn judgement(lab: &Path) -> Result<Judgement, FileError> {
    let store = Store::new(lab);
    let mut decided = Vec::new();
    for proposal in store.proposals()? {
        if let Some(verdict) = store.verdict(proposal.number)? {
            decided.push((proposal, verdict));
        }
    }
    let researcher = |proposal: &Proposal| Some(proposal.researcher.clone());
    let model = |proposal: &Proposal| proposal.author.as_ref().map(|author| author.model.clone());
    let category = |proposal: &Proposal| Some(proposal.category.word().to_string());
    let mut groups = grouped("researcher", &decided, researcher);
    groups.extend(grouped("model", &decided, model));
    groups.extend(grouped("category", &decided, category));
    Ok(Judgement { groups, conversations: conversations(&store)?, spent: spent(&store)? })
}

fn grouped(
    by: &'static str,
    decided: &[(Proposal, Verdict)],
    name: impl Fn(&Proposal) -> Option<String>,
) -> Vec<Group> {
    let mut members: BTreeMap<String, Vec<&(Proposal, Verdict)>> = BTreeMap::new();
    for one in decided {
        if let Some(name) = name(&one.0) {
            members.entry(name).or_default().push(one);
        }
    }
    members.into_iter().map(|(name, members)| group(by, name, &members)).collect()
}

fn group(by: &'static str, name: String, members: &[&(Proposal, Verdict)]) -> Group {
    let tested: Vec<&(Proposal, Verdict)> =
        members.iter().copied().filter(|(_, verdict)| was_tested(verdict)).collect();
    let predictions: Vec<(f64, f64)> = tested
        .iter()
        .map(|(proposal, verdict)| {
            (proposal.prediction.keep_probability, f64::from(u8::from(verdict.decision == Decision::Keep)))
        })
        .collect();
    let share = mean(predictions.iter().map(|(_, kept)| *kept));
    let evidence = |(proposal, verdict): &&(Proposal, Verdict)| {
        verdict.evidence.as_ref().map(|evidence| proposal.prediction.gain_bpb - evidence.mean)
    };
    let promoted = members.iter().filter(|(_, verdict)| verdict.promoted);
    Group {
        by,
        name,
        proposals: members.len() as u64,
        tested: tested.len() as u64,
        kept: predictions.iter().filter(|(_, kept)| *kept > 0.0).count() as u64,
        promoted_gain: promoted
            .filter_map(|(_, verdict)| verdict.evidence.as_ref())
            .map(|e| e.mean)
            .fold(0.0, |sum, gain| sum + gain),
        brier: mean(predictions.iter().map(|(said, kept)| (said - kept).powi(2))),
        base: share.map(|share| share * (1.0 - share)),
        gain_bias: mean(tested.iter().filter_map(evidence)),
        cost_usd: members
            .iter()
            .filter_map(|(proposal, _)| proposal.author.as_ref())
            .map(|a| a.cost_usd)
            // A sum of nothing is minus zero.
            .fold(0.0, |sum, cost| sum + cost),
        calibration: bands(&predictions),
    }
}

fn bands(predictions: &[(f64, f64)]) -> Vec<Band> {
    let band = |ends: &[f64]| {
        let last = ends[1] == 1.0;
        let within: Vec<&(f64, f64)> = predictions
            .iter()
            .filter(|(said, _)| (ends[0]..ends[1]).contains(said) || last && *said == 1.0)
            .collect();
        let said = mean(within.iter().map(|(said, _)| *said))?;
        let kept = mean(within.iter().map(|(_, kept)| *kept))?;
        Some(Band { low: ends[0], high: ends[1], tested: within.len() as u64, said, kept })
    };
    BANDS.windows(2).filter_map(band).collect()
}

fn mean(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0u64);
    for number in numbers {
        sum += number;
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}

fn conversations(store: &Store) -> Result<Vec<Conversations>, FileError> {
    let mut by_name: BTreeMap<String, Conversations> = BTreeMap::new();
    for file in record::files(&store.path("conversations"))? {
        let entries = record::read(&file)?;
        let Some(Entry::Began { researcher, .. }) = entries.first() else { continue };
        let sums = by_name.entry(researcher.clone()).or_default();
        sums.researcher.clone_from(researcher);
        sums.conversations += 1;
        let mut ended = false;
        for entry in &entries {
            match entry {
                Entry::Began { .. } | Entry::Sent { .. } | Entry::Received { .. } => {}
                Entry::Failed { .. } => sums.failed_requests += 1,
                Entry::Ended {
                    outcome,
                    proposed,
                    model,
                    requests,
                    input_tokens,
                    output_tokens,
                    cost_usd,
                } => {
                    ended = true;
                    sums.proposed += u64::from(*proposed);
                    sums.requests += requests;
                    sums.input_tokens += input_tokens;
                    sums.output_tokens += output_tokens;
                    sums.cost_usd += cost_usd;
                    if !proposed {
                        *sums.nowhere.entry(outcome.clone()).or_default() += 1;
                    }
                    if !model.is_empty() {
                        *sums.models.entry(model.clone()).or_default() += 1;
                    }
                }
            }
        }
        if !ended {
            *sums.nowhere.entry("it was killed".to_string()).or_default() += 1;
        }
    }
    Ok(by_name.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_hold_what_was_said_and_what_came() {
        let bands = bands(&[(0.0, 0.0), (0.04, 1.0), (0.5, 1.0), (0.5, 0.0), (1.0, 1.0)]);
        assert_eq!(bands.len(), 3);
        assert_eq!((bands[0].tested, bands[0].said, bands[0].kept), (2, 0.02, 0.5));
        assert_eq!((bands[1].low, bands[1].high, bands[1].kept), (0.35, 0.65, 0.5));
        assert_eq!((bands[2].tested, bands[2].kept), (1, 1.0));
    }
}
