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
//! parts have used no more than [`SHARE`] of the campaign's runs, any other only below [`SINGLE_SHARE`].

use crate::campaign::{Campaign, CampaignError, CampaignEvent};
use crate::court::Court;
use crate::duel::{Candidate, SLOWER};
use crate::evidence::Scores;
use crate::judge::{self, Known, NoiseScale, Ruling};
use pawl_ledger::Part;
use pawl_record::{Change, Evidence, JudgeSettings, Origin, PartRuling, Proposal, Pruning, SCHEMA};

/// The margin, in standard deviations of an A/A pair. A part of twice that is found by the judge in nineteen of
/// twenty tests; smaller margins take more pairs than there are (simulated: LOG.md).
pub const MARGIN_SDS: f64 = 1.0;

/// Share of the campaign's runs that trials of parts may use before the next trial of a passenger begins. With a tenth
/// half of the passengers are still there at the end of a simulated campaign, with a fifth a third, with two fifths
/// hardly fewer (LOG.md).
pub const SHARE: f64 = 0.2;

/// The same for parts that were kept alone: they are rarely superfluous, and are looked at when there is little else.
pub const SINGLE_SHARE: f64 = 0.05;

/// The judge's settings for leaving out: the same e-process against another null.
fn settings(judge: &JudgeSettings, noise: &NoiseScale) -> JudgeSettings {
    JudgeSettings {
        min_effect_bpb: -margin(judge, noise),
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
    let (ruling, evidence) =
        judge::rule(&settings(judge, noise), &Known::of_noise(*noise), pairs, judge.alpha, 0);
    let stays = |why: &str| Some(PartRuling::Stays(why.to_string()));
    let ruling = match ruling {
        Ruling::Continue => None,
        Ruling::Keep if seconds_ratio.is_some_and(|ratio| ratio > SLOWER) => {
            stays("training is slower without it")
        }
        Ruling::Keep if evidence.mean >= -judge.min_effect_bpb => Some(PartRuling::Leaves),
        Ruling::Keep => stays("it is worth less than the margin, but something"),
        Ruling::Reject(_) => stays("it carries its weight"),
        Ruling::Undecided(_) => stays("it was not shown to be worth less than the margin"),
    };
    (ruling, evidence)
}

impl Campaign<'_> {
    /// Tries the next part that is due, and makes the champion without it champion if it leaves. Says whether one
    /// was tried.
    pub(crate) fn prune(&mut self) -> Result<bool, CampaignError> {
        // A part may carry its weight on a rung above alone, and is tried on the first.
        if self.manifest.rungs.all().len() > 1 {
            return Ok(false);
        }
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
        let (ruling, evidence) = match checked {
            None => (PartRuling::Stays("the recipe does not compile without it".to_string()), None),
            Some(_) if same => (PartRuling::Stays("the same program without it".to_string()), None),
            Some(_) => self.try_without(&mut candidate)?,
        };
        self.settle_part(candidate, back, ruling, evidence)?;
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
                return Ok((PartRuling::Stays("out of budget".to_string()), last));
            }
        }
    }

    /// The first part of the champion that is to be tried, passengers of joint keeps before single keeps.
    fn part_due(&self) -> Option<Part> {
        let spent = self.books.prunings.iter().map(|pruning| pruning.runs).sum::<u64>() as f64;
        let share = spent / self.books.num_runs() as f64;
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
    fn without(&self, proposal: u64, back: &Change) -> Proposal {
        let brought = self.books.proposals[proposal as usize - 1].clone();
        let champion = self.books.champion();
        let mut settings = champion.settings.clone();
        // A value that was the recipe's default is not spelt out again: the recipe gets shorter.
        match self.books.champions[brought.generation as usize].settings.get(&back.setting) {
            Some(value) => settings.insert(back.setting.clone(), value.clone()),
            None => settings.remove(&back.setting),
        };
        Proposal {
            generation: champion.generation,
            changes: vec![back.clone()],
            recipe: None,
            settings,
            ..brought
        }
    }

    fn settle_part(
        &mut self,
        candidate: Candidate,
        change: Change,
        ruling: PartRuling,
        evidence: Option<Evidence>,
    ) -> Result<(), CampaignError> {
        let mut runs = crate::books::runs_of(&candidate.pairs);
        if ruling == PartRuling::Leaves {
            let fresh = self.fresh_scores(&candidate.proposal)?;
            runs.extend(fresh.into_iter().map(|score| score.run));
        }
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
