//! `pairs [--lab DIR] [--seeds N] [--minutes M]`: trains what `cargo xtask judge pairing` looks at, and leaves one
//! file a run in `LAB/pairs/`. A run that has its file is not run again, so it can be stopped and started at will.
//!
//! It trains as `pawl_train::pretrain` does, from the same calls, and reads more of each run than the product
//! needs: scores along the way, of averaged weights, and of several amounts of text. Seeds are the outer loop:
//! what is there when it is stopped is as many whole sets of arms as there was time for.

#![allow(clippy::print_stdout, clippy::print_stderr)] // its output is what it is for

mod arms;
mod run;
mod score;

use arms::{Arm, LADDER, STUDIES, Study};
use pawl_recipe::{Overrides, Recipe, Source, shipped, std_only};
use pawl_record::{SettingValue, write_json};
use pawl_train::{PreparedData, prepare};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "usage: pairs [--lab DIR] [--seeds N] [--minutes M] [--study NAME]";

struct Options {
    lab: PathBuf,
    seeds: u64,
    minutes: f64,
    study: Option<String>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(options) = parse(&args) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match train_all(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn parse(args: &[String]) -> Option<Options> {
    let mut options = Options { lab: PathBuf::from("lab"), seeds: 8, minutes: f64::INFINITY, study: None };
    for pair in args.chunks(2) {
        let [name, value] = pair else { return None };
        match name.as_str() {
            "--lab" => options.lab = PathBuf::from(value),
            "--seeds" => options.seeds = value.parse().ok()?,
            "--minutes" => options.minutes = value.parse().ok()?,
            "--study" => options.study = Some(value.clone()),
            _ => return None,
        }
    }
    Some(options)
}

fn train_all(options: &Options) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let data = prepare(&options.lab, pawl_data::CARRIED, 2048, &|_| ())?;
    let studies =
        || STUDIES.iter().chain(LADDER).filter(|it| options.study.as_deref().is_none_or(|s| s == it.name));
    for seed in 0..options.seeds {
        for study in studies() {
            for arm in study.arms {
                if begun.elapsed().as_secs_f64() > 60.0 * options.minutes {
                    eprintln!("out of time at seed {seed}: the same command goes on");
                    return Ok(());
                }
                one(&options.lab, &data, study, arm, seed)?;
            }
        }
    }
    Ok(())
}

/// Trains one arm on one seed, unless its file is there.
fn one(lab: &Path, data: &PreparedData, study: &Study, arm: &Arm, seed: u64) -> Result<(), Box<dyn Error>> {
    let path = lab.join("pairs").join(format!("{}.{}.{seed:02}.json", study.name, arm.name));
    if path.exists() {
        return Ok(());
    }
    let mut overrides = Overrides { depth: Some(study.depth), ..Overrides::default() };
    for (name, value) in study.base.iter().chain(arm.settings) {
        overrides.values.insert((*name).to_string(), setting(value));
    }
    let text = shipped("tiny").expect("tiny is shipped").to_string();
    let recipe = Recipe::load(&Source { name: "tiny.star".to_string(), text }, &overrides, &std_only)?;
    let begun = Instant::now();
    let init_seed = if arm.redraws { seed + REDRAWN } else { seed };
    let seen = run::train(recipe, data, study.flops, seed, init_seed)?;
    let (steps, score) = (seen.losses.len(), seen.scores[score::FINAL]);
    println!(
        "{} {} {seed}: {steps} steps  {score:.5}  {:.1} s",
        study.name,
        arm.name,
        begun.elapsed().as_secs_f64()
    );
    std::fs::create_dir_all(lab.join("pairs"))?;
    Ok(write_json(&path, &seen)?)
}

/// Added to the seed where an A/A pair draws initial values anew.
const REDRAWN: u64 = 1_000_003;

fn setting(value: &str) -> SettingValue {
    match value {
        "True" => SettingValue::Bool(true),
        "False" => SettingValue::Bool(false),
        _ => match (value.parse::<i64>(), value.parse::<f64>()) {
            (Ok(whole), _) => SettingValue::Int(whole),
            (Err(_), Ok(real)) => SettingValue::Float(real),
            (Err(_), Err(_)) => SettingValue::Text(value.to_string()),
        },
    }
}
