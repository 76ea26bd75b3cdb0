//! First values of parameters, drawn from a counter-based generator keyed by (seed, parameter name): a
//! recipe that adds a tensor leaves every other tensor as it was.

use pawl_engine::philox::philox;
use pawl_recipe::Init;

/// Fills `values` (row-major) as `init` says.
pub fn draw(init: &Init, seed: u64, name: &str, values: &mut [f32]) {
    let draws = Draws::new(seed, name);
    match init {
        Init::Zeros => values.fill(0.0),
        Init::Constant(value) => values.fill(*value),
        Init::Values(given) => values.copy_from_slice(given),
        Init::Uniform { low, high } => {
            for (i, value) in values.iter_mut().enumerate() {
                let (u, _) = draws.pair(i as u64);
                *value = (f64::from(*low) + (f64::from(*high) - f64::from(*low)) * u) as f32;
            }
        }
        Init::Normal { std } => {
            for (i, value) in values.iter_mut().enumerate() {
                *value = (f64::from(*std) * draws.normal(i as u64)) as f32;
            }
        }
    }
}

struct Draws {
    key: [u32; 2],
}

impl Draws {
    fn new(seed: u64, name: &str) -> Draws {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
        let digest = hasher.finalize();
        let word = |k: usize| u32::from_le_bytes(digest.as_bytes()[k..k + 4].try_into().expect("four bytes"));
        Draws { key: [word(0), word(4)] }
    }

    /// Two uniform draws in (0, 1), 53 bits each.
    fn pair(&self, idx: u64) -> (f64, f64) {
        let words = philox(self.key, [idx as u32, (idx >> 32) as u32, 0, 0]);
        let unit = |high: u32, low: u32| {
            let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
            (bits as f64 + 0.5) / (1u64 << 53) as f64
        };
        (unit(words[0], words[1]), unit(words[2], words[3]))
    }

    /// Box and Muller, 1958: the first of the two normal draws.
    fn normal(&self, idx: u64) -> f64 {
        let (u, v) = self.pair(idx);
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        let variance = values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
        (mean, variance.sqrt())
    }

    #[test]
    fn normal_draws_have_the_mean_and_deviation_asked_for() {
        let mut values = vec![0.0; 100_000];
        draw(&Init::Normal { std: 0.5 }, 7, "wte", &mut values);
        let (mean, std) = moments(&values);
        // Three standard errors of 1e5 draws.
        assert!(mean.abs() < 0.005 && (std - 0.5).abs() < 0.0035, "{mean} {std}");
        let beyond = values.iter().filter(|x| x.abs() > 1.0).count() as f64 / 1e5;
        assert!((beyond - 0.0455).abs() < 0.002, "{beyond} beyond two deviations");
    }

    #[test]
    fn uniform_draws_fill_their_range() {
        let mut values = vec![0.0; 100_000];
        draw(&Init::Uniform { low: -0.25, high: 0.75 }, 7, "q", &mut values);
        let (mean, std) = moments(&values);
        assert!((mean - 0.25).abs() < 0.003 && (std - 0.288_675).abs() < 0.002, "{mean} {std}");
        assert!(values.iter().all(|x| (-0.25..0.75).contains(x)));
    }

    #[test]
    fn draws_depend_on_seed_and_name_alone() {
        let tensor = |seed, name, len| {
            let mut values = vec![0.0; len];
            draw(&Init::Normal { std: 1.0 }, seed, name, &mut values);
            values
        };
        assert_eq!(tensor(1, "a", 8), tensor(1, "a", 16)[..8]);
        assert_ne!(tensor(1, "a", 8), tensor(2, "a", 8));
        assert_ne!(tensor(1, "a", 8), tensor(1, "b", 8));
    }
}
