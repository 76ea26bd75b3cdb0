//! What a campaign proposes of its own accord, before it asks its researcher: keeps that stood on a withdrawn one, to
//! be tested again, and bundles of undecided changes. Both are ordinary proposals: they are filed, take the next place
//! in the sequence of tests, are judged as any other, and can lose.
//!
//! A bundle is chosen because its parts looked good on some of the champion's pair seeds, and on those seeds part of
//! their luck is the bundle's. It is therefore tried on seeds that none of its parts has seen beside this champion:
//! given the past, its pairs are as fresh as those of a change that was never tried, which is what the e-value needs.
//! The same holds for whoever proposes a text that was tried beside this champion again with another setting, as
//! [`crate::tune`] does: it begins past the pairs of that text.
//! A keep tested again meets a restored champion, which is a new generation with seeds of its own.

use crate::bundle;
use crate::campaign::{Campaign, CampaignError};
use crate::duel::pair_seed;
use crate::optimizer::keep_probability;
use crate::researcher::{Draft, inherited};
use crate::world::SettingSpec;
use pawl_ledger::{line, made_by};
use pawl_record::{
    CampaignManifest, Change, JudgeSettings, Origin, Prediction, Proposal, RecipeRef, Settings, Verdict,
};
use std::collections::BTreeSet;

/// Who proposes what the campaign proposes itself.
pub(crate) const CAMPAIGN: &str = "campaign";

impl Campaign<'_> {
    /// The campaign's own next proposal, on file; `None` when it has none. What is refused is settled on the way.
    pub(crate) fn upkeep(&mut self) -> Result<Option<Proposal>, CampaignError> {
        loop {
            let draft = match self.retest_due() {
                Some(draft) => Some(draft),
                None => bundle::draft(&self.books, &self.champion, &self.scale(), &self.manifest.judge)
                    .map(|draft| (draft, None)),
            };
            let Some((draft, recipe)) = draft else { return Ok(None) };
            let proposal = self.file_draft(draft, recipe)?;
            match self.refusal(&proposal, &[])? {
                Some(refusal) => self.skip(&proposal, refusal)?,
                None => return Ok(Some(proposal)),
            }
        }
    }

    /// The first keep that stood on a withdrawn one and has not been tested without it, in the order kept.
    pub(crate) fn retest_due(&self) -> Option<(Draft, Option<RecipeRef>)> {
        let books = &self.books;
        for restored in &books.champions {
            let Some(Origin::Restored { retraction, .. }) = restored.origin else { continue };
            let withdrawn = books.retractions[retraction as usize - 1].proposal;
            let below = made_by(&books.champions, withdrawn)?;
            let old = restored.generation - 1;
            let parts = books.parts(old);
            for generation in line(&books.champions, old).into_iter().filter(|it| *it > below) {
                let Some(number) = books.champions[generation as usize].proposal else { continue };
                let kept = &books.proposals[number as usize - 1];
                if books.is_retracted(number) || self.has_withdrawn_text(kept, generation) {
                    continue;
                }
                let left = parts.iter().filter(|part| part.proposal == number);
                let specs = self.specs_under(kept);
                let changes: Vec<Change> = left.filter_map(|part| change_to(&specs, &part.change)).collect();
                let is_empty = changes.is_empty() && kept.recipe.is_none();
                if !is_empty && !self.is_proposed_since(restored.generation, &changes, kept) {
                    return Some((retest(kept, withdrawn, changes), kept.recipe.clone()));
                }
            }
        }
        None
    }

    /// Whether the text of a keep was written on top of a text that is withdrawn by now, and has it in it.
    fn has_withdrawn_text(&self, kept: &Proposal, generation: u64) -> bool {
        let books = &self.books;
        let below = line(&books.champions, generation);
        let is_below = |number: u64| {
            books.proposals[number as usize - 1].recipe.is_some()
                && made_by(&books.champions, number).is_some_and(|made| below.contains(&made))
        };
        kept.recipe.is_some() && books.retractions.iter().any(|it| is_below(it.proposal))
    }

    /// The settings that a keep's changes would meet now: the champion's, as far as the keep's text has them, and the
    /// defaults of what only that text has. None where the text does not compile any more: the gate says why.
    fn specs_under(&self, kept: &Proposal) -> Vec<SettingSpec> {
        let Some(recipe) = &kept.recipe else { return self.champion.settings.clone() };
        let path = self.store.path(&recipe.file);
        let depth = self.manifest.rungs.first().depth;
        let Ok(plain) = self.world.check(&path, depth, &Settings::new()) else { return Vec::new() };
        let champion = inherited(&self.books.champion().settings, &plain);
        self.world.check(&path, depth, &champion).map_or_else(|_| Vec::new(), |checked| checked.settings)
    }

    fn is_proposed_since(&self, generation: u64, changes: &[Change], kept: &Proposal) -> bool {
        let has = |proposal: &Proposal, change: &Change| {
            proposal.changes.iter().any(|it| it.setting == change.setting && it.to == change.to)
        };
        self.books.proposals.iter().any(|proposal| {
            proposal.generation >= generation
                && changes.iter().all(|change| has(proposal, change))
                && (kept.recipe.is_none() || proposal.recipe == kept.recipe)
        })
    }

    /// The proposal that tried this program, if that speaks against trying it again: what the campaign proposes
    /// itself was tried by design, beside another champion or with too few pairs.
    pub(crate) fn tried_before(&self, proposal: &Proposal, fingerprint: &str) -> Option<u64> {
        self.books.tried(fingerprint).filter(|_| proposal.researcher != CAMPAIGN)
    }

    /// Index of the first pair seed of a proposal.
    pub(crate) fn first_pair(&self, proposal: &Proposal) -> u64 {
        first_pair(&self.manifest, proposal, self.books.history())
    }
}

/// Whether a proposal may have been chosen by what `other` showed beside the same champion: a part of a bundle, or
/// the same text with other settings.
pub(crate) fn leans_on(judge: &JudgeSettings, proposal: &Proposal, other: &Proposal) -> bool {
    let hash = |it: &Proposal| it.recipe.as_ref().map(|recipe| recipe.hash.clone());
    // Campaigns from before keeps were confirmed tried a text again on the seeds it had seen.
    let same_text =
        judge.fresh_slack_sds.is_some() && proposal.recipe.is_some() && hash(proposal) == hash(other);
    let is_part =
        proposal.researcher == CAMPAIGN && other.changes.iter().any(|it| proposal.changes.contains(it));
    other.generation == proposal.generation && other.number < proposal.number && (same_text || is_part)
}

/// Index of the first pair seed of a proposal: past those of all that it leans on.
pub(crate) fn first_pair<'a>(
    manifest: &CampaignManifest,
    proposal: &Proposal,
    history: impl Iterator<Item = (&'a Proposal, &'a Verdict)>,
) -> u64 {
    let others = history.filter(|(other, _)| leans_on(&manifest.judge, proposal, other));
    let seen: BTreeSet<u64> = others.flat_map(|(_, verdict)| &verdict.pairs).map(|pair| pair.seed).collect();
    first_after(manifest.seed, proposal.generation, seen)
}

/// Index of the first pair seed of a champion after all of `seen`.
fn first_after(campaign_seed: u64, generation: u64, mut seen: BTreeSet<u64>) -> u64 {
    let mut first = 0;
    for pair_idx in 0..MOST_PAIRS {
        if seen.is_empty() {
            break;
        }
        if seen.remove(&pair_seed(campaign_seed, generation, pair_idx)) {
            first = pair_idx + 1;
        }
    }
    first
}

/// No champion meets its challengers on more seeds than this.
const MOST_PAIRS: u64 = 100_000;

/// The change that brings these settings to where `change` went, if there is one.
fn change_to(specs: &[SettingSpec], change: &Change) -> Option<Change> {
    let spec = specs.iter().find(|spec| spec.name == change.setting)?;
    let moves = spec.value != change.to;
    moves.then(|| Change { from: spec.value.clone(), ..change.clone() })
}

fn retest(kept: &Proposal, withdrawn: u64, changes: Vec<Change>) -> Draft {
    Draft {
        recipe: None,
        changes,
        category: kept.category,
        hypothesis: format!(
            "#{} was kept on top of #{withdrawn}, which is withdrawn: again without.",
            kept.number
        ),
        prediction: Prediction {
            gain_bpb: kept.prediction.gain_bpb,
            keep_probability: kept.prediction.keep_probability,
        },
        researcher: CAMPAIGN.to_string(),
        author: None,
    }
}

/// What is expected of a bundle with these gains, in pair sds, and their variances.
pub(crate) fn expected(gains: &[(f64, f64)], sd: f64) -> Prediction {
    let mean: f64 = gains.iter().map(|(mean, _)| mean).sum();
    let variance: f64 = gains.iter().map(|(_, variance)| variance).sum();
    Prediction { gain_bpb: mean * sd, keep_probability: keep_probability(mean, variance.sqrt()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::judge_settings;
    use pawl_record::{Category, SettingValue};

    fn proposal(number: u64, researcher: &str, text: Option<&str>, to: f64) -> Proposal {
        let recipe = text.map(|hash| RecipeRef {
            name: format!("text-{number}.star"),
            hash: hash.to_string(),
            file: format!("recipes/text-{number}.star"),
        });
        let (from, to) = (SettingValue::Float(0.0), SettingValue::Float(to));
        Proposal {
            schema: pawl_record::SCHEMA,
            number,
            generation: 0,
            changes: vec![Change { setting: "a".to_string(), from, to }],
            recipe,
            settings: Settings::new(),
            category: Category::Knob,
            hypothesis: String::new(),
            prediction: Prediction { gain_bpb: 0.0, keep_probability: 0.5 },
            researcher: researcher.to_string(),
            author: None,
            created_unix_s: 0,
        }
    }

    #[test]
    fn who_tries_a_text_again_leans_on_it_and_a_bundle_on_its_parts() {
        let judge = judge_settings();
        let (text, knob) = (proposal(1, "claude", Some("aa"), 1.0), proposal(2, "optimizer", None, 2.0));
        let again = proposal(3, "optimizer", Some("aa"), 2.0);
        assert!(leans_on(&judge, &again, &text) && !leans_on(&judge, &text, &again));
        assert!(!leans_on(&judge, &again, &knob), "a setting alone is another hypothesis");
        assert!(!leans_on(&judge, &proposal(3, "optimizer", Some("bb"), 2.0), &text));
        assert!(!leans_on(&judge, &proposal(3, "optimizer", None, 2.0), &knob));
        let bundle = proposal(3, CAMPAIGN, None, 2.0);
        assert!(leans_on(&judge, &bundle, &knob) && !leans_on(&judge, &bundle, &text));
        let later = Proposal { generation: 1, ..again.clone() };
        assert!(!leans_on(&judge, &later, &text), "another champion has other seeds");
        let old = JudgeSettings { fresh_slack_sds: None, ..judge };
        assert!(!leans_on(&old, &again, &text) && leans_on(&old, &bundle, &knob));
    }
}
