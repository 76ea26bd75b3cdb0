//! Tasks whose answers a model writes: GSM8K, MBPP, HumanEval. Each problem is asked `samples` times; pass@k is the
//! unbiased estimate over problems, which are the sample of its standard error.
//!
//! Files are read as published, prompts are those of the papers. Programs run in the sandbox alone. Where a test is
//! `assert CALL == VALUE` the value never enters the process that runs the program; tests of another form stand beside
//! the program, which could forge them, and the score says of how many problems that is so.

mod published;

use super::TaskError;
use crate::env::{all_same, final_number, program};
use crate::pass_at::pass_at;
use crate::sandbox::{Outcome, Sandbox};
use pawl_data::Tokenizer;
use pawl_model::{DecodeOptions, Emitted, Generator, Model, Request, SamplerSettings};
use pawl_record::{PassScore, SCHEMA, WrittenScore, read_json, write_json};
use serde_json::Value;
use std::path::Path;

/// Raised when the rules of a task change, so that older scores are not taken for newer ones.
const RULES: u32 = 2;
/// Sequences that are generated at once.
const SEQUENCES: usize = 16;
/// Values of tests that one process works out.
const VALUES: usize = 64;

/// A task whose answers are written.
pub struct WrittenTask {
    /// As on the command line.
    pub name: &'static str,
    /// One line on what it asks.
    pub about: &'static str,
    /// Examples before each problem.
    pub shots: u64,
    /// Tokens of an answer at most.
    pub max_tokens: usize,
    /// What ends an answer, and is no part of it.
    stops: &'static [&'static str],
    read: fn(&Path) -> Result<Questions, TaskError>,
}

impl WrittenTask {
    /// For each problem of the file whether the answer to it is right; one that has no answer is wrong.
    pub fn judge(
        &self,
        data_folder: &Path,
        answers: &[&str],
        sandbox: &Sandbox,
    ) -> Result<Vec<bool>, TaskError> {
        let questions = (self.read)(data_folder)?.all;
        let judges = prepared(&questions, sandbox)?;
        let answers = answers.iter().copied().chain(std::iter::repeat(""));
        judges.iter().zip(answers).map(|(judge, answer)| judge.accepts(answer, sandbox)).collect()
    }
}

/// All of them.
pub const WRITTEN: &[WrittenTask] = &[published::GSM8K, published::MBPP, published::HUMANEVAL];

/// Problems of a task, and the hash of the files they were read from.
struct Questions {
    all: Vec<Question>,
    hash: String,
}

struct Question {
    prompt: String,
    judge: Judge,
}

/// When an answer is right.
enum Judge {
    /// This number stands first after `####`.
    Number(String),
    /// A Python program: what stands before the answer, and what is set up after it for the tests.
    Program { before: String, setup: String, tests: Tests },
}

/// Tests of a program.
enum Tests {
    /// Calls, and the expressions of their values.
    Values(Vec<(String, String)>),
    /// Statements that raise where the program is wrong.
    Beside(String),
}

/// How a task is run.
pub struct WrittenOptions<'a> {
    /// Where the data lies.
    pub data_folder: &'a Path,
    /// Problems at most, the first of the file.
    pub limit: Option<usize>,
    /// Answers of each problem.
    pub samples: u64,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Where scores are kept and found again; `None` computes them always.
    pub cache: Option<&'a Path>,
    /// BLAKE3 of the model's parameters.
    pub model_hash: &'a str,
    /// Where programs run.
    pub sandbox: &'a Sandbox,
    /// Told of answers done and in all.
    pub progress: &'a dyn Fn(usize, usize),
}

/// The score of `model` on `task`, from the cache where it is there.
pub fn run_written(
    task: &WrittenTask,
    model: &Model,
    tokenizer: &Tokenizer,
    options: &WrittenOptions<'_>,
) -> Result<WrittenScore, TaskError> {
    let mut questions = (task.read)(options.data_folder)?;
    let key = key(task, &questions.hash, tokenizer, options);
    let path = options.cache.map(|folder| folder.join(format!("{}-{}.json", task.name, &key[..12])));
    if let Some(path) = path.as_ref().filter(|path| path.exists()) {
        // A file that cannot be read is a score to compute again.
        if let Ok(known) = read_json::<WrittenScore>(path)
            && known.key == key
        {
            return Ok(known);
        }
    }
    questions.all.truncate(options.limit.unwrap_or(usize::MAX));
    let questions = questions.all;
    let judges = prepared(&questions, options.sandbox)?;
    let beside = judges.iter().filter(|judge| matches!(judge, Ready::Beside { .. })).count() as u64;
    let samples = options.samples as usize;
    let (answers, cut) = write(task, model, tokenizer, &questions, options)?;
    let mut right = vec![0u64; questions.len()];
    for (at, answer) in answers.iter().enumerate() {
        right[at / samples] += u64::from(judges[at / samples].accepts(answer, options.sandbox)?);
        (options.progress)(at + 1, answers.len());
    }
    let ks = (0..).map(|power| 1u64 << power).take_while(|k| *k <= options.samples);
    let score = WrittenScore {
        schema: SCHEMA,
        key,
        task: task.name.to_string(),
        problems: questions.len() as u64,
        samples: options.samples,
        temperature: f64::from(options.temperature),
        pass_at: ks.map(|k| pass_score(&right, options.samples, k)).collect(),
        shots: task.shots,
        cut,
        beside,
    };
    if let (Some(path), Some(folder)) = (path, options.cache) {
        std::fs::create_dir_all(folder)
            .map_err(|source| TaskError::Io { path: folder.to_path_buf(), source })?;
        write_json(&path, &score)?;
    }
    Ok(score)
}

/// Everything that a score depends on.
fn key(task: &WrittenTask, data: &str, tokenizer: &Tokenizer, options: &WrittenOptions<'_>) -> String {
    let numbers = format!("{RULES} {:?} {} {}", options.limit, options.samples, options.temperature);
    let bos = tokenizer.bos().to_string();
    let mut key = blake3::Hasher::new();
    for part in [options.model_hash, tokenizer.hash(), &bos, task.name, data, &numbers] {
        key.update(part.as_bytes()).update(&[0]);
    }
    key.finalize().to_hex().to_string()
}

/// Mean of pass@k over problems and its standard error.
fn pass_score(right: &[u64], samples: u64, k: u64) -> PassScore {
    let rates: Vec<f64> = right.iter().map(|c| pass_at(samples, *c, k)).collect();
    let n = rates.len() as f64;
    let rate = rates.iter().sum::<f64>() / n.max(1.0);
    let variance = rates.iter().map(|r| (r - rate).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    PassScore { k, rate, standard_error: (variance / n.max(1.0)).sqrt() }
}

/// All answers, those of a problem one after another, and how many prompts lost their beginning to fit the model.
fn write(
    task: &WrittenTask,
    model: &Model,
    tokenizer: &Tokenizer,
    questions: &[Question],
    options: &WrittenOptions<'_>,
) -> Result<(Vec<String>, u64), TaskError> {
    let decode = DecodeOptions { num_threads: model.num_threads(), ..DecodeOptions::default() };
    let mut generator = Generator::new(model, SEQUENCES, decode)?;
    let seq_len = model.recipe().seq_len();
    let max_tokens = task.max_tokens.min(seq_len / 2).max(1);
    let samples = options.samples as usize;
    let mut cut = 0;
    for (at, question) in questions.iter().enumerate() {
        let mut prompt = vec![tokenizer.bos()];
        prompt.extend(tokenizer.encode(&question.prompt));
        let room = (seq_len + 1 - max_tokens).max(1);
        cut += u64::from(fit(&mut prompt, room));
        for sample in 0..samples {
            let id = (at * samples + sample) as u64;
            let settings =
                SamplerSettings { temperature: options.temperature, seed: id, ..SamplerSettings::default() };
            let ends = vec![tokenizer.bos()];
            let request =
                Request { prompt: prompt.clone(), max_tokens, settings, ends, num_top: 0, echo: false };
            generator.submit(id, request)?;
        }
    }
    let total = questions.len() * samples;
    let mut tokens: Vec<Vec<u32>> = vec![Vec::new(); total];
    let mut done = 0;
    generator.run(&mut |id, emitted| match emitted {
        Emitted::Token { token, .. } => {
            let said = &mut tokens[id as usize];
            said.push(token.token);
            let text = tokenizer.decode(said);
            let goes_on = !task.stops.iter().any(|stop| text.contains(stop));
            if !goes_on {
                done += 1;
                (options.progress)(done, total);
            }
            goes_on
        }
        Emitted::End(_) => {
            done += 1;
            (options.progress)(done, total);
            false
        }
        Emitted::Prompt { .. } => true,
    });
    let text = |tokens: &Vec<u32>| {
        let text = tokenizer.decode(tokens);
        let end = task.stops.iter().filter_map(|stop| text.find(stop)).min();
        text[..end.unwrap_or(text.len())].to_string()
    };
    Ok((tokens.iter().map(text).collect(), cut))
}

/// Cuts a prompt to its first token, which says where a text begins, and its end; whether it was too long.
fn fit(prompt: &mut Vec<u32>, room: usize) -> bool {
    let too_many = prompt.len().saturating_sub(room);
    prompt.drain(1..1 + too_many);
    too_many > 0
}

/// A program with an answer in it.
fn whole(before: &str, answer: &str, setup: &str) -> String {
    program(&format!("{before}{answer}"), setup)
}

/// A judge whose values are known.
enum Ready<'a> {
    Number(&'a str),
    Values { before: &'a str, setup: &'a str, calls: Vec<String>, values: Vec<Value> },
    Beside { before: &'a str, setup: &'a str, tests: String },
}

impl Ready<'_> {
    fn accepts(&self, answer: &str, sandbox: &Sandbox) -> Result<bool, TaskError> {
        let outcome = match self {
            Ready::Number(number) => {
                return Ok(final_number(answer).as_deref() == Some(number));
            }
            Ready::Values { before, setup, calls, .. } => {
                sandbox.run(&whole(before, answer, setup), calls)?
            }
            Ready::Beside { before, setup, tests } => {
                let program = whole(before, answer, setup);
                sandbox.run(&format!("{program}{tests}\n"), &["True".to_string()])?
            }
        };
        let Outcome::Values(got) = outcome else { return Ok(false) };
        Ok(match self {
            Ready::Values { values, .. } => all_same(&got, values),
            Ready::Number(_) | Ready::Beside { .. } => got == [Ok(Value::Bool(true))],
        })
    }
}

/// The judges with the values of their tests, worked out in a process without a program. Tests whose values cannot be
/// worked out that way stand beside the program.
fn prepared<'a>(questions: &'a [Question], sandbox: &Sandbox) -> Result<Vec<Ready<'a>>, TaskError> {
    let texts = |question: &Question| match &question.judge {
        Judge::Program { tests: Tests::Values(tests), .. } => {
            tests.iter().map(|(_, value)| value.clone()).collect()
        }
        Judge::Program { tests: Tests::Beside(_), .. } | Judge::Number(_) => Vec::new(),
    };
    let wanted: Vec<String> = questions.iter().flat_map(texts).collect();
    let mut known = Vec::with_capacity(wanted.len());
    for part in wanted.chunks(VALUES) {
        known.extend(worked_out(part, sandbox)?);
    }
    let mut known = known.into_iter();
    let mut ready = Vec::with_capacity(questions.len());
    for question in questions {
        ready.push(match &question.judge {
            Judge::Number(number) => Ready::Number(number),
            Judge::Program { before, setup, tests: Tests::Beside(tests) } => {
                Ready::Beside { before, setup, tests: tests.clone() }
            }
            Judge::Program { before, setup, tests: Tests::Values(tests) } => {
                let values: Option<Vec<Value>> =
                    known.by_ref().take(tests.len()).collect::<Vec<_>>().into_iter().collect();
                match values {
                    Some(values) => {
                        let calls = tests.iter().map(|(call, _)| call.clone()).collect();
                        Ready::Values { before, setup, calls, values }
                    }
                    None => {
                        let tests = tests.iter().map(|(call, value)| format!("assert ({call}) == ({value})"));
                        Ready::Beside { before, setup, tests: tests.collect::<Vec<_>>().join("\n") }
                    }
                }
            }
        });
    }
    Ok(ready)
}

/// The value of each expression; `None` where it has none that can be told.
fn worked_out(texts: &[String], sandbox: &Sandbox) -> Result<Vec<Option<Value>>, TaskError> {
    match sandbox.run("", texts)? {
        Outcome::Values(values) => Ok(values.into_iter().map(Result::ok).collect()),
        Outcome::TimedOut | Outcome::TooMuchOutput | Outcome::NoAnswer if texts.len() > 1 => {
            let (left, right) = texts.split_at(texts.len() / 2);
            Ok([worked_out(left, sandbox)?, worked_out(right, sandbox)?].concat())
        }
        Outcome::TimedOut | Outcome::TooMuchOutput | Outcome::NoAnswer => Ok(vec![None]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_is_cut_still_begins_where_texts_begin() {
        let mut prompt = vec![9, 1, 2, 3, 4];
        assert!(!fit(&mut prompt, 5) && prompt == [9, 1, 2, 3, 4]);
        assert!(fit(&mut prompt, 3) && prompt == [9, 3, 4]);
        assert!(fit(&mut prompt, 1) && prompt == [9]);
    }
}
