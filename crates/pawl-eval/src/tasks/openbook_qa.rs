//! Elementary science (Mihaylov et al. 2018, OpenBookQA).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "openbook_qa",
    about: "Elementary science",
    kind: Kind::Choice,
    shots: 0,
    delimiter: " ",
    chance: 0.25,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/openbook_qa.jsonl", Kind::Choice),
};
