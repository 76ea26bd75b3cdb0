//! Analytical reasoning of the law school test (Zhong et al. 2023, AGIEval).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "agi_eval_lsat_ar",
    about: "Analytical reasoning of the law school test",
    kind: Kind::Choice,
    shots: 3,
    delimiter: " ",
    chance: 0.2,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/agi_eval_lsat_ar.jsonl", Kind::Choice),
};
