//! Champion against challengers on paired seeds: screening a round, and duels one at a time.

use crate::campaign::{Campaign, CampaignError, CampaignEvent};
use crate::judge::{self, Ruling};
use crate::levels;
use crate::random::hash;
use crate::world::{Checked, Score, Trial};
use pawl_record::{Decision, EqualTime, Evidence, PairRecord, Proposal, RecipeRef, Settings};
use std::collections::BTreeSet;

/// A proposal under trial.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) proposal: Proposal,
    pub(crate) checked: Option<Checked>,
    /// Place in the campaign's sequence of tests; 0 for one that takes none.
    pub(crate) test_index: u64,
    pub(crate) pairs: Vec<PairRecord>,
    /// Index of the next pair seed.
    next_pair: u64,
    /// Why its trial has no score, once that has happened.
    failure: Option<String>,
}

impl Candidate {
    pub(crate) fn untried(proposal: Proposal, checked: Option<Checked>) -> Candidate {
        Candidate { proposal, checked, test_index: 0, pairs: Vec::new(), next_pair: 0, failure: None }
    }

    pub(crate) fn differences(&self) -> Vec<f64> {
        self.pairs.iter().filter_map(|pair| pair.difference).collect()
    }

    /// Median over the pairs of the challenger's training seconds over the champion's.
    pub(crate) fn seconds_ratio(&self) -> Option<f64> {
        let mut ratios: Vec<f64> = self.pairs.iter().map(|pair| pair.seconds_ratio).collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied()
    }
}

/// Seed of a pair: fresh for every champion, so that none is judged on the seeds it won on. 31 bits, so
/// that it reads and types well; two of a campaign's few hundred seeds coincide once in ten thousand
/// campaigns, and then a pair is repeated, not lost.
fn pair_seed(campaign_seed: u64, generation: u64, pair_idx: u64) -> u64 {
    hash(&[campaign_seed, 1, generation, pair_idx]) >> 33
}

/// A slower challenger must win at equal seconds too; below this ratio the clock cannot tell.
const SLOWER: f64 = 1.1;

/// Seeds on which the champion itself diverges before the campaign gives up.
const MAX_VOID: usize = 5;

impl Campaign<'_> {
    /// One pair for each candidate. The hopeless are settled; the rest come back, best first.
    pub(crate) fn screen(&mut self, candidates: Vec<Candidate>) -> Result<Vec<Candidate>, CampaignError> {
        let mut screened: Vec<Candidate> = Vec::new();
        let mut open = candidates;
        while !open.is_empty() {
            let wanted: Vec<usize> = (0..open.len()).collect();
            self.add_pairs(&mut open, &wanted)?;
            let (done, void): (Vec<_>, Vec<_>) =
                open.into_iter().partition(|c| !c.pairs.is_empty() || c.failure.is_some());
            screened.extend(done);
            open = void;
        }
        let mut survivors = Vec::new();
        for candidate in screened {
            let (ruling, evidence) = self.rule(&candidate);
            match ruling {
                Ruling::Continue | Ruling::Keep => survivors.push(candidate),
                Ruling::Reject(_) | Ruling::Undecided(_) => {
                    self.close(candidate, ruling, evidence)?;
                }
            }
        }
        let gain = |candidate: &Candidate| candidate.pairs[0].difference.expect("survivors have a score");
        survivors.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
        Ok(survivors)
    }

    /// Adds pairs until the judge decides. Returns whether the challenger is the next champion.
    pub(crate) fn duel(&mut self, mut candidate: Candidate) -> Result<bool, CampaignError> {
        loop {
            let (ruling, evidence) = self.rule(&candidate);
            let superseded = candidate.proposal.generation != self.books.champion().generation;
            let ruling = match ruling {
                Ruling::Continue if superseded => Ruling::Undecided("the champion changed".to_string()),
                Ruling::Continue if !self.can_afford(1) => Ruling::Undecided("out of budget".to_string()),
                decided @ (Ruling::Keep | Ruling::Reject(_) | Ruling::Undecided(_) | Ruling::Continue) => {
                    decided
                }
            };
            if ruling != Ruling::Continue {
                return self.close(candidate, ruling, evidence);
            }
            let pairs = self.pairs_at_once(&candidate);
            let mut one = vec![candidate];
            self.add_pairs(&mut one, &vec![0; pairs])?;
            candidate = one.remove(0);
        }
    }

    /// Rules on a candidate. A challenger without a score is ruled out by its failure.
    fn rule(&mut self, candidate: &Candidate) -> (Ruling, Option<Evidence>) {
        let differences = candidate.differences();
        if let Some(failure) = &candidate.failure {
            return (Ruling::Reject(failure.clone()), None);
        }
        let judge = &self.manifest.judge;
        let level = levels::level(judge.alpha, candidate.test_index, self.books.num_kept());
        let (ruling, evidence) = judge::rule(judge, &self.scale(), &differences, level, candidate.test_index);
        (self.tell)(CampaignEvent::Pair {
            proposal: &candidate.proposal,
            pairs: &candidate.pairs,
            evidence: &evidence,
        });
        (ruling, Some(evidence))
    }

    /// Settles a candidate that needs no more pairs. Returns whether it is the next champion.
    fn close(
        &mut self,
        candidate: Candidate,
        ruling: Ruling,
        evidence: Option<Evidence>,
    ) -> Result<bool, CampaignError> {
        let (decision, control) = match (ruling, &candidate.failure) {
            (_, Some(failure)) => (Decision::Failed(failure.clone()), None),
            (Ruling::Keep, None) => (Decision::Keep, self.equal_time(&candidate)?),
            (Ruling::Reject(reason), None) => (Decision::Reject(reason), None),
            (Ruling::Undecided(reason), None) => (Decision::Undecided(reason), None),
            (Ruling::Continue, None) => unreachable!("an open duel is not closed"),
        };
        Ok(self.settle(candidate, decision, evidence, control)?.promoted)
    }

    /// As many pairs as fill the workers, and at least one; the champion's half may be known already.
    fn pairs_at_once(&self, candidate: &Candidate) -> usize {
        let left = (self.manifest.judge.max_pairs as usize).saturating_sub(candidate.pairs.len()).max(1);
        let mut trials = 0;
        for num_pairs in 0..left {
            let pair_idx = candidate.next_pair + num_pairs as u64;
            let champion = self.champion_trial(candidate.proposal.generation, pair_idx);
            trials += if self.books.score(&champion).is_some() { 1 } else { 2 };
            if trials > self.options.workers {
                return num_pairs.max(1);
            }
        }
        left
    }

    /// Runs one more pair for each mention in `wanted` (indices into `candidates`). A pair on whose seed the
    /// champion diverges is void: it is passed over, for every challenger.
    fn add_pairs(&mut self, candidates: &mut [Candidate], wanted: &[usize]) -> Result<(), CampaignError> {
        let mut slots = Vec::new();
        for &who in wanted {
            let candidate = &mut candidates[who];
            let generation = candidate.proposal.generation;
            let champion = self.champion_trial(generation, candidate.next_pair);
            let challenger = self.challenger_trial(&candidate.proposal, candidate.next_pair);
            candidate.next_pair += 1;
            slots.push((who, champion, challenger));
        }
        let mut trials: Vec<Trial> = Vec::new();
        for (_, champion, _) in &slots {
            if !trials.contains(champion) {
                trials.push(champion.clone());
            }
        }
        trials.extend(slots.iter().map(|(_, _, challenger)| challenger.clone()));
        let purpose = purpose(candidates, wanted);
        let scores = self.scores(&purpose, &trials, true)?;
        let score_of = |trial: &Trial| {
            let idx = trials.iter().position(|other| other == trial).expect("every trial was run");
            &scores[idx]
        };
        let mut void = BTreeSet::new();
        for (who, champion, challenger) in &slots {
            let candidate = &mut candidates[*who];
            let champion_score = score_of(champion).as_ref().map_err(|reason| CampaignError::Trial {
                what: format!("champion {}", candidate.proposal.generation),
                reason: reason.clone(),
            })?;
            match (champion_score.val_bpb, score_of(challenger)) {
                (None, _) => {
                    void.insert(champion.seed);
                    if candidate.next_pair as usize > self.manifest.judge.max_pairs as usize + MAX_VOID {
                        return Err(CampaignError::Trial {
                            what: format!("champion {}", candidate.proposal.generation),
                            reason: "it diverges on too many seeds".to_string(),
                        });
                    }
                }
                (Some(_), Err(reason)) => candidate.failure = Some(reason.clone()),
                (Some(champion_bpb), Ok(score)) => {
                    if score.val_bpb.is_none() {
                        let why = score.reason.clone().unwrap_or_else(|| "no score".to_string());
                        candidate.failure = Some(format!("diverged: {why}"));
                    }
                    candidate.pairs.push(pair(champion.seed, champion_score, champion_bpb, score));
                }
            }
        }
        Ok(())
    }

    fn champion_trial(&self, generation: u64, pair_idx: u64) -> Trial {
        let champion = &self.books.champions[generation as usize];
        self.pair_trial(generation, pair_idx, &champion.recipe, &champion.settings)
    }

    /// A champion's trial on a pair seed; the first of each champion leaves a checkpoint behind.
    pub(crate) fn pair_trial(
        &self,
        generation: u64,
        pair_idx: u64,
        recipe: &RecipeRef,
        settings: &Settings,
    ) -> Trial {
        let seed = pair_seed(self.manifest.seed, generation, pair_idx);
        Trial { keep: pair_idx == 0, ..self.trial(recipe, settings, seed) }
    }

    fn challenger_trial(&self, proposal: &Proposal, pair_idx: u64) -> Trial {
        let seed = pair_seed(self.manifest.seed, proposal.generation, pair_idx);
        let champion = &self.books.champions[proposal.generation as usize];
        self.trial(proposal.recipe.as_ref().unwrap_or(&champion.recipe), &proposal.settings, seed)
    }

    /// For a keep that took longer on every pair: the champion again, with its budget multiplied by the
    /// smallest ratio of seconds. Champion and challenger did not run at the same moment, and a neighbour on
    /// the machine slows some pairs; it takes a slow challenger to slow them all.
    fn equal_time(&mut self, candidate: &Candidate) -> Result<Option<EqualTime>, CampaignError> {
        let ratios = candidate.pairs.iter().map(|pair| pair.seconds_ratio);
        let ratio = ratios.fold(f64::INFINITY, f64::min);
        if ratio <= SLOWER {
            return Ok(None);
        }
        let ratio = (ratio * 20.0).round() / 20.0;
        let pairs =
            &candidate.pairs[..self.manifest.judge.min_pairs.min(candidate.pairs.len() as u64) as usize];
        let champion = &self.books.champions[candidate.proposal.generation as usize];
        let trials: Vec<Trial> = pairs
            .iter()
            .map(|pair| {
                let trial = self.trial(&champion.recipe, &champion.settings, pair.seed);
                Trial { flops: trial.flops * ratio, ..trial }
            })
            .collect();
        let purpose = format!("#{} at equal seconds", candidate.proposal.number);
        let mut champion_runs = Vec::new();
        let mut gains = Vec::new();
        for (score, pair) in self.scores(&purpose, &trials, true)?.into_iter().zip(pairs) {
            let score =
                score.map_err(|reason| CampaignError::Trial { what: "the champion".into(), reason })?;
            champion_runs.push(score.run);
            // With its longer budget the champion may diverge where it did not before: that is no gain of it.
            if let (Some(champion), Some(challenger)) = (score.val_bpb, pair.challenger_bpb) {
                gains.push(champion - challenger);
            }
        }
        let mean = if gains.is_empty() { 0.0 } else { gains.iter().sum::<f64>() / gains.len() as f64 };
        Ok(Some(EqualTime { seconds_ratio: ratio, champion_runs, mean }))
    }
}

fn pair(seed: u64, champion: &Score, champion_bpb: f64, challenger: &Score) -> PairRecord {
    PairRecord {
        seed,
        champion_run: champion.run.clone(),
        challenger_run: challenger.run.clone(),
        champion_bpb,
        challenger_bpb: challenger.val_bpb,
        difference: challenger.val_bpb.map(|bpb| champion_bpb - bpb),
        seconds_ratio: challenger.train_seconds / champion.train_seconds,
        tokens_per_sec_ratio: challenger.tokens_per_sec / champion.tokens_per_sec,
    }
}

fn purpose(candidates: &[Candidate], wanted: &[usize]) -> String {
    let numbers: BTreeSet<u64> = wanted.iter().map(|&who| candidates[who].proposal.number).collect();
    numbers.iter().map(|number| format!("#{number}")).collect::<Vec<_>>().join(" ")
}
