//! A keep run again from its row alone: recipe text, settings, data hash and rung as they stand on file.
//!
//! The first seed is the first pair of its duel, trained anew in a folder of its own, where no earlier run can be found:
//! it must come out the same to the last bit. The other seeds belong to this replication alone; the campaign has not
//! seen them and no later one will.
//!
//! # When a replication contradicts
//!
//! The fresh pairs, of this and of all earlier replications of the proposal, test the null "better by at least the
//! minimum worthwhile effect m": with `g_i` the gain on a fresh pair, `E[-g] <= -m`. It is the null of
//! [`crate::evidence`] with the arms exchanged and -m for the minimum effect, so the judge's own e-process decides, at
//! the level [`LEVEL`]: a keep that truly gains m is withdrawn with probability at most that, however often it is
//! replicated and whatever made somebody stop (Ville), under the assumptions of `evidence.rs`. A crossing withdraws the
//! keep. Absence of a gain is not its opposite: a keep that is worth nothing, rather than less than nothing, takes many
//! pairs to contradict when m is a small part of a pair standard deviation. What falls short of what was claimed
//! without contradicting it is said, and left to a person.

use crate::books::Books;
use crate::duel::{pair, scores_of};
use crate::evidence::{Scores, t_half_width};
use crate::judge::{self, NoiseScale, Ruling};
use crate::measure::base_trial;
use crate::random::hash;
use crate::retract::{KeepError, Withdrawn, contradiction, keep_named, open, withdraw};
use crate::store::{self, Store};
use crate::world::{Score, Trial, TrialError, World, run_side_by_side};
use pawl_record::{
    CampaignManifest, Evidence, JudgeSettings, PairRecord, Replication, Reproduced, SCHEMA, Verdict,
    write_json,
};
use std::fs;
use std::path::{Path, PathBuf};

/// Probability, at most, with which a keep that truly gains is ever withdrawn by its replications.
pub const LEVEL: f64 = 0.05;

/// Seeds of replications are kept apart from those of pairs, final measurements and initial draws: 1, 2, 3.
const REPLICATION: u64 = 4;

/// A replication to do.
pub struct Plan {
    /// The proposal.
    pub proposal: u64,
    /// Which replication of it.
    pub number: u64,
    /// Folder in which its first seed is trained anew: a lab of its own but for its data.
    pub scratch: PathBuf,
    manifest: CampaignManifest,
    verdict: Verdict,
    store: Store,
    books: Books,
    _lock: store::Lock,
}

/// What a replication came to.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Replicated {
    /// The record.
    pub replication: Replication,
    /// What was claimed when it was kept.
    pub claimed: Option<Evidence>,
    /// What followed, if it contradicts.
    pub withdrawn: Option<Withdrawn>,
}

/// Reads what is needed to run a keep again, and keeps the lab to this process.
pub fn plan(lab: &Path, id: &str) -> Result<Plan, KeepError> {
    let lock = store::lock(lab)?;
    let (store, books) = open(lab)?;
    let manifest = store.manifest()?.expect("an open campaign has a manifest");
    let proposal = keep_named(&books, id)?;
    let verdict = books.verdicts[&proposal].clone();
    let number = books.replications.iter().filter(|it| it.proposal == proposal).count() as u64 + 1;
    let scratch = store.path(&format!("replications/{proposal:04}-{number}"));
    Ok(Plan { proposal, number, scratch, manifest, verdict, store, books, _lock: lock })
}

impl Plan {
    /// The data set it was decided on.
    pub fn data(&self) -> &pawl_record::DataRef {
        &self.manifest.data
    }

    /// Runs it on `num_seeds` seeds: the first in `anew`, a world whose lab is the scratch folder, the rest in `world`.
    pub fn run(
        mut self,
        num_seeds: u64,
        workers: usize,
        anew: &dyn World,
        world: &dyn World,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Replicated, KeepError> {
        let first = self.verdict.pairs.iter().find(|pair| pair.challenger_bpb.is_some()).cloned();
        let first = first.ok_or_else(|| self.unrepeatable("its verdict has no pair"))?;
        self.check_texts(world)?;
        tell("training its first pair anew");
        let scores = self.scores(anew, workers, &self.both(first.seed))?;
        let reproduced = [
            reproduced(&first.champion_run, Some(first.champion_bpb), &scores[0]),
            reproduced(&first.challenger_run, first.challenger_bpb, &scores[1]),
        ];
        tell(&format!("training {} fresh pairs", num_seeds - 1));
        let pairs = self.fresh_pairs(num_seeds - 1, workers, world)?;
        let replication = self.record(reproduced, pairs, world.unix_s())?;
        let path = self.store.path(&format!("replications/{:04}-{}.json", self.proposal, self.number));
        write_json(&path, &replication)?;
        self.books.replications.push(replication.clone());
        let is_known = self.books.is_retracted(self.proposal);
        let withdrawn = match replication.contradicts && !is_known {
            false => None,
            true => {
                let why = contradiction(&replication);
                let number = Some(self.number);
                let (store, books) = (&self.store, &mut self.books);
                Some(withdraw(store, books, self.proposal, &why, number, world.unix_s())?)
            }
        };
        Ok(Replicated { replication, claimed: self.verdict.evidence, withdrawn })
    }

    fn unrepeatable(&self, why: impl Into<String>) -> KeepError {
        KeepError::Unrepeatable { number: self.proposal, why: why.into() }
    }

    /// The recipe texts on file must be those that were kept, and compile to what was tried.
    fn check_texts(&self, world: &dyn World) -> Result<(), KeepError> {
        let champion = &self.books.champions[self.verdict.generation as usize];
        let proposal = &self.books.proposals[self.proposal as usize - 1];
        let own = proposal.recipe.as_ref().unwrap_or(&champion.recipe);
        let arms = [
            (&champion.recipe, &champion.settings, Some(&champion.fingerprint)),
            (own, &proposal.settings, self.verdict.fingerprint.as_ref()),
        ];
        for (recipe, settings, fingerprint) in arms {
            let path = self.store.path(&recipe.file);
            let text = fs::read(&path)
                .map_err(|why| self.unrepeatable(format!("{} cannot be read: {why}", path.display())))?;
            if blake3::hash(&text).to_hex().to_string() != recipe.hash {
                return Err(self.unrepeatable(format!("{} is no longer the text it was", recipe.file)));
            }
            let trial = base_trial(&self.manifest, &self.store, recipe, settings, 0);
            let checked = world.check(&path, trial.depth, settings).map_err(|why| self.unrepeatable(why))?;
            if fingerprint.is_some_and(|known| *known != checked.fingerprint) {
                return Err(
                    self.unrepeatable("this pawl compiles it to another program than the one that was tried")
                );
            }
        }
        Ok(())
    }

    /// Champion and challenger on a seed.
    fn both(&self, seed: u64) -> [Trial; 2] {
        let champion = &self.books.champions[self.verdict.generation as usize];
        let proposal = &self.books.proposals[self.proposal as usize - 1];
        let own = proposal.recipe.as_ref().unwrap_or(&champion.recipe);
        let trial = |recipe, settings| base_trial(&self.manifest, &self.store, recipe, settings, seed);
        [trial(&champion.recipe, &champion.settings), trial(own, &proposal.settings)]
    }

    fn scores(&self, world: &dyn World, workers: usize, trials: &[Trial]) -> Result<Vec<Score>, KeepError> {
        let mut scores = Vec::new();
        for score in run_side_by_side(world, trials, workers) {
            scores.push(score.map_err(|error| match error {
                TrialError::Interrupted => KeepError::Interrupted,
                TrialError::Failed(reason) => self.unrepeatable(format!("a trial failed: {reason}")),
            })?);
        }
        Ok(scores)
    }

    /// A pair on whose seed the champion diverges is void, as in a duel.
    fn fresh_pairs(
        &self,
        num_pairs: u64,
        workers: usize,
        world: &dyn World,
    ) -> Result<Vec<PairRecord>, KeepError> {
        let seeds: Vec<u64> =
            (0..num_pairs).map(|idx| seed(&self.manifest, self.proposal, self.number, idx)).collect();
        let trials: Vec<Trial> = seeds.iter().flat_map(|seed| self.both(*seed)).collect();
        let scores = self.scores(world, workers, &trials)?;
        let both = scores.chunks(2).zip(&seeds);
        Ok(both.filter_map(|(both, seed)| Some(pair(*seed, &both[0], both[0].val_bpb?, &both[1]))).collect())
    }

    fn record(
        &self,
        reproduced: [Reproduced; 2],
        pairs: Vec<PairRecord>,
        unix_s: u64,
    ) -> Result<Replication, KeepError> {
        let noise = self.store.noise()?.ok_or_else(|| self.unrepeatable("the noise is not on file"))?;
        let scale = crate::campaign::scale_of(&noise);
        let earlier = self.books.replications.iter().filter(|it| it.proposal == self.proposal);
        let all: Vec<Scores> = earlier.flat_map(|it| &it.pairs).chain(&pairs).filter_map(scores_of).collect();
        let (contradicts, against) = against(&self.manifest.judge, &scale, &all);
        let (mean, half_width) = summary(&pairs);
        Ok(Replication {
            schema: SCHEMA,
            proposal: self.proposal,
            number: self.number,
            reproduced,
            pairs,
            mean,
            half_width,
            against,
            contradicts,
            created_unix_s: unix_s,
        })
    }
}

/// Seed of a fresh pair of a replication.
pub(crate) fn seed(manifest: &CampaignManifest, proposal: u64, number: u64, idx: u64) -> u64 {
    hash(&[manifest.seed, REPLICATION, proposal, number, idx]) >> 33
}

fn reproduced(run: &str, bpb: Option<f64>, again: &Score) -> Reproduced {
    let bits = |score: Option<f64>| score.map(f64::to_bits);
    Reproduced {
        run: run.to_string(),
        again: again.run.clone(),
        bpb,
        again_bpb: again.val_bpb,
        same: run == again.run && bits(bpb) == bits(again.val_bpb),
    }
}

/// Mean gain over pairs, and the half-width of its 95 % t interval from two pairs on.
pub(crate) fn summary(pairs: &[PairRecord]) -> (Option<f64>, Option<f64>) {
    let gains: Vec<f64> = pairs.iter().filter_map(|pair| pair.difference).collect();
    let mean = (!gains.is_empty()).then(|| gains.iter().sum::<f64>() / gains.len() as f64);
    (mean, (gains.len() >= 2).then(|| t_half_width(&gains)))
}

/// Whether fresh pairs contradict a keep, with the test against it; its mean is minus the gain.
pub fn against(judge: &JudgeSettings, scale: &NoiseScale, pairs: &[Scores]) -> (bool, Option<Evidence>) {
    if pairs.is_empty() {
        return (false, None);
    }
    let exchanged: Vec<Scores> =
        pairs.iter().map(|pair| Scores { champion: pair.challenger, challenger: pair.champion }).collect();
    let settings = JudgeSettings {
        min_effect_bpb: -judge.min_effect_bpb,
        // There is no limit to replications; only whether the threshold is reached is asked.
        max_pairs: pairs.len() as u64 + judge.max_pairs,
        ..*judge
    };
    let (ruling, evidence) = judge::rule(&settings, scale, &exchanged, LEVEL, 0);
    (ruling == Ruling::Keep, Some(evidence))
}
