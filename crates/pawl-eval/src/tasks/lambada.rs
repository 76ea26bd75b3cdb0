//! The last word of a passage that only its whole tells (Paperno et al. 2016, LAMBADA).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "lambada_openai",
    about: "The last word of a passage that only its whole tells",
    kind: Kind::Completion,
    shots: 0,
    delimiter: " ",
    chance: 0.0,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/lambada_openai.jsonl", Kind::Completion),
};
