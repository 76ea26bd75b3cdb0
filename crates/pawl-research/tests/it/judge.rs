//! Error rates and power of the judge, by simulation with fixed seeds, and what its statistics promise.

use pawl_record::JudgeSettings;
use pawl_research::evidence::{NoiseScale, Scores, Stats, by_scale, by_scatter, e_value};
use pawl_research::judge::{OWN_SHARE, Ruling, rule};
use pawl_research::random::Random;
use pawl_research::simulate::{self, Law, NULL, Plan, Planted, campaign};

fn settings() -> JudgeSettings {
    pawl_research::options::judge_settings()
}

/// No screening, no futility: every look is taken.
fn patient() -> JudgeSettings {
    JudgeSettings { target_power: 1.0 - 1e-12, max_pairs: 30, ..settings() }
}

fn pairs_of(differences: &[f64]) -> Vec<Scores> {
    differences.iter().map(|d| Scores { champion: d / 2.0, challenger: -d / 2.0 }).collect()
}

/// Share of keeps, and mean pairs, over many duels at one level.
fn rates(settings: JudgeSettings, law: &Law, planted: Planted, level: f64, num_duels: u64) -> (f64, f64) {
    let propose = |_: &mut Random, _: &[f64]| planted;
    let plan =
        Plan { settings, law, workers: 1, num_proposals: 1, max_runs: None, above: None, propose: &propose };
    let ends: Vec<_> = (0..num_duels).map(|seed| simulate::duel(&plan, level, seed)).collect();
    let keeps = ends.iter().filter(|end| end.kept).count();
    let pairs: u64 = ends.iter().map(|end| end.pairs).sum();
    (keeps as f64 / num_duels as f64, pairs as f64 / num_duels as f64)
}

/// Integral over ln sigma of the likelihood of `means` under mean `delta sigma` and of `zeros` under mean 0,
/// times that of `free` under any mean. Nothing in common with the product's formulas.
fn likelihood(zeros: &[f64], free: &[f64], means: &[f64], delta: f64) -> f64 {
    let num_steps = 1200;
    let free_mean = free.iter().sum::<f64>() / free.len().max(1) as f64;
    (0..num_steps)
        .map(|i| {
            let log_sigma = -9.0 + 22.0 * (f64::from(i) + 0.5) / f64::from(num_steps);
            let sigma = log_sigma.exp();
            let term = |x: f64| -0.5 * (x / sigma).powi(2) - log_sigma;
            let mut log = zeros.iter().copied().map(term).sum::<f64>();
            log += free.iter().map(|u| term(u - free_mean)).sum::<f64>();
            // A flat mean integrates to sqrt(2 pi / n) sigma.
            log += if free.is_empty() { 0.0 } else { log_sigma };
            log += means.iter().map(|d| term(d - delta * sigma)).sum::<f64>();
            log.exp()
        })
        .sum()
}

/// Mixture of likelihood ratios over effects with density proportional to a normal cut off at zero.
fn mixture(zeros: &[f64], free: &[f64], means: &[f64], center: f64, spread: f64) -> f64 {
    let num_deltas = 2000;
    let (mut above, mut below) = (0.0, 0.0);
    for i in 0..num_deltas {
        let delta = (center + 9.0 * spread) * (f64::from(i) + 0.5) / f64::from(num_deltas);
        let density = (-0.5 * ((delta - center) / spread).powi(2)).exp();
        above += density * likelihood(zeros, free, means, delta);
        below += density;
    }
    above / below / likelihood(zeros, free, means, 0.0)
}

#[test]
fn both_e_processes_agree_with_numerical_integration() {
    let aa = [(0.3, 0.1), (-0.4, 0.7), (0.9, 0.2), (0.2, -0.6)];
    let aa: Vec<Scores> = aa.iter().map(|&(champion, challenger)| Scores { champion, challenger }).collect();
    let zeros: Vec<f64> = aa.iter().map(Scores::difference).collect();
    let sums: Vec<f64> = aa.iter().map(|pair| pair.champion + pair.challenger).collect();
    for (min_effect, tuned) in [(0.0, 2.0), (0.5, 1.0), (2.0, 3.0)] {
        let differences = [1.4, 0.2, 2.3, 1.1];
        let stats = Stats::new(&differences, min_effect);
        let means: Vec<f64> = differences.iter().map(|d| d - min_effect).collect();
        let expected = mixture(&zeros, &sums, &means, tuned, 0.3 * tuned);
        let found = by_scale(&NoiseScale::new(&aa), &stats, tuned);
        assert!((found / expected - 1.0).abs() < 1e-4, "by scale {found} {expected}");
        // A scale of nothing, so that the floor of the scatter is nothing.
        let nothing = NoiseScale { dof: 1.0, sum_squares: 1e-18 };
        let expected = mixture(&[], &[], &means, 0.0, 3.0);
        let found = by_scatter(&nothing, &stats);
        assert!((found / expected - 1.0).abs() < 1e-3, "by scatter {found} {expected}");
    }
}

/// Share of paths on which the bare e-process crosses `1 / level` at any look.
fn crossing_rate(planted: Planted, shared: bool, level: f64, num_paths: u64) -> f64 {
    let mut crossings = 0;
    for path_idx in 0..num_paths {
        let mut random = Random::new(&[5, path_idx]);
        let mut arm = || random.normal() * 0.5f64.sqrt();
        let aa: Vec<Scores> = (0..6).map(|_| Scores { champion: arm(), challenger: arm() }).collect();
        let noise = NoiseScale::new(&aa);
        let mut pairs: Vec<Scores> = Vec::new();
        for look in 0..30 {
            let luck = if shared && look < 6 { aa[look].champion } else { arm() };
            // As much of the challenger's luck is the champion's as gives the noise that is asked.
            let own = planted.noise_ratio.powi(2);
            let challenger = (1.0 - own) * luck + (1.0 - (1.0 - own).powi(2)).sqrt() * arm() - planted.effect;
            pairs.push(Scores { champion: luck, challenger });
            let differences: Vec<f64> = pairs.iter().map(Scores::difference).collect();
            let e = e_value(&noise.with_sums(&pairs), &Stats::new(&differences, 0.0), 2.0);
            if e * level >= 1.0 {
                crossings += 1;
                break;
            }
        }
    }
    crossings as f64 / num_paths as f64
}

#[test]
fn optional_stopping_does_not_inflate_the_error() {
    // Ville's bound at 5 %; the standard error of 10,000 paths is 0.2 %.
    let worse = Planted { effect: -0.5, ..NULL };
    let quiet = Planted { noise_ratio: 0.4, ..NULL };
    for (planted, shared) in [(NULL, false), (NULL, true), (worse, false), (quiet, false)] {
        let rate = crossing_rate(planted, shared, 0.05, 10_000);
        println!("{planted:?}, champion's runs among the A/A pairs {shared}: {rate}");
        assert!(rate <= 0.055, "{rate}");
    }
    // The bound is not empty: at the null itself it is nearly reached.
    assert!(crossing_rate(NULL, false, 0.05, 10_000) > 0.02);
}

#[test]
fn a_null_of_whatever_noise_is_bounded_by_its_own_pairs() {
    let level = 0.005;
    for noise_ratio in [0.1, 1.0, 2.0, 4.0, 20.0] {
        let (rate, _) = rates(patient(), &Law::Normal, Planted { noise_ratio, ..NULL }, level, 4000);
        println!("noise x{noise_ratio}: {rate} at level {level}");
        assert!(rate <= level / OWN_SHARE, "{rate}");
    }
}

#[test]
fn e_values_do_not_depend_on_the_unit_or_the_origin_of_scores() {
    let mut random = Random::new(&[19]);
    let mut scores = |n: usize| -> Vec<Scores> {
        (0..n).map(|_| Scores { champion: random.normal(), challenger: random.normal() - 1.0 }).collect()
    };
    let (aa, pairs) = (scores(5), scores(4));
    let moved = |pairs: &[Scores]| -> Vec<Scores> {
        let map = |x: f64| 3.0 + 0.01 * x;
        pairs.iter().map(|p| Scores { champion: map(p.champion), challenger: map(p.challenger) }).collect()
    };
    let ruling = |aa: &[Scores], pairs: &[Scores], unit: f64| {
        let settings = JudgeSettings { min_effect_bpb: 0.05 * unit, ..settings() };
        rule(&settings, &NoiseScale::new(aa), pairs, 0.01, 1).1
    };
    let (one, other) = (ruling(&aa, &pairs, 1.0), ruling(&moved(&aa), &moved(&pairs), 0.01));
    assert!((one.e_value / other.e_value - 1.0).abs() < 1e-6, "{one:?} {other:?}");
    assert!((one.half_width / other.half_width - 100.0).abs() < 1e-4, "{one:?} {other:?}");
}

#[test]
fn a_challenger_better_on_every_pair_has_a_higher_e_value() {
    let mut random = Random::new(&[17]);
    for _ in 0..2000 {
        let aa: Vec<f64> = (0..5).map(|_| random.normal()).collect();
        let scale = NoiseScale::of_differences(&aa);
        let differences: Vec<f64> = (0..4).map(|_| 2.0 * random.normal()).collect();
        let lift = random.uniform();
        let lifted: Vec<f64> = differences.iter().map(|d| d + lift).collect();
        let of =
            |d: &[f64]| (by_scale(&scale, &Stats::new(d, 0.0), 2.0), by_scatter(&scale, &Stats::new(d, 0.0)));
        let (low, high) = (of(&differences), of(&lifted));
        assert!(high.0 > low.0 && high.1 > low.1, "{low:?} {high:?}");
    }
}

#[test]
fn more_noise_in_the_campaign_never_helps_a_challenger_that_is_ahead() {
    let differences = [1.0, 1.3, 0.8];
    let e =
        |sum_squares| by_scale(&NoiseScale { dof: 8.0, sum_squares }, &Stats::new(&differences, 0.0), 2.0);
    let values: Vec<f64> = (1..40).map(|i| e(0.25 * f64::from(i))).collect();
    assert!(values.windows(2).all(|pair| pair[1] < pair[0]), "{values:?}");
}

#[test]
fn effects_of_two_sds_are_kept_within_a_few_pairs() {
    for (level, effect, noise_ratio, least_power, most_pairs) in [
        (0.01, 2.0, 1.0, 0.97, 5.0),
        (0.001, 1.5, 1.0, 0.65, 8.5),
        (0.001, 2.0, 1.0, 0.94, 7.5),
        (0.001, 3.0, 1.0, 0.99, 5.5),
        // A quiet change is judged by its own scatter: one A/A sd is three of its own.
        (0.001, 1.0, 0.3, 0.6, 9.5),
    ] {
        let planted = Planted { effect, noise_ratio };
        let (power, pairs) = rates(settings(), &Law::Normal, planted, level, 3000);
        println!(
            "level {level} effect {effect} sd, noise x{noise_ratio}: power {power:.3}, {pairs:.1} pairs"
        );
        assert!(power >= least_power, "{power}");
        assert!(pairs <= most_pairs, "{pairs}");
    }
    let (_, pairs) = rates(settings(), &Law::Normal, NULL, 0.001, 3000);
    println!("null: {pairs:.2} pairs");
    assert!(pairs < 3.0, "{pairs}");
}

#[test]
fn screening_drops_the_hopeless_after_one_pair_and_spares_the_target() {
    let settings = settings();
    let known = NoiseScale { dof: 400.0, sum_squares: 400.0 };
    let dropped_at_once = |effect: f64| {
        let num_duels = 5000;
        let drops = (0..num_duels)
            .filter(|&duel_idx| {
                let gain = settings.min_effect_bpb + effect + Random::new(&[23, duel_idx]).normal();
                matches!(rule(&settings, &known, &pairs_of(&[gain]), 0.01, 1).0, Ruling::Reject(_))
            })
            .count();
        drops as f64 / num_duels as f64
    };
    let spared = 1.0 - dropped_at_once(settings.target_effect_sds);
    assert!((spared - settings.target_power).abs() < 0.01, "{spared}");
    assert!(dropped_at_once(-2.5) > 0.95);
}

#[test]
fn a_change_that_does_nothing_at_all_is_not_tried_for_long() {
    let known = NoiseScale { dof: 15.0, sum_squares: 15.0 };
    for num_pairs in 2..5 {
        let mut random = Random::new(&[num_pairs]);
        let luck = (0..num_pairs).map(|_| random.normal() * 0.5f64.sqrt());
        let nothing: Vec<Scores> = luck.map(|luck| Scores { champion: luck, challenger: luck }).collect();
        let settings = JudgeSettings { min_effect_bpb: 0.04, ..settings() };
        let ruling = rule(&settings, &known, &nothing, 0.001, 1).0;
        assert!(matches!(ruling, Ruling::Reject(_) | Ruling::Undecided(_)), "{num_pairs} pairs: {ruling:?}");
    }
}

/// Mean false share, share of campaigns with a false keep, and share of real proposals kept.
fn campaigns(
    num_campaigns: u64,
    num_proposals: u64,
    workers: usize,
    law: &Law,
    propose: &dyn Fn(&mut Random, &[f64]) -> Planted,
) -> (f64, f64, f64) {
    let plan =
        Plan { settings: settings(), law, workers, num_proposals, max_runs: None, above: None, propose };
    let outcomes: Vec<_> = (0..num_campaigns).map(|seed| campaign(&plan, seed)).collect();
    let n = num_campaigns as f64;
    let any = outcomes.iter().filter(|o| o.num_false() > 0).count() as f64 / n;
    let real = outcomes.iter().flat_map(|o| &o.proposals).filter(|p| p.planted.effect > 0.0).count();
    let found: u64 = outcomes.iter().map(|o| o.num_kept() - o.num_false()).sum();
    (outcomes.iter().map(|o| o.false_share()).sum::<f64>() / n, any, found as f64 / real.max(1) as f64)
}

#[test]
fn campaigns_of_nulls_keep_less_often_than_alpha() {
    for law in [Law::Normal, Law::HeavyTailed, Law::Skewed] {
        let (_, any, _) = campaigns(300, 100, 2, &law, &|_, _| NULL);
        println!("100 nulls, {law:?}: {any}");
        assert!(any <= 0.05, "{any}");
    }
}

#[test]
fn a_mixed_campaign_keeps_the_real_and_holds_the_false_discovery_rate() {
    let propose = |random: &mut Random, _: &[f64]| {
        let effect = if random.uniform() < 0.2 { 2.0 } else { 0.0 };
        Planted { effect, ..NULL }
    };
    let (false_share, _, found) = campaigns(100, 100, 1, &Law::Normal, &propose);
    println!("false discovery rate {false_share:.4}, recall of 2-sd effects {found:.3}");
    assert!(false_share <= 0.05, "{false_share}");
    assert!(found > 0.9, "{found}");
}

#[test]
fn a_researcher_that_exploits_the_champions_bad_luck_gains_nothing() {
    // It proposes nulls exactly when the shared runs flatter every challenger.
    let propose = |_: &mut Random, shared: &[f64]| {
        let effect = if shared[..3].iter().sum::<f64>() < 1.5 { 3.0 } else { 0.0 };
        Planted { effect, ..NULL }
    };
    let (false_share, _, _) = campaigns(200, 60, 2, &Law::Normal, &propose);
    println!("false discovery rate under selection on the champion's luck: {false_share:.4}");
    assert!(false_share <= 0.05, "{false_share}");
}

#[test]
fn a_simulated_campaign_is_its_seed() {
    let propose = |random: &mut Random, _: &[f64]| Planted { effect: 3.0 * random.uniform() - 1.0, ..NULL };
    let plan = Plan {
        settings: settings(),
        law: &Law::HeavyTailed,
        workers: 2,
        num_proposals: 20,
        max_runs: Some(90),
        above: None,
        propose: &propose,
    };
    assert_eq!(campaign(&plan, 4), campaign(&plan, 4));
    assert_ne!(campaign(&plan, 4), campaign(&plan, 5));
    assert!(campaign(&plan, 4).runs < 100);
}
