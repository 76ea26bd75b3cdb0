//! What models may cost, and what they have: prices, caps, and a file in which the worst case of every request
//! stands before it is sent.

use crate::store::Store;
use pawl_record::{FileError, append_line, from_json};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::PathBuf;

use super::anthropic::Thinking;
use super::message::Usage;

/// What a model costs, US dollars a million tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The beginning of the model's name; of several that fit, the longest counts.
    pub prefix: String,
    /// Sent.
    pub input: f64,
    /// Answered, thought included.
    pub output: f64,
    /// Sent and written to a cache.
    pub cache_write: f64,
    /// Read from a cache.
    pub cache_read: f64,
    /// How it is asked to think.
    #[serde(default = "off")]
    pub thinking: Thinking,
}

fn off() -> Thinking {
    Thinking::Off
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceFile {
    #[serde(default)]
    model: Vec<Price>,
}

/// The prices that travel in the binary.
pub const SHIPPED_PRICES: &str = include_str!("../../prices.toml");

/// A price table; of two lines for one prefix the first counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prices(Vec<Price>);

impl Prices {
    /// The user's own lines, then the shipped ones.
    pub fn read(own: Option<&str>) -> Result<Prices, String> {
        let mut all = Vec::new();
        for text in own.into_iter().chain([SHIPPED_PRICES]) {
            let file: PriceFile = toml::from_str(text).map_err(|why| why.to_string())?;
            for price in &file.model {
                let numbers = [price.input, price.output, price.cache_write, price.cache_read];
                if numbers.iter().any(|number| !(number.is_finite() && *number >= 0.0)) {
                    return Err(format!("prices of {} must be 0 or more", price.prefix));
                }
            }
            all.extend(file.model);
        }
        Ok(Prices(all))
    }

    /// The price of a model.
    pub fn of(&self, model: &str) -> Option<&Price> {
        let mut best: Option<&Price> = None;
        for price in self.0.iter().filter(|price| model.starts_with(&price.prefix)) {
            if best.is_none_or(|best| price.prefix.len() > best.prefix.len()) {
                best = Some(price);
            }
        }
        best
    }
}

impl Price {
    /// Of a server of one's own.
    pub fn free() -> Price {
        let prefix = String::new();
        Price { prefix, input: 0.0, output: 0.0, cache_write: 0.0, cache_read: 0.0, thinking: Thinking::Off }
    }

    /// US dollars.
    pub fn cost(&self, usage: &Usage) -> f64 {
        let millionths = self.input * usage.input as f64
            + self.output * usage.output as f64
            + self.cache_write * usage.cache_write as f64
            + self.cache_read * usage.cache_read as f64;
        millionths / 1e6
    }
}

/// Bytes of text a token has at least, on the whole of a request: English and code have three to four.
const LEAST_BYTES: u64 = 2;

/// The most a request may take: all of it written to a cache, and the longest answer.
pub(super) fn worst(bytes: usize, max_tokens: u64) -> Usage {
    Usage { cache_write: bytes as u64 / LEAST_BYTES + 1, output: max_tokens, ..Usage::default() }
}

/// Limits on what models may cost in a campaign, all researchers and all processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Caps {
    /// US dollars.
    pub usd: Option<f64>,
    /// Tokens, sent and answered.
    pub tokens: Option<u64>,
    /// Hours of waiting for answers.
    pub hours: Option<f64>,
}

impl Caps {
    /// The lower of two caps, one by one.
    pub fn within(&self, most: &Caps) -> Caps {
        fn lower<T: PartialOrd>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(if b < a { b } else { a }),
                (one, other) => one.or(other),
            }
        }
        Caps {
            usd: lower(self.usd, most.usd),
            tokens: lower(self.tokens, most.tokens),
            hours: lower(self.hours, most.hours),
        }
    }
}

/// What models have cost in a campaign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spent {
    /// US dollars.
    pub usd: f64,
    /// Tokens.
    pub tokens: u64,
    /// Seconds of waiting.
    pub seconds: f64,
    /// Requests.
    pub requests: u64,
}

/// One line of `campaign/spend.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
enum Line {
    /// Before a request: the most it may cost. It counts until the line that settles it, and forever without.
    Reserved { id: u64, conversation: String, usd: f64, tokens: u64 },
    /// After it: what it did cost.
    Settled { id: u64, usd: f64, tokens: u64, seconds: f64 },
}

/// The campaign's account. There is one process a campaign, and one request at a time.
pub(super) struct Purse {
    path: PathBuf,
    caps: Caps,
    spent: Spent,
    next: u64,
}

/// A request that may be sent.
pub(super) struct Reservation {
    id: u64,
    usd: f64,
    tokens: u64,
}

impl Reservation {
    pub(super) fn usd(&self) -> f64 {
        self.usd
    }
}

impl Purse {
    pub(super) fn open(store: &Store, caps: Caps) -> Result<Purse, FileError> {
        let path = store.path("spend.jsonl");
        let (spent, next) = read(&path)?;
        Ok(Purse { path, caps, spent, next })
    }

    /// Sets the worst case of a request aside, or says which cap forbids it.
    pub(super) fn reserve(
        &mut self,
        conversation: &str,
        usd: f64,
        tokens: u64,
    ) -> Result<Reservation, Refused> {
        let Caps { usd: max_usd, tokens: max_tokens, hours } = self.caps;
        if let Some(max) = max_usd.filter(|max| self.spent.usd + usd > *max) {
            let left = (max - self.spent.usd).max(0.0);
            return Err(Refused::Cap(format!("${left:.4} of ${max} are left, a request may cost ${usd:.4}")));
        }
        if let Some(max) = max_tokens.filter(|max| self.spent.tokens.saturating_add(tokens) > *max) {
            let left = max.saturating_sub(self.spent.tokens);
            return Err(Refused::Cap(format!(
                "{left} of {max} tokens are left, a request may take {tokens}"
            )));
        }
        if let Some(max) = hours.filter(|max| self.spent.seconds >= 3600.0 * max) {
            return Err(Refused::Cap(format!("{max} hours of waiting for answers are used up")));
        }
        let id = self.next;
        self.next += 1;
        append_line(&self.path, &Line::Reserved { id, conversation: conversation.to_string(), usd, tokens })
            .map_err(Refused::File)?;
        self.spent.usd += usd;
        self.spent.tokens = self.spent.tokens.saturating_add(tokens);
        self.spent.requests += 1;
        Ok(Reservation { id, usd, tokens })
    }

    /// Writes down what a request did cost; `None` when that is not known: the worst case stays.
    pub(super) fn settle(
        &mut self,
        reservation: Reservation,
        cost: Option<(f64, u64)>,
        seconds: f64,
    ) -> Result<(), FileError> {
        let Reservation { id, usd: reserved_usd, tokens: reserved_tokens } = reservation;
        let (usd, tokens) = cost.unwrap_or((reserved_usd, reserved_tokens));
        append_line(&self.path, &Line::Settled { id, usd, tokens, seconds })?;
        self.spent.usd += usd - reserved_usd;
        self.spent.tokens = (self.spent.tokens - reserved_tokens).saturating_add(tokens);
        self.spent.seconds += seconds;
        Ok(())
    }

    /// Seconds that waiting may still take.
    pub(super) fn seconds_left(&self) -> Option<f64> {
        self.caps.hours.map(|hours| (3600.0 * hours - self.spent.seconds).max(0.0))
    }
}

/// Why a request may not be sent.
pub(super) enum Refused {
    Cap(String),
    File(FileError),
}

/// What the models of a campaign have cost; nothing when none was asked.
pub fn spent(store: &Store) -> Result<Spent, FileError> {
    read(&store.path("spend.jsonl")).map(|(spent, _)| spent)
}

fn read(path: &std::path::Path) -> Result<(Spent, u64), FileError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(FileError::Io { action: "read", path: path.to_path_buf(), source }),
    };
    let (mut spent, mut next) = (Spent::default(), 0);
    let mut open: std::collections::BTreeMap<u64, (f64, u64)> = std::collections::BTreeMap::new();
    // A line torn by a crash is a request that was not sent, or one whose worst case stands before it.
    for line in text.lines().filter_map(|line| from_json::<Line>(line.as_bytes()).ok()) {
        match line {
            Line::Reserved { id, usd, tokens, .. } => {
                open.insert(id, (usd.max(0.0), tokens));
                spent.requests += 1;
                next = next.max(id + 1);
            }
            // A line that takes back what was spent is none of ours.
            Line::Settled { usd, seconds, .. } if !(usd >= 0.0 && seconds >= 0.0) => {}
            Line::Settled { id, usd, tokens, seconds } => {
                open.remove(&id);
                spent.usd += usd;
                spent.tokens = spent.tokens.saturating_add(tokens);
                spent.seconds += seconds;
            }
        }
    }
    for (usd, tokens) in open.into_values() {
        spent.usd += usd;
        spent.tokens = spent.tokens.saturating_add(tokens);
    }
    Ok((spent, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_counts_and_own_lines_come_first() {
        let own = "[[model]]\nprefix = \"claude-opus-4-6\"\ninput = 1\noutput = 2\ncache_write = 3\ncache_read = 4\n\
                   [[model]]\nprefix = \"mine\"\ninput = 9\noutput = 9\ncache_write = 9\ncache_read = 9\n";
        let prices = Prices::read(Some(own)).unwrap();
        assert_eq!(prices.of("claude-opus-4-6-20260205").unwrap().input, 1.0);
        assert_eq!(prices.of("claude-opus-4-5").unwrap().output, 25.0);
        assert_eq!(prices.of("mine:7b").unwrap().cache_read, 9.0);
        assert_eq!(prices.of("other"), None);
        assert!(Prices::read(Some("[[model]]\nprefix = 1")).is_err());
        assert!(Prices::read(Some(&own.replace("input = 1", "input = -1"))).is_err());
        let usage =
            Usage { input: 1_000_000, cache_write: 0, cache_read: 2_000_000, output: 100_000, known: true };
        assert!((prices.of("claude-opus-4-5").unwrap().cost(&usage) - (5.0 + 1.0 + 2.5)).abs() < 1e-9);
    }

    #[test]
    fn a_request_whose_end_is_unknown_counts_in_full() {
        let lab = tempfile::tempdir().unwrap();
        let store = Store::new(lab.path());
        fs::create_dir_all(lab.path().join("campaign")).unwrap();
        let caps = Caps { usd: Some(1.0), tokens: Some(1000), hours: None };
        let mut purse = Purse::open(&store, caps).ok().unwrap();
        let first = purse.reserve("c", 0.6, 400).ok().unwrap();
        assert!(purse.reserve("c", 0.6, 400).is_err(), "the first is still out");
        purse.settle(first, Some((0.1, 50)), 2.0).unwrap();
        let _lost = purse.reserve("c", 0.6, 400).ok().unwrap();
        let mut again = Purse::open(&store, caps).ok().unwrap();
        assert!((again.spent.usd - 0.7).abs() < 1e-9 && again.spent.tokens == 450, "{:?}", again.spent);
        assert!(again.reserve("c", 0.31, 1).is_err() && again.reserve("c", 0.0, 551).is_err());
        assert!(again.reserve("c", 0.29, 550).is_ok());
    }

    #[test]
    fn a_line_that_takes_back_what_was_spent_lifts_no_cap() {
        let lab = tempfile::tempdir().unwrap();
        let store = Store::new(lab.path());
        let caps = Caps { usd: Some(1.0), tokens: None, hours: None };
        fs::create_dir_all(lab.path().join("campaign")).unwrap();
        let mut purse = Purse::open(&store, caps).ok().unwrap();
        let first = purse.reserve("c", 0.9, 1).ok().unwrap();
        purse.settle(first, Some((0.9, 1)), 1.0).unwrap();
        let path = purse.path.clone();
        let honest = fs::read_to_string(&path).unwrap();
        assert!(honest.contains("0.9"), "{honest}");
        let taken_back = honest.replace("0.9", "-1000.0");
        fs::write(&path, honest + &taken_back).unwrap();
        let mut again = Purse::open(&store, caps).ok().unwrap();
        assert!(again.reserve("c", 0.2, 1).is_err(), "{:?}", again.spent);
    }
}
