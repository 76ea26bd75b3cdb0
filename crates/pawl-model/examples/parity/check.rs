//! What nano.star computes against what a golden file says it should: one line a check.
//!
//! Weights and tokens are made of integers (`inputs.rs`); sizes, streams and hyperparameters come from the file.
//! Parameters after a step are compared by norm alone: the first step of AdamW is the sign of the gradient, and a
//! gradient that is zero but for rounding moves its weight by a whole step either way.

use crate::inputs::{hash, tokens, uniform};
use pawl_engine::reference::{Leaves, Tensor, leaf};
use pawl_graph::{Graph, InputKind, Mask, Op, ValueId};
use pawl_recipe::{Overrides, Recipe, RecipeError, Source, UpdateGraph, shipped, std_only};
use pawl_record::{SettingValue, Settings};
use serde_json::Value;
use std::collections::BTreeSet;

/// Runs a graph on leaves and returns the outputs.
pub(crate) type Machine<'a> = dyn FnMut(&Graph, &Leaves, &[ValueId]) -> Vec<Tensor> + 'a;

/// Largest differences allowed; beside each the worst seen against nanochat in float32, of the reference in float64
/// and of the engine.
const LOGITS: f64 = 5e-6; // 5.1e-7, 4.8e-7
const LOSS: f64 = 1e-6; // 2.7e-7, 4.8e-7
const GRADIENT: f64 = 1e-5; // of the norm: 8.2e-7, 1.8e-6
const OPTIMIZER: f64 = 1e-6; // 2.8e-8, 3.0e-8
const TRAJECTORY: f64 = 5e-5; // 4.3e-6, 2.6e-5
/// Of the norm, or absolute below 1: 6.5e-5, for a parameter of one number, whose gradient is a sum over all tokens
/// that nearly cancels and whose steps are 0.2 whatever the gradient's size.
const NORM_AFTER_STEPS: f64 = 5e-4;

/// The outcome of one check.
pub(crate) struct Line {
    /// What was compared.
    pub(crate) name: String,
    /// Largest difference seen.
    pub(crate) worst: f64,
    /// Largest difference allowed.
    pub(crate) tolerance: f64,
}

impl Line {
    /// Whether the difference is within the tolerance; NaN is not.
    pub(crate) fn holds(&self) -> bool {
        self.worst <= self.tolerance
    }
}

/// All checks of a file.
#[derive(Default)]
pub(crate) struct Report {
    /// In order of the file's sections.
    pub(crate) lines: Vec<Line>,
    /// Keys that the file lacks, or that nothing here compares.
    pub(crate) skipped: Vec<String>,
}

impl Report {
    fn line(&mut self, name: impl Into<String>, worst: f64, tolerance: f64) {
        self.lines.push(Line { name: name.into(), worst, tolerance });
    }

    /// Whether every check holds and there was at least one.
    pub(crate) fn holds(&self) -> bool {
        !self.lines.is_empty() && self.lines.iter().all(Line::holds)
    }
}

/// Keys that are read, each by the check of its name; the rest is named as skipped.
const KEYS: &[(&str, fn(&Golden<'_>, &mut Machine<'_>, &mut Report))] = &[
    ("order", parameters),
    ("config", costs),
    ("logits", logits),
    ("loss0", losses),
    ("gradnorm", gradients),
    ("greedy", greedy),
    ("bpb", bits_per_byte),
    ("trajectory", trajectory),
    ("optimizer", optimizer_units),
    ("packing", packing),
];

/// Keys that are notes, or that a check above reads along with its own.
const ALONG: &[&str] = &[
    "about",
    "names",
    "inputs",
    "tolerance_note",
    "loss_masked",
    "ptl",
    "grad0",
    "logits_sum",
    "logits_sqsum",
];

/// Runs every check whose key is in the file.
pub(crate) fn run(file: &Value, machine: &mut Machine<'_>) -> Result<Report, RecipeError> {
    let golden = Golden::new(file)?;
    let mut report = Report::default();
    let present: Vec<&str> =
        file.as_object().map(|o| o.keys().map(String::as_str).collect()).unwrap_or_default();
    for (key, check) in KEYS {
        if present.iter().any(|p| p == key || (*key == "logits" && logits_place(p).is_some())) {
            check(&golden, machine, &mut report);
        } else {
            report.skipped.push(format!("{key} (absent)"));
        }
    }
    for key in ["loss_masked", "ptl", "grad0", "logits_sum", "logits_sqsum"] {
        if !present.contains(&key) {
            report.skipped.push(format!("{key} (absent)"));
        }
    }
    for key in present {
        let known =
            KEYS.iter().any(|(k, _)| *k == key) || ALONG.contains(&key) || logits_place(key).is_some();
        if !known {
            report.skipped.push(format!("{key} (unknown)"));
        }
    }
    Ok(report)
}

/// A golden file, the recipe at its sizes and the weights it names.
struct Golden<'a> {
    file: &'a Value,
    recipe: Recipe,
    weights: Leaves,
    batch_size: usize,
    seq_len: usize,
    vocab_size: usize,
}

impl<'a> Golden<'a> {
    fn new(file: &'a Value) -> Result<Golden<'a>, RecipeError> {
        let config = &file["config"];
        let mut weights = Leaves::new();
        for (name, how) in file["order"].as_object().into_iter().flatten() {
            let len = numbers(&how["shape"]).iter().product::<f64>() as usize;
            let values = uniform(int(&how["p"]) as u32, len, number(&how["mean"]), number(&how["std"]));
            weights.insert(leaf(&InputKind::Param, name), Tensor::Real(values));
        }
        let recipe = load_nano(file)?;
        let batch_size = file["inputs"]["batch_size"].as_u64().unwrap_or(2) as usize;
        let (seq_len, vocab_size) = (int(&config["sequence_len"]), int(&config["vocab_size"]));
        Ok(Golden { file, recipe, weights, batch_size, seq_len, vocab_size })
    }

    /// Batch `k`: rows of T + 1 tokens, inputs all but the last, targets all but the first.
    fn batch(&self, k: usize) -> (Vec<i32>, Vec<i32>) {
        let stream = self.file["inputs"]["batch_stream"].as_u64().unwrap_or(1000) as u32 + k as u32;
        let row_len = self.seq_len + 1;
        let all = tokens(stream, self.batch_size * row_len, self.vocab_size);
        let rows = || all.chunks(row_len);
        (
            rows().flat_map(|r| &r[..self.seq_len]).copied().collect(),
            rows().flat_map(|r| &r[1..]).copied().collect(),
        )
    }

    fn leaves(&self, inputs: Vec<i32>, targets: Vec<i32>) -> Leaves {
        let mut leaves = self.weights.clone();
        leaves.insert(leaf(&InputKind::Tokens, "tokens"), Tensor::Int(inputs));
        leaves.insert(leaf(&InputKind::Targets, "targets"), Tensor::Int(targets));
        leaves
    }
}

/// nano.star at the sizes of the file. Its trajectory is a list of numbers a step, which take the place of the
/// library's schedules.
fn load_nano(file: &Value) -> Result<Recipe, RecipeError> {
    let (config, trajectory) = (&file["config"], &file["trajectory"]);
    let (width, heads) = (int(&config["n_embd"]), int(&config["n_head"]));
    let seq_len = int(&config["sequence_len"]);
    let mut values = Settings::new();
    let mut dial = |name: &str, value: usize| {
        values.insert(name.to_string(), SettingValue::Int(value as i64));
    };
    dial("seq_len", seq_len);
    dial("vocab_size", int(&config["vocab_size"]));
    dial("width", width);
    dial("head_dim", width / heads);
    dial("num_heads", heads);
    dial("num_kv_heads", int(&config["n_kv_head"]));
    // Learning rates in the file are those of 2^19 tokens a step; the recipe scales them by the root of its own.
    let tokens_per_step = (1 << 19) / seq_len * seq_len;
    dial("tokens_per_step", tokens_per_step);
    let scale = (tokens_per_step as f64 / f64::from(1 << 19)).sqrt();
    for lr in ["matrix_lr", "embedding_lr", "unembedding_lr", "scalar_lr"] {
        if let Some(value) = trajectory["setup"][lr].as_f64() {
            values.insert(lr.to_string(), SettingValue::Float(value / scale));
        }
    }
    let windows = config["window_pattern"].as_str().unwrap_or("L").to_string();
    values.insert("windows".to_string(), SettingValue::Text(windows));
    let overrides = Overrides { depth: Some(int(&config["n_layer"]) as u64), values };
    let text = shipped("nano.star").expect("the recipe travels in the crate").to_string();
    let schedules = trajectory.is_object().then(|| {
        format!(
            "def nanochat_lr(*args):\n    return lambda t: {}[t.step]\n\
             def nanochat_momentum(*args):\n    return lambda t: {}[t.step]\n\
             def cosine_decay(*args):\n    return lambda t: {}[t.step]\n",
            trajectory["lrm"], trajectory["momentum"], trajectory["muon_wd"]
        )
    });
    let loader = |name: &str| match (name, &schedules) {
        ("std/schedule.star", Some(text)) => Ok(text.clone()),
        _ => std_only(name),
    };
    Recipe::load(&Source { name: "nano.star".to_string(), text }, &overrides, &loader)
}

/// Names and shapes of the parameters; counts those that differ.
fn parameters(golden: &Golden<'_>, _: &mut Machine<'_>, report: &mut Report) {
    let order = golden.file["order"].as_object();
    let asked: BTreeSet<(String, Vec<usize>)> =
        golden.recipe.params().iter().map(|p| (p.name.clone(), p.shape.clone())).collect();
    let expected: BTreeSet<(String, Vec<usize>)> = order
        .into_iter()
        .flatten()
        .map(|(name, how)| (name.clone(), numbers(&how["shape"]).iter().map(|n| *n as usize).collect()))
        .collect();
    let differing = asked.symmetric_difference(&expected).count();
    report.line(format!("{} parameters by name and shape", expected.len()), differing as f64, 0.0);
}

/// FLOPs of training a token by nanochat's count, and the windows: both read off the graph.
fn costs(golden: &Golden<'_>, _: &mut Machine<'_>, report: &mut Report) {
    let model = golden.recipe.logits_graph(1, golden.seq_len).expect("the recipe was traced at this length");
    let graph = &model.graph;
    let mut flops = 0.0;
    let mut windows = Vec::new();
    for instr in &graph.instrs {
        if matches!(instr.op, Op::Matmul { .. }) {
            flops += 6.0 * graph.values[instr.inputs[1].idx()].len() as f64;
        }
        if let Op::Attention { mask: Mask::Causal { window }, .. } = instr.op {
            let q = graph.shape(instr.inputs[0]);
            let seen = window.min(golden.seq_len);
            flops += (12 * q[2] * q[3] * seen) as f64;
            windows.push(seen as f64);
        }
    }
    let config = &golden.file["config"];
    match config["flops_per_token"].as_f64() {
        Some(expected) => report.line("flops_per_token", (flops - expected).abs(), 0.0),
        None => report.skipped.push("config.flops_per_token (absent)".to_string()),
    }
    if config["windows"].is_array() {
        report.line("attention windows", worst(&windows, &numbers(&config["windows"])), 0.0);
    }
}

/// `logits_ROW_POSITION`
fn logits_place(key: &str) -> Option<(usize, usize)> {
    let (row, position) = key.strip_prefix("logits_")?.split_once('_')?;
    Some((row.parse().ok()?, position.parse().ok()?))
}

fn logits(golden: &Golden<'_>, machine: &mut Machine<'_>, report: &mut Report) {
    let (batch, t, v) = (golden.batch_size, golden.seq_len, golden.vocab_size);
    let model = golden.recipe.logits_graph(batch, t).expect("the recipe was traced at this length");
    let (inputs, targets) = golden.batch(0);
    let out = machine(&model.graph, &golden.leaves(inputs, targets), &[model.logits]);
    let z = out[0].real();
    for (key, expected) in golden.file.as_object().into_iter().flatten() {
        if let Some((row, position)) = logits_place(key) {
            let expected = numbers(expected);
            let at = (row * t + position) * v;
            report.line(
                format!("logits, row {row} position {position}"),
                worst(&z[at..][..expected.len()], &expected),
                LOGITS,
            );
        }
    }
    // A sum of N differences of either sign is about the root of N of them.
    if let Some(expected) = golden.file["logits_sum"].as_f64() {
        report.line(
            "logits, sum",
            (z.iter().sum::<f64>() - expected).abs(),
            LOGITS * (z.len() as f64).sqrt(),
        );
    }
    if let Some(expected) = golden.file["logits_sqsum"].as_f64() {
        let sum: f64 = z.iter().map(|z| z * z).sum();
        report.line("logits, sum of squares", (sum - expected).abs() / expected, LOGITS);
    }
}

fn losses(golden: &Golden<'_>, machine: &mut Machine<'_>, report: &mut Report) {
    let graph = golden.recipe.loss_graph(golden.batch_size, golden.seq_len).expect("traced at this length");
    let (inputs, mut targets) = golden.batch(0);
    let mut nats = |targets: &[i32]| {
        let out = machine(&graph.graph, &golden.leaves(inputs.clone(), targets.to_vec()), &[graph.losses]);
        out[0].real().to_vec()
    };
    let mean = |nats: &[f64], targets: &[i32]| {
        nats.iter().sum::<f64>() / targets.iter().filter(|target| **target >= 0).count() as f64
    };
    let all = nats(&targets);
    let first = numbers(&golden.file["ptl"]);
    if !first.is_empty() {
        report.line("loss of the first tokens", worst(&all[..first.len()], &first), LOSS);
    }
    report.line("loss", (mean(&all, &targets) - number(&golden.file["loss0"])).abs(), LOSS);
    if let Some(expected) = golden.file["loss_masked"].as_f64() {
        targets[10..20].fill(-1);
        report.line("loss, ten targets masked", (mean(&nats(&targets), &targets) - expected).abs(), LOSS);
    }
}

/// The training loss and the gradient of every parameter.
struct Differentiated {
    graph: Graph,
    names: Vec<String>,
    /// The loss, then the gradients in order of `names`.
    outputs: Vec<ValueId>,
}

impl Differentiated {
    fn new(golden: &Golden<'_>) -> Differentiated {
        let mut train = golden.recipe.train_graph(golden.batch_size).expect("traced at this length");
        let params: Vec<ValueId> = train.params.iter().map(|p| p.value).collect();
        let grads = train.graph.gradients(train.loss, &params);
        Differentiated {
            outputs: [train.loss].into_iter().chain(grads).collect(),
            names: train.params.into_iter().map(|p| p.name).collect(),
            graph: train.graph,
        }
    }
}

fn gradients(golden: &Golden<'_>, machine: &mut Machine<'_>, report: &mut Report) {
    let train = Differentiated::new(golden);
    let (inputs, targets) = golden.batch(0);
    let out = machine(&train.graph, &golden.leaves(inputs, targets), &train.outputs);
    let (mut norms, mut firsts) = (0f64, 0f64);
    for (name, grad) in train.names.iter().zip(&out[1..]) {
        let expected = number(&golden.file["gradnorm"][name]);
        norms = larger(norms, (norm(grad.real()) - expected).abs() / expected);
        let first = numbers(&golden.file["grad0"][name]);
        firsts = larger(firsts, worst(&grad.real()[..first.len()], &first) / expected);
    }
    report.line(format!("gradient norms, {} parameters", train.names.len()), norms, GRADIENT);
    if golden.file["grad0"].is_object() {
        report.line("gradients, first entries over the norm", firsts, GRADIENT);
    }
}

/// The most probable token again and again; counts tokens that differ.
fn greedy(golden: &Golden<'_>, machine: &mut Machine<'_>, report: &mut Report) {
    let model = golden.recipe.logits_graph(1, golden.seq_len).expect("traced at this length");
    let ids = |key: &str| numbers(&golden.file["greedy"][key]).iter().map(|n| *n as i32).collect::<Vec<_>>();
    let (mut text, continuation) = (ids("prompt"), ids("continuation"));
    let prompt_len = text.len();
    for _ in 0..continuation.len() {
        // What stands behind the text cannot be seen from its last position.
        let mut inputs = text.clone();
        inputs.resize(golden.seq_len, 0);
        let out = machine(&model.graph, &golden.leaves(inputs, Vec::new()), &[model.logits]);
        let at = (text.len() - 1) * golden.vocab_size;
        let last = &out[0].real()[at..][..golden.vocab_size];
        let best = (0..last.len()).max_by(|a, b| last[*a].total_cmp(&last[*b]).then(b.cmp(a)));
        text.push(best.expect("a vocabulary has tokens") as i32);
    }
    let differing = text[prompt_len..].iter().zip(&continuation).filter(|(a, b)| a != b).count();
    report.line(format!("{} greedy tokens", continuation.len()), differing as f64, 0.0);
}

fn bits_per_byte(golden: &Golden<'_>, machine: &mut Machine<'_>, report: &mut Report) {
    let graph = golden.recipe.loss_graph(golden.batch_size, golden.seq_len).expect("traced at this length");
    let bpb = &golden.file["bpb"];
    let stream = bpb["token_bytes_hash_stream"].as_u64().unwrap_or(3000) as u32;
    let modulus = whole_numbers(bpb["token_bytes_rule"].as_str().unwrap_or("hash % 6"))[0];
    let bytes: Vec<usize> =
        (0..golden.vocab_size).map(|i| hash(stream, i as u32) as usize % modulus).collect();
    let (mut total_nats, mut total_bytes) = (0.0, 0);
    for k in numbers(&bpb["batches"]) {
        let (inputs, targets) = golden.batch(k as usize);
        let out = machine(&graph.graph, &golden.leaves(inputs, targets.clone()), &[graph.losses]);
        for (nats, target) in out[0].real().iter().zip(targets) {
            let len = bytes[target as usize];
            total_nats += if len > 0 { *nats } else { 0.0 };
            total_bytes += len;
        }
    }
    let value = total_nats / (std::f64::consts::LN_2 * total_bytes as f64);
    report.line("bits per byte", (value - number(&bpb["value"])).abs(), LOSS);
}

/// One update of all parameters: gradients and scalars in, new weights and states back into `leaves`.
fn step(
    update: &UpdateGraph,
    scalars: &[Vec<f32>],
    step: usize,
    leaves: &mut Leaves,
    machine: &mut Machine<'_>,
) {
    for (schedule, row) in update.schedules.iter().zip(scalars) {
        let now = vec![f64::from(row[step])];
        leaves.insert(leaf(&InputKind::Scalar, &schedule.scalar), Tensor::Real(now));
    }
    let weights = update.updates.iter().map(|(name, value)| (leaf(&InputKind::Param, name), *value));
    let states = update.states.iter().map(|s| (leaf(&InputKind::State, &s.name), s.value));
    let (keys, outputs): (Vec<_>, Vec<_>) = weights.chain(states).unzip();
    let new = machine(&update.graph, leaves, &outputs);
    leaves.extend(keys.into_iter().zip(new));
}

fn zero_states(update: &UpdateGraph, leaves: &mut Leaves) {
    for state in &update.states {
        let zeros = vec![0.0; state.shape.iter().product()];
        leaves.insert(leaf(&InputKind::State, &state.name), Tensor::Real(zeros));
    }
}

fn trajectory(golden: &Golden<'_>, machine: &mut Machine<'_>, report: &mut Report) {
    let (train, update) = (Differentiated::new(golden), golden.recipe.update_graph());
    let expected = &golden.file["trajectory"];
    let steps = expected["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    let scalars = golden.recipe.schedule_table(steps.len() as u64).expect("one number a step is given");
    let mut leaves = golden.weights.clone();
    zero_states(update, &mut leaves);
    let loss_of = |leaves: &mut Leaves, k: usize, machine: &mut Machine<'_>| {
        let (inputs, targets) = golden.batch(k);
        leaves.insert(leaf(&InputKind::Tokens, "tokens"), Tensor::Int(inputs));
        leaves.insert(leaf(&InputKind::Targets, "targets"), Tensor::Int(targets));
        let mut out = machine(&train.graph, leaves, &train.outputs);
        let grads = out.split_off(1);
        leaves.extend(train.names.iter().map(|name| leaf(&InputKind::Grad, name)).zip(grads));
        out[0].real()[0]
    };
    let mut losses = Vec::new();
    let mut norms = 0f64;
    for (t, after) in steps.iter().enumerate() {
        losses.push(loss_of(&mut leaves, t, machine));
        step(update, &scalars, t, &mut leaves, machine);
        for (name, expected) in after["pnorm"].as_object().into_iter().flatten() {
            let weights = leaves[&leaf(&InputKind::Param, name)].real();
            let (got, expected) = (norm(weights), number(expected));
            norms = larger(norms, (got - expected).abs() / expected.max(1.0));
        }
    }
    losses.push(loss_of(&mut leaves, steps.len(), machine));
    report.line(
        format!("losses of {} steps and after", steps.len()),
        worst(&losses, &numbers(&expected["losses"])),
        TRAJECTORY,
    );
    report.line("parameter norms after each step", norms, NORM_AFTER_STEPS);
}

/// Optimizers on matrices of their own, from gradients that the file names.
fn optimizer_units(golden: &Golden<'_>, machine: &mut Machine<'_>, report: &mut Report) {
    let file = &golden.file["optimizer"];
    for (i, case) in file["cases"].as_array().into_iter().flatten().enumerate() {
        let (kind, shape) = (case["kind"].as_str().unwrap_or_default(), numbers(&case["shape"]));
        let (rows, cols) = (shape[0] as usize, shape[1] as usize);
        let streams: Vec<u32> = numbers(&case["param_stream"]).iter().map(|n| *n as u32).collect();
        let recipe = optimizer_recipe(file, kind, rows, cols, streams.len());
        let update = recipe.update_graph();
        let steps = case["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
        let scalars = recipe.schedule_table(steps.len() as u64).expect("one number a step is given");
        let mut leaves = Leaves::new();
        zero_states(update, &mut leaves);
        for (j, stream) in streams.iter().enumerate() {
            let values = uniform(*stream, rows * cols, 0.0, number(&case["param_std"]));
            leaves.insert(leaf(&InputKind::Param, &format!("w{j}")), Tensor::Real(values));
        }
        let mut difference = 0f64;
        for (t, expected) in steps.iter().enumerate() {
            for j in 0..streams.len() {
                let stream = grad_stream(case["grad_stream"].as_str().unwrap_or_default(), i, t, j);
                let values = uniform(stream, rows * cols, 0.0, number(&case["grad_std"]));
                leaves.insert(leaf(&InputKind::Grad, &format!("w{j}")), Tensor::Real(values));
            }
            step(update, &scalars, t, &mut leaves, machine);
            for (j, expected) in expected.as_array().into_iter().flatten().enumerate() {
                let w = leaves[&leaf(&InputKind::Param, &format!("w{j}"))].real();
                let (first, last) = (numbers(&expected["first"]), numbers(&expected["last"]));
                difference = larger(difference, worst(&w[..first.len()], &first));
                difference = larger(difference, worst(&w[w.len() - last.len()..], &last));
                difference = larger(difference, (norm(w) - number(&expected["norm"])).abs() / norm(w));
                // Signs cancel in the sum: as many rounding errors as elements, of either sign.
                let sum = (w.iter().sum::<f64>() - number(&expected["sum"])).abs();
                difference = larger(difference, sum / (w.len() as f64).sqrt());
            }
        }
        report.line(
            format!("{kind} on {} x ({rows}, {cols}), {} steps", streams.len(), steps.len()),
            difference,
            OPTIMIZER,
        );
    }
}

/// A recipe of `count` matrices trained by the library's optimizer at the file's settings.
fn optimizer_recipe(file: &Value, kind: &str, rows: usize, cols: usize, count: usize) -> Recipe {
    let (muon, adamw) = (&file["muon"], &file["adamw"]);
    let rule = match kind {
        "adamw" => format!(
            "adamw({}, ({}, {}), eps = {}, weight_decay = {})",
            adamw["lr"], adamw["betas"][0], adamw["betas"][1], adamw["eps"], adamw["wd"]
        ),
        "muon" => format!(
            "muon({}, lambda t: {}[t.step], lambda t: {}[t.step], {}, equalize_rows = True, restore_norm = True, \
             normalize_neurons = True, cautious = True)",
            muon["lr"], muon["momentum"], muon["wd"], muon["beta2"]
        ),
        other => panic!("the file has an optimizer `{other}`: adamw and muon are known"),
    };
    let text = format!(
        "load(\"std/optim.star\", \"adamw\", \"muon\")\n\
         rule = {rule}\n\
         def model(tokens):\n    x = full((tokens.shape[0], tokens.shape[1], 1), 0.0)\n    for j in range({count}):\n        \
         x += param(\"w%d\" % j, ({rows}, {cols}), zeros()).sum()\n    return x\n\
         recipe(model = model, optimizer = lambda p: rule, lr_multiplier = lambda t: {}[t.step],\n       \
         seq_len = 1, tokens_per_step = 1, vocab_size = 1)\n",
        file["lr_mult"]
    );
    Recipe::load(&Source { name: "unit.star".to_string(), text }, &Overrides::default(), &std_only)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// `5000+100*i+10*t+j, i=0`: a sum of products of numbers and of the indices of case, step and matrix.
fn grad_stream(rule: &str, i: usize, t: usize, j: usize) -> u32 {
    let sum = rule.split(',').next().unwrap_or_default();
    let factor = |text: &str| match text.trim() {
        "i" => i as u32,
        "t" => t as u32,
        "j" => j as u32,
        number => number.parse().unwrap_or_else(|_| panic!("`{rule}` is not a rule for streams")),
    };
    sum.split('+').map(|product| product.split('*').map(factor).product::<u32>()).sum()
}

/// Rows of documents packed as nanochat packs them; counts rows that differ.
fn packing(golden: &Golden<'_>, _: &mut Machine<'_>, report: &mut Report) {
    let case = &golden.file["packing"];
    let rule = whole_numbers(case["len_rule"].as_str().unwrap_or_default());
    let [shortest, stream, modulus] = rule[..] else {
        panic!("{} is not a rule `len_d = A + hash(B)[d] % C`", case["len_rule"]);
    };
    let len = |document: u64| shortest + hash(stream as u32, document as u32) as usize % modulus;
    let first = numbers(&case["lens_first"]);
    let lens: Vec<f64> = (0..first.len() as u64).map(|d| len(d) as f64).collect();
    report.line("document lengths", worst(&lens, &first), 0.0);
    let (row_len, buffer) = (int(&case["T"]) + 1, int(&case["buffer_size"]));
    let mut packer = pawl_data::Crop::new(row_len, buffer, int(&case["docs_per_refill"]));
    let rows = case["rows_first_12"].as_array().map(Vec::as_slice).unwrap_or_default();
    let differing = rows.iter().filter(|row| {
        let packed = packer.next_row(|place| (place, len(place)));
        let packed: Vec<Vec<f64>> = packed.iter().map(|s| vec![s.document as f64, s.len as f64]).collect();
        packed != row.as_array().into_iter().flatten().map(numbers).collect::<Vec<_>>()
    });
    report.line(format!("{} packed rows", rows.len()), differing.count() as f64, 0.0);
}

/// Whole numbers in a text, in order; digits inside a word do not count.
fn whole_numbers(text: &str) -> Vec<usize> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter_map(|word| word.parse().ok())
        .collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn int(value: &Value) -> usize {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not a whole number")) as usize
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().into_iter().flatten().map(number).collect()
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Largest difference; NaN if there is one, or if the lengths differ.
fn worst(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() {
        return f64::NAN;
    }
    a.iter().zip(b).fold(0.0, |worst, (a, b)| larger(worst, (a - b).abs()))
}

/// The larger, or NaN if either is: `f64::max` would lose it.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}
