//! Tests of what becomes of keeps that need a campaign from inside: keeps are made by hand, in a world whose recipes
//! are lines `knob NAME VALUE` and whose scores are formulas.

use crate::campaign::Campaign;
use crate::duel::Candidate;
use crate::options::{CampaignOptions, judge_settings};
use crate::random::{Random, hash};
use crate::researcher::{Draft, Researcher};
use crate::retract;
use crate::store::Store;
use crate::world::{Checked, Score, SettingKind, SettingSpec, Trial, TrialError, World};
use pawl_record::{
    CampaignBudget, Category, Change, DataRef, Decision, JudgeSettings, Ladder, PartRuling, Precision,
    Prediction, Rung, SettingValue, Settings,
};
use std::path::Path;

/// The gain of some values at a depth.
struct Plain(fn(u64, &dyn Fn(&str) -> f64) -> f64);

const NOTHING: Plain = Plain(|_, _| 0.0);

impl World for Plain {
    fn check(&self, recipe: &Path, depth: u64, settings: &Settings) -> Result<Checked, String> {
        let text = std::fs::read_to_string(recipe).map_err(|why| why.to_string())?;
        let knob = |line: &str| {
            let (name, value) = line.strip_prefix("knob ")?.split_once(' ')?;
            let default = SettingValue::Float(value.parse().ok()?);
            let value = settings.get(name).unwrap_or(&default).clone();
            let kind = SettingKind::Knob { low: 0.0, high: 100.0, log: false };
            Some(SettingSpec { name: name.to_string(), kind, default, value })
        };
        let specs: Vec<SettingSpec> = text.lines().filter_map(knob).collect();
        match settings.keys().find(|name| !specs.iter().any(|spec| spec.name == **name)) {
            Some(name) => Err(format!("no setting is called {name}")),
            None => Ok(Checked {
                fingerprint: format!("{text} {depth} {specs:?}"),
                flops_per_step: 1e9,
                num_params: 1,
                settings: specs,
            }),
        }
    }

    fn run(&self, trial: &Trial) -> Result<Score, TrialError> {
        let checked = self.check(&trial.recipe, trial.depth, &trial.settings).map_err(TrialError::Failed)?;
        let bytes = |text: &str| hash(&text.bytes().map(u64::from).collect::<Vec<_>>());
        let value = |name: &str| {
            let spec = checked.settings.iter().find(|spec| spec.name == name);
            spec.and_then(|spec| spec.value.as_f64()).unwrap_or(0.0)
        };
        // Nothing of the folder, whose name is another each time.
        let key = bytes(&format!("{} {} {:?}", checked.fingerprint, trial.seed, trial.init_seed));
        let noise = 0.005 * Random::new(&[key]).normal();
        Ok(Score {
            run: format!("{:012x}", key >> 16),
            val_bpb: Some(3.0 - (self.0)(trial.depth, &value) + noise),
            sealed_bpb: None,
            reason: None,
            flops: trial.flops,
            train_seconds: 1.0,
            total_seconds: 1.0,
            tokens_per_sec: 1.0,
        })
    }

    fn seconds(&self) -> f64 {
        0.0
    }

    fn unix_s(&self) -> u64 {
        0
    }

    fn interrupted(&self) -> bool {
        false
    }
}

const START: &str = "start\nknob lr 0.02\nknob a 0\nknob b 0\n";

fn options(lab: &Path, num_rungs: u64) -> CampaignOptions {
    let rung = |depth: u64| Rung { depth, flops: 1e12 * 4f64.powi(depth as i32), precision: Precision::F32 };
    CampaignOptions {
        lab: lab.to_path_buf(),
        recipe_name: "plain.star".to_string(),
        recipe_text: START.to_string(),
        settings: Settings::new(),
        rungs: Ladder::new((1..=num_rungs).map(rung).collect()).unwrap(),
        data: DataRef { name: "crates".to_string(), hash: "0".to_string() },
        seed: 1,
        researcher: Researcher::Optimizer,
        // Keeps are made by hand, without pairs that could be confirmed.
        judge: JudgeSettings { fresh_slack_sds: None, ..judge_settings() },
        budget: CampaignBudget::Trials(10_000),
        workers: 1,
        final_seeds: 2,
        version: "0".to_string(),
        machine: "none".to_string(),
    }
}

/// Does something with the campaign in a lab.
fn with<T>(options: &CampaignOptions, world: &Plain, work: impl FnOnce(&mut Campaign<'_>) -> T) -> T {
    let mut tell = |_: crate::campaign::CampaignEvent<'_>| {};
    let mut campaign = Campaign::open(options, world, &mut tell).unwrap();
    campaign.learn_noise().unwrap();
    work(&mut campaign)
}

/// A keep that becomes champion: another text, or none, and values that are turned.
fn keep(campaign: &mut Campaign<'_>, text: Option<&str>, turned: &[(&str, f64, f64)]) -> u64 {
    let change = |(name, from, to): &(&str, f64, f64)| Change {
        setting: (*name).to_string(),
        from: SettingValue::Float(*from),
        to: SettingValue::Float(*to),
    };
    let recipe = text.map(|text| campaign.store.keep_recipe("text.star", text).unwrap());
    let draft = Draft {
        recipe: None,
        changes: turned.iter().map(change).collect(),
        category: Category::Knob,
        hypothesis: "by hand".to_string(),
        prediction: Prediction { gain_bpb: 0.0, keep_probability: 0.5 },
        researcher: "hand".to_string(),
        author: None,
    };
    let proposal = campaign.file_draft(draft, recipe).unwrap();
    let checked = campaign.compile(&proposal).unwrap();
    let candidate = Candidate::untried(proposal.clone(), Some(checked));
    assert!(campaign.settle(candidate, Decision::Keep, None, None).unwrap().promoted);
    campaign.promote(proposal.number).unwrap();
    proposal.number
}

fn withdraw(options: &CampaignOptions, number: u64) {
    retract::retract(&options.lab, &format!("#{number}"), "for the test", 0).unwrap();
}

#[test]
fn a_text_tried_again_brings_the_values_that_it_was_kept_with() {
    let lab = tempfile::tempdir().unwrap();
    let options = options(lab.path(), 1);
    let first = with(&options, &NOTHING, |campaign| {
        let first = keep(campaign, None, &[("lr", 0.02, 0.05)]);
        let text = "gated\nknob lr 0.02\nknob gate 1\nknob a 0\nknob b 0\n";
        keep(campaign, Some(text), &[("gate", 1.0, 3.0), ("lr", 0.05, 0.07)]);
        first
    });
    withdraw(&options, first);
    with(&options, &NOTHING, |campaign| {
        let (draft, recipe) = campaign.retest_due().unwrap();
        assert!(recipe.is_some());
        let turned: Vec<(&str, Option<f64>, Option<f64>)> =
            draft.changes.iter().map(|it| (it.setting.as_str(), it.from.as_f64(), it.to.as_f64())).collect();
        // From what the text has now: its own gate, and the start's rate.
        assert_eq!(turned, [("gate", Some(1.0), Some(3.0)), ("lr", Some(0.02), Some(0.07))]);
        let proposal = campaign.file_draft(draft, recipe).unwrap();
        assert_eq!(proposal.settings["gate"], SettingValue::Float(3.0));
        assert!(campaign.retest_due().is_none(), "once is enough");
    });
}

#[test]
fn a_withdrawn_text_does_not_come_back_with_one_that_was_written_on_top_of_it() {
    let lab = tempfile::tempdir().unwrap();
    let options = options(lab.path(), 1);
    let (text, knob) = with(&options, &NOTHING, |campaign| {
        let text = keep(campaign, Some("leaks\nknob lr 0.02\nknob a 0\nknob b 0\n"), &[]);
        let knob = keep(campaign, None, &[("lr", 0.02, 0.05)]);
        keep(campaign, Some("leaks and more\nknob lr 0.02\nknob a 0\nknob b 0\n"), &[]);
        (text, knob)
    });
    withdraw(&options, knob);
    with(&options, &NOTHING, |campaign| {
        assert!(campaign.retest_due().is_some(), "the text below it stands");
    });
    withdraw(&options, text);
    with(&options, &NOTHING, |campaign| assert_eq!(campaign.retest_due(), None));
}

#[test]
fn a_part_goes_back_to_where_it_came_from_though_a_later_text_has_another_default() {
    let lab = tempfile::tempdir().unwrap();
    let options = options(lab.path(), 1);
    with(&options, &NOTHING, |campaign| {
        let first = keep(campaign, None, &[("lr", 0.02, 0.05), ("a", 0.0, 1.0)]);
        keep(campaign, Some("bold\nknob lr 0.09\nknob a 0\nknob b 0\n"), &[]);
        let back = |setting: &str, from: f64, to: f64| Change {
            setting: setting.to_string(),
            from: SettingValue::Float(from),
            to: SettingValue::Float(to),
        };
        let without = campaign.without(first, &back("lr", 0.05, 0.02));
        assert_eq!(without.settings.get("lr"), Some(&SettingValue::Float(0.02)));
        // Where the default is what it was, it is not spelt out.
        let without = campaign.without(first, &back("a", 1.0, 0.0));
        assert_eq!(without.settings.get("a"), None);
    });
}

/// What became of the second of two values that were kept together, on a ladder of so many rungs.
fn second_part(world: &Plain, num_rungs: u64) -> pawl_record::Pruning {
    let lab = tempfile::tempdir().unwrap();
    let options = options(lab.path(), num_rungs);
    with(&options, world, |campaign| {
        keep(campaign, None, &[("a", 0.0, 1.0), ("b", 0.0, 1.0)]);
        while campaign.prune().unwrap() {}
        let prunings = Store::new(lab.path()).prunings().unwrap();
        assert!(matches!(prunings[0].ruling, PartRuling::Stays(_)), "{:?}", prunings[0]);
        assert_eq!(prunings[0].climbs, Vec::new(), "what carries on the first rung is not tried above");
        let left = prunings[1].ruling == PartRuling::Leaves;
        assert_eq!(campaign.books.champion().settings.contains_key("b"), !left);
        prunings[1].clone()
    })
}

#[test]
fn a_part_leaves_only_when_no_rung_speaks_for_it() {
    let gains_above =
        Plain(|depth, value| 0.1 * value("a") + if depth == 2 { 0.1 * value("b") } else { 0.0 });
    let pruning = second_part(&gains_above, 2);
    assert_eq!(pruning.ruling, PartRuling::Stays("on rung 2: it carries its weight".to_string()));
    assert_eq!((pruning.climbs.len(), pruning.climbs[0].rung), (1, 1));
    assert!(pruning.fresh_runs.is_empty());
    assert_eq!(second_part(&gains_above, 1).ruling, PartRuling::Leaves);
    let harmful = Plain(|_, value| 0.1 * value("a") - 0.004 * value("b"));
    let pruning = second_part(&harmful, 2);
    assert_eq!(pruning.ruling, PartRuling::Leaves);
    let [climb] = &pruning.climbs[..] else { panic!("{:?}", pruning.climbs) };
    assert!(climb.ruling == PartRuling::Leaves && climb.pairs.len() >= 2, "{climb:?}");
    assert_eq!(pruning.fresh_runs.len() as u64, judge_settings().champion_runs);
    // Four times the FLOPs of the first rung each.
    let above = climb.pairs.len() as f64 * 2.0 * 16e12;
    assert!(pruning.flops > above, "{} {above}", pruning.flops);
}
