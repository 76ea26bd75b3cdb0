//! Arithmetic: chain sums, countdown, linear equations.

use super::{Draws, Judge, Problem};

/// `7 + 12 - 5`, answered by the running totals `19 14`. difficulty + 2 terms of one digit, totals from 0 to 99.
pub(super) fn sum(draws: &mut Draws, difficulty: u32) -> Problem {
    let num_terms = difficulty.clamp(1, 30) as usize + 2;
    let mut terms = vec![draws.within(1, 9)];
    let mut totals = vec![terms[0]];
    while terms.len() < num_terms {
        let term = draws.within(1, 9) * if draws.below(3) == 0 { -1 } else { 1 };
        let total = totals[totals.len() - 1] + term;
        if (0..100).contains(&total) {
            terms.push(term);
            totals.push(total);
        }
    }
    let mut prompt = terms[0].to_string();
    for term in &terms[1..] {
        prompt.push_str(if *term < 0 { " - " } else { " + " });
        prompt.push_str(&term.abs().to_string());
    }
    let said: Vec<String> = totals[1..].iter().map(i64::to_string).collect();
    let answer = said[said.len() - 1].clone();
    let mut key = terms;
    key.sort_unstable();
    Problem {
        key: format!("sum {key:?}"),
        prompt,
        demonstration: Some(said.join(" ")),
        judge: Judge::LastWord(answer),
    }
}

/// `make 26 of 3 5 7`: an expression. difficulty + 2 numbers, all of which the demonstration uses.
pub(super) fn countdown(draws: &mut Draws, difficulty: u32) -> Problem {
    let size = difficulty.clamp(1, 8) as usize + 2;
    loop {
        let mut numbers: Vec<i64> = (0..size).map(|_| draws.within(1, 9)).collect();
        let mut text = numbers[0].to_string();
        let mut value = numbers[0];
        for number in &numbers[1..] {
            let sign = *draws.one(&['+', '-', '*']);
            // From left to right: what stands so far goes into brackets where a product follows a sum.
            if sign == '*' && text.contains(['+', '-']) {
                text = format!("({text})");
            }
            text.push_str(&format!("{sign}{number}"));
            value = match sign {
                '+' => value + number,
                '-' => value - number,
                _ => value * number,
            };
        }
        if !(1..100).contains(&value) {
            continue;
        }
        numbers.sort_unstable();
        let listed: Vec<String> = numbers.iter().map(i64::to_string).collect();
        return Problem {
            key: format!("countdown {numbers:?} {value}"),
            prompt: format!("make {value} of {}", listed.join(" ")),
            demonstration: Some(text),
            judge: Judge::Expression { numbers, target: value },
        };
    }
}

/// `3 x + 4 = 19`: the whole number x. Coefficients up to 3 and 6 more for each difficulty.
pub(super) fn linear(draws: &mut Draws, difficulty: u32) -> Problem {
    let most = 6 * i64::from(difficulty.clamp(1, 30)) + 3;
    let (a, x, b) = (draws.within(1, most), draws.within(0, most), draws.within(0, most));
    let c = a * x + b;
    Problem {
        key: format!("linear {a} {b} {c}"),
        prompt: format!("{a} x + {b} = {c}"),
        demonstration: Some(format!("{} {x}", a * x)),
        judge: Judge::LastWord(x.to_string()),
    }
}

/// Whether an expression of some of the numbers, each used at most once, has the value.
pub(super) fn makes(text: &str, numbers: &[i64], target: i64) -> bool {
    let mut used = Vec::new();
    let mut parser = Parser { text: text.trim().as_bytes(), at: 0, used: &mut used, depth: 0 };
    let Some(value) = parser.sum() else { return false };
    if parser.at != parser.text.len() || value != target {
        return false;
    }
    let mut left = numbers.to_vec();
    used.iter().all(|number| left.iter().position(|l| l == number).map(|at| left.swap_remove(at)).is_some())
}

/// Whole-number expressions with + - * / and brackets; division must come out even.
struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    used: &'a mut Vec<i64>,
    depth: usize,
}

/// Brackets in brackets.
const MAX_DEPTH: usize = 32;

impl Parser<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn sum(&mut self) -> Option<i64> {
        let mut value = self.product()?;
        while let Some(sign @ (b'+' | b'-')) = self.peek() {
            self.at += 1;
            let next = self.product()?;
            value = if sign == b'+' { value.checked_add(next)? } else { value.checked_sub(next)? };
        }
        Some(value)
    }

    fn product(&mut self) -> Option<i64> {
        let mut value = self.factor()?;
        while let Some(sign @ (b'*' | b'/')) = self.peek() {
            self.at += 1;
            let next = self.factor()?;
            value = match sign {
                b'*' => value.checked_mul(next)?,
                _ if next != 0 && value % next == 0 => value.checked_div(next)?,
                _ => return None,
            };
        }
        Some(value)
    }

    fn factor(&mut self) -> Option<i64> {
        match self.peek()? {
            b'(' if self.depth < MAX_DEPTH => {
                self.at += 1;
                self.depth += 1;
                let value = self.sum()?;
                self.depth -= 1;
                let closed = self.peek() == Some(b')');
                self.at += 1;
                closed.then_some(value)
            }
            b'0'..=b'9' => {
                let from = self.at;
                while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
                    self.at += 1;
                }
                let number = std::str::from_utf8(&self.text[from..self.at]).ok()?.parse().ok()?;
                self.used.push(number);
                Some(number)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_counts_only_if_it_is_one_of_the_numbers_given() {
        let right = ["3*7+5", "5 + 3 * 7", "(7*3)+5", "((3*7)+5)"];
        for text in right {
            assert!(makes(text, &[3, 5, 7], 26), "{text}");
        }
        let deep = format!("{}26{}", "(".repeat(10_000), ")".repeat(10_000));
        for text in
            ["26", "", "3*7+5 ", "3*7+6-1", "3*7+5+5-5", "3*7+5)", "(3*7+5", "3**7+5", "-1", "5/0", &deep]
        {
            assert_eq!(makes(text, &[3, 5, 7], 26), text == "3*7+5 ", "{text}");
        }
        assert!(!makes("99999999999999999999", &[1], 1));
        assert!(
            !makes("3037000500*3037000500", &[3_037_000_500, 3_037_000_500], 1),
            "an overflow is no value"
        );
    }
}
