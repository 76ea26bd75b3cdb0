//! Lessons from outside: they learn, they go on to the same bits, and what is sampled is what is trained.

use crate::{lab, train};
use pawl_data::{Conversations, Tokenizer};
use pawl_eval::demonstrations;
use pawl_eval::env::Environment;
use pawl_recipe::{Source, shipped};
use pawl_record::{
    Budget, Control, LessonEvent, LessonResult, LessonTask, Message, Precision, RlTask, RunResult,
    SettingValue, Settings, from_json,
};
use pawl_train::{
    LessonRequest, RL_SIGNALS, RunDir, RunRequest, SFT_SIGNALS, Taught, TrainError, TrainOptions, lesson, rl,
    sft,
};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const ROW_LEN: usize = 32;

/// A lab with a trained run; its id.
fn trained() -> (tempfile::TempDir, String) {
    let lab = lab();
    let id = train(lab.path(), 1, 0.01, &AtomicBool::new(false)).unwrap().id;
    (lab, id)
}

fn tokenizer(lab: &Path) -> Tokenizer {
    pawl_data::tokenizer(&lab.join("data/words"), 320, &|_| ()).unwrap()
}

fn options<'a>(num_threads: usize, stop: &'a AtomicBool) -> TrainOptions<'a> {
    TrainOptions {
        num_threads,
        checkpoint_every: Duration::ZERO,
        eval_every_steps: Some(5),
        keep_checkpoints: true,
        peak_flops: &|| 1e11,
        stop,
        report: &|_| (),
    }
}

fn request(
    parent: &str,
    steps: u64,
    objective: &str,
    task: LessonTask,
    values: &[(&str, f64)],
) -> LessonRequest {
    let values: Settings =
        values.iter().map(|(name, value)| (name.to_string(), SettingValue::Float(*value))).collect();
    LessonRequest {
        parent: parent.to_string(),
        objective: Source { name: "objective.star".into(), text: objective.into() },
        signals: match task {
            LessonTask::Sft { .. } | LessonTask::Rl(RlTask { control: Some(Control::Sft), .. }) => {
                SFT_SIGNALS
            }
            LessonTask::Rl(_) => RL_SIGNALS,
        },
        values,
        num_rows: 16,
        row_len: ROW_LEN,
        dropout: matches!(task, LessonTask::Sft { .. }),
        keep_state: false,
        task,
        request: RunRequest {
            budget: Budget::Steps(steps),
            seed: 3,
            init_seed: 3,
            seal: false,
            precision: Precision::F32,
            machine: "test".into(),
            created_unix_s: 0,
        },
    }
}

fn conversations(lab: &Path) -> Conversations {
    let mut env = Environment::open("sort").unwrap();
    let all: Vec<Vec<Message>> = demonstrations(&mut env, 0, 200, 1, 0.0).unwrap();
    Conversations::new(&tokenizer(lab), &all, "sort", ROW_LEN, 0.1).unwrap()
}

fn ready_sft(lab: &Path, parent: &str, keep_state: bool) -> Taught {
    let task = LessonTask::Sft {
        data: "sort".into(),
        data_hash: conversations(lab).hash().to_string(),
        validation_share: 0.1,
    };
    let text = shipped("std/lessons/sft.star").unwrap();
    let asked = request(parent, 30, text, task, &[("sft_lr", 1.0)]);
    lesson(lab, LessonRequest { keep_state, ..asked }).unwrap()
}

fn run_sft(
    lab: &Path,
    parent: &str,
    keep_state: bool,
    num_threads: usize,
    stop: bool,
) -> Result<RunResult, TrainError> {
    let stop = AtomicBool::new(stop);
    let taught = ready_sft(lab, parent, keep_state);
    sft(lab, taught, &conversations(lab), &tokenizer(lab), &options(num_threads, &stop))
}

#[test]
fn fine_tuning_learns_what_is_held_out_and_goes_on_to_the_same_bits() {
    let (lab, parent) = trained();
    let straight = run_sft(lab.path(), &parent, false, 1, false).unwrap();
    let folder = RunDir::path(lab.path(), &straight.id);
    let log = |folder: &Path| std::fs::read_to_string(folder.join("lesson.jsonl")).unwrap();
    let held_out: Vec<f64> = log(&folder)
        .lines()
        .filter_map(|line| match from_json::<LessonEvent>(line.as_bytes()).unwrap() {
            LessonEvent::HeldOut { loss, .. } => Some(loss),
            LessonEvent::Rollouts(_) | LessonEvent::Validation { .. } => None,
        })
        .collect();
    assert!(held_out.len() == 6 && held_out[5] < 0.8 * held_out[0], "{held_out:?}");

    std::fs::remove_dir_all(&folder).unwrap();
    for step in 1..=3 {
        match run_sft(lab.path(), &parent, false, 2, true) {
            Err(TrainError::Stopped { step: at, .. }) => assert_eq!(at, step),
            other => panic!("{other:?}"),
        }
    }
    let resumed = run_sft(lab.path(), &parent, false, 3, false).unwrap();
    assert_eq!(
        (resumed.checkpoint_hash, resumed.val_bpb),
        (straight.checkpoint_hash.clone(), straight.val_bpb)
    );

    let kept = run_sft(lab.path(), &parent, true, 1, false).unwrap();
    assert_ne!(kept.id, straight.id);
    assert_ne!(kept.checkpoint_hash, straight.checkpoint_hash, "the optimizer's state changes the steps");
}

fn rl_task(control: Option<Control>) -> RlTask {
    RlTask {
        env: "sort".into(),
        difficulty: 1,
        control,
        num_prompts: 4,
        group_size: 4,
        max_tokens: 12,
        cut_is_wrong: false,
        slips: 0.0,
        updates_per_batch: 2,
        eval_problems: 3,
        eval_samples: 2,
        eval_every: 2,
        flops: None,
    }
}

fn run_rl(
    lab: &Path,
    parent: &str,
    objective: &str,
    values: &[(&str, f64)],
    num_threads: usize,
    stop: bool,
) -> Result<(RunResult, Option<LessonResult>), TrainError> {
    let task = rl_task(Some(Control::Random));
    give(lab, request(parent, 10, objective, LessonTask::Rl(task), values), num_threads, stop)
}

fn give(
    lab: &Path,
    asked: LessonRequest,
    num_threads: usize,
    stop: bool,
) -> Result<(RunResult, Option<LessonResult>), TrainError> {
    let taught = lesson(lab, asked).unwrap();
    let stop = AtomicBool::new(stop);
    let mut env = Environment::open("sort").unwrap();
    rl(lab, taught, &mut env, &tokenizer(lab), &options(num_threads, &stop))
}

#[test]
fn rewards_move_the_model_and_an_interrupted_run_goes_on_to_the_same_bits_and_files() {
    let (lab, base) = trained();
    let parent = run_sft(lab.path(), &base, false, 1, false).unwrap().id;
    let objective = shipped("std/lessons/rl.star").unwrap();
    // Rewards by a coin: groups differ, so that there is something to learn from at any skill.
    let (straight, outcome) = run_rl(lab.path(), &parent, objective, &[("rl_lr", 1.0)], 1, false).unwrap();
    let folder = RunDir::path(lab.path(), &straight.id);
    let files = || {
        ["lesson.jsonl", "rollouts.jsonl", "lesson_result.json"]
            .map(|name| std::fs::read_to_string(folder.join(name)).unwrap())
    };
    let want = files();
    let moved = want[0].lines().any(|line| match from_json::<LessonEvent>(line.as_bytes()).unwrap() {
        LessonEvent::Rollouts(summary) => summary.batch > 1 && summary.kl_to_reference > 1e-6,
        LessonEvent::HeldOut { .. } | LessonEvent::Validation { .. } => false,
    });
    assert!(moved, "{}", want[0]);
    std::fs::remove_dir_all(&folder).unwrap();
    for batch in 1..=3 {
        match run_rl(lab.path(), &parent, objective, &[("rl_lr", 1.0)], 2, true) {
            Err(TrainError::Stopped { step, .. }) => assert_eq!(step, 2 * batch),
            other => panic!("{other:?}"),
        }
        // As a crash leaves files: a line that has no end.
        for name in ["lesson.jsonl", "rollouts.jsonl"] {
            let text = std::fs::read_to_string(folder.join(name)).unwrap();
            std::fs::write(folder.join(name), format!("{text}{{\"event\":\"roll")).unwrap();
        }
    }
    let (resumed, again) = run_rl(lab.path(), &parent, objective, &[("rl_lr", 1.0)], 3, false).unwrap();
    assert_eq!(resumed.checkpoint_hash, straight.checkpoint_hash);
    assert_eq!((again, files()), (outcome, want));
}

#[test]
fn imitation_in_batches_of_two_updates_ends_within_one_and_goes_on_to_the_same_bits_and_files() {
    let (lab, parent) = trained();
    // Nine updates: the budget ends in the middle of the fifth batch.
    let run = |num_threads, stop| {
        let task = LessonTask::Rl(rl_task(Some(Control::Sft)));
        let objective = shipped("std/lessons/sft.star").unwrap();
        give(lab.path(), request(&parent, 9, objective, task, &[("sft_lr", 1.0)]), num_threads, stop)
    };
    let (straight, outcome) = run(1, false).unwrap();
    assert_eq!(straight.steps, 9);
    let folder = RunDir::path(lab.path(), &straight.id);
    let files = || {
        ["lesson.jsonl", "lesson_result.json"].map(|name| std::fs::read_to_string(folder.join(name)).unwrap())
    };
    let want = files();
    let log = want[0].lines().map(|line| from_json::<LessonEvent>(line.as_bytes()).unwrap());
    let updates: Vec<usize> = log
        .filter_map(|event| match event {
            LessonEvent::Rollouts(summary) => Some(summary.losses.len()),
            LessonEvent::HeldOut { .. } | LessonEvent::Validation { .. } => None,
        })
        .collect();
    assert_eq!(updates, [2, 2, 2, 2, 1]);

    // Killed before it could write its result.
    for name in ["result.json", "lesson_result.json"] {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    assert_eq!((run(1, false).unwrap().1, files()), (outcome.clone(), want.clone()));

    std::fs::remove_dir_all(&folder).unwrap();
    for batch in 1..=3 {
        match run(2, true) {
            Err(TrainError::Stopped { step, .. }) => assert_eq!(step, 2 * batch),
            other => panic!("{other:?}"),
        }
    }
    let (resumed, again) = run(3, false).unwrap();
    assert_eq!(resumed.checkpoint_hash, straight.checkpoint_hash);
    assert_eq!((again, files()), (outcome, want));
}

/// An environment in the shell's own language that likes answers which begin with one digit.
fn likes_ones(folder: &Path) -> String {
    let path = folder.join("env.sh");
    let body = r#"while read -r line; do case "$line" in
*'"op":"problem"'*train*) echo '{"key":"a","prompt":"sort 7 3 12"}';;
*'"op":"problem"'*validation*) echo '{"key":"b","prompt":"sort 8 2 9"}';;
*'"op":"problem"'*) echo '{"key":"c","prompt":"sort 4 16 5"}';;
*'"answer":"1'*) echo '{"reward":1}';;
*) echo '{"reward":0}';;
esac; done
"#;
    std::fs::write(&path, body).unwrap();
    format!("command:sh {}", path.display())
}

/// Batches until a reward that a model can find is nearly always had.
const BATCHES: u64 = 100;

/// Rewards of a batch, and test answers that are right, before and after.
fn check_that_rewards_raise_the_reward(lab: &Path, parent: &str, kind: &str) {
    let env = likes_ones(lab);
    let task = RlTask {
        env: env.clone(),
        num_prompts: 8,
        group_size: 8,
        cut_is_wrong: true,
        updates_per_batch: 1,
        eval_problems: 1,
        eval_samples: 64,
        eval_every: BATCHES,
        ..rl_task(None)
    };
    let objective = shipped("std/lessons/rl.star").unwrap();
    let mut asked = request(parent, BATCHES, objective, LessonTask::Rl(task), &[("rl_lr", 0.2)]);
    asked.num_rows = 64;
    asked.values.insert("rl_loss".into(), SettingValue::Text(kind.into()));
    let taught = lesson(lab, asked).unwrap();
    let stop = AtomicBool::new(false);
    let mut env = Environment::open(&env).unwrap();
    let done = rl(lab, taught, &mut env, &tokenizer(lab), &options(1, &stop)).unwrap();
    let (result, Some(outcome)) = done else { panic!("it diverged") };
    let log = std::fs::read_to_string(RunDir::path(lab, &result.id).join("lesson.jsonl")).unwrap();
    let rewards: Vec<f64> = log
        .lines()
        .filter_map(|line| match from_json::<LessonEvent>(line.as_bytes()).unwrap() {
            LessonEvent::Rollouts(summary) => Some(summary.reward),
            LessonEvent::HeldOut { .. } | LessonEvent::Validation { .. } => None,
        })
        .collect();
    let (before, after) = (outcome.test_before.unwrap(), outcome.test_after.unwrap());
    assert!(rewards[0] < 0.5 && before.pass_at_1() < 0.5, "{kind}: it can do it already: {rewards:?}");
    let last = rewards[rewards.len() - 5..].iter().sum::<f64>() / 5.0;
    assert!(last > 0.9 && after.pass_at_1() > 0.9, "{kind}: {rewards:?}, {after:?}");
}

#[test]
fn rewards_raise_the_reward_from_chance_to_nearly_always() {
    let (lab, base) = trained();
    let parent = run_sft(lab.path(), &base, false, 1, false).unwrap().id;
    for kind in ["grpo", "reinforce", "rloo", "dr_grpo", "dapo", "cispo"] {
        check_that_rewards_raise_the_reward(lab.path(), &parent, kind);
    }
}

#[test]
fn what_is_sampled_is_what_is_trained() {
    let (lab, base) = trained();
    let parent = run_sft(lab.path(), &base, false, 1, false).unwrap().id;
    // The loss is how far the ratio is from 1, before anything has moved: the learning rate is 0.
    let objective = "
def lr_multiplier(t):
    return 0.0
def loss(logits, targets, old_log_prob, token_share, **others):
    return (abs(exp(-token_losses(logits, targets) - old_log_prob) - 1) * token_share).sum()
";
    let (result, _) = run_rl(lab.path(), &parent, objective, &[], 1, false).unwrap();
    let text = std::fs::read_to_string(RunDir::path(lab.path(), &result.id).join("lesson.jsonl")).unwrap();
    let mut updates = 0;
    for line in text.lines() {
        if let LessonEvent::Rollouts(summary) = from_json::<LessonEvent>(line.as_bytes()).unwrap() {
            // The decoder adds in another order than the training step; 4e-6 nats was the worst seen.
            assert!(summary.sampler_gap < 1e-4, "{summary:?}");
            assert!(summary.kl_to_reference.abs() < 1e-9, "it is its own reference: {summary:?}");
            assert!(summary.losses.iter().all(|off| off.abs() < 1e-5), "{summary:?}");
            updates += summary.losses.len();
        }
    }
    assert!(updates >= 4, "{text}");
}
