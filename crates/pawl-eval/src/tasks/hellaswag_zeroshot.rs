//! How a scene goes on, without examples (Zellers et al. 2019, HellaSwag).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "hellaswag_zeroshot",
    about: "How a scene goes on, without examples",
    kind: Kind::Choice,
    shots: 0,
    delimiter: " ",
    chance: 0.25,
    is_core: true,
    read: read::hellaswag,
};
