//! Whether a part of the champion carries its weight: the champion against itself without it, on paired seeds.
//!
//! A champion owes its settings to keeps, and a keep of several changes may have passengers. A part is left out
//! and tried; what is shown not to matter leaves, so that the recipe ends as short as it can be, and the record
//! shows what each part is worth by itself.
//!
//! # The rule
//!
//! With `d_i` the champion's score less that of the champion without the part (negative where the part carries),
//! the null is that the part is worth at least a margin M: `E[d] <= -M`. That is the null of [`crate::evidence`] with
//! a minimum effect of -M, so the judge's own e-process tests it: a non-inferiority test (Wellek, *Testing
//! statistical hypotheses of equivalence and noninferiority*, 2010) that may be looked at after every pair. The
//! part leaves when
//!
//! 1. the e-process reaches `1 / alpha`: a part worth M or more leaves with probability at most alpha, whatever
//!    stops the trial (Ville), under the assumptions of `evidence.rs`;
//! 2. at that look, leaving it out costs on average no more than the minimum worthwhile effect: a part worth
//!    something less than M is not given away for being small;
//! 3. training does not become slower by more than the clock can tell.
//!
//! Anything else, doubt included, stays. M is [`MARGIN_SDS`] standard deviations of an A/A pair.
//!
//! On a ladder the part must then leave by 1 and 2 on each rung above, in order, with the same M in bits per byte, by
//! pairs of that rung, its noise learnt as a climb learns it. Every rung has to agree, so each may be tested at alpha
//! and the bound of 1 stands (Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 1982).
//! What costs least comes first: most parts that carry are found to on the first rung.
//! With at most as many pairs as a climb, a part worth nothing is let go by a rung above in 26 to 50 % of trials where its
//! noise is no larger than the first rung's, in 9 % at twice that; worth M in at most 1 %, for 2 pairs (simulated). So on a
//! ladder a superfluous part stays more often than not, and one that carries above is hardly ever lost.
//!
//! # Why this opens no door to false keeps
//!
//! - A removal is not a keep: it takes no place in the campaign's sequence of tests and does not count among
//!   its keeps, so it earns no level for later proposals. Easy removals could otherwise buy generous tests.
//! - Parts leave one at a time, each from the champion that the one before left, on that champion's own seeds:
//!   two changes of which either would do are never both found superfluous.
//! - The champion without the part is a new champion with fresh seeds: no challenger meets it on the seeds on
//!   which it looked as good as its predecessor.
//! - What it may cost is bounded: less than M a removal, except with probability alpha. A part that is wrongly
//!   taken is a loss, not a false claim, and it may be proposed again.
//!
//! # What it costs
//!
//! A part is tried once. Parts of a keep of several changes come at once; a keep of one change is tried without
//! once a later keep stands on it, because its own test was this one. A trial of a passenger begins only while trials of
//! parts have used no more than [`SHARE`] of the campaign's FLOPs, any other only below [`SINGLE_SHARE`].

use crate::ascent::climb_seed;
use crate::campaign::{Campaign, CampaignError, CampaignEvent};
use crate::climb;
use crate::court::Court;
use crate::duel::{Candidate, SLOWER, scores_of};
use crate::evidence::Scores;
use crate::judge::{self, Known, NoiseScale, Ruling};
use pawl_ledger::Part;
use pawl_record::{
    Change, Evidence, JudgeSettings, Origin, PartClimb, PartRuling, Proposal, Pruning, SCHEMA,
};

/// The margin, in standard deviations of an A/A pair. A part of twice that is found by the judge in nineteen of
/// twenty tests; smaller margins take more pairs than there are (simulated: LOG.md).
pub const MARGIN_SDS: f64 = 1.0;

/// Share of the campaign's FLOPs that trials of parts may use before the next trial of a passenger begins. With a tenth
/// half of the passengers are still there at the end of a simulated campaign, with a fifth a third, with two fifths
/// hardly fewer (LOG.md).
pub const SHARE: f64 = 0.2;

/// The same for parts that were kept alone: they are rarely superfluous, and are looked at when there is little else.
pub const SINGLE_SHARE: f64 = 0.05;

/// The judge's settings for leaving out: the same e-process against another null.
fn settings(judge: &JudgeSettings, margin: f64) -> JudgeSettings {
    JudgeSettings {
        min_effect_bpb: -margin,
        target_effect_sds: MARGIN_SDS,
        mixture_sds: MARGIN_SDS,
        ..*judge
    }
}

/// Worth, in bits per byte, that a part must be shown to fall short of before it may leave.
pub fn margin(judge: &JudgeSettings, noise: &NoiseScale) -> f64 {
    (MARGIN_SDS * noise.sd()).max(judge.min_effect_bpb)
}

/// Rules on a part after `pairs` of the champion with and without it; `None` where more pairs are wanted.
pub fn rule(
    judge: &JudgeSettings,
    noise: &NoiseScale,
    pairs: &[Scores],
    seconds_ratio: Option<f64>,
) -> (Option<PartRuling>, Evidence) {
    let settings = settings(judge, margin(judge, noise));
    let (ruling, evidence) = judge::rule(&settings, &Known::of_noise(*noise), pairs, judge.alpha, 0);
    (part_ruling(judge, &ruling, &evidence, seconds_ratio), evidence)
}

/// Rules on a part on a rung above the first; `noise` is the first rung's, of which the margin is a multiple there too.
pub fn rule_above(
    judge: &JudgeSettings,
    noise: &NoiseScale,
    pairs: &[Scores],
) -> (Option<PartRuling>, Evidence) {
    let settings = settings(&climb::duel_settings(judge), margin(judge, noise));
    let known = Known::of_noise(climb::prior(noise, pairs));
    let (ruling, evidence) = judge::rule(&settings, &known, pairs, judge.alpha, 0);
    (part_ruling(judge, &ruling, &evidence, None), evidence)
}

fn part_ruling(
    judge: &JudgeSettings,
    ruling: &Ruling,
    evidence: &Evidence,
    seconds_ratio: Option<f64>,
) -> Option<PartRuling> {
    let stays = |why: &str| Some(PartRuling::Stays(why.to_string()));
    match ruling {
        Ruling::Continue => None,
        Ruling::Keep if seconds_ratio.is_some_and(|ratio| ratio > SLOWER) => {
            stays("training is slower without it")
        }
        Ruling::Keep if evidence.mean >= -judge.min_effect_bpb => Some(PartRuling::Leaves),
        Ruling::Keep => stays("it is worth less than the margin, but something"),
        Ruling::Reject(_) => stays("it carries its weight"),
        Ruling::Undecided(_) => stays("it was not shown to be worth less than the margin"),
    }
}

/// What a rung above the first says of a part.
pub(crate) fn on_rung(climb: &PartClimb) -> PartRuling {
    match &climb.ruling {
        PartRuling::Leaves => PartRuling::Leaves,
        PartRuling::Stays(why) => PartRuling::Stays(format!("on rung {}: {why}", climb.rung + 1)),
    }
}

/// Why a part stays that every rung would let go.
pub(crate) const DIVERGES: &str = "without it a fresh run diverges";

/// Why a part stays on a rung on which the champion diverges itself.
const TOO_FEW: &str = "too few seeds have scores";

impl Campaign<'_> {
    /// Tries the next part that is due, and makes the champion without it champion if it leaves. Says whether one
    /// was tried.
    pub(crate) fn prune(&mut self) -> Result<bool, CampaignError> {
        let Some(part) = self.part_due() else { return Ok(false) };
        let back = Change {
            setting: part.change.setting.clone(),
            from: part.change.to.clone(),
            to: part.change.from.clone(),
        };
        let without = self.without(part.proposal, &back);
        let checked = self.compile(&without).ok();
        let mut candidate = Candidate::untried(without, checked.clone());
        let same = checked.as_ref().is_some_and(|it| it.fingerprint == self.champion.fingerprint);
        let (mut ruling, evidence) = match checked {
            None => (PartRuling::Stays("the recipe does not compile without it".to_string()), None),
            Some(_) if same => (PartRuling::Stays("the same program without it".to_string()), None),
            Some(_) => self.try_without(&mut candidate)?,
        };
        let mut climbs: Vec<PartClimb> = Vec::new();
        for rung in 1..self.manifest.rungs.all().len() {
            if ruling == PartRuling::Leaves {
                let climb = self.climb_without(rung, &candidate)?;
                ruling = on_rung(&climb);
                climbs.push(climb);
            }
        }
        self.settle_part(candidate, back, ruling, evidence, climbs)?;
        Ok(true)
    }

    /// Pairs of the champion with and without a part, until the rule decides.
    fn try_without(
        &mut self,
        candidate: &mut Candidate,
    ) -> Result<(PartRuling, Option<Evidence>), CampaignError> {
        let mut last = None;
        loop {
            let num_pairs = self.pairs_at_once(candidate);
            self.add_pairs(std::slice::from_mut(candidate), &vec![0; num_pairs])?;
            let case = self.case(candidate);
            if let Some(failure) = case.failure {
                return Ok((PartRuling::Stays(format!("without it: {failure}")), last));
            }
            if !case.pairs.is_empty() {
                let judge = self.manifest.judge;
                let (ruling, evidence) = rule(&judge, &self.scale(), &case.pairs, candidate.seconds_ratio());
                self.look(candidate, &evidence);
                last = Some(evidence);
                if let Some(ruling) = ruling {
                    return Ok((ruling, last));
                }
            }
            if !self.can_afford(1) {
                return Ok((PartRuling::Stays(climb::OUT_OF_BUDGET.to_string()), last));
            }
        }
    }

    /// Pairs of the champion with and without a part on a rung above the first, until the rule decides.
    fn climb_without(&mut self, rung: usize, candidate: &Candidate) -> Result<PartClimb, CampaignError> {
        let proposal = &candidate.proposal;
        let champion = self.compile_on(rung, None).map_err(CampaignError::Recipe)?;
        let without = self.compile_on(rung, Some(proposal));
        let fingerprint = without.as_ref().ok().map(|it| it.fingerprint.clone());
        let mut climb = PartClimb {
            rung: rung as u64,
            champion_fingerprint: champion.fingerprint,
            fingerprint,
            pairs: Vec::new(),
            evidence: None,
            ruling: PartRuling::Leaves,
        };
        let stays = |why: &str| PartRuling::Stays(why.to_string());
        if climb.fingerprint.as_ref() == Some(&climb.champion_fingerprint) {
            return Ok(climb);
        }
        if let Some(failure) = self.too_large(rung, without) {
            climb.ruling = PartRuling::Stays(format!("without it: {failure}"));
            return Ok(climb);
        }
        let purpose = format!("without {} at rung {}", proposal.changes[0].setting, rung + 1);
        let (judge, noise) = (self.manifest.judge, self.scale());
        for pair_idx in 0..judge.climb_max_pairs {
            if !self.can_spend(self.seconds_on(rung, 2)) {
                climb.ruling = stays(climb::OUT_OF_BUDGET);
                return Ok(climb);
            }
            let seed = climb_seed(self.manifest.seed, rung as u64, proposal.generation, pair_idx);
            let champion = self.books.champion();
            let slot = (
                self.trial_on(rung, &champion.recipe, &champion.settings, seed),
                self.trial_on(rung, &champion.recipe, &proposal.settings, seed),
            );
            for tried in self.try_pairs(&purpose, &[slot])? {
                climb.pairs.extend(tried.pair);
                if let Some(failure) = tried.failure {
                    climb.ruling = PartRuling::Stays(format!("without it: {failure}"));
                    return Ok(climb);
                }
            }
            let pairs: Vec<Scores> = climb.pairs.iter().filter_map(scores_of).collect();
            if !pairs.is_empty() {
                let (ruling, evidence) = rule_above(&judge, &noise, &pairs);
                climb.evidence = Some(evidence);
                if let Some(ruling) = ruling {
                    return Ok(PartClimb { ruling, ..climb });
                }
            }
        }
        climb.ruling = stays(TOO_FEW);
        Ok(climb)
    }

    /// The first part of the champion that is to be tried, passengers of joint keeps before single keeps.
    fn part_due(&self) -> Option<Part> {
        let spent = self.books.prunings.iter().map(|pruning| pruning.flops).sum::<f64>();
        let share = spent / self.books.flops();
        let parts = self.books.parts(self.books.champion().generation);
        let newest = parts.iter().map(|part| part.generation).max()?;
        let is_tried = |part: &Part| {
            let same =
                |it: &Pruning| it.proposal == part.proposal && it.change.setting == part.change.setting;
            self.books.prunings.iter().any(same)
        };
        // What lies under a later part of the same setting is not the champion's value.
        let is_on_top = |part: &&Part| {
            let above =
                |it: &Part| it.change.setting == part.change.setting && it.generation > part.generation;
            !parts.iter().any(above)
        };
        let open: Vec<&Part> = parts.iter().filter(is_on_top).filter(|part| !is_tried(part)).collect();
        let is_joint = |part: &&&Part| self.books.proposals[part.proposal as usize - 1].changes.len() > 1;
        let joint = open.iter().find(is_joint).filter(|_| share <= SHARE);
        let single = || open.iter().find(|part| part.generation < newest).filter(|_| share <= SINGLE_SHARE);
        joint.or_else(single).map(|part| (*part).clone())
    }

    /// The champion without a part, as a proposal that is on no file: the one that brought the part, turned back.
    pub(crate) fn without(&self, proposal: u64, back: &Change) -> Proposal {
        let brought = self.books.proposals[proposal as usize - 1].clone();
        let champion = self.books.champion();
        let mut settings = champion.settings.clone();
        // A value that was the recipe's default is not spelt out again: the recipe gets shorter.
        match self.books.champions[brought.generation as usize].settings.get(&back.setting) {
            Some(value) => settings.insert(back.setting.clone(), value.clone()),
            None => settings.remove(&back.setting),
        };
        let mut without = Proposal {
            generation: champion.generation,
            changes: vec![back.clone()],
            recipe: None,
            settings,
            ..brought
        };
        // A text that came later may have another default.
        let is_elsewhere = self.compile(&without).is_ok_and(|checked| {
            checked.settings.iter().any(|spec| spec.name == back.setting && spec.value != back.to)
        });
        if is_elsewhere {
            without.settings.insert(back.setting.clone(), back.to.clone());
        }
        without
    }

    fn settle_part(
        &mut self,
        candidate: Candidate,
        change: Change,
        ruling: PartRuling,
        evidence: Option<Evidence>,
        climbs: Vec<PartClimb>,
    ) -> Result<(), CampaignError> {
        let above = climbs.iter().flat_map(|climb| &climb.pairs);
        let mut runs = crate::books::runs_of(candidate.pairs.iter().chain(above));
        let fresh = match ruling {
            PartRuling::Leaves => self.fresh_scores(&candidate.proposal)?,
            PartRuling::Stays(_) => Vec::new(),
        };
        let ruling = match fresh.iter().any(|score| score.val_bpb.is_none()) {
            true => PartRuling::Stays(DIVERGES.to_string()),
            false => ruling,
        };
        let fresh_runs: Vec<String> = fresh.into_iter().map(|score| score.run).collect();
        runs.extend(fresh_runs.clone());
        let newly = self.books.claim(&runs);
        let number = self.books.prunings.len() as u64 + 1;
        let pruning = Pruning {
            schema: SCHEMA,
            number,
            generation: candidate.proposal.generation,
            proposal: candidate.proposal.number,
            change,
            ruling,
            fingerprint: candidate.checked.as_ref().map(|checked| checked.fingerprint.clone()),
            seconds_ratio: candidate.seconds_ratio(),
            pairs: candidate.pairs,
            evidence,
            margin_bpb: margin(&self.manifest.judge, &self.scale()),
            climbs,
            fresh_runs,
            flops: newly.flops,
            runs: newly.runs,
            run_seconds: newly.seconds,
            elapsed_s: self.elapsed_s(),
            created_unix_s: self.world.unix_s(),
        };
        self.store.write(&format!("prunings/{number:04}.json"), &pruning)?;
        (self.tell)(CampaignEvent::Pruned(&pruning));
        self.books.prunings.push(pruning);
        self.finish_pruning()
    }

    /// Makes the champion without a part champion, if that is on file and the champion is not.
    pub(crate) fn finish_pruning(&mut self) -> Result<(), CampaignError> {
        let Some(pruning) = self.books.unrecorded_pruning().cloned() else { return Ok(()) };
        let without = self.without(pruning.proposal, &pruning.change);
        let origin = Some(Origin::Pruned(pruning.number));
        self.crown(&without, None, origin, pruning.evidence, pruning.elapsed_s)
    }
}
