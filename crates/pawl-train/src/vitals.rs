//! Looks at a run from inside a few times: how large parameters, gradients and updates are by group, and where the time
//! of one step goes. What is looked at is read after an update and copied before it; nothing is changed.

use pawl_model::Model;
use pawl_record::{GroupVitals, LayerScale, Vitals};
use std::collections::BTreeMap;

/// Updates of a run that are looked at.
const LOOKS: u64 = 8;

/// What is looked at, and the parameters before the update that is next.
pub(crate) struct Look {
    /// Names of the parameters of each group, in name order.
    groups: BTreeMap<String, Vec<String>>,
    /// Updates done after those that are looked at.
    due: Vec<u64>,
    /// Parameters before the update, in the order of the groups.
    before: Option<Vec<Vec<f32>>>,
    /// Whether kernels are timed in the update that is next.
    timing: bool,
}

impl Look {
    pub(crate) fn new(model: &Model, num_steps: u64) -> Look {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for param in model.recipe().params() {
            groups.entry(group(&param.name)).or_default().push(param.name.clone());
        }
        // The first and the last, and what lies evenly between.
        let mut due: Vec<u64> =
            (0..LOOKS).map(|idx| 1 + (num_steps - 1) * idx / (LOOKS - 1).max(1)).collect();
        due.dedup();
        Look { groups, due, before: None, timing: false }
    }

    /// Before update `step`, from 0.
    pub(crate) fn before(&mut self, model: &mut Model, step: u64) {
        if !self.due.contains(&(step + 1)) {
            return;
        }
        let names = self.groups.values().flatten();
        let params = names.map(|name| model.param(name).expect("the recipe has declared it").to_vec());
        self.before = Some(params.collect());
        // Not the first step, in which pages are touched for the first time.
        self.timing = self.due.get(1).or(self.due.first()) == Some(&(step + 1));
        if self.timing {
            model.start_timing();
        }
    }

    /// After it, with `steps` updates done.
    pub(crate) fn after(&mut self, model: &mut Model, steps: u64, vitals: &mut Vitals) {
        let Some(before) = self.before.take() else { return };
        if self.timing {
            let seconds = model.end_timing();
            let total: f64 = seconds.values().sum();
            let share = |seconds: f64| (1e4 * seconds / total.max(f64::MIN_POSITIVE)).round() / 1e4;
            vitals.time = seconds.into_iter().map(|(part, it)| (part.to_string(), share(it))).collect();
            self.timing = false;
        }
        if vitals.groups.is_empty() {
            let empty = |name: &String| GroupVitals { name: name.clone(), ..GroupVitals::default() };
            vitals.groups = self.groups.keys().map(empty).collect();
        }
        vitals.steps.push(steps);
        let mut before = before.iter();
        for (names, seen) in self.groups.values().zip(&mut vitals.groups) {
            let (mut weight, mut gradient, mut update) = (Sum::default(), Sum::default(), Sum::default());
            for (name, before) in names.iter().zip(before.by_ref()) {
                let now = model.param(name).expect("the recipe has declared it");
                weight.add(now.iter().map(|x| f64::from(*x)));
                update.add(now.iter().zip(before).map(|(now, before)| f64::from(*now) - f64::from(*before)));
                let slope = model.grad(name).expect("a model in training has gradients");
                gradient.add(slope.iter().map(|x| f64::from(*x)));
            }
            seen.num_params = weight.number;
            seen.weight_rms.push(weight.rms());
            seen.gradient_rms.push(gradient.rms());
            seen.update_rms.push(update.rms());
        }
    }
}

/// Squares of some numbers.
#[derive(Default)]
struct Sum {
    squares: f64,
    number: u64,
}

impl Sum {
    fn add(&mut self, numbers: impl Iterator<Item = f64>) {
        for x in numbers {
            self.squares += x * x;
            self.number += 1;
        }
    }

    fn rms(&self) -> Option<f64> {
        digits((self.squares / self.number.max(1) as f64).sqrt())
    }
}

/// Four significant digits: what is looked at by eye is no longer than that.
fn digits(x: f64) -> Option<f64> {
    x.is_finite().then(|| format!("{x:.3e}").parse().expect("a formatted number is a number"))
}

/// The scales of layers for the record.
pub(crate) fn layers(scales: Vec<(String, f64)>) -> Vec<LayerScale> {
    scales.into_iter().map(|(name, rms)| LayerScale { name, rms: digits(rms) }).collect()
}

/// The name of a parameter with its numbers taken out: what the layers have in common.
fn group(name: &str) -> String {
    let part = |part: &str| if part.parse::<u64>().is_ok() { "*".to_string() } else { part.to_string() };
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_share_a_group_and_numbers_keep_four_digits() {
        assert_eq!(group("blocks.11.attn.q.weight"), "blocks.*.attn.q.weight");
        assert_eq!(group("embed"), "embed");
        let mut sum = Sum::default();
        sum.add([3.0, 4.0, 1e-3].into_iter());
        assert_eq!(sum.rms(), Some(2.887));
        assert_eq!(digits(f64::NAN), None);
    }
}
