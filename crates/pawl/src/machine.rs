//! What this machine is: read from the operating system, never guessed.

use pawl_engine::Isa;
use pawl_engine::limits::{self, Effort};
use pawl_engine::pool::Pool;
use std::path::Path;

/// Facts about the machine; `None` where the system does not say.
pub(crate) struct Machine {
    pub(crate) processor: Option<String>,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) memory_free_bytes: Option<u64>,
    pub(crate) kernel: Option<String>,
}

pub(crate) fn machine() -> Machine {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    Machine {
        processor: field(&cpuinfo, "model name").map(str::to_string),
        cores: cores(),
        memory_bytes: kibibytes(&meminfo, "MemTotal"),
        memory_free_bytes: kibibytes(&meminfo, "MemAvailable"),
        kernel: release.map(|release| format!("{} {}", std::env::consts::OS, release.trim())),
    }
}

/// Processor and instruction set, as runs and campaigns record them.
pub(crate) fn describe() -> String {
    let processor = machine().processor.unwrap_or_else(|| std::env::consts::ARCH.to_string());
    format!("{processor}, {}", instruction_set())
}

/// What the engine's kernels use here.
pub(crate) fn instruction_set() -> &'static str {
    match Isa::detect() {
        Isa::Avx512 => "AVX-512",
        Isa::Avx2 => "AVX2 + FMA",
        Isa::Portable => "portable",
    }
}

/// FLOP/s of float32 multiply-adds in the registers of `num_threads` cores, measured now in some hundredths of
/// a second: what shares of peak are shares of.
pub(crate) fn peak_flops(num_threads: usize) -> f64 {
    limits::float32(&Pool::new(num_threads), Isa::detect(), Effort::SHORT).best
}

/// Most bytes of memory this process has held at once, since [`forget_peak_memory`] where the system lets it
/// be forgotten.
pub(crate) fn peak_memory() -> Option<u64> {
    kibibytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM")
}

/// Lets [`peak_memory`] begin again.
pub(crate) fn forget_peak_memory() {
    // A system without it, or that forbids it, reports the peak of the whole process: a figure too high.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Cores this process may use; 1 where the system does not say.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Bytes free for us on the file system of `path`, or of the nearest folder above that exists.
pub(crate) fn disk_free(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    let exists = path.ancestors().find(|folder| folder.exists())?;
    let stat = rustix::fs::statvfs(exists).ok()?;
    Some(stat.f_bavail * stat.f_frsize)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemTotalX:  1 kB\nMemTotal:       16 kB\nmodel name\t: A: B\n";
        assert_eq!(kibibytes(text, "MemTotal"), Some(16384));
        assert_eq!(field(text, "model name"), Some("A: B"));
        assert_eq!(kibibytes(text, "Mem"), None);
    }

    #[test]
    fn a_lab_that_does_not_exist_yet_has_the_space_of_its_place() {
        assert!(disk_free(Path::new("no/such/lab")).is_some_and(|free| free > 0));
    }
}
