//! The built-in researcher against chance, on the same budget and under the same judge.

use crate::fake::{Fake, asked, campaign, new_lab};
use pawl_record::{CampaignBudget, Category};
use pawl_research::campaign;
use pawl_research::options::CampaignOptions;
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
    // Where gains add up, what is spent on leaps is lost, and the early levels with it: the price of the plateau below.
    for (trials, of_optimizer, of_steps) in [(60, 1.2, 1.4), (120, 1.1, 1.2)] {
        let of = |researcher| mean_share(researcher, trials, 24);
        let (optimizer, steps, random) =
            (of(Researcher::Optimizer), of(Researcher::Steps), of(Researcher::Random));
        println!(
            "{trials} trials: optimizer {optimizer:.3}, in steps {steps:.3}, random {random:.3} of the gain there is"
        );
        assert!(
            optimizer > of_optimizer * random && steps > of_steps * random,
            "{optimizer} {steps} {random}"
        );
    }
}

#[test]
fn no_knob_of_a_challenger_is_tuned_before_its_duel() {
    let (mut knobs, mut structures) = (0, 0);
    for seed in 0..6 {
        let lab = new_lab();
        let asked = asked(lab.path(), seed, CampaignBudget::Trials(90));
        // Leaps aside, of which neither side was tuned.
        let asked = CampaignOptions { researcher: Researcher::Steps, ..asked };
        campaign::run(&asked, &Fake::typical(seed), &mut |_| {}).unwrap();
        let records = pawl_ledger::read_campaign(lab.path()).unwrap().unwrap();
        for proposal in records.proposals.iter().filter(|it| it.researcher == "steps") {
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
    let (optimizer, steps) =
        (mean_share(Researcher::Optimizer, 90, 24), mean_share(Researcher::Steps, 90, 24));
    let rules = [Researcher::OneAtATime, Researcher::Tpe].map(|rule| mean_share(rule, 90, 24));
    println!(
        "optimizer {optimizer:.3}, in steps {steps:.3}, one at a time {:.3}, TPE {:.3} of the gain there is",
        rules[0], rules[1]
    );
    assert!(
        rules.iter().all(|rule| optimizer > *rule && steps > 1.2 * rule),
        "{optimizer} {steps} {rules:?}"
    );
    // They are rules, not stand-ins: each finds something.
    assert!(rules[0] > 0.05, "{rules:?}");
}

#[test]
fn it_goes_on_where_a_knob_is_far_off() {
    for trials in [60, 120] {
        let of = |researcher| mean_share_of(&Fake::far, researcher, trials, 24);
        let (optimizer, steps, random) =
            (of(Researcher::Optimizer), of(Researcher::Steps), of(Researcher::Random));
        let (turns, tpe) = (of(Researcher::OneAtATime), of(Researcher::Tpe));
        println!(
            "far, {trials} trials: optimizer {optimizer:.3}, in steps {steps:.3}, random {random:.3}, one at a time {turns:.3}, TPE {tpe:.3}"
        );
        assert!(optimizer > 1.5 * random.max(turns).max(tpe), "{optimizer} {random} {turns} {tpe}");
    }
}

#[test]
fn it_leaps_off_a_plateau_that_steps_do_not_see_the_end_of() {
    let of = |researcher| mean_share_of(&Fake::plateau, researcher, 60, 24);
    let (optimizer, steps, tpe) = (of(Researcher::Optimizer), of(Researcher::Steps), of(Researcher::Tpe));
    let turns = of(Researcher::OneAtATime);
    println!(
        "plateau, 60 trials: optimizer {optimizer:.3}, in steps {steps:.3}, TPE {tpe:.3}, one at a time {turns:.3}"
    );
    assert!(optimizer > 1.3 * steps.max(turns), "{optimizer} {steps} {turns} {tpe}");
}
