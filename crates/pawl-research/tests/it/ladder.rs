//! Campaigns with rungs: what is kept must hold on the next one.

use crate::fake::{Choice, Fake, asked, documents, ladder, new_lab};
use pawl_record::{CampaignBudget, Decision, EndReason, JudgeSettings, Verdict};
use pawl_research::campaign::{self, CampaignEvent, CampaignReport};
use pawl_research::climb;
use pawl_research::evidence::{NoiseScale, Scores};
use pawl_research::judge::Ruling;
use pawl_research::options::{CampaignOptions, judge_settings};
use pawl_research::random::Random;
use pawl_research::simulate::{self, Above, Law, Plan, Planted};
use std::path::Path;

fn choice(name: &str, gains: &[f64]) -> Choice {
    Choice { name: name.to_string(), gains: gains.to_vec(), silent: false }
}

/// Two large gains, of which one is gone on the next rung, and two choices that do nothing.
fn planted(seed: u64) -> Fake {
    let choices = vec![
        choice("lasting", &[0.0, 0.12]),
        choice("passing", &[0.0, 0.12]),
        choice("idle0", &[0.0, 0.0]),
        choice("idle1", &[0.0, 0.0, 0.0]),
    ];
    let mut fake = Fake::new(seed, choices, Vec::new());
    fake.fading = vec!["passing"];
    fake
}

fn options(lab: &Path, seed: u64, trials: u64) -> CampaignOptions {
    CampaignOptions { rungs: ladder(2), ..asked(lab, seed, CampaignBudget::Trials(trials)) }
}

/// The campaign and the verdicts by the first setting that was turned.
fn told(fake: &Fake, options: &CampaignOptions) -> (CampaignReport, Vec<(String, Verdict)>) {
    let mut verdicts = Vec::new();
    let report = campaign::run(options, fake, &mut |event| {
        if let CampaignEvent::Verdict { proposal, verdict } = event {
            verdicts.push((proposal.changes[0].setting.clone(), verdict.clone()));
        }
    });
    (report.unwrap(), verdicts)
}

#[test]
fn a_keep_that_does_not_hold_on_the_next_rung_is_recorded_and_not_promoted() {
    let (mut held, mut fell) = (0, 0);
    for seed in 0..20 {
        let lab = new_lab();
        let (report, verdicts) = told(&planted(seed), &options(lab.path(), seed, 120));
        for (setting, verdict) in &verdicts {
            if verdict.decision != Decision::Keep {
                assert!(verdict.climbs.is_empty() && !verdict.promoted && verdict.worth.is_none());
                continue;
            }
            let [climb] = &verdict.climbs[..] else { panic!("one climb on a ladder of two rungs") };
            assert_eq!((climb.rung, climb.held()), (1, verdict.promoted || verdict.faded()));
            assert!(climb.pairs.iter().all(|pair| verdict.pairs.iter().all(|below| below.seed != pair.seed)));
            match setting.as_str() {
                "lasting" => held += u64::from(verdict.promoted),
                "passing" => fell += u64::from(!verdict.promoted),
                idle => println!("seed {seed}: {idle} was kept, climbs {}", climb.held()),
            }
        }
        let last = report.champions.last().unwrap();
        assert!(!last.settings.contains_key("passing"), "seed {seed}: it lasts on one rung alone");
    }
    println!("{held} of 20 lasting gains climbed, {fell} passing gains did not");
    assert!(held >= 19, "{held}");
    assert!(fell >= 15, "{fell}");
}

#[test]
fn what_climbs_is_measured_on_both_rungs_and_priced_in_compute() {
    let lab = new_lab();
    let (report, verdicts) = told(&planted(3), &options(lab.path(), 3, 120));
    let (_, verdict) = verdicts.iter().find(|(_, verdict)| verdict.promoted).unwrap();
    // The champion gains 0.1 bits per byte a factor of e: 0.12 is worth exp(1.2) of them on each rung.
    let worth = verdict.worth.as_ref().unwrap();
    assert_eq!(worth.points.iter().map(|point| point.flops).collect::<Vec<_>>(), [1e12, 4e12]);
    for on in &worth.rungs {
        let expected = (10.0 * on.gain_bpb).exp();
        assert!((on.compute.value / expected).ln().abs() < 0.35, "{on:?}, {expected}");
        assert!(on.compute.low <= on.compute.value && on.compute.value <= on.compute.high.unwrap());
    }
    let measured = report.final_measurement.unwrap();
    let [above] = &measured.above[..] else { panic!("{:?}", measured.above) };
    assert_eq!((above.rung, above.seeds.len()), (1, 5));
    assert!((above.search.mean - 0.12).abs() < 0.05, "{:?}", above.search);
    let worth = measured.worth.unwrap();
    assert_eq!(worth.rungs.iter().map(|on| on.rung).collect::<Vec<_>>(), [0, 1]);
    let trend = worth.trend.unwrap();
    assert!(trend.low < 1.0 && trend.high.unwrap() > 1.0, "the gain is the same on both: {trend:?}");
}

#[test]
fn a_climb_that_is_interrupted_ends_with_the_same_records() {
    let whole = planted(5);
    let lab = new_lab();
    let (report, _) = told(&whole, &options(lab.path(), 5, 70));
    assert!(report.champions.len() > 1, "something climbed");
    let expected = documents(lab.path());
    for every in [1, 4, 5] {
        let fake = planted(5);
        let lab = new_lab();
        let mut processes = 0;
        let mut interrupted_above = 0;
        loop {
            fake.restart(Some(every));
            let mut last_purpose = String::new();
            let report = campaign::run(&options(lab.path(), 5, 70), &fake, &mut |event| {
                if let CampaignEvent::Trials { purpose, .. } = event {
                    last_purpose = purpose.to_string();
                }
            });
            processes += 1;
            if report.unwrap().end.reason != EndReason::Interrupted {
                break;
            }
            interrupted_above +=
                u64::from(last_purpose.starts_with('#') && last_purpose.contains("at depth 5"));
            assert!(processes < 300, "it does not come to an end");
        }
        assert!(interrupted_above > 0, "no climb was interrupted, {processes} processes");
        let found = documents(lab.path());
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, document) in &expected {
            assert_eq!(&found[name], document, "{name}, interrupted every {every} runs");
        }
        assert_eq!(fake.num_runs(), whole.num_runs(), "no run is done twice or in vain");
    }
}

#[test]
fn a_campaign_of_one_rung_promotes_what_it_keeps_and_prices_it_by_half_the_budget() {
    let lab = new_lab();
    let options = asked(lab.path(), 3, CampaignBudget::Trials(120));
    let (report, verdicts) = told(&planted(3), &options);
    assert!(report.champions.len() > 1);
    assert!(verdicts.iter().all(|(_, it)| it.climbs.is_empty() && it.worth.is_none()));
    assert!(verdicts.iter().all(|(_, it)| it.promoted == (it.decision == Decision::Keep)));
    let measured = report.final_measurement.unwrap();
    assert!(measured.above.is_empty());
    let worth = measured.worth.unwrap();
    assert_eq!(worth.points.iter().map(|point| point.flops).collect::<Vec<_>>(), [5e11, 1e12]);
    assert_eq!((worth.rungs.len(), worth.trend), (1, None));
    let expected = 10.0 * measured.search.mean;
    assert!((worth.rungs[0].compute.value.ln() - expected).abs() < 0.5 * expected, "{worth:?}");
}

#[test]
fn a_keep_that_loses_at_equal_seconds_does_not_climb() {
    for (gain, wins) in [(0.055, false), (0.15, true)] {
        let mut fake = Fake::new(1, vec![choice("wide", &[0.0, gain])], Vec::new());
        fake.slow = Some(("wide", 2.0));
        fake.pair_sd = 0.01;
        let lab = new_lab();
        let (report, verdicts) = told(&fake, &options(lab.path(), 1, 60));
        let (_, verdict) = &verdicts[0];
        assert_eq!((verdict.promoted, verdict.climbs.len()), (wins, usize::from(wins)));
        assert_eq!(verdict.equal_time.as_ref().unwrap().mean > 0.0, wins);
        assert_eq!(report.champions.len() - 1, usize::from(wins));
    }
}

#[test]
fn a_budget_of_minutes_is_kept_with_climbs_and_all() {
    let mut promoted = 0;
    for seed in 0..10 {
        let lab = new_lab();
        let options =
            CampaignOptions { budget: CampaignBudget::Minutes(20.0), ..options(lab.path(), seed, 0) };
        let (report, _) = told(&planted(seed), &options);
        assert!(report.end.elapsed_s <= 1200.0, "seed {seed}: {}", report.end.elapsed_s);
        promoted += report.champions.len() - 1;
        if report.champions.len() > 1 {
            let measured = report.final_measurement.unwrap();
            assert!(measured.worth.is_some_and(|worth| worth.points.len() == 2), "seed {seed}");
        }
    }
    assert!(promoted >= 9, "{promoted}");
}

/// Share of climbs that hold, and mean pairs, for an effect in pair sds of the rung it is on.
fn climbs(effect: f64, noise: f64, ratio: f64) -> (f64, f64) {
    let num = 2000u64;
    let (mut held, mut num_pairs) = (0, 0);
    for seed in 0..num {
        let mut random = Random::new(&[seed, 9]);
        let luck = |random: &mut Random| 0.5f64.sqrt() * random.normal();
        let aa: Vec<Scores> =
            (0..8).map(|_| Scores { champion: luck(&mut random), challenger: luck(&mut random) }).collect();
        let mut pairs: Vec<Scores> = Vec::new();
        loop {
            let champion = luck(&mut random);
            let challenger = ratio * luck(&mut random) + (1.0 - ratio) * champion;
            pairs.push(Scores { champion: noise * champion, challenger: noise * (challenger - effect) });
            let (ruling, _) = climb::rule(&no_minimum(), &NoiseScale::new(&aa), &pairs, 1);
            if ruling != Ruling::Continue {
                held += u64::from(ruling == Ruling::Keep);
                num_pairs += pairs.len();
                break;
            }
        }
    }
    (held as f64 / num as f64, num_pairs as f64 / num as f64)
}

fn no_minimum() -> JudgeSettings {
    JudgeSettings { min_effect_bpb: 0.0, ..judge_settings() }
}

#[test]
fn a_climb_lets_through_what_is_there_and_rarely_what_is_not() {
    // The noise of the rung above is half that of the first, the same, or far more.
    for noise in [0.5, 1.0, 1.5, 3.0, 20.0] {
        let (null, _) = climbs(0.0, noise, 1.0);
        println!("noise {noise}: no effect holds in {null:.3}");
        // The worst seen is 0.059, at ten times the noise.
        assert!(null <= 0.07, "noise {noise}: {null}");
        for effect in [1.0, 2.0, 3.0, 4.0] {
            let (held, num_pairs) = climbs(effect, noise, 1.0);
            println!("noise {noise}: {effect} sds hold in {held:.3}, {num_pairs:.2} pairs");
        }
    }
    let (held, num_pairs) = climbs(3.0, 1.0, 1.0);
    assert!(held > 0.9 && num_pairs < 3.5, "{held} {num_pairs}");
}

#[test]
fn simulated_climbs_veto_what_fades_and_cost_little_power() {
    let effect = 2.5;
    let propose = |random: &mut Random, _: &[f64]| Planted {
        effect: if random.uniform() < 0.2 { effect } else { 0.0 },
        noise_ratio: 1.0,
    };
    let rate = |above: Option<Above>| {
        let plan = Plan {
            settings: judge_settings(),
            law: &Law::Normal,
            workers: 1,
            num_proposals: 50,
            max_runs: None,
            above,
            propose: &propose,
        };
        let (mut promoted, mut stayed, mut real, mut false_keeps) = (0, 0, 0, 0);
        for seed in 0..100 {
            for it in simulate::campaign(&plan, seed).proposals {
                let is_real = it.planted.effect > 0.0;
                real += u64::from(is_real);
                promoted += u64::from(it.kept && is_real);
                stayed += u64::from(it.stayed);
                false_keeps += u64::from(it.kept && !is_real);
            }
        }
        println!("{above:?}: {promoted} of {real} real promoted, {stayed} stayed, {false_keeps} false");
        (promoted as f64 / real as f64, stayed, false_keeps)
    };
    let (alone, stayed, _) = rate(None);
    assert_eq!(stayed, 0);
    let (lasting, _, false_lasting) = rate(Some(Above { effect: 1.0, noise: 0.7, cost: 4 }));
    assert!(lasting > 0.93 * alone && false_lasting <= 1, "{lasting} {alone}");
    let (fading, stayed, _) = rate(Some(Above { effect: 0.0, noise: 0.7, cost: 4 }));
    assert!(fading < 0.06 && stayed > 500, "{fading} {stayed}");
}
