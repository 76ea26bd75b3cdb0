//! Champion against challengers on paired seeds: how a campaign holds [`crate::court`] with training runs.

use crate::campaign::{Campaign, CampaignError, CampaignEvent, known_of};
use crate::court::{Case, Court};
use crate::evidence::Scores;
use crate::judge::{Known, Ruling};
use crate::random::hash;
use crate::world::{Checked, Score, Trial};
use pawl_record::{
    Climb, Decision, EqualTime, Evidence, JudgeSettings, PairRecord, Proposal, RecipeRef, Settings,
};
use std::collections::BTreeSet;

/// A proposal under trial.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) proposal: Proposal,
    pub(crate) checked: Option<Checked>,
    /// Place in the campaign's sequence of tests; 0 for one that takes none.
    pub(crate) test_index: u64,
    pub(crate) pairs: Vec<PairRecord>,
    /// Index of its first pair seed.
    first_pair: u64,
    /// Index of the next pair seed.
    next_pair: u64,
    /// Why its trial has no score, once that has happened.
    failure: Option<String>,
    /// On the rungs above, once it was kept.
    pub(crate) climbs: Vec<Climb>,
}

impl Candidate {
    pub(crate) fn untried(proposal: Proposal, checked: Option<Checked>) -> Candidate {
        Candidate {
            proposal,
            checked,
            test_index: 0,
            pairs: Vec::new(),
            first_pair: 0,
            next_pair: 0,
            failure: None,
            climbs: Vec::new(),
        }
    }

    /// With its pairs on the seeds from that one on.
    pub(crate) fn starting_at(self, first_pair: u64) -> Candidate {
        Candidate { first_pair, next_pair: first_pair, ..self }
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
pub(crate) fn pair_seed(campaign_seed: u64, generation: u64, pair_idx: u64) -> u64 {
    hash(&[campaign_seed, 1, generation, pair_idx]) >> 33
}

/// A slower challenger must win at equal seconds too; below this ratio the clock cannot tell.
pub(crate) const SLOWER: f64 = 1.1;

/// Seeds on which the champion itself diverges before the campaign gives up.
pub(crate) const MAX_VOID: usize = 5;

impl Court for Campaign<'_> {
    type Candidate = Candidate;
    type Error = CampaignError;

    fn settings(&self) -> JudgeSettings {
        self.manifest.judge
    }

    fn known(&self, candidate: &Candidate) -> Known {
        let noise = self.noise.as_ref().expect("the noise is learnt before the first proposal");
        known_of(noise, &self.books.champions[candidate.proposal.generation as usize])
            .starting_at(candidate.first_pair)
    }

    fn num_promoted(&self) -> u64 {
        self.books.num_promoted()
    }

    fn generation(&self) -> u64 {
        self.books.champion().generation
    }

    fn can_afford_pair(&self, candidate: &Candidate) -> bool {
        self.can_afford(1 + self.control_trials(candidate))
    }

    fn case(&self, candidate: &Candidate) -> Case {
        Case {
            test_index: candidate.test_index,
            generation: candidate.proposal.generation,
            pairs: candidate.pairs.iter().filter_map(scores_of).collect(),
            failure: candidate.failure.clone(),
        }
    }

    /// As many pairs as fill the workers, and at least one; the champion's half may be known already.
    fn pairs_at_once(&self, candidate: &Candidate) -> usize {
        let left = (self.manifest.judge.max_pairs as usize).saturating_sub(candidate.pairs.len()).max(1);
        let mut trials = 0;
        for num_pairs in 0..left {
            let pair_idx = candidate.next_pair + num_pairs as u64;
            trials += if self.champion_is_known(candidate.proposal.generation, pair_idx) { 1 } else { 2 };
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
            slots.push((champion, challenger));
        }
        let tried = self.try_pairs(&purpose(candidates, wanted), &slots)?;
        for (&who, tried) in wanted.iter().zip(tried) {
            let candidate = &mut candidates[who];
            let is_void = tried.pair.is_none() && tried.failure.is_none();
            candidate.pairs.extend(tried.pair);
            candidate.failure = tried.failure.or(candidate.failure.take());
            let num_tried = (candidate.next_pair - candidate.first_pair) as usize;
            if is_void && num_tried > self.manifest.judge.max_pairs as usize + MAX_VOID {
                candidate.failure = Some("the champion diverges on too many of its seeds".to_string());
            }
        }
        Ok(())
    }

    fn look(&mut self, candidate: &Candidate, evidence: &Evidence) {
        let Candidate { proposal, pairs, .. } = candidate;
        (self.tell)(CampaignEvent::Pair { proposal, pairs, evidence });
    }

    /// Settles a candidate that needs no more pairs, and makes it champion if it is the next one.
    fn close(
        &mut self,
        mut candidate: Candidate,
        ruling: Ruling,
        evidence: Option<Evidence>,
    ) -> Result<(), CampaignError> {
        let (decision, control) = match (ruling, &candidate.failure) {
            (_, Some(failure)) => (Decision::Failed(failure.clone()), None),
            (Ruling::Keep, None) => (Decision::Keep, self.equal_time(&candidate)?),
            (Ruling::Reject(reason), None) => (Decision::Reject(reason), None),
            (Ruling::Undecided(reason), None) => (Decision::Undecided(reason), None),
            (Ruling::Continue, None) => unreachable!("an open duel is not closed"),
        };
        if decision == Decision::Keep && wins_time(control.as_ref()) {
            candidate.climbs = self.climb(&candidate)?;
        }
        let number = candidate.proposal.number;
        if self.settle(candidate, decision, evidence, control)?.promoted {
            self.promote(number)?;
        }
        Ok(())
    }
}

/// What a pair came to; neither where the champion diverged, which makes it void.
pub(crate) struct Tried {
    pub(crate) pair: Option<PairRecord>,
    /// Why the challenger has no score.
    pub(crate) failure: Option<String>,
}

/// Whether a keep wins, or need not win, at equal seconds.
pub(crate) fn wins_time(control: Option<&EqualTime>) -> bool {
    control.is_none_or(|control| control.mean > 0.0)
}

impl Campaign<'_> {
    /// Runs both arms of some pairs, champion first, each trial once.
    pub(crate) fn try_pairs(
        &mut self,
        purpose: &str,
        slots: &[(Trial, Trial)],
    ) -> Result<Vec<Tried>, CampaignError> {
        let mut trials: Vec<Trial> = Vec::new();
        for (champion, _) in slots {
            if !trials.contains(champion) {
                trials.push(champion.clone());
            }
        }
        trials.extend(slots.iter().map(|(_, challenger)| challenger.clone()));
        let scores = self.scores(purpose, &trials, true)?;
        let score_of = |trial: &Trial| {
            let idx = trials.iter().position(|other| other == trial).expect("every trial was run");
            &scores[idx]
        };
        let mut tried = Vec::new();
        for (champion, challenger) in slots {
            let champion_score = score_of(champion).as_ref().map_err(|reason| CampaignError::Trial {
                what: "the champion".to_string(),
                reason: reason.clone(),
            })?;
            tried.push(match (champion_score.val_bpb, score_of(challenger)) {
                (None, _) => Tried { pair: None, failure: None },
                (Some(_), Err(reason)) => Tried { pair: None, failure: Some(reason.clone()) },
                (Some(champion_bpb), Ok(score)) => Tried {
                    failure: score.val_bpb.is_none().then(|| {
                        let why = score.reason.clone().unwrap_or_else(|| "no score".to_string());
                        format!("diverged: {why}")
                    }),
                    pair: Some(pair(champion.seed, champion_score, champion_bpb, score)),
                },
            });
        }
        Ok(tried)
    }

    /// Whether a record on file has the champion's run on a pair seed: what this process remembers would make a
    /// resumed campaign take its looks at other pairs than an uninterrupted one.
    fn champion_is_known(&self, generation: u64, pair_idx: u64) -> bool {
        let seed = pair_seed(self.manifest.seed, generation, pair_idx);
        let first = match generation {
            0 => self.manifest.judge.noise_pairs,
            _ => self.books.champions[generation as usize].fresh_runs.len() as u64,
        };
        pair_idx < first || self.books.has_pair(generation, seed)
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

    /// Trials of the first rung that the control of a candidate at equal seconds would take, were it kept.
    fn control_trials(&self, candidate: &Candidate) -> usize {
        match least_ratio(&candidate.pairs) {
            ratio if ratio > SLOWER && ratio.is_finite() => {
                (self.manifest.judge.min_pairs as f64 * ratio).ceil() as usize
            }
            _ => 0,
        }
    }

    /// For a keep that took longer on every pair: the champion again, with its budget multiplied by the
    /// smallest ratio of seconds. Champion and challenger did not run at the same moment, and a neighbour on
    /// the machine slows some pairs; it takes a slow challenger to slow them all.
    fn equal_time(&mut self, candidate: &Candidate) -> Result<Option<EqualTime>, CampaignError> {
        let ratio = least_ratio(&candidate.pairs);
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

/// The smallest ratio of seconds over some pairs.
pub(crate) fn least_ratio(pairs: &[PairRecord]) -> f64 {
    pairs.iter().map(|pair| pair.seconds_ratio).fold(f64::INFINITY, f64::min)
}

/// Both arms of a pair, when the challenger has a score.
pub(crate) fn scores_of(pair: &PairRecord) -> Option<Scores> {
    Some(Scores { champion: pair.champion_bpb, challenger: pair.challenger_bpb? })
}

pub(crate) fn pair(seed: u64, champion: &Score, champion_bpb: f64, challenger: &Score) -> PairRecord {
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
