//! Repeating words as told (Srivastava et al. 2022, BIG-bench).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "bigbench_repeat_copy_logic",
    about: "Repeating words as told",
    kind: Kind::Completion,
    shots: 10,
    delimiter: " ",
    chance: 0.0,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/bigbench_repeat_copy_logic.jsonl", Kind::Completion),
};
