//! The same at scale, harder (Sakaguchi et al. 2019, WinoGrande).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "winogrande",
    about: "The same at scale, harder",
    kind: Kind::Schema,
    shots: 0,
    delimiter: " ",
    chance: 0.5,
    is_core: true,
    read: |folder| read::json_lines(folder, "core/winogrande.jsonl", Kind::Schema),
};
