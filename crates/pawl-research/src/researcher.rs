//! Who proposes. The campaign does not know which one it talks to: it hands over what may be known and gets
//! a draft back.
//!
//! A researcher is a function of its context: no state of its own, so that a resumed campaign needs
//! nothing but its files. It never sees the sealed split; nothing in [`Context`] comes from it.

use crate::books::Books;
use crate::judge::NoiseScale;
use crate::optimizer;
use crate::random::Random;
use crate::world::{Checked, SettingKind, SettingSpec};
use pawl_record::{Category, Change, JudgeSettings, Prediction, Promotion, Proposal, SettingValue, Settings};

/// The researchers there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Researcher {
    /// The built-in optimizer: a bandit over changes, TPE over numbers.
    Optimizer,
    /// Any single change with equal probability: what every researcher has to beat.
    Random,
    /// What a file says, in order: what the judge itself is tried with. Leaked on purpose, once a process: a
    /// researcher is copied, and a script lives as long as the campaign.
    Script(&'static [(String, SettingValue)]),
}

/// What a researcher may know.
pub struct Context<'a> {
    /// Seed of the campaign.
    pub seed: u64,
    /// Number the proposal will have.
    pub number: u64,
    /// The champion.
    pub champion: &'a Promotion,
    /// Every earlier proposal and verdict.
    pub history: &'a Books,
    /// The noise of a pair.
    pub noise: NoiseScale,
    /// How the judge decides.
    pub judge: &'a JudgeSettings,
    /// Proposals of the same round, not yet tried.
    pub in_round: &'a [Proposal],
    /// The champion compiled: what can be turned, with its values.
    pub compiled: &'a Checked,
    /// Compiles the champion's recipe under other settings, in milliseconds.
    pub compile: &'a dyn Fn(&Settings) -> Result<Checked, String>,
}

/// A proposal before it has a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// Settings to turn, in name order.
    pub changes: Vec<Change>,
    /// Kind of change.
    pub category: Category,
    /// Why it should help.
    pub hypothesis: String,
    /// What is expected.
    pub prediction: Prediction,
}

impl Researcher {
    /// The name in `--researcher` and in records.
    pub fn name(self) -> &'static str {
        match self {
            Researcher::Optimizer => "optimizer",
            Researcher::Random => "random",
            Researcher::Script(_) => "script",
        }
    }

    /// The researcher of that name.
    pub fn named(name: &str) -> Option<Researcher> {
        [Researcher::Optimizer, Researcher::Random].into_iter().find(|researcher| researcher.name() == name)
    }

    /// The next proposal; `None` when there is nothing left to propose.
    pub fn propose(self, context: &Context<'_>) -> Option<Draft> {
        match self {
            Researcher::Optimizer => optimizer::propose(context),
            Researcher::Random => random_change(context),
            Researcher::Script(lines) => scripted(lines, context),
        }
    }
}

/// One setting, uniformly; another option or a value from its whole range, uniformly.
fn random_change(context: &Context<'_>) -> Option<Draft> {
    let mut random = Random::new(&[context.seed, 0x7a6e, context.number]);
    let movable: Vec<&SettingSpec> =
        context.compiled.settings.iter().filter(|spec| is_movable(spec)).collect();
    if movable.is_empty() {
        return None;
    }
    let spec = movable[random.below(movable.len())];
    let (to, category) = match &spec.kind {
        SettingKind::Dial => return None,
        SettingKind::Knob { low, high, log } => {
            (Scale::new(*low, *high, *log).value(random.uniform(), &spec.default), Category::Knob)
        }
        SettingKind::Choice { options } => {
            let others: Vec<&SettingValue> = options.iter().filter(|option| **option != spec.value).collect();
            (others[random.below(others.len())].clone(), Category::Choice)
        }
    };
    Some(Draft {
        changes: vec![Change { setting: spec.name.clone(), from: spec.value.clone(), to }],
        category,
        hypothesis: "Drawn at random.".to_string(),
        prediction: Prediction { gain_bpb: 0.0, keep_probability: 0.05 },
    })
}

/// The line of the proposal's number, whatever became of those before it.
fn scripted(lines: &[(String, SettingValue)], context: &Context<'_>) -> Option<Draft> {
    let (setting, to) = lines.get(context.number as usize - 1)?;
    // A setting that the recipe has not is refused by the compiler, by its name.
    let known = context.compiled.settings.iter().find(|spec| spec.name == *setting);
    let from = known.map_or_else(|| to.clone(), |spec| spec.value.clone());
    let category = match known.map(|spec| &spec.kind) {
        Some(SettingKind::Knob { .. }) => Category::Knob,
        Some(SettingKind::Dial | SettingKind::Choice { .. }) | None => Category::Choice,
    };
    Some(Draft {
        changes: vec![Change { setting: setting.clone(), from, to: to.clone() }],
        category,
        hypothesis: "The script says so.".to_string(),
        prediction: Prediction { gain_bpb: 0.0, keep_probability: 0.5 },
    })
}

/// Whether there is another value to move to.
pub(crate) fn is_movable(spec: &SettingSpec) -> bool {
    match &spec.kind {
        SettingKind::Dial => false,
        SettingKind::Knob { low, high, .. } => low < high,
        SettingKind::Choice { options } => options.len() > 1,
    }
}

/// A knob's range as [0, 1], in ratios or in differences.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    log: bool,
}

impl Scale {
    pub(crate) fn new(low: f64, high: f64, log: bool) -> Scale {
        Scale { low, high, log }
    }

    /// Where a value lies.
    pub(crate) fn position(&self, value: f64) -> f64 {
        let share = if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }

    /// The value there, to two significant digits: nobody needs a learning rate of 0.0341972. A knob whose
    /// default is whole stays whole.
    pub(crate) fn value(&self, position: f64, default: &SettingValue) -> SettingValue {
        let exact = if self.log {
            self.low * (self.high / self.low).powf(position.clamp(0.0, 1.0))
        } else {
            self.low + (self.high - self.low) * position.clamp(0.0, 1.0)
        };
        match default {
            SettingValue::Int(_) => SettingValue::Int(exact.round() as i64),
            SettingValue::Bool(_) | SettingValue::Float(_) | SettingValue::Text(_) => {
                SettingValue::Float(two_digits(exact).clamp(self.low, self.high))
            }
        }
    }

    /// The step, on [0, 1], of a factor of two; a fifth of the range where ratios mean nothing.
    pub(crate) fn bold_step(&self) -> f64 {
        if self.log { (2f64.ln() / (self.high / self.low).ln()).clamp(0.05, 0.5) } else { 0.2 }
    }
}

fn two_digits(x: f64) -> f64 {
    // Through text: the decimal that is printed is the value that is used.
    format!("{x:.1e}").parse().expect("a formatted number is a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knob_values_stay_in_range_and_read_well() {
        let scale = Scale::new(2e-3, 2e-1, true);
        let value = scale.value(scale.position(0.0341972), &SettingValue::Float(0.02));
        assert_eq!(value, SettingValue::Float(0.034));
        assert_eq!(scale.value(7.0, &SettingValue::Float(0.02)), SettingValue::Float(0.2));
        let whole = Scale::new(1.0, 64.0, true);
        assert_eq!(whole.value(whole.position(8.0), &SettingValue::Int(4)), SettingValue::Int(8));
    }
}
