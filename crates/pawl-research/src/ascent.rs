//! A keep on the rungs above the first: how a campaign climbs ([`crate::climb`]) with training runs.

use crate::campaign::{Campaign, CampaignError, MIN_STEPS};
use crate::climb::{self, Rope};
use crate::duel::{Candidate, MAX_VOID, scores_of};
use crate::evidence::Scores;
use crate::random::hash;
use crate::world::{Checked, Trial};
use pawl_record::{Climb, PairRecord, Proposal};

/// Seed of a pair on a rung above the first: fresh for every champion and rung.
pub(crate) fn climb_seed(campaign_seed: u64, rung: u64, generation: u64, pair_idx: u64) -> u64 {
    hash(&[campaign_seed, CLIMB, rung, generation, pair_idx]) >> 33
}

/// Keeps the seeds of climbs apart from those of other purposes.
const CLIMB: u64 = 0xc1;

impl Campaign<'_> {
    /// Climbs with a keep, rung by rung, until it does not hold.
    pub(crate) fn climb(&mut self, candidate: &Candidate) -> Result<Vec<Climb>, CampaignError> {
        let mut climbs: Vec<Climb> = Vec::new();
        for rung in 1..self.manifest.rungs.all().len() {
            if climbs.last().is_none_or(Climb::held) {
                climbs.push(self.climb_to(rung, candidate)?);
            }
        }
        Ok(climbs)
    }

    fn climb_to(&mut self, rung: usize, candidate: &Candidate) -> Result<Climb, CampaignError> {
        let proposal = &candidate.proposal;
        let champion = self.compile_on(rung, None).map_err(CampaignError::Recipe)?;
        let challenger = self.compile_on(rung, Some(proposal));
        let (settings, noise) = (self.manifest.judge, self.scale());
        let fingerprint = challenger.as_ref().ok().map(|it| it.fingerprint.clone());
        let mut ascent = Ascent {
            rung,
            proposal: proposal.clone(),
            pairs: Vec::new(),
            next_pair: 0,
            failure: self.too_large(rung, challenger),
            campaign: self,
        };
        let (decision, evidence) = climb::climb(&mut ascent, &settings, &noise, candidate.test_index)?;
        let (rung, pairs) = (rung as u64, ascent.pairs);
        Ok(Climb { rung, champion_fingerprint: champion.fingerprint, fingerprint, pairs, evidence, decision })
    }

    /// The champion, or a challenger of it, compiled for a rung.
    pub(crate) fn compile_on(&self, rung: usize, proposal: Option<&Proposal>) -> Result<Checked, String> {
        let champion = self.books.champion();
        let recipe = proposal.and_then(|it| it.recipe.as_ref()).unwrap_or(&champion.recipe);
        let settings = proposal.map_or(&champion.settings, |it| &it.settings);
        self.world.check(&self.store.path(&recipe.file), self.manifest.rungs.all()[rung].depth, settings)
    }

    /// Why a challenger cannot be trained on a rung, if so.
    pub(crate) fn too_large(&self, rung: usize, challenger: Result<Checked, String>) -> Option<String> {
        let steps = match challenger {
            Ok(checked) => self.manifest.rungs.all()[rung].flops / checked.flops_per_step,
            Err(message) => return Some(message),
        };
        (steps < MIN_STEPS)
            .then(|| format!("the budget allows {} steps, fewer than {MIN_STEPS}", steps.floor()))
    }

    /// Seconds that the least climb of a keep takes, to the top.
    pub(crate) fn least_climb_s(&self) -> f64 {
        let num_trials = 2 * self.manifest.judge.climb_min_pairs as usize;
        (1..self.manifest.rungs.all().len()).map(|rung| self.seconds_on(rung, num_trials)).sum()
    }
}

/// A climb in progress.
struct Ascent<'c, 'a> {
    campaign: &'c mut Campaign<'a>,
    rung: usize,
    proposal: Proposal,
    pairs: Vec<PairRecord>,
    /// Index of the next pair seed.
    next_pair: u64,
    failure: Option<String>,
}

impl Ascent<'_, '_> {
    /// Both arms on the next seed, champion first.
    fn next(&mut self) -> (Trial, Trial) {
        let Ascent { rung, proposal, .. } = self;
        let (seed, generation) = (self.campaign.manifest.seed, proposal.generation);
        let seed = climb_seed(seed, *rung as u64, generation, self.next_pair);
        self.next_pair += 1;
        let champion = &self.campaign.books.champions[generation as usize];
        let recipe = proposal.recipe.as_ref().unwrap_or(&champion.recipe);
        (
            self.campaign.trial_on(*rung, &champion.recipe, &champion.settings, seed),
            self.campaign.trial_on(*rung, recipe, &proposal.settings, seed),
        )
    }
}

impl Rope for Ascent<'_, '_> {
    type Error = CampaignError;

    fn pairs(&self) -> Vec<Scores> {
        self.pairs.iter().filter_map(scores_of).collect()
    }

    fn failure(&self) -> Option<String> {
        self.failure.clone()
    }

    fn can_afford_pair(&self) -> bool {
        self.campaign.can_spend(self.campaign.seconds_on(self.rung, 2))
    }

    /// As many pairs as fill the workers, and at least one. What is known already does not make it more, so that a
    /// resumed campaign looks when an uninterrupted one does.
    fn add_pairs(&mut self) -> Result<(), CampaignError> {
        let left = (self.campaign.manifest.judge.climb_max_pairs as usize).saturating_sub(self.pairs.len());
        let num_pairs = (self.campaign.options.workers / 2).clamp(1, left.max(1));
        let slots: Vec<(Trial, Trial)> = (0..num_pairs).map(|_| self.next()).collect();
        let depth = self.campaign.manifest.rungs.all()[self.rung].depth;
        let purpose = format!("#{} at depth {depth}", self.proposal.number);
        for tried in self.campaign.try_pairs(&purpose, &slots)? {
            self.pairs.extend(tried.pair);
            self.failure = tried.failure.or(self.failure.take());
        }
        if self.next_pair as usize > self.campaign.manifest.judge.climb_max_pairs as usize + MAX_VOID {
            self.failure.get_or_insert_with(|| "the champion diverges there on too many seeds".to_string());
        }
        Ok(())
    }
}
