//! The files of one run against each other: what it was asked, what happened, how it ended, what it left.
//!
//! Whoever edits one of them must edit the others, and the id is a hash of what the run was asked: an edit that
//! fits everywhere changes the id, and a score that fits everywhere is found by training again.

use super::{Check, same, same_option};
use pawl_record::{
    CheckpointManifest, Event, FileError, LearningPoint, RunManifest, RunResult, RunStatus, Vitals,
    from_json, read_json,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Seconds of training that `events.jsonl`, in whole milliseconds, may differ from.
const CLOCK_S: f64 = 0.002;

/// What shares of the time, each of four decimals, may miss the whole by.
const SHARES_ROUNDED: f64 = 0.001;

/// Names everything in the folder of a run that does not follow from the rest of it.
pub(super) fn look_through(check: &mut Check<'_>, folder: &Path, manifest: &RunManifest, result: &RunResult) {
    let place = format!("run {}", manifest.id);
    let mut found = asked(manifest, result);
    found.extend(score(manifest, result));
    found.extend(result.vitals.iter().flat_map(|vitals| inside(vitals, manifest, result)));
    match fs::read_to_string(folder.join("events.jsonl")) {
        Ok(text) => found.extend(happened(&text, manifest, result)),
        Err(why) => found.push(format!("events.jsonl cannot be read: {why}")),
    }
    for name in ["last", "best"] {
        let path = folder.join(name);
        if path.join("checkpoint.json").exists() {
            match checkpoint(&path, name, manifest, result) {
                Ok(differs) => found.extend(differs),
                Err(error) => found.push(error),
            }
        }
    }
    found.extend(program(check, folder, manifest));
    for what in found {
        check.differs(&place, what);
    }
}

/// The id, the steps and the cost.
fn asked(manifest: &RunManifest, result: &RunResult) -> Vec<String> {
    let mut found = Vec::new();
    let follows = manifest.content_id();
    if follows != manifest.id {
        found.push(format!("its id does not follow from what it was asked, {follows} does"));
    }
    let steps = manifest.budget.num_steps(manifest.flops_per_step, manifest.tokens_per_step);
    if manifest.num_steps != steps {
        found.push(format!("{} steps asked, {steps} follow from its budget", manifest.num_steps));
    }
    let flops = result.steps as f64 * manifest.flops_per_step;
    if !same(result.flops, flops) {
        found.push(format!("{:.4e} FLOPs said, its steps cost {flops:.4e}", result.flops));
    }
    if result.tokens != result.steps * manifest.tokens_per_step {
        found.push(format!("{} tokens said for {} steps", result.tokens, result.steps));
    }
    found
}

/// Whether the score is one.
fn score(manifest: &RunManifest, result: &RunResult) -> Vec<String> {
    let mut found = Vec::new();
    if result.status == RunStatus::Diverged {
        if result.val_bpb.is_some() {
            found.push("it diverged and has a score".to_string());
        }
        return found;
    }
    let is_score = |bpb: f64| bpb.is_finite() && bpb > 0.0;
    match result.val_bpb {
        Some(bpb) if is_score(bpb) => {
            let domains: Vec<f64> = result.val_bpb_by_domain.values().copied().collect();
            let low = domains.iter().copied().fold(f64::INFINITY, f64::min);
            let high = domains.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if !domains.is_empty() && !(low - 1e-9..=high + 1e-9).contains(&bpb) {
                found.push(format!("val_bpb {bpb:.6} is not between those of its domains"));
            }
        }
        other => found.push(format!("it finished and its score is {other:?}, which is none")),
    }
    if manifest.seal != result.sealed_bpb.is_some_and(is_score) {
        found.push("the sealed split is scored exactly when that was asked".to_string());
    }
    found
}

/// Whether what was seen from inside can be: numbers, as many as looks, of as many parameters as there are, and parts of
/// the time that make up all of it.
fn inside(vitals: &Vitals, manifest: &RunManifest, result: &RunResult) -> Vec<String> {
    let mut found = Vec::new();
    let rises = vitals.steps.windows(2).all(|pair| pair[0] < pair[1]);
    if !rises || vitals.steps.iter().any(|step| *step == 0 || *step > result.steps) {
        found.push("it was looked into after steps that it did not do, or not in order".to_string());
    }
    let is_size = |x: &f64| x.is_finite() && *x >= 0.0;
    for group in &vitals.groups {
        let series = [&group.weight_rms, &group.gradient_rms, &group.update_rms];
        let fits = |numbers: &Vec<Option<f64>>| {
            numbers.len() == vitals.steps.len() && numbers.iter().flatten().all(is_size)
        };
        if !series.into_iter().all(fits) {
            found.push(format!("the numbers of group {} are not one size a look", group.name));
        }
    }
    let total: u64 = vitals.groups.iter().fold(0, |sum, group| sum.saturating_add(group.num_params));
    if !vitals.steps.is_empty() && total != manifest.num_params {
        found.push(format!("its groups have {total} parameters of {}", manifest.num_params));
    }
    if !vitals.layers.iter().filter_map(|layer| layer.rms.as_ref()).all(is_size) {
        found.push("an activation is no size".to_string());
    }
    let shares: f64 = vitals.time.values().sum();
    let is_whole = vitals.time.is_empty() || (shares - 1.0).abs() < SHARES_ROUNDED;
    if !is_whole || !vitals.time.values().all(is_size) {
        found.push(format!("the shares of its time add up to {shares}"));
    }
    found
}

/// What the log says until the run was over for the first time: it may have been trained again for its checkpoint.
fn happened(text: &str, manifest: &RunManifest, result: &RunResult) -> Vec<String> {
    let mut found = Vec::new();
    let mut losses: BTreeMap<u64, f64> = BTreeMap::new();
    let (mut starts, mut seconds) = (0, 0.0);
    for line in text.lines() {
        match from_json::<Event>(line.as_bytes()) {
            Ok(Event::Started { threads, .. }) => {
                starts += 1;
                if threads != 1 {
                    found.push(format!("it had {threads} threads, a trial has one"));
                }
            }
            Ok(Event::Step { step, loss, seconds: now }) => {
                seconds = now;
                if losses.insert(step, loss).is_some_and(|before| before != loss) {
                    found.push(format!("step {step} was done twice with different losses"));
                }
            }
            Ok(Event::Eval { step, ref by_domain, .. }) if step == manifest.num_steps => {
                if *by_domain != result.val_bpb_by_domain {
                    found.push("the scores of its domains are not those of its last evaluation".to_string());
                }
                break;
            }
            Ok(Event::Eval { .. } | Event::Checkpoint { .. }) => {}
            // A line that a crash cut short is the only one that may not read.
            Err(_) if !text.ends_with('\n') && text.ends_with(line) => {}
            Err(why) => found.push(format!("a line of events.jsonl does not read: {why}")),
        }
    }
    if let Some(missing) = (0..result.steps).find(|step| !losses.contains_key(step)) {
        found.push(format!("step {missing} is not in events.jsonl"));
    }
    if !same_curve(&curve(&losses, result.steps, manifest.num_steps), &result.curve) {
        found.push("its learning curve is not that of its steps".to_string());
    }
    // A run that was resumed counts the seconds of several processes.
    if starts == 1 && result.steps > 0 && (result.train_seconds - seconds).abs() > CLOCK_S {
        let said = result.train_seconds;
        found.push(format!("train_seconds is {said:.3}, its steps took {seconds:.3}"));
    }
    found
}

/// The points that training keeps: whenever `step * 50 / num_steps` passes a whole number, and at the end.
fn curve(losses: &BTreeMap<u64, f64>, steps: u64, num_steps: u64) -> Vec<LearningPoint> {
    let point = |step: u64| step * 50 / num_steps.max(1);
    let (mut points, mut sum, mut number) = (Vec::new(), 0.0, 0u64);
    for step in 1..=steps {
        (sum, number) = (sum + losses.get(&(step - 1)).copied().unwrap_or(f64::NAN), number + 1);
        if point(step) > point(step - 1) || step == num_steps {
            points.push(LearningPoint { step, loss: sum / number as f64 });
            (sum, number) = (0.0, 0);
        }
    }
    points
}

fn same_curve(a: &[LearningPoint], b: &[LearningPoint]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.step == b.step && same(a.loss, b.loss))
}

/// The program, the price and the size, compiled again from the recipe beside the run.
fn program(check: &mut Check<'_>, folder: &Path, manifest: &RunManifest) -> Vec<String> {
    let mut settings = manifest.settings.clone();
    settings.remove("depth");
    let compiled = match check.compile(&folder.join("recipe.star"), manifest.depth, &settings) {
        Ok(compiled) => compiled,
        Err(why) => return vec![format!("its recipe does not compile: {why}")],
    };
    let mut found = Vec::new();
    if compiled.fingerprint != manifest.fingerprint {
        found.push("its recipe is another program than the one it names".to_string());
    }
    if !same(compiled.flops_per_step, manifest.flops_per_step) {
        let (said, is) = (manifest.flops_per_step, compiled.flops_per_step);
        found.push(format!("a step costs {is:.4e} FLOPs, {said:.4e} are said"));
    }
    if compiled.num_params != manifest.num_params {
        found
            .push(format!("{} parameters said, its recipe has {}", manifest.num_params, compiled.num_params));
    }
    found
}

/// Whether a checkpoint is of this run and its tensors are those that its hashes name.
fn checkpoint(
    folder: &Path,
    name: &str,
    manifest: &RunManifest,
    result: &RunResult,
) -> Result<Vec<String>, String> {
    let document: CheckpointManifest =
        read_json(&folder.join("checkpoint.json")).map_err(|error: FileError| error.to_string())?;
    let mut found = Vec::new();
    if document.run != manifest.id {
        found.push(format!("checkpoint {name} is of run {}", document.run));
    }
    let mut all = blake3::Hasher::new();
    for tensor in &document.tensors {
        let hash =
            blake3::Hash::from_hex(&tensor.blake3).map_err(|why| format!("checkpoint {name}: {why}"))?;
        all.update(tensor.name.as_bytes()).update(hash.as_bytes());
    }
    let is_last =
        name == "last" && result.checkpoint_hash.as_ref().is_some_and(|hash| *hash != document.hash);
    if all.finalize().to_hex().as_str() != document.hash || is_last {
        found.push(format!("checkpoint {name} is not the one the run ended with"));
    }
    let listed: BTreeMap<&str, &str> =
        document.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.blake3.as_str())).collect();
    let stored = tensors(&folder.join("tensors.safetensors"))?;
    let fits = stored.len() == listed.len()
        && stored.iter().all(|(tensor, hash)| listed.get(tensor.as_str()) == Some(&hash.as_str()));
    if !fits {
        found.push(format!("the tensors of checkpoint {name} are not those of its hashes"));
    }
    Ok(found)
}

/// Hash of each tensor of a safetensors file: a length, a table in JSON, the bytes.
fn tensors(path: &Path) -> Result<BTreeMap<String, String>, String> {
    let bytes = fs::read(path).map_err(|why| format!("{}: {why}", path.display()))?;
    let damaged = || format!("{} is no safetensors file", path.display());
    let length = bytes.first_chunk::<8>().map(|length| u64::from_le_bytes(*length)).ok_or_else(damaged)?;
    let end = usize::try_from(length).ok().and_then(|length| length.checked_add(8)).ok_or_else(damaged)?;
    let table = bytes.get(8..end).ok_or_else(damaged)?;
    let table: BTreeMap<String, serde_json::Value> = serde_json::from_slice(table).map_err(|_| damaged())?;
    let mut hashes = BTreeMap::new();
    for (name, entry) in table.iter().filter(|(name, _)| *name != "__metadata__") {
        let offset = |at: usize| Some(end + entry["data_offsets"].get(at)?.as_u64()? as usize);
        let data = offset(0).zip(offset(1)).and_then(|(from, to)| bytes.get(from..to)).ok_or_else(damaged)?;
        hashes.insert(name.clone(), blake3::hash(data).to_hex().to_string());
    }
    Ok(hashes)
}

/// Whether the evaluation at the end of the log is the score of the result.
pub(super) fn last_score(text: &str, result: &RunResult) -> Option<Option<f64>> {
    let events = text.lines().filter_map(|line| from_json::<Event>(line.as_bytes()).ok());
    let mut evals = events.filter_map(|event| match event {
        Event::Eval { step, val_bpb, .. } if step == result.steps => Some(val_bpb),
        Event::Eval { .. } | Event::Started { .. } | Event::Step { .. } | Event::Checkpoint { .. } => None,
    });
    let last = evals.next_back();
    (!same_option(result.val_bpb, last)).then_some(last)
}
