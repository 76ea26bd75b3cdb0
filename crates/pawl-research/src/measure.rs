//! Trials that belong to no proposal: the A/A pairs at the start, the final measurement at the end.

use crate::campaign::{Campaign, CampaignError, CampaignEvent};
use crate::evidence::{NoiseScale, t_half_width};
use crate::random::hash;
use crate::world::{Score, Trial, TrialError, run_side_by_side};
use pawl_record::{
    CampaignBudget, FinalMeasurement, KeptEffect, Measured, Noise, NoisePair, Promotion, RecipeRef, SCHEMA,
    Settings,
};

/// A trial may take this many times as long as one of the starting recipe before it is given up...
const PATIENCE: f64 = 10.0;

/// ...and never less than this, seconds: a busy machine is not the recipe's fault.
const LEAST_PATIENCE_S: f64 = 120.0;

impl Campaign<'_> {
    /// A trial on this campaign's rung.
    pub(crate) fn trial(&self, recipe: &RecipeRef, settings: &Settings, seed: u64) -> Trial {
        Trial {
            recipe: self.store.path(&recipe.file),
            depth: self.manifest.rung.depth,
            settings: settings.clone(),
            flops: self.manifest.rung.flops,
            precision: self.manifest.rung.precision,
            seed,
            init_seed: None,
            seal: false,
            keep: false,
            limit_s: self.noise.as_ref().map(|noise| (PATIENCE * noise.run_seconds).max(LEAST_PATIENCE_S)),
        }
    }

    /// Scores of `trials` in order, run side by side unless known; `counts` against the budget. What finished
    /// before an interruption is remembered by the lab.
    pub(crate) fn scores(
        &mut self,
        purpose: &str,
        trials: &[Trial],
        counts: bool,
    ) -> Result<Vec<Result<Score, String>>, CampaignError> {
        let missing: Vec<Trial> =
            trials.iter().filter(|trial| self.books.score(trial).is_none()).cloned().collect();
        if !missing.is_empty() {
            let (elapsed_s, num_runs) = (self.elapsed_s(), self.books.num_runs());
            (self.tell)(CampaignEvent::Trials {
                purpose,
                num_trials: missing.len(),
                workers: self.options.workers,
                trial_s: self.noise.as_ref().map(|noise| noise.run_seconds),
                elapsed_s,
                num_runs,
            });
        }
        let mut failures = Vec::new();
        for (trial, outcome) in
            missing.iter().zip(run_side_by_side(self.world, &missing, self.options.workers))
        {
            match outcome {
                Ok(score) => self.books.remember(trial, score, counts),
                Err(TrialError::Interrupted) => return Err(CampaignError::Interrupted),
                Err(TrialError::Failed(reason)) => failures.push((trial, reason)),
            }
        }
        Ok(trials
            .iter()
            .map(|trial| match self.books.score(trial) {
                Some(score) => Ok(score.clone()),
                None => Err(failures
                    .iter()
                    .find(|(failed, _)| *failed == trial)
                    .map(|(_, reason)| reason.clone())
                    .expect("a trial has a score or a failure")),
            })
            .collect())
    }

    /// A/A pairs: the starting recipe twice on the same data order, initialised by different draws. The
    /// first of each pair is also the champion's run on that pair seed; under normal noise this makes the
    /// judge's statistic smaller in the tails, not larger, and the tests simulate it.
    pub(crate) fn learn_noise(&mut self) -> Result<(), CampaignError> {
        if self.noise.is_some() {
            return Ok(());
        }
        let mut trials = Vec::new();
        for pair_idx in 0..self.manifest.judge.noise_pairs {
            let first = self.pair_trial(0, pair_idx, &self.manifest.recipe, &self.manifest.settings);
            let init_seed = noise_init_seed(first.seed);
            trials.push(first.clone());
            trials.push(Trial { init_seed: Some(init_seed), keep: false, ..first });
        }
        let mut scores = Vec::new();
        for score in self.scores("noise", &trials, true)? {
            let what = "the starting recipe".to_string();
            let score = score.map_err(|reason| CampaignError::Trial { what: what.clone(), reason })?;
            if score.val_bpb.is_none() {
                let reason = score.reason.unwrap_or_else(|| "it diverged".to_string());
                return Err(CampaignError::Trial { what, reason });
            }
            scores.push(score);
        }
        let noise = noise(&trials, &scores, self.elapsed_s());
        self.books.claim(&scores.iter().map(|score| score.run.clone()).collect::<Vec<_>>());
        // The champion first: a campaign with noise on file has a champion on file.
        let promotion = Promotion {
            schema: SCHEMA,
            generation: 0,
            proposal: None,
            recipe: self.manifest.recipe.clone(),
            settings: self.manifest.settings.clone(),
            fingerprint: self.champion.fingerprint.clone(),
            num_params: self.champion.num_params,
            flops_per_step: self.champion.flops_per_step,
            gain: None,
            mean_bpb: noise.mean_bpb,
            run: noise.pairs[0].runs[0].clone(),
            fresh_runs: Vec::new(),
            elapsed_s: noise.elapsed_s,
        };
        self.store.write("champions/0000.json", &promotion)?;
        self.books.champions = vec![promotion];
        self.store.write("noise.json", &noise)?;
        (self.tell)(CampaignEvent::Noise(&noise));
        self.noise = Some(noise);
        Ok(())
    }

    /// The champion against the starting recipe on fresh seeds and the sealed split, then every champion in
    /// between, as far as time allows. Nothing to do while the starting recipe is champion.
    pub(crate) fn measure_champion(&mut self) -> Result<(), CampaignError> {
        let generation = self.books.champion().generation;
        let known = self.store.final_measurement()?;
        if generation == 0 || known.is_some_and(|known| known.generation == generation) {
            return Ok(());
        }
        let seeds: Vec<u64> = (0..self.options.final_seeds)
            .map(|seed_idx| final_seed(self.manifest.seed, generation, seed_idx))
            .collect();
        let mut trials = self.arm(0, &seeds, true);
        trials.extend(self.arm(generation, &seeds, true));
        let scores = self.measured("final measurement", &trials)?;
        let (start, champion) = scores.split_at(seeds.len());
        let both: Vec<(&Score, &Score)> = start.iter().zip(champion).collect();
        let search = measured(&both, |score| score.val_bpb).ok_or_else(|| CampaignError::Trial {
            what: "the final measurement".to_string(),
            reason: "fewer than two seeds gave both scores".to_string(),
        })?;
        let mut ratios: Vec<f64> = both.iter().map(|(a, b)| b.train_seconds / a.train_seconds).collect();
        ratios.sort_by(f64::total_cmp);
        let kept = self.measure_kept(&seeds, start, champion)?;
        let runs = |scores: &[Score]| scores.iter().map(|score| score.run.clone()).collect::<Vec<_>>();
        let document = FinalMeasurement {
            schema: SCHEMA,
            generation,
            start_runs: runs(start),
            champion_runs: runs(champion),
            search,
            sealed: measured(&both, |score| score.sealed_bpb),
            seconds_ratio: ratios[ratios.len() / 2],
            kept,
            flops: scores.iter().map(|score| score.flops).sum(),
            seeds,
            elapsed_s: self.elapsed_s(),
        };
        self.store.write("final.json", &document)?;
        (self.tell)(CampaignEvent::Final(&document));
        Ok(())
    }

    /// Each kept change on the fresh seeds: its champion against the one before.
    fn measure_kept(
        &mut self,
        seeds: &[u64],
        start: &[Score],
        champion: &[Score],
    ) -> Result<Vec<KeptEffect>, CampaignError> {
        let last = self.books.champion().generation;
        let mut before = start.to_vec();
        let mut kept = Vec::new();
        for generation in 1..=last {
            let after = if generation == last {
                champion.to_vec()
            } else if self.has_time(seeds.len()) {
                let trials = self.arm(generation, seeds, false);
                self.measured(&format!("champion {generation} again"), &trials)?
            } else {
                break;
            };
            let both: Vec<(&Score, &Score)> = before.iter().zip(&after).collect();
            if let Some(search) = measured(&both, |score| score.val_bpb) {
                kept.push(KeptEffect {
                    proposal: self.books.champions[generation as usize].proposal.expect("it was proposed"),
                    runs: after.iter().map(|score| score.run.clone()).collect(),
                    search,
                });
            }
            before = after;
        }
        Ok(kept)
    }

    fn has_time(&self, num_trials: usize) -> bool {
        match self.options.budget {
            CampaignBudget::Minutes(minutes) => {
                self.elapsed_s() + self.seconds_of(num_trials) <= 60.0 * minutes
            }
            CampaignBudget::Trials(_) => true,
        }
    }

    fn arm(&self, generation: u64, seeds: &[u64], seal: bool) -> Vec<Trial> {
        let champion = &self.books.champions[generation as usize];
        seeds
            .iter()
            .map(|&seed| Trial { seal, ..self.trial(&champion.recipe, &champion.settings, seed) })
            .collect()
    }

    fn measured(&mut self, purpose: &str, trials: &[Trial]) -> Result<Vec<Score>, CampaignError> {
        self.scores(purpose, trials, false)?
            .into_iter()
            .map(|score| score.map_err(|reason| CampaignError::Trial { what: purpose.to_string(), reason }))
            .collect()
    }
}

/// Words that keep the seeds of different purposes apart; 1 is the pairs'.
const FINAL: u64 = 2;
const INIT: u64 = 3;

/// What initialises the second run of an A/A pair.
pub(crate) fn noise_init_seed(seed: u64) -> u64 {
    hash(&[seed, INIT]) >> 33
}

/// A seed of the final measurement of a champion.
pub(crate) fn final_seed(campaign_seed: u64, generation: u64, seed_idx: u64) -> u64 {
    hash(&[campaign_seed, FINAL, generation, seed_idx]) >> 33
}

fn noise(trials: &[Trial], scores: &[Score], elapsed_s: f64) -> Noise {
    let bpb: Vec<f64> = scores.iter().filter_map(|score| score.val_bpb).collect();
    let pairs: Vec<NoisePair> = (0..trials.len())
        .step_by(2)
        .map(|i| NoisePair {
            seed: trials[i].seed,
            init_seed: trials[i + 1].init_seed.expect("the second of a pair is initialised anew"),
            runs: [scores[i].run.clone(), scores[i + 1].run.clone()],
            bpb: [bpb[i], bpb[i + 1]],
            difference: bpb[i] - bpb[i + 1],
        })
        .collect();
    let scale = NoiseScale::of_differences(&pairs.iter().map(|pair| pair.difference).collect::<Vec<_>>());
    // First runs of the pairs differ in everything: their scatter is that of unpaired runs.
    let firsts: Vec<f64> = pairs.iter().map(|pair| pair.bpb[0]).collect();
    let mean_first = firsts.iter().sum::<f64>() / firsts.len() as f64;
    let variance = firsts.iter().map(|x| (x - mean_first).powi(2)).sum::<f64>() / (firsts.len() as f64 - 1.0);
    let num_runs = scores.len() as f64;
    Noise {
        schema: SCHEMA,
        pair_sd: scale.sd(),
        pair_sd_upper: scale.sd_upper(0.95),
        unpaired_sd: (2.0 * variance).sqrt(),
        mean_bpb: bpb.iter().sum::<f64>() / num_runs,
        run_seconds: scores.iter().map(|score| score.total_seconds).sum::<f64>() / num_runs,
        flops: scores.iter().map(|score| score.flops).sum(),
        train_seconds: scores.iter().map(|score| score.train_seconds).sum(),
        pairs,
        elapsed_s,
    }
}

/// Differences of the seeds on which both arms have the score; `None` with fewer than two.
fn measured(both: &[(&Score, &Score)], of: impl Fn(&Score) -> Option<f64>) -> Option<Measured> {
    let (start_bpb, champion_bpb): (Vec<f64>, Vec<f64>) =
        both.iter().filter_map(|(a, b)| Some((of(a)?, of(b)?))).unzip();
    if start_bpb.len() < 2 {
        return None;
    }
    let differences: Vec<f64> = start_bpb.iter().zip(&champion_bpb).map(|(a, b)| a - b).collect();
    let mean = differences.iter().sum::<f64>() / differences.len() as f64;
    Some(Measured { half_width: t_half_width(&differences), start_bpb, champion_bpb, differences, mean })
}
