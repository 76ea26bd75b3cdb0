//! Everyday knowledge (Talmor et al. 2019, CommonsenseQA).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "commonsense_qa",
    about: "Everyday knowledge",
    kind: Kind::Choice,
    shots: 10,
    delimiter: " ",
    chance: 0.2,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/commonsense_qa.jsonl", Kind::Choice),
};
