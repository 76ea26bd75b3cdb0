//! One campaign, from the first A/A pair to the final measurement.
//!
//! The loop is `Campaign::proceed`. All it knows lies in the campaign's folder: it writes a proposal
//! before its first trial and a verdict after its last, so a campaign killed anywhere is continued by
//! reading the folder, and trials that had finished are found rather than run. It does not print, does
//! not know which researcher it talks to, and never shows a researcher the sealed split.

use crate::books::{Books, runs_of};
use crate::confirm;
use crate::court::{self, Court};
use crate::duel::{Candidate, wins_time};
pub use crate::events::{CampaignError, CampaignEvent, CampaignReport};
use crate::evidence::Scores;
use crate::judge::{self, Known, NoiseScale};
use crate::library;
use crate::options::{CampaignOptions, open_manifest};
use crate::researcher::{Answer, Draft, Left, inherited};
use crate::retract;
use crate::store::{self, Store};
use crate::tune;
use crate::upkeep::leans_on;
use crate::view::Seen;
use crate::world::{Checked, Score, SettingKind, Trial, World};
use crate::worth;
use pawl_record::{
    CampaignBudget, CampaignManifest, Climb, Decision, EndReason, EqualTime, Evidence, Fresh, Noise,
    NoisePair, Origin, Promotion, Proposal, RecipeRef, SCHEMA, Settings, Verdict,
};
use std::cell::RefCell;

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

/// What a researcher was good for.
enum Round {
    /// At least one.
    Proposals(Vec<Proposal>),
    /// Why not.
    None(EndReason),
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
    pub(crate) fn open(
        options: &'a CampaignOptions,
        world: &'a dyn World,
        tell: &'a mut dyn FnMut(CampaignEvent<'_>),
    ) -> Result<Campaign<'a>, CampaignError> {
        judge::check_settings(&options.judge).map_err(CampaignError::Options)?;
        let store = Store::new(&options.lab);
        let manifest = open_manifest(options, &store, world.unix_s())?;
        let check = |depth: u64| {
            world
                .check(&store.path(&manifest.recipe.file), depth, &manifest.settings)
                .map_err(|message| CampaignError::Recipe(format!("at depth {depth}: {message}")))
        };
        let start = check(manifest.rungs.first().depth)?;
        for above in &manifest.rungs.all()[1..] {
            check(above.depth)?;
        }
        let mut books = Books::read(&store)?;
        retract::settle(&store, &mut books)?;
        books.elsewhere = library::elsewhere(&options.lab)?;
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
                .check(&store.path(&champion.recipe.file), manifest.rungs.first().depth, &champion.settings)
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
        self.finish_pruning()?;
        let reason = loop {
            let mut round = self.books.unfinished();
            if round.is_empty() {
                if !self.can_afford_a_round() {
                    break EndReason::Budget;
                }
                if self.prune()? {
                    continue;
                }
                round = match self.upkeep()? {
                    Some(own) => vec![own],
                    None => match self.propose()? {
                        Round::Proposals(round) => round,
                        // Whoever was waited for may have used up what was left.
                        Round::None(_) if !self.can_afford_a_round() => break EndReason::Budget,
                        Round::None(reason) => break reason,
                    },
                };
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

    /// Seconds one trial of the first rung is expected to take.
    pub(crate) fn trial_s(&self) -> f64 {
        self.noise.as_ref().map_or(0.0, |noise| noise.run_seconds)
    }

    /// Seconds that trials of the first rung take when run on all workers.
    pub(crate) fn seconds_of(&self, num_trials: usize) -> f64 {
        self.seconds_on(0, num_trials)
    }

    /// Seconds that trials of a rung take when run on all workers.
    pub(crate) fn seconds_on(&self, rung: usize, num_trials: usize) -> f64 {
        let ratio = self.manifest.rungs.all()[rung].flops / self.manifest.rungs.first().flops;
        num_trials.div_ceil(self.options.workers) as f64 * ratio * self.trial_s()
    }

    /// Seconds to keep back for measuring the champion, and every champion before it, on fresh seeds. One
    /// more generation than there is: the round that is being paid for may promote.
    fn reserve_s(&self) -> f64 {
        let generations = self.books.champions.len();
        let above = (1..self.manifest.rungs.all().len())
            .map(|rung| self.seconds_on(rung, 2 * self.num_seeds_above() as usize));
        self.seconds_of((generations + 1) * self.options.final_seeds as usize) + above.sum::<f64>()
    }

    /// Whether `num_trials` more trials of the first rung leave enough of a budget of time for a keep to climb and for
    /// the final measurement. A budget of trials only has to be unused: what begins within it is finished.
    pub(crate) fn can_afford(&self, num_trials: usize) -> bool {
        // A keep is run anew before it is challenged.
        let num_trials = num_trials + self.manifest.judge.champion_runs as usize;
        self.can_spend(self.seconds_of(num_trials) + self.least_climb_s())
    }

    /// Whether so many seconds leave enough of the budget for the final measurement, which is not among its trials.
    pub(crate) fn can_spend(&self, seconds: f64) -> bool {
        match self.options.budget {
            CampaignBudget::Minutes(minutes) => {
                self.elapsed_s() + seconds + self.reserve_s() <= 60.0 * minutes
            }
            CampaignBudget::Trials(trials) => self.books.num_runs() < trials,
        }
    }

    /// A round is at least one trial a worker and the pair after it.
    fn can_afford_a_round(&self) -> bool {
        self.can_afford(2 * self.options.workers)
    }

    /// As many proposals as there are workers, each on file, or why there is none. Those that compile to a program
    /// already tried, or do not compile, are settled at once and do not count.
    fn propose(&mut self) -> Result<Round, CampaignError> {
        let mut round: Vec<Proposal> = Vec::new();
        let mut ended = EndReason::Exhausted;
        // A researcher that only repeats itself is exhausted.
        for _ in 0..self.options.workers + MAX_REPEATS {
            if round.len() == self.options.workers {
                break;
            }
            let number = self.books.proposals.len() as u64 + 1;
            let draft = match self.ask(&round) {
                Answer::Draft(draft) => *draft,
                Answer::Exhausted => break,
                Answer::Paused(_) if self.world.interrupted() => return Err(CampaignError::Interrupted),
                Answer::Paused(reason) => {
                    (self.tell)(CampaignEvent::Paused(&reason));
                    ended = EndReason::Paused;
                    break;
                }
            };
            let proposal = self.write_proposal(number, draft)?;
            if let Some(reason) = self.refusal(&proposal, &round)? {
                self.skip(&proposal, reason)?;
            } else {
                round.push(proposal);
            }
        }
        Ok(if round.is_empty() { Round::None(ended) } else { Round::Proposals(round) })
    }

    /// Asks the researcher.
    fn ask(&mut self, in_round: &[Proposal]) -> Answer {
        let left = self.left();
        let tell = RefCell::new(&mut *self.tell);
        let seen = Seen {
            lab: &self.options.lab,
            store: &self.store,
            manifest: &self.manifest,
            books: &self.books,
            noise: self.noise.as_ref().expect("the noise is learnt before the first proposal"),
            compiled: &self.champion,
            in_round,
            left,
            world: self.world,
            say: &|what| (tell.borrow_mut())(CampaignEvent::Said(what)),
        };
        seen.show(|context| match tune::follow_up(context) {
            Some(draft) => Answer::Draft(Box::new(draft)),
            None => self.options.researcher.propose(context),
        })
    }

    /// What is left of the budget, the final measurement kept back.
    fn left(&self) -> Left {
        let (seconds, trials) = match self.options.budget {
            CampaignBudget::Minutes(minutes) => {
                (Some((60.0 * minutes - self.elapsed_s() - self.reserve_s()).max(0.0)), None)
            }
            CampaignBudget::Trials(trials) => (None, Some(trials.saturating_sub(self.books.num_runs()))),
        };
        Left { seconds, trials, trial_s: self.trial_s(), workers: self.options.workers }
    }

    fn write_proposal(&mut self, number: u64, draft: Draft) -> Result<Proposal, CampaignError> {
        let name = format!("{}-{number}.star", self.manifest.recipe.name);
        let recipe = draft.recipe.as_ref().map(|text| self.store.keep_recipe(&name, text)).transpose()?;
        self.file_draft(draft, recipe)
    }

    /// Puts a draft on file, with the text that is kept for it where it has one.
    pub(crate) fn file_draft(
        &mut self,
        draft: Draft,
        recipe: Option<RecipeRef>,
    ) -> Result<Proposal, CampaignError> {
        let champion = self.books.champion();
        let mut settings = match &recipe {
            None => champion.settings.clone(),
            Some(recipe) => {
                let path = self.store.path(&recipe.file);
                let checked = self.world.check(&path, self.manifest.rungs.first().depth, &Settings::new());
                // Of a text that does not compile nothing is inherited: the gate says why.
                checked.map_or_else(|_| Settings::new(), |checked| inherited(&champion.settings, &checked))
            }
        };
        settings.extend(draft.changes.iter().map(|change| (change.setting.clone(), change.to.clone())));
        let proposal = Proposal {
            schema: SCHEMA,
            number: self.books.proposals.len() as u64 + 1,
            generation: champion.generation,
            changes: draft.changes,
            recipe,
            settings,
            category: draft.category,
            hypothesis: draft.hypothesis,
            prediction: draft.prediction,
            researcher: draft.researcher,
            author: draft.author,
            created_unix_s: self.world.unix_s(),
        };
        self.file_proposal(proposal)
    }

    fn file_proposal(&mut self, proposal: Proposal) -> Result<Proposal, CampaignError> {
        self.store.write(&format!("proposals/{:04}.json", proposal.number), &proposal)?;
        self.books.proposals.push(proposal.clone());
        (self.tell)(CampaignEvent::Proposed(&proposal));
        Ok(proposal)
    }

    /// Why a proposal is not worth a trial, if so.
    pub(crate) fn refusal(
        &self,
        proposal: &Proposal,
        round: &[Proposal],
    ) -> Result<Option<(String, Option<Checked>)>, CampaignError> {
        let checked = match self.compile(proposal) {
            Ok(checked) => checked,
            Err(message) => return Ok(Some((message, None))),
        };
        let steps = self.manifest.rungs.first().flops / checked.flops_per_step;
        let is_dial = |name: &str| {
            checked.settings.iter().any(|spec| spec.name == name && spec.kind == SettingKind::Dial)
        };
        let dial = proposal.changes.iter().find(|change| is_dial(&change.setting));
        let reason = if let Some(dial) = dial {
            Some(format!("it turns the dial {}, which belongs to the trial", dial.setting))
        } else if checked.fingerprint == self.champion.fingerprint {
            Some(SAME_PROGRAM.to_string())
        } else if let Some(number) = self.tried_before(proposal, &checked.fingerprint) {
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

    pub(crate) fn compile(&self, proposal: &Proposal) -> Result<Checked, String> {
        let recipe =
            proposal.recipe.as_ref().unwrap_or(&self.books.champions[proposal.generation as usize].recipe);
        self.world.check(
            &self.store.path(&recipe.file),
            self.manifest.rungs.first().depth,
            &proposal.settings,
        )
    }

    pub(crate) fn skip(
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
            // It begins past the pairs of one that has them still to come: it and those after it are the next round.
            if accepted.iter().any(|other| leans_on(&self.manifest.judge, &proposal, other)) {
                break;
            }
            match self.refusal(&proposal, &accepted)? {
                Some(refusal) if proposal.generation == self.books.champion().generation => {
                    self.skip(&proposal, refusal)?;
                }
                _ => {
                    let checked = self.compile(&proposal).map_err(CampaignError::Recipe)?;
                    let before = accepted.len() as u64;
                    let test_index = self.books.num_tested_before(proposal.number) + before + 1;
                    accepted.push(proposal.clone());
                    let first_pair = self.first_pair(&proposal);
                    let mut candidate = Candidate::untried(proposal, Some(checked)).starting_at(first_pair);
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
        let stands = decision == Decision::Keep
            && wins_time(equal_time.as_ref())
            && candidate.climbs.iter().all(Climb::held);
        let fresh = if stands { Some(self.confirm(&candidate)?) } else { None };
        let promoted = fresh.as_ref().is_some_and(|fresh| fresh.holds);
        let number = candidate.proposal.number;
        let climbs = candidate.climbs.iter().flat_map(|climb| &climb.pairs);
        let mut runs = runs_of(candidate.pairs.iter().chain(climbs));
        runs.extend(equal_time.iter().flat_map(|control| control.champion_runs.clone()));
        runs.extend(fresh.iter().flat_map(|fresh| fresh.runs.clone()));
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
            worth: worth::of_keep(&self.manifest, number, &candidate.pairs, &candidate.climbs),
            pairs: candidate.pairs,
            evidence,
            equal_time,
            climbs: candidate.climbs,
            fresh,
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
    pub(crate) fn fresh_scores(&mut self, proposal: &Proposal) -> Result<Vec<Score>, CampaignError> {
        let before = &self.books.champions[proposal.generation as usize];
        let recipe = proposal.recipe.clone().unwrap_or_else(|| before.recipe.clone());
        let generation = before.generation + 1;
        let trials: Vec<Trial> = (0..self.manifest.judge.champion_runs)
            .map(|pair_idx| self.pair_trial(generation, pair_idx, &recipe, &proposal.settings))
            .collect();
        let what = format!("champion {generation}");
        let mut fresh = Vec::new();
        for score in self.scores(&what, &trials, true)? {
            fresh.push(score.map_err(|reason| CampaignError::Trial { what: what.clone(), reason })?);
        }
        Ok(fresh)
    }

    /// What a keep shows on the fresh seeds that it will be known by as champion.
    fn confirm(&mut self, candidate: &Candidate) -> Result<Fresh, CampaignError> {
        let scores = self.fresh_scores(&candidate.proposal)?;
        let bpb: Vec<Option<f64>> = scores.iter().map(|score| score.val_bpb).collect();
        let (known, case) = (self.known(candidate), self.case(candidate));
        let holds = confirm::holds(&self.manifest.judge, &known, &case.pairs, &bpb);
        Ok(Fresh { runs: scores.into_iter().map(|score| score.run).collect(), bpb, holds })
    }

    /// Makes the challenger of a kept proposal champion.
    pub(crate) fn promote(&mut self, number: u64) -> Result<(), CampaignError> {
        let proposal = self.books.proposals[number as usize - 1].clone();
        let verdict = &self.books.verdicts[&number];
        let (gain, elapsed_s) = (verdict.evidence, verdict.elapsed_s);
        self.crown(&proposal, Some(number), None, gain, elapsed_s)
    }

    /// Makes what `proposal` describes champion.
    pub(crate) fn crown(
        &mut self,
        proposal: &Proposal,
        number: Option<u64>,
        origin: Option<Origin>,
        gain: Option<Evidence>,
        elapsed_s: f64,
    ) -> Result<(), CampaignError> {
        let compiled = self.compile(proposal).map_err(CampaignError::Recipe)?;
        let before = self.books.champion();
        let generation = before.generation + 1;
        let recipe = proposal.recipe.clone().unwrap_or_else(|| before.recipe.clone());
        let fresh = self.fresh_scores(proposal)?;
        let bpb: Vec<f64> = fresh.iter().filter_map(|score| score.val_bpb).collect();
        let Some(first) = fresh.iter().find(|score| score.val_bpb.is_some()) else {
            let reason = "it diverged on every fresh seed".to_string();
            return Err(CampaignError::Trial { what: format!("champion {generation}"), reason });
        };
        let promotion = Promotion {
            schema: SCHEMA,
            generation,
            proposal: number,
            origin,
            recipe,
            settings: proposal.settings.clone(),
            fingerprint: compiled.fingerprint.clone(),
            num_params: compiled.num_params,
            flops_per_step: compiled.flops_per_step,
            gain,
            mean_bpb: bpb.iter().sum::<f64>() / bpb.len() as f64,
            run: first.run.clone(),
            fresh_runs: fresh.into_iter().map(|score| score.run).collect(),
            fresh_bpb: bpb,
            elapsed_s,
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
    start_of(noise).scale
}

/// What is on file of the noise and of a champion, as the judge uses it.
pub(crate) fn known_of(noise: &Noise, champion: &Promotion) -> Known {
    let start = start_of(noise);
    match champion.generation {
        0 => start,
        // The runs of a champion restored are on the seeds of its first time.
        _ if matches!(champion.origin, Some(Origin::Restored { .. })) => Known::of_noise(start.scale),
        _ => Known::of_champion(&start.scale, &champion.fresh_bpb),
    }
}

fn start_of(noise: &Noise) -> Known {
    let scores = |pair: &NoisePair| Scores { champion: pair.bpb[0], challenger: pair.bpb[1] };
    Known::of_start(&noise.pairs.iter().map(scores).collect::<Vec<_>>())
}

/// The refusal of a change that changes nothing.
pub(crate) const SAME_PROGRAM: &str = "the same program as the champion";

/// Training steps below which a score says nothing about a recipe.
pub const MIN_STEPS: f64 = 10.0;

/// Proposals in a row that may be skipped as already tried before the researcher counts as exhausted.
const MAX_REPEATS: usize = 100;
