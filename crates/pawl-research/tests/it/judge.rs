//! Error rates and power of the judge, by simulation with fixed seeds, and what its statistics promise.

use pawl_record::JudgeSettings;
use pawl_research::evidence::{
    Known, NoiseScale, Scores, Stats, by_own_runs, by_scale, by_scatter, differences, e_value,
};
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

/// A number observed: `weight / sigma^2` is its precision, `free` whether its mean is the unknown one of all such.
#[derive(Clone, Copy)]
struct Seen {
    value: f64,
    weight: f64,
    free: bool,
    /// Times delta sigma that its mean lies below the null's.
    shift: f64,
}

/// Integral over ln sigma, and over the unknown mean, of the likelihood of what was seen. Nothing in common with
/// the product's formulas.
fn likelihood(seen: &[Seen], delta: f64) -> f64 {
    let num_steps = 1200;
    let weights: f64 = seen.iter().filter(|it| it.free).map(|it| it.weight).sum();
    (0..num_steps)
        .map(|i| {
            let log_sigma = -9.0 + 22.0 * (f64::from(i) + 0.5) / f64::from(num_steps);
            let sigma = log_sigma.exp();
            let rest = |it: &Seen| it.value + it.shift * delta * sigma;
            let free = seen.iter().filter(|it| it.free);
            let mean = free.map(|it| it.weight * rest(it)).sum::<f64>() / weights.max(1e-300);
            let log = |it: &Seen| {
                let mean = if it.free { mean } else { 0.0 };
                -0.5 * it.weight * ((rest(it) - mean) / sigma).powi(2) - log_sigma
            };
            // A flat mean integrates to a multiple of sigma.
            let flat = if weights > 0.0 { log_sigma } else { 0.0 };
            (seen.iter().map(log).sum::<f64>() + flat).exp()
        })
        .sum()
}

/// Mixture of likelihood ratios over effects with density proportional to a normal cut off at zero.
fn mixture(seen: &[Seen], center: f64, spread: f64) -> f64 {
    let num_deltas = 2000;
    let (mut above, mut below) = (0.0, 0.0);
    for i in 0..num_deltas {
        let delta = (center + 9.0 * spread) * (f64::from(i) + 0.5) / f64::from(num_deltas);
        let density = (-0.5 * ((delta - center) / spread).powi(2)).exp();
        above += density * likelihood(seen, delta);
        below += density;
    }
    above / below / likelihood(seen, 0.0)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn all_e_processes_agree_with_numerical_integration() {
    let aa = [(0.3, 0.1), (-0.4, 0.7), (0.9, 0.2), (0.2, -0.6)];
    let aa: Vec<Scores> = aa.iter().map(|&(champion, challenger)| Scores { champion, challenger }).collect();
    let known = Known::of_start(&aa);
    // A run has half the variance of an A/A difference, so twice its weight.
    let run = |value| Seen { value, weight: 2.0, free: true, shift: 0.0 };
    let same = |a: f64, b: f64, what: &str| assert!((a / b - 1.0).abs() < 1e-3, "{what}: {a} {b}");
    // Six pairs, of which the last two lie on seeds on which the champion was not run before.
    let pairs: Vec<Scores> = [-1.0, -0.3, -1.9, -0.4, -2.0, -0.7]
        .iter()
        .enumerate()
        .map(|(i, &challenger)| Scores { champion: aa.get(i).map_or(0.2, |pair| pair.champion), challenger })
        .collect();
    let start: Vec<f64> = aa.iter().flat_map(|pair| [pair.champion, pair.challenger]).collect();
    for (min_effect, tuned) in [(0.0, 2.0), (0.5, 1.0), (2.0, 3.0)] {
        let challenger = |pairs: &[Scores]| -> Vec<Seen> {
            pairs.iter().map(|pair| Seen { shift: 1.0, ..run(pair.challenger + min_effect) }).collect()
        };
        let few = &pairs[..4];
        let seen: Vec<Seen> = start.iter().copied().map(run).chain(challenger(few)).collect();
        let found = by_scale(&known.scale, &Stats::of_arms(&known, few, min_effect), tuned);
        same(found, mixture(&seen, tuned, 0.3 * tuned), "by scale");
        // A scale of nothing, so that the floors are nothing.
        let nothing = NoiseScale { dof: 1.0, sum_squares: 1e-18 };
        let champion: Vec<f64> = start.iter().copied().chain([0.2, 0.2]).collect();
        let whole = Seen { weight: 2.0 * champion.len() as f64, ..run(mean(&champion)) };
        let seen: Vec<Seen> = std::iter::once(whole).chain(challenger(&pairs)).collect();
        let found = by_own_runs(&nothing, &Stats::of_arms(&known, &pairs, min_effect));
        same(found, mixture(&seen, 0.0, 3.0), "by own runs");
        let apart = differences(&pairs);
        let loss = |d: &f64| Seen { value: min_effect - d, weight: 1.0, free: false, shift: 1.0 };
        let seen: Vec<Seen> = apart.iter().map(loss).collect();
        let found = by_scatter(&nothing, &Stats::of_pairs(&apart, min_effect));
        same(found, mixture(&seen, 0.0, 3.0), "by scatter");
    }
}

#[test]
fn the_mean_against_the_champions_runs_is_worth_the_pairs_it_says() {
    // Unrelated arms: the variance of the mean gain is that of an A/A difference, 1, over the worth.
    for (num_fresh, num_spare, num_pairs) in [(8, 8, 3), (4, 0, 4), (2, 3, 6), (0, 0, 5)] {
        let n = 20_000;
        let gains: Vec<(f64, f64)> = (0..n)
            .map(|path| {
                let mut random = Random::new(&[31, path, num_fresh]);
                let mut runs =
                    |n: u64| -> Vec<f64> { (0..n).map(|_| random.normal() * 0.5f64.sqrt()).collect() };
                let (fresh, spare, later, own) = (runs(num_fresh), runs(num_spare), runs(9), runs(num_pairs));
                let champion = fresh.iter().copied().chain(later);
                let scale = NoiseScale { dof: 15.0, sum_squares: 15.0 };
                let pairs: Vec<Scores> =
                    champion.zip(own).map(|(champion, challenger)| Scores { champion, challenger }).collect();
                let stats = Stats::of_arms(&Known { scale, fresh: fresh.clone(), spare }, &pairs, 0.25);
                (stats.mean() + 0.25, stats.worth)
            })
            .collect();
        let worth = gains[0].1;
        let variance = gains.iter().map(|(gain, _)| gain * gain).sum::<f64>() / n as f64;
        println!(
            "{num_fresh} + {num_spare} runs, {num_pairs} pairs: {worth:.2} against {:.2}",
            1.0 / variance
        );
        assert!((variance * worth - 1.0).abs() < 0.05, "{variance} {worth}");
    }
}

/// Share of paths on which the bare e-process crosses `1 / level` at any look; `later` against a champion that is
/// not the one of the A/A pairs. `data` is the share of a run's variance that comes from the order of the data.
fn crossing_rate(planted: Planted, later: bool, data: f64, level: f64, num_paths: u64) -> f64 {
    let mut crossings = 0;
    for path_idx in 0..num_paths {
        let mut random = Random::new(&[5, path_idx]);
        let mut arm = || random.normal() * 0.5f64.sqrt();
        let orders: Vec<f64> = (0..30).map(|_| data.sqrt() * arm()).collect();
        let mut run = |seed: usize| orders[seed] + (1.0 - data).sqrt() * arm();
        let aa: Vec<Scores> =
            (0..6).map(|seed| Scores { champion: run(seed), challenger: run(seed) }).collect();
        let start = Known::of_start(&aa);
        let known = if later { Known::of_champion(&start.scale, &[0, 1, 2].map(&mut run)) } else { start };
        let mut pairs: Vec<Scores> = Vec::new();
        // Where the order of the data counts, no more pairs than there are A/A runs, as in a campaign.
        for look in 0..if data > 0.0 { 12 } else { 30 } {
            let luck = known.fresh.get(look).copied().unwrap_or_else(|| run(look));
            // Some of the challenger's luck is the champion's, the less the noisier; its variance is a run's.
            let common = 1.0 - planted.noise_ratio.powi(2);
            let own = (1.0 - common * common).sqrt();
            let size = (1.0 + 2.0 * common * own * data).sqrt();
            let challenger = (common * luck + own * run(look)) / size - planted.effect;
            pairs.push(Scores { champion: luck, challenger });
            let apart = Stats::of_pairs(&differences(&pairs), 0.0);
            let e = e_value(&known.scale, &Stats::of_arms(&known, &pairs, 0.0), &apart, 2.0);
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
    let quiet = |noise_ratio| Planted { noise_ratio, ..NULL };
    for planted in [NULL, worse, quiet(0.8), quiet(0.4), quiet(0.1)] {
        for (later, data) in [(false, 0.0), (true, 0.0), (false, 0.6), (true, 0.6)] {
            let rate = crossing_rate(planted, later, data, 0.05, 10_000);
            println!("{planted:?}, against a later champion {later}, of the data {data}: {rate}");
            assert!(rate <= 0.055, "{rate}");
        }
    }
    // The bound is not empty: at the null itself it is nearly reached.
    assert!(crossing_rate(NULL, false, 0.0, 0.05, 10_000) > 0.02);
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
        rule(&settings, &Known::of_start(aa), pairs, 0.01, 1).1
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
        let of = |d: &[f64]| {
            let known = Known { scale, fresh: vec![0.3; 2], spare: vec![-0.2; 3] };
            let arms = Stats::of_arms(&known, &pairs_of(d), 0.0);
            let pairs = Stats::of_pairs(d, 0.0);
            (by_scale(&scale, &arms, 2.0), by_own_runs(&scale, &arms), by_scatter(&scale, &pairs))
        };
        let (low, high) = (of(&differences), of(&lifted));
        assert!(high.0 > low.0 && high.1 > low.1 && high.2 > low.2, "{low:?} {high:?}");
    }
}

#[test]
fn more_noise_in_the_campaign_never_helps_a_challenger_that_is_ahead() {
    let differences = [1.0, 1.3, 0.8];
    let e = |sum_squares| {
        by_scale(&NoiseScale { dof: 8.0, sum_squares }, &Stats::of_pairs(&differences, 0.0), 2.0)
    };
    let values: Vec<f64> = (1..40).map(|i| e(0.25 * f64::from(i))).collect();
    assert!(values.windows(2).all(|pair| pair[1] < pair[0]), "{values:?}");
}

#[test]
fn effects_of_two_sds_are_kept_within_a_few_pairs() {
    for (level, effect, noise_ratio, least_power, most_pairs) in [
        (0.01, 2.0, 1.0, 0.97, 5.0),
        (0.001, 1.5, 1.0, 0.88, 9.5),
        (0.001, 2.0, 1.0, 0.98, 7.0),
        (0.001, 3.0, 1.0, 0.99, 5.5),
        // A quiet change is judged by its own scatter: one A/A sd is three of its own.
        (0.001, 1.0, 0.3, 0.9, 8.5),
        (0.001, 0.5, 0.3, 0.35, 9.5),
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
    let known = Known::of_noise(NoiseScale { dof: 400.0, sum_squares: 400.0 });
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
    let known = Known::of_noise(NoiseScale { dof: 15.0, sum_squares: 15.0 });
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

#[test]
fn a_duel_that_begins_later_leaves_out_the_runs_it_may_have_been_chosen_by() {
    let pairs: Vec<Scores> =
        (0..8).map(|i| Scores { champion: f64::from(i), challenger: f64::from(i) + 0.5 }).collect();
    let known = Known::of_start(&pairs);
    assert_eq!(known.clone().starting_at(0), known);
    let later = known.clone().starting_at(3);
    assert_eq!(later.fresh, known.fresh[3..]);
    assert!(later.spare.is_empty() && later.scale == known.scale);
    assert!(later.worth(2) < known.worth(2), "what is left out is worth something");
}

#[test]
fn a_later_champion_is_known_by_its_runs_and_their_scatter() {
    let start = NoiseScale { dof: 15.0, sum_squares: 30.0 };
    let fresh = [3.0, 5.0, 4.0, 4.0];
    let known = Known::of_champion(&start, &fresh);
    assert_eq!((known.fresh.as_slice(), known.spare.len()), (&fresh[..], 0));
    // Three degrees of freedom more, and twice the scatter of 2: a run has half the variance of a difference.
    assert_eq!(known.scale, NoiseScale { dof: 18.0, sum_squares: 34.0 });
}

#[test]
fn nothing_is_kept_before_the_least_number_of_pairs() {
    let known = Known::of_noise(NoiseScale { dof: 15.0, sum_squares: 15.0 });
    let pairs = pairs_of(&[40.0; 3]);
    let ruling = |num_pairs: usize| rule(&settings(), &known, &pairs[..num_pairs], 0.05, 1).0;
    assert_ne!(ruling(2), Ruling::Keep);
    assert_eq!(ruling(3), Ruling::Keep);
}

#[test]
fn the_guard_adds_a_whole_variance_of_the_campaign_to_the_challengers_scatter() {
    let scale = NoiseScale { dof: 15.0, sum_squares: 15.0 };
    let ten_times = NoiseScale { sum_squares: 150.0, ..scale };
    let close_together = Stats::of(4.0, 5.0, 2.0, 0.01);
    let guard = by_own_runs(&scale, &close_together);
    // A tenth of a variance is the floor of the pairs.
    assert!((guard / by_scatter(&ten_times, &close_together) - 1.0).abs() < 1e-9, "{guard}");
    assert!(guard < 0.5 * by_scatter(&scale, &close_together), "{guard}");
}
