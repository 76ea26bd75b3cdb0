//! Work spread over the cores.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs `work` for 0, ..., `n - 1` on all cores; results come in order, whatever the number of cores.
pub(crate) fn in_parallel<T: Send>(n: u64, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    on_workers(cores, &(0..n).collect::<Vec<_>>(), |i| work(*i))
}

/// Runs `work` for each of `items`, `workers` at a time, each taking the next as it becomes free; results in order.
pub(crate) fn on_workers<I: Sync, T: Send>(
    workers: usize,
    items: &[I],
    work: impl Fn(&I) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let mut parts: Vec<(usize, T)> = std::thread::scope(|scope| {
        let (work, next) = (&work, &next);
        let take = move || {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(at) else { return done };
                done.push((at, work(item)));
            }
        };
        let threads: Vec<_> = (0..workers.clamp(1, items.len().max(1))).map(|_| scope.spawn(take)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no work panics")).collect()
    });
    parts.sort_by_key(|(at, _)| *at);
    parts.into_iter().map(|(_, part)| part).collect()
}
