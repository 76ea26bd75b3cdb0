//! School science questions that retrieval gets wrong (Clark et al. 2018, ARC, the challenge set).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "arc_challenge",
    about: "School science questions that retrieval gets wrong",
    kind: Kind::Choice,
    shots: 10,
    delimiter: "\nAnswer: ",
    chance: 0.25,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/arc_challenge.jsonl", Kind::Choice),
};
