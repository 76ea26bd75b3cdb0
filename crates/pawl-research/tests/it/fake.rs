//! A world made of formulas: choices with additive effects, knobs with parabolas in their logarithm, and
//! noise of the size and the pairing that was measured on real small runs.

use pawl_record::{CampaignBudget, DataRef, Ladder, Rung, SettingValue, Settings};
use pawl_research::campaign::{self, CampaignError, CampaignReport};
use pawl_research::options::{self, CampaignOptions};
use pawl_research::random::{Random, hash};
use pawl_research::researcher::Researcher;
use pawl_research::world::{Checked, Score, SettingKind, SettingSpec, Trial, TrialError, World};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

/// A choice: gain of each option over the first, bits per byte. Options are called "0", "1", ...
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) name: String,
    pub(crate) gains: Vec<f64>,
    /// Whether the options compile to the same program.
    pub(crate) silent: bool,
}

/// A knob: the score worsens with the squared distance, in factors of e, from its optimum.
#[derive(Clone, Debug)]
pub(crate) struct Knob {
    pub(crate) name: String,
    pub(crate) start: f64,
    pub(crate) optimum: f64,
    /// Bits per byte at a factor of e.
    pub(crate) curvature: f64,
}

pub(crate) struct Fake {
    pub(crate) choices: Vec<Choice>,
    pub(crate) knobs: Vec<Knob>,
    /// Standard deviation of an A/A pair, bits per byte.
    pub(crate) pair_sd: f64,
    pub(crate) seed: u64,
    pub(crate) trial_s: f64,
    pub(crate) workers: usize,
    /// Choices whose gains are there on the first rung alone.
    pub(crate) fading: Vec<&'static str>,
    /// Choices of which so many must be turned before any of it gains, and what it gains then: a plateau.
    pub(crate) together: Option<(Vec<String>, usize, f64)>,
    /// A setting that, turned, makes a trial take this many times as long.
    pub(crate) slow: Option<(&'static str, f64)>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What `lab/runs` would hold.
    runs: BTreeMap<String, Score>,
    clock_s: f64,
    runs_left_before_interruption: Option<u64>,
    pub(crate) interrupted: bool,
}

/// Loss of correlation by a change of structure, as shares of the noise of one arm.
const STRUCTURE_SHARE: f64 = 0.8;

impl Fake {
    pub(crate) fn new(seed: u64, choices: Vec<Choice>, knobs: Vec<Knob>) -> Fake {
        Fake {
            choices,
            knobs,
            pair_sd: 0.025,
            seed,
            trial_s: 10.0,
            workers: 2,
            fading: Vec::new(),
            together: None,
            slow: None,
            state: Mutex::new(State::default()),
        }
    }

    /// A space like the shipped starting recipe's: 12 choices, 10 knobs. A third of the options help, a third
    /// hurt, a third do nothing; two choices are silent; half the knobs are off their optimum. As measured on
    /// that recipe, a few settings (learning rates, the batch) are worth 5 to 20 pair sds, most about one.
    pub(crate) fn typical(seed: u64) -> Fake {
        let mut random = Random::new(&[seed, 77]);
        let sd = 0.025;
        let size = |random: &mut Random| {
            let common = sd * (0.3 + 2.0 * random.uniform());
            if random.uniform() < 0.2 { 5.0 * common } else { common }
        };
        let mut choices = Vec::new();
        for i in 0..12 {
            let num_options = 2 + random.below(2);
            let mut gains = vec![0.0];
            for _ in 1..num_options {
                gains.push(match random.below(3) {
                    0 if i >= 2 => size(&mut random),
                    1 if i >= 2 => -size(&mut random),
                    _ => 0.0,
                });
            }
            choices.push(Choice { name: format!("choice{i:02}"), gains, silent: i < 2 });
        }
        let mut knobs = Vec::new();
        for i in 0..10 {
            let off = if i % 2 == 0 { 1.4 * random.normal() } else { 0.2 * random.normal() };
            knobs.push(Knob {
                name: format!("knob{i:02}"),
                start: 0.02,
                optimum: 0.02 * off.clamp(-2.2, 2.2).exp(),
                curvature: size(&mut random),
            });
        }
        Fake::new(seed, choices, knobs)
    }

    /// The same with three knobs that are far off and matter most, as learning rates are where a small model starts on
    /// a plateau: 8 to 20 times too small or too large.
    pub(crate) fn far(seed: u64) -> Fake {
        let mut fake = Fake::typical(seed);
        let mut random = Random::new(&[seed, 78]);
        for knob in fake.knobs.iter_mut().step_by(4) {
            let off = (2.1 + 0.9 * random.uniform()) * if random.uniform() < 0.7 { 1.0 } else { -1.0 };
            knob.optimum = knob.start * off.exp();
            knob.curvature = fake.pair_sd * (1.0 + 2.0 * random.uniform());
        }
        fake
    }

    /// The typical one on a plateau: fifteen pair sds for turning three of its choices, nothing for fewer.
    pub(crate) fn plateau(seed: u64) -> Fake {
        let mut fake = Fake::typical(seed);
        let names = fake.choices.iter().skip(2).take(6).map(|choice| choice.name.clone()).collect();
        fake.together = Some((names, 3, 15.0 * fake.pair_sd));
        // What leads off it is not undone by knobs.
        fake.knobs.iter_mut().for_each(|knob| knob.curvature *= 0.02);
        fake
    }

    /// Nothing helps and nothing hurts.
    pub(crate) fn null(seed: u64) -> Fake {
        let choices = (0..12)
            .map(|i| Choice { name: format!("choice{i:02}"), gains: vec![0.0; 3], silent: false })
            .collect();
        let knobs = (0..10)
            .map(|i| Knob { name: format!("knob{i:02}"), start: 0.02, optimum: 0.02, curvature: 0.0 })
            .collect();
        Fake::new(seed, choices, knobs)
    }

    /// The gain over the start without noise, bits per byte.
    pub(crate) fn truth(&self, settings: &Settings) -> f64 {
        let choices: f64 = self
            .choices
            .iter()
            .filter_map(|choice| Some(choice.gains[self.option(settings, &choice.name)?]))
            .sum();
        let knobs: f64 = self
            .knobs
            .iter()
            .map(|knob| {
                let loss = |value: f64| knob.curvature * (value / knob.optimum).ln().powi(2);
                loss(knob.start)
                    - loss(settings.get(&knob.name).and_then(SettingValue::as_f64).unwrap_or(knob.start))
            })
            .sum();
        choices + knobs + self.gain_together(settings)
    }

    fn gain_together(&self, settings: &Settings) -> f64 {
        let Some((names, needed, gain)) = &self.together else { return 0.0 };
        let turned = names.iter().filter(|name| self.option(settings, name).is_some_and(|option| option > 0));
        if turned.count() >= *needed { *gain } else { 0.0 }
    }

    /// The best gain there is.
    pub(crate) fn best(&self) -> f64 {
        let choices: f64 =
            self.choices.iter().map(|choice| choice.gains.iter().copied().fold(0.0, f64::max)).sum();
        let knobs: f64 =
            self.knobs.iter().map(|knob| knob.curvature * (knob.start / knob.optimum).ln().powi(2)).sum();
        choices + knobs + self.together.as_ref().map_or(0.0, |(_, _, gain)| *gain)
    }

    fn option(&self, settings: &Settings, name: &str) -> Option<usize> {
        match settings.get(name)? {
            SettingValue::Text(text) => Some(text[1..].parse().unwrap()),
            other @ (SettingValue::Bool(_) | SettingValue::Int(_) | SettingValue::Float(_)) => {
                panic!("{name} is {other}")
            }
        }
    }

    fn structure(&self, settings: &Settings) -> String {
        let parts = self.choices.iter().filter(|choice| !choice.silent);
        parts.map(|choice| format!("{:?},", self.option(settings, &choice.name).unwrap_or(0))).collect()
    }

    fn fingerprint(&self, settings: &Settings) -> String {
        let mut text = self.structure(settings);
        for knob in &self.knobs {
            let value = settings.get(&knob.name).and_then(SettingValue::as_f64).unwrap_or(knob.start);
            text += &format!("{value:?},");
        }
        text
    }

    /// The next process: the clock starts anew, the lab stays.
    pub(crate) fn restart(&self, runs_before_interruption: Option<u64>) {
        let mut state = self.state.lock().unwrap();
        state.clock_s = 0.0;
        state.interrupted = false;
        state.runs_left_before_interruption = runs_before_interruption;
    }

    /// Runs that were really done.
    pub(crate) fn num_runs(&self) -> usize {
        self.state.lock().unwrap().runs.len()
    }
}

fn words(text: &str) -> u64 {
    hash(&text.bytes().map(u64::from).collect::<Vec<_>>())
}

impl World for Fake {
    fn check(&self, _: &Path, _: u64, settings: &Settings) -> Result<Checked, String> {
        let choice = |choice: &Choice| {
            let options: Vec<SettingValue> =
                (0..choice.gains.len()).map(|i| SettingValue::Text(format!("o{i}"))).collect();
            let value = settings.get(&choice.name).unwrap_or(&options[0]).clone();
            let default = options[0].clone();
            SettingSpec { name: choice.name.clone(), kind: SettingKind::Choice { options }, default, value }
        };
        let knob = |knob: &Knob| {
            let default = SettingValue::Float(knob.start);
            let value = settings.get(&knob.name).unwrap_or(&default).clone();
            let kind = SettingKind::Knob { low: knob.start / 20.0, high: knob.start * 20.0, log: true };
            SettingSpec { name: knob.name.clone(), kind, default, value }
        };
        let mut specs: Vec<SettingSpec> = self.choices.iter().map(choice).collect();
        specs.extend(self.knobs.iter().map(knob));
        for name in settings.keys() {
            if !specs.iter().any(|spec| spec.name == *name) {
                return Err(format!("no setting is called {name}"));
            }
        }
        Ok(Checked {
            fingerprint: self.fingerprint(settings),
            flops_per_step: 1e9,
            num_params: 1_000_000,
            settings: specs,
        })
    }

    fn run(&self, trial: &Trial) -> Result<Score, TrialError> {
        let fingerprint = self.fingerprint(&trial.settings);
        let identity = Trial { limit_s: None, keep: false, recipe: Default::default(), ..trial.clone() };
        let id = format!("{:012x}", words(&format!("{fingerprint} {identity:?}")) >> 16);
        let mut state = self.state.lock().unwrap();
        if let Some(score) = state.runs.get(&id) {
            return Ok(score.clone());
        }
        if let Some(left) = &mut state.runs_left_before_interruption {
            if *left == 0 {
                state.interrupted = true;
                return Err(TrialError::Interrupted);
            }
            *left -= 1;
        }
        let init = trial.init_seed.unwrap_or(trial.seed);
        let normal = |key: &[u64]| Random::new(key).normal();
        let structure = words(&self.structure(&trial.settings));
        let own = STRUCTURE_SHARE.sqrt() * normal(&[self.seed, init, structure, 1])
            + (1.0 - STRUCTURE_SHARE).sqrt() * normal(&[self.seed, init, words(&fingerprint), 2]);
        let arm_sd = self.pair_sd / 2f64.sqrt();
        let noise = arm_sd * own + 0.03 * normal(&[self.seed, trial.seed, 3]);
        // More compute helps: 0.1 bits per byte a factor of e.
        let compute = 0.1 * (trial.flops / 1e12).ln();
        let mut settings = trial.settings.clone();
        settings.retain(|name, _| trial.depth == DEPTH || !self.fading.contains(&name.as_str()));
        let mean = 3.0 - self.truth(&settings) - compute;
        let turned = |name: &str| self.option(&trial.settings, name).is_some_and(|option| option > 0);
        let slower = self.slow.filter(|(name, _)| turned(name)).map_or(1.0, |(_, factor)| factor);
        let seconds = self.trial_s * slower * trial.flops / 1e12;
        let score = Score {
            run: id.clone(),
            val_bpb: Some(mean + noise),
            sealed_bpb: trial.seal.then_some(mean + noise),
            reason: None,
            flops: trial.flops,
            train_seconds: seconds,
            total_seconds: seconds,
            tokens_per_sec: 1e5 / slower,
        };
        state.clock_s += seconds / self.workers as f64;
        state.runs.insert(id, score.clone());
        Ok(score)
    }

    fn seconds(&self) -> f64 {
        self.state.lock().unwrap().clock_s
    }

    fn unix_s(&self) -> u64 {
        0
    }

    fn interrupted(&self) -> bool {
        self.state.lock().unwrap().interrupted
    }
}

/// Depth of the first rung.
const DEPTH: u64 = 4;

/// A ladder as a campaign has it by default, of so many rungs.
pub(crate) fn ladder(num_rungs: u64) -> Ladder {
    let rung = |idx: u64| Rung {
        depth: DEPTH + idx,
        flops: 1e12 * 4f64.powi(idx as i32),
        precision: pawl_record::Precision::F32,
    };
    Ladder::new((0..num_rungs).map(rung).collect()).unwrap()
}

/// A campaign of one rung.
pub(crate) fn asked(lab: &Path, seed: u64, budget: CampaignBudget) -> CampaignOptions {
    CampaignOptions {
        lab: lab.to_path_buf(),
        recipe_name: "fake.star".to_string(),
        recipe_text: "recipe()".to_string(),
        settings: Settings::new(),
        rungs: ladder(1),
        data: DataRef { name: "crates".to_string(), hash: "0".to_string() },
        seed,
        researcher: Researcher::Optimizer,
        judge: options::judge_settings(),
        budget,
        workers: 2,
        final_seeds: options::FINAL_SEEDS,
        version: "0".to_string(),
        machine: "none".to_string(),
    }
}

/// A folder for a lab. In memory where there is such a place: every record is synced to the disk, and
/// hundreds of campaigns would wait for it.
pub(crate) fn new_lab() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// A whole campaign in a lab of its own.
pub(crate) fn campaign(
    fake: &Fake,
    researcher: Researcher,
    seed: u64,
    budget: CampaignBudget,
) -> Result<CampaignReport, CampaignError> {
    let lab = new_lab();
    let options = CampaignOptions { researcher, ..asked(lab.path(), seed, budget) };
    campaign::run(&options, fake, &mut |_| {})
}

/// Every document of a campaign with the clock taken out, by name.
pub(crate) fn documents(lab: &Path) -> BTreeMap<String, serde_json::Value> {
    let mut documents = BTreeMap::new();
    for folder in ["", "proposals", "verdicts", "champions", "prunings", "retractions"] {
        let Ok(entries) = std::fs::read_dir(lab.join("campaign").join(folder)) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|extension| extension == "json") {
                let mut document: serde_json::Value =
                    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                document.as_object_mut().unwrap().remove("elapsed_s");
                documents.insert(format!("{folder}/{}", path.file_name().unwrap().display()), document);
            }
        }
    }
    documents
}
