//! Trials that belong to no proposal: the A/A pairs at the start, the final measurement at the end.

use crate::campaign::{Campaign, CampaignError, CampaignEvent};
use crate::evidence::{NoiseScale, t_half_width};
use crate::random::hash;
use crate::store::Store;
use crate::world::{Score, Trial, TrialError, run_side_by_side};
use crate::worth;
use pawl_ledger::line;
use pawl_record::{
    CampaignBudget, CampaignManifest, FinalMeasurement, KeptEffect, LawPoint, Measured, Noise, NoisePair,
    Promotion, RecipeRef, RungMeasured, SCHEMA, Settings,
};

/// A trial may take this many times as long as one of the starting recipe before it is given up...
const PATIENCE: f64 = 10.0;

/// ...and never less than this, seconds: a busy machine is not the recipe's fault.
const LEAST_PATIENCE_S: f64 = 120.0;

impl Campaign<'_> {
    /// A trial on the first rung.
    pub(crate) fn trial(&self, recipe: &RecipeRef, settings: &Settings, seed: u64) -> Trial {
        self.trial_on(0, recipe, settings, seed)
    }

    /// A trial on a rung of the ladder.
    pub(crate) fn trial_on(&self, rung: usize, recipe: &RecipeRef, settings: &Settings, seed: u64) -> Trial {
        let limit_s =
            self.noise.is_some().then(|| (PATIENCE * self.seconds_on(rung, 1)).max(LEAST_PATIENCE_S));
        let on = self.manifest.rungs.all()[rung];
        Trial {
            depth: on.depth,
            flops: on.flops,
            precision: on.precision,
            limit_s,
            ..base_trial(&self.manifest, &self.store, recipe, settings, seed)
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
                trial_s: self
                    .noise
                    .as_ref()
                    .map(|noise| noise.run_seconds * missing[0].flops / self.manifest.rungs.first().flops),
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
            origin: None,
            recipe: self.manifest.recipe.clone(),
            settings: self.manifest.settings.clone(),
            fingerprint: self.champion.fingerprint.clone(),
            num_params: self.champion.num_params,
            flops_per_step: self.champion.flops_per_step,
            gain: None,
            mean_bpb: noise.mean_bpb,
            run: noise.pairs[0].runs[0].clone(),
            fresh_runs: Vec::new(),
            fresh_bpb: Vec::new(),
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
        // After a retraction the start may be champion again.
        let is_start = self.books.champion().fingerprint == self.books.champions[0].fingerprint;
        if is_start || known.is_some_and(|known| known.generation == generation) {
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
        let (above, above_flops) = self.measure_above(&seeds)?;
        let mut points = vec![self.law_point(start, 1.0)];
        points.extend(worth::start_above(&self.manifest.rungs, &above, self.books.verdicts.values()));
        let mut flops = scores.iter().map(|score| score.flops).sum::<f64>() + above_flops;
        if self.manifest.rungs.all().len() == 1 && self.has_time(seeds.len().div_ceil(2)) {
            let (shorter, shorter_flops) = self.measure_shorter(&seeds)?;
            points.insert(0, shorter);
            flops += shorter_flops;
        }
        let document = FinalMeasurement {
            schema: SCHEMA,
            generation,
            start_runs: runs(start),
            champion_runs: runs(champion),
            sealed: measured(&both, |score| score.sealed_bpb),
            seconds_ratio: ratios[ratios.len() / 2],
            kept,
            worth: worth::of_final(&self.manifest, generation, points, &search, &above),
            search,
            above,
            flops,
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
        for generation in line(&self.books.champions, last).into_iter().skip(1) {
            let after = if generation == last {
                champion.to_vec()
            } else if self.has_time(seeds.len()) {
                let trials = self.arm(generation, seeds, false);
                self.measured(&format!("champion {generation} again"), &trials)?
            } else {
                break;
            };
            let both: Vec<(&Score, &Score)> = before.iter().zip(&after).collect();
            // A champion without a part, or one restored, is no kept change.
            let proposal = self.books.champions[generation as usize].proposal;
            if let (Some(proposal), Some(search)) = (proposal, measured(&both, |score| score.val_bpb)) {
                kept.push(KeptEffect {
                    proposal,
                    runs: after.iter().map(|score| score.run.clone()).collect(),
                    search,
                });
            }
            before = after;
        }
        Ok(kept)
    }

    /// Start and champion on the first of the fresh seeds on the rungs above, as far as time allows, and the FLOPs
    /// of it.
    fn measure_above(&mut self, seeds: &[u64]) -> Result<(Vec<RungMeasured>, f64), CampaignError> {
        let seeds = &seeds[..self.num_seeds_above() as usize];
        let (mut above, mut flops) = (Vec::new(), 0.0);
        for rung in 1..self.manifest.rungs.all().len() {
            if seeds.is_empty() || !self.has_seconds(self.seconds_on(rung, 2 * seeds.len())) {
                break;
            }
            let generation = self.books.champion().generation;
            let trials: Vec<Trial> = [0, generation]
                .into_iter()
                .flat_map(|generation| seeds.iter().map(move |&seed| (generation, seed)))
                .map(|(generation, seed)| {
                    let champion = &self.books.champions[generation as usize];
                    self.trial_on(rung, &champion.recipe, &champion.settings, seed)
                })
                .collect();
            let purpose = format!("final measurement at depth {}", trials[0].depth);
            let scores = self.measured(&purpose, &trials)?;
            flops += scores.iter().map(|score| score.flops).sum::<f64>();
            let (start, champion) = scores.split_at(seeds.len());
            let by_seed = seeds.iter().zip(start.iter().zip(champion));
            // A seed on which an arm diverged says nothing of the difference.
            let (seeds, both): (Vec<u64>, Vec<(&Score, &Score)>) =
                by_seed.filter(|(_, (a, b))| a.val_bpb.is_some() && b.val_bpb.is_some()).unzip();
            if let Some(search) = measured(&both, |score| score.val_bpb) {
                let (start_runs, champion_runs) =
                    both.iter().map(|(a, b)| (a.run.clone(), b.run.clone())).unzip();
                above.push(RungMeasured { rung: rung as u64, seeds, start_runs, champion_runs, search });
            }
        }
        Ok((above, flops))
    }

    /// The starting recipe with a share of the first rung's budget, and the FLOPs of it.
    fn measure_shorter(&mut self, seeds: &[u64]) -> Result<(LawPoint, f64), CampaignError> {
        let mut trials = self.arm(0, seeds, false);
        for trial in &mut trials {
            trial.flops *= worth::SHORTER;
        }
        let scores = self.measured("the start with half the budget", &trials)?;
        Ok((self.law_point(&scores, worth::SHORTER), scores.iter().map(|score| score.flops).sum()))
    }

    /// Scores of the starting recipe on the first rung, with a share of its budget.
    fn law_point(&self, scores: &[Score], share: f64) -> LawPoint {
        let on = self.manifest.rungs.first();
        let scored = scores.iter().filter_map(|score| Some((score.run.clone(), score.val_bpb?)));
        let (runs, bpb) = scored.unzip();
        LawPoint { depth: on.depth, flops: on.flops * share, runs, bpb }
    }

    /// Fresh seeds of the final measurement on each rung above the first: as many as there, but none that would take
    /// more than a tenth of the campaign's minutes, and none at all rather than one, which has no scatter.
    pub(crate) fn num_seeds_above(&self) -> u64 {
        let wanted = self.options.final_seeds;
        let CampaignBudget::Minutes(minutes) = self.options.budget else { return wanted };
        let a_seed_s: f64 = (1..self.manifest.rungs.all().len()).map(|rung| self.seconds_on(rung, 2)).sum();
        match (SHARE_ABOVE * 60.0 * minutes / a_seed_s).floor() {
            affordable if affordable < 2.0 => 0,
            affordable => wanted.min(affordable as u64),
        }
    }

    fn has_time(&self, num_trials: usize) -> bool {
        self.has_seconds(self.seconds_of(num_trials))
    }

    fn has_seconds(&self, seconds: f64) -> bool {
        match self.options.budget {
            CampaignBudget::Minutes(minutes) => self.elapsed_s() + seconds <= 60.0 * minutes,
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

fn runs(scores: &[Score]) -> Vec<String> {
    scores.iter().map(|score| score.run.clone()).collect()
}

/// Share of a campaign's minutes that the final measurement may take on the rungs above the first.
const SHARE_ABOVE: f64 = 0.1;

/// A trial on the first rung of a campaign, for as long as it takes.
pub(crate) fn base_trial(
    manifest: &CampaignManifest,
    store: &Store,
    recipe: &RecipeRef,
    settings: &Settings,
    seed: u64,
) -> Trial {
    let on = manifest.rungs.first();
    Trial {
        recipe: store.path(&recipe.file),
        depth: on.depth,
        settings: settings.clone(),
        flops: on.flops,
        precision: on.precision,
        seed,
        init_seed: None,
        seal: false,
        keep: false,
        limit_s: None,
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
pub(crate) fn measured(both: &[(&Score, &Score)], of: impl Fn(&Score) -> Option<f64>) -> Option<Measured> {
    let (start_bpb, champion_bpb): (Vec<f64>, Vec<f64>) =
        both.iter().filter_map(|(a, b)| Some((of(a)?, of(b)?))).unzip();
    if start_bpb.len() < 2 {
        return None;
    }
    let differences: Vec<f64> = start_bpb.iter().zip(&champion_bpb).map(|(a, b)| a - b).collect();
    let mean = differences.iter().sum::<f64>() / differences.len() as f64;
    Some(Measured { half_width: t_half_width(&differences), start_bpb, champion_bpb, differences, mean })
}
