//! A world in which recipes are really compiled and scores are drawn: what helps is known by a word in the text.

use pawl_recipe::{Overrides, Recipe, SettingKind as Kind, Source, std_only};
use pawl_record::{CampaignBudget, Ladder, Rung, Settings};
use pawl_research::options::CampaignOptions;
use pawl_research::random::{Random, hash};
use pawl_research::researcher::Researcher;
use pawl_research::world::{Checked, Score, SettingKind, SettingSpec, Trial, TrialError, World};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A small plain GPT.
pub(crate) const START: &str = r#""""A small GPT."""
load("std/attention.star", "attention")
load("std/layers.star", "embedding", "gelu", "linear", "mlp")
load("std/optim.star", "adamw")

depth = dial("depth", 1)
width = 32
lr = knob("lr", 0.01, low = 1e-4, high = 0.1, scale = "log")
wide = choice("wide", [False, True])

def block(x, tokens, i):
    name = "blocks.%d." % i
    x += attention(rms_norm(x), name + "attn", 2)
    return x + mlp(rms_norm(x), name + "mlp", 128 if wide else 64)

def model(tokens):
    x = embedding(tokens, "embed", width)
    for i in range(depth):
        x = block(x, tokens, i)
    return linear(rms_norm(x), "head", vocab_size())

rule = adamw(lr)

def optimizer(p):
    return rule

recipe(model = model, optimizer = optimizer, seq_len = 32, tokens_per_step = 128, vocab_size = 256)
"#;

pub(crate) struct RecipeWorld {
    /// A word that helps where it stands in the text, and by how many bits per byte.
    pub(crate) helps: (&'static str, f64),
    pub(crate) interrupted: AtomicBool,
    clock_ms: AtomicU64,
}

impl RecipeWorld {
    pub(crate) fn new(word: &'static str, gain: f64) -> RecipeWorld {
        RecipeWorld { helps: (word, gain), interrupted: AtomicBool::new(false), clock_ms: AtomicU64::new(0) }
    }
}

pub(crate) fn asked(lab: &Path, researcher: Researcher, trials: u64) -> CampaignOptions {
    let mut options = crate::fake::asked(lab, 1, CampaignBudget::Trials(trials));
    options.recipe_name = "small.star".to_string();
    options.recipe_text = START.to_string();
    let rung = Rung { depth: 1, flops: 1e10, precision: pawl_record::Precision::F32 };
    options.rungs = Ladder::new(vec![rung]).unwrap();
    options.researcher = researcher;
    options
}

fn compile(path: &Path, depth: u64, settings: &Settings) -> Result<pawl_recipe::Summary, String> {
    let text = std::fs::read_to_string(path).map_err(|why| why.to_string())?;
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let overrides = Overrides { depth: Some(depth), values: settings.clone() };
    let recipe = Recipe::load(&Source { name, text }, &overrides, &std_only);
    recipe.and_then(|recipe| recipe.summary()).map_err(|error| match &error.hint {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    })
}

impl World for RecipeWorld {
    fn check(&self, recipe: &Path, depth: u64, settings: &Settings) -> Result<Checked, String> {
        let summary = compile(recipe, depth, settings)?;
        let spec = |setting: &pawl_recipe::Setting| SettingSpec {
            name: setting.name.clone(),
            kind: match &setting.kind {
                Kind::Dial => SettingKind::Dial,
                Kind::Knob { low, high, log } => SettingKind::Knob { low: *low, high: *high, log: *log },
                Kind::Choice { options } => SettingKind::Choice { options: options.clone() },
            },
            default: setting.default.clone(),
            value: setting.value.clone(),
        };
        Ok(Checked {
            fingerprint: summary.fingerprint,
            flops_per_step: summary.flops_per_step,
            num_params: summary.num_params as u64,
            settings: summary.settings.iter().map(spec).collect(),
        })
    }

    fn run(&self, trial: &Trial) -> Result<Score, TrialError> {
        let fingerprint =
            compile(&trial.recipe, trial.depth, &trial.settings).map_err(TrialError::Failed)?.fingerprint;
        let text = std::fs::read_to_string(&trial.recipe).unwrap();
        let word = |text: &str| hash(&text.bytes().map(u64::from).collect::<Vec<_>>());
        let init = trial.init_seed.unwrap_or(trial.seed);
        let own = Random::new(&[word(&fingerprint), init]).normal();
        let data = Random::new(&[trial.seed]).normal();
        let gain = if text.contains(self.helps.0) { self.helps.1 } else { 0.0 };
        let bpb = 3.0 - gain + 0.01 * own + 0.03 * data;
        self.clock_ms.fetch_add(500, Ordering::Relaxed);
        let identity = Trial { limit_s: None, keep: false, recipe: Default::default(), ..trial.clone() };
        Ok(Score {
            run: format!("{:012x}", word(&format!("{fingerprint} {identity:?}")) >> 16),
            val_bpb: Some(bpb),
            sealed_bpb: trial.seal.then_some(bpb),
            reason: None,
            flops: trial.flops,
            train_seconds: 1.0,
            total_seconds: 1.0,
            tokens_per_sec: 1e4,
        })
    }

    fn seconds(&self) -> f64 {
        self.clock_ms.load(Ordering::Relaxed) as f64 / 1000.0
    }

    fn unix_s(&self) -> u64 {
        0
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}
