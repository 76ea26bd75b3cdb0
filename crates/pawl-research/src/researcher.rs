//! Who proposes. The campaign does not know which one it talks to: it hands over the lab as a researcher sees
//! it and gets an answer back.
//!
//! What a researcher knows is [`Context`]; nothing in it comes from the sealed split, and nothing in it writes.
//! What it wants tried is a [`Draft`]. It chooses no seeds and no budget, and promotes nothing.

use crate::baselines;
use crate::books::Books;
use crate::inbox;
use crate::judge::NoiseScale;
use crate::models::{Model, Replay};
use crate::optimizer;
use crate::team::Team;
use crate::world::{Checked, SettingKind, SettingSpec};
use pawl_record::{
    Author, CampaignManifest, Category, Change, JudgeSettings, Noise, Prediction, Promotion, Proposal,
    SettingValue, Settings,
};
use std::path::Path;
use std::sync::Arc;

/// The researchers there are.
#[derive(Clone, Debug)]
pub enum Researcher {
    /// The built-in optimizer: a few whole configurations, then a bandit over changes, TPE over numbers.
    Optimizer,
    /// The same in single changes alone: what its leaps are worth.
    Steps,
    /// Any single change with equal probability: what every researcher has to beat.
    Random,
    /// A language model.
    Model(Arc<Model>),
    /// What a language model said before.
    Replay(Arc<Replay>),
    /// Whoever files drafts in the lab, by `pawl mcp`.
    Inbox,
    /// Every single change in turn.
    OneAtATime,
    /// Whole configurations by TPE.
    Tpe,
    /// Several, each with its share of the proposals.
    Team(Arc<Team>),
    /// What a file says, in order: what the judge itself is tried with.
    Script(Arc<[(String, SettingValue)]>),
}

/// The lab as a researcher sees it: all it may know, and a compiler.
pub struct Context<'a> {
    /// The lab's folder.
    pub lab: &'a Path,
    /// What the campaign was asked.
    pub manifest: &'a CampaignManifest,
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
    /// The A/A pairs it was learnt from.
    pub measured: &'a Noise,
    /// How the judge decides.
    pub judge: &'a JudgeSettings,
    /// Proposals of the same round, not yet tried.
    pub in_round: &'a [Proposal],
    /// The champion compiled: what can be turned, with its values.
    pub compiled: &'a Checked,
    /// Compiles the champion's recipe under other settings, in milliseconds.
    pub compile: &'a dyn Fn(&Settings) -> Result<Checked, String>,
    /// Compiles another recipe text under settings, in milliseconds.
    pub compile_text: &'a dyn Fn(&str, &Settings) -> Result<Checked, String>,
    /// What is left of the campaign's budget.
    pub left: Left,
    /// Whether the campaign should stop at once: a researcher that waits asks this while it does.
    pub interrupted: &'a dyn Fn() -> bool,
    /// Wall clock, seconds since 1970, for the record only.
    pub unix_s: u64,
    /// Tells whoever runs the campaign what a researcher is doing.
    pub say: &'a dyn Fn(&str),
}

/// What is left of a campaign's budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Left {
    /// Seconds, when it is limited by time.
    pub seconds: Option<f64>,
    /// Training runs, when it is limited by trials.
    pub trials: Option<u64>,
    /// Seconds one training run takes.
    pub trial_s: f64,
    /// Training runs side by side.
    pub workers: usize,
}

/// A proposal before it has a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// The whole text of another recipe, when the text changes.
    pub recipe: Option<String>,
    /// Settings to turn, in name order.
    pub changes: Vec<Change>,
    /// Kind of change.
    pub category: Category,
    /// Why it should help.
    pub hypothesis: String,
    /// What is expected.
    pub prediction: Prediction,
    /// The name of the researcher.
    pub researcher: String,
    /// The language model that wrote it, if one did.
    pub author: Option<Author>,
}

/// What a researcher answers when it is asked for a proposal.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Try this.
    Draft(Box<Draft>),
    /// Nothing is left to propose, for this champion at least.
    Exhausted,
    /// Not now, and why: a cap is reached, a service does not answer, the campaign is to stop.
    Paused(String),
}

impl Context<'_> {
    /// A draft compiled as it would be tried, with all its settings that differ from its recipe's defaults.
    pub fn compile_draft(
        &self,
        recipe: Option<&str>,
        changes: &[Change],
    ) -> Result<(Settings, Checked), String> {
        let mut settings = match recipe {
            None => self.champion.settings.clone(),
            Some(text) => inherited(&self.champion.settings, &(self.compile_text)(text, &Settings::new())?),
        };
        settings.extend(changes.iter().map(|change| (change.setting.clone(), change.to.clone())));
        let checked = match recipe {
            None => (self.compile)(&settings)?,
            Some(text) => (self.compile_text)(text, &settings)?,
        };
        Ok((settings, checked))
    }
}

/// Settings as far as a new text has them: what it drops is gone.
pub(crate) fn inherited(settings: &Settings, of: &Checked) -> Settings {
    let known = |name: &str| of.settings.iter().any(|spec| spec.name == name);
    let kept = settings.iter().filter(|(name, _)| known(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

impl Researcher {
    /// The name in `--researcher` and in records.
    pub fn name(&self) -> String {
        match self {
            Researcher::Optimizer => "optimizer".to_string(),
            Researcher::Steps => "steps".to_string(),
            Researcher::Random => "random".to_string(),
            Researcher::Model(model) => model.name().to_string(),
            Researcher::Replay(replay) => replay.name().to_string(),
            Researcher::Inbox => inbox::NAME.to_string(),
            Researcher::OneAtATime => "one_at_a_time".to_string(),
            Researcher::Tpe => "tpe".to_string(),
            Researcher::Team(team) => team.name(),
            Researcher::Script(_) => baselines::SCRIPT.to_string(),
        }
    }

    /// The next proposal, or why there is none.
    pub fn propose(&self, context: &Context<'_>) -> Answer {
        let draft = match self {
            Researcher::Optimizer => optimizer::propose(context),
            Researcher::Steps => optimizer::steps(context),
            Researcher::Random => baselines::random(context),
            Researcher::OneAtATime => baselines::one_at_a_time(context),
            Researcher::Tpe => baselines::tpe_alone(context),
            Researcher::Script(lines) => baselines::scripted(lines, context),
            Researcher::Model(model) => return model.propose(context),
            Researcher::Replay(replay) => return replay.propose(context),
            Researcher::Inbox => return inbox::wait(context, None).unwrap_or(Answer::Exhausted),
            Researcher::Team(team) => return team.propose(context),
        };
        draft.map_or(Answer::Exhausted, |draft| Answer::Draft(Box::new(draft)))
    }
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
