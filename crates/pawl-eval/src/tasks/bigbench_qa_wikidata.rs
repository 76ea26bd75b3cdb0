//! Facts from Wikidata as sentences to complete (Srivastava et al. 2022, BIG-bench).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "bigbench_qa_wikidata",
    about: "Facts from Wikidata as sentences to complete",
    kind: Kind::Completion,
    shots: 10,
    delimiter: " ",
    chance: 0.0,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/bigbench_qa_wikidata.jsonl", Kind::Completion),
};
