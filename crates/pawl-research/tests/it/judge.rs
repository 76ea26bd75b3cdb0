//! Error rates and power of the judge, by simulation with fixed seeds.

use pawl_record::JudgeSettings;
use pawl_research::judge::{NoiseScale, Ruling, e_value, rule};
use pawl_research::levels::level;
use pawl_research::random::Random;

/// One duel's differences in units of the A/A noise.
#[derive(Clone, Copy)]
struct World {
    effect: f64,
    /// Noise of a pair over the noise of an A/A pair.
    noise_ratio: f64,
    /// Degrees of freedom of the noise, scaled to variance one; `None` is normal.
    tails: Option<u32>,
}

const NULL: World = World { effect: 0.0, noise_ratio: 1.0, tails: None };

fn draw(random: &mut Random, tails: Option<u32>) -> f64 {
    let z = random.normal();
    match tails {
        None => z,
        Some(dof) => {
            let chi: f64 = (0..dof).map(|_| random.normal().powi(2)).sum();
            z / (chi / f64::from(dof)).sqrt() * (f64::from(dof - 2) / f64::from(dof)).sqrt()
        }
    }
}

fn noise(random: &mut Random, settings: &JudgeSettings, tails: Option<u32>) -> NoiseScale {
    let pairs: Vec<f64> = (0..settings.noise_pairs).map(|_| draw(random, tails)).collect();
    NoiseScale::new(&pairs)
}

/// Pairs used and whether it was kept.
fn duel(
    random: &mut Random,
    settings: &JudgeSettings,
    noise: &NoiseScale,
    world: World,
    level: f64,
    champion: &[f64],
) -> (usize, bool) {
    let mut differences = Vec::new();
    loop {
        // Half the variance of a pair is the champion's, shared with every other challenger.
        let challenger = draw(random, world.tails);
        let z = (champion[differences.len()] + challenger) * 0.5f64.sqrt();
        differences.push(world.effect + world.noise_ratio * z);
        match rule(settings, noise, &differences, level, 1).0 {
            Ruling::Keep => return (differences.len(), true),
            Ruling::Continue => {}
            Ruling::Reject(_) | Ruling::Undecided(_) => return (differences.len(), false),
        }
    }
}

fn champion(random: &mut Random, settings: &JudgeSettings, tails: Option<u32>) -> Vec<f64> {
    (0..settings.max_pairs).map(|_| draw(random, tails)).collect()
}

/// Share of keeps and mean pairs over many independent duels at one level.
fn rates(settings: &JudgeSettings, world: World, level: f64, num_duels: u64) -> (f64, f64) {
    let (mut keeps, mut pairs) = (0, 0);
    for duel_idx in 0..num_duels {
        let mut random = Random::new(&[11, duel_idx]);
        let noise = noise(&mut random, settings, world.tails);
        let champion = champion(&mut random, settings, world.tails);
        let (used, kept) = duel(&mut random, settings, &noise, world, level, &champion);
        pairs += used;
        keeps += u64::from(kept);
    }
    (keeps as f64 / num_duels as f64, pairs as f64 / num_duels as f64)
}

fn settings() -> JudgeSettings {
    pawl_research::options::judge_settings()
}

/// No screening, no futility: every look is taken.
fn patient() -> JudgeSettings {
    JudgeSettings { target_power: 1.0 - 1e-12, max_pairs: 30, ..settings() }
}

/// Share of paths on which the bare e-process crosses `1 / level` at any look from `first` on.
fn crossing_rate(world: World, level: f64, first: usize, num_paths: u64) -> f64 {
    let settings = patient();
    let mut crossings = 0;
    for path_idx in 0..num_paths {
        let mut random = Random::new(&[5, path_idx]);
        let noise = noise(&mut random, &settings, None);
        let mut differences = Vec::new();
        for look in 1..=settings.max_pairs as usize {
            differences.push(world.effect + world.noise_ratio * draw(&mut random, None));
            if look >= first && e_value(&noise, &differences, 0.0, settings.mixture_sds) * level >= 1.0 {
                crossings += 1;
                break;
            }
        }
    }
    crossings as f64 / num_paths as f64
}

#[test]
fn the_closed_form_agrees_with_numerical_integration() {
    // Likelihood of the data over sigma and delta on a grid; nothing in common with the product's formula.
    let (aa, differences) = ([0.3, -1.1, 0.7, 0.2], [1.4, 0.2, 2.3]);
    for (min_effect, tau) in [(0.0, 2.0), (0.5, 1.0), (2.0, 3.0)] {
        let joint = |delta: f64| -> f64 {
            let num_steps = 800;
            (0..num_steps)
                .map(|i| {
                    let log_sigma = -8.0 + 20.0 * (f64::from(i) + 0.5) / f64::from(num_steps);
                    let sigma = log_sigma.exp();
                    let null: f64 = aa.iter().map(|a| -0.5 * (a / sigma).powi(2) - log_sigma).sum();
                    let test: f64 = differences
                        .iter()
                        .map(|d| -0.5 * ((d - min_effect) / sigma - delta).powi(2) - log_sigma)
                        .sum();
                    (null + test).exp() * 20.0 / f64::from(num_steps)
                })
                .sum()
        };
        let num_deltas = 5000;
        let mixture: f64 = (0..num_deltas)
            .map(|i| {
                let u = 8.0 * (f64::from(i) + 0.5) / f64::from(num_deltas);
                let density = (2.0 / std::f64::consts::PI).sqrt() * (-0.5 * u * u).exp();
                joint(u * tau) * density * 8.0 / f64::from(num_deltas)
            })
            .sum();
        let expected = mixture / joint(0.0);
        let found = e_value(&NoiseScale::new(&aa), &differences, min_effect, tau);
        assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
    }
}

#[test]
fn optional_stopping_does_not_inflate_the_error() {
    // Ville's bound at 5 %; the standard error of 20,000 paths is 0.15 %.
    for world in [NULL, World { effect: -0.5, ..NULL }, World { noise_ratio: 0.4, ..NULL }] {
        let rate = crossing_rate(world, 0.05, 1, 20_000);
        assert!(rate <= 0.053, "{rate}");
    }
    // The bound is not empty: at the null itself it is nearly reached.
    assert!(crossing_rate(NULL, 0.05, 1, 20_000) > 0.02);
}

#[test]
fn e_values_do_not_depend_on_the_unit() {
    let (aa, differences) = ([0.1, -0.2, 0.15, 0.02], [0.3, 0.25, 0.4]);
    let scaled = |values: &[f64]| values.iter().map(|x| x * 1e-3).collect::<Vec<_>>();
    let one = e_value(&NoiseScale::new(&aa), &differences, 0.05, 2.0);
    let other = e_value(&NoiseScale::new(&scaled(&aa)), &scaled(&differences), 0.05e-3, 2.0);
    assert!((one / other - 1.0).abs() < 1e-9, "{one} {other}");
}

#[test]
fn a_challenger_better_on_every_pair_has_a_higher_e_value() {
    let mut random = Random::new(&[17]);
    for _ in 0..2000 {
        let aa: Vec<f64> = (0..5).map(|_| random.normal()).collect();
        let differences: Vec<f64> = (0..4).map(|_| 2.0 * random.normal()).collect();
        let lift = random.uniform();
        let lifted: Vec<f64> = differences.iter().map(|d| d + lift).collect();
        let noise = NoiseScale::new(&aa);
        assert!(e_value(&noise, &lifted, 0.0, 2.0) > e_value(&noise, &differences, 0.0, 2.0));
    }
}

#[test]
fn a_noisier_or_heavy_tailed_challenger_is_not_flattered() {
    let level = 0.01;
    let no_futility = patient();
    let honest = rates(&no_futility, NULL, level, 10_000).0;
    let noisy = rates(&no_futility, World { noise_ratio: 2.0, ..NULL }, level, 10_000).0;
    let heavy = rates(&no_futility, World { tails: Some(4), ..NULL }, level, 10_000).0;
    println!("false keeps at level {level}, 30 looks: honest {honest}, twice the noise {noisy}, t4 {heavy}");
    assert!(honest <= level, "{honest}");
    assert!(noisy <= 2.0 * level, "{noisy}");
    assert!(heavy <= 1.5 * level, "{heavy}");
    // As a campaign uses it, with screening and futility, the assumption may fail by that much.
    let noisy = rates(&settings(), World { noise_ratio: 2.0, ..NULL }, level, 10_000).0;
    println!("twice the noise with futility: {noisy}");
    assert!(noisy <= 1.2 * level, "{noisy}");
    // The worst that was seen on a real recipe: nulls of four times the A/A noise, at a campaign's level.
    let noisy = rates(&settings(), World { noise_ratio: 4.0, ..NULL }, 0.002, 20_000).0;
    println!("four times the noise at level 0.002: {noisy}");
    assert!(noisy <= 0.010, "{noisy}");
}

#[test]
fn large_effects_are_kept_within_a_few_pairs() {
    for (level, effect, least_power, most_pairs) in [
        (0.01, 2.0, 0.88, 6.0),
        (0.002, 1.5, 0.45, 8.0),
        (0.002, 2.0, 0.84, 8.0),
        (0.002, 3.0, 0.98, 5.5),
        (0.0005, 4.0, 0.98, 5.0),
    ] {
        let (power, pairs) = rates(&settings(), World { effect, ..NULL }, level, 4000);
        println!("level {level} effect {effect} sd: power {power:.3}, {pairs:.1} pairs");
        assert!(power >= least_power, "{power}");
        assert!(pairs <= most_pairs, "{pairs}");
    }
    let (_, pairs) = rates(&settings(), NULL, 0.002, 4000);
    println!("null: {pairs:.2} pairs");
    assert!(pairs < 2.0, "{pairs}");
}

#[test]
fn screening_drops_the_hopeless_after_one_pair_and_spares_the_target() {
    let settings = settings();
    let level = 0.002;
    let dropped_at_once = |effect: f64| {
        let num_duels = 5000;
        let drops = (0..num_duels)
            .filter(|&duel_idx| {
                let mut random = Random::new(&[23, duel_idx]);
                let noise = noise(&mut random, &JudgeSettings { noise_pairs: 200, ..settings }, None);
                let first = [settings.min_effect_bpb + effect + random.normal()];
                matches!(rule(&settings, &noise, &first, level, 1).0, Ruling::Reject(_))
            })
            .count();
        drops as f64 / num_duels as f64
    };
    let spared = 1.0 - dropped_at_once(settings.target_effect_sds);
    assert!((spared - settings.target_power).abs() < 0.02, "{spared}");
    assert!(dropped_at_once(-2.0) > 0.95);
}

/// Share of false keeps among keeps (0 without keeps) and true keeps of one simulated campaign. `is_real`
/// chooses each proposal, and may know the champion's luck on the seeds that all challengers share.
fn campaign(
    seed: u64,
    num_proposals: u64,
    effect: f64,
    tails: Option<u32>,
    is_real: impl Fn(&mut Random, &[f64]) -> bool,
) -> (f64, u64) {
    let settings = JudgeSettings { min_effect_bpb: 0.0, ..settings() };
    let mut random = Random::new(&[29, seed]);
    let mut shared = champion(&mut random, &settings, tails);
    // As in a campaign, the first run of each A/A pair is the first champion's on that pair's seed.
    let aa = |run: &f64| (run - draw(&mut random, tails)) * 0.5f64.sqrt();
    let pairs: Vec<f64> = shared[..settings.noise_pairs as usize].iter().map(aa).collect();
    let noise = NoiseScale::new(&pairs);
    let (mut kept, mut false_keeps) = (0, 0);
    for test_index in 1..=num_proposals {
        let is_real = is_real(&mut random, &shared);
        let world = World { effect: if is_real { effect } else { 0.0 }, tails, ..NULL };
        let level = level(settings.alpha, test_index, kept);
        if duel(&mut random, &settings, &noise, world, level, &shared).1 {
            kept += 1;
            false_keeps += u64::from(!is_real);
            shared = champion(&mut random, &settings, tails);
        }
    }
    (false_keeps as f64 / kept.max(1) as f64, kept - false_keeps)
}

#[test]
fn a_campaign_of_nulls_keeps_less_often_than_alpha() {
    for tails in [None, Some(4)] {
        let num_campaigns = 1000;
        let share: f64 = (0..num_campaigns).map(|seed| campaign(seed, 100, 0.0, tails, |_, _| false).0).sum();
        println!("100 nulls, tails {tails:?}: {share} of {num_campaigns} campaigns keep one");
        assert!(share / f64::from(num_campaigns as u32) <= 0.05, "{share}");
    }
}

#[test]
fn a_mixed_campaign_keeps_the_real_and_holds_the_false_discovery_rate() {
    let num_campaigns = 400;
    let outcomes: Vec<(f64, u64)> = (0..num_campaigns)
        .map(|seed| campaign(seed, 60, 3.0, None, |random, _| random.uniform() < 0.2))
        .collect();
    let false_share = outcomes.iter().map(|o| o.0).sum::<f64>() / num_campaigns as f64;
    let found = outcomes.iter().map(|o| o.1).sum::<u64>() as f64 / (num_campaigns as f64 * 60.0 * 0.2);
    println!("false discovery rate {false_share:.4}, recall of 3-sd effects {found:.3}");
    assert!(false_share <= 0.05, "{false_share}");
    assert!(found > 0.9, "{found}");
}

#[test]
fn a_researcher_that_exploits_the_champions_bad_luck_gains_nothing() {
    // It proposes nulls exactly when the shared runs flatter every challenger.
    let num_campaigns = 600;
    let false_share = (0..num_campaigns)
        .map(|seed| campaign(seed, 60, 3.0, None, |_, shared| shared[..3].iter().sum::<f64>() < 3.0).0)
        .sum::<f64>()
        / num_campaigns as f64;
    println!("false discovery rate under selection on the champion's luck: {false_share:.4}");
    assert!(false_share <= 0.05, "{false_share}");
}
