//! A machine for small models to program: words that work on a stack of whole numbers. It has no jump, so a program
//! ends after as many steps as it has words, and it reaches nothing but its stack.

/// A program that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(Vec<Word>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Number(i64),
    X,
    Add,
    Subtract,
    Multiply,
    Min,
    Max,
    Negate,
    Double,
    Swap,
}

/// Why a program has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// More words than `MAX_WORDS`, or none.
    #[error("a program has 1 to {MAX_WORDS} words")]
    Length,
    /// Not a word of the machine.
    #[error("a word that the machine does not know")]
    Word,
    /// An operation found too little on the stack.
    #[error("the stack is empty")]
    Empty,
    /// A number left 64 bits.
    #[error("a number is too large")]
    Overflow,
    /// The program left another number of values than one.
    #[error("a program leaves one value")]
    Left,
}

/// Words of a program.
const MAX_WORDS: usize = 64;

impl Program {
    /// Reads words: numbers, `x`, `+ - *`, `min`, `max`, `neg`, `dup`, `swap`.
    pub fn read(text: &str) -> Result<Program, Fault> {
        let words = text.split_whitespace().take(MAX_WORDS + 1).map(|word| match word {
            "x" => Ok(Word::X),
            "+" => Ok(Word::Add),
            "-" => Ok(Word::Subtract),
            "*" => Ok(Word::Multiply),
            "min" => Ok(Word::Min),
            "max" => Ok(Word::Max),
            "neg" => Ok(Word::Negate),
            "dup" => Ok(Word::Double),
            "swap" => Ok(Word::Swap),
            number => number.parse().map(Word::Number).map_err(|_| Fault::Word),
        });
        let words = words.collect::<Result<Vec<Word>, Fault>>()?;
        if words.is_empty() || words.len() > MAX_WORDS { Err(Fault::Length) } else { Ok(Program(words)) }
    }

    /// The value it leaves for `x`.
    pub fn run(&self, x: i64) -> Result<i64, Fault> {
        let mut stack: Vec<i64> = Vec::with_capacity(self.0.len());
        for word in &self.0 {
            let mut pop = || stack.pop().ok_or(Fault::Empty);
            let value = match word {
                Word::Number(number) => *number,
                Word::X => x,
                Word::Negate => pop()?.checked_neg().ok_or(Fault::Overflow)?,
                Word::Double => {
                    let top = pop()?;
                    stack.push(top);
                    top
                }
                Word::Swap => {
                    let (top, below) = (pop()?, pop()?);
                    stack.push(top);
                    below
                }
                Word::Add | Word::Subtract | Word::Multiply | Word::Min | Word::Max => {
                    let (right, left) = (pop()?, pop()?);
                    two(*word, left, right).ok_or(Fault::Overflow)?
                }
            };
            stack.push(value);
        }
        match stack.as_slice() {
            [value] => Ok(*value),
            _ => Err(Fault::Left),
        }
    }
}

/// An operation of two numbers.
fn two(word: Word, left: i64, right: i64) -> Option<i64> {
    match word {
        Word::Add => left.checked_add(right),
        Word::Subtract => left.checked_sub(right),
        Word::Multiply => left.checked_mul(right),
        Word::Min => Some(left.min(right)),
        Word::Max => Some(left.max(right)),
        Word::Number(_) | Word::X | Word::Negate | Word::Double | Word::Swap => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_have_the_value_that_their_words_say() {
        for (text, x, value) in [
            ("x 3 * 2 +", 4, Ok(14)),
            ("x dup * 1 -", 5, Ok(24)),
            ("2 x -", 5, Ok(-3)),
            ("2 x swap -", 5, Ok(3)),
            ("x neg 3 max 9 min", 2, Ok(3)),
            ("x +", 1, Err(Fault::Empty)),
            ("x x", 1, Err(Fault::Left)),
            ("9223372036854775807 1 +", 0, Err(Fault::Overflow)),
            ("x neg", i64::MIN, Err(Fault::Overflow)),
        ] {
            assert_eq!(Program::read(text).unwrap().run(x), value, "{text}");
        }
        assert_eq!(Program::read("x jump"), Err(Fault::Word));
        assert_eq!(Program::read(""), Err(Fault::Length));
        assert_eq!(Program::read(&"1 ".repeat(100)), Err(Fault::Length));
    }
}
