//! Compute-equivalent gain against laws whose answer is known.

use pawl_record::{LawPoint, Worth};
use pawl_research::random::Random;
use pawl_research::worth::{Gains, worth};

/// A champion that follows `a + b C^-c`, and a challenger that scores at C as it would at `factor` times C.
struct Truth {
    a: f64,
    b: f64,
    c: f64,
    factor: f64,
    /// Standard deviations of a score, relative, and of a difference, bits per byte.
    noise: (f64, f64),
}

impl Truth {
    fn score(&self, flops: f64) -> f64 {
        self.a + self.b * (flops / 1e12).powf(-self.c)
    }

    /// What a campaign would see with so many runs and pairs on two rungs.
    fn worth(&self, num: usize, seed: u64) -> Option<Worth> {
        let mut random = Random::new(&[seed, 3]);
        let budgets = [5e11, 2e12];
        let points = budgets
            .iter()
            .map(|&flops| LawPoint {
                depth: 3,
                flops,
                runs: (0..num).map(|run| format!("{flops:e} {run}")).collect(),
                bpb: (0..num).map(|_| self.score(flops) * (1.0 + self.noise.0 * random.normal())).collect(),
            })
            .collect();
        let gains: Vec<Gains> = (0..2)
            .map(|rung| {
                let flops = budgets[rung as usize];
                let gain = self.score(flops) - self.score(flops * self.factor);
                let differences = (0..num).map(|_| gain + self.noise.1 * random.normal()).collect();
                Gains { rung, flops, differences }
            })
            .collect();
        worth(points, &gains, &[seed])
    }
}

const TINY: Truth = Truth { a: 0.0, b: 3.2, c: 0.11, factor: 2.5, noise: (0.002, 0.004) };

#[test]
fn without_noise_the_answer_is_the_law() {
    let found = Truth { noise: (1e-12, 1e-12), ..TINY }.worth(3, 1).unwrap();
    assert!((found.exponent - 0.11).abs() < 1e-6);
    for on in &found.rungs {
        assert!((on.compute.value - 2.5).abs() < 1e-6, "{on:?}");
    }
    assert!((found.trend.unwrap().value - 1.0).abs() < 1e-6);
}

#[test]
fn the_interval_covers_the_truth_as_often_as_it_says() {
    for (num, factor) in [(3, 1.3), (5, 2.5), (5, 0.8), (8, 6.0)] {
        let truth = Truth { factor, ..TINY };
        let num_worlds = 300;
        let (mut covered, mut trends) = (0, 0);
        for seed in 0..num_worlds {
            let found = truth.worth(num, seed).unwrap();
            let covers = |low: f64, high: Option<f64>, it: f64| {
                u64::from(low <= it && high.is_none_or(|high| it <= high))
            };
            covered += covers(found.rungs[0].compute.low, found.rungs[0].compute.high, factor);
            let trend = found.trend.unwrap();
            trends += covers(trend.low, trend.high, 1.0);
        }
        let share = covered as f64 / num_worlds as f64;
        let trends = trends as f64 / num_worlds as f64;
        println!("{num} pairs, {factor} times the compute: covered in {share:.3}, trend in {trends:.3}");
        // Three standard errors of 300 worlds about 0.95.
        assert!((0.912..=0.988).contains(&share), "{num} {factor}: {share}");
        assert!((0.912..=0.995).contains(&trends), "{num} {factor}: {trends}");
    }
}

#[test]
fn the_interval_narrows_with_runs_and_is_the_same_again() {
    let width = |num: usize| {
        let widths = (0..40).map(|seed| {
            let on = TINY.worth(num, seed).unwrap().rungs[0].compute;
            (on.high.unwrap() / on.low).ln()
        });
        widths.sum::<f64>() / 40.0
    };
    let (few, many) = (width(4), width(16));
    assert!(many < 0.6 * few, "{few} {many}");
    assert_eq!(TINY.worth(4, 7), TINY.worth(4, 7));
}

#[test]
fn a_floor_makes_it_too_large_inside_the_ladder_and_too_small_beyond() {
    let sure = |factor: f64| {
        let truth = Truth { a: 1.5, b: 1.7, c: 0.2, factor, noise: (1e-12, 1e-12) };
        truth.worth(3, 1).unwrap().rungs[0].compute.value / factor
    };
    let (inside, beyond) = (sure(2.0), sure(10.0));
    println!(
        "a floor of 1.5 under 3.4 bits: x2 is told as x{:.2}, x10 as x{:.2}",
        2.0 * inside,
        10.0 * beyond
    );
    assert!(inside > 1.0 && inside < 1.1, "{inside}");
    assert!(beyond < 1.0 && beyond > 0.6, "{beyond}");
}

#[test]
fn what_cannot_be_known_is_not_said() {
    // A champion that gains nothing from compute: no amount of it matches a challenger.
    assert_eq!(Truth { c: -0.01, ..TINY }.worth(4, 1), None);
    // One budget is no law, one run a budget has no scatter.
    let points =
        vec![LawPoint { depth: 3, flops: 1e12, runs: vec!["a".into(); 3], bpb: vec![3.0, 3.01, 2.99] }];
    let gains = [Gains { rung: 0, flops: 1e12, differences: vec![0.1, 0.11] }];
    assert_eq!(worth(points, &gains, &[1]), None);
    assert_eq!(TINY.worth(1, 1), None);
    // So noisy that the law may be flat: there is no upper end, and the lower one stands.
    let vague = Truth { noise: (0.2, 0.004), ..TINY };
    let found: Vec<Worth> = (0..20).filter_map(|seed| vague.worth(4, seed)).collect();
    assert!(found.iter().any(|it| it.rungs[0].compute.high.is_none()), "{found:?}");
}
