//! The published files and their prompts.

use super::{Judge, Question, Questions, Tests, WrittenTask};
use crate::env::{divide, final_number};
use crate::tasks::{TaskError, read};
use serde_json::Value;
use std::path::Path;

/// Word problems of grade school (Cobbe et al. 2021, arXiv 2110.14168), after five of the training file with their
/// solutions; right is the number after `####`.
pub(super) const GSM8K: WrittenTask = WrittenTask {
    name: "gsm8k",
    about: "Word problems of grade school",
    shots: 5,
    max_tokens: 256,
    stops: &["\n\nQuestion:", "\nQuestion:"],
    read: gsm8k,
};

/// Short Python functions (Austin et al. 2021, arXiv 2108.07732): its 500 test problems after three others, prompted as
/// in the paper.
pub(super) const MBPP: WrittenTask = WrittenTask {
    name: "mbpp",
    about: "Short Python functions from a sentence and three tests",
    shots: 3,
    max_tokens: 256,
    stops: &["[DONE]"],
    read: mbpp,
};

/// Python functions from signature and description (Chen et al. 2021, arXiv 2107.03374).
pub(super) const HUMANEVAL: WrittenTask = WrittenTask {
    name: "humaneval",
    about: "Python functions from signature and description",
    shots: 0,
    max_tokens: 320,
    stops: &["\nclass", "\ndef", "\n#", "\nif", "\nprint"],
    read: humaneval,
};

fn gsm8k(folder: &Path) -> Result<Questions, TaskError> {
    let mut reading = read::Reading::default();
    let mut before = String::new();
    let asked = |question: &str| format!("Question: {question}\nAnswer:");
    for (_, question, answer) in
        word_problems(&mut reading, &folder.join("gsm8k/train.jsonl"))?.into_iter().take(5)
    {
        before.push_str(&format!("{} {answer}\n\n", asked(&question)));
    }
    let path = folder.join("gsm8k/test.jsonl");
    let mut all = Vec::new();
    for (line, question, answer) in word_problems(&mut reading, &path)? {
        let number = final_number(&answer);
        let number = number.ok_or_else(|| read::malformed(&path, line, "number after ####"))?;
        all.push(Question { prompt: format!("{before}{}", asked(&question)), judge: Judge::Number(number) });
    }
    Ok(Questions { all, hash: reading.finish().hash })
}

fn word_problems(
    reading: &mut read::Reading,
    path: &Path,
) -> Result<Vec<(usize, String, String)>, TaskError> {
    let text = reading.open(path)?;
    let problem = |(line, row): (usize, Value)| {
        let field = |name: &str| read::text(&row, name).ok_or_else(|| read::malformed(path, line, name));
        Ok((line, field("question")?, field("answer")?))
    };
    read::rows(path, &text)?.into_iter().map(problem).collect()
}

/// Problems of the paper's test split.
const MBPP_TEST: std::ops::RangeInclusive<u64> = 11..=510;
/// Those that stand before each as examples.
const MBPP_EXAMPLES: std::ops::RangeInclusive<u64> = 2..=4;

fn mbpp(folder: &Path) -> Result<Questions, TaskError> {
    let path = folder.join("mbpp/mbpp.jsonl");
    let mut reading = read::Reading::default();
    let text = reading.open(&path)?;
    let (mut before, mut all) = (String::new(), Vec::new());
    for (line, row) in read::rows(&path, &text)? {
        let missing = |name: &str| read::malformed(&path, line, name);
        let id = row["task_id"].as_u64().ok_or_else(|| missing("task_id"))?;
        let field = |name: &str| read::text(&row, name).ok_or_else(|| missing(name));
        let tests = row["test_list"].as_array().ok_or_else(|| missing("test_list"))?;
        let tests: Vec<String> = tests.iter().filter_map(|test| test.as_str().map(str::to_string)).collect();
        let asked = format!(
            "You are an expert Python programmer, and here is your task: {} Your code should pass these tests:\n\n{}\n[BEGIN]\n",
            field("text")?,
            tests.join("\n")
        );
        if MBPP_EXAMPLES.contains(&id) {
            before.push_str(&format!("{asked}{}\n[DONE]\n\n", field("code")?.replace("\r\n", "\n")));
        } else if MBPP_TEST.contains(&id) {
            let setup = read::text(&row, "test_setup_code").unwrap_or_default();
            let divided: Option<Vec<(String, String)>> = tests.iter().map(|test| divide(test)).collect();
            let tests = divided.map_or_else(|| Tests::Beside(tests.join("\n")), Tests::Values);
            let judge = Judge::Program { before: String::new(), setup, tests };
            all.push(Question { prompt: format!("{before}{asked}"), judge });
        }
    }
    Ok(Questions { all, hash: reading.finish().hash })
}

fn humaneval(folder: &Path) -> Result<Questions, TaskError> {
    let path = folder.join("humaneval/HumanEval.jsonl");
    let mut reading = read::Reading::default();
    let text = reading.open(&path)?;
    let mut all = Vec::new();
    for (line, row) in read::rows(&path, &text)? {
        let field = |name: &str| read::text(&row, name).ok_or_else(|| read::malformed(&path, line, name));
        let (prompt, test, entry) = (field("prompt")?, field("test")?, field("entry_point")?);
        let tests = match plain_tests(&test, &entry) {
            Some(tests) => Tests::Values(tests),
            None => Tests::Beside(format!("{test}\ncheck({entry})")),
        };
        let judge = Judge::Program { before: prompt.clone(), setup: String::new(), tests };
        all.push(Question { judge, prompt });
    }
    Ok(Questions { all, hash: reading.finish().hash })
}

/// The tests of `def check(candidate):` where each of its statements is `assert candidate(..) == VALUE`.
fn plain_tests(test: &str, entry: &str) -> Option<Vec<(String, String)>> {
    let (_, body) = test.split_once("def check(candidate):")?;
    let mut tests = Vec::new();
    for line in body.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (call, value) = divide(line)?;
        let arguments = call.strip_prefix("candidate(")?;
        tests.push((format!("{entry}({arguments}"), value));
    }
    (!tests.is_empty()).then_some(tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_beside_a_test_leaves_its_value_alone() {
        let test = "def check(candidate):\n    assert candidate(9) == (4, 5), \"This prints, if wrong\"\n";
        assert_eq!(plain_tests(test, "f"), Some(vec![("f(9)".to_string(), "(4, 5)".to_string())]));
    }

    #[test]
    fn what_mbpp_sets_up_follows_the_answer() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("mbpp")).unwrap();
        let row = r#"{"task_id": 11, "text": "t", "code": "", "test_list": ["assert f(root) == 1"], "test_setup_code": "root = Node()"}"#;
        std::fs::write(folder.path().join("mbpp/mbpp.jsonl"), row).unwrap();
        let questions = mbpp(folder.path()).unwrap().all;
        let Judge::Program { before, setup, .. } = &questions[0].judge else {
            panic!("a program is asked for")
        };
        assert_eq!(
            super::super::whole(before, "class Node: pass", setup),
            "class Node: pass\nroot = Node()\n"
        );
    }

    #[test]
    fn tests_are_plain_where_every_line_compares_a_call() {
        let test = "\n\nMETADATA = {}\n\ndef check(candidate):\n    # Simple\n    assert candidate([1], 0.3) == True\n    assert candidate(2) == [1, 2]\n";
        let plain = plain_tests(test, "near").unwrap();
        assert_eq!(plain[0], ("near([1], 0.3)".to_string(), "True".to_string()));
        assert_eq!(plain[1], ("near(2)".to_string(), "[1, 2]".to_string()));
        assert_eq!(
            plain_tests(
                "def check(candidate):\n    for i in range(3):\n        assert candidate(i) == i",
                "f"
            ),
            None
        );
        assert_eq!(plain_tests("def check(candidate):\n    assert abs(candidate(1) - 2) < 1e-6", "f"), None);
    }
}
