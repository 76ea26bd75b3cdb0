//! Reinforcement learning from verified rewards: one visible loop of rollouts and updates. The checkpoint that is best
//! on the validation split is what the run leaves, and what is reported on the test split.

use crate::identity::check_price;
use crate::lesson::{LessonLog, Taught};
use crate::measure::{MEASURE_SEED, Speaker, score};
use crate::pretrain::{
    MAX_STEPS, State, TrainError, TrainOptions, diverged, outcome, progress, ran_away, round_ms,
};
use crate::rollout::{Batch, Gathering, LogProbs, RL_SIGNALS};
use crate::run_dir::RunDir;
use crate::sft::update;
use pawl_data::{Conversations, Row, Rows, Tokenizer};
use pawl_eval::demonstrations;
use pawl_eval::env::{Environment, Problem, ProblemSplit};
use pawl_model::{Model, load_checkpoint};
use pawl_record::{
    Control, EnvScore, Event, LessonEvent, LessonManifest, LessonResult, LessonTask, RlTask, RolloutRecord,
    RolloutSummary, RunManifest, RunResult, SCHEMA, read_json, write_atomic, write_json,
};
use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Completions of a problem when checkpoints are compared; the test has as many as the task says.
const VALIDATION_SAMPLES: usize = 4;
/// Demonstrations that the control with more supervised training learns from.
const NUM_DEMONSTRATIONS: usize = 20_000;

/// Teaches by rewards, or by what a control does instead, or goes on where an earlier process left.
pub fn rl(
    lab: &Path,
    taught: Taught,
    env: &mut Environment,
    tokenizer: &Tokenizer,
    options: &TrainOptions<'_>,
) -> Result<(RunResult, Option<LessonResult>), TrainError> {
    let begun = Instant::now();
    let start = taught.start();
    let Taught { recipe, manifest, lesson, .. } = taught;
    let LessonTask::Rl(task) = lesson.task.clone() else { unreachable!("the caller asks for this lesson") };
    if let Some(result) = RunDir::result(lab, &manifest.id)? {
        return Ok((result, lesson_result(lab, &manifest)?));
    }
    if manifest.num_steps > MAX_STEPS {
        return Err(TrainError::TooLong { num_steps: manifest.num_steps });
    }
    let mut dir = RunDir::open(lab, &manifest, &recipe, Some(&lesson))?;
    let schedules = recipe.schedule_table_from(manifest.num_steps, lesson.kept_state_age.unwrap_or(0))?;
    let mut model = Model::new(recipe, options.num_threads, manifest.init_seed)?;
    check_price(&model, &manifest);
    start.load(&mut model)?;
    let mut class = Class::new(&model, &lesson, &task, tokenizer, env, &manifest)?;
    let test_before = class.before(&dir, env)?;
    let mut state = State::begin(&dir, &mut model, &manifest)?;
    // Saved after whole batches; the last one has fewer updates where the budget ends within it.
    let batches = state.step.div_ceil(task.updates_per_batch);
    let mut past = Past::read(&dir, batches)?;
    let mut log = LessonLog::open(dir.file(EVENTS))?;
    let mut rollouts = LessonLog::open(dir.file(ROLLOUTS))?;
    class.skip(batches);
    let (step, threads, unix_s) = (state.step, options.num_threads as u64, manifest.created_unix_s);
    dir.log(&Event::Started { step, threads, unix_s })?;

    // Killed between the first validation and its checkpoint, it does both again.
    if past.best.is_none() || (state.step == 0 && !dir.checkpoint("best").exists()) {
        // A lesson that teaches nothing leaves the model as it was.
        past.compare(0, class.validate(env, &model)?, &mut log)?;
        log.sync()?;
        state.save(&mut dir, "best", &model, &manifest, Duration::ZERO)?;
    }
    let resumed_at = state.step;
    let mut trained = Duration::ZERO;
    let mut saved = Instant::now();
    while state.step < manifest.num_steps && task.flops.is_none_or(|flops| past.flops < flops) {
        let started = Instant::now();
        let batch_idx = state.step / task.updates_per_batch;
        let mut batch = class.gather(env, &model, batch_idx)?;
        let mut loss = 0.0;
        for _ in 0..task.updates_per_batch.min(manifest.num_steps - state.step) {
            let scalars: Vec<f32> = schedules.iter().map(|row| row[state.step as usize]).collect();
            if !batch.rows.is_empty() {
                loss = class.learn(&mut model, state.step, &scalars, &batch);
                batch.summary.losses.push(loss);
                batch.summary.grad_norms.extend(model.grad_norm());
                batch.summary.flops += manifest.flops_per_step;
            }
            if !loss.is_finite() {
                let result =
                    diverged(&mut dir, &manifest, &state, ran_away(loss, &state), begun, trained, options)?;
                return Ok((result, None));
            }
            state.count(loss, manifest.num_steps);
            dir.log(&Event::Step { step: state.step - 1, loss, seconds: round_ms(trained) })?;
        }
        trained += started.elapsed();
        past.note(batch, &mut log, &mut rollouts)?;
        let done = batch_idx + 1;
        let last = state.step >= manifest.num_steps || task.flops.is_some_and(|flops| past.flops >= flops);
        let due = last || done.is_multiple_of(task.eval_every);
        let is_best = due && past.compare(done, class.validate(env, &model)?, &mut log)?;
        let stopping = options.stop.load(Ordering::Relaxed) && !last;
        let saves = stopping || last || saved.elapsed() >= options.checkpoint_every;
        // A checkpoint that outlives a crash finds what led to it.
        if is_best || saves {
            log.sync().and_then(|()| rollouts.sync())?;
        }
        if is_best {
            state.save(&mut dir, "best", &model, &manifest, trained)?;
        }
        if saves {
            state.save(&mut dir, "last", &model, &manifest, trained)?;
            saved = Instant::now();
        }
        (options.report)(&progress(&state, &manifest, resumed_at, trained, (options.peak_flops)(), loss));
        if stopping {
            return Err(TrainError::Stopped { id: manifest.id.clone(), step: state.step });
        }
    }
    // What the run leaves is the checkpoint that was chosen, not the one that happened to be last.
    load_checkpoint(&dir.checkpoint("best"), &mut model)?;
    let test_after = class.test(env, &model)?;
    let hash = state.save(&mut dir, "last", &model, &manifest, trained)?;
    let taught = past.result(&manifest, test_before, test_after);
    write_json(&dir.file(RESULT), &taught)?;
    let run = outcome(&manifest, &state, begun, trained, resumed_at, options);
    let result = RunResult { flops: past.flops, checkpoint_hash: Some(hash), ..run };
    dir.finish(&result)?;
    Ok((result, Some(taught)))
}

/// What a lesson that has ended came to, unless it diverged.
fn lesson_result(lab: &Path, manifest: &RunManifest) -> Result<Option<LessonResult>, TrainError> {
    let path = RunDir::path(lab, &manifest.id).join(RESULT);
    Ok(if path.exists() { Some(read_json(&path)?) } else { None })
}

const EVENTS: &str = "lesson.jsonl";
const ROLLOUTS: &str = "rollouts.jsonl";
const RESULT: &str = "lesson_result.json";
const BEFORE: &str = "before.json";

/// What earlier processes of the run found out.
struct Past {
    flops: f64,
    /// Batches done and pass@1 of the best validation.
    best: Option<(u64, f64)>,
}

impl Past {
    /// Counts a batch, and tells of it.
    fn note(
        &mut self,
        mut batch: Batch,
        log: &mut LessonLog,
        rollouts: &mut LessonLog,
    ) -> Result<(), TrainError> {
        self.flops += batch.summary.flops;
        batch.summary.flops = self.flops;
        log.log(&LessonEvent::Rollouts(batch.summary))?;
        for record in &batch.records {
            rollouts.log(record)?;
        }
        Ok(())
    }

    fn result(&self, manifest: &RunManifest, before: EnvScore, after: EnvScore) -> LessonResult {
        LessonResult {
            schema: SCHEMA,
            id: manifest.id.clone(),
            held_out_loss: None,
            test_before: Some(before),
            test_after: Some(after),
            best_batch: self.best.map(|(batch, _)| batch),
            flops: self.flops,
        }
    }

    /// Logs a validation; whether it is the best so far.
    fn compare(&mut self, batch: u64, score: EnvScore, log: &mut LessonLog) -> Result<bool, TrainError> {
        let rate = score.pass_at_1();
        log.log(&LessonEvent::Validation { batch, score })?;
        let is_best = self.best.is_none_or(|(_, best)| rate > best);
        if is_best {
            self.best = Some((batch, rate));
        }
        Ok(is_best)
    }

    /// From the log, of which what came after the checkpoint is cut off: it will be done again, to the same bits.
    fn read(dir: &RunDir, batches: u64) -> Result<Past, TrainError> {
        let mut past = Past { flops: 0.0, best: None };
        let mut kept = String::new();
        for event in LessonLog::read(&dir.file(EVENTS))? {
            match &event {
                LessonEvent::Rollouts(summary) if summary.batch < batches => past.flops = summary.flops,
                LessonEvent::Validation { batch, score } if *batch <= batches => {
                    let rate = score.pass_at_1();
                    if past.best.is_none_or(|(_, best)| rate > best) {
                        past.best = Some((*batch, rate));
                    }
                }
                LessonEvent::Rollouts(_) | LessonEvent::Validation { .. } => continue,
                LessonEvent::HeldOut { .. } => {}
            }
            kept.push_str(&serde_json::to_string(&event).expect("events have finite numbers"));
            kept.push('\n');
        }
        write_atomic(&dir.file(EVENTS), kept.as_bytes())?;
        let text = std::fs::read_to_string(dir.file(ROLLOUTS)).unwrap_or_default();
        let known = |line: &&str| {
            pawl_record::from_json::<RolloutRecord>(line.as_bytes())
                .is_ok_and(|record| record.batch < batches)
        };
        let kept: String = text.lines().filter(known).flat_map(|line| [line, "\n"]).collect();
        write_atomic(&dir.file(ROLLOUTS), kept.as_bytes())?;
        Ok(past)
    }
}

/// Everything that a lesson is given with.
struct Class<'a> {
    task: &'a RlTask,
    tokenizer: &'a Tokenizer,
    speaker: Speaker,
    policy: LogProbs,
    reference: LogProbs,
    validation: Vec<Problem>,
    test: Vec<Problem>,
    demonstrations: Option<Rows<'static>>,
    reads_reference: bool,
    forward_flops: f64,
    num_rows: usize,
    seed: u64,
}

impl<'a> Class<'a> {
    /// The reference is the model as it is now.
    fn new(
        model: &Model,
        lesson: &LessonManifest,
        task: &'a RlTask,
        tokenizer: &'a Tokenizer,
        env: &mut Environment,
        manifest: &RunManifest,
    ) -> Result<Class<'a>, TrainError> {
        let num_rows = lesson.num_rows as usize;
        let mut reference = LogProbs::new(model, num_rows)?;
        reference.refresh(model);
        let problems = task.eval_problems as usize;
        let demonstrations = match task.control {
            Some(Control::Sft) => {
                let all =
                    demonstrations(env, manifest.seed, NUM_DEMONSTRATIONS, task.difficulty, task.slips)?;
                let row_len = lesson.row_len as usize;
                let data = Conversations::new(tokenizer, &all, env.name(), row_len, 0.0)?;
                Some(data.into_rows(manifest.seed))
            }
            Some(Control::Rejection | Control::Random) | None => None,
        };
        Ok(Class {
            task,
            tokenizer,
            speaker: Speaker::new(model, tokenizer, task.max_tokens as usize)?,
            policy: LogProbs::new(model, num_rows)?,
            reference,
            validation: env.distinct(ProblemSplit::Validation, MEASURE_SEED, problems, task.difficulty)?,
            test: env.distinct(ProblemSplit::Test, MEASURE_SEED, problems, task.difficulty)?,
            demonstrations,
            reads_reference: model.reads_signal("reference_log_prob")?,
            forward_flops: model.forward_flops_per_token(lesson.row_len as usize)?,
            num_rows,
            seed: manifest.seed,
        })
    }

    /// The test score of the model that the lesson begins from, which the speaker was made with.
    fn before(&mut self, dir: &RunDir, env: &mut Environment) -> Result<EnvScore, TrainError> {
        let path = dir.file(BEFORE);
        if path.exists() {
            return Ok(read_json(&path)?);
        }
        let samples = self.task.eval_samples as usize;
        let score = score(&mut self.speaker, self.tokenizer, env, &self.test, samples, MEASURE_SEED)?;
        write_json(&path, &score)?;
        Ok(score)
    }

    fn validate(&mut self, env: &mut Environment, model: &Model) -> Result<EnvScore, TrainError> {
        self.speaker.refresh(model);
        let samples = VALIDATION_SAMPLES.min(self.task.eval_samples as usize);
        score(&mut self.speaker, self.tokenizer, env, &self.validation, samples, MEASURE_SEED)
    }

    fn test(&mut self, env: &mut Environment, model: &Model) -> Result<EnvScore, TrainError> {
        self.speaker.refresh(model);
        let samples = self.task.eval_samples as usize;
        score(&mut self.speaker, self.tokenizer, env, &self.test, samples, MEASURE_SEED)
    }

    /// Leaves what earlier processes have learnt from: all updates of a batch learn from the same rows.
    fn skip(&mut self, batches: u64) {
        if let Some(rows) = &mut self.demonstrations {
            for _ in 0..batches * self.num_rows as u64 {
                rows.next_row();
            }
        }
    }

    /// What the next updates learn from.
    fn gather(&mut self, env: &mut Environment, model: &Model, batch: u64) -> Result<Batch, TrainError> {
        if let Some(rows) = &mut self.demonstrations {
            let rows: Vec<Row> = (0..self.num_rows).map(|_| rows.next_row()).collect();
            let summary = RolloutSummary {
                batch,
                reward: 1.0,
                mixed_groups: 0.0,
                truncated: 0.0,
                mean_tokens: 0.0,
                kl_to_reference: 0.0,
                sampler_gap: 0.0,
                losses: Vec::new(),
                grad_norms: Vec::new(),
                flops: 0.0,
            };
            return Ok(Batch { rows, signals: Vec::new(), summary, records: Vec::new() });
        }
        let mut gathering = Gathering {
            task: self.task,
            tokenizer: self.tokenizer,
            env,
            speaker: &mut self.speaker,
            policy: &mut self.policy,
            reference: &mut self.reference,
            reads_reference: self.reads_reference,
            forward_flops: self.forward_flops,
            seed: self.seed,
        };
        gathering.gather(model, batch)
    }

    /// One update; its loss.
    fn learn(&self, model: &mut Model, step: u64, scalars: &[f32], batch: &Batch) -> f64 {
        if batch.signals.is_empty() {
            return update(model, step, scalars, &batch.rows);
        }
        for (name, values) in RL_SIGNALS.iter().zip(&batch.signals) {
            // A recipe may leave a number unused, never unknown.
            let signal = model.signal_mut(name).expect("the lesson declares its signals");
            signal.copy_from_slice(values);
        }
        let per_micro = batch.rows.len() / model.num_micro();
        let loss = model.step(step, scalars, |micro_idx, inputs, targets| {
            crate::sft::lay(&batch.rows[micro_idx * per_micro..(micro_idx + 1) * per_micro], inputs, targets);
            Ok::<(), Infallible>(())
        });
        match loss {
            Ok(loss) => f64::from(loss),
        }
    }
}
