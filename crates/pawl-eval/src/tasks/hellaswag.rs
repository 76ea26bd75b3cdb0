//! How a scene goes on (Zellers et al. 2019, HellaSwag).

use super::{Kind, Task, read};

pub(super) const TASK: Task = Task {
    name: "hellaswag",
    about: "How a scene goes on",
    kind: Kind::Choice,
    shots: 10,
    delimiter: " ",
    chance: 0.25,
    is_core: true,
    read: read::hellaswag,
};
