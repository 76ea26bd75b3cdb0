//! A model on a task: sequences by length into batches, losses into verdicts, verdicts into a score.

use super::sequences::{Renderer, Sequence};
use super::{Item, Kind, NUM_CORE, Task, TaskError, select};
use pawl_data::Tokenizer;
use pawl_model::{Model, Scorer};
use pawl_record::{SCHEMA, Share, TaskScore, read_json, write_json};
use std::collections::BTreeMap;
use std::path::Path;

/// Tokens of one batch, which bounds the memory of scoring.
const BATCH_TOKENS: usize = 4096;
/// Logits held at once: 128 MB.
const BATCH_LOGITS: usize = 32 << 20;
/// Raised when the rules of a task change, so that older scores are not taken for newer ones.
const RULES: u32 = 1;

/// How a task is run.
pub struct TaskOptions<'a> {
    /// Where the data lies.
    pub data_folder: &'a Path,
    /// Items of each task at most, the first of a fixed shuffle.
    pub limit: Option<usize>,
    /// Where scores are kept and found again; `None` computes them always.
    pub cache: Option<&'a Path>,
    /// BLAKE3 of the model's parameters.
    pub model_hash: &'a str,
    /// Told of sequences done and in all.
    pub progress: &'a dyn Fn(usize, usize),
}

/// The mean over CORE, as far as its tasks were run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CoreScore {
    /// Mean of the centered accuracies.
    pub mean: f64,
    /// Its standard error, from those of the tasks.
    pub error: f64,
    /// Tasks in the mean.
    pub num_tasks: usize,
    /// Tasks of CORE.
    pub num_core: usize,
}

/// The score of `model` on `task`, from the cache where it is there.
pub fn run_task(
    task: &'static Task,
    model: &Model,
    tokenizer: &Tokenizer,
    options: &TaskOptions<'_>,
) -> Result<TaskScore, TaskError> {
    let data = (task.read)(options.data_folder)?;
    let key = key(task, &data.hash, tokenizer, options);
    let path = options.cache.map(|folder| folder.join(format!("{}-{}.json", task.name, &key[..12])));
    if let Some(path) = path.as_ref().filter(|path| path.exists()) {
        // A file that cannot be read is a score to compute again.
        if let Ok(known) = read_json::<TaskScore>(path)
            && known.key == key
        {
            return Ok(known);
        }
    }
    let items = select::shuffled(data.items, options.limit);
    let mut renderer = Renderer::new(task, tokenizer, model.recipe().seq_len());
    let (mut sequences, mut firsts) = (Vec::new(), Vec::new());
    for idx in 0..items.len() {
        firsts.push(sequences.len());
        sequences.extend(renderer.render(&items, idx));
    }
    let scores = match task.kind {
        Kind::Completion => greedy(model, &sequences, options.progress)?,
        Kind::Choice | Kind::Schema | Kind::Pair => losses(model, &sequences, options.progress)?,
    };
    let (mut all, mut parts) = (Share::default(), BTreeMap::<String, Share>::new());
    for (idx, item) in items.iter().enumerate() {
        let end = firsts.get(idx + 1).copied().unwrap_or(sequences.len());
        let right = u64::from(is_right(task.kind, item, &scores[firsts[idx]..end]));
        let part = item.part.as_ref().map(|part| parts.entry(part.clone()).or_default());
        for share in [Some(&mut all), part].into_iter().flatten() {
            share.items += 1;
            share.right += right;
        }
    }
    let (chance, shots, cut) = (task.chance, task.shots as u64, renderer.num_cut);
    let task = task.name.to_string();
    let score = TaskScore { schema: SCHEMA, key, task, all, chance, shots, cut, parts };
    if let (Some(path), Some(folder)) = (path, options.cache) {
        std::fs::create_dir_all(folder)
            .map_err(|source| TaskError::Io { path: folder.to_path_buf(), source })?;
        write_json(&path, &score)?;
    }
    Ok(score)
}

/// Everything that a score depends on.
fn key(task: &Task, data: &str, tokenizer: &Tokenizer, options: &TaskOptions<'_>) -> String {
    let limit = options.limit.map_or_else(String::new, |limit| limit.to_string());
    let bos = tokenizer.bos().to_string();
    let rules = format!("{RULES} {} {:?}", task.shots, task.kind);
    let mut key = blake3::Hasher::new();
    for part in [options.model_hash, tokenizer.hash(), &bos, task.name, task.delimiter, &rules, data, &limit]
    {
        key.update(part.as_bytes()).update(&[0]);
    }
    key.finalize().to_hex().to_string()
}

/// Scores of a sequence: nats summed over what counts, and how many tokens that is; or, for a completion, the tokens
/// that were not the likeliest.
type Score = (f64, usize);

fn is_right(kind: Kind, item: &Item, scores: &[Score]) -> bool {
    let mean = |score: &Score| score.0 / score.1.max(1) as f64;
    let value = |score: &Score| match kind {
        Kind::Choice | Kind::Schema => mean(score),
        Kind::Completion | Kind::Pair => score.0,
    };
    match kind {
        Kind::Completion => scores[0].0 == 0.0,
        // Of equals the first, as everywhere; a twin that is as likely is no proof.
        Kind::Pair => value(&scores[item.gold]) < value(&scores[1 - item.gold]),
        Kind::Choice | Kind::Schema => {
            let lower =
                |best: usize, at: usize| if value(&scores[at]) < value(&scores[best]) { at } else { best };
            (0..scores.len()).fold(0, lower) == item.gold
        }
    }
}

/// The mean over the tasks of CORE among `scores`; `None` when there are none.
pub fn core_score(scores: &[TaskScore]) -> Option<CoreScore> {
    let is_core =
        |score: &&TaskScore| super::TASKS.iter().any(|task| task.is_core && task.name == score.task);
    let core: Vec<&TaskScore> = scores.iter().filter(is_core).collect();
    let num = core.len() as f64;
    let mean = core.iter().map(|score| score.centered()).sum::<f64>() / num;
    let error = core.iter().map(|score| score.centered_error().powi(2)).sum::<f64>().sqrt() / num;
    (!core.is_empty()).then_some(CoreScore { mean, error, num_tasks: core.len(), num_core: NUM_CORE })
}

/// Batches of sequences of about the same length: T, and which. Longest first.
fn batches(
    sequences: &[Sequence],
    max_len: usize,
    most: impl Fn(usize) -> usize,
) -> Vec<(usize, Vec<usize>)> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(sequences[*at].tokens.len()));
    let mut batches: Vec<(usize, Vec<usize>)> = Vec::new();
    let inputs = |at: usize| (sequences[at].tokens.len() - 1).max(1);
    let mut counts = BTreeMap::<usize, usize>::new();
    order.iter().for_each(|at| *counts.entry(inputs(*at)).or_default() += 1);
    for at in order {
        let inputs = inputs(at);
        // A length that fills batches by itself has a program of its own: nothing is padded. Others come in steps of an
        // eighth, so that few programs serve all of them.
        let grain = (inputs.next_power_of_two() / 8).max(4);
        let length = match counts[&inputs] >= most(inputs) {
            true => inputs,
            false => inputs.next_multiple_of(grain).min(max_len),
        };
        match batches.last_mut() {
            Some((known, batch)) if *known == length && batch.len() < most(length) => batch.push(at),
            Some(_) | None => batches.push((length, vec![at])),
        }
    }
    batches
}

/// Runs all batches; `hear` gets a sequence's place and the outputs (T, width) of its row.
fn run_batches(
    model: &Model,
    sequences: &[Sequence],
    most: impl Fn(usize) -> usize,
    make: impl Fn(usize, usize) -> Result<Scorer, TaskError>,
    with_targets: bool,
    progress: &dyn Fn(usize, usize),
    mut hear: impl FnMut(usize, &[f32]),
) -> Result<(), TaskError> {
    let mut made: Option<((usize, usize), Scorer)> = None;
    let mut done = 0;
    for (length, batch) in batches(sequences, model.recipe().seq_len(), &most) {
        // A batch that is not full has a program of its own only where rows would be wasted by the dozen.
        let rows = if batch.len() * 2 > most(length) { most(length) } else { batch.len() };
        if made.as_ref().is_none_or(|(shape, _)| *shape != (rows, length)) {
            let mut scorer = make(rows, length)?;
            scorer.refresh(model);
            made = Some(((rows, length), scorer));
        }
        let Some((_, scorer)) = &mut made else { unreachable!("made above") };
        let fill = |to: &mut [i32], shift: usize| {
            to.fill(0);
            for (row, at) in to.chunks_exact_mut(length).zip(&batch) {
                let tokens = &sequences[*at].tokens[shift..];
                row.iter_mut().zip(tokens).for_each(|(to, token)| *to = *token as i32);
            }
        };
        fill(scorer.tokens_mut(), 0);
        if with_targets {
            fill(scorer.targets_mut(), 1);
        }
        let outputs = scorer.run(model);
        for (row, at) in outputs.chunks_exact(outputs.len() / rows).zip(&batch) {
            hear(*at, row);
        }
        done += batch.len();
        progress(done, sequences.len());
    }
    Ok(())
}

fn losses(
    model: &Model,
    sequences: &[Sequence],
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<Score>, TaskError> {
    let mut scores = vec![(0.0, 0); sequences.len()];
    let most = |length: usize| (BATCH_TOKENS / length).max(1);
    let make = |batch, length| Ok(Scorer::losses(model, batch, length)?);
    run_batches(model, sequences, most, make, true, progress, |at, losses| {
        let Sequence { start, end, .. } = sequences[at];
        let counted = &losses[start - 1..(end - 1).max(start - 1)];
        scores[at] = (counted.iter().map(|loss| f64::from(*loss)).sum(), counted.len());
    })?;
    Ok(scores)
}

fn greedy(
    model: &Model,
    sequences: &[Sequence],
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<Score>, TaskError> {
    let vocab = model.recipe().vocab_size();
    let mut scores = vec![(0.0, 0); sequences.len()];
    let most = |length: usize| (BATCH_TOKENS.min(BATCH_LOGITS / vocab) / length).max(1);
    let make = |batch, length| Ok(Scorer::logits(model, batch, length)?);
    run_batches(model, sequences, most, make, false, progress, |at, logits| {
        let Sequence { start, end, tokens } = &sequences[at];
        let wrong = (*start..*end).filter(|place| {
            let row = &logits[(place - 1) * vocab..place * vocab];
            let wanted = row[tokens[*place] as usize];
            !row.iter().all(|x| *x <= wanted)
        });
        scores[at] = (wrong.count() as f64, end - start);
    })?;
    Ok(scores)
}
