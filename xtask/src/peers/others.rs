//! How much of the machine other programs took while a contender ran: what makes a round worthless.

/// Ticks of processor time: of the whole machine, and of the children this process has waited for.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ticks {
    machine: f64,
    children: f64,
}

/// Runs `work`; beside its result the cores that others kept busy meanwhile, where the system tells.
pub(crate) fn beside<T>(work: impl FnOnce() -> T) -> (T, Option<f64>) {
    let (before, start) = (now(), std::time::Instant::now());
    let result = work();
    let seconds = start.elapsed().as_secs_f64();
    let cores = before.zip(now()).map(|(before, after)| {
        let ticks = (after.machine - before.machine) - (after.children - before.children);
        // Linux shows times to programs in hundredths of a second on every machine.
        (ticks / 100.0 / seconds).max(0.0)
    });
    (result, cores)
}

fn now() -> Option<Ticks> {
    let read = |file| std::fs::read_to_string(file).ok();
    Some(Ticks { machine: machine(&read("/proc/stat")?)?, children: children(&read("/proc/self/stat")?)? })
}

/// All but idle and waiting for disks; guests are counted in user time already.
fn machine(stat: &str) -> Option<f64> {
    let fields: Vec<f64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    let busy = [0, 1, 2, 5, 6, 7].iter().map(|field| fields.get(*field).copied());
    busy.sum()
}

/// User and system time of children, the 16th and 17th field; the second, a name, may hold anything.
fn children(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    Some(fields.get(13)?.parse::<f64>().ok()? + fields.get(14)?.parse::<f64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_the_system_are_read() {
        assert_eq!(machine("cpu  10 1 2 1000 50 3 4 5 7 7\ncpu0 1\n"), Some(25.0));
        assert_eq!(machine("cpu  10 1\n"), None);
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17";
        assert_eq!(children(stat), Some(27.0));
    }
}
