//! Scores of a model on published tasks.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Items that were right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Items.
    pub items: u64,
    /// Of those, right.
    pub right: u64,
}

impl Share {
    /// Right over all, 0 to 1.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.items.max(1) as f64
    }

    /// Standard error of the accuracy.
    pub fn standard_error(&self) -> f64 {
        let p = self.accuracy();
        (p * (1.0 - p) / self.items.max(1) as f64).sqrt()
    }
}

/// Share of problems solved by one of k answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PassScore {
    /// Answers that may be tried.
    pub k: u64,
    /// Mean over problems, 0 to 1.
    pub rate: f64,
    /// Its standard error over problems.
    pub standard_error: f64,
}

/// A model on a task whose answers it writes; also a file, as [`TaskScore`] is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WrittenScore {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// Hash of the model, the task's rules and data, and how answers were drawn: 64 hex digits.
    pub key: String,
    /// Name of the task.
    pub task: String,
    /// Problems.
    pub problems: u64,
    /// Answers of each.
    pub samples: u64,
    /// Of the draws; 0 took the likeliest token.
    pub temperature: f64,
    /// By number of tries.
    pub pass_at: Vec<PassScore>,
    /// Examples before each problem.
    pub shots: u64,
    /// Prompts that lost their beginning to fit the model's positions.
    pub cut: u64,
    /// Problems whose tests stood beside the program that they judged.
    pub beside: u64,
}

/// A model on one task; also a file that is not computed again for the same model, task and data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskScore {
    /// [`crate::SCHEMA`] of the writer.
    pub schema: u32,
    /// Hash of the model, the task's rules and data, and the number of items: 64 hex digits.
    pub key: String,
    /// Name of the task.
    pub task: String,
    /// All items.
    pub all: Share,
    /// Accuracy of a guess, 0 to 1.
    pub chance: f64,
    /// Examples before each item.
    pub shots: u64,
    /// Sequences of which the beginning was cut to fit the model's positions.
    pub cut: u64,
    /// By part of the task, where it has parts.
    pub parts: BTreeMap<String, Share>,
}

impl TaskScore {
    /// 0 at chance, 1 when all is right.
    pub fn centered(&self) -> f64 {
        (self.all.accuracy() - self.chance) / (1.0 - self.chance)
    }

    /// Standard error of the centered accuracy.
    pub fn centered_error(&self) -> f64 {
        self.all.standard_error() / (1.0 - self.chance)
    }
}
