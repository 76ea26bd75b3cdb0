//! Outcomes of small algorithms (Srivastava et al. 2022, BIG-bench).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "bigbench_cs_algorithms",
    about: "Outcomes of small algorithms",
    kind: Kind::Completion,
    shots: 10,
    delimiter: " ",
    chance: 0.0,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/bigbench_cs_algorithms.jsonl", Kind::Completion),
};
