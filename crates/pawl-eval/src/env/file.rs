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
        let number = answer.rsplit_once("####").and_then(|(_, number)| last_number(number));
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

/// The last number of a text, without separators of thousands and without zeros that say nothing.
pub(crate) fn last_number(text: &str) -> Option<String> {
    let text = text.replace(',', "");
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    let mut found = None;
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
        found = Some(format!("{sign}{number}"));
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
}
