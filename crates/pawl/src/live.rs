//! The live line of a campaign: what runs now, how long it should still take, and how much of the
//! campaign is spent. Events are rare, so a thread keeps the clock moving; without a terminal there is
//! neither line nor thread.

use crate::output::{Status, bar, duration};
use std::io::{IsTerminal, stderr};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Often enough to look alive, seldom enough to cost nothing.
const TICK: Duration = Duration::from_millis(250);

/// Work under way.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) purpose: String,
    pub(crate) num_trials: usize,
    pub(crate) workers: usize,
    /// Seconds one trial is expected to take.
    pub(crate) trial_s: Option<f64>,
    /// Seconds of campaign time when it began.
    pub(crate) elapsed_s: f64,
    pub(crate) began: Instant,
}

/// The line, and the thread that redraws it.
pub(crate) struct Live {
    status: Arc<Status>,
    work: Arc<Mutex<Option<Work>>>,
    clock: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Live {
    /// `limit_s` is what the campaign may take.
    pub(crate) fn new(quiet: bool, limit_s: Option<f64>) -> Live {
        let status = Arc::new(Status::new(quiet));
        let work: Arc<Mutex<Option<Work>>> = Arc::default();
        let clock = (stderr().is_terminal() && !quiet).then(|| {
            let (stop, stopped) = channel();
            let (status, work) = (status.clone(), work.clone());
            let thread = std::thread::spawn(move || {
                while stopped.recv_timeout(TICK) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                    let work = work.lock().expect("nobody panics with the lock").clone();
                    if let Some(work) = work {
                        status.show(line(&work, work.began.elapsed().as_secs_f64(), limit_s));
                    }
                }
            });
            (stop, thread)
        });
        Live { status, work, clock }
    }

    pub(crate) fn begin(&self, work: Work) {
        *self.work.lock().expect("nobody panics with the lock") = Some(work);
    }

    /// A line that stays.
    pub(crate) fn narrate(&self, line: &str) {
        self.status.narrate(line);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.clock.take() {
            drop(stop);
            // The thread can only have ended well; its line is cleared below in any case.
            let _ = thread.join();
        }
        self.status.clear();
    }
}

fn line(work: &Work, seconds: f64, limit_s: Option<f64>) -> String {
    let rounds = work.num_trials.div_ceil(work.workers.max(1));
    let mut line = format!(" running {}: {} trial{}", work.purpose, work.num_trials, plural(work.num_trials));
    if let Some(total) = work.trial_s.map(|trial| trial * rounds as f64).filter(|total| *total > 0.0) {
        let left = (total - seconds).max(0.0);
        line.push_str(&format!("  {} {} left", bar(seconds / total, 10), duration(left)));
    }
    let spent = duration(work.elapsed_s + seconds);
    line.push_str("   ");
    line.push_str(&match limit_s {
        Some(limit) => format!("{spent} of {}", duration(limit)),
        None => spent,
    });
    line
}

fn plural(number: usize) -> &'static str {
    if number == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_runs_and_how_long_it_takes() {
        let work = Work {
            purpose: "#9".into(),
            num_trials: 4,
            workers: 2,
            trial_s: Some(10.0),
            elapsed_s: 60.0,
            began: Instant::now(),
        };
        assert_eq!(
            line(&work, 5.0, Some(600.0)),
            " running #9: 4 trials  [==>       ] 15.0 s left   01:05 of 10:00"
        );
        let unknown = Work { trial_s: None, num_trials: 1, ..work };
        assert_eq!(line(&unknown, 5.0, None), " running #9: 1 trial   01:05");
    }
}
