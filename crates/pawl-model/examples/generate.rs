//! Tokens a second of generation: `generate RECIPE [batch=N] [name=value ...]`, on one thread, by the fastest quarter of the
//! steps, so that other processes count little.
#![allow(clippy::print_stdout)]

use pawl_model::{DecodeOptions, Decoder, Model, Weights};
use pawl_recipe::{Overrides, Recipe, Source, shipped, std_only};
use pawl_record::{SettingValue, Settings};
use std::time::Instant;

fn main() {
    let mut args = std::env::args().skip(1);
    let name = args.next().expect("generate RECIPE [name=value ...]");
    let text =
        shipped(&name).map(str::to_string).unwrap_or_else(|| std::fs::read_to_string(&name).expect("a file"));
    let mut overrides = Overrides::default();
    let mut values = Settings::new();
    let mut batches = vec![1, 4, 16, 32];
    for arg in args {
        let (key, value) = arg.split_once('=').expect("name=value");
        match key {
            "depth" => overrides.depth = value.parse().ok(),
            "batch" => batches = vec![value.parse().expect("a number of sequences")],
            _ => drop(values.insert(key.to_string(), SettingValue::parse(value))),
        }
    }
    overrides.values = values;
    let recipe =
        Recipe::load(&Source { name, text }, &overrides, &std_only).unwrap_or_else(|e| panic!("{e}"));
    let model = Model::new(recipe, 1, 0).expect("a model");
    for weights in [Weights::F32, Weights::Bf16, Weights::Int8] {
        for batch in &batches {
            measure(&model, weights, *batch);
        }
    }
}

fn measure(model: &Model, weights: Weights, batch: usize) {
    let options = DecodeOptions { weights, ..DecodeOptions::default() };
    let mut decoder = Decoder::new(model, batch, options).expect("a decoder");
    let vocab = model.recipe().vocab_size() as u32;
    let num = (400 / batch).clamp(40, decoder.seq_len() - 1);
    let mut step = |p: usize| {
        let lanes: Vec<(usize, u32)> =
            (0..batch).map(|row| (row, ((p * 37 + row * 11) as u32) % vocab)).collect();
        decoder.step(&lanes).map(|logits| logits.row(0)[0]).expect("room")
    };
    step(0);
    let mut times: Vec<f64> = (1..num)
        .map(|p| {
            let started = Instant::now();
            step(p);
            started.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let seconds = times[times.len() / 8];
    let bytes = decoder.weight_bytes() as f64;
    println!(
        "{weights:?} {batch:2} sequences: {:7.0} tokens/s, {:.2} ms a step, {:.1} GB/s of {:.0} MB of matrices",
        batch as f64 / seconds,
        seconds * 1e3,
        bytes / seconds / 1e9,
        bytes / 1e6
    );
    if batch == 1 {
        decoder.reset(0).expect("a row");
        let prompt: Vec<u32> = (0..256.min(decoder.seq_len())).map(|i| i as u32 % vocab).collect();
        let started = Instant::now();
        decoder.prefill(0, &prompt).expect("room");
        let rate = prompt.len() as f64 / started.elapsed().as_secs_f64();
        println!("{weights:?} prompt: {rate:7.0} tokens/s");
    }
}
