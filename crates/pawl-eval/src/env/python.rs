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
    let outcome = sandbox.run(&program(code(answer), setup), calls)?;
    Ok(matches!(outcome, Outcome::Values(values) if all_same(&values, expected)))
}

/// An answer and what is set up for its tests, which may use the classes that the answer defines.
pub(crate) fn program(answer: &str, setup: &str) -> String {
    format!("{answer}\n{setup}\n")
}

/// Whether every call gave its value.
pub(crate) fn all_same(given: &[Result<Value, String>], expected: &[Value]) -> bool {
    given.len() == expected.len()
        && given
            .iter()
            .zip(expected)
            .all(|(given, value)| given.as_ref().is_ok_and(|given| same(given, value)))
}

/// Whether Python calls two values equal: `4 == 4.0` and `True == 1` are. Values come as JSON, which has lists alone,
/// so a tuple and a list of the same elements are the same here, unlike in Python.
fn same(a: &Value, b: &Value) -> bool {
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return a == b;
    }
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// The one text of everything that is the same number. Whole numbers have no bound in Python, and are compared with
/// floats exactly there, so whole floats are written out to the last digit.
fn number(value: &Value) -> Option<String> {
    let text = match value {
        Value::Bool(truth) => return Some(u8::from(*truth).to_string()),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let is_float = text.contains(['.', 'e', 'E']);
    match text.parse::<f64>() {
        Ok(0.0) => Some("0".to_string()),
        Ok(float) if is_float && float.fract() == 0.0 => Some(format!("{float:.0}")),
        Ok(float) if is_float => Some(float.to_string()),
        Ok(_) | Err(_) => Some(text),
    }
}

/// The first fenced block of an answer, or all of it.
fn code(answer: &str) -> &str {
    let Some((_, rest)) = answer.split_once("```") else { return answer };
    let rest = rest.split_once('\n').map_or(rest, |(_, rest)| rest);
    rest.split_once("```").map_or(rest, |(code, _)| code)
}

/// `assert CALL == VALUE` in its two halves, if it has this form. A message after a comma belongs to neither.
pub(crate) fn divide(test: &str) -> Option<(String, String)> {
    let body = test.trim().strip_prefix("assert ")?;
    let bytes = body.as_bytes();
    let (mut depth, mut quote, mut at) = (0i32, None, 0);
    let mut compares = None;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'\'' | b'"')) => quote = Some(byte),
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') => depth -= 1,
            (None, b',') if depth == 0 => break,
            (None, b'=') if depth == 0 && compares.is_none() && bytes.get(at + 1) == Some(&b'=') => {
                compares = Some(at);
            }
            (None, _) => {}
        }
        at += 1;
    }
    let compares = compares?;
    let end = at.min(body.len());
    let (call, value) = (body[..compares].trim(), body[compares + 2..end].trim());
    (!call.is_empty() && !value.is_empty()).then(|| (call.to_string(), value.to_string()))
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
    fn a_message_is_no_part_of_the_value() {
        let halves = |call: &str, value: &str| Some((call.to_string(), value.to_string()));
        assert_eq!(divide("assert f(9) == (4, 5), \"This prints, if\""), halves("f(9)", "(4, 5)"));
        assert_eq!(divide("assert f('a') == 'a, \\'b', 'no'"), halves("f('a')", "'a, \\'b'"));
        assert_eq!(divide("assert f(1) == [1, 2]"), halves("f(1)", "[1, 2]"));
        assert_eq!(divide("assert f(1), x == 2"), None);
    }

    #[test]
    fn values_are_the_same_where_python_calls_them_equal() {
        let told = |a: &str, b: &str| {
            let read = |text: &str| pawl_record::from_json::<Value>(text.as_bytes()).unwrap();
            assert_eq!(same(&read(a), &read(b)), same(&read(b), &read(a)), "{a} {b}");
            same(&read(a), &read(b))
        };
        for (a, b) in [
            ("4", "4.0"),
            ("true", "1"),
            ("false", "0.0"),
            ("0", "-0.0"),
            ("1e+16", "10000000000000000"),
            ("[1, {\"a\": 2.0}]", "[1.0, {\"a\": 2}]"),
            ("0.5", "5e-1"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
        ] {
            assert!(told(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("4", "4.5"),
            ("true", "2"),
            ("null", "0"),
            ("\"1\"", "1"),
            ("[1]", "[1, 2]"),
            ("{\"a\": 1}", "{\"b\": 1}"),
            ("9007199254740993", "9007199254740992.0"),
            ("123456789012345678901234567890", "123456789012345678901234567891"),
        ] {
            assert!(!told(a, b), "{a} {b}");
        }
        let four = |text: &str| pawl_record::from_json::<Value>(text.as_bytes()).unwrap();
        assert!(all_same(&[Ok(four("4.0"))], &[four("4")]));
        assert!(!all_same(&[Err("NameError".to_string())], &[four("4")]) && !all_same(&[], &[four("4")]));
    }

    #[test]
    fn what_is_set_up_may_use_what_the_answer_defines() {
        let program = program("class Node: pass", "root = Node()");
        assert_eq!(program, "class Node: pass\nroot = Node()\n");
    }

    #[test]
    fn a_fenced_block_is_the_program() {
        assert_eq!(code("Here:\n```python\nx = 1\n```\ndone"), "x = 1\n");
        assert_eq!(code("x = 1"), "x = 1");
    }
}
