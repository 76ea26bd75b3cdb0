//! Arithmetic with operators defined on the spot (Srivastava et al. 2022, BIG-bench).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "bigbench_operators",
    about: "Arithmetic with operators defined on the spot",
    kind: Kind::Completion,
    shots: 10,
    delimiter: " ",
    chance: 0.0,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/bigbench_operators.jsonl", Kind::Completion),
};
