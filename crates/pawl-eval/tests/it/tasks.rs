//! Scores of a model of some thousand parameters, against each item computed plainly.

use pawl_data::Tokenizer;
use pawl_eval::{TaskOptions, core_score, run_task, tasks_named};
use pawl_model::{Model, Scorer, log_prob};
use pawl_recipe::{Overrides, Recipe, Source, shipped, std_only};
use pawl_record::{SettingValue, TaskScore};
use std::path::Path;

const VOCAB: usize = 280;

pub(crate) fn model(seq_len: i64) -> Model {
    let source = Source { name: "llama".into(), text: shipped("llama").unwrap().into() };
    let values = [
        ("vocab_size", VOCAB as i64),
        ("seq_len", seq_len),
        ("tokens_per_step", seq_len),
        ("width", 32),
        ("head_dim", 8),
    ];
    let values = values.map(|(name, n)| (name.to_string(), SettingValue::Int(n))).into();
    let recipe = Recipe::load(&source, &Overrides { depth: Some(2), values }, &std_only).unwrap();
    let mut model = Model::frozen(recipe, 1).unwrap();
    model.draw(11);
    model.tensor_mut("embed.weight").unwrap().floats_mut().iter_mut().for_each(|x| *x *= 30.0);
    model
}

pub(crate) fn tokenizer() -> Tokenizer {
    Tokenizer::train(&["the cat sat on the mat and the dog ate the hat".repeat(9)], VOCAB, 1).unwrap()
}

fn write(folder: &Path, file: &str, lines: &[String]) {
    let path = folder.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, lines.join("\n")).unwrap();
}

fn score(folder: &Path, task: &str, model: &Model, limit: Option<usize>, cache: Option<&Path>) -> TaskScore {
    let options =
        TaskOptions { data_folder: folder, limit, cache, model_hash: "a model", progress: &|_, _| () };
    run_task(tasks_named(&[task.to_string()]).unwrap()[0], model, &tokenizer(), &options).unwrap()
}

/// Log-probabilities of `text` after BOS, and whether each token was the likeliest.
fn plainly(model: &Model, text: &str) -> Vec<(f64, bool)> {
    let tokenizer = tokenizer();
    let mut tokens = vec![tokenizer.bos()];
    tokens.extend(tokenizer.encode(text));
    let mut scorer = Scorer::logits(model, 1, tokens.len()).unwrap();
    scorer.refresh(model);
    scorer.tokens_mut().iter_mut().zip(&tokens).for_each(|(to, token)| *to = *token as i32);
    let logits = scorer.run(model);
    let told = |place: usize| {
        let row = &logits[(place - 1) * VOCAB..place * VOCAB];
        let best = row.iter().all(|x| *x <= row[tokens[place] as usize]);
        (f64::from(log_prob(row, tokens[place])), best)
    };
    (1..tokens.len()).map(told).collect()
}

const NOUNS: [&str; 12] =
    ["cat", "dog", "hat", "mat", "sun", "tree", "key", "book", "river", "song", "door", "lamp"];

#[test]
fn pairs_choices_schemas_and_completions_are_judged_as_each_one_alone() {
    let (folder, model) = (tempfile::tempdir().unwrap(), model(96));
    let mut expected = [0, 0, 0];
    let (mut pairs, mut choices, mut schemas) = (Vec::new(), Vec::new(), Vec::new());
    let sum = |text: &str| plainly(&model, text).iter().map(|(log_prob, _)| log_prob).sum::<f64>();
    // Means over the last `num` tokens.
    let mean = |text: &str, num: usize| {
        let all = plainly(&model, text);
        all[all.len() - num..].iter().map(|(log_prob, _)| log_prob).sum::<f64>() / num as f64
    };
    for (n, noun) in NOUNS.iter().enumerate() {
        let other = NOUNS[(n + 5) % 12];
        let (good, bad) = (format!("the {noun} sat on a {other}"), format!("on a {other} the sat {noun}"));
        expected[0] += u64::from(sum(&good) > sum(&bad));
        pairs.push(format!(r#"{{"sentence_good":"{good}","sentence_bad":"{bad}","UID":"order_{}"}}"#, n % 2));
        // A digit is the first that differs, so what follows the shared tokens is known.
        let query = format!("the {noun} is");
        let (a, b) = (format!("9{}", NOUNS[(n * 7 + 1) % 12]), format!("5{}", NOUNS[(n * 5 + 3) % 12]));
        let num = |text: &str| tokenizer().encode(text).len();
        let shared = num(&format!("{query} "));
        let full = |choice: &str| format!("{query} {choice}");
        let value = |choice: &str| mean(&full(choice), num(&full(choice)) - shared);
        expected[1] += u64::from(value(&a) >= value(&b));
        choices.push(format!(r#"{{"query":"{query}","choices":["{a}","{b}"],"gold":0}}"#));
        let continuation = "?! ate.";
        let num_shared = num(&format!(" {continuation}"));
        let value = |context: &str| mean(&format!("{context} {continuation}"), num_shared);
        let contexts = [format!("{noun}7"), format!("{other}8")];
        expected[2] += u64::from(value(&contexts[1]) > value(&contexts[0]));
        schemas.push(format!(
            r#"{{"context_options":["{}","{}"],"continuation":"{continuation}","gold":1}}"#,
            contexts[0], contexts[1]
        ));
    }
    write(folder.path(), "blimp/data/order.jsonl", &pairs);
    write(folder.path(), "core/copa.jsonl", &choices);
    write(folder.path(), "core/winograd_wsc.jsonl", &schemas);
    for (task, expected) in ["blimp", "copa", "winograd"].iter().zip(expected) {
        let score = score(folder.path(), task, &model, None, None);
        assert_eq!((score.all.items, score.all.right), (12, expected), "{task}");
        assert!((1..12).contains(&expected), "{task}: {expected} of 12 proves little");
    }
    let blimp = score(folder.path(), "blimp", &model, None, None);
    assert_eq!(blimp.parts.values().map(|part| part.items).collect::<Vec<_>>(), [6, 6]);
    assert_eq!(blimp.parts.values().map(|part| part.right).sum::<u64>(), expected[0]);
}

#[test]
fn a_completion_is_right_when_every_token_is_the_likeliest() {
    let (folder, model) = (tempfile::tempdir().unwrap(), model(96));
    let tokenizer = tokenizer();
    let mut lines = Vec::new();
    let mut expected = 0;
    for context in NOUNS {
        // Its own greedy continuation, where that is text, and something else.
        let mut text = format!("{context} ");
        let mut tokens = vec![tokenizer.bos()];
        tokens.extend(tokenizer.encode(context));
        let mut scorer = Scorer::logits(&model, 1, tokens.len()).unwrap();
        scorer.refresh(&model);
        scorer.tokens_mut().iter_mut().zip(&tokens).for_each(|(to, token)| *to = *token as i32);
        let row = scorer.run(&model)[(tokens.len() - 1) * VOCAB..].to_vec();
        let best = (0..VOCAB).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        text.push_str(tokenizer.decode(&[best as u32]).trim());
        let continuation = text.split_once(' ').unwrap().1.to_string();
        if continuation.is_empty()
            || !continuation.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '\\')
        {
            continue;
        }
        let before = tokenizer.encode(context).len();
        expected += u64::from(plainly(&model, &text)[before..].iter().all(|(_, best)| *best));
        lines.push(format!(r#"{{"context":"{context}","continuation":"{continuation}"}}"#));
    }
    write(folder.path(), "core/lambada_openai.jsonl", &lines);
    let score = score(folder.path(), "lambada", &model, None, None);
    assert_eq!((score.all.items, score.all.right), (lines.len() as u64, expected));
}

#[test]
fn a_score_is_found_again_for_the_same_model_task_and_data_alone() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = model(96);
    let line = |gold: usize| format!(r#"{{"query":"the cat","choices":["sat","ate","zz"],"gold":{gold}}}"#);
    write(folder.path(), "core/copa.jsonl", &[line(0), line(1), line(2)]);
    let first = score(folder.path(), "copa", &model, None, Some(cache.path()));
    let file = std::fs::read_dir(cache.path()).unwrap().next().unwrap().unwrap().path();
    // What the file says is believed: that is how one sees that it was read.
    let mut kept: TaskScore = pawl_record::read_json(&file).unwrap();
    assert_eq!(kept, first);
    kept.all.right = 77;
    pawl_record::write_json(&file, &kept).unwrap();
    assert_eq!(score(folder.path(), "copa", &model, None, Some(cache.path())).all.right, 77);
    assert_eq!(score(folder.path(), "copa", &model, Some(2), Some(cache.path())).all.items, 2);
    write(folder.path(), "core/copa.jsonl", &[line(2), line(1), line(1)]);
    assert_ne!(score(folder.path(), "copa", &model, None, Some(cache.path())).all.right, 77);
    std::fs::write(&file, "{").unwrap();
    write(folder.path(), "core/copa.jsonl", &[line(0), line(1), line(2)]);
    assert_eq!(score(folder.path(), "copa", &model, None, Some(cache.path())), first);
}

#[test]
fn what_is_longer_than_the_model_loses_its_beginning_and_is_counted() {
    let (folder, model) = (tempfile::tempdir().unwrap(), model(16));
    let long = "z9".repeat(30);
    let line = |gold: usize| format!(r#"{{"query":"{long}","choices":["q","w"],"gold":{gold}}}"#);
    write(folder.path(), "core/copa.jsonl", &[line(0), line(1)]);
    let score = score(folder.path(), "copa", &model, None, None);
    assert_eq!((score.all.items, score.all.right, score.cut), (2, 1, 4));
}

#[test]
fn core_is_the_mean_of_centered_accuracies() {
    let score = |task: &str, right, items, chance| TaskScore {
        schema: 1,
        key: String::new(),
        task: task.into(),
        all: pawl_record::Share { items, right },
        chance,
        shots: 0,
        cut: 0,
        parts: Default::default(),
    };
    let scores = [score("copa", 75, 100, 0.5), score("boolq", 62, 100, 0.62), score("blimp", 99, 100, 0.5)];
    let core = core_score(&scores).unwrap();
    assert!((core.mean - 0.25).abs() < 1e-12 && core.num_tasks == 2 && core.num_core == 22);
    // sqrt(0.75 * 0.25 / 100) / 0.5 and sqrt(0.62 * 0.38 / 100) / 0.38, together over two.
    let (a, b) = (0.043_301_27 / 0.5, 0.048_538_64 / 0.38);
    assert!((core.error - f64::hypot(a, b) / 2.0).abs() < 1e-7);
    assert!(core_score(&scores[2..]).is_none());
    assert_eq!(tasks_named(&["core".into()]).unwrap().len(), 20);
    assert!(tasks_named(&["nothing".into()]).is_err_and(|error| error.to_string().contains("blimp")));
}
