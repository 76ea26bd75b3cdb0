//! Does a step cost what its FLOPs say, whatever the length, the batch and the size of the model, and do trials
//! side by side leave each other their speed?

use super::limits::Limits;
use super::side_by_side::{self, Pair};
use super::steps::{StepSpeed, Stepper, Steps, in_turn};
use super::{How, model_text, percent, word};
use crate::errors::Failure;
use crate::output::{Align, Block, Table, count};
use crate::recipes::{compile, from_recipe};
use pawl_engine::Precision;
use pawl_recipe::{Overrides, Recipe};
use pawl_record::SettingValue;
use serde_json::{Value, json};

/// The model that is turned, one of those that comparisons know.
const MODEL: &str = "small";
/// Rounds of a series: each of its models takes one step in each.
const ROUNDS: Steps = Steps { least: 3, most: 9, budget: 5.0 };
const QUICK_ROUNDS: Steps = Steps { least: 1, most: 1, budget: 0.0 };

/// What is turned in a series, all else equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// T, with as many sequences as make [`SERIES_TOKENS`]
    SeqLen,
    /// Sequences of a step, as many at once as the engine likes
    Sequences,
    /// Sequences of a step, all at once
    MicroBatch,
}

const SERIES: [By; 3] = [By::SeqLen, By::Sequences, By::MicroBatch];
const SEQ_LENS: [usize; 5] = [128, 256, 512, 1024, 2048];
const SERIES_TOKENS: usize = 4096;
const SEQUENCES: [usize; 5] = [4, 8, 16, 32, 64];
/// Length of sequences where they are counted, and of the models by size.
const SEQ_LEN: usize = 256;
/// The same for a quick measurement.
const QUICK_SEQ_LENS: [usize; 2] = [32, 64];
const QUICK_TOKENS: usize = 128;
const QUICK_SEQUENCES: [usize; 2] = [1, 2];
const QUICK_SEQ_LEN: usize = 32;

/// Widths and depths of the models by size: some 0.3, 1, 3, 10 and 30 million parameters.
const SIZES: [(usize, u64); 5] = [(64, 3), (128, 4), (192, 6), (320, 8), (512, 9)];
const SIZES_VOCAB: usize = 1024;
const SIZES_TOKENS: usize = 2048;
/// Models by size that a quick measurement has.
const QUICK_SIZES: usize = 2;

/// All three answers; empty where they were not asked for.
#[derive(Default)]
pub(super) struct Scaling {
    series: Vec<Series>,
    sizes: Vec<Size>,
    pairs: Vec<Pair>,
}

/// Steps of one model, one thing turned.
struct Series {
    by: By,
    precision: Precision,
    points: Vec<Point>,
}

struct Point {
    seq_len: usize,
    micro_batch: usize,
    speed: StepSpeed,
}

struct Size {
    width: usize,
    depth: u64,
    speed: StepSpeed,
}

impl Scaling {
    pub(super) fn measure(how: &How<'_>) -> Result<Scaling, Failure> {
        let mut found = Scaling::default();
        for by in SERIES {
            for precision in how.precisions {
                found.series.push(series(how, by, *precision)?);
            }
        }
        for precision in how.precisions {
            found.sizes.extend(sizes(how, *precision)?);
        }
        for precision in how.precisions {
            found.pairs.push(side_by_side::measure(how, *precision)?);
        }
        Ok(found)
    }
}

fn series(how: &How<'_>, by: By, precision: Precision) -> Result<Series, Failure> {
    let (lengths, tokens, batches, seq_len): (&[usize], _, &[usize], _) = match how.quick {
        true => (&QUICK_SEQ_LENS, QUICK_TOKENS, &QUICK_SEQUENCES, QUICK_SEQ_LEN),
        false => (&SEQ_LENS, SERIES_TOKENS, &SEQUENCES, SEQ_LEN),
    };
    // Length, tokens of a step, sequences at once: 0 leaves them to the engine.
    let turned: Vec<[usize; 3]> = match by {
        By::SeqLen => lengths.iter().map(|&seq_len| [seq_len, tokens, 0]).collect(),
        By::Sequences => batches.iter().map(|batch| [seq_len, batch * seq_len, 0]).collect(),
        By::MicroBatch => batches.iter().map(|&batch| [seq_len, batch * seq_len, batch]).collect(),
    };
    let settings = ["seq_len", "tokens_per_step", "micro_batch"];
    let recipe = |values: [usize; 3]| turned_model(how.quick.then_some(1), settings.into_iter().zip(values));
    let recipes = turned.into_iter().map(recipe).collect::<Result<Vec<_>, _>>()?;
    let name = |recipe: &Recipe| {
        let sequences = recipe.tokens_per_step() / recipe.seq_len();
        format!("{MODEL} of {sequences} x {}, {} at once", recipe.seq_len(), recipe.micro_batch())
    };
    let shapes: Vec<_> = recipes.iter().map(|recipe| (recipe.seq_len(), recipe.micro_batch())).collect();
    let title = format!("steps of {MODEL} by {} in {}", by.word(), word(precision));
    let speeds = speeds(how, &title, recipes, precision, name)?;
    let points = shapes.into_iter().zip(speeds);
    let points = points.map(|((seq_len, micro_batch), speed)| Point { seq_len, micro_batch, speed });
    Ok(Series { by, precision, points: points.collect() })
}

fn sizes(how: &How<'_>, precision: Precision) -> Result<Vec<Size>, Failure> {
    let sizes = if how.quick { &SIZES[..QUICK_SIZES] } else { &SIZES[..] };
    let (tokens, seq_len) = if how.quick { (QUICK_TOKENS, QUICK_SEQ_LEN) } else { (SIZES_TOKENS, SEQ_LEN) };
    let recipe = |(width, depth): (usize, u64)| {
        let settings = [
            ("width", width),
            ("vocab_size", SIZES_VOCAB),
            ("seq_len", seq_len),
            ("tokens_per_step", tokens),
        ];
        turned_model(Some(depth), settings)
    };
    let recipes = sizes.iter().copied().map(recipe).collect::<Result<Vec<_>, _>>()?;
    let title = format!("steps of models by size in {}", word(precision));
    let speeds = speeds(how, &title, recipes, precision, |_| MODEL.to_string())?;
    let found = sizes.iter().zip(speeds);
    Ok(found.map(|(&(width, depth), speed)| Size { width, depth, speed }).collect())
}

fn turned_model<'a>(
    depth: Option<u64>,
    settings: impl IntoIterator<Item = (&'a str, usize)>,
) -> Result<Recipe, Failure> {
    let text = model_text(MODEL).expect("one of our own models");
    let settings = settings.into_iter();
    let values = settings.map(|(name, value)| (name.to_string(), SettingValue::Int(value as i64))).collect();
    compile(&text, &Overrides { depth, values }).map_err(|error| from_recipe(MODEL, error))
}

/// Of each recipe, all stepped in turn.
fn speeds(
    how: &How<'_>,
    title: &str,
    recipes: Vec<Recipe>,
    precision: Precision,
    name: impl Fn(&Recipe) -> String,
) -> Result<Vec<StepSpeed>, Failure> {
    how.status.show(title.to_string());
    let steppers = recipes.into_iter().map(|recipe| Stepper::new(recipe, how.num_threads, precision));
    let mut steppers = steppers.collect::<Result<Vec<_>, _>>()?;
    let rounds = if how.quick { &QUICK_ROUNDS } else { &ROUNDS };
    let runs = in_turn(rounds, &mut steppers, |round| how.status.show(format!("{title}: round {round}")));
    let found = steppers.iter().zip(runs);
    Ok(found.map(|(stepper, runs)| StepSpeed::of(name(stepper.model.recipe()), stepper, runs)).collect())
}

impl By {
    fn word(self) -> &'static str {
        match self {
            By::SeqLen => "length",
            By::Sequences => "batch",
            By::MicroBatch => "batch at once",
        }
    }
}

impl Point {
    fn sequences(&self) -> usize {
        self.speed.tokens_per_step / self.seq_len
    }
}

impl Series {
    fn best(&self) -> f64 {
        self.points.iter().map(|point| point.speed.flops_per_sec()).fold(0.0, f64::max)
    }

    /// FLOP/s of each point over that of the best.
    fn shares(&self) -> impl Iterator<Item = f64> {
        let best = self.best();
        self.points.iter().map(move |point| point.speed.flops_per_sec() / best)
    }

    /// How far the slowest lies below the best.
    fn spread(&self) -> f64 {
        1.0 - self.shares().fold(1.0, f64::min)
    }
}

impl Scaling {
    /// For the lists of kernels.
    pub(super) fn series_steps(&self) -> impl Iterator<Item = &StepSpeed> {
        self.series.iter().flat_map(|series| &series.points).map(|point| &point.speed)
    }

    pub(super) fn tables(&self, limits: &Limits) -> Vec<String> {
        if self.series.is_empty() {
            return Vec::new();
        }
        vec![series_table(&self.series), sizes_table(&self.sizes, limits), side_by_side::table(&self.pairs)]
    }

    pub(super) fn summary(&self, block: &mut Block) {
        for series in &self.series {
            let key = format!("{MODEL} by {} {}", series.by.word(), word(series.precision));
            let best = series.best() / 1e9;
            block.line(&key, format!("within {} of {best:.1} GFLOP/s", percent(series.spread())));
        }
        for pair in &self.pairs {
            pair.summary(block);
        }
    }

    pub(super) fn json(&self, limits: &Limits) -> Value {
        let series = |series: &Series| {
            let point = |(point, share): (&Point, f64)| {
                json!({
                    "seq_len": point.seq_len,
                    "sequences": point.sequences(),
                    "micro_batch": point.micro_batch,
                    "flops_per_token": point.speed.flops_per_token(),
                    "share_of_best": share,
                    "step": point.speed.json(limits),
                })
            };
            json!({
                "by": series.by.word(),
                "precision": word(series.precision),
                "spread": series.spread(),
                "points": series.points.iter().zip(series.shares()).map(point).collect::<Vec<_>>(),
            })
        };
        let size = |size: &Size| json!({ "width": size.width, "depth": size.depth, "step": size.speed.json(limits) });
        json!({
            "series": self.series.iter().map(series).collect::<Vec<_>>(),
            "sizes": self.sizes.iter().map(size).collect::<Vec<_>>(),
            "side_by_side": self.pairs.iter().map(Pair::json).collect::<Vec<_>>(),
        })
    }
}

fn series_table(all: &[Series]) -> String {
    let mut table = Table::new(&[
        ("cost by", Align::Left),
        ("", Align::Left),
        ("seq_len", Align::Right),
        ("sequences", Align::Right),
        ("at once", Align::Right),
        ("step", Align::Right),
        ("tokens/s", Align::Right),
        ("MFLOP/token", Align::Right),
        ("GFLOP/s", Align::Right),
        ("of best", Align::Right),
    ]);
    for series in all {
        for (point, share) in series.points.iter().zip(series.shares()) {
            table.row(vec![
                series.by.word().to_string(),
                word(series.precision).to_string(),
                point.seq_len.to_string(),
                point.sequences().to_string(),
                point.micro_batch.to_string(),
                format!("{:.1} ms", point.speed.step_seconds() * 1e3),
                count(point.speed.tokens_per_sec()),
                format!("{:.1}", point.speed.flops_per_token() / 1e6),
                format!("{:.1}", point.speed.flops_per_sec() / 1e9),
                percent(share),
            ]);
        }
    }
    table.text()
}

fn sizes_table(sizes: &[Size], limits: &Limits) -> String {
    let mut table = Table::new(&[
        ("model by size", Align::Left),
        ("", Align::Left),
        ("width", Align::Right),
        ("depth", Align::Right),
        ("step", Align::Right),
        ("tokens/s", Align::Right),
        ("GFLOP/s", Align::Right),
        ("of f32 peak", Align::Right),
    ]);
    for Size { width, depth, speed } in sizes {
        table.row(vec![
            format!("{} parameters", count(speed.num_params as f64)),
            word(speed.precision).to_string(),
            width.to_string(),
            depth.to_string(),
            format!("{:.1} ms", speed.step_seconds() * 1e3),
            count(speed.tokens_per_sec()),
            format!("{:.1}", speed.flops_per_sec() / 1e9),
            percent(speed.flops_per_sec() / limits.all.float32.best),
        ]);
    }
    table.text()
}
