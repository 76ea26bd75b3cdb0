//! What each kernel of a program costs, beside the least work that its shapes ask for: the two sides of a
//! roofline. It refuses to know what a program is for: its user divides a step into sections.

use crate::kernels::map::{Axis, MapProgram, Pattern};
use crate::kernels::row_program::{RowInstr, RowProgram};
use crate::plan::{Adds, Kernel, Products, Tail};
use pawl_graph::visible_pairs;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Kinds of kernels that are limited in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Matrix products.
    Products,
    /// Attention, forward and backward.
    Attention,
    /// Root mean square norms.
    Norms,
    /// Fused maps, reductions and programs over rows, norms within them included.
    Elementwise,
    /// The loss over the vocabulary.
    CrossEntropy,
    /// Tables, copies, rotations, scans and the rest.
    Other,
}

/// What the calls of one kernel of one size took.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelCost {
    /// As told by [`Profile::enter`].
    pub section: usize,
    /// Kind.
    pub group: Group,
    /// Name and sizes.
    pub label: String,
    /// Number of calls.
    pub calls: u64,
    /// Seconds of all calls.
    pub seconds: f64,
    /// Floating-point operations of all calls.
    pub flops: f64,
    /// Bytes of the operands of all calls, each read or written once.
    pub bytes: f64,
}

/// Time by kernel; a loop over rows counts in its parts. One thread is counted in its processor time, which
/// other processes do not change; several in the time that passes.
pub struct Profile {
    one_thread: bool,
    begun: Instant,
    section: AtomicUsize,
    /// By section and address: a label for every call would be a cost of its own.
    rows: Mutex<BTreeMap<(usize, usize), KernelCost>>,
}

impl Profile {
    pub(crate) fn new(num_threads: usize) -> Profile {
        Profile {
            one_thread: num_threads == 1,
            begun: Instant::now(),
            section: AtomicUsize::new(0),
            rows: Mutex::default(),
        }
    }

    /// Counts what follows under this section.
    pub fn enter(&self, section: usize) {
        self.section.store(section, Relaxed);
    }

    /// Seconds on the clock of this profile.
    pub(crate) fn now(&self) -> f64 {
        if self.one_thread { thread_seconds() } else { self.begun.elapsed().as_secs_f64() }
    }

    pub(crate) fn add(&self, kernel: &Kernel, seconds: f64) {
        if matches!(kernel, Kernel::Loop(_)) {
            return;
        }
        let section = self.section.load(Relaxed);
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let row = rows.entry((section, std::ptr::from_ref(kernel).addr())).or_insert_with(|| {
            let group = group(kernel);
            KernelCost {
                section,
                group,
                label: kernel.label(),
                calls: 0,
                seconds: 0.0,
                flops: 0.0,
                bytes: 0.0,
            }
        });
        let (flops, bytes) = work(kernel);
        (row.calls, row.seconds) = (row.calls + 1, row.seconds + seconds);
        (row.flops, row.bytes) = (row.flops + flops, row.bytes + bytes);
    }

    /// What was counted since the last call, the longest first. To be called before a program that was run
    /// meanwhile is dropped: kernels are told apart by where they lie.
    pub fn take(&self) -> Vec<KernelCost> {
        let rows = std::mem::take(&mut *self.rows.lock().unwrap_or_else(PoisonError::into_inner));
        let mut merged: BTreeMap<(usize, String), KernelCost> = BTreeMap::new();
        for row in rows.into_values() {
            match merged.get_mut(&(row.section, row.label.clone())) {
                Some(known) => {
                    known.calls += row.calls;
                    known.seconds += row.seconds;
                    known.flops += row.flops;
                    known.bytes += row.bytes;
                }
                None => drop(merged.insert((row.section, row.label.clone()), row)),
            }
        }
        let mut rows: Vec<KernelCost> = merged.into_values().collect();
        rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        rows
    }
}

/// Processor time of the calling thread, seconds.
pub(crate) fn thread_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on Linux and the pointer is to a timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn group(kernel: &Kernel) -> Group {
    match kernel {
        Kernel::Gemm(_) | Kernel::Mapped(_) | Kernel::Pack { .. } => Group::Products,
        Kernel::Attention { .. } | Kernel::AttentionBackward { .. } => Group::Attention,
        Kernel::RmsNorm { .. } | Kernel::RmsNormBackward { .. } => Group::Norms,
        Kernel::Map { .. } | Kernel::Rows { .. } | Kernel::MapReduce { .. } | Kernel::Accumulate { .. } => {
            Group::Elementwise
        }
        Kernel::CrossEntropy { .. } | Kernel::CrossEntropyBackward { .. } => Group::CrossEntropy,
        Kernel::IntBinary { .. }
        | Kernel::Iota { .. }
        | Kernel::ToFloat { .. }
        | Kernel::Copy { .. }
        | Kernel::Clear { .. }
        | Kernel::Softmax { .. }
        | Kernel::SoftmaxBackward { .. }
        | Kernel::Rope { .. }
        | Kernel::Embedding { .. }
        | Kernel::EmbeddingBackward { .. }
        | Kernel::Scan { .. }
        | Kernel::TopK { .. }
        | Kernel::Dropout { .. }
        | Kernel::Loop(_) => Group::Other,
    }
}

/// Floating-point operations, as `pawl_graph` prices them, and bytes of one call.
pub(crate) fn work(kernel: &Kernel) -> (f64, f64) {
    let floats = |flops: f64, floats: f64| (flops, 4.0 * floats);
    // Operations, reads and writes of each element of a tensor.
    let each = |len: usize, flops: f64, moved: f64| floats(flops * len as f64, moved * len as f64);
    match kernel {
        Kernel::Map { program, len } => {
            let written = (program.outputs.len() * len) as f64 + (program.halves.len() * len) as f64 / 2.0;
            let moved = read_len(program, *len) + written;
            floats((program.instrs.len() * len) as f64, moved)
        }
        Kernel::Rows { program, rows } => row_work(program, *rows),
        Kernel::MapReduce { program, axis, .. } => {
            let Axis { outer, n, inner } = *axis;
            let len = outer * n * inner;
            floats(((program.instrs.len() + 1) * len) as f64, read_len(program, len) + (outer * inner) as f64)
        }
        Kernel::IntBinary { axes, .. } => each(axes.iter().map(|axis| axis.0).product(), 0.0, 3.0),
        Kernel::Copy { axes } => each(axes.iter().map(|axis| axis.0).product(), 0.0, 2.0),
        Kernel::Iota { n: len } | Kernel::Clear { len } => each(*len, 0.0, 1.0),
        Kernel::ToFloat { len } => each(*len, 0.0, 2.0),
        Kernel::Accumulate { len, .. } => each(*len, 1.0, 3.0),
        Kernel::Dropout { len, .. } => each(*len, 1.0, 2.0),
        Kernel::Gemm(p) => product_work(p),
        Kernel::Mapped(tail) => {
            let (Tail { products, program, is_kept, .. }, dims) = (&**tail, tail.products.dims);
            let (flops, bytes) = product_work(products);
            let len = dims.m * dims.n;
            let (map_flops, map_bytes) = work(&Kernel::Map { program: program.clone(), len });
            // The result is not read, and maybe not written.
            let spared = (4 * len * (1 + usize::from(!is_kept))) as f64;
            (flops + map_flops, bytes + map_bytes - spared)
        }
        Kernel::Pack { k, n, .. } => each(k * n, 0.0, 2.0),
        Kernel::RmsNorm { c, rows, .. } => each(c * rows, 3.0, 2.0),
        Kernel::RmsNormBackward { c, rows } => each(c * rows, 5.0, 3.0),
        Kernel::Softmax { c, rows, .. } => each(c * rows, 5.0, 2.0),
        Kernel::SoftmaxBackward { c, rows } => each(c * rows, 4.0, 3.0),
        Kernel::TopK { k, c, rows } => each(c * rows, *k as f64, 2.0),
        Kernel::Rope { shape, .. } => each(shape.iter().product(), 3.0, 2.0),
        Kernel::Scan { shape, .. } => each(shape.iter().product(), 2.0, 3.0),
        Kernel::Embedding { c, n, .. } => each(c * n, 0.0, 2.0),
        // Rows are added to the table's gradient, which is cleared first unless earlier rounds count.
        Kernel::EmbeddingBackward { v, c, n, adds } => {
            let cleared = if *adds == Adds::Never { v * c } else { 0 };
            floats((c * n) as f64, (cleared + 3 * c * n) as f64)
        }
        Kernel::CrossEntropy { n, v } => each(n * v, 4.0, 1.0),
        Kernel::CrossEntropyBackward { n, v, halves } => each(n * v, 3.0, if *halves { 1.5 } else { 2.0 }),
        Kernel::Attention { shape, kv, mask, halves, .. } => {
            let [b, t, h, d] = *shape;
            let pairs = (b * h * d) as f64 * visible_pairs(*mask, t);
            let (q, kv) = ((b * t * h * d) as f64, (b * t * kv * d) as f64);
            let rounded = if *halves { q / 2.0 } else { 0.0 };
            floats(4.0 * pairs, 2.0 * q + 2.0 * kv + rounded)
        }
        Kernel::AttentionBackward { shape, kv, mask, halves, .. } => {
            let [b, t, h, d] = *shape;
            let pairs = (b * h * d) as f64 * visible_pairs(*mask, t);
            let (q, kv) = ((b * t * h * d) as f64, (b * t * kv * d) as f64);
            let rounded = [q, kv, kv].into_iter().zip(halves).filter(|(_, halves)| **halves);
            floats(8.0 * pairs, 4.0 * q + 4.0 * kv + rounded.map(|(len, _)| len / 2.0).sum::<f64>())
        }
        // Counted in its parts.
        Kernel::Loop(_) => (0.0, 0.0),
    }
}

/// Operations and bytes of products.
fn product_work(p: &Products) -> (f64, f64) {
    let floats = |flops: f64, floats: f64| (flops, 4.0 * floats);
    let [m, n, k] = [p.dims.m, p.dims.n, p.dims.k].map(|extent| extent as f64);
    let batch = p.batch as f64;
    let flops = if p.symmetric { (m + 1.0) * n * k } else { 2.0 * m * n * k };
    let (added, addend) = match p.addend {
        Some(row) => (m * n, (p.dims.m - 1) as f64 * row as f64 + n),
        None => (0.0, 0.0),
    };
    let stored = |len: f64, halves: bool| if halves { len / 2.0 } else { len };
    let [a, b] = [stored(m * k, p.halves[0]), stored(k * n, p.halves[1])];
    floats(batch * flops + added, batch * (a + b + m * n) + addend)
}

/// Distinct elements that a map of `len` elements reads.
fn read_len(program: &MapProgram, len: usize) -> f64 {
    program.patterns.iter().map(|pattern| distinct(pattern, len) as f64).sum()
}

/// Distinct elements behind the first `len` of a pattern.
fn distinct(pattern: &Pattern, len: usize) -> usize {
    match pattern {
        Pattern::Full => len,
        Pattern::Scalar => 1,
        Pattern::Last { n } => *n,
        Pattern::Row { n } => len / n,
        Pattern::Strided(axes) => axes.iter().filter(|axis| axis.1 != 0).map(|axis| axis.0).product(),
    }
}

/// Operations and bytes of a program over rows.
fn row_work(program: &RowProgram, rows: usize) -> (f64, f64) {
    let len = |wide: bool| if wide { rows * program.c } else { rows };
    let flops = |(out, instr): &(usize, RowInstr)| match instr {
        RowInstr::Unary(..) | RowInstr::Binary(..) => len(program.registers[*out]),
        RowInstr::Reduce(..) => len(true),
        RowInstr::RmsNorm(..) | RowInstr::Rope(..) => 3 * len(true),
        RowInstr::RmsNormBackward(..) => 5 * len(true),
    };
    let read: usize = program.inputs.iter().map(|input| distinct(&input.pattern, len(input.wide))).sum();
    let written: usize = program.outputs.iter().map(|k| len(program.registers[*k])).sum();
    let halves = program.halves.len() * len(true) / 2;
    (program.instrs.iter().map(flops).sum::<usize>() as f64, 4.0 * (read + written + halves) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::map::Axis;
    use pawl_graph::{Mask, Reduction};

    #[test]
    fn work_follows_from_shapes() {
        let program = MapProgram {
            patterns: vec![
                Pattern::Full,
                Pattern::Last { n: 8 },
                Pattern::Strided(vec![(2, 4), (3, 0), (4, 1)]),
            ],
            ..MapProgram::default()
        };
        let axis = Axis { outer: 2, n: 3, inner: 4 };
        let reduce = Kernel::MapReduce { program, kind: Reduction::Sum, axis };
        assert_eq!(work(&reduce), (24.0, 4.0 * (24.0 + 8.0 + 8.0 + 8.0)));
        let mask = Mask::Causal { window: 4 };
        let attention = Kernel::Attention { shape: [2, 4, 3, 5], kv: 1, mask, scale: 1.0, halves: false };
        assert_eq!(work(&attention), (4.0 * 30.0 * 10.0, 4.0 * (240.0 + 80.0)));
    }

    #[test]
    fn calls_of_equal_kernels_are_added_by_section() {
        let profile = Profile::new(1);
        let kernels =
            [Kernel::Clear { len: 4 }, Kernel::Clear { len: 4 }, Kernel::RmsNorm { eps: 0.0, c: 2, rows: 3 }];
        kernels.iter().for_each(|kernel| profile.add(kernel, 1.0));
        profile.enter(1);
        profile.add(&kernels[0], 5.0);
        let rows = profile.take();
        let seen: Vec<_> =
            rows.iter().map(|row| (row.section, row.group, row.calls, row.seconds, row.bytes)).collect();
        let expected = [
            (1, Group::Other, 1, 5.0, 16.0),
            (0, Group::Other, 2, 2.0, 32.0),
            (0, Group::Norms, 1, 1.0, 48.0),
        ];
        assert_eq!(seen, expected);
        assert!(profile.take().is_empty());
    }
}
