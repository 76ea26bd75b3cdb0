//! Cuts text into the words inside which merges may happen: a GPT-4 style splitter with digits in
//! groups of one or two.
//!
//! [`PATTERN`] is what `tokenizer.json` says; [`words`] must cut exactly so. Letters are those of the
//! Unicode property `Alphabetic`, not of the category `L`: the standard library has a table of the
//! former, and it keeps the vowel signs of Indic scripts inside their words.

/// The splitter as a regular expression.
pub(crate) const PATTERN: &str = concat!(
    r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])",
    r"|[^\r\n\p{Alphabetic}\p{N}]?\p{Alphabetic}+",
    r"|\p{N}{1,2}",
    r"| ?[^\s\p{Alphabetic}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+",
    r"|\s+(?!\S)",
    r"|\s+"
);

/// How a tokenizer cuts text; each has a pattern in `tokenizer.json` that says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Splitter {
    /// Ours.
    Own,
    /// That of GPT-2: a space joins the word behind it, digits stay together.
    Gpt2,
    /// Every digit alone, then as GPT-2 (SmolLM).
    SingleDigits,
    /// As ours with digits in groups of up to three, and letters of category L.
    Llama3,
    /// As ours with every digit alone, and letters of category L.
    Qwen2,
}

/// The words of `text`, in order; joined they are `text`. No merge reaches over the end of a word.
pub fn words(text: &str) -> Words<'_> {
    words_by(text, Splitter::Own)
}

/// The words of `text` as another tokenizer cuts it.
pub(crate) fn words_by(text: &str, splitter: Splitter) -> Words<'_> {
    Words { rest: text, splitter }
}

/// See [`words`].
#[derive(Clone, Debug)]
pub struct Words<'a> {
    rest: &'a str,
    splitter: Splitter,
}

/// What distinguishes the splitters of GPT-4's kind.
#[derive(Clone, Copy)]
struct Modern {
    letter: fn(char) -> bool,
    max_digits: usize,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let first = self.rest.chars().next()?;
        let modern = |letter, max_digits| word_len(self.rest, first, Modern { letter, max_digits });
        let len = match self.splitter {
            Splitter::Own => modern(char::is_alphabetic, 2),
            Splitter::Llama3 => modern(is_category_l, 3),
            Splitter::Qwen2 => modern(is_category_l, 1),
            Splitter::Gpt2 => old_word_len(self.rest, first),
            Splitter::SingleDigits if first.is_numeric() => first.len_utf8(),
            Splitter::SingleDigits => {
                let piece = run_len(self.rest, |c| !c.is_numeric());
                old_word_len(&self.rest[..piece], first)
            }
        };
        let (word, rest) = self.rest.split_at(len);
        self.rest = rest;
        Some(word)
    }
}

/// Length in bytes of the first word of `text`, whose first character is `first`. The order of the
/// cases is the order of the alternatives of [`PATTERN`].
fn word_len(text: &str, first: char, modern: Modern) -> usize {
    let Modern { letter, max_digits } = modern;
    if first == '\'' {
        let len = contraction_len(text.as_bytes(), u8::to_ascii_lowercase);
        if len > 0 {
            return len;
        }
    }
    if letter(first) {
        return run_len(text, letter);
    }
    let tail = &text[first.len_utf8()..];
    let numeric = first.is_numeric();
    if !numeric && !is_newline(first) && tail.starts_with(letter) {
        return first.len_utf8() + run_len(tail, letter);
    }
    if numeric {
        return text.chars().take(max_digits).take_while(|c| c.is_numeric()).map(char::len_utf8).sum();
    }
    let space = usize::from(first == ' ');
    let is_mark = |c: char| !(c.is_whitespace() || letter(c) || c.is_numeric());
    let marks = run_len(&text[space..], is_mark);
    if marks > 0 {
        return space + marks + run_len(&text[space + marks..], is_newline);
    }
    let blank = run_len(text, char::is_whitespace);
    match text[..blank].rfind(is_newline) {
        Some(newline) => newline + 1,
        None => blank_len(text),
    }
}

/// The same by the pattern of GPT-2:
/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
fn old_word_len(text: &str, first: char) -> usize {
    if first == '\'' {
        let len = contraction_len(text.as_bytes(), |byte| *byte);
        if len > 0 {
            return len;
        }
    }
    let space = usize::from(first == ' ');
    let is_mark = |c: char| !(c.is_whitespace() || is_category_l(c) || c.is_numeric());
    let kinds: [&dyn Fn(char) -> bool; 3] = [&is_category_l, &char::is_numeric, &is_mark];
    let lengths = kinds.into_iter().map(|kind| run_len(&text[space..], kind));
    match lengths.max() {
        Some(len) if len > 0 => space + len,
        Some(_) | None => blank_len(text),
    }
}

/// A run of white space; before other text all but its last character.
fn blank_len(text: &str) -> usize {
    let len = run_len(text, char::is_whitespace);
    let last = text[..len].chars().next_back().map_or(0, char::len_utf8);
    if len < text.len() && last < len { len - last } else { len }
}

fn contraction_len(bytes: &[u8], fold: fn(&u8) -> u8) -> usize {
    let lower = |at: usize| bytes.get(at).map_or(0, fold);
    match (lower(1), lower(2)) {
        (b's' | b't' | b'm' | b'd', _) => 2,
        (b'r' | b'v', b'e') | (b'l', b'l') => 3,
        _ => 0,
    }
}

fn run_len(text: &str, holds: impl Fn(char) -> bool) -> usize {
    text.find(|c| !holds(c)).unwrap_or(text.len())
}

/// A letter by its general category: what `\p{L}` means in the patterns of others.
fn is_category_l(c: char) -> bool {
    use unicode_general_category::GeneralCategory as G;
    if c.is_ascii() {
        return c.is_ascii_alphabetic();
    }
    let category = unicode_general_category::get_general_category(c);
    [G::UppercaseLetter, G::LowercaseLetter, G::TitlecaseLetter, G::ModifierLetter, G::OtherLetter]
        .contains(&category)
}

fn is_newline(c: char) -> bool {
    c == '\r' || c == '\n'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by running each pattern in a regex engine with Unicode classes and look-ahead.
    #[test]
    fn words_are_those_of_the_patterns() {
        let text = "don't I'LL  we've'x 12345\n\n  x \r\n!!\n ?";
        let begin = ["don", "'t", " I"];
        let gpt2 =
            ["'", "LL", " ", " we", "'ve", "'", "x", " 12345", "\n\n ", " x", " \r", "\n", "!!", "\n", " ?"];
        check(Splitter::Gpt2, text, &[&begin[..], &gpt2].concat());
        let single = [
            "'", "LL", " ", " we", "'ve", "'", "x", " ", "1", "2", "3", "4", "5", "\n\n ", " x", " \r", "\n",
            "!!", "\n", " ?",
        ];
        check(Splitter::SingleDigits, text, &[&begin[..], &single].concat());
        let modern = ["'LL", " ", " we", "'ve", "'x", " "];
        let end = ["\n\n", " ", " x", " \r\n", "!!\n", " ?"];
        check(Splitter::Llama3, text, &[&begin[..], &modern, &["123", "45"], &end].concat());
        check(Splitter::Qwen2, text, &[&begin[..], &modern, &["1", "2", "3", "4", "5"], &end].concat());
        // A vowel sign is no letter, a Roman numeral and a half are numbers.
        let text = "\u{645}\u{64f}\u{62d} 3\u{bd} \u{2167} a_b\t\t";
        check(
            Splitter::Gpt2,
            text,
            &["\u{645}", "\u{64f}", "\u{62d}", " 3\u{bd}", " \u{2167}", " a", "_", "b", "\t\t"],
        );
        let llama3 = ["\u{645}", "\u{64f}\u{62d}", " ", "3\u{bd}", " ", "\u{2167}", " a", "_b", "\t\t"];
        check(Splitter::Llama3, text, &llama3);
        for splitter in [Splitter::Gpt2, Splitter::SingleDigits, Splitter::Llama3, Splitter::Qwen2] {
            check(splitter, "  \n  \n", &["  \n  \n"]);
        }
    }

    fn check(splitter: Splitter, text: &str, words: &[&str]) {
        assert_eq!(words_by(text, splitter).collect::<Vec<_>>(), words, "{splitter:?}");
    }
}
