//! Which way of doing something works (Bisk et al. 2020, PIQA).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "piqa",
    about: "Which way of doing something works",
    kind: Kind::Choice,
    shots: 10,
    delimiter: "\nAnswer: ",
    chance: 0.5,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/piqa.jsonl", Kind::Choice),
};
