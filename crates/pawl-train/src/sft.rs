//! Supervised fine-tuning: one visible loop over conversations. Rows are packed ahead of any step, every target of an
//! update counts alike, and held-out conversations are scored as they are taught.

use crate::identity::check_price;
use crate::lesson::{LessonLog, Taught, begin};
use crate::pretrain::{
    MAX_STEPS, TrainError, TrainOptions, diverged, engine_precision, outcome, progress, ran_away, round_ms,
};
use crate::run_dir::RunDir;
use pawl_data::{Conversations, Row, Tokenizer};
use pawl_model::{Model, ModelError, Scorer};
use pawl_record::{Event, LessonEvent, LessonResult, RunResult, SCHEMA, write_json};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What the objective of this lesson is given for each target: its share of the update, times the micro-batches.
pub const SFT_SIGNALS: &[&str] = &["share"];

/// Tokens of a batch of held-out rows.
const SCORED_TOKENS: usize = 2048;
/// Held-out rows that are scored: enough to tell checkpoints apart.
const MAX_SCORED_ROWS: usize = 128;

/// Teaches conversations, or goes on where an earlier process left, and writes the run directory in `lab`.
pub fn sft(
    lab: &std::path::Path,
    taught: Taught,
    data: &Conversations,
    tokenizer: &Tokenizer,
    options: &TrainOptions<'_>,
) -> Result<RunResult, TrainError> {
    let begun = Instant::now();
    let start = taught.start();
    let Taught { recipe, manifest, lesson, .. } = taught;
    if let Some(result) = RunDir::result(lab, &manifest.id)? {
        return Ok(result);
    }
    if manifest.num_steps > MAX_STEPS {
        return Err(TrainError::TooLong { num_steps: manifest.num_steps });
    }
    let mut dir = RunDir::open(lab, &manifest, &recipe, Some(&lesson))?;
    let schedules = recipe.schedule_table_from(manifest.num_steps, lesson.kept_state_age.unwrap_or(0))?;
    let precision = engine_precision(manifest.precision);
    let mut model = Model::with_precision(recipe, options.num_threads, manifest.init_seed, precision)?;
    check_price(&model, &manifest);
    let mut state = begin(&dir, &start, &mut model, &manifest)?;
    let mut log = LessonLog::open(dir.file("lesson.jsonl"))?;
    let mut held_out = HeldOut::new(&model, data, tokenizer)?;
    let num_rows = lesson.num_rows as usize;
    let mut rows = data.rows(manifest.seed);
    for _ in 0..state.step * lesson.num_rows {
        rows.next_row();
    }
    let unix_s = manifest.created_unix_s;
    dir.log(&Event::Started { step: state.step, threads: options.num_threads as u64, unix_s })?;

    let resumed_at = state.step;
    let mut scalars = vec![0.0; schedules.len()];
    let mut trained = Duration::ZERO;
    let mut saved = Instant::now();
    let too_high = 2.0 * (model.recipe().vocab_size() as f64).ln() + 5.0;
    while state.step < manifest.num_steps {
        let started = Instant::now();
        for (scalar, row) in scalars.iter_mut().zip(&schedules) {
            *scalar = row[state.step as usize];
        }
        let batch: Vec<Row> = (0..num_rows).map(|_| rows.next_row()).collect();
        let loss = update(&mut model, state.step, &scalars, &batch);
        trained += started.elapsed();
        if !loss.is_finite() || loss > too_high {
            return diverged(&mut dir, &manifest, &state, ran_away(loss, &state), begun, trained, options);
        }
        state.count(loss, manifest.num_steps);
        dir.log(&Event::Step { step: state.step - 1, loss, seconds: round_ms(trained) })?;

        let last = state.step == manifest.num_steps;
        let due = options.eval_every_steps.is_some_and(|every| state.step.is_multiple_of(every.max(1)));
        if (last || due)
            && let Some((loss, bpb)) = held_out.as_mut().map(|held_out| held_out.score(&model))
        {
            state.val_bpb = Some(bpb);
            let is_best = state.best_val_bpb.is_none_or(|best| bpb < best);
            log.log(&LessonEvent::HeldOut { step: state.step, loss, bpb })?;
            dir.log(&Event::Eval { step: state.step, val_bpb: bpb, by_domain: assistant(bpb) })?;
            if is_best {
                state.best_val_bpb = Some(bpb);
                state.save(&mut dir, "best", &model, &manifest, trained)?;
            }
        }
        let stopping = options.stop.load(Ordering::Relaxed) && !last;
        if stopping || (!last && saved.elapsed() >= options.checkpoint_every) {
            state.save(&mut dir, "last", &model, &manifest, trained)?;
            saved = Instant::now();
        }
        (options.report)(&progress(&state, &manifest, resumed_at, trained, (options.peak_flops)(), loss));
        if stopping {
            return Err(TrainError::Stopped { id: manifest.id.clone(), step: state.step });
        }
    }
    let hash = state.save(&mut dir, "last", &model, &manifest, trained)?;
    let held_out_loss = held_out.as_mut().map(|held_out| held_out.score(&model).0);
    let mut result = outcome(&manifest, &state, begun, trained, resumed_at, options);
    result.val_bpb = state.val_bpb;
    result.val_bpb_by_domain = state.val_bpb.map(assistant).unwrap_or_default();
    result.checkpoint_hash = Some(hash);
    let lesson_result = LessonResult {
        schema: SCHEMA,
        id: manifest.id.clone(),
        held_out_loss,
        test_before: None,
        test_after: None,
        best_batch: None,
        flops: result.flops,
    };
    write_json(&dir.file("lesson_result.json"), &lesson_result)?;
    dir.finish(&result)?;
    Ok(result)
}

fn assistant(bpb: f64) -> std::collections::BTreeMap<String, f64> {
    [("assistant".to_string(), bpb)].into()
}

/// One update on rows; the mean loss of their targets.
pub(crate) fn update(model: &mut Model, step: u64, scalars: &[f32], rows: &[Row]) -> f64 {
    let counted = rows.iter().flat_map(|row| &row.targets).filter(|target| **target >= 0).count();
    let share = model.num_micro() as f32 / counted.max(1) as f32;
    let signal = model.signal_mut("share").expect("the lesson declares its signals");
    let targets = rows.iter().flat_map(|row| &row.targets);
    for (slot, target) in signal.iter_mut().zip(targets) {
        *slot = if *target >= 0 { share } else { 0.0 };
    }
    let per_micro = rows.len() / model.num_micro();
    let loss = model.step(step, scalars, |micro_idx, inputs, targets| {
        let part = &rows[micro_idx * per_micro..(micro_idx + 1) * per_micro];
        lay(part, inputs, targets);
        Ok::<(), std::convert::Infallible>(())
    });
    match loss {
        Ok(loss) => f64::from(loss),
    }
}

/// Rows one after another.
pub(crate) fn lay(rows: &[Row], inputs: &mut [i32], targets: &mut [i32]) {
    let row_len = rows[0].inputs.len();
    for (k, row) in rows.iter().enumerate() {
        inputs[k * row_len..(k + 1) * row_len].copy_from_slice(&row.inputs);
        targets[k * row_len..(k + 1) * row_len].copy_from_slice(&row.targets);
    }
}

/// Held-out conversations in batches.
struct HeldOut {
    scorer: Scorer,
    batches: Vec<(Vec<i32>, Vec<i32>)>,
    token_bytes: Vec<u32>,
}

impl HeldOut {
    /// `None` where nothing is held out.
    fn new(
        model: &Model,
        data: &Conversations,
        tokenizer: &Tokenizer,
    ) -> Result<Option<HeldOut>, ModelError> {
        let mut rows = data.held_out_rows();
        rows.truncate(MAX_SCORED_ROWS);
        if rows.is_empty() {
            return Ok(None);
        }
        let row_len = model.recipe().row_len();
        let batch = (SCORED_TOKENS / row_len).clamp(1, rows.len());
        let scorer = Scorer::losses(model, batch, row_len)?;
        let batches = rows.chunks(batch).map(|part| {
            let (mut inputs, mut targets) = (vec![0; batch * row_len], vec![-1; batch * row_len]);
            lay(part, &mut inputs, &mut targets);
            (inputs, targets)
        });
        let batches = batches.collect();
        Ok(Some(HeldOut { scorer, batches, token_bytes: tokenizer.token_bytes().to_vec() }))
    }

    /// Nats per taught token, end tokens included, and bits per byte of text, end tokens aside.
    fn score(&mut self, model: &Model) -> (f64, f64) {
        self.scorer.refresh(model);
        let (mut nats, mut tokens, mut text_nats, mut bytes) = (0.0, 0u64, 0.0, 0u64);
        for (inputs, targets) in &self.batches {
            self.scorer.tokens_mut().copy_from_slice(inputs);
            self.scorer.targets_mut().copy_from_slice(targets);
            for (loss, target) in self.scorer.run(model).iter().zip(targets) {
                let Ok(target) = usize::try_from(*target) else { continue };
                nats += f64::from(*loss);
                tokens += 1;
                if self.token_bytes[target] > 0 {
                    text_nats += f64::from(*loss);
                    bytes += u64::from(self.token_bytes[target]);
                }
            }
        }
        (nats / tokens as f64, text_nats / std::f64::consts::LN_2 / bytes.max(1) as f64)
    }
}
