//! Campaigns of drawn numbers through the real judge, levels and order of decisions ([`crate::court`]): what
//! the error rates and the power of the procedure are, measured rather than asserted.
//!
//! The unit is the standard deviation of an A/A pair, and effects are what lies above the minimum worthwhile
//! effect. A pair's noise is the champion's luck on its seed, which every challenger of that champion meets,
//! less the challenger's own. With a rung above, a keep climbs as in a campaign ([`crate::climb`]), and every keep is run on fresh seeds
//! ([`crate::confirm`]). Noise is learnt from as few A/A pairs as in a campaign, the first run of each
//! being the champion's; a new champion gets fresh seeds. Nothing here decides and nothing reads a clock or a
//! file: the same seed gives the same campaign.

pub mod rivals;

use crate::climb::{self, Rope};
use crate::confirm;
use crate::court::{self, Case, Court};
use crate::evidence::{Known, Scores};
use crate::judge::Ruling;
use crate::levels;
use crate::random::Random;
use pawl_record::{Decision, Evidence, JudgeSettings};
use std::convert::Infallible;

/// What noise looks like; each has mean 0, and an A/A pair standard deviation 1.
#[derive(Clone, Debug, PartialEq)]
pub enum Law {
    /// As the judge assumes.
    Normal,
    /// Student's t with three degrees of freedom, in both arms: no fourth moment.
    HeavyTailed,
    /// The challenger is a little better than its mean most of the time and rarely much worse: exponential luck,
    /// the direction that deceives a test which has seen few pairs.
    Skewed,
    /// Drawn from measured pairs.
    Measured(Measured),
}

/// Scores of real trials, by kind, in units of the A/A standard deviation.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Of A/A pairs.
    pub aa: Vec<Scores>,
    /// Of changes that change nothing, one list a change; each proposal is of one kind.
    pub nulls: Vec<Vec<Scores>>,
}

impl Law {
    /// One arm's luck, standard deviation 1.
    fn luck(&self, random: &mut Random, is_challenger: bool) -> f64 {
        match self {
            Law::Normal | Law::Measured(_) => random.normal(),
            Law::HeavyTailed => {
                let chi: f64 = (0..3).map(|_| random.normal().powi(2)).sum();
                random.normal() / chi.sqrt()
            }
            Law::Skewed if is_challenger => -(1.0 - random.uniform()).ln() - 1.0,
            Law::Skewed => random.normal(),
        }
    }
}

/// A change whose truth is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Planted {
    /// True gain above the minimum worthwhile effect, A/A pair sds; positive is better.
    pub effect: f64,
    /// Standard deviation of its pairs over that of A/A pairs.
    pub noise_ratio: f64,
}

/// A change that changes nothing, as noisy as an A/A pair.
pub const NULL: Planted = Planted { effect: 0.0, noise_ratio: 1.0 };

/// A rung above the first, as every change meets it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Above {
    /// Share of an effect that is left there.
    pub effect: f64,
    /// Standard deviation of a pair there over that on the first rung.
    pub noise: f64,
    /// What a run costs there, in runs of the first rung.
    pub cost: u64,
}

/// A simulated campaign to hold.
pub struct Plan<'a> {
    /// How it is judged; the minimum effect counts as 0.
    pub settings: JudgeSettings,
    /// Noise of its trials.
    pub law: &'a Law,
    /// Proposals screened together.
    pub workers: usize,
    /// Proposals there are.
    pub num_proposals: u64,
    /// Training runs it may use, if limited.
    pub max_runs: Option<u64>,
    /// The rung that a keep must climb, if there is one.
    pub above: Option<Above>,
    /// Draws a proposal. It may know the champion's luck on its seeds, as a researcher who reads the ledger may.
    pub propose: &'a dyn Fn(&mut Random, &[f64]) -> Planted,
}

/// How one proposal ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What it was.
    pub planted: Planted,
    /// Whether it became champion.
    pub kept: bool,
    /// Whether it was kept on the first rung and did not hold above it.
    pub stayed: bool,
    /// Whether nothing else stood against it and it did not hold on fresh seeds.
    pub faded: bool,
    /// Its pairs.
    pub pairs: u64,
    /// Whether it was closed because another became champion, or the budget ended: the judge did not decide.
    pub cut_short: bool,
}

/// What a campaign came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcomes {
    /// In the order closed.
    pub proposals: Vec<Outcome>,
    /// Training runs, A/A pairs included; those above the first rung count as many times as they cost.
    pub runs: u64,
}

impl Outcomes {
    /// Keeps without a true gain.
    pub fn num_false(&self) -> u64 {
        self.proposals.iter().filter(|p| p.kept && p.planted.effect <= 0.0).count() as u64
    }

    /// All keeps.
    pub fn num_kept(&self) -> u64 {
        self.proposals.iter().filter(|p| p.kept).count() as u64
    }

    /// Share of false keeps among keeps, 0 without keeps.
    pub fn false_share(&self) -> f64 {
        self.num_false() as f64 / self.num_kept().max(1) as f64
    }

    /// True gain of all keeps, A/A pair sds.
    pub fn gain(&self) -> f64 {
        self.proposals.iter().filter(|p| p.kept).map(|p| p.planted.effect).sum()
    }
}

/// One campaign, keyed by `seed`.
pub fn campaign(plan: &Plan<'_>, seed: u64) -> Outcomes {
    let mut random = Random::new(&[seed, 0x51]);
    let settings = JudgeSettings { min_effect_bpb: 0.0, ..plan.settings };
    let mut champion = Vec::new();
    let aa: Vec<Scores> = (0..settings.noise_pairs)
        .map(|_| match plan.law {
            Law::Measured(measured) => resampled(&measured.aa, &mut random),
            Law::Normal | Law::HeavyTailed | Law::Skewed => {
                let first = plan.law.luck(&mut random, false);
                champion.push(first);
                arms(first, plan.law.luck(&mut random, false))
            }
        })
        .collect();
    let mut lab = Lab {
        plan,
        settings,
        known: vec![Known::of_start(&aa)],
        random,
        champion,
        num_champion_runs: settings.noise_pairs as usize,
        champion_above: Vec::new(),
        kept: 0,
        fresh: Vec::new(),
        outcomes: Outcomes { runs: 2 * settings.noise_pairs, ..Outcomes::default() },
    };
    let mut number = 0;
    while number < plan.num_proposals && lab.can_afford() {
        let size = (plan.workers as u64).min(plan.num_proposals - number);
        lab.champion_luck(settings.max_pairs as usize);
        let round = (1..=size).map(|i| lab.propose(number + i)).collect();
        number += size;
        let Ok(()) = court::hold(&mut lab, round);
    }
    lab.outcomes
}

/// One duel of one proposal at a given level, keyed by `seed`. The level is given as the first of a campaign
/// whose error rate makes it so.
pub fn duel(plan: &Plan<'_>, level: f64, seed: u64) -> Outcome {
    let settings = JudgeSettings { alpha: level / levels::level(1.0, 1, 0), ..plan.settings };
    let one = Plan { settings, workers: 1, num_proposals: 1, max_runs: None, above: None, ..*plan };
    campaign(&one, seed).proposals.remove(0)
}

/// Scores of two arms that had this much luck each: sd 1 of their difference where both have sd 1.
fn arms(champion: f64, challenger: f64) -> Scores {
    Scores { champion: champion * 0.5f64.sqrt(), challenger: challenger * 0.5f64.sqrt() }
}

/// The challenger's luck such that the difference of the arms has `ratio` times the standard deviation that
/// unrelated arms have: correlated with the champion's where it is smaller, wilder where it is larger.
fn paired(ratio: f64, champion: f64, own: f64) -> f64 {
    if ratio < 1.0 {
        let correlation = 1.0 - ratio * ratio;
        correlation * champion + (1.0 - correlation * correlation).sqrt() * own
    } else {
        (2.0 * ratio * ratio - 1.0).sqrt() * own
    }
}

/// A measured pair, either way round: two equal arms may be called by either name.
fn resampled(pairs: &[Scores], random: &mut Random) -> Scores {
    let Scores { champion, challenger } = pairs[random.below(pairs.len())];
    if random.uniform() < 0.5 {
        Scores { champion: challenger, challenger: champion }
    } else {
        Scores { champion, challenger }
    }
}

struct Candidate {
    planted: Planted,
    /// Index of its kind in [`Measured::nulls`].
    kind: usize,
    case: Case,
}

/// The campaign as [`Court`] sees it.
struct Lab<'a> {
    plan: &'a Plan<'a>,
    settings: JudgeSettings,
    /// Of each champion.
    known: Vec<Known>,
    random: Random,
    /// Luck of the present champion by pair.
    champion: Vec<f64>,
    /// How many of those were run.
    num_champion_runs: usize,
    /// Luck of the present champion by pair on the rung above, as far as it was run.
    champion_above: Vec<f64>,
    kept: u64,
    /// Luck of the last keep on the first seeds of the champion it may become.
    fresh: Vec<f64>,
    outcomes: Outcomes,
}

impl Lab<'_> {
    fn can_afford(&self) -> bool {
        self.plan.max_runs.is_none_or(|runs| self.outcomes.runs < runs)
    }

    fn propose(&mut self, test_index: u64) -> Candidate {
        let planted = (self.plan.propose)(&mut self.random, &self.champion);
        let kind = match self.plan.law {
            Law::Measured(measured) => self.random.below(measured.nulls.len()),
            Law::Normal | Law::HeavyTailed | Law::Skewed => 0,
        };
        let case = Case { test_index, generation: self.generation(), pairs: Vec::new(), failure: None };
        Candidate { planted, kind, case }
    }

    /// A new champion, whose first runs are those that confirmed it.
    fn crown(&mut self) {
        let fresh = std::mem::take(&mut self.fresh);
        self.champion = fresh.iter().map(|score| score / arms(1.0, 0.0).champion).collect();
        self.champion_above.clear();
        self.champion_luck(self.settings.max_pairs.max(self.settings.champion_runs) as usize);
        self.num_champion_runs = fresh.len();
        self.known.push(Known::of_champion(&self.known[0].scale, &fresh));
    }

    /// Whether a keep holds on fresh seeds.
    fn is_confirmed(&mut self, candidate: &Candidate) -> bool {
        let Planted { effect, noise_ratio } = candidate.planted;
        self.outcomes.runs += self.settings.champion_runs;
        let luck = |_| match self.plan.law {
            Law::Measured(measured) => {
                resampled(&measured.nulls[candidate.kind], &mut self.random).challenger
            }
            law @ (Law::Normal | Law::HeavyTailed | Law::Skewed) => {
                let seed = law.luck(&mut self.random, false);
                let own = law.luck(&mut self.random, true);
                arms(0.0, paired(noise_ratio, seed, own)).challenger
            }
        };
        self.fresh = (0..self.settings.champion_runs).map(luck).collect();
        let scores: Vec<Option<f64>> = self.fresh.iter().map(|luck| Some(luck - effect)).collect();
        confirm::holds(&self.settings, &self.known(candidate), &candidate.case.pairs, &scores)
    }

    /// Draws the champion's luck on its first seeds, where it is not drawn yet.
    fn champion_luck(&mut self, num_pairs: usize) {
        while self.champion.len() < num_pairs {
            let luck = self.plan.law.luck(&mut self.random, false);
            self.champion.push(luck);
        }
    }

    fn pair(&mut self, candidate: &Candidate) -> Scores {
        let Planted { effect, noise_ratio } = candidate.planted;
        let scores = match self.plan.law {
            Law::Measured(measured) => resampled(&measured.nulls[candidate.kind], &mut self.random),
            law @ (Law::Normal | Law::HeavyTailed | Law::Skewed) => {
                let champion = self.champion[candidate.case.pairs.len()];
                let own = law.luck(&mut self.random, true);
                arms(champion, paired(noise_ratio, champion, own))
            }
        };
        Scores { challenger: scores.challenger - effect, ..scores }
    }

    /// Whether a keep holds on the rung above, where there is one.
    fn holds(&mut self, candidate: &Candidate) -> bool {
        let Some(above) = self.plan.above else { return true };
        let (settings, noise) = (self.settings, self.known[0].scale);
        let mut ascent = Ascent { lab: self, above, planted: candidate.planted, pairs: Vec::new() };
        let Ok((decision, _)) = climb::climb(&mut ascent, &settings, &noise, candidate.case.test_index);
        decision == Decision::Keep
    }
}

/// A climb in progress.
struct Ascent<'l, 'a> {
    lab: &'l mut Lab<'a>,
    above: Above,
    planted: Planted,
    pairs: Vec<Scores>,
}

impl Rope for Ascent<'_, '_> {
    type Error = Infallible;

    fn pairs(&self) -> Vec<Scores> {
        self.pairs.clone()
    }

    fn failure(&self) -> Option<String> {
        None
    }

    fn can_afford_pair(&self) -> bool {
        self.lab.can_afford()
    }

    fn add_pairs(&mut self) -> Result<(), Infallible> {
        let (lab, Above { effect, noise, cost }) = (&mut *self.lab, self.above);
        let (law, at) = (lab.plan.law, self.pairs.len());
        if at == lab.champion_above.len() {
            let luck = law.luck(&mut lab.random, false);
            lab.champion_above.push(luck);
            lab.outcomes.runs += cost;
        }
        let own = law.luck(&mut lab.random, true);
        let champion = lab.champion_above[at];
        let scores = arms(champion, paired(self.planted.noise_ratio, champion, own));
        self.pairs.push(Scores {
            champion: noise * scores.champion,
            challenger: noise * scores.challenger - effect * self.planted.effect,
        });
        lab.outcomes.runs += cost;
        Ok(())
    }
}

impl Court for Lab<'_> {
    type Candidate = Candidate;
    type Error = Infallible;

    fn settings(&self) -> JudgeSettings {
        self.settings
    }

    fn known(&self, candidate: &Candidate) -> Known {
        self.known[candidate.case.generation as usize].clone()
    }

    fn num_promoted(&self) -> u64 {
        self.kept
    }

    fn generation(&self) -> u64 {
        self.known.len() as u64 - 1
    }

    fn can_afford_pair(&self, _: &Candidate) -> bool {
        self.can_afford()
    }

    fn case(&self, candidate: &Candidate) -> Case {
        candidate.case.clone()
    }

    fn pairs_at_once(&self, _: &Candidate) -> usize {
        1
    }

    fn add_pairs(&mut self, candidates: &mut [Candidate], wanted: &[usize]) -> Result<(), Infallible> {
        for &who in wanted {
            let pair = self.pair(&candidates[who]);
            let pairs = &mut candidates[who].case.pairs;
            pairs.push(pair);
            let is_first = pairs.len() > self.num_champion_runs;
            self.num_champion_runs += usize::from(is_first);
            self.outcomes.runs += 1 + u64::from(is_first);
        }
        Ok(())
    }

    fn look(&mut self, _: &Candidate, _: &Evidence) {}

    fn close(&mut self, candidate: Candidate, ruling: Ruling, _: Option<Evidence>) -> Result<(), Infallible> {
        let won = ruling == Ruling::Keep;
        let climbed = won && self.holds(&candidate);
        let kept = climbed && self.is_confirmed(&candidate);
        self.outcomes.proposals.push(Outcome {
            planted: candidate.planted,
            kept,
            stayed: won && !climbed,
            faded: climbed && !kept,
            pairs: candidate.case.pairs.len() as u64,
            cut_short: candidate.case.generation != self.generation() || !self.can_afford(),
        });
        if kept {
            self.kept += 1;
            self.crown();
        }
        Ok(())
    }
}
