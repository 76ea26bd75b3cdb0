//! Keeps on fresh seeds: who is taken back, who is not, and what a record of it must say.

use crate::verify::{edit, found, lab, promoted};
use pawl_record::JudgeSettings;
use pawl_research::confirm::holds;
use pawl_research::evidence::{Known, Scores};
use pawl_research::options::judge_settings;
use pawl_research::random::Random;
use pawl_research::simulate::{Law, Outcomes, Plan, Planted, campaign};
use serde_json::json;

fn campaigns(judge: JudgeSettings, law: &Law, planted: Planted, num_campaigns: u64) -> Vec<Outcomes> {
    let propose = |_: &mut Random, _: &[f64]| planted;
    let plan = Plan {
        settings: judge,
        law,
        workers: 1,
        num_proposals: 100,
        max_runs: None,
        above: None,
        propose: &propose,
    };
    (0..num_campaigns).map(|seed| campaign(&plan, seed)).collect()
}

#[test]
fn noisy_skewed_nulls_betray_themselves_on_fresh_seeds() {
    let planted = Planted { effect: 0.0, noise_ratio: 2.0 };
    let unasked = JudgeSettings { fresh_slack_sds: None, ..judge_settings() };
    let deceived = |judge: JudgeSettings| {
        let held = campaigns(judge, &Law::Skewed, planted, 300);
        held.iter().filter(|it| it.num_false() > 0).count() as f64 / 300.0
    };
    let (without, with) = (deceived(unasked), deceived(judge_settings()));
    println!("campaigns with a false keep: {without} without fresh seeds, {with} with them");
    assert!(without > 0.3, "the danger is real: {without}");
    assert!(with < 0.14, "{with}");
}

#[test]
fn gains_of_two_sds_are_not_taken_back() {
    let planted = Planted { effect: 2.0, noise_ratio: 1.0 };
    let held = campaigns(judge_settings(), &Law::Normal, planted, 10);
    let all: Vec<_> = held.iter().flat_map(|it| &it.proposals).collect();
    let taken_back = all.iter().filter(|it| it.faded).count() as f64 / all.len() as f64;
    println!("taken back: {taken_back}");
    assert!(taken_back < 0.01, "{taken_back}");
}

/// A champion of A/A pairs with sd 1 about 0, a challenger that gained 2, and its fresh runs.
fn holds_at(shift: f64, unit: f64, slack: Option<f64>, fresh: &[Option<f64>]) -> bool {
    let judge = JudgeSettings { min_effect_bpb: 0.1 * unit, fresh_slack_sds: slack, ..judge_settings() };
    let at = |x: f64| shift + unit * x;
    let half = 0.5;
    let aa: Vec<Scores> = [half, -half, half, -half, half, -half, half, -half]
        .map(|x| Scores { champion: at(x), challenger: at(-x) })
        .to_vec();
    let pairs: Vec<Scores> =
        aa[..4].iter().map(|it| Scores { champion: it.champion, challenger: at(-2.1) }).collect();
    let fresh: Vec<Option<f64>> = fresh.iter().map(|x| x.map(at)).collect();
    holds(&judge, &Known::of_start(&aa), &pairs, &fresh)
}

#[test]
fn the_worst_fresh_run_decides() {
    // The sd of an A/A pair is 1 here (its sums do not scatter at all, which halves the degrees of freedom), the gain 2
    // above the least worthwhile effect: asked is 1 less the slack.
    let sd = (8.0f64 / 15.0).sqrt();
    let edge = -(0.5 * 2.0 - 1.75 * sd) - 0.1;
    assert!(holds_at(0.0, 1.0, Some(1.75), &[Some(-2.0), Some(edge - 1e-9)]));
    assert!(!holds_at(0.0, 1.0, Some(1.75), &[Some(-2.0), Some(edge + 1e-9)]));
    assert!(!holds_at(0.0, 1.0, Some(1.75), &[Some(-2.0), None]), "a run that diverged shows nothing");
    // The same scores in another unit and from another origin.
    for (shift, unit) in [(3.0, 0.01), (-7.0, 50.0)] {
        assert!(holds_at(shift, unit, Some(1.75), &[Some(edge - 1e-3)]));
        assert!(!holds_at(shift, unit, Some(1.75), &[Some(edge + 1e-3)]));
    }
    // Nothing asked: any score will do, and one is needed.
    assert!(holds_at(0.0, 1.0, None, &[Some(9.0), None]));
    assert!(!holds_at(0.0, 1.0, None, &[None, None]));
}

fn check_forgery(words: &str, forge: impl FnOnce(&mut serde_json::Value)) {
    let lab = lab();
    let (number, _) = promoted(lab.path());
    edit(&lab.path().join(format!("campaign/verdicts/{number:04}.json")), forge);
    let found = found(lab.path());
    let place = format!("verdict {number}");
    assert!(
        found.iter().any(|line| line.starts_with(&place) && line.contains(words)),
        "no `{words}` in {found:#?}"
    );
}

#[test]
fn forged_records_of_fresh_seeds_are_named() {
    check_forgery("it was not tried on fresh seeds", |it| {
        it.as_object_mut().unwrap().remove("fresh");
    });
    check_forgery("the scores of its fresh runs", |it| it["fresh"]["bpb"][1] = json!(1.0));
    check_forgery("holds on fresh seeds is false, true follows", |it| it["fresh"]["holds"] = json!(false));
    check_forgery("it has 7 fresh runs", |it| {
        it["fresh"]["runs"].as_array_mut().unwrap().pop();
    });
    check_forgery("has another seed", |it| {
        let runs = it["fresh"]["runs"].as_array_mut().unwrap();
        runs.swap(0, 1);
    });
}
