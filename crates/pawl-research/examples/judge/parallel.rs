//! Work spread over the cores.

/// Runs `work` for 0, ..., `n - 1` on all cores; results come in order, whatever the number of cores.
pub(crate) fn in_parallel<T: Send>(n: u64, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let mut parts: Vec<(u64, T)> = std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..cores)
            .map(|core| {
                scope.spawn(move || {
                    (core..n).step_by(cores as usize).map(|i| (i, work(i))).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no work panics")).collect()
    });
    parts.sort_by_key(|(i, _)| *i);
    parts.into_iter().map(|(_, part)| part).collect()
}

/// Runs `work` for each of `items`, `workers` at a time, each taking the next as it becomes free; results in order.
pub(crate) fn on_workers<I: Sync, T: Send>(
    workers: usize,
    items: &[I],
    work: impl Fn(&I) -> T + Sync,
) -> Vec<T> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let mut parts: Vec<(usize, T)> = std::thread::scope(|scope| {
        let (work, next) = (&work, &next);
        let take = move || {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
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
