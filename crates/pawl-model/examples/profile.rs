//! Where the time of a training step goes: `profile RECIPE [name=value ...]`, on one thread, in processor
//! time, so that other processes do not count.
#![allow(clippy::print_stdout)]

use pawl_engine::Precision;
use pawl_model::Model;
use pawl_recipe::{Overrides, Recipe, Source, shipped, std_only};
use pawl_record::{SettingValue, Settings};

fn main() {
    let mut args = std::env::args().skip(1);
    let name = args.next().expect("profile RECIPE [name=value ...]");
    let text =
        shipped(&name).map(str::to_string).unwrap_or_else(|| std::fs::read_to_string(&name).expect("a file"));
    let mut overrides = Overrides::default();
    let mut values = Settings::new();
    let mut precision = Precision::F32;
    for arg in args {
        let (key, value) = arg.split_once('=').expect("name=value");
        match key {
            "precision" => precision = if value == "bf16" { Precision::Bf16 } else { Precision::F32 },
            "depth" => overrides.depth = value.parse().ok(),
            _ => drop(values.insert(key.to_string(), SettingValue::parse(value))),
        }
    }
    overrides.values = values;
    let recipe =
        Recipe::load(&Source { name, text }, &overrides, &std_only).unwrap_or_else(|e| panic!("{e}"));
    let vocab = recipe.vocab_size() as i32;
    let scalars: Vec<f32> = recipe.schedule_table(10).expect("schedules").iter().map(|row| row[0]).collect();
    let mut model = Model::with_precision(recipe, 1, 0, precision).expect("a model");
    model.engine_mut().start_profile();
    for step in 0..4 {
        if step == 1 {
            model.engine_mut().profile().map(pawl_engine::Profile::take);
        }
        model
            .step::<()>(step, &scalars, |micro, inputs, targets| {
                for (i, (x, y)) in inputs.iter_mut().zip(targets).enumerate() {
                    *x = (i as i32 * 7919 + micro as i32) % vocab;
                    *y = (i as i32 * 104_729 + step as i32) % vocab;
                }
                Ok(())
            })
            .expect("no data to fail");
    }
    let rows = model.engine_mut().profile().expect("started above").take();
    let total: f64 = rows.iter().map(|r| r.seconds).sum::<f64>() / 3.0;
    let rate = model.flops_per_step() / total / 1e9;
    println!("{:.1} ms a step, {rate:.1} GFLOP/s, arena {} MB", total * 1e3, model.memory_bytes() >> 20);
    for r in rows.iter().take(45) {
        println!(
            "{:6.2} ms {:5.1} % {:5} x {:6.1} GFLOP/s {:6.1} GB/s  {}",
            r.seconds / 3.0 * 1e3,
            r.seconds / 3.0 / total * 100.0,
            r.calls / 3,
            r.flops / r.seconds / 1e9,
            r.bytes / r.seconds / 1e9,
            r.label
        );
    }
}
