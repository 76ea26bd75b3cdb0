//! Which of two nouns a sentence goes on about (Levesque et al. 2012, the Winograd schema challenge).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "winograd",
    about: "Which of two nouns a sentence goes on about",
    kind: Kind::Schema,
    shots: 0,
    delimiter: " ",
    chance: 0.5,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/winograd_wsc.jsonl", Kind::Schema),
};
