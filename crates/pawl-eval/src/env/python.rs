//! Python programs of a file in the form of MBPP: JSON lines of `text` (or `prompt`), `code` and `test_list`, whose
//! tests are `assert CALL == VALUE`. The calls go into the sandbox with the program, the values never do: they are worked
//! out beforehand, in a sandbox without a program.

use super::{EnvError, Judge, Problem};
use crate::sandbox::{Outcome, Sandbox};
use serde::Deserialize;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;

#[derive(Deserialize)]
struct Line {
    #[serde(alias = "prompt")]
    text: String,
    code: String,
    test_list: Vec<String>,
    #[serde(default)]
    test_setup_code: String,
}

/// The problems whose every test can be judged.
pub(super) fn mbpp(path: &Path, sandbox: &Sandbox) -> Result<Vec<Problem>, EnvError> {
    let io = |source| EnvError::Io { path: path.to_path_buf(), source };
    let wrong = |line: u64, because: String| EnvError::Line { path: path.to_path_buf(), line, because };
    let reader = BufReader::new(std::fs::File::open(path).map_err(io)?);
    let mut drafts = Vec::new();
    let mut values = Vec::new();
    for (at, text) in reader.lines().enumerate() {
        let text = text.map_err(io)?;
        if text.trim().is_empty() {
            continue;
        }
        let line: Line =
            pawl_record::from_json(text.as_bytes()).map_err(|why| wrong(at as u64 + 1, why.to_string()))?;
        let Some(tests) = line.test_list.iter().map(|test| divide(test)).collect::<Option<Vec<_>>>() else {
            continue;
        };
        values.extend(tests.iter().map(|(_, value)| value.clone()));
        drafts.push((line, tests));
    }
    let known = match sandbox.run("", &values)? {
        Outcome::Values(known) => known,
        outcome @ (Outcome::TimedOut | Outcome::TooMuchOutput | Outcome::NoAnswer) => {
            return Err(wrong(1, format!("the values of its tests came to {outcome:?}")));
        }
    };
    let mut known = known.into_iter();
    let mut problems = Vec::new();
    for (line, tests) in drafts {
        let expected: Vec<Result<Value, String>> = known.by_ref().take(tests.len()).collect();
        let Ok(expected) = expected.into_iter().collect::<Result<Vec<Value>, String>>() else { continue };
        let shown = line.test_list.first().map_or("", String::as_str);
        problems.push(Problem {
            key: format!("mbpp {}", line.text),
            prompt: format!("{}\n{shown}", line.text),
            demonstration: Some(line.code),
            judge: Judge::Python {
                setup: line.test_setup_code,
                calls: tests.into_iter().map(|(call, _)| call).collect(),
                expected,
            },
        });
    }
    if problems.is_empty() {
        return Err(wrong(1, "no problem has tests of the form assert CALL == VALUE".to_string()));
    }
    Ok(problems)
}

/// Whether a program gives every value.
pub(super) fn solves(
    sandbox: &Sandbox,
    answer: &str,
    setup: &str,
    calls: &[String],
    expected: &[Value],
) -> Result<bool, EnvError> {
    let program = format!("{setup}\n{}", code(answer));
    let outcome = sandbox.run(&program, calls)?;
    Ok(
        matches!(outcome, Outcome::Values(values) if values.iter().map(Result::as_ref).eq(expected.iter().map(Ok))),
    )
}

/// The first fenced block of an answer, or all of it.
fn code(answer: &str) -> &str {
    let Some((_, rest)) = answer.split_once("```") else { return answer };
    let rest = rest.split_once('\n').map_or(rest, |(_, rest)| rest);
    rest.split_once("```").map_or(rest, |(code, _)| code)
}

/// `assert CALL == VALUE` in its two halves, if it has this form.
pub(crate) fn divide(test: &str) -> Option<(String, String)> {
    let body = test.trim().strip_prefix("assert ")?;
    let bytes = body.as_bytes();
    let (mut depth, mut quote, mut at) = (0i32, None, 0);
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'\'' | b'"')) => quote = Some(byte),
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') => depth -= 1,
            (None, b'=') if depth == 0 && bytes.get(at + 1) == Some(&b'=') => {
                let (call, value) = (body[..at].trim(), body[at + 2..].trim());
                return (!call.is_empty() && !value.is_empty())
                    .then(|| (call.to_string(), value.to_string()));
            }
            (None, _) => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_divided_where_it_compares() {
        let halves = |call: &str, value: &str| Some((call.to_string(), value.to_string()));
        assert_eq!(divide("assert f(1, x==2) == [3, 4]"), halves("f(1, x==2)", "[3, 4]"));
        assert_eq!(divide("assert f('==\\'', \"(\") == 'a == b'"), halves("f('==\\'', \"(\")", "'a == b'"));
        assert_eq!(divide("assert f(1)"), None);
        assert_eq!(divide("x = 1"), None);
    }

    #[test]
    fn a_fenced_block_is_the_program() {
        assert_eq!(code("Here:\n```python\nx = 1\n```\ndone"), "x = 1\n");
        assert_eq!(code("x = 1"), "x = 1");
    }
}
