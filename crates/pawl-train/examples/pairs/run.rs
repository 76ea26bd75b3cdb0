//! One run, and all that is read of it.

use crate::score::{self, HeldOut};
use pawl_data::{Loader, LoaderSettings, Packing};
use pawl_model::{Model, Precision};
use pawl_recipe::Recipe;
use pawl_train::PreparedData;
use std::collections::BTreeMap;
use std::error::Error;

/// What is read of a run.
#[derive(serde::Serialize)]
pub(crate) struct Seen {
    /// Tokens of an update.
    pub(crate) tokens_per_step: usize,
    /// FLOPs of an update.
    pub(crate) flops_per_step: f64,
    /// Training loss of each update, nats per token.
    pub(crate) losses: Vec<f32>,
    /// Held-out bits per byte by name: see [`score`].
    pub(crate) scores: BTreeMap<String, f64>,
}

/// Shares of the run, in percent, after which a little text is scored.
const ALONG: [u64; 6] = [10, 25, 50, 85, 90, 95];

/// Last shares of the run, in percent, whose weights are averaged.
const TAILS: [u64; 4] = [5, 10, 20, 40];

/// Trains and scores. In bfloat16, which changes scores by 1e-5 (LOG.md) and halves the time.
pub(crate) fn train(
    recipe: Recipe,
    data: &PreparedData,
    flops: f64,
    seed: u64,
    init_seed: u64,
) -> Result<Seen, Box<dyn Error>> {
    let settings = LoaderSettings {
        seed,
        seq_len: recipe.seq_len(),
        batch: recipe.micro_batch(),
        mixture: recipe.mixture().clone(),
        packing: Packing::BestFit,
    };
    let mut loader = Loader::new(&data.shards, settings)?;
    let names: Vec<String> = recipe.params().iter().map(|p| p.name.clone()).collect();
    let summary = recipe.summary()?;
    let num_steps = ((flops / summary.flops_per_step) as u64).max(1);
    let schedules = recipe.schedule_table(num_steps)?;
    let tokens_per_step = recipe.tokens_per_step();
    let mut model = Model::with_precision(recipe, 1, init_seed, Precision::Bf16)?;
    let mut held_out = HeldOut::new(&model, data)?;
    let num_micro = model.num_micro() as u64;
    let mut tails: Vec<Tail> = TAILS.iter().map(|&share| Tail::new(share, num_steps)).collect();
    let (mut losses, mut scores) = (Vec::new(), BTreeMap::new());
    for step in 0..num_steps {
        let scalars: Vec<f32> = schedules.iter().map(|row| row[step as usize]).collect();
        let loss = model.step(step, &scalars, |micro_idx, inputs, targets| {
            loader.batch(step * num_micro + micro_idx as u64, inputs, targets)
        })?;
        losses.push(loss);
        let done = step + 1;
        for tail in tails.iter_mut().filter(|tail| done > tail.after) {
            tail.add(&model, &names);
        }
        for share in ALONG {
            if done == (share * num_steps).div_ceil(100) && done < num_steps {
                scores.insert(format!("at {share}"), held_out.little(&model));
            }
        }
    }
    for (size, bpb) in score::SIZES.iter().zip(held_out.by_size(&model)) {
        scores.insert(score::of_size(*size), bpb);
    }
    scores.insert("at 100".to_string(), held_out.little(&model));
    let last = Tail::weights(&model, &names);
    for tail in tails {
        let name = format!("tail {}", tail.share);
        tail.enter(&mut model, &names);
        scores.insert(name, held_out.little(&model));
        Tail::restore(&last, &mut model, &names);
    }
    Ok(Seen { tokens_per_step, flops_per_step: summary.flops_per_step, losses, scores })
}

/// Uniform average of the weights after the last updates of a run.
struct Tail {
    share: u64,
    /// Updates after which it begins.
    after: u64,
    count: u64,
    sums: Vec<Vec<f64>>,
}

impl Tail {
    fn new(share: u64, num_steps: u64) -> Tail {
        let length = (share * num_steps).div_ceil(100);
        Tail { share, after: num_steps - length, count: 0, sums: Vec::new() }
    }

    fn weights(model: &Model, names: &[String]) -> Vec<Vec<f32>> {
        names.iter().map(|name| model.param(name).expect("a declared parameter").to_vec()).collect()
    }

    fn add(&mut self, model: &Model, names: &[String]) {
        let sums = std::mem::take(&mut self.sums).into_iter().map(Some).chain(std::iter::repeat(None));
        self.sums = names
            .iter()
            .zip(sums)
            .map(|(name, sum)| {
                let now = model.param(name).expect("a declared parameter").iter().map(|w| f64::from(*w));
                match sum {
                    Some(sum) => sum.into_iter().zip(now).map(|(a, b)| a + b).collect(),
                    None => now.collect(),
                }
            })
            .collect();
        self.count += 1;
    }

    fn enter(self, model: &mut Model, names: &[String]) {
        let count = self.count as f64;
        let mean = self.sums.iter().map(|sum| sum.iter().map(|w| (w / count) as f32).collect());
        Tail::restore(&mean.collect::<Vec<Vec<f32>>>(), model, names);
    }

    fn restore(weights: &[Vec<f32>], model: &mut Model, names: &[String]) {
        for (name, weights) in names.iter().zip(weights) {
            let param = model.tensor_mut(name).expect("a declared parameter");
            param.floats_mut().copy_from_slice(weights);
        }
    }
}
