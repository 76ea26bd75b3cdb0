//! Problems of a file: GSM8K as published, JSON lines of `question` and `answer`, where the answer ends in `#### 72`.

use super::{EnvError, Judge, Problem};
use serde::Deserialize;
use std::io::{BufRead, BufReader};
use std::path::Path;

#[derive(Deserialize)]
struct Line {
    question: String,
    answer: String,
}

pub(super) fn gsm8k(path: &Path) -> Result<Vec<Problem>, EnvError> {
    let io = |source| EnvError::Io { path: path.to_path_buf(), source };
    let reader = BufReader::new(std::fs::File::open(path).map_err(io)?);
    let mut problems = Vec::new();
    for (at, text) in reader.lines().enumerate() {
        let text = text.map_err(io)?;
        if text.trim().is_empty() {
            continue;
        }
        let wrong =
            |because: String| EnvError::Line { path: path.to_path_buf(), line: at as u64 + 1, because };
        let Line { question, answer } =
            pawl_record::from_json(text.as_bytes()).map_err(|why| wrong(why.to_string()))?;
        let number = final_number(&answer);
        let number = number.ok_or_else(|| wrong("the answer does not end in #### NUMBER".to_string()))?;
        problems.push(Problem {
            key: format!("gsm8k {question}"),
            prompt: question,
            demonstration: Some(answer),
            judge: Judge::LastNumber(number),
        });
    }
    if problems.is_empty() {
        let because = "the file holds no problem".to_string();
        return Err(EnvError::Line { path: path.to_path_buf(), line: 1, because });
    }
    Ok(problems)
}

/// The number that an answer ends in: the first after its last `####`, on that line.
pub(crate) fn final_number(answer: &str) -> Option<String> {
    let (_, said) = answer.rsplit_once("####")?;
    numbers(said.lines().next()?).into_iter().next()
}

/// The last number of a text.
pub(super) fn last_number(text: &str) -> Option<String> {
    numbers(text).pop()
}

/// The numbers of a text, without separators of thousands and without zeros that say nothing.
fn numbers(text: &str) -> Vec<String> {
    let text = text.replace(',', "");
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    let mut found = Vec::new();
    let mut rest = text.as_str();
    let mut before = None;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        before = rest[..at].chars().next_back().or(before);
        let tail = &rest[at..];
        let end = tail.find(|c| !digits(c)).unwrap_or(tail.len());
        let mut number = tail[..end].trim_end_matches('.').to_string();
        if number.contains('.') {
            number = number.trim_end_matches('0').trim_end_matches('.').to_string();
        }
        let sign = if before == Some('-') { "-" } else { "" };
        found.push(format!("{sign}{number}"));
        before = None;
        rest = &tail[end..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_read_as_a_number() {
        for (text, number) in [
            ("so it is 1,234.", Some("1234")),
            ("#### 72", Some("72")),
            ("3 then -5", Some("-5")),
            ("costs $7.50", Some("7.5")),
            ("2.00 euro", Some("2")),
            ("none", None),
        ] {
            assert_eq!(last_number(text).as_deref(), number, "{text}");
        }
    }

    #[test]
    fn an_answer_ends_in_the_first_number_of_its_last_mark() {
        for (text, number) in [
            ("so #### 72", Some("72")),
            ("#### 72 of 100\nor 5", Some("72")),
            ("#### 1\n#### $-1,234.50 or 2", Some("-1234.5")),
            ("####\n72", None),
            ("72", None),
        ] {
            assert_eq!(final_number(text).as_deref(), number, "{text}");
        }
    }
}
