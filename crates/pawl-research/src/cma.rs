//! The covariance matrix adaptation evolution strategy: where to try several numbers together next.
//!
//! Hansen, "The CMA evolution strategy: a tutorial" (2016): a population is drawn from a Gaussian; its mean moves to the
//! weighted mean of the better half, its covariance towards the steps that led there, its size by whether the steps of
//! several generations point the same way. All constants are the tutorial's. Positions are on [0, 1]; what falls outside
//! is folded back in. Larger is better. On six numbers that depend on each other it is ahead of TPE, which takes each by
//! itself, from 36 tries on (its tests print by how much); a campaign gives its numbers fewer, one judged change at a time, so
//! the optimizer does not use it.

use crate::random::Random;

/// A search in progress.
#[derive(Clone, Debug)]
pub struct Cma {
    mean: Vec<f64>,
    /// Overall step.
    sigma: f64,
    /// Covariance, symmetric.
    covariance: Vec<Vec<f64>>,
    path_sigma: Vec<f64>,
    path_covariance: Vec<f64>,
    generation: u64,
    /// Weights of the better half, in order.
    weights: Vec<f64>,
    population: usize,
}

/// Eigenvalues below this share of the largest are lifted to it: no direction is given up.
const LEAST_VARIANCE: f64 = 1e-12;

impl Cma {
    /// Starts at a point with a step, both in units of the range.
    pub fn new(start: &[f64], sigma: f64) -> Cma {
        let n = start.len();
        let population = 4 + (3.0 * (n as f64).ln()).floor() as usize;
        let half = population / 2;
        let raw: Vec<f64> =
            (1..=half).map(|rank| ((population as f64 + 1.0) / 2.0).ln() - (rank as f64).ln()).collect();
        let total: f64 = raw.iter().sum();
        Cma {
            mean: start.to_vec(),
            sigma,
            covariance: (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect(),
            path_sigma: vec![0.0; n],
            path_covariance: vec![0.0; n],
            generation: 0,
            weights: raw.into_iter().map(|weight| weight / total).collect(),
            population,
        }
    }

    /// Tries of one generation.
    pub fn population(&self) -> usize {
        self.population
    }

    /// The middle of what it would try next.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// A generation of positions to try.
    pub fn ask(&self, random: &mut Random) -> Vec<Vec<f64>> {
        let (values, vectors) = eigen(&self.covariance);
        let draw = |random: &mut Random| {
            let scaled: Vec<f64> = values.iter().map(|value| value.sqrt() * random.normal()).collect();
            let step = |i: usize| vectors.iter().zip(&scaled).map(|(v, z)| v[i] * z).sum::<f64>();
            (0..self.mean.len()).map(|i| folded(self.mean[i] + self.sigma * step(i))).collect()
        };
        (0..self.population).map(|_| draw(random)).collect()
    }

    /// Learns from a generation: positions with their gains, in any order. Fewer than half of one teach nothing.
    pub fn tell(&mut self, tried: &[(Vec<f64>, f64)]) {
        if tried.len() < self.weights.len() {
            return;
        }
        let mut sorted: Vec<&(Vec<f64>, f64)> = tried.iter().collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
        let n = self.mean.len();
        let dims = n as f64;
        let effective = 1.0 / self.weights.iter().map(|weight| weight * weight).sum::<f64>();
        let c_sigma = (effective + 2.0) / (dims + effective + 5.0);
        let damping = 1.0 + 2.0 * (((effective - 1.0) / (dims + 1.0)).sqrt() - 1.0).max(0.0) + c_sigma;
        let c_path = (4.0 + effective / dims) / (dims + 4.0 + 2.0 * effective / dims);
        let c_one = 2.0 / ((dims + 1.3).powi(2) + effective);
        let c_rank =
            (2.0 * (effective - 2.0 + 1.0 / effective) / ((dims + 2.0).powi(2) + effective)).min(1.0 - c_one);
        let expected = dims.sqrt() * (1.0 - 1.0 / (4.0 * dims) + 1.0 / (21.0 * dims * dims));
        let steps: Vec<Vec<f64>> = sorted[..self.weights.len()]
            .iter()
            .map(|(at, _)| at.iter().zip(&self.mean).map(|(x, m)| (x - m) / self.sigma).collect())
            .collect();
        let step: Vec<f64> =
            (0..n).map(|i| steps.iter().zip(&self.weights).map(|(s, w)| w * s[i]).sum()).collect();
        for (mean, step) in self.mean.iter_mut().zip(&step) {
            *mean = (*mean + self.sigma * step).clamp(0.0, 1.0);
        }
        let (values, vectors) = eigen(&self.covariance);
        let whitened = |i: usize| -> f64 {
            let along = |v: &[f64]| v.iter().zip(&step).map(|(a, b)| a * b).sum::<f64>();
            vectors.iter().zip(&values).map(|(v, value)| v[i] * along(v) / value.sqrt()).sum()
        };
        let gain = (c_sigma * (2.0 - c_sigma) * effective).sqrt();
        for (i, path) in self.path_sigma.iter_mut().enumerate() {
            *path = (1.0 - c_sigma) * *path + gain * whitened(i);
        }
        self.generation += 1;
        let length = self.path_sigma.iter().map(|x| x * x).sum::<f64>().sqrt();
        let settled = (1.0 - (1.0 - c_sigma).powf(2.0 * self.generation as f64)).sqrt();
        let moves = length / settled < (1.4 + 2.0 / (dims + 1.0)) * expected;
        let gain = if moves { (c_path * (2.0 - c_path) * effective).sqrt() } else { 0.0 };
        for (path, step) in self.path_covariance.iter_mut().zip(&step) {
            *path = (1.0 - c_path) * *path + gain * step;
        }
        let stalled = if moves { 0.0 } else { c_path * (2.0 - c_path) };
        for i in 0..n {
            for j in 0..n {
                let one = self.path_covariance[i] * self.path_covariance[j];
                let rank: f64 = steps.iter().zip(&self.weights).map(|(s, w)| w * s[i] * s[j]).sum();
                let old = self.covariance[i][j];
                self.covariance[i][j] =
                    (1.0 - c_one - c_rank) * old + c_one * (one + stalled * old) + c_rank * rank;
            }
        }
        self.sigma = (self.sigma * ((c_sigma / damping) * (length / expected - 1.0)).exp()).min(1.0);
    }
}

/// Into [0, 1] by mirrors at both ends.
fn folded(x: f64) -> f64 {
    let x = x.rem_euclid(2.0);
    if x > 1.0 { 2.0 - x } else { x }
}

/// Eigenvalues, positive, and unit eigenvectors of a symmetric matrix, by rotations (Jacobi, 1846).
fn eigen(matrix: &[Vec<f64>]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let n = matrix.len();
    let mut a = matrix.to_vec();
    let mut vectors: Vec<Vec<f64>> =
        (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    let off = |a: &[Vec<f64>]| -> f64 { (0..n).map(|i| (0..i).map(|j| a[i][j].powi(2)).sum::<f64>()).sum() };
    let scale: f64 = a.iter().flatten().map(|x| x * x).sum();
    for _ in 0..50 {
        if off(&a) <= 1e-24 * scale {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if a[p][q] == 0.0 {
                    continue;
                }
                let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let t = if theta == 0.0 { 1.0 } else { t };
                let (c, s) = (1.0 / t.hypot(1.0), t / t.hypot(1.0));
                for row in &mut a {
                    (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
                }
                for k in 0..n {
                    (a[p][k], a[q][k]) = (c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]);
                    (vectors[p][k], vectors[q][k]) =
                        (c * vectors[p][k] - s * vectors[q][k], s * vectors[p][k] + c * vectors[q][k]);
                }
            }
        }
    }
    let largest = (0..n).map(|i| a[i][i]).fold(f64::MIN_POSITIVE, f64::max);
    ((0..n).map(|i| a[i][i].max(LEAST_VARIANCE * largest)).collect(), vectors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpe;

    #[test]
    fn eigenvectors_rebuild_the_matrix() {
        let matrix = vec![vec![4.0, 1.0, 0.5], vec![1.0, 3.0, -0.7], vec![0.5, -0.7, 2.0]];
        let (values, vectors) = eigen(&matrix);
        for i in 0..3 {
            for j in 0..3 {
                let again: f64 = (0..3).map(|k| values[k] * vectors[k][i] * vectors[k][j]).sum();
                assert!((again - matrix[i][j]).abs() < 1e-10, "{i} {j}: {again}");
            }
        }
    }

    /// The best value of a function of `n` numbers after so many tries, from the middle of the range.
    fn best(n: usize, tries: usize, seed: u64, gain: &dyn Fn(&[f64]) -> f64) -> f64 {
        let (mut cma, mut random) = (Cma::new(&vec![0.5; n], 0.2), Random::new(&[seed]));
        let mut best = f64::NEG_INFINITY;
        for _ in 0..tries / cma.population() {
            let tried: Vec<(Vec<f64>, f64)> =
                cma.ask(&mut random).into_iter().map(|at| (at.clone(), gain(&at))).collect();
            best = tried.iter().map(|(_, gain)| *gain).fold(best, f64::max);
            cma.tell(&tried);
        }
        best
    }

    fn sphere(x: &[f64]) -> f64 {
        -x.iter().map(|x| (x - 0.3).powi(2)).sum::<f64>()
    }

    /// Turned by 45 degrees in each pair of numbers, a hundred times as steep one way.
    fn ellipsoid(x: &[f64]) -> f64 {
        let pair = |pair: &[f64]| {
            let (u, v) = (pair[0] - 0.3, pair[1] - 0.6);
            (u + v).powi(2) + 100.0 * (u - v).powi(2)
        };
        -x.chunks_exact(2).map(pair).sum::<f64>()
    }

    fn rosenbrock(x: &[f64]) -> f64 {
        let at: Vec<f64> = x.iter().map(|x| 4.0 * x - 2.0).collect();
        -at.windows(2).map(|w| 100.0 * (w[1] - w[0] * w[0]).powi(2) + (1.0 - w[0]).powi(2)).sum::<f64>()
    }

    #[test]
    fn it_comes_to_the_top_of_standard_functions() {
        for seed in 0..5 {
            assert!(best(6, 1500, seed, &sphere) > -1e-8);
            assert!(best(6, 3000, seed, &ellipsoid) > -1e-8);
            assert!(best(4, 6000, seed, &rosenbrock) > -1e-6);
        }
    }

    /// TPE on each number by itself, which is what the optimizer would use instead.
    fn best_by_tpe(n: usize, tries: usize, seed: u64, gain: &dyn Fn(&[f64]) -> f64) -> f64 {
        let mut random = Random::new(&[seed, 1]);
        let mut tried: Vec<(Vec<f64>, f64)> = Vec::new();
        for _ in 0..tries {
            let number = |i: usize, random: &mut Random| {
                let seen: Vec<(f64, f64)> = tried.iter().map(|(at, gain)| (at[i], *gain)).collect();
                tpe::suggest(&seen, random)
            };
            let at: Vec<f64> = (0..n).map(|i| number(i, &mut random)).collect();
            tried.push((at.clone(), gain(&at)));
        }
        tried.iter().map(|(_, gain)| *gain).fold(f64::NEG_INFINITY, f64::max)
    }

    #[test]
    fn it_beats_tpe_where_numbers_depend_on_each_other() {
        let median = |by: &dyn Fn(u64) -> f64| {
            let mut found: Vec<f64> = (0..15).map(by).collect();
            found.sort_by(f64::total_cmp);
            found[7]
        };
        for tries in [36, 72, 144, 288] {
            let cma = median(&|seed| best(6, tries, seed, &ellipsoid));
            let tpe = median(&|seed| best_by_tpe(6, tries, seed, &ellipsoid));
            println!("six numbers, {tries} tries: CMA-ES {cma:.4}, TPE {tpe:.4}");
            assert!(cma > 0.5 * tpe, "{tries} tries: {cma} {tpe}");
        }
    }
}
