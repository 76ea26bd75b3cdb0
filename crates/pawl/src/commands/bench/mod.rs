//! `pawl bench`: what this machine can do at most, and how near to it products, training steps and decoding
//! come. It needs no lab and no data: tokens are made up, their number is what costs.

mod decode;
mod lessons;
mod limits;
mod products;
mod researchers;
mod scaling;
mod side_by_side;
mod steps;

use crate::args::{Bench, BenchOf, BenchPart, Precisions};
use crate::errors::Failure;
use crate::machine::{cores, describe};
use crate::output::{Answer, Block, Status, count, duration, flops};
use crate::recipes::{RecipeText, compile, find, from_recipe};
use decode::Decode;
use limits::Limits;
use pawl_engine::Precision;
use pawl_engine::kernels::has_bf16;
use pawl_engine::pool::Pool;
use pawl_recipe::Overrides;
use products::ProductSpeed;
use scaling::Scaling;
use serde_json::{Value, json};
use std::time::Instant;
use steps::{Roof, StepSpeed};

/// Models of comparisons with other engines: known to this command alone.
const MODELS: [(&str, &str); 2] = [("small", include_str!("small.star")), ("big", include_str!("big.star"))];
/// Recipes of a measurement that names none.
const RECIPES: [&str; 4] = ["tiny", "nano", "small", "big"];
/// The same for a quick one.
const QUICK_RECIPES: [&str; 1] = ["tiny"];

/// How to measure.
struct How<'a> {
    num_threads: usize,
    quick: bool,
    precisions: &'a [Precision],
    status: &'a Status,
}

/// Everything that was found; a part that was not asked for is empty.
struct Found {
    limits: Limits,
    products: Vec<ProductSpeed>,
    steps: Vec<StepSpeed>,
    decode: Vec<Decode>,
    scaling: Scaling,
}

pub(crate) fn run(args: Bench) -> Result<Answer, Failure> {
    match &args.of {
        Some(BenchOf::Researchers(args)) => return researchers::run(args),
        Some(BenchOf::Lessons(args)) => return lessons::run(args),
        None => {}
    }
    let begun = Instant::now();
    let texts = recipe_texts(&args)?;
    let num_threads = args.threads.map_or_else(cores, |threads| threads as usize);
    let precisions = precisions(args.precision);
    let status = Status::new(args.json);
    let how = How { num_threads, quick: args.quick, precisions: &precisions, status: &status };
    let wants = |part| match args.only.is_empty() {
        true => part != BenchPart::Scaling,
        false => args.only.contains(&part),
    };
    // What is wrong with a recipe is said before anything is measured.
    let overrides = args.turned.overrides();
    for text in &texts {
        compile(text, &overrides).map_err(|error| from_recipe(&text.name, error))?;
    }
    if args.beside {
        return side_by_side::serve(&how, &texts[0], &overrides);
    }
    let mut found = Found {
        limits: Limits::measure(&how),
        products: Vec::new(),
        steps: Vec::new(),
        decode: Vec::new(),
        scaling: Scaling::default(),
    };
    if wants(BenchPart::Products) {
        found.products = products::measure(&how);
    }
    if wants(BenchPart::Steps) {
        for text in &texts {
            for precision in &precisions {
                found.steps.push(steps::measure(&how, text, &overrides, *precision)?);
            }
        }
    }
    if wants(BenchPart::Decode) {
        found.decode = decode::measure(&how)?;
    }
    if wants(BenchPart::Scaling) {
        found.scaling = Scaling::measure(&how)?;
    }
    status.clear();
    Ok(answer(&args, num_threads, &found, begun.elapsed().as_secs_f64()))
}

/// Every recipe that was named, or the usual ones.
fn recipe_texts(args: &Bench) -> Result<Vec<RecipeText>, Failure> {
    let usual: &[&str] = if args.quick { &QUICK_RECIPES } else { &RECIPES };
    let files: Vec<&str> = match args.files.is_empty() {
        true => usual.to_vec(),
        false => args.files.iter().map(String::as_str).collect(),
    };
    let text = |file: &str| match model_text(file) {
        Some(text) if !std::path::Path::new(file).exists() => Ok(text),
        Some(_) | None => find(file),
    };
    files.into_iter().map(text).collect()
}

/// A model of comparisons.
fn model_text(name: &str) -> Option<RecipeText> {
    let (name, text) = MODELS.iter().find(|(known, _)| *known == name)?;
    Some(RecipeText { name: (*name).to_string(), text: (*text).to_string() })
}

fn precisions(asked: Precisions) -> Vec<Precision> {
    match asked {
        Precisions::F32 => vec![Precision::F32],
        Precisions::Bf16 => vec![Precision::Bf16],
        // Without the instructions bfloat16 is only slower: it is measured where it is asked for by name.
        Precisions::All if has_bf16() => vec![Precision::F32, Precision::Bf16],
        Precisions::All => vec![Precision::F32],
    }
}

/// As the command line and the tables write it.
fn word(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    }
}

/// Seconds of calls of `call`, ascending: at least `least`, then until `budget` seconds are over.
fn timed(least: usize, budget: f64, mut call: impl FnMut()) -> Vec<f64> {
    let begun = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < least || begun.elapsed().as_secs_f64() < budget {
        let start = Instant::now();
        call();
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    seconds
}

/// The middle of ascending numbers, of which there is at least one.
fn median(ascending: &[f64]) -> f64 {
    ascending[ascending.len() / 2]
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

fn answer(args: &Bench, num_threads: usize, found: &Found, seconds: f64) -> Answer {
    let Found { limits, products, steps, decode, scaling } = found;
    let roofs = |step: &StepSpeed| -> Roof { limits.roof(step.precision) };
    let mut parts = vec![limits.table()];
    if !products.is_empty() {
        parts.push(products::table(products, limits));
    }
    if !steps.is_empty() {
        parts.push(steps::table(steps, limits));
        parts.push(steps::groups_table(steps, roofs));
    }
    if !decode.is_empty() {
        parts.push(decode::table(decode, limits));
    }
    parts.extend(scaling.tables(limits));
    if args.kernels > 0 {
        let steps = steps.iter().chain(scaling.series_steps());
        parts.extend(steps.map(|step| steps::kernels_table(step, args.kernels, roofs(step))));
    }
    let mut block = Block::default();
    block
        .line("machine", describe())
        .line("threads", num_threads)
        .line("float32_peak", format!("{}/s", flops(limits.all.float32.best)))
        .maybe("bfloat16_peak", limits.all.bfloat16.map(|rate| format!("{}/s", flops(rate.best))))
        .line("memory_bandwidth", format!("{:.1} GB/s", limits.all.bandwidth() / 1e9));
    for step in steps {
        let share = percent(step.flops_per_sec() / limits.all.float32.best);
        let speed = format!("{} tokens/s, {share} of the float32 peak", count(step.tokens_per_sec()));
        block.line(&format!("{} {}", step.recipe, word(step.precision)), speed);
    }
    scaling.summary(&mut block);
    block.line("took", duration(seconds));
    parts.push(block.text().to_string());
    Answer::new(parts.join("\n"), document(args, num_threads, found, seconds))
}

fn document(args: &Bench, num_threads: usize, found: &Found, seconds: f64) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "machine": describe(),
        "threads": num_threads,
        "quick": args.quick,
        "limits": found.limits.json(),
        "products": found.products.iter().map(ProductSpeed::json).collect::<Vec<_>>(),
        "steps": found.steps.iter().map(|step| step.json(&found.limits)).collect::<Vec<_>>(),
        "decode": found.decode.iter().map(|decode| decode.json(&found.limits)).collect::<Vec<_>>(),
        "scaling": found.scaling.json(&found.limits),
        "seconds": seconds,
    })
}

/// A recipe that is shipped, turned; wrong only by a defect of ours.
fn shipped_recipe(name: &str, overrides: &Overrides) -> Result<pawl_recipe::Recipe, Failure> {
    let text = find(name)?;
    compile(&text, overrides).map_err(|error| from_recipe(&text.name, error))
}
