//! School science questions (Clark et al. 2018, ARC, the easy set).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "arc_easy",
    about: "School science questions",
    kind: Kind::Choice,
    shots: 10,
    delimiter: "\nAnswer: ",
    chance: 0.25,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/arc_easy.jsonl", Kind::Choice),
};
