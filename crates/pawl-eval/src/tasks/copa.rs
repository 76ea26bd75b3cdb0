//! Which is the cause or the effect (Roemmele et al. 2011, COPA).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "copa",
    about: "Which is the cause or the effect",
    kind: Kind::Choice,
    shots: 0,
    delimiter: " ",
    chance: 0.5,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/copa.jsonl", Kind::Choice),
};
