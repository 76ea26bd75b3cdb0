//! One campaign, from the first A/A pair to the final measurement.
//!
//! The loop is `Campaign::proceed`. All it knows lies in the campaign's folder: it writes a proposal
//! before its first trial and a verdict after its last, so a campaign killed anywhere is continued by
//! reading the folder, and trials that had finished are found rather than run. It does not print, does
//! not know which researcher it talks to, and never shows a researcher the sealed split.

use crate::books::{Books, runs_of};
use crate::court;
use crate::duel::Candidate;
pub use crate::events::{CampaignError, CampaignEvent, CampaignReport};
use crate::evidence::Scores;
use crate::judge::{self, NoiseScale};
use crate::options::{CampaignOptions, open_manifest};
use crate::researcher::{Context, Draft};
use crate::store::{self, Store};
use crate::world::{Checked, Score, SettingKind, Trial, World};
use pawl_record::{
    CampaignBudget, CampaignManifest, Decision, EndReason, EqualTime, Evidence, Noise, NoisePair, Promotion,
    Proposal, SCHEMA, Settings, Verdict,
};

/// The campaign of a lab as it was asked, if there is one: its rung and seed are what `pawl research`
/// goes on with when the command does not say.
pub fn existing(lab: &std::path::Path) -> Result<Option<CampaignManifest>, CampaignError> {
    Ok(Store::new(lab).manifest()?)
}

/// Starts or continues the campaign of `options.lab` until its budget is used, and measures its champion.
pub fn run(
    options: &CampaignOptions,
    world: &dyn World,
    tell: &mut dyn FnMut(CampaignEvent<'_>),
) -> Result<CampaignReport, CampaignError> {
    let _lock = store::lock(&options.lab)?;
    let mut campaign = Campaign::open(options, world, tell)?;
    let reason = match campaign.proceed() {
        Ok(reason) => reason,
        Err(CampaignError::Interrupted) => EndReason::Interrupted,
        Err(error) => return Err(error),
    };
    let end = campaign.books.end(reason, campaign.elapsed_s(), options.workers as u64);
    campaign.store.write("end.json", &end)?;
    (campaign.tell)(CampaignEvent::Ended(&end));
    Ok(CampaignReport {
        end,
        final_measurement: campaign.store.final_measurement()?,
        manifest: campaign.manifest,
        champions: campaign.books.champions,
    })
}

/// A campaign in progress.
pub(crate) struct Campaign<'a> {
    pub(crate) options: &'a CampaignOptions,
    pub(crate) world: &'a dyn World,
    pub(crate) tell: &'a mut dyn FnMut(CampaignEvent<'_>),
    pub(crate) store: Store,
    pub(crate) manifest: CampaignManifest,
    pub(crate) books: Books,
    pub(crate) noise: Option<Noise>,
    /// The present champion, compiled.
    pub(crate) champion: Checked,
    /// Campaign time spent by earlier processes, less this process's clock at its start.
    clock_offset_s: f64,
}

impl<'a> Campaign<'a> {
    fn open(
        options: &'a CampaignOptions,
        world: &'a dyn World,
        tell: &'a mut dyn FnMut(CampaignEvent<'_>),
    ) -> Result<Campaign<'a>, CampaignError> {
        judge::check_settings(&options.judge).map_err(CampaignError::Options)?;
        let store = Store::new(&options.lab);
        let manifest = open_manifest(options, &store, world.unix_s())?;
        let check = |settings: &Settings| {
            world
                .check(&store.path(&manifest.recipe.file), manifest.rung.depth, settings)
                .map_err(CampaignError::Recipe)
        };
        let start = check(&manifest.settings)?;
        let books = Books::read(&store)?;
        let champion = books.champions.last();
        tell(CampaignEvent::Started {
            manifest: &manifest,
            start: &start,
            num_proposals: books.proposals.len() as u64,
            champion,
        });
        let compiled = match champion {
            None => start,
            Some(champion) => world
                .check(&store.path(&champion.recipe.file), manifest.rung.depth, &champion.settings)
                .map_err(CampaignError::Recipe)?,
        };
        let noise = store.noise()?;
        let spent_s = books.last_elapsed_s(noise.as_ref(), &store)?;
        let clock_offset_s = spent_s - world.seconds();
        Ok(Campaign {
            options,
            world,
            tell,
            store,
            manifest,
            books,
            noise,
            champion: compiled,
            clock_offset_s,
        })
    }

    /// The campaign. Everything else computes; this decides what comes next.
    fn proceed(&mut self) -> Result<EndReason, CampaignError> {
        self.learn_noise()?;
        // Killed between a verdict and the champion it made.
        if let Some(number) = self.books.unrecorded_promotion() {
            self.promote(number)?;
        }
        let reason = loop {
            let mut round = self.books.unfinished();
            if round.is_empty() {
                if !self.can_afford_a_round() {
                    break EndReason::Budget;
                }
                round = self.propose()?;
                if round.is_empty() {
                    break EndReason::Exhausted;
                }
            }
            let candidates = self.gate(round)?;
            court::hold(self, candidates)?;
        };
        self.measure_champion()?;
        Ok(reason)
    }

    /// Seconds of campaign time, over all processes that worked on it.
    pub(crate) fn elapsed_s(&self) -> f64 {
        self.clock_offset_s + self.world.seconds()
    }

    /// Seconds one trial is expected to take.
    pub(crate) fn trial_s(&self) -> f64 {
        self.noise.as_ref().map_or(0.0, |noise| noise.run_seconds)
    }

    /// Seconds that trials take when run on all workers.
    pub(crate) fn seconds_of(&self, num_trials: usize) -> f64 {
        num_trials.div_ceil(self.options.workers) as f64 * self.trial_s()
    }

    /// Seconds to keep back for measuring the champion, and every champion before it, on fresh seeds. One
    /// more generation than there is: the round that is being paid for may promote.
    fn reserve_s(&self) -> f64 {
        let generations = self.books.champions.len();
        self.seconds_of((generations + 1) * self.options.final_seeds as usize)
    }

    /// Whether `num_trials` more trials leave enough of the budget for the final measurement.
    pub(crate) fn can_afford(&self, num_trials: usize) -> bool {
        match self.options.budget {
            CampaignBudget::Minutes(minutes) => {
                self.elapsed_s() + self.seconds_of(num_trials) + self.reserve_s() <= 60.0 * minutes
            }
            CampaignBudget::Trials(trials) => self.books.num_runs() < trials,
        }
    }

    /// A round is at least one trial a worker and the pair after it.
    fn can_afford_a_round(&self) -> bool {
        self.can_afford(2 * self.options.workers)
    }

    /// As many proposals as there are workers, each on file. Those that compile to a program already tried
    /// are settled at once and do not count.
    fn propose(&mut self) -> Result<Vec<Proposal>, CampaignError> {
        let mut round: Vec<Proposal> = Vec::new();
        // A researcher that only repeats itself is exhausted.
        for _ in 0..self.options.workers + MAX_REPEATS {
            if round.len() == self.options.workers {
                break;
            }
            let number = self.books.proposals.len() as u64 + 1;
            let compile = |settings: &Settings| {
                let recipe = self.store.path(&self.books.champion().recipe.file);
                self.world.check(&recipe, self.manifest.rung.depth, settings)
            };
            let context = Context {
                seed: self.manifest.seed,
                number,
                champion: self.books.champion(),
                history: &self.books,
                noise: self.scale(),
                judge: &self.options.judge,
                in_round: &round,
                compiled: &self.champion,
                compile: &compile,
            };
            let Some(draft) = self.options.researcher.propose(&context) else { break };
            let proposal = self.write_proposal(number, draft)?;
            if let Some(reason) = self.refusal(&proposal, &round)? {
                self.skip(&proposal, reason)?;
            } else {
                round.push(proposal);
            }
        }
        Ok(round)
    }

    fn write_proposal(&mut self, number: u64, draft: Draft) -> Result<Proposal, CampaignError> {
        let champion = self.books.champion();
        let mut settings = champion.settings.clone();
        for change in &draft.changes {
            settings.insert(change.setting.clone(), change.to.clone());
        }
        let proposal = Proposal {
            schema: SCHEMA,
            number,
            generation: champion.generation,
            changes: draft.changes,
            recipe: None,
            settings,
            category: draft.category,
            hypothesis: draft.hypothesis,
            prediction: draft.prediction,
            researcher: self.manifest.researcher.clone(),
            created_unix_s: self.world.unix_s(),
        };
        self.store.write(&format!("proposals/{number:04}.json"), &proposal)?;
        self.books.proposals.push(proposal.clone());
        (self.tell)(CampaignEvent::Proposed(&proposal));
        Ok(proposal)
    }

    /// Why a proposal is not worth a trial, if so.
    fn refusal(
        &self,
        proposal: &Proposal,
        round: &[Proposal],
    ) -> Result<Option<(String, Option<Checked>)>, CampaignError> {
        let checked = match self.compile(proposal) {
            Ok(checked) => checked,
            Err(message) => return Ok(Some((message, None))),
        };
        let steps = self.manifest.rung.flops / checked.flops_per_step;
        let is_dial = |name: &str| {
            checked.settings.iter().any(|spec| spec.name == name && spec.kind == SettingKind::Dial)
        };
        let dial = proposal.changes.iter().find(|change| is_dial(&change.setting));
        let reason = if let Some(dial) = dial {
            Some(format!("it turns the dial {}, which belongs to the trial", dial.setting))
        } else if checked.fingerprint == self.champion.fingerprint {
            Some(SAME_PROGRAM.to_string())
        } else if let Some(number) = self.books.tried(&checked.fingerprint) {
            Some(format!("the same program as #{number}"))
        } else if let Some(other) = round
            .iter()
            .find(|other| self.compile(other).is_ok_and(|known| known.fingerprint == checked.fingerprint))
        {
            Some(format!("the same program as #{}", other.number))
        } else if steps < MIN_STEPS {
            Some(format!("the budget allows {} steps, fewer than {MIN_STEPS}", steps.floor()))
        } else {
            None
        };
        Ok(reason.map(|reason| (reason, Some(checked))))
    }

    fn compile(&self, proposal: &Proposal) -> Result<Checked, String> {
        let recipe =
            proposal.recipe.as_ref().unwrap_or(&self.books.champions[proposal.generation as usize].recipe);
        self.world.check(&self.store.path(&recipe.file), self.manifest.rung.depth, &proposal.settings)
    }

    fn skip(
        &mut self,
        proposal: &Proposal,
        (reason, checked): (String, Option<Checked>),
    ) -> Result<(), CampaignError> {
        let candidate = Candidate::untried(proposal.clone(), checked);
        self.settle(candidate, Decision::Skipped(reason), None, None)?;
        Ok(())
    }

    /// Compiles a round. What does not compile is settled here: after an interruption a proposal may be on
    /// file whose refusal is not.
    fn gate(&mut self, round: Vec<Proposal>) -> Result<Vec<Candidate>, CampaignError> {
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut accepted: Vec<Proposal> = Vec::new();
        for proposal in round {
            match self.refusal(&proposal, &accepted)? {
                Some(refusal) if proposal.generation == self.books.champion().generation => {
                    self.skip(&proposal, refusal)?;
                }
                _ => {
                    let checked = self.compile(&proposal).map_err(CampaignError::Recipe)?;
                    let before = accepted.len() as u64;
                    let test_index = self.books.num_tested_before(proposal.number) + before + 1;
                    accepted.push(proposal.clone());
                    let mut candidate = Candidate::untried(proposal, Some(checked));
                    candidate.test_index = test_index;
                    candidates.push(candidate);
                }
            }
        }
        Ok(candidates)
    }

    /// Writes the verdict on a candidate, whatever it is.
    pub(crate) fn settle(
        &mut self,
        candidate: Candidate,
        decision: Decision,
        evidence: Option<Evidence>,
        equal_time: Option<EqualTime>,
    ) -> Result<Verdict, CampaignError> {
        let promoted =
            decision == Decision::Keep && equal_time.as_ref().is_none_or(|control| control.mean > 0.0);
        let number = candidate.proposal.number;
        let mut runs = runs_of(&candidate.pairs);
        runs.extend(equal_time.iter().flat_map(|control| control.champion_runs.clone()));
        if promoted {
            let fresh = self.fresh_scores(&candidate.proposal)?;
            runs.extend(fresh.into_iter().map(|score| score.run));
        }
        let newly = self.books.claim(&runs);
        let verdict = Verdict {
            schema: SCHEMA,
            proposal: number,
            generation: candidate.proposal.generation,
            decision,
            promoted,
            fingerprint: candidate.checked.as_ref().map(|checked| checked.fingerprint.clone()),
            num_params: candidate.checked.as_ref().map(|checked| checked.num_params),
            seconds_ratio: candidate.seconds_ratio(),
            pairs: candidate.pairs,
            evidence,
            equal_time,
            flops: newly.flops,
            runs: newly.runs,
            run_seconds: newly.seconds,
            elapsed_s: self.elapsed_s(),
            created_unix_s: self.world.unix_s(),
        };
        self.store.write(&format!("verdicts/{number:04}.json"), &verdict)?;
        (self.tell)(CampaignEvent::Verdict { proposal: &candidate.proposal, verdict: &verdict });
        self.books.verdicts.insert(number, verdict.clone());
        Ok(verdict)
    }

    /// A champion to be on the first of its own pair seeds: its challengers need those runs, and they show it
    /// without the luck it won by.
    fn fresh_scores(&mut self, proposal: &Proposal) -> Result<Vec<Score>, CampaignError> {
        let before = &self.books.champions[proposal.generation as usize];
        let recipe = proposal.recipe.clone().unwrap_or_else(|| before.recipe.clone());
        let generation = before.generation + 1;
        let trials: Vec<Trial> = (0..self.options.workers as u64)
            .map(|pair_idx| self.pair_trial(generation, pair_idx, &recipe, &proposal.settings))
            .collect();
        let what = format!("champion {generation}");
        let mut fresh = Vec::new();
        for score in self.scores(&what, &trials, true)? {
            fresh.push(score.map_err(|reason| CampaignError::Trial { what: what.clone(), reason })?);
        }
        if fresh.iter().all(|score| score.val_bpb.is_none()) {
            let reason = "it diverged on every fresh seed".to_string();
            return Err(CampaignError::Trial { what, reason });
        }
        Ok(fresh)
    }

    /// Makes the challenger of a kept proposal champion.
    pub(crate) fn promote(&mut self, number: u64) -> Result<(), CampaignError> {
        let proposal = self.books.proposals[number as usize - 1].clone();
        let verdict = self.books.verdicts[&number].clone();
        let compiled = self.compile(&proposal).map_err(CampaignError::Recipe)?;
        let before = self.books.champion();
        let generation = before.generation + 1;
        let recipe = proposal.recipe.clone().unwrap_or_else(|| before.recipe.clone());
        let fresh = self.fresh_scores(&proposal)?;
        let bpb: Vec<f64> = fresh.iter().filter_map(|score| score.val_bpb).collect();
        let promotion = Promotion {
            schema: SCHEMA,
            generation,
            proposal: Some(number),
            recipe,
            settings: proposal.settings,
            fingerprint: compiled.fingerprint.clone(),
            num_params: compiled.num_params,
            flops_per_step: compiled.flops_per_step,
            gain: verdict.evidence,
            mean_bpb: bpb.iter().sum::<f64>() / bpb.len() as f64,
            run: fresh[0].run.clone(),
            fresh_runs: fresh.into_iter().map(|score| score.run).collect(),
            elapsed_s: verdict.elapsed_s,
        };
        self.store.write(&format!("champions/{generation:04}.json"), &promotion)?;
        (self.tell)(CampaignEvent::Promotion(&promotion));
        self.books.champions.push(promotion);
        self.champion = compiled;
        Ok(())
    }

    /// The noise as the judge uses it.
    pub(crate) fn scale(&self) -> NoiseScale {
        let noise = self.noise.as_ref().expect("the noise is learnt before the first proposal");
        scale_of(noise)
    }
}

/// The noise on file as the judge uses it.
pub(crate) fn scale_of(noise: &Noise) -> NoiseScale {
    let scores = |pair: &NoisePair| Scores { champion: pair.bpb[0], challenger: pair.bpb[1] };
    NoiseScale::new(&noise.pairs.iter().map(scores).collect::<Vec<_>>())
}

/// The refusal of a change that changes nothing.
pub(crate) const SAME_PROGRAM: &str = "the same program as the champion";

/// Training steps below which a score says nothing about a recipe.
pub const MIN_STEPS: f64 = 10.0;

/// Proposals in a row that may be skipped as already tried before the researcher counts as exhausted.
const MAX_REPEATS: usize = 100;
