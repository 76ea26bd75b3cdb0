//! All records of one campaign in memory: what its folder says, and sums over it.
//!
//! Reads, remembers and counts; writes nothing and decides nothing.

use crate::campaign::CampaignError;
use crate::library::Pooled;
use crate::store::Store;
use crate::world::{Score, Trial};
use pawl_ledger::{Part, parts};
use pawl_record::{
    CampaignEnd, Decision, EndReason, Noise, PairRecord, PartRuling, Promotion, Proposal, Pruning,
    Replication, Retraction, SCHEMA, Verdict,
};
use std::collections::{BTreeMap, BTreeSet};

/// The records.
#[derive(Debug, Default)]
pub struct Books {
    /// By generation; the first is the starting recipe.
    pub champions: Vec<Promotion>,
    /// By number less one.
    pub proposals: Vec<Proposal>,
    /// By number of the proposal.
    pub verdicts: BTreeMap<u64, Verdict>,
    /// By number less one.
    pub prunings: Vec<Pruning>,
    /// By number less one.
    pub retractions: Vec<Retraction>,
    /// By proposal and number.
    pub replications: Vec<Replication>,
    /// What other labs say of single changes.
    pub elsewhere: Vec<Pooled>,
    /// Scores this process has seen, by what determines them.
    scores: BTreeMap<String, Score>,
    /// Runs that count against the budget, with what they cost.
    runs: BTreeMap<String, Cost>,
    /// Runs whose cost stands in a record already.
    claimed: BTreeSet<String>,
    /// Sums over records read from files, whose runs this process has not seen.
    read: Cost,
}

/// What some runs cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// How many.
    pub runs: u64,
    /// FLOPs.
    pub flops: f64,
    /// Training seconds.
    pub seconds: f64,
}

impl Cost {
    fn add(&mut self, other: Cost) {
        self.runs += other.runs;
        self.flops += other.flops;
        self.seconds += other.seconds;
    }
}

/// What determines a score: all of a trial but how long it may take and what it leaves behind.
fn key(trial: &Trial) -> String {
    format!("{:?}", Trial { limit_s: None, keep: false, ..trial.clone() })
}

impl Books {
    /// What the folder says.
    pub fn read(store: &Store) -> Result<Books, CampaignError> {
        let proposals = store.proposals()?;
        let mut verdicts = BTreeMap::new();
        for proposal in &proposals {
            if let Some(verdict) = store.verdict(proposal.number)? {
                verdicts.insert(proposal.number, verdict);
            }
        }
        let mut books = Books {
            champions: store.champions()?,
            proposals,
            verdicts,
            prunings: store.prunings()?,
            retractions: store.retractions()?,
            replications: store.replications()?,
            ..Books::default()
        };
        if let Some(noise) = store.noise()? {
            books.claimed.extend(noise.pairs.iter().flat_map(|pair| pair.runs.clone()));
            let runs = 2 * noise.pairs.len() as u64;
            books.read.add(Cost { runs, flops: noise.flops, seconds: noise.train_seconds });
        }
        books.claimed.extend(books.champions.iter().flat_map(|champion| champion.fresh_runs.clone()));
        for verdict in books.verdicts.values() {
            books.claimed.extend(runs_of(verdict.all_pairs()));
            books.claimed.extend(verdict.equal_time.iter().flat_map(|control| control.champion_runs.clone()));
            // On no file of a champion yet, where a kill came between the two.
            books.claimed.extend(verdict.fresh.iter().flat_map(|fresh| fresh.runs.clone()));
            books.read.add(Cost { runs: verdict.runs, flops: verdict.flops, seconds: verdict.run_seconds });
        }
        for pruning in &books.prunings {
            books.claimed.extend(runs_of(pruning.all_pairs()));
            books.claimed.extend(pruning.fresh_runs.clone());
            books.read.add(Cost { runs: pruning.runs, flops: pruning.flops, seconds: pruning.run_seconds });
        }
        Ok(books)
    }

    /// The present champion.
    pub fn champion(&self) -> &Promotion {
        self.champions.last().expect("a campaign has a starting recipe")
    }

    /// Every proposal with its verdict, in order.
    pub fn history(&self) -> impl Iterator<Item = (&Proposal, &Verdict)> {
        self.proposals.iter().filter_map(|p| self.verdicts.get(&p.number).map(|verdict| (p, verdict)))
    }

    /// Proposals on file whose verdict is not: a round that was interrupted.
    pub fn unfinished(&self) -> Vec<Proposal> {
        self.proposals.iter().filter(|p| !self.verdicts.contains_key(&p.number)).cloned().collect()
    }

    /// A keep that should be champion and is not yet on file as one.
    pub fn unrecorded_promotion(&self) -> Option<u64> {
        let champion = self.champions.last()?;
        let next = |verdict: &&Verdict| {
            verdict.promoted
                && verdict.generation == champion.generation
                && !self.is_retracted(verdict.proposal)
        };
        self.verdicts.values().find(next).map(|verdict| verdict.proposal)
    }

    /// A part that was to leave the champion and has not yet.
    pub fn unrecorded_pruning(&self) -> Option<&Pruning> {
        let champion = self.champions.last()?;
        let last = self.prunings.last()?;
        (last.generation == champion.generation && last.ruling == PartRuling::Leaves).then_some(last)
    }

    /// Whether the keep of that proposal was withdrawn.
    pub fn is_retracted(&self, proposal: u64) -> bool {
        self.retractions.iter().any(|retraction| retraction.proposal == proposal)
    }

    /// What a champion owes to keeps.
    pub fn parts(&self, generation: u64) -> Vec<Part> {
        parts(&self.champions, &self.proposals, &self.prunings, generation)
    }

    /// The proposal that tried this program, if any: a skip is not a trial.
    pub fn tried(&self, fingerprint: &str) -> Option<u64> {
        self.verdicts
            .values()
            .find(|v| was_tested(v) && v.fingerprint.as_deref() == Some(fingerprint))
            .map(|verdict| verdict.proposal)
    }

    /// Tests taken by proposals with a smaller number.
    pub fn num_tested_before(&self, number: u64) -> u64 {
        self.verdicts.values().filter(|v| v.proposal < number && was_tested(v)).count() as u64
    }

    /// Keeps so far that became champion and were not withdrawn.
    pub fn num_promoted(&self) -> u64 {
        let stands = |verdict: &&Verdict| verdict.promoted && !self.is_retracted(verdict.proposal);
        self.verdicts.values().filter(stands).count() as u64
    }

    /// Whether a record has a pair of that champion on that seed.
    pub fn has_pair(&self, generation: u64, seed: u64) -> bool {
        let verdicts = self.verdicts.values().filter(|verdict| verdict.generation == generation);
        let prunings = self.prunings.iter().filter(|pruning| pruning.generation == generation);
        let pairs = verdicts.flat_map(|it| &it.pairs).chain(prunings.flat_map(|it| &it.pairs));
        pairs.into_iter().any(|pair| pair.seed == seed)
    }

    /// The score of a trial this process has seen.
    pub fn score(&self, trial: &Trial) -> Option<&Score> {
        self.scores.get(&key(trial))
    }

    /// Remembers a score; `counts` unless it belongs to the final measurement.
    pub fn remember(&mut self, trial: &Trial, score: Score, counts: bool) {
        if counts && !self.claimed.contains(&score.run) {
            let cost = Cost { runs: 1, flops: score.flops, seconds: score.train_seconds };
            self.runs.insert(score.run.clone(), cost);
        }
        self.scores.insert(key(trial), score);
    }

    /// Training runs that count against the budget.
    pub fn num_runs(&self) -> u64 {
        self.read.runs + self.runs.len() as u64
    }

    /// FLOPs of the runs that count against the budget.
    pub fn flops(&self) -> f64 {
        self.runs.values().fold(self.read.flops, |sum, cost| sum + cost.flops)
    }

    /// What those of `runs` cost that no record has claimed yet; they are claimed now.
    pub fn claim(&mut self, runs: &[String]) -> Cost {
        let mut newly = Cost::default();
        for run in runs {
            if self.claimed.insert(run.clone())
                && let Some(cost) = self.runs.get(run)
            {
                newly.add(*cost);
            }
        }
        newly
    }

    /// Campaign time at the last thing on file.
    pub fn last_elapsed_s(&self, noise: Option<&Noise>, store: &Store) -> Result<f64, CampaignError> {
        let end: Option<CampaignEnd> = store.end()?;
        let times = self.verdicts.values().map(|verdict| verdict.elapsed_s);
        let times = times.chain(self.prunings.iter().map(|pruning| pruning.elapsed_s));
        let times = times.chain(noise.map(|noise| noise.elapsed_s)).chain(end.map(|end| end.elapsed_s));
        Ok(times.fold(0.0, f64::max))
    }

    /// Totals.
    pub fn end(&self, reason: EndReason, elapsed_s: f64, workers: u64) -> CampaignEnd {
        let (mut kept, mut rejected, mut undecided, mut skipped, mut failed) = (0, 0, 0, 0, 0);
        for verdict in self.verdicts.values() {
            *match verdict.decision {
                Decision::Keep => &mut kept,
                Decision::Reject(_) => &mut rejected,
                Decision::Undecided(_) => &mut undecided,
                Decision::Skipped(_) => &mut skipped,
                Decision::Failed(_) => &mut failed,
            } += 1;
        }
        let mut cost = self.read;
        self.runs.values().for_each(|run| cost.add(*run));
        CampaignEnd {
            schema: SCHEMA,
            reason,
            generation: self.champions.last().map_or(0, |champion| champion.generation),
            proposals: self.proposals.len() as u64,
            kept,
            rejected,
            undecided,
            skipped,
            failed,
            runs: cost.runs,
            flops: cost.flops,
            run_seconds: cost.seconds,
            elapsed_s,
            workers,
            brier: self.brier(),
        }
    }

    /// Mean squared error of the predicted keep probabilities over decided tests (Brier, 1950).
    fn brier(&self) -> Option<f64> {
        let errors: Vec<f64> = self
            .history()
            .filter(|(_, verdict)| was_tested(verdict))
            .map(|(proposal, verdict)| {
                let kept = f64::from(u8::from(verdict.decision == Decision::Keep));
                (proposal.prediction.keep_probability - kept).powi(2)
            })
            .collect();
        (!errors.is_empty()).then(|| errors.iter().sum::<f64>() / errors.len() as f64)
    }
}

/// Whether a proposal took a test of the campaign's sequence.
pub fn was_tested(verdict: &Verdict) -> bool {
    match verdict.decision {
        Decision::Keep | Decision::Reject(_) | Decision::Undecided(_) | Decision::Failed(_) => true,
        Decision::Skipped(_) => false,
    }
}

/// Run ids of some pairs.
pub fn runs_of<'a>(pairs: impl IntoIterator<Item = &'a PairRecord>) -> Vec<String> {
    pairs.into_iter().flat_map(|pair| [pair.champion_run.clone(), pair.challenger_run.clone()]).collect()
}
