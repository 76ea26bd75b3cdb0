//! Counters, and their text in the OpenMetrics form.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What has happened since the server began.
#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) completion_tokens: AtomicU64,
    /// Number of answers by path and status.
    answers: Mutex<std::collections::BTreeMap<(&'static str, u16), u64>>,
    nanoseconds: AtomicU64,
}

impl Metrics {
    pub(crate) fn add(counter: &AtomicU64, num: usize) {
        counter.fetch_add(num as u64, Ordering::Relaxed);
    }

    pub(crate) fn answered(&self, path: &'static str, status: u16, took: Duration) {
        self.nanoseconds.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        if let Ok(mut answers) = self.answers.lock() {
            *answers.entry((path, status)).or_default() += 1;
        }
    }

    pub(crate) fn text(&self, num_pending: usize) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, lines: Vec<(String, String)>| {
            text.push_str(&format!("# HELP pawl_{name} {help}\n# TYPE pawl_{name} {kind}\n"));
            let total = if kind == "counter" { "_total" } else { "" };
            lines.iter().for_each(|(labels, value)| {
                text.push_str(&format!("pawl_{name}{total}{labels} {value}\n"));
            });
        };
        let one = |value: String| vec![(String::new(), value)];
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let answers = self.answers.lock().map(|answers| answers.clone()).unwrap_or_default();
        let lines = answers.iter().map(|((path, status), num)| {
            (format!("{{path=\"{path}\",status=\"{status}\"}}"), num.to_string())
        });
        family("answers", "counter", "Requests answered.", lines.collect());
        let seconds = read(&self.nanoseconds) as f64 / 1e9;
        family(
            "answer_seconds",
            "counter",
            "Time from request to the head of its answer.",
            one(format!("{seconds}")),
        );
        family("prompt_tokens", "counter", "Tokens read.", one(read(&self.prompt_tokens).to_string()));
        family(
            "completion_tokens",
            "counter",
            "Tokens drawn.",
            one(read(&self.completion_tokens).to_string()),
        );
        family("pending", "gauge", "Texts in generation and waiting.", one(num_pending.to_string()));
        text.push_str("# EOF\n");
        text
    }
}
