//! Quiz answers from Jeopardy! (DCLM's selection).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "jeopardy",
    about: "Quiz answers from Jeopardy!",
    kind: Kind::Completion,
    shots: 10,
    delimiter: "\nAnswer: ",
    chance: 0.0,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/jeopardy_all.jsonl", Kind::Completion),
};
