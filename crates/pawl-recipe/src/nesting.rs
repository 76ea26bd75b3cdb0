//! How deeply a text nests. Parser and interpreter recurse over the syntax tree, so depth is bounded before
//! they see it: 64 brackets, 32 lambdas in a statement, 256 links of a chain such as `a + b + c` or `a[0][0]`.

use crate::error::RecipeError;

const MAX_BRACKETS: usize = 64;
const MAX_LINKS: usize = 256;
const MAX_LAMBDAS: usize = 32;
const MAX_ELIFS: usize = 256;
const MAX_INDENT: usize = 256;

/// Refuses a text that nests beyond any readable program.
pub(crate) fn check_nesting(file: &str, text: &str) -> Result<(), RecipeError> {
    let mut scan =
        Scan { bytes: text.as_bytes(), at: 0, line: 1, links: vec![0], lambdas: 0, elifs: 0, indent: 0 };
    while scan.at < scan.bytes.len() {
        let excess = scan.step();
        if let Some(what) = excess {
            return Err(RecipeError::new(file, format!("{what}: this nests too deeply to be read"))
                .at(scan.line)
                .hint("name the parts of a long expression"));
        }
    }
    Ok(())
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u32,
    /// Links of the chain being read at each bracket depth.
    links: Vec<usize>,
    lambdas: usize,
    elifs: usize,
    indent: usize,
}

impl Scan<'_> {
    /// Reads one token; says what is too deep.
    fn step(&mut self) -> Option<&'static str> {
        let byte = self.bytes[self.at];
        match byte {
            b'#' => self.skip_comment(),
            b'"' | b'\'' => self.skip_string(byte),
            b'\n' => self.newline(),
            b'(' | b'[' | b'{' => {
                self.links.push(0);
                self.at += 1;
            }
            b')' | b']' | b'}' => {
                if self.links.len() > 1 {
                    self.links.pop();
                }
                self.link();
                self.at += 1;
            }
            b',' => {
                *self.top() = 0;
                self.at += 1;
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => self.word(),
            b' ' | b'\t' | b'\r' | b'0'..=b'9' => self.at += 1,
            _ => {
                self.link();
                self.at += 1;
            }
        }
        if self.links.len() > MAX_BRACKETS {
            return Some("more than 64 open brackets");
        }
        if self.links.iter().any(|links| *links > MAX_LINKS) {
            return Some("more than 256 operations in one expression");
        }
        if self.lambdas > MAX_LAMBDAS {
            return Some("more than 32 lambdas in one statement");
        }
        if self.elifs > MAX_ELIFS {
            return Some("more than 256 branches");
        }
        (self.indent > MAX_INDENT).then_some("an indent of more than 256 columns")
    }

    fn top(&mut self) -> &mut usize {
        self.links.last_mut().expect("the outermost level is never popped")
    }

    fn link(&mut self) {
        *self.top() += 1;
    }

    fn newline(&mut self) {
        self.line += 1;
        self.at += 1;
        if self.links.len() == 1 {
            self.links[0] = 0;
            self.lambdas = 0;
            self.indent = self.bytes[self.at..].iter().take_while(|b| **b == b' ' || **b == b'\t').count();
        }
    }

    fn word(&mut self) {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|b| !(b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80));
        let word = &rest[..end.unwrap_or(rest.len())];
        match word {
            b"lambda" => {
                self.lambdas += 1;
                self.link();
            }
            b"not" | b"if" | b"else" | b"and" | b"or" | b"in" | b"for" => self.link(),
            b"elif" => self.elifs += 1,
            _ => {}
        }
        self.at += word.len();
    }

    fn skip_comment(&mut self) {
        while self.at < self.bytes.len() && self.bytes[self.at] != b'\n' {
            self.at += 1;
        }
    }

    fn skip_string(&mut self, quote: u8) {
        let triple = self.bytes[self.at..].starts_with(&[quote; 3]);
        let width = if triple { 3 } else { 1 };
        self.at += width;
        while self.at < self.bytes.len() {
            let byte = self.bytes[self.at];
            if byte == b'\n' {
                self.line += 1;
                if !triple {
                    return;
                }
            }
            if byte == quote && (!triple || self.bytes[self.at..].starts_with(&[quote; 3])) {
                self.at += width;
                return;
            }
            self.at += if byte == b'\\' { 2 } else { 1 };
        }
        self.at = self.at.min(self.bytes.len());
    }
}
