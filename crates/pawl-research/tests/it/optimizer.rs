//! The built-in researcher against chance, on the same budget and under the same judge.

use crate::fake::{Fake, asked, campaign, new_lab};
use pawl_record::{CampaignBudget, Category};
use pawl_research::campaign;
use pawl_research::researcher::Researcher;

fn mean_share(researcher: Researcher, trials: u64, num_campaigns: u64) -> f64 {
    mean_share_of(&Fake::typical, researcher, trials, num_campaigns)
}

/// Mean over campaigns of the champion's gain over the best there is.
fn mean_share_of(
    world: &dyn Fn(u64) -> Fake,
    researcher: Researcher,
    trials: u64,
    num_campaigns: u64,
) -> f64 {
    let mut share = 0.0;
    for seed in 0..num_campaigns {
        let fake = world(seed);
        let report = campaign(&fake, researcher.clone(), seed, CampaignBudget::Trials(trials)).unwrap();
        let champion = report.champions.last().unwrap();
        share += fake.truth(&champion.settings) / fake.best();
    }
    share / num_campaigns as f64
}

#[test]
fn it_gains_more_than_random_search_on_the_same_budget() {
    for (trials, factor) in [(60, 1.4), (120, 1.2)] {
        let optimizer = mean_share(Researcher::Optimizer, trials, 24);
        let random = mean_share(Researcher::Random, trials, 24);
        println!("{trials} trials: optimizer {optimizer:.3}, random {random:.3} of the gain there is");
        assert!(optimizer > factor * random, "{optimizer} {random}");
    }
}

#[test]
fn no_knob_of_a_challenger_is_tuned_before_its_duel() {
    let (mut knobs, mut structures) = (0, 0);
    for seed in 0..6 {
        let lab = new_lab();
        let asked = asked(lab.path(), seed, CampaignBudget::Trials(90));
        campaign::run(&asked, &Fake::typical(seed), &mut |_| {}).unwrap();
        let records = pawl_ledger::read_campaign(lab.path()).unwrap().unwrap();
        for proposal in records.proposals.iter().filter(|it| it.researcher == "optimizer") {
            // One thing at a time, from the champion's own values: a structure at the champion's knobs, or one of these.
            let [change] = &proposal.changes[..] else { panic!("{proposal:?}") };
            let mut settings = records.promotions[proposal.generation as usize].settings.clone();
            settings.insert(change.setting.clone(), change.to.clone());
            assert_eq!(proposal.settings, settings);
            let is_knob = proposal.category == Category::Knob;
            knobs += usize::from(is_knob);
            structures += usize::from(!is_knob);
        }
        let spent = records.knob_trials();
        assert!(spent.settings > 0 && spent.trials >= spent.settings && spent.with_a_text == 0, "{spent:?}");
    }
    assert!(knobs > 20 && structures > 20, "{knobs} {structures}");
}

#[test]
fn it_gains_more_than_the_plain_rules_that_are_there_to_be_beaten() {
    let optimizer = mean_share(Researcher::Optimizer, 90, 24);
    let rules = [Researcher::OneAtATime, Researcher::Tpe].map(|rule| mean_share(rule, 90, 24));
    println!(
        "optimizer {optimizer:.3}, one at a time {:.3}, TPE {:.3} of the gain there is",
        rules[0], rules[1]
    );
    assert!(rules.iter().all(|rule| optimizer > 1.2 * rule), "{optimizer} {rules:?}");
    // They are rules, not stand-ins: each finds something.
    assert!(rules[0] > 0.05, "{rules:?}");
}

#[test]
fn it_goes_on_where_a_knob_is_far_off() {
    for trials in [60, 120] {
        let of = |researcher| mean_share_of(&Fake::far, researcher, trials, 24);
        let (optimizer, random) = (of(Researcher::Optimizer), of(Researcher::Random));
        let (turns, tpe) = (of(Researcher::OneAtATime), of(Researcher::Tpe));
        println!(
            "far, {trials} trials: optimizer {optimizer:.3}, random {random:.3}, one at a time {turns:.3}, TPE {tpe:.3}"
        );
        assert!(optimizer > 1.2 * random.max(turns).max(tpe), "{optimizer} {random} {turns} {tpe}");
    }
}
