//! Yes or no questions about a passage (Clark et al. 2019, BoolQ).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "boolq",
    about: "Yes or no questions about a passage",
    kind: Kind::Choice,
    shots: 10,
    delimiter: "\nAnswer: ",
    chance: 0.62,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/boolq.jsonl", Kind::Choice),
};
