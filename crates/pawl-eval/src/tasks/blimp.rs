//! Which of two sentences is English: 67 phenomena of 1,000 minimal pairs each (Warstadt et al. 2020, BLiMP). At 1 to 10
//! million parameters the most honest of these tasks: it asks for nothing but the language itself.

use super::{Item, Kind, Task, TaskData, TaskError, files, read};
use std::path::Path;

pub(super) const TASK: Task = Task {
    name: "blimp",
    about: "Which of two sentences is English",
    kind: Kind::Pair,
    shots: 0,
    delimiter: "",
    chance: 0.5,
    is_core: false,
    read,
};

fn read(folder: &Path) -> Result<TaskData, TaskError> {
    let mut data = read::Reading::default();
    for path in files::folder(&folder.join("blimp/data"), "jsonl")? {
        let text = data.open(&path)?;
        for (line, row) in read::rows(&path, &text)? {
            let field = |name: &str| read::text(&row, name).ok_or_else(|| read::malformed(&path, line, name));
            data.items.push(Item {
                asked: Vec::new(),
                continuations: vec![field("sentence_good")?, field("sentence_bad")?],
                gold: 0,
                part: Some(field("UID")?),
            });
        }
    }
    Ok(data.finish())
}
