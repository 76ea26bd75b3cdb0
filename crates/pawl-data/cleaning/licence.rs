//! Which SPDX expressions allow a crate's text to be carried: permissive licences only.
//!
//! Refuses what it cannot read: an unknown licence or a malformed expression is "no".

const PERMISSIVE: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];

/// Whether `expression` can be satisfied with permissive licences alone: `OR` needs one such side,
/// `AND` both. The old form `MIT/Apache-2.0` means `OR`.
pub(crate) fn is_permissive(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    let allowed = either(&mut rest);
    allowed == Some(true) && rest.is_empty()
}

/// `both (OR both)*`; `None` when the expression is malformed.
fn either(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = both(rest)?;
    while rest.first() == Some(&"OR") {
        *rest = &rest[1..];
        allowed |= both(rest)?;
    }
    Some(allowed)
}

/// `one (AND one)*`
fn both(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = one(rest)?;
    while rest.first() == Some(&"AND") {
        *rest = &rest[1..];
        allowed &= one(rest)?;
    }
    Some(allowed)
}

/// A licence, one with an exception (`X WITH Y` only ever grants more), or a bracket.
fn one(rest: &mut &[&str]) -> Option<bool> {
    let (&word, tail) = rest.split_first()?;
    *rest = tail;
    if word == "(" {
        let allowed = either(rest)?;
        let (&close, tail) = rest.split_first()?;
        *rest = tail;
        return (close == ")").then_some(allowed);
    }
    if rest.first() == Some(&"WITH") {
        *rest = rest.get(2..)?;
    }
    Some(PERMISSIVE.contains(&word))
}
