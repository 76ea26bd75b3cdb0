//! `campaign.toml` read into a brief. An unknown key is an error with its line and the nearest known one; what a
//! file that comes with a project must not decide is refused by name.

use super::{Brief, RUNG, Source, TABLES, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Why a campaign file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct BriefError {
    /// The file, as it was named.
    pub file: String,
    /// The line.
    pub line: usize,
    /// What is wrong there. It never repeats a value.
    pub what: String,
    /// Why that is wrong.
    pub because: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What names of keys end in that a campaign file may not set, and what they stand for.
const REFUSED: &[(&str, &str)] = &[
    ("key", "a key"),
    ("secret", "a secret"),
    ("password", "a password"),
    ("credential", "a credential"),
    ("credentials", "a credential"),
    ("token", "a token of access"),
    ("auth", "a credential"),
    ("authorization", "a credential"),
    ("header", "what is sent to a service"),
    ("headers", "what is sent to a service"),
    ("url", "the address of a service"),
    ("uri", "the address of a service"),
    ("endpoint", "the address of a service"),
    ("host", "the address of a service"),
    ("proxy", "the address of a service"),
    ("sandbox", "how far programs are locked in"),
    ("isolation", "how far programs are locked in"),
];

/// What a key of that name would set that no campaign file may, if so: `api_key`, `base_url`, `sandbox_level`.
pub fn is_refused(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let words: Vec<&str> = name.split(|c: char| !c.is_alphanumeric()).collect();
    let ends = |word: &&str, (end, what): &(&str, &'static str)| word.ends_with(end).then_some(*what);
    words.iter().find_map(|word| REFUSED.iter().find_map(|refused| ends(word, refused)))
}

impl Brief {
    /// Takes over what a campaign file says; `file` is its name in messages.
    pub fn read(&mut self, text: &str, file: &str) -> Result<(), BriefError> {
        let reader = Reader { text, file };
        let document = DeTable::parse(text).map_err(|error| {
            // The library's own text shows the line, which may hold what must not reach a log.
            let at = error.span().map_or(0, |span| span.start);
            reader.error(at, format!("this is not TOML: {}", error.message()))
        })?;
        reader.refuse(document.get_ref())?;
        for (name, value) in in_order(document.get_ref()) {
            reader.top(self, name, value)?;
        }
        Ok(())
    }
}

type Name<'a, 'i> = &'a Spanned<std::borrow::Cow<'i, str>>;

/// Entries as they stand in the file, so that the first fault is the one that is told.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<(Name<'a, 'i>, &'a Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

struct Reader<'t> {
    text: &'t str,
    file: &'t str,
}

impl Reader<'_> {
    fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
    }

    fn error(&self, at: usize, what: String) -> BriefError {
        BriefError { file: self.file.to_string(), line: self.line(at), what, because: None, hint: None }
    }

    /// Refuses what no campaign file may set, wherever it stands.
    fn refuse(&self, table: &DeTable<'_>) -> Result<(), BriefError> {
        for (name, value) in in_order(table) {
            if let Some(sets) = is_refused(name.get_ref()) {
                return Err(BriefError {
                    because: Some(format!(
                        "it would set {sets}, and a file that comes with a project must not decide that"
                    )),
                    hint: Some(
                        "remove it: whoever runs the campaign sets such things outside the project".into(),
                    ),
                    ..self.error(
                        name.span().start,
                        format!("`{}` is refused in a campaign file", name.get_ref()),
                    )
                });
            }
            self.refuse_in(value.get_ref())?;
        }
        Ok(())
    }

    fn refuse_in(&self, value: &DeValue<'_>) -> Result<(), BriefError> {
        if let Some(inner) = value.as_table() {
            self.refuse(inner)?;
        }
        for inner in value.as_array().into_iter().flat_map(|array| array.iter()) {
            self.refuse_in(inner.get_ref())?;
        }
        Ok(())
    }

    /// An entry of the file's top: a key, a table, or the rungs.
    fn top(
        &self,
        brief: &mut Brief,
        name: Name<'_, '_>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), BriefError> {
        let (at, word) = (name.span().start, name.get_ref().as_ref());
        let is_table = !word.is_empty() && TABLES.iter().any(|(table, _)| *table == word);
        match value.get_ref() {
            DeValue::Array(rungs) if word == "rung" => {
                brief.say_num_rungs(rungs.len());
                for (idx, rung) in rungs.iter().enumerate() {
                    let Some(table) = rung.get_ref().as_table() else {
                        return Err(self.rungs_hint(self.error(at, "`rung` is a list of tables".to_string())));
                    };
                    self.rung(brief, idx, table)?;
                }
                if rungs.is_empty() {
                    return Err(self.rungs_hint(self.error(at, "a ladder has at least one rung".to_string())));
                }
                Ok(())
            }
            _ if word == "rung" => {
                Err(self.rungs_hint(self.error(at, "`rung` is a list of tables".to_string())))
            }
            DeValue::Table(table) if is_table => {
                for (name, value) in in_order(table) {
                    self.key(brief, word, name, value)?;
                }
                Ok(())
            }
            _ if is_table => Err(BriefError {
                hint: Some(format!("write [{word}] and its keys below it")),
                ..self.error(at, format!("`{word}` is a table"))
            }),
            DeValue::Table(_) => Err(self.unknown(at, "", word, "table")),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => self.key(brief, "", name, value),
        }
    }

    fn rungs_hint(&self, error: BriefError) -> BriefError {
        BriefError { hint: Some("write [[rung]] above the keys of each rung".to_string()), ..error }
    }

    fn rung(&self, brief: &mut Brief, idx: usize, table: &DeTable<'_>) -> Result<(), BriefError> {
        for (name, value) in in_order(table) {
            let (at, word) = (name.span().start, name.get_ref().as_ref());
            if !RUNG.iter().any(|key| key.name == word) {
                return Err(self.unknown(at, "rung", word, "key"));
            }
            let value = self.value(at, word, value.get_ref())?;
            let source = Source::File { file: self.file.to_string(), line: self.line(at) };
            brief.say_rung(idx, word, value, source).map_err(|what| self.error(at, what))?;
        }
        Ok(())
    }

    fn key(
        &self,
        brief: &mut Brief,
        table: &str,
        name: Name<'_, '_>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), BriefError> {
        let (at, word) = (name.span().start, name.get_ref().as_ref());
        let known = TABLES.iter().any(|(it, keys)| *it == table && keys.iter().any(|key| key.name == word));
        if !known {
            return Err(self.unknown(at, table, word, "key"));
        }
        let value = self.value(at, word, value.get_ref())?;
        let source = Source::File { file: self.file.to_string(), line: self.line(at) };
        brief.say(table, word, value, source).map_err(|what| self.error(at, what))
    }

    fn value(&self, at: usize, name: &str, value: &DeValue<'_>) -> Result<Value, BriefError> {
        let wrong = |what: &str| self.error(at, format!("`{name}` must be a number or text, and is {what}"));
        match value {
            DeValue::String(text) => Ok(Value::Text(text.to_string())),
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
                .map(Value::Whole)
                .map_err(|_| self.error(at, format!("`{name}` is too large"))),
            DeValue::Float(digits) => {
                digits.as_str().parse().map(Value::Number).map_err(|_| wrong("neither"))
            }
            DeValue::Boolean(_) => Err(wrong("true or false")),
            DeValue::Datetime(_) => Err(wrong("a date")),
            DeValue::Array(_) => Err(wrong("a list")),
            DeValue::Table(_) => Err(wrong("a table")),
        }
    }

    /// An unknown name, with the known one that looks most like it; one that stands in its own table comes first.
    fn unknown(&self, at: usize, table: &str, word: &str, kind: &str) -> BriefError {
        let mut known: Vec<(&str, &str)> = Vec::new();
        match kind {
            "table" => known.extend(TABLES.iter().map(|(table, _)| (*table, "")).chain([("rung", "")])),
            _ => {
                let keys =
                    TABLES.iter().flat_map(|(table, keys)| keys.iter().map(move |key| (*table, key.name)));
                known.extend(keys.chain(RUNG.iter().map(|key| ("rung", key.name))));
            }
        }
        let far = |it: &(&str, &str)| {
            let name = if it.1.is_empty() { it.0 } else { it.1 };
            (distance(word, name), it.0 != table)
        };
        let nearest =
            known.iter().filter(|it| far(it).0 <= (word.chars().count() / 2).max(2)).min_by_key(|it| far(it));
        let place = |table: &str| match table {
            "" => "the top of the file".to_string(),
            "rung" => "[[rung]]".to_string(),
            table => format!("[{table}]"),
        };
        let hint = match nearest {
            Some((near, "")) => format!("did you mean {}?", place(near)),
            Some((near, name)) if *near == table => format!("did you mean `{name}`?"),
            Some((near, name)) => format!("did you mean `{name}` of {}?", place(near)),
            None => "`pawl research --explain` prints every key there is".to_string(),
        };
        let what = match kind {
            "table" => format!("there is no table [{word}]"),
            _ if table.is_empty() => format!("there is no key `{word}`"),
            _ => format!("there is no key `{word}` in {}", place(table)),
        };
        BriefError { hint: Some(hint), ..self.error(at, what) }
    }
}

/// Letters to change, insert or leave out (Levenshtein, 1966).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != *y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}
