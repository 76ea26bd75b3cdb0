//! Knobs that a language model's text brings with it, and the champion's own before them.

use crate::fake::new_lab;
use crate::model_server::{Act, Said, Seen, Server};
use crate::models::{composition, proposals, researcher, turn};
use crate::recipe_world::{self, RecipeWorld};
use pawl_record::{Category, Decision, Proposal, Settings, Verdict};
use pawl_research::campaign;
use pawl_research::models::Service;
use pawl_research::options::CampaignOptions;
use pawl_research::world::{Checked, Score, Trial, TrialError, World};
use serde_json::json;
use std::path::Path;

/// A structure whose one number was guessed.
const GUESSED: &str = "\
table_std = knob(\"table_std\", 0.02, low = 0.002, high = 0.2, scale = \"log\")

def bigram_values(x, tokens, name):
    ids = (shift(tokens, 1) * 40503 + tokens * 30011) % 512
    return x + gather(param(name + \".table\", (512, width), normal(table_std)), ids)

def block(x, tokens, i):";

/// One proposal, and nothing more.
fn one_idea(seen: &Seen) -> Act {
    let first = seen.body["messages"].to_string().contains("Proposal #1 ");
    Act::Say(match first && turn(seen) == 0 {
        true => Said::call(
            "propose",
            json!({"edits": composition(GUESSED), "category": "architecture", "gain_bpb": 0.05, "probability": 0.4,
                "hypothesis": "Hashed bigrams give each layer the pair of tokens."}),
        ),
        false => Said::text("I have no further idea."),
    })
}

/// What was proposed where the structure gains so much.
fn proposed(gain: f64, seed: u64) -> Vec<(Proposal, Verdict)> {
    proposed_in(&RecipeWorld::new("bigram_values", gain), seed)
}

fn proposed_in(world: &dyn World, seed: u64) -> Vec<(Proposal, Verdict)> {
    let (server, lab) = (Server::start(one_idea), new_lab());
    let asked = recipe_world::asked(lab.path(), researcher(Service::Messages, &server), 90);
    campaign::run(&CampaignOptions { seed, ..asked }, world, &mut |_| {}).unwrap();
    proposals(lab.path()).into_iter().filter_map(|(proposal, verdict)| Some((proposal, verdict?))).collect()
}

#[test]
fn new_knobs_of_a_kept_structure_are_turned_one_test_each() {
    let proposed = proposed(0.1, 1);
    assert_eq!((proposed[0].0.researcher.as_str(), &proposed[0].1.decision), ("claude", &Decision::Keep));
    let (first, later) = proposed.split_first().unwrap();
    assert!((2..=4).contains(&later.len()), "{}", later.len());
    for (proposal, verdict) in later {
        assert_eq!((proposal.researcher.as_str(), proposal.author.is_none()), ("optimizer", true));
        assert_eq!((proposal.category, proposal.recipe.is_none()), (Category::Knob, true));
        assert_eq!(proposal.changes.len(), 1);
        assert_eq!(proposal.changes[0].setting, "table_std");
        assert!(proposal.hypothesis.contains("came with #1"), "{}", proposal.hypothesis);
        assert_eq!((proposal.generation, verdict.generation), (1, 1));
    }
    assert!(first.0.recipe.is_some());
    let mut values: Vec<String> = later.iter().map(|(it, _)| it.changes[0].to.to_string()).collect();
    values.sort();
    values.dedup();
    assert_eq!(values.len(), later.len(), "no value is tried twice");
}

#[test]
fn before_a_challengers_knob_is_turned_the_champions_were_as_often() {
    let mut turned = 0;
    for seed in 1..8 {
        let proposed = proposed(0.006, seed);
        let (mut champions, mut challengers) = (0, 0);
        for (proposal, _) in proposed.iter().skip(1).filter(|(it, _)| it.generation == 0) {
            match &proposal.changes[..] {
                [change] if change.setting == "table_std" => {
                    let text = |proposal: &Proposal| proposal.recipe.as_ref().unwrap().hash.clone();
                    assert_eq!(text(proposal), text(&proposed[0].0), "the structure as it was written");
                    challengers += 1;
                }
                [change] => {
                    assert_eq!((change.setting.as_str(), proposal.recipe.is_none()), ("lr", true));
                    champions += 1;
                }
                other => panic!("{other:?}"),
            }
            assert!(champions >= challengers, "seed {seed}: {champions} {challengers}");
        }
        assert!(challengers <= 2, "seed {seed}: {challengers}");
        turned += challengers;
    }
    assert!(turned > 0, "no seed leaves the structure open");
}

#[test]
fn a_text_tried_again_beside_one_champion_meets_it_on_seeds_that_the_text_has_not_seen() {
    let mut again = 0;
    for seed in 1..8 {
        let mut seen: Vec<u64> = Vec::new();
        for (proposal, verdict) in proposed(0.006, seed) {
            if proposal.recipe.is_some() && proposal.generation == 0 {
                again += u64::from(!seen.is_empty() && !verdict.pairs.is_empty());
                assert!(verdict.pairs.iter().all(|it| !seen.contains(&it.seed)), "#{}", proposal.number);
                seen.extend(verdict.pairs.iter().map(|it| it.seed));
            }
        }
    }
    assert!(again > 0, "no seed leaves the structure open");
}

/// A world in which the champion's rate cannot be turned.
struct Stiff(RecipeWorld);

impl World for Stiff {
    fn check(&self, recipe: &Path, depth: u64, settings: &Settings) -> Result<Checked, String> {
        match settings.contains_key("lr") {
            true => Err("it is stiff".to_string()),
            false => self.0.check(recipe, depth, settings),
        }
    }

    fn run(&self, trial: &Trial) -> Result<Score, TrialError> {
        self.0.run(trial)
    }

    fn seconds(&self) -> f64 {
        self.0.seconds()
    }

    fn unix_s(&self) -> u64 {
        self.0.unix_s()
    }

    fn interrupted(&self) -> bool {
        self.0.interrupted()
    }
}

#[test]
fn a_champion_whose_knobs_cannot_be_turned_holds_up_no_challenger() {
    let mut turned = 0;
    for seed in 1..8 {
        let proposed = proposed_in(&Stiff(RecipeWorld::new("bigram_values", 0.006)), seed);
        let is_turned = |it: &Proposal| it.generation == 0 && it.recipe.is_some() && it.number > 1;
        let of_rate = |it: &Proposal| it.changes.iter().any(|change| change.setting == "lr");
        let num_turned = proposed.iter().filter(|(it, _)| is_turned(it)).count();
        let num_skipped = proposed.iter().filter(|(it, _)| of_rate(it)).count();
        assert!(num_skipped <= 10, "seed {seed}: {num_skipped} for {num_turned}");
        turned += num_turned;
    }
    assert!(turned > 0, "no seed leaves the structure open");
}

#[test]
fn a_structure_that_loses_is_left_alone() {
    assert_eq!(proposed(-0.1, 1).len(), 1);
}
