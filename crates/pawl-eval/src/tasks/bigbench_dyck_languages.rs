//! Closing brackets in order (Srivastava et al. 2022, BIG-bench).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "bigbench_dyck_languages",
    about: "Closing brackets in order",
    kind: Kind::Completion,
    shots: 10,
    delimiter: " ",
    chance: 0.0,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/bigbench_dyck_languages.jsonl", Kind::Completion),
};
