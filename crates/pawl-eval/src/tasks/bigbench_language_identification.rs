//! Which language a sentence is in (Srivastava et al. 2022, BIG-bench).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "bigbench_language_identification",
    about: "Which language a sentence is in",
    kind: Kind::Choice,
    shots: 10,
    delimiter: " ",
    chance: 0.091,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/bigbench_language_identification.jsonl", Kind::Choice),
};
