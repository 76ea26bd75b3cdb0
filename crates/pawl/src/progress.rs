//! How long work looks on a terminal: what, how far, how fast, how long still.

use crate::output::{Status, bar, bytes, duration};
use pawl_data::{Progress, Stage};
use std::cell::Cell;
use std::time::Instant;

/// A live line for the work of `pawl-data`.
pub(crate) struct DataProgress {
    status: Status,
    /// The stage under way and when it began.
    began: Cell<(Stage, Instant)>,
}

impl DataProgress {
    pub(crate) fn new(quiet: bool) -> DataProgress {
        DataProgress { status: Status::new(quiet), began: Cell::new((Stage::Read, Instant::now())) }
    }

    /// To be given to `pawl-data`.
    pub(crate) fn show(&self, progress: Progress) {
        let (stage, mut start) = self.began.get();
        if stage != progress.stage {
            start = Instant::now();
            self.began.set((progress.stage, start));
        }
        self.status.show(line(progress, start.elapsed().as_secs_f64()));
    }
}

impl Drop for DataProgress {
    fn drop(&mut self) {
        self.status.clear();
    }
}

fn line(progress: Progress, seconds: f64) -> String {
    let (what, in_bytes) = match progress.stage {
        Stage::Read => ("reading", true),
        Stage::Split => ("dividing", true),
        Stage::Count => ("counting words", true),
        Stage::Merge => ("learning the tokenizer", false),
        Stage::Encode => ("writing tokens", true),
    };
    let unit = |number: u64| if in_bytes { bytes(number) } else { format!("{number} merges") };
    let share = progress.done as f64 / progress.total.max(1) as f64;
    let mut line = format!("{what} {} {} of {}", bar(share, 20), unit(progress.done), unit(progress.total));
    // A rate from less than half a second of work would jump about.
    if seconds > 0.5 && progress.done > 0 {
        let rate = progress.done as f64 / seconds;
        let left = progress.total.saturating_sub(progress.done) as f64 / rate;
        line.push_str(&format!("  {}/s  {} left", unit(rate as u64), duration(left)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_how_far_how_fast_and_how_long() {
        let progress = Progress { stage: Stage::Read, done: 2_000_000, total: 8_000_000 };
        let text = line(progress, 2.0);
        assert_eq!(text, "reading [=====>              ] 2.00 MB of 8.00 MB  1.00 MB/s  6.0 s left");
        assert!(!line(progress, 0.0).contains("left"));
    }
}
