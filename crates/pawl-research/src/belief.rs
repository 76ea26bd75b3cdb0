//! What a campaign has learnt about single changes: an additive Gaussian model of gains.
//!
//! The gain of a set of changes is the sum over its settings of `v(to) - v(from)`, each setting's value
//! function `v` an independent Gaussian process over its values: for a choice, independent values; for a
//! knob, smooth in its position about a straight line of unknown slope, so that what hurts one way is expected to
//! help the other. Pairs observe gains with the noise of a pair. The posterior is exact
//! (Rasmussen and Williams, *Gaussian Processes for Machine Learning*, 2006, eq. 2.22-2.24). Interactions
//! are not modelled; they enter as noise that grows with the number of changes and with the number of
//! champions since.
//!
//! Belief are in pair standard deviations throughout. This is a researcher's belief, never evidence:
//! the judge does not read it.

use crate::random::Random;

/// Where a setting stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Point {
    /// One option of a choice, by its text.
    Option(String),
    /// A knob at a position on [0, 1].
    Position {
        /// The position.
        x: f64,
        /// How far apart two positions are that tell little of each other.
        length: f64,
    },
}

/// One setting moved.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// The setting.
    pub setting: String,
    /// Where it stood.
    pub from: Point,
    /// Where it goes.
    pub to: Point,
}

/// A gain that was seen.
#[derive(Clone, Debug)]
pub struct Observation {
    /// What was moved.
    pub moves: Vec<Move>,
    /// Mean gain, pair sds.
    pub gain: f64,
    /// Variance of that mean about the sum of effects, pair sds squared.
    pub variance: f64,
}

/// Prior spread of an option's value, pair sds: an untried change moves the score by about 1.4 of these.
const CHOICE_SPREAD: f64 = 1.8;

/// Prior spread of a knob's value function, pair sds.
const KNOB_SPREAD: f64 = 3.5;

/// Prior spread of the slope of a knob's value function, pair sds over its whole range.
const KNOB_TREND: f64 = 7.0;

/// Prior mean gain of any move, pair sds. Sceptical: most changes hurt.
const PRIOR_GAIN: f64 = -0.7;

/// The posterior after some observations.
pub struct Belief {
    observations: Vec<Observation>,
    /// Cholesky factor of the observations' covariance.
    factor: Vec<Vec<f64>>,
    /// Covariance inverse times (gain - prior mean).
    weights: Vec<f64>,
}

fn kernel(a: &Point, b: &Point) -> f64 {
    match (a, b) {
        (Point::Option(a), Point::Option(b)) => {
            if a == b {
                CHOICE_SPREAD.powi(2)
            } else {
                0.0
            }
        }
        (Point::Position { x: a, length }, Point::Position { x: b, .. }) => {
            let near = (-0.5 * ((a - b) / length).powi(2)).exp();
            KNOB_SPREAD.powi(2) * near + KNOB_TREND.powi(2) * (a - 0.5) * (b - 0.5)
        }
        // A recipe edit may turn a choice into a knob of the same name: they say nothing of each other.
        (Point::Option(_), Point::Position { .. }) | (Point::Position { .. }, Point::Option(_)) => 0.0,
    }
}

/// Covariance of two gains: moves of different settings are independent.
fn covariance(a: &[Move], b: &[Move]) -> f64 {
    let mut sum = 0.0;
    for left in a {
        for right in b.iter().filter(|right| right.setting == left.setting) {
            sum += kernel(&left.to, &right.to) + kernel(&left.from, &right.from)
                - kernel(&left.to, &right.from)
                - kernel(&left.from, &right.to);
        }
    }
    sum
}

fn prior_gain(moves: &[Move]) -> f64 {
    PRIOR_GAIN * moves.len() as f64
}

impl Belief {
    /// Conditions the prior on what was seen.
    pub fn new(observations: Vec<Observation>) -> Belief {
        let n = observations.len();
        let mut matrix = vec![vec![0.0; n]; n];
        for i in 0..n {
            for j in 0..=i {
                matrix[i][j] = covariance(&observations[i].moves, &observations[j].moves);
            }
            matrix[i][i] += observations[i].variance;
        }
        let factor = cholesky(matrix);
        let residual: Vec<f64> = observations.iter().map(|o| o.gain - prior_gain(&o.moves)).collect();
        let weights = solve_upper(&factor, &solve_lower(&factor, &residual));
        Belief { observations, factor, weights }
    }

    fn cross(&self, moves: &[Move]) -> Vec<f64> {
        self.observations.iter().map(|o| covariance(&o.moves, moves)).collect()
    }

    /// Posterior mean and standard deviation of a gain, pair sds.
    pub fn gain(&self, moves: &[Move]) -> (f64, f64) {
        let cross = self.cross(moves);
        let mean = prior_gain(moves) + dot(&cross, &self.weights);
        let explained = solve_lower(&self.factor, &cross);
        let variance = covariance(moves, moves) - dot(&explained, &explained);
        (mean, variance.max(0.0).sqrt())
    }

    /// One joint draw of the gains of several candidates: Thompson sampling.
    pub fn draw(&self, candidates: &[Vec<Move>], random: &mut Random) -> Vec<f64> {
        let n = candidates.len();
        let explained: Vec<Vec<f64>> =
            candidates.iter().map(|moves| solve_lower(&self.factor, &self.cross(moves))).collect();
        let mut matrix = vec![vec![0.0; n]; n];
        for i in 0..n {
            for j in 0..=i {
                matrix[i][j] = covariance(&candidates[i], &candidates[j]) - dot(&explained[i], &explained[j]);
            }
        }
        let factor = cholesky(matrix);
        let normals: Vec<f64> = (0..n).map(|_| random.normal()).collect();
        (0..n).map(|i| self.gain(&candidates[i]).0 + dot(&factor[i][..=i], &normals[..=i])).collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Smallest pivot, pair sds squared: candidates known exactly, or equal to each other, stay invertible.
const LEAST_PIVOT: f64 = 1e-9;

/// Lower factor of a symmetric matrix of which the lower half is given.
fn cholesky(mut a: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    for i in 0..a.len() {
        for j in 0..=i {
            let rest = a[i][j] - dot(&a[i][..j], &a[j][..j]);
            a[i][j] = if i == j { rest.max(LEAST_PIVOT).sqrt() } else { rest / a[j][j] };
        }
    }
    a
}

fn solve_lower(factor: &[Vec<f64>], b: &[f64]) -> Vec<f64> {
    let mut x = Vec::with_capacity(b.len());
    for i in 0..b.len() {
        x.push((b[i] - dot(&factor[i][..i], &x)) / factor[i][i]);
    }
    x
}

fn solve_upper(factor: &[Vec<f64>], b: &[f64]) -> Vec<f64> {
    let mut x = b.to_vec();
    for i in (0..b.len()).rev() {
        let above: f64 = (i + 1..b.len()).map(|j| factor[j][i] * x[j]).sum();
        x[i] = (x[i] - above) / factor[i][i];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch(name: &str, from: &str, to: &str) -> Move {
        Move { setting: name.into(), from: Point::Option(from.into()), to: Point::Option(to.into()) }
    }

    #[test]
    fn one_observation_shrinks_towards_the_prior_by_the_known_formula() {
        let seen = Observation { moves: vec![switch("act", "gelu", "relu2")], gain: 3.0, variance: 1.0 };
        let belief = Belief::new(vec![seen.clone()]);
        let prior = 2.0 * CHOICE_SPREAD.powi(2);
        let (mean, sd) = belief.gain(&seen.moves);
        assert!((mean - (PRIOR_GAIN + prior / (prior + 1.0) * (3.0 - PRIOR_GAIN))).abs() < 1e-9);
        assert!((sd - (prior / (prior + 1.0)).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn undoing_a_change_is_expected_to_cost_what_it_gained() {
        let seen = Observation { moves: vec![switch("act", "gelu", "relu2")], gain: 5.0, variance: 0.01 };
        let belief = Belief::new(vec![seen]);
        assert!(belief.gain(&[switch("act", "relu2", "gelu")]).0 < -4.0);
        // Another setting is untouched.
        assert_eq!(belief.gain(&[switch("norm", "layer", "rms")]).0, PRIOR_GAIN);
    }

    #[test]
    fn what_hurts_one_way_is_expected_to_help_the_other() {
        let step = |to| {
            let point = |x| Point::Position { x, length: 0.2 };
            vec![Move { setting: "lr".into(), from: point(0.3), to: point(to) }]
        };
        let down = Observation { moves: step(0.1), gain: -6.0, variance: 1.0 };
        let belief = Belief::new(vec![down]);
        // Beyond what one observation tells, the prior's doubt comes back, but not all of it.
        let (up, further) = (belief.gain(&step(0.5)).0, belief.gain(&step(0.7)).0);
        assert!(up > 0.0 && further > PRIOR_GAIN + 0.2, "{up} {further}");
    }

    #[test]
    fn effects_add_up_over_settings() {
        let (a, b) = (switch("a", "0", "1"), switch("b", "0", "1"));
        let both = Observation { moves: vec![a.clone(), b.clone()], gain: 6.0, variance: 0.01 };
        let one = Observation { moves: vec![a], gain: 4.0, variance: 0.01 };
        let belief = Belief::new(vec![both, one]);
        assert!((belief.gain(&[b]).0 - 2.0).abs() < 0.1);
    }

    #[test]
    fn draws_have_the_posterior_mean_and_spread() {
        let point = |x| Point::Position { x, length: 0.3 };
        let step = |to| vec![Move { setting: "lr".into(), from: point(0.5), to: point(to) }];
        let belief = Belief::new(vec![Observation { moves: step(0.7), gain: 2.0, variance: 0.5 }]);
        let candidates = [step(0.75), step(0.2)];
        let mut random = Random::new(&[1]);
        let draws: Vec<Vec<f64>> = (0..4000).map(|_| belief.draw(&candidates, &mut random)).collect();
        for (i, candidate) in candidates.iter().enumerate() {
            let (mean, sd) = belief.gain(candidate);
            let found = draws.iter().map(|d| d[i]).sum::<f64>() / 4000.0;
            let spread = (draws.iter().map(|d| (d[i] - found).powi(2)).sum::<f64>() / 4000.0).sqrt();
            assert!((found - mean).abs() < 0.08 * sd.max(1.0), "{found} {mean}");
            assert!((spread / sd - 1.0).abs() < 0.05, "{spread} {sd}");
        }
    }
}
