//! The limits of the machine as a table: one thread, all threads.

use super::How;
use super::steps::Roof;
use crate::output::{Align, Table};
use pawl_engine::limits::{Effort, Rate, Stores, Streams, bfloat16, float32};
use pawl_engine::pool::Pool;
use pawl_engine::{Isa, Precision};
use serde_json::{Value, json};

/// Bytes of each of three arrays: together several times the last cache of a desktop processor.
const STREAM_BYTES: usize = 64 << 20;
const QUICK_STREAM_BYTES: usize = 16 << 20;
const WINDOWS: usize = 5;
const QUICK_WINDOWS: usize = 2;
const QUICK: Effort = Effort { windows: 4, window_seconds: 0.002 };

/// Limits of some threads together, FLOP/s and bytes/s.
pub(super) struct Limit {
    pub(super) float32: Rate,
    /// `None` without the instructions.
    pub(super) bfloat16: Option<Rate>,
    read: Rate,
    triad: Rate,
    triad_past_caches: Rate,
}

/// Of one thread and of all.
pub(super) struct Limits {
    num_threads: usize,
    one: Limit,
    pub(super) all: Limit,
}

impl Limits {
    pub(super) fn measure(how: &How<'_>) -> Limits {
        how.status.show("limits of this machine".to_string());
        let mut streams = Streams::new(if how.quick { QUICK_STREAM_BYTES } else { STREAM_BYTES });
        let [one, all] = [1, how.num_threads].map(|num_threads| limit(how, &mut streams, num_threads));
        Limits { num_threads: how.num_threads, one, all }
    }

    /// What bounds a step in `precision` on all threads.
    pub(super) fn roof(&self, precision: Precision) -> Roof {
        let float32 = self.all.float32.best;
        let products = match precision {
            Precision::F32 => float32,
            Precision::Bf16 => self.all.bfloat16.map_or(float32, |rate| rate.best),
        };
        Roof { products, float32, bandwidth: self.all.bandwidth() }
    }

    pub(super) fn table(&self) -> String {
        let mut table = Table::new(&[
            ("limits of this machine", Align::Left),
            ("unit", Align::Left),
            ("1 thread", Align::Right),
            ("median", Align::Right),
            ("all threads", Align::Right),
            ("median", Align::Right),
        ]);
        let mut row = |name: &str, unit: &str, of: &dyn Fn(&Limit) -> Option<Rate>| {
            let (Some(one), Some(all)) = (of(&self.one), of(&self.all)) else { return };
            let rates = [one.best, one.median, all.best, all.median].map(|rate| format!("{:.1}", rate / 1e9));
            table.row([name.to_string(), unit.to_string()].into_iter().chain(rates).collect());
        };
        row("float32 multiply-adds", "GFLOP/s", &|limit| Some(limit.float32));
        row("bfloat16 dot products", "GFLOP/s", &|limit| limit.bfloat16);
        row("memory read", "GB/s", &|limit| Some(limit.read));
        row("triad, plain stores", "GB/s", &|limit| Some(limit.triad));
        row("triad, non-temporal stores", "GB/s", &|limit| Some(limit.triad_past_caches));
        table.text()
    }

    pub(super) fn json(&self) -> Value {
        json!({ "one_thread": self.one.json(), "all_threads": self.all.json(), "threads": self.num_threads })
    }
}

fn limit(how: &How<'_>, streams: &mut Streams, num_threads: usize) -> Limit {
    let (pool, isa) = (Pool::new(num_threads), Isa::detect());
    let effort = if how.quick { QUICK } else { Effort::SHORT };
    let windows = if how.quick { QUICK_WINDOWS } else { WINDOWS };
    Limit {
        float32: float32(&pool, isa, effort),
        bfloat16: bfloat16(&pool, effort),
        read: streams.read(&pool, isa, windows),
        triad: streams.triad(&pool, isa, Stores::Plain, windows),
        triad_past_caches: streams.triad(&pool, isa, Stores::NonTemporal, windows),
    }
}

impl Limit {
    /// The most that memory gave in any way.
    pub(super) fn bandwidth(&self) -> f64 {
        self.read.best.max(self.triad.best).max(self.triad_past_caches.best)
    }

    fn json(&self) -> Value {
        let rate = |rate: Rate| json!({ "best": rate.best, "median": rate.median });
        json!({
            "float32_flops_per_sec": rate(self.float32),
            "bfloat16_flops_per_sec": self.bfloat16.map(rate),
            "read_bytes_per_sec": rate(self.read),
            "triad_bytes_per_sec": rate(self.triad),
            "triad_non_temporal_bytes_per_sec": rate(self.triad_past_caches),
        })
    }
}
