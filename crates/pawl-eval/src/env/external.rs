//! An environment in another process, in any language: one JSON document a line, question on its stdin, answer on its
//! stdout.
//!
//! ```text
//! > {"op": "problem", "split": "train", "seed": 0, "idx": 7, "difficulty": 1}
//! < {"key": "...", "prompt": "...", "demonstration": "..." (optional), "state": anything (optional)}
//! > {"op": "reward", "key": "...", "state": ..., "answer": "..."}
//! < {"reward": 0.0 to 1.0}
//! ```
//!
//! `key` is what makes it this problem. One that is drawn for two splits is refused: splits must not share problems.

use super::{EnvError, Judge, Problem, ProblemSplit};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of the longest line.
const MAX_LINE: u64 = 1 << 20;

/// A process that makes and judges problems.
pub struct External {
    command: String,
    child: Child,
    stdin: ChildStdin,
    answers: Receiver<std::io::Result<String>>,
    splits: BTreeMap<String, ProblemSplit>,
}

#[derive(Deserialize)]
struct Asked {
    key: String,
    prompt: String,
    #[serde(default)]
    demonstration: Option<String>,
    #[serde(default)]
    state: Value,
}

#[derive(Deserialize)]
struct Rewarded {
    reward: f64,
}

impl External {
    /// Starts `command`: a program and its arguments, divided at spaces.
    pub fn start(command: &str) -> Result<External, EnvError> {
        let failed = |because: String| EnvError::Process { command: command.to_string(), because };
        let mut words = command.split_whitespace();
        let program = words.next().ok_or_else(|| failed("names no program".to_string()))?;
        let mut process = Command::new(program);
        for variable in pawl_record::KEY_VARIABLES {
            process.env_remove(variable);
        }
        let mut child = process
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|why| failed(format!("cannot be started: {why}")))?;
        let stdin = child.stdin.take().expect("piped above");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped above"));
        let (send, answers) = channel();
        // Ends when the process does, or when nobody waits for an answer any more.
        std::thread::spawn(move || {
            loop {
                let mut line = String::new();
                let read = std::io::Read::take(&mut stdout, MAX_LINE).read_line(&mut line);
                let end = !matches!(read, Ok(n) if n > 0);
                if send.send(read.map(|_| line)).is_err() || end {
                    return;
                }
            }
        });
        Ok(External { command: command.to_string(), child, stdin, answers, splits: BTreeMap::new() })
    }

    pub(super) fn problem(
        &mut self,
        split: ProblemSplit,
        seed: u64,
        idx: u64,
        difficulty: u32,
    ) -> Result<Problem, EnvError> {
        let question = json!({"op": "problem", "split": split.name(), "seed": seed, "idx": idx, "difficulty": difficulty});
        let Asked { key, prompt, demonstration, state } = self.ask(&question)?;
        let known = *self.splits.entry(key.clone()).or_insert(split);
        if known != split {
            let because = format!("gave the problem {key:?} for {} and for {}", known.name(), split.name());
            return Err(self.failed(because));
        }
        let judge = Judge::External(json!({"key": key, "state": state}));
        Ok(Problem { key, prompt, demonstration, judge })
    }

    pub(super) fn reward(&mut self, problem: &Value, answer: &str) -> Result<f64, EnvError> {
        let question =
            json!({"op": "reward", "key": problem["key"], "state": problem["state"], "answer": answer});
        let Rewarded { reward } = self.ask(&question)?;
        if (0.0..=1.0).contains(&reward) {
            Ok(reward)
        } else {
            Err(self.failed(format!("gave a reward of {reward}, not one from 0 to 1")))
        }
    }

    fn ask<T: serde::de::DeserializeOwned>(&mut self, question: &Value) -> Result<T, EnvError> {
        let sent = writeln!(self.stdin, "{question}").and_then(|()| self.stdin.flush());
        sent.map_err(|why| self.failed(format!("does not listen: {why}")))?;
        let line = match self.answers.recv_timeout(PATIENCE) {
            Ok(Ok(line)) if line.ends_with('\n') => line,
            Ok(Ok(_)) | Err(RecvTimeoutError::Disconnected) => {
                return Err(self.failed("ended, or gave a line without an end".to_string()));
            }
            Ok(Err(why)) => return Err(self.failed(format!("cannot be read: {why}"))),
            Err(RecvTimeoutError::Timeout) => {
                return Err(self.failed(format!("gave no answer for {} s", PATIENCE.as_secs())));
            }
        };
        pawl_record::from_json(line.as_bytes())
            .map_err(|why| self.failed(format!("answered {:?}: {why}", line.trim_end())))
    }

    fn failed(&self, because: String) -> EnvError {
        EnvError::Process { command: self.command.clone(), because }
    }
}

impl Drop for External {
    fn drop(&mut self) {
        // Whether it had ended already does not matter.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
