//! Multiple choice over 57 subjects, five examples each (Hendrycks et al. 2021, MMLU).

use super::{Item, Kind, Task, TaskData, TaskError, files, read};
use std::path::Path;

pub(super) const TASK: Task = Task {
    name: "mmlu",
    about: "Multiple choice over 57 subjects",
    kind: Kind::Choice,
    // The five of the development file stand in the query: they are the same for all items of a subject.
    shots: 0,
    delimiter: " ",
    chance: 0.25,
    is_core: false,
    read,
};

const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

fn read(folder: &Path) -> Result<TaskData, TaskError> {
    let mut data = read::Reading::default();
    for path in files::folder(&folder.join("mmlu/test"), "csv")? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let subject = name.split("_test.csv").next().unwrap_or_default().to_string();
        let examples_path = folder.join("mmlu/dev").join(format!("{subject}_dev.csv"));
        let shown = subject.replace('_', " ");
        let mut before =
            format!("The following are multiple choice questions (with answers) about {shown}.\n\n");
        for (question, gold) in questions(&examples_path, &data.open(&examples_path)?)? {
            before.push_str(&format!("{question} {}\n\n", LETTERS[gold]));
        }
        for (question, gold) in questions(&path, &data.open(&path)?)? {
            data.items.push(Item {
                asked: vec![format!("{before}{question}")],
                continuations: LETTERS.map(str::to_string).to_vec(),
                gold,
                part: Some(subject.clone()),
            });
        }
    }
    Ok(data.finish())
}

/// Each question with its choices, up to `Answer:`, and the place of the right one.
fn questions(path: &Path, text: &str) -> Result<Vec<(String, usize)>, TaskError> {
    let mut questions = Vec::new();
    for (line, row) in files::csv(text) {
        let [question, a, b, c, d, answer] = &row[..] else {
            return Err(read::malformed(path, line, "question, four choices and an answer"));
        };
        if answer == "answer" {
            continue;
        }
        let gold = answer.trim().parse::<usize>().ok().or(LETTERS.iter().position(|l| l == answer));
        let gold = gold.filter(|gold| *gold < 4).ok_or_else(|| read::malformed(path, line, "answer"))?;
        questions.push((format!("{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer:"), gold));
    }
    Ok(questions)
}
