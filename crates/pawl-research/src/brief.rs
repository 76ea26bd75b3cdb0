//! What a campaign may be asked, key by key. `campaign.toml`, what the flags of `pawl research` mean, and the
//! explanation of both come from the tables of this file, and so do the defaults.
//!
//! Whoever speaks later wins: the default, the campaign that is in the lab, the file, the command line. It reads no
//! file and knows no recipe; keys, addresses of services and levels of sandboxes have no place here on purpose.

mod explain;
mod parse;

pub use explain::Entry;
pub use parse::{BriefError, is_refused};

use crate::options::{FINAL_SEEDS, judge_settings};
use pawl_record::{CampaignBudget, CampaignManifest, JudgeSettings, Ladder, Precision, Rung};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a campaign is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Brief {
    /// Recipe to improve: a path, or the name of a shipped one.
    pub recipe: String,
    /// Data set of the lab.
    pub data: String,
    /// Keys every seed.
    pub seed: u64,
    /// Who proposes.
    pub researcher: String,
    /// Number format of the products of trials.
    pub precision: String,
    /// How it is judged.
    pub judge: JudgeSettings,
    /// Fresh seeds of the final measurement.
    pub final_seeds: u64,
    /// Cap in minutes of wall clock.
    pub minutes: Option<f64>,
    /// Cap in training runs.
    pub trials: Option<u64>,
    /// Cap on what language models cost in this lab, US dollars.
    pub usd: Option<f64>,
    /// Cap on their tokens, sent and answered.
    pub tokens: Option<u64>,
    /// Cap on the hours of waiting for them.
    pub hours: Option<f64>,
    /// The ladder; what is left out follows from the rung before.
    pub rungs: Vec<RungBrief>,
    /// Whether somebody said how many rungs there are.
    is_ladder_said: bool,
    /// Who said what, where it was not the default.
    sources: BTreeMap<String, Source>,
}

/// One rung, as far as it was said.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RungBrief {
    /// The scale dial.
    pub depth: Option<u64>,
    /// Budget of a trial.
    pub flops: Option<f64>,
}

/// Who said it; the later wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Nobody.
    #[default]
    Default,
    /// The campaign that is in the lab.
    Lab,
    /// The campaign file.
    File {
        /// Its name.
        file: String,
        /// The line.
        line: usize,
    },
    /// The command line.
    Flag(&'static str),
}

/// A value as it is said.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Words.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// A number.
    Number(f64),
}

/// Where a key's value lies in `T`.
enum Slot<T> {
    Text(fn(&mut T) -> &mut String),
    Word(fn(&mut T) -> &mut String, &'static [&'static str]),
    Whole(fn(&mut T) -> &mut u64),
    Number(fn(&mut T) -> &mut f64),
    MaybeWhole(fn(&mut T) -> &mut Option<u64>),
    MaybeNumber(fn(&mut T) -> &mut Option<f64>),
}

/// What a number must be.
struct Rule {
    holds: fn(f64) -> bool,
    words: &'static str,
}

const ANY: Rule = Rule { holds: |_| true, words: "anything" };
const NOT_NEGATIVE: Rule = Rule { holds: |x| x >= 0.0, words: "0 or more" };
const POSITIVE: Rule = Rule { holds: |x| x > 0.0, words: "above 0" };
const SHARE: Rule = Rule { holds: |x| x > 0.0 && x < 1.0, words: "between 0 and 1" };
const POWER: Rule = Rule { holds: |x| x > 0.5 && x < 1.0, words: "between one half and 1" };
const AT_LEAST_1: Rule = Rule { holds: |x| x >= 1.0, words: "1 or more" };
const AT_LEAST_2: Rule = Rule { holds: |x| x >= 2.0, words: "2 or more" };
const AT_LEAST_3: Rule = Rule { holds: |x| x >= 3.0, words: "3 or more" };

/// One key.
struct Key<T> {
    name: &'static str,
    slot: Slot<T>,
    rule: Rule,
    /// One line.
    meaning: &'static str,
}

/// Number formats, by the names of [`Precision::name`].
const PRECISIONS: &[&str] = &["f32", "bf16"];

/// The keys of the file, by table; "" is the top.
const TABLES: &[(&str, &[Key<Brief>])] =
    &[("", TOP), ("caps", CAPS), ("judge", JUDGE), ("climb", CLIMB), ("final", FINAL)];

const TOP: &[Key<Brief>] = &[
    Key {
        name: "recipe",
        slot: Slot::Text(|it| &mut it.recipe),
        rule: ANY,
        meaning: "recipe to improve: a path from the folder of this file, or the name of a shipped one",
    },
    Key { name: "data", slot: Slot::Text(|it| &mut it.data), rule: ANY, meaning: "data set of the lab" },
    Key {
        name: "seed",
        slot: Slot::Whole(|it| &mut it.seed),
        rule: NOT_NEGATIVE,
        meaning: "keys every draw of the campaign: proposals, initial values, data order",
    },
    Key {
        name: "researcher",
        slot: Slot::Text(|it| &mut it.researcher),
        rule: ANY,
        meaning: "who proposes changes",
    },
    Key {
        name: "precision",
        slot: Slot::Word(|it| &mut it.precision, PRECISIONS),
        rule: ANY,
        meaning: "number format of the products of trials, f32 or bf16",
    },
];

const CAPS: &[Key<Brief>] = &[
    Key {
        name: "minutes",
        slot: Slot::MaybeNumber(|it| &mut it.minutes),
        rule: POSITIVE,
        meaning: "stop after so many minutes of wall clock, the final measurement included",
    },
    Key {
        name: "trials",
        slot: Slot::MaybeWhole(|it| &mut it.trials),
        rule: AT_LEAST_1,
        meaning: "stop after so many training runs instead, the final measurement not counted",
    },
    Key {
        name: "usd",
        slot: Slot::MaybeNumber(|it| &mut it.usd),
        rule: POSITIVE,
        meaning: "lowers what language models may cost in this lab, US dollars; the command line says the most",
    },
    Key {
        name: "tokens",
        slot: Slot::MaybeWhole(|it| &mut it.tokens),
        rule: AT_LEAST_1,
        meaning: "lowers the tokens of language models in this lab, sent and answered",
    },
    Key {
        name: "hours",
        slot: Slot::MaybeNumber(|it| &mut it.hours),
        rule: POSITIVE,
        meaning: "lowers the hours of waiting for language models in this lab",
    },
];

const JUDGE: &[Key<Brief>] = &[
    Key {
        name: "alpha",
        slot: Slot::Number(|it| &mut it.judge.alpha),
        rule: SHARE,
        meaning: "bound on the expected share of false keeps in the whole campaign",
    },
    Key {
        name: "min_effect_bpb",
        slot: Slot::Number(|it| &mut it.judge.min_effect_bpb),
        rule: NOT_NEGATIVE,
        meaning: "gains at or below this many bits per byte are not worth keeping",
    },
    Key {
        name: "noise_pairs",
        slot: Slot::Whole(|it| &mut it.judge.noise_pairs),
        rule: AT_LEAST_3,
        meaning: "A/A pairs that learn the noise before the first proposal",
    },
    Key {
        name: "champion_runs",
        slot: Slot::Whole(|it| &mut it.judge.champion_runs),
        rule: AT_LEAST_1,
        meaning: "runs of a champion to be on fresh seeds, which all its challengers share",
    },
    Key {
        name: "fresh_slack_sds",
        slot: Slot::MaybeNumber(|it| &mut it.judge.fresh_slack_sds),
        rule: POSITIVE,
        meaning: "how far, in standard deviations of a pair, one of those may fall short of half the gain it was kept for",
    },
    Key {
        name: "min_pairs",
        slot: Slot::Whole(|it| &mut it.judge.min_pairs),
        rule: AT_LEAST_2,
        meaning: "pairs before a keep is possible",
    },
    Key {
        name: "max_pairs",
        slot: Slot::Whole(|it| &mut it.judge.max_pairs),
        rule: AT_LEAST_2,
        meaning: "pairs after which an open duel ends undecided",
    },
    Key {
        name: "target_effect_sds",
        slot: Slot::Number(|it| &mut it.judge.target_effect_sds),
        rule: POSITIVE,
        meaning: "size of effect, in standard deviations of a pair, that screening must let through...",
    },
    Key {
        name: "target_power",
        slot: Slot::Number(|it| &mut it.judge.target_power),
        rule: POWER,
        meaning: "...with this probability; and how sure futility must be that the pairs left cannot decide",
    },
    Key {
        name: "mixture_sds",
        slot: Slot::Number(|it| &mut it.judge.mixture_sds),
        rule: POSITIVE,
        meaning: "size of effect, in standard deviations of a pair, that the test is tuned for",
    },
];

const CLIMB: &[Key<Brief>] = &[
    Key {
        name: "level",
        slot: Slot::Number(|it| &mut it.judge.climb_level),
        rule: SHARE,
        meaning: "probability that a keep which gains nothing on a rung above holds there all the same",
    },
    Key {
        name: "min_pairs",
        slot: Slot::Whole(|it| &mut it.judge.climb_min_pairs),
        rule: AT_LEAST_2,
        meaning: "pairs before a keep can hold on a rung above",
    },
    Key {
        name: "max_pairs",
        slot: Slot::Whole(|it| &mut it.judge.climb_max_pairs),
        rule: AT_LEAST_2,
        meaning: "pairs after which it has not held there",
    },
];

const FINAL: &[Key<Brief>] = &[Key {
    name: "seeds",
    slot: Slot::Whole(|it| &mut it.final_seeds),
    rule: AT_LEAST_2,
    meaning: "fresh seeds on which the champion is measured at the end",
}];

/// The keys of `[[rung]]`.
const RUNG: &[Key<RungBrief>] = &[
    Key {
        name: "depth",
        slot: Slot::MaybeWhole(|it| &mut it.depth),
        rule: AT_LEAST_1,
        meaning: "the scale dial of a trial; the recipe's own on the first rung, one more on each after it",
    },
    Key {
        name: "flops",
        slot: Slot::MaybeNumber(|it| &mut it.flops),
        rule: POSITIVE,
        meaning: "floating-point operations of a trial; four times as many on each rung after the first",
    },
];

/// Minutes of a campaign that is not told when to stop.
const MINUTES: f64 = 60.0;
/// FLOPs of a trial on the first rung: some seconds on a core, long enough that the order of recipes is that of
/// longer runs.
pub const TRIAL_FLOPS: f64 = 5e11;
/// FLOPs of a rung over those of the one before.
const RUNG_FACTOR: f64 = 4.0;
/// Rungs of a ladder that nobody described...
const NUM_RUNGS: usize = 2;
/// ...and from so many minutes on: one climb takes a minute or two of two cores, most of a short campaign.
const LADDER_MINUTES: f64 = 30.0;

impl Brief {
    /// Nothing but defaults; `data` is the name of the data set that the binary carries.
    pub fn new(data: &str) -> Brief {
        Brief {
            recipe: "tiny".to_string(),
            data: data.to_string(),
            seed: 0,
            researcher: "optimizer".to_string(),
            precision: Precision::default().name().to_string(),
            judge: judge_settings(),
            final_seeds: FINAL_SEEDS,
            minutes: None,
            trials: None,
            usd: None,
            tokens: None,
            hours: None,
            rungs: vec![RungBrief::default(); NUM_RUNGS],
            is_ladder_said: false,
            sources: BTreeMap::new(),
        }
    }

    /// What the campaign in the lab was asked, all of it but its budget.
    pub fn continue_campaign(&mut self, campaign: &CampaignManifest) {
        self.recipe.clone_from(&campaign.recipe.name);
        self.data.clone_from(&campaign.data.name);
        self.seed = campaign.seed;
        self.researcher.clone_from(&campaign.researcher);
        self.precision = campaign.rungs.first().precision.name().to_string();
        self.judge = campaign.judge;
        self.is_ladder_said = true;
        let rungs = campaign.rungs.all().iter();
        self.rungs = rungs.map(|it| RungBrief { depth: Some(it.depth), flops: Some(it.flops) }).collect();
        for (table, keys) in TABLES.iter().filter(|(table, _)| !["caps", "final"].contains(table)) {
            for key in *keys {
                self.sources.insert(path(table, key.name), Source::Lab);
            }
        }
        for idx in 0..self.rungs.len() {
            for key in RUNG {
                self.sources.insert(rung_path(idx, key.name), Source::Lab);
            }
        }
    }

    /// Sets a key of a table, "" for the top; the error says what it must be.
    pub fn say(&mut self, table: &str, name: &str, value: Value, source: Source) -> Result<(), String> {
        let keys = TABLES.iter().find(|(known, _)| *known == table).map_or(&[][..], |(_, keys)| keys);
        let key = keys.iter().find(|key| key.name == name);
        let key = key.ok_or_else(|| format!("there is no key {}", path(table, name)))?;
        key.set(self, value)?;
        self.sources.insert(path(table, name), source);
        Ok(())
    }

    /// Sets a key of a rung, which there must be.
    pub fn say_rung(&mut self, idx: usize, name: &str, value: Value, source: Source) -> Result<(), String> {
        let key = RUNG.iter().find(|key| key.name == name);
        let key = key.ok_or_else(|| format!("there is no key {}", rung_path(idx, name)))?;
        let rung = self.rungs.get_mut(idx).ok_or_else(|| format!("there is no rung {}", idx + 1))?;
        key.set(rung, value)?;
        self.sources.insert(rung_path(idx, name), source);
        Ok(())
    }

    /// Makes it a ladder of so many rungs: the last ones are left out, or new ones follow from the one before.
    pub fn say_num_rungs(&mut self, num_rungs: usize) {
        for idx in num_rungs..self.rungs.len() {
            for key in RUNG {
                self.sources.remove(&rung_path(idx, key.name));
            }
        }
        self.rungs.resize(num_rungs, RungBrief::default());
        self.is_ladder_said = true;
    }

    /// Fills in what nobody said: `depth` is the recipe's own.
    pub fn settle(&mut self, depth: u64) -> Result<(), String> {
        match (self.minutes, self.trials) {
            (None, None) => self.minutes = Some(MINUTES),
            (Some(_), Some(_)) => {
                match self.source("caps", "minutes").rank().cmp(&self.source("caps", "trials").rank()) {
                    std::cmp::Ordering::Less => self.minutes = None,
                    std::cmp::Ordering::Greater => self.trials = None,
                    std::cmp::Ordering::Equal => {
                        return Err("minutes and trials are both given: a campaign has one cap of the two"
                            .to_string());
                    }
                }
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        if !self.is_ladder_said && self.minutes.is_some_and(|minutes| minutes < LADDER_MINUTES) {
            self.rungs.truncate(1);
        }
        let mut before: Option<(u64, f64)> = None;
        for rung in &mut self.rungs {
            let (next_depth, next_flops) =
                before.map_or((depth, TRIAL_FLOPS), |(depth, flops)| (depth + 1, RUNG_FACTOR * flops));
            let filled = (*rung.depth.get_or_insert(next_depth), *rung.flops.get_or_insert(next_flops));
            before = Some(filled);
        }
        crate::judge::check_settings(&self.judge)?;
        self.ladder().map(|_| ())
    }

    /// The rungs, once settled.
    pub fn ladder(&self) -> Result<Ladder, String> {
        let precision = [Precision::F32, Precision::Bf16];
        let precision = precision.into_iter().find(|it| it.name() == self.precision);
        let precision = precision.ok_or_else(|| format!("there is no precision {}", self.precision))?;
        let rung = |it: &RungBrief| {
            let (depth, flops) = it.depth.zip(it.flops).ok_or("a rung is not settled")?;
            Ok(Rung { depth, flops, precision })
        };
        Ladder::new(self.rungs.iter().map(rung).collect::<Result<Vec<Rung>, String>>()?)
    }

    /// When it stops, once settled.
    pub fn budget(&self) -> CampaignBudget {
        match self.trials {
            Some(trials) => CampaignBudget::Trials(trials),
            None => CampaignBudget::Minutes(self.minutes.unwrap_or(MINUTES)),
        }
    }

    /// Who said a key.
    pub fn source(&self, table: &str, name: &str) -> Source {
        self.sources.get(&path(table, name)).cloned().unwrap_or_default()
    }
}

impl Source {
    fn rank(&self) -> u8 {
        match self {
            Source::Default => 0,
            Source::Lab => 1,
            Source::File { .. } => 2,
            Source::Flag(_) => 3,
        }
    }
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "text",
            Value::Whole(_) | Value::Number(_) => "a number",
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Value::Text(_) => None,
            Value::Whole(whole) => Some(*whole as f64),
            Value::Number(number) => Some(*number),
        }
    }
}

impl<T> Key<T> {
    /// Puts a value into its place, or says what it must be.
    fn set(&self, target: &mut T, value: Value) -> Result<(), String> {
        match &self.slot {
            Slot::Text(of) => *of(target) = self.text(value)?,
            Slot::Word(of, words) => {
                let text = self.text(value)?;
                if !words.contains(&text.as_str()) {
                    return Err(format!("`{}` must be one of {}", self.name, words.join(", ")));
                }
                *of(target) = text;
            }
            Slot::Whole(of) => *of(target) = self.whole(&value)?,
            Slot::Number(of) => *of(target) = self.number(&value)?,
            Slot::MaybeWhole(of) => *of(target) = Some(self.whole(&value)?),
            Slot::MaybeNumber(of) => *of(target) = Some(self.number(&value)?),
        }
        Ok(())
    }

    fn text(&self, value: Value) -> Result<String, String> {
        match value {
            Value::Text(text) if !text.trim().is_empty() => Ok(text),
            Value::Text(_) => Err(format!("`{}` is empty", self.name)),
            Value::Whole(_) | Value::Number(_) => {
                Err(format!("`{}` must be text in quotes, and is {}", self.name, value.kind()))
            }
        }
    }

    fn number(&self, value: &Value) -> Result<f64, String> {
        let number = value.number().filter(|number| number.is_finite());
        let number = number.ok_or_else(|| format!("`{}` must be a number", self.name))?;
        let words = self.rule.words;
        if (self.rule.holds)(number) { Ok(number) } else { Err(format!("`{}` must be {words}", self.name)) }
    }

    fn whole(&self, value: &Value) -> Result<u64, String> {
        let number = self.number(value)?;
        // Above 2^53 a float no longer holds every whole number; a seed may be larger when it is written as one.
        match value {
            Value::Whole(whole) => {
                u64::try_from(*whole).map_err(|_| format!("`{}` must be 0 or more", self.name))
            }
            Value::Number(_) if number.fract() == 0.0 && (0.0..9e15).contains(&number) => Ok(number as u64),
            Value::Number(_) | Value::Text(_) => Err(format!("`{}` must be a whole number", self.name)),
        }
    }

    /// The value it has, if any.
    fn get(&self, target: &mut T) -> Option<Value> {
        let whole = |it: u64| Value::Whole(i64::try_from(it).unwrap_or(i64::MAX));
        match &self.slot {
            Slot::Text(of) | Slot::Word(of, _) => Some(Value::Text(of(target).clone())),
            Slot::Whole(of) => Some(whole(*of(target))),
            Slot::Number(of) => Some(Value::Number(*of(target))),
            Slot::MaybeWhole(of) => of(target).map(whole),
            Slot::MaybeNumber(of) => of(target).map(Value::Number),
        }
    }
}

/// How a key is called in messages and in the list of sources.
fn path(table: &str, name: &str) -> String {
    if table.is_empty() { name.to_string() } else { format!("{table}.{name}") }
}

fn rung_path(idx: usize, name: &str) -> String {
    format!("rung[{idx}].{name}")
}
