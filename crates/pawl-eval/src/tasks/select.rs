//! Which tasks, and which items of them with which examples.

use super::{Item, TASKS, Task, TaskError};
use crate::python_random::PythonRandom;

/// Tasks by name; `core` means the twenty of CORE that are here, `lambada` the form that CORE uses, `all` every one.
pub fn tasks_named(names: &[String]) -> Result<Vec<&'static Task>, TaskError> {
    let mut tasks: Vec<&'static Task> = Vec::new();
    for name in names {
        let wanted = |task: &&Task| match name.as_str() {
            "all" => true,
            "core" => task.is_core,
            "lambada" => task.name == "lambada_openai",
            name => task.name == name,
        };
        let before = tasks.len();
        let found: Vec<&Task> = TASKS.iter().filter(wanted).collect();
        let fresh = found.iter().filter(|task| !tasks.iter().any(|known| known.name == task.name));
        let fresh: Vec<&Task> = fresh.copied().collect();
        tasks.extend(fresh);
        if found.is_empty() && tasks.len() == before {
            let known: Vec<&str> = TASKS.iter().map(|task| task.name).chain(["core", "all"]).collect();
            return Err(TaskError::Unknown { name: name.clone(), known: known.join(", ") });
        }
    }
    Ok(tasks)
}

/// The first `limit` items of a fixed shuffle.
pub(super) fn shuffled(mut items: Vec<Item>, limit: Option<usize>) -> Vec<Item> {
    PythonRandom::new(1337).shuffle(&mut items);
    items.truncate(limit.unwrap_or(usize::MAX));
    items
}

/// Places of the examples that stand before item `idx` of `n`.
pub(super) fn examples(idx: usize, n: usize, shots: usize) -> Vec<usize> {
    if shots == 0 || n < 2 {
        return Vec::new();
    }
    let others = PythonRandom::new(1234 + idx as u32).sample(n - 1, shots.min(n - 1));
    others.into_iter().map(|place| place + usize::from(place >= idx)).collect()
}
