//! Training steps of a recipe: how long, how near to the limits, and where the time goes.

use super::limits::Limits;
use super::{How, median, percent, word};
use crate::errors::Failure;
use crate::machine::{forget_peak_memory, peak_memory};
use crate::output::{Align, Table, bytes, count};
use crate::recipes::{RecipeText, compile, from_recipe};
use pawl_engine::{Group, KernelCost, Precision};
use pawl_model::{Model, UPDATE_SECTION};
use pawl_recipe::{Overrides, Recipe};
use pawl_record::SettingValue;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Instant;

/// FLOPs of a step above which its number of micro-batches is cut, where the recipe lets it be.
const STEP_FLOPS: f64 = 4e11;
/// Steps after the first, which is not counted: at least `least`, then up to `most` within `budget` seconds.
pub(super) struct Steps {
    pub(super) least: usize,
    pub(super) most: usize,
    pub(super) budget: f64,
}
const STEPS: Steps = Steps { least: 3, most: 20, budget: 5.0 };
const QUICK_STEPS: Steps = Steps { least: 1, most: 3, budget: 0.2 };

/// The ceilings of a roofline, FLOP/s and bytes/s.
#[derive(Clone, Copy)]
pub(super) struct Roof {
    /// Of products and attention.
    pub(super) products: f64,
    /// Of everything else.
    pub(super) float32: f64,
    pub(super) bandwidth: f64,
}

/// What steps of one recipe took.
pub(super) struct StepSpeed {
    pub(super) recipe: String,
    pub(super) precision: Precision,
    pub(super) num_params: usize,
    pub(super) tokens_per_step: usize,
    /// What the recipe wants, where the step was cut.
    uncut: Option<usize>,
    flops_per_step: f64,
    /// Ascending.
    seconds: Vec<f64>,
    memory_bytes: usize,
    peak_memory_bytes: Option<u64>,
    /// Of the median step.
    kernels: Vec<KernelCost>,
}

pub(super) fn measure(
    how: &How<'_>,
    text: &RecipeText,
    overrides: &Overrides,
    precision: Precision,
) -> Result<StepSpeed, Failure> {
    let title = format!("training steps of {} in {}", text.name, word(precision));
    how.status.show(title.clone());
    forget_peak_memory();
    let load =
        |overrides: &Overrides| compile(text, overrides).map_err(|error| from_recipe(&text.name, error));
    let whole = load(overrides)?;
    let cut = cut(&whole, overrides, &|error| from_recipe(&text.name, error))?;
    let (recipe, uncut) = match cut {
        Some(overrides) => (load(&overrides)?, Some(whole.tokens_per_step())),
        None => (whole, None),
    };
    let steps = if how.quick { &QUICK_STEPS } else { &STEPS };
    let mut stepper = Stepper::new(recipe, how.num_threads, precision)?;
    let mut runs = in_turn(steps, std::slice::from_mut(&mut stepper), |at| {
        how.status.show(format!("{title}: step {at}"));
    });
    let runs = runs.pop().expect("one model was stepped");
    let speed = StepSpeed::of(text.name.clone(), &stepper, runs);
    Ok(StepSpeed { uncut, peak_memory_bytes: peak_memory(), ..speed })
}

/// The overrides that cut a step of minutes to some of its micro-batches, if the recipe has a dial for that.
fn cut(
    recipe: &Recipe,
    overrides: &Overrides,
    failure: &dyn Fn(pawl_recipe::RecipeError) -> Failure,
) -> Result<Option<Overrides>, Failure> {
    let flops = recipe.summary().map_err(failure)?.flops_per_step;
    let micro_tokens = recipe.micro_batch() * recipe.seq_len();
    let num_micro = (recipe.tokens_per_step() / micro_tokens.max(1)).max(1);
    let wanted = ((STEP_FLOPS / flops * num_micro as f64) as usize).max(1);
    let has_dial = recipe.settings().iter().any(|setting| setting.name == "tokens_per_step");
    if wanted >= num_micro || !has_dial || overrides.values.contains_key("tokens_per_step") {
        return Ok(None);
    }
    let mut cut = overrides.clone();
    cut.values.insert("tokens_per_step".to_string(), SettingValue::Int((wanted * micro_tokens) as i64));
    Ok(Some(cut))
}

/// A model that is stepped on made-up tokens, its kernels profiled.
pub(super) struct Stepper {
    pub(super) model: Model,
    precision: Precision,
    /// Of one step after another, begun again at their end.
    scalars: Vec<Vec<f32>>,
    step: usize,
}

/// Seconds and kernels of a step.
type Run = (f64, Vec<KernelCost>);

impl Stepper {
    pub(super) fn new(recipe: Recipe, num_threads: usize, precision: Precision) -> Result<Stepper, Failure> {
        let mut model = Model::with_precision(recipe, num_threads, 0, precision)?;
        let schedules = model.recipe().schedule_table(STEPS.most as u64 + 1)?;
        let scalars = (0..=STEPS.most).map(|step| schedules.iter().map(|schedule| schedule[step]).collect());
        let scalars = scalars.collect();
        model.engine_mut().start_profile();
        Ok(Stepper { model, precision, scalars, step: 0 })
    }

    pub(super) fn step(&mut self) -> Run {
        let (model, step) = (&mut self.model, self.step);
        let vocab = model.recipe().vocab_size() as u64;
        let scalars = &self.scalars[step % self.scalars.len()];
        let start = Instant::now();
        let done = model.step::<Infallible>(step as u64, scalars, |micro, inputs, targets| {
            let token =
                |i: usize, factor: u64| ((i as u64 * factor + micro as u64 + step as u64) % vocab) as i32;
            inputs.iter_mut().enumerate().for_each(|(i, x)| *x = token(i, 7919));
            targets.iter_mut().enumerate().for_each(|(i, y)| *y = token(i, 104_729));
            Ok(())
        });
        match done {
            Ok(_) => {}
            Err(never) => match never {},
        }
        let seconds = start.elapsed().as_secs_f64();
        self.step += 1;
        (seconds, model.engine_mut().profile().expect("the profile was started with the model").take())
    }
}

/// The steps of each model after its first. They take turns, from either end: what slows the machine for a
/// moment slows them all.
pub(super) fn in_turn(steps: &Steps, steppers: &mut [Stepper], show: impl Fn(usize)) -> Vec<Vec<Run>> {
    let mut runs: Vec<Vec<Run>> = steppers.iter().map(|_| Vec::new()).collect();
    let begun = Instant::now();
    for round in 0..=steps.most {
        show(round);
        let mut turns: Vec<_> = steppers.iter_mut().zip(&mut runs).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (stepper, runs) in turns {
            let run = stepper.step();
            if round > 0 {
                runs.push(run);
            }
        }
        if round >= steps.least && begun.elapsed().as_secs_f64() > steps.budget {
            break;
        }
    }
    runs
}

impl StepSpeed {
    /// Of the steps of one model, with nothing said of a cut and of peak memory.
    pub(super) fn of(recipe: String, stepper: &Stepper, mut runs: Vec<Run>) -> StepSpeed {
        runs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let seconds = runs.iter().map(|run| run.0).collect();
        let middle = runs.len() / 2;
        let model = &stepper.model;
        StepSpeed {
            recipe,
            precision: stepper.precision,
            num_params: model.recipe().params().iter().map(|p| p.shape.iter().product::<usize>()).sum(),
            tokens_per_step: model.recipe().tokens_per_step(),
            uncut: None,
            flops_per_step: model.flops_per_step(),
            seconds,
            memory_bytes: model.memory_bytes(),
            peak_memory_bytes: None,
            kernels: runs.swap_remove(middle).1,
        }
    }

    pub(super) fn flops_per_token(&self) -> f64 {
        self.flops_per_step / self.tokens_per_step as f64
    }

    pub(super) fn step_seconds(&self) -> f64 {
        median(&self.seconds)
    }
}

impl StepSpeed {
    pub(super) fn tokens_per_sec(&self) -> f64 {
        self.tokens_per_step as f64 / median(&self.seconds)
    }

    pub(super) fn flops_per_sec(&self) -> f64 {
        self.flops_per_step / median(&self.seconds)
    }

    /// First and third quartile of the step, seconds.
    fn quartiles(&self) -> [f64; 2] {
        let last = (self.seconds.len() - 1) as f64;
        [0.25, 0.75].map(|share| self.seconds[(share * last).round() as usize])
    }

    pub(super) fn json(&self, limits: &Limits) -> Value {
        let [low, high] = self.quartiles();
        let kernel = |k: &KernelCost| {
            json!({
                "kernel": k.label, "group": Where::of(k).word(), "calls": k.calls, "seconds": k.seconds,
                "flops": k.flops, "bytes": k.bytes,
            })
        };
        json!({
            "recipe": self.recipe,
            "precision": word(self.precision),
            "num_params": self.num_params,
            "tokens_per_step": self.tokens_per_step,
            "recipe_tokens_per_step": self.uncut.unwrap_or(self.tokens_per_step),
            "flops_per_step": self.flops_per_step,
            "steps": self.seconds.len(),
            "step_seconds": { "median": median(&self.seconds), "quartiles": [low, high], "best": self.seconds[0] },
            "tokens_per_sec": self.tokens_per_sec(),
            "flops_per_sec": self.flops_per_sec(),
            "mfu": self.flops_per_sec() / limits.all.float32.best,
            "memory_bytes": self.memory_bytes,
            "peak_memory_bytes": self.peak_memory_bytes,
            "kernels": self.kernels.iter().map(kernel).collect::<Vec<_>>(),
        })
    }
}

pub(super) fn table(steps: &[StepSpeed], limits: &Limits) -> String {
    let mut table = Table::new(&[
        ("training steps", Align::Left),
        ("", Align::Left),
        ("params", Align::Right),
        ("tokens", Align::Right),
        ("step", Align::Right),
        ("quartiles", Align::Right),
        ("tokens/s", Align::Right),
        ("GFLOP/s", Align::Right),
        ("of f32 peak", Align::Right),
        ("planned", Align::Right),
        ("resident", Align::Right),
    ]);
    for step in steps {
        let [low, high] = step.quartiles().map(|seconds| format!("{:.0}", seconds * 1e3));
        table.row(vec![
            step.recipe.clone(),
            word(step.precision).to_string(),
            count(step.num_params as f64),
            step.tokens_per_step.to_string(),
            format!("{:.1} ms", median(&step.seconds) * 1e3),
            format!("{low} .. {high}"),
            count(step.tokens_per_sec()),
            format!("{:.1}", step.flops_per_sec() / 1e9),
            percent(step.flops_per_sec() / limits.all.float32.best),
            bytes(step.memory_bytes as u64),
            step.peak_memory_bytes.map_or_else(|| "-".to_string(), bytes),
        ]);
    }
    let mut text = table.text();
    for step in steps.iter().filter(|step| step.precision == steps[0].precision) {
        if let Some(uncut) = step.uncut {
            let tokens = step.tokens_per_step;
            text.push_str(&format!("{}: {tokens} of the {uncut} tokens of its step\n", step.recipe));
        }
    }
    text
}

/// Kinds of work that a step consists of, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Kernels(Group),
    Optimizer,
}

const PLACES: [Where; 7] = [
    Where::Kernels(Group::Products),
    Where::Kernels(Group::Attention),
    Where::Kernels(Group::Norms),
    Where::Kernels(Group::Elementwise),
    Where::Kernels(Group::CrossEntropy),
    Where::Optimizer,
    Where::Kernels(Group::Other),
];

impl Where {
    fn of(kernel: &KernelCost) -> Where {
        if kernel.section == UPDATE_SECTION { Where::Optimizer } else { Where::Kernels(kernel.group) }
    }

    fn word(self) -> &'static str {
        match self {
            Where::Kernels(Group::Products) => "products",
            Where::Kernels(Group::Attention) => "attention",
            Where::Kernels(Group::Norms) => "norms",
            Where::Kernels(Group::Elementwise) => "elementwise",
            Where::Kernels(Group::CrossEntropy) => "cross-entropy",
            Where::Kernels(Group::Other) => "other",
            Where::Optimizer => "optimizer",
        }
    }
}

/// Seconds, work, and the least seconds that the limits allow for it.
#[derive(Clone, Copy, Default)]
struct Cost {
    seconds: f64,
    flops: f64,
    bytes: f64,
    /// At the roof of arithmetic, at the roof of memory, at the higher of the two kernel by kernel.
    arithmetic: f64,
    memory: f64,
    bound: f64,
}

impl Cost {
    fn add(&mut self, kernel: &KernelCost, roof: Roof) {
        // Updates are float32 whatever the precision of the step.
        let peak = match Where::of(kernel) {
            Where::Kernels(Group::Products | Group::Attention) => roof.products,
            Where::Kernels(Group::Norms | Group::Elementwise | Group::CrossEntropy | Group::Other)
            | Where::Optimizer => roof.float32,
        };
        let (arithmetic, memory) = (kernel.flops / peak, kernel.bytes / roof.bandwidth);
        self.seconds += kernel.seconds;
        self.flops += kernel.flops;
        self.bytes += kernel.bytes;
        self.arithmetic += arithmetic;
        self.memory += memory;
        self.bound += arithmetic.max(memory);
    }

    /// Milliseconds, share of the step, rate in the unit of what bounds it, share of that bound.
    fn cells(&self, step_seconds: f64) -> Vec<String> {
        let rate = match self.arithmetic > self.memory {
            true => format!("{:.0} GFLOP/s", self.flops / self.seconds / 1e9),
            false => format!("{:.1} GB/s", self.bytes / self.seconds / 1e9),
        };
        let known = self.seconds > 0.0 && self.bound > 0.0;
        vec![
            format!("{:.2}", self.seconds * 1e3),
            format!("{:.1} %", 100.0 * self.seconds / step_seconds),
            if known { rate } else { "-".to_string() },
            if known { percent(self.bound / self.seconds) } else { "-".to_string() },
        ]
    }
}

/// By recipe and kind of work, both precisions side by side.
pub(super) fn groups_table(steps: &[StepSpeed], roof: impl Fn(&StepSpeed) -> Roof) -> String {
    let columns = |name| {
        let heads = [name, "share", "rate", "of roof"];
        heads.map(|head| (head, Align::Right))
    };
    let mut precisions: Vec<Precision> = Vec::new();
    for step in steps {
        if !precisions.contains(&step.precision) {
            precisions.push(step.precision);
        }
    }
    let mut heads = vec![("where time goes", Align::Left), ("", Align::Left)];
    for precision in &precisions {
        heads.extend(columns(match precision {
            Precision::F32 => "f32 ms",
            Precision::Bf16 => "bf16 ms",
        }));
    }
    let mut table = Table::new(&heads);
    for of_recipe in steps.chunks(precisions.len()) {
        for (k, place) in PLACES.into_iter().enumerate() {
            let name = if k == 0 { of_recipe[0].recipe.clone() } else { String::new() };
            let mut row = vec![name, place.word().to_string()];
            for step in of_recipe {
                row.extend(step.cost(place, roof(step)).cells(median(&step.seconds)));
            }
            table.row(row);
        }
    }
    format!("{}roof: the higher of arithmetic and memory; above 100 % the caches have served\n", table.text())
}

impl StepSpeed {
    /// Time between kernels counts as other.
    fn cost(&self, place: Where, roof: Roof) -> Cost {
        let mut cost = Cost::default();
        self.kernels
            .iter()
            .filter(|kernel| Where::of(kernel) == place)
            .for_each(|kernel| cost.add(kernel, roof));
        if place == Where::Kernels(Group::Other) {
            let counted: f64 = self.kernels.iter().map(|kernel| kernel.seconds).sum();
            cost.seconds += (median(&self.seconds) - counted).max(0.0);
        }
        cost
    }
}

/// The kernels of one step that take longest.
pub(super) fn kernels_table(step: &StepSpeed, num_kernels: usize, roof: Roof) -> String {
    let mut table = Table::new(&[
        ("kernel", Align::Left),
        ("part", Align::Left),
        ("calls", Align::Right),
        ("ms", Align::Right),
        ("share", Align::Right),
        ("rate", Align::Right),
        ("of roof", Align::Right),
    ]);
    for kernel in step.kernels.iter().take(num_kernels) {
        let mut cost = Cost::default();
        cost.add(kernel, roof);
        let mut row =
            vec![kernel.label.clone(), Where::of(kernel).word().to_string(), kernel.calls.to_string()];
        row.extend(cost.cells(median(&step.seconds)));
        table.row(row);
    }
    format!("{} {}\n{}", step.recipe, word(step.precision), table.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOF: Roof = Roof { products: 200.0, float32: 100.0, bandwidth: 10.0 };

    fn kernel(section: usize, group: Group, flops: f64, bytes: f64) -> KernelCost {
        KernelCost { section, group, label: String::new(), calls: 1, seconds: 2.0, flops, bytes }
    }

    #[test]
    fn a_kernel_is_bound_by_the_higher_roof() {
        let mut cost = Cost::default();
        cost.add(&kernel(0, Group::Products, 200.0, 1.0), ROOF);
        assert_eq!(cost.bound, 1.0);
        cost.add(&kernel(0, Group::Norms, 1.0, 5.0), ROOF);
        assert_eq!(cost.bound, 1.5);
        // Products of the optimizer are float32.
        cost.add(&kernel(UPDATE_SECTION, Group::Products, 200.0, 1.0), ROOF);
        assert_eq!(cost.bound, 3.5);
        assert_eq!(cost.cells(12.0), ["6000.00", "50.0 %", "0 GFLOP/s", "58 %"]);
    }

    #[test]
    fn long_steps_are_cut_where_the_recipe_has_a_dial() {
        let check = |name: &str, tokens: Option<i64>| {
            let text = crate::recipes::find(name).unwrap();
            let fail = |error| from_recipe(name, error);
            let recipe = compile(&text, &Overrides::default()).map_err(fail).unwrap();
            let cut = cut(&recipe, &Overrides::default(), &fail).unwrap();
            let cut = cut.map(|overrides| overrides.values["tokens_per_step"].clone());
            assert_eq!(cut, tokens.map(SettingValue::Int), "{name}");
        };
        check("tiny", None);
        check("nano", Some(4096));
    }
}
