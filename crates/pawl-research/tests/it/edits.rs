//! The edit library: its entries compile, and a campaign of the built-in researcher finds the one that helps.

use crate::fake::{Fake, asked, new_lab};
use pawl_ledger::read_campaign;
use pawl_recipe::{Overrides, Recipe, Source, std_only};
use pawl_record::{CampaignBudget, SettingValue, Settings};
use pawl_research::campaign;
use pawl_research::edits::library;
use pawl_research::options::CampaignOptions;
use pawl_research::world::{Checked, Score, Trial, TrialError, World};
use std::path::Path;

const TINY: &str = include_str!("../../../../recipes/tiny.star");

#[test]
fn every_entry_compiles_to_another_program() {
    // With rotary positions every entry has something to change.
    let rope = ("positions".to_string(), SettingValue::Text("rope".to_string()));
    let overrides = Overrides { values: Settings::from_iter([rope]), ..Overrides::default() };
    let fingerprint = |name: &str, text: String| {
        let source = Source { name: name.to_string(), text };
        let recipe =
            Recipe::load(&source, &overrides, &std_only).unwrap_or_else(|why| panic!("{name}: {why}"));
        recipe.fingerprint().unwrap_or_else(|why| panic!("{name}: {why}"))
    };
    let start = fingerprint("tiny.star", TINY.to_string());
    for edit in library() {
        assert_ne!(fingerprint("edited.star", edit.apply(TINY).unwrap()), start, "{}", edit.name);
    }
}

/// A world in which the text counts: it is another program with every edit, and a better one with one of them.
struct Written(Fake);

impl Written {
    fn gain(text: &str) -> f64 {
        if text.contains("head_bias") { 0.3 } else { 0.0 }
    }
}

impl World for Written {
    fn check(&self, recipe: &Path, depth: u64, settings: &Settings) -> Result<Checked, String> {
        let text = std::fs::read_to_string(recipe).map_err(|why| why.to_string())?;
        let checked = self.0.check(recipe, depth, settings)?;
        Ok(Checked {
            fingerprint: format!("{}{}", checked.fingerprint, blake3::hash(text.as_bytes())),
            ..checked
        })
    }

    fn run(&self, trial: &Trial) -> Result<Score, TrialError> {
        let text = std::fs::read_to_string(&trial.recipe).unwrap();
        let score = self.0.run(trial)?;
        let better = |bpb: Option<f64>| bpb.map(|bpb| bpb - Written::gain(&text));
        // The fake knows trials by their settings: a run of another text is another run.
        let run = blake3::hash(format!("{}{text}", score.run).as_bytes()).to_hex()[..12].to_string();
        Ok(Score { run, val_bpb: better(score.val_bpb), sealed_bpb: better(score.sealed_bpb), ..score })
    }

    fn seconds(&self) -> f64 {
        self.0.seconds()
    }

    fn unix_s(&self) -> u64 {
        0
    }

    fn interrupted(&self) -> bool {
        false
    }
}

#[test]
fn the_edit_that_helps_is_kept_and_not_proposed_again() {
    let lab = new_lab();
    let asked = asked(lab.path(), 3, CampaignBudget::Trials(300));
    let options = CampaignOptions { recipe_text: TINY.to_string(), ..asked };
    let report = campaign::run(&options, &Written(Fake::null(3)), &mut |_| {}).unwrap();
    let champion = report.champions.last().unwrap();
    let text = std::fs::read_to_string(lab.path().join("campaign").join(&champion.recipe.file)).unwrap();
    assert!(text.contains("head_bias"), "{champion:?}");
    let records = read_campaign(lab.path()).unwrap().unwrap();
    let of_text = records.proposals.iter().filter(|proposal| proposal.recipe.is_some());
    let names: Vec<(&str, u64)> =
        of_text.map(|it| (it.hypothesis.split(':').next().unwrap(), it.generation)).collect();
    assert_eq!(names.iter().filter(|(name, _)| *name == "head_bias").count(), 1, "{names:?}");
    // Several were tried, none of them twice beside one champion.
    assert!(names.len() > 3, "{names:?}");
    let different: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(different.len(), names.len(), "{names:?}");
}
