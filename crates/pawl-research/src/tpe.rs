//! The tree-structured Parzen estimator on one dimension: where to try a number next.
//!
//! Bergstra, Bardenet, Bengio and Kegl, "Algorithms for hyper-parameter optimization" (2011): split what was
//! tried into good and bad, model the density of each by Gaussians around its points and a flat prior, and
//! try the point, drawn from the good density, at which good over bad is largest. Positions are on [0, 1].

use crate::random::Random;

/// Share of the points that counts as good.
const GOOD: f64 = 0.3;

/// Points drawn from the good density.
const NUM_DRAWS: usize = 24;

/// Suggests a position from `(position, gain)` pairs; uniform when there are none.
pub fn suggest(observed: &[(f64, f64)], random: &mut Random) -> f64 {
    if observed.is_empty() {
        return random.uniform();
    }
    let mut sorted = observed.to_vec();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
    let num_good = ((GOOD * sorted.len() as f64).ceil() as usize).max(1);
    let positions: Vec<f64> = sorted.iter().map(|(position, _)| *position).collect();
    let (good, bad) = positions.split_at(num_good);
    let width = width(&positions);
    let mut best = (f64::NEG_INFINITY, 0.5);
    for _ in 0..NUM_DRAWS {
        let draw = draw(good, width, random);
        let score = density(good, width, draw).ln() - density(bad, width, draw).ln();
        if score > best.0 {
            best = (score, draw);
        }
    }
    best.1
}

/// Suggests one of `num_options` from `(option, gain)` pairs: the one, of those drawn by their share among the good, whose
/// share there is largest beside its share among the bad. Every option counts once more than it was seen.
pub fn suggest_option(num_options: usize, observed: &[(usize, f64)], random: &mut Random) -> usize {
    let mut sorted = observed.to_vec();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
    let num_good = ((GOOD * sorted.len() as f64).ceil() as usize).min(sorted.len());
    let (good, bad) = sorted.split_at(num_good);
    let count = |seen: &[(usize, f64)], option| 1 + seen.iter().filter(|(other, _)| *other == option).count();
    let share =
        |seen: &[(usize, f64)], option| count(seen, option) as f64 / (num_options + seen.len()) as f64;
    let draw = |random: &mut Random| {
        let mut left = random.below(num_options + good.len());
        (0..num_options)
            .find(|option| {
                let seen = count(good, *option);
                let here = left < seen;
                left = left.saturating_sub(seen);
                here
            })
            .expect("the counts add up to what is drawn from")
    };
    let ratio = |option: usize| share(good, option) / share(bad, option);
    let draws: Vec<usize> = (0..NUM_DRAWS).map(|_| draw(random)).collect();
    draws.into_iter().max_by(|a, b| ratio(*a).total_cmp(&ratio(*b))).expect("there are draws")
}

/// Kernel width: Scott's rule on a range of one, so that few points say something far away and many little.
fn width(positions: &[f64]) -> f64 {
    0.3 * (positions.len() as f64).powf(-0.2)
}

/// From a random kernel, or from the flat prior, which weighs as much as one point. Folded into [0, 1].
fn draw(centres: &[f64], width: f64, random: &mut Random) -> f64 {
    match centres.get(random.below(centres.len() + 1)) {
        None => random.uniform(),
        Some(centre) => {
            let x = (centre + width * random.normal()).rem_euclid(2.0);
            if x > 1.0 { 2.0 - x } else { x }
        }
    }
}

fn density(centres: &[f64], width: f64, x: f64) -> f64 {
    let kernel = |centre: f64| {
        // The two nearest folds carry all but a negligible part of the mass.
        [centre, -centre, 2.0 - centre].iter().map(|c| (-0.5 * ((x - c) / width).powi(2)).exp()).sum::<f64>()
            / (width * std::f64::consts::TAU.sqrt())
    };
    (1.0 + centres.iter().map(|&centre| kernel(centre)).sum::<f64>()) / (1.0 + centres.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_go_where_gains_were() {
        let observed = [(0.1, -3.0), (0.3, -1.0), (0.7, 2.0), (0.8, 1.5), (0.95, -2.0)];
        let mut random = Random::new(&[4]);
        let near = (0..200).filter(|_| (suggest(&observed, &mut random) - 0.73).abs() < 0.25).count();
        assert!(near > 150, "{near}");
    }

    #[test]
    fn it_finds_the_top_of_a_parabola_with_fewer_tries_than_chance() {
        let gain = |x: f64| -(x - 0.37).powi(2);
        let best_after = |seed: u64, informed: bool| {
            let mut random = Random::new(&[seed]);
            let mut observed: Vec<(f64, f64)> = Vec::new();
            for _ in 0..15 {
                let x = if informed { suggest(&observed, &mut random) } else { random.uniform() };
                observed.push((x, gain(x)));
            }
            observed.iter().map(|(_, gain)| *gain).fold(f64::NEG_INFINITY, f64::max)
        };
        let total = |informed| (0..200).map(|seed| best_after(seed, informed)).sum::<f64>();
        assert!(total(true) > 0.7 * total(false), "{} {}", total(true), total(false));
    }

    #[test]
    fn options_that_gained_are_suggested_and_all_can_be() {
        let observed = [(0, -1.0), (1, 2.0), (1, 1.5), (2, -2.0), (0, -0.5), (3, -3.0), (2, -1.0)];
        let mut random = Random::new(&[9]);
        let mut times = [0; 5];
        (0..200).for_each(|_| times[suggest_option(5, &observed, &mut random)] += 1);
        assert!(times[1] > 150, "{times:?}");
        let mut unseen = [0; 3];
        (0..200).for_each(|_| unseen[suggest_option(3, &[], &mut random)] += 1);
        assert!(unseen.iter().all(|times| *times > 0), "{unseen:?}");
    }

    #[test]
    fn densities_integrate_to_one() {
        let centres = [0.05, 0.5, 0.97];
        let sum: f64 =
            (0..1000).map(|i| density(&centres, 0.2, (f64::from(i) + 0.5) / 1000.0) / 1000.0).sum();
        assert!((sum - 1.0).abs() < 1e-3, "{sum}");
    }
}
