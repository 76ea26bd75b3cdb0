//! What this machine can do at most, measured: multiply-adds that never leave the registers, and memory read
//! and written in long streams. What kernels reach is judged against it.
//!
//! It refuses to know a kernel, and to report anything but what was seen. A machine may be shared: rates are by
//! processor time, added over threads, and every limit is the best and the median of several short windows.

use crate::buffer::Buffer;
#[cfg(target_arch = "x86_64")]
use crate::kernels::gemm::amx;
use crate::kernels::{Isa, has_bf16, lanes};
use crate::pool::{Pool, SharedMut};
use crate::profile::thread_seconds;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Windows; the best and the median of them are reported.
    pub windows: usize,
    /// Seconds of one window, about.
    pub window_seconds: f64,
}

impl Effort {
    /// Some forty milliseconds: longer than a time slice, so that a neighbour is not always there.
    pub const SHORT: Effort = Effort { windows: 10, window_seconds: 0.004 };
}

/// FLOP/s or bytes/s over the windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The highest: what the machine can do undisturbed.
    pub best: f64,
    /// The middle: what it did while it was shared.
    pub median: f64,
}

/// Float32 multiply-adds between registers on all threads of `pool`, two FLOPs each.
pub fn float32(pool: &Pool, isa: Isa, effort: Effort) -> Rate {
    assert!(isa.is_available(), "{isa:?} is not available on this machine");
    arithmetic(pool, effort, |steps| multiply_adds(isa, steps))
}

/// The same for dot products of bfloat16 added to float32, by the fastest instruction of this machine: AMX, or
/// pairs in AVX-512; `None` where it has neither.
pub fn bfloat16(pool: &Pool, effort: Effort) -> Option<Rate> {
    #[cfg(target_arch = "x86_64")]
    if amx::is_available() {
        // SAFETY: it is there.
        return Some(arithmetic(pool, effort, |steps| unsafe { amx::dot_products(steps) }));
    }
    #[cfg(target_arch = "x86_64")]
    if has_bf16() && Isa::Avx512.is_available() {
        // SAFETY: both sets are there.
        return Some(arithmetic(pool, effort, |steps| unsafe { dot_products_avx512(steps) }));
    }
    let _ = (pool, effort, has_bf16());
    None
}

/// Independent chains of vector instructions: more than latency times instructions a cycle on any machine
/// known, fewer than the registers of AVX-512.
const CHAINS: usize = 12;
/// AVX2 has sixteen registers: twelve chains and two constants.
const WIDTH_AVX512: usize = 16;
const WIDTH_AVX2: usize = 8;
/// Tasks of a window for each thread, so that threads end together.
const TASKS_PER_THREAD: usize = 4;

/// FLOP/s of `work(steps)`, which returns the FLOPs that it did.
fn arithmetic(pool: &Pool, effort: Effort, work: impl Fn(usize) -> usize + Sync) -> Rate {
    let num_tasks = TASKS_PER_THREAD * pool.num_threads();
    let window = |steps: usize| {
        seconds(pool, num_tasks, &|_| {
            black_box(work(steps));
        })
    };
    // Doubling brings the clock up and the other threads awake.
    let mut steps = 500;
    while window(steps) < effort.window_seconds / 2.0 && steps < 1 << 30 {
        steps *= 2;
    }
    let flops = work(steps) * num_tasks;
    rate(effort.windows, flops as f64, || window(steps))
}

/// Runs the tasks on all threads; the seconds they would have taken with every core to themselves.
fn seconds(pool: &Pool, num_tasks: usize, task: &(dyn Fn(usize) + Sync)) -> f64 {
    let nanoseconds = AtomicU64::new(0);
    pool.run(num_tasks, &|idx, _| {
        let start = thread_seconds();
        task(idx);
        nanoseconds.fetch_add(((thread_seconds() - start) * 1e9) as u64, Relaxed);
    });
    nanoseconds.into_inner().max(1) as f64 * 1e-9 / pool.num_threads() as f64
}

/// The best and the median of `windows` calls of `window`, which does `amount` of work and returns its seconds.
fn rate(windows: usize, amount: f64, mut window: impl FnMut() -> f64) -> Rate {
    let mut seconds: Vec<f64> = (0..windows.max(1)).map(|_| window()).collect();
    seconds.sort_by(f64::total_cmp);
    Rate { best: amount / seconds[0], median: amount / seconds[seconds.len() / 2] }
}

/// Runs `steps` rounds of multiply-adds and returns their FLOPs.
fn multiply_adds(isa: Isa, steps: usize) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: asserted to be available where the set came in.
        Isa::Avx512 => unsafe { multiply_adds_avx512(steps) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { multiply_adds_avx2(steps) },
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx512 | Isa::Avx2 => unreachable!("asserted to be available"),
        Isa::Portable => multiply_adds_portable(steps),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn multiply_adds_avx512(steps: usize) -> usize {
    use std::arch::x86_64::{_mm512_add_ps, _mm512_cvtss_f32, _mm512_fmadd_ps, _mm512_set1_ps};
    let (scale, shift) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
    let mut chains = [_mm512_set1_ps(0.0); CHAINS];
    for _ in 0..steps {
        for chain in &mut chains {
            *chain = _mm512_fmadd_ps(*chain, scale, shift);
        }
    }
    black_box(_mm512_cvtss_f32(chains.into_iter().fold(shift, |a, b| _mm512_add_ps(a, b))));
    2 * steps * CHAINS * WIDTH_AVX512
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_adds_avx2(steps: usize) -> usize {
    use std::arch::x86_64::{_mm256_add_ps, _mm256_cvtss_f32, _mm256_fmadd_ps, _mm256_set1_ps};
    let (scale, shift) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
    let mut chains = [_mm256_set1_ps(0.0); CHAINS];
    for _ in 0..steps {
        for chain in &mut chains {
            *chain = _mm256_fmadd_ps(*chain, scale, shift);
        }
    }
    black_box(_mm256_cvtss_f32(chains.into_iter().fold(shift, |a, b| _mm256_add_ps(a, b))));
    2 * steps * CHAINS * WIDTH_AVX2
}

/// A product and a sum, as the portable kernels do them.
fn multiply_adds_portable(steps: usize) -> usize {
    const LANES: usize = 48;
    let (scale, shift) = (black_box(0.999_f32), black_box(0.001_f32));
    let mut chains = [0.0_f32; LANES];
    for _ in 0..steps {
        for chain in &mut chains {
            *chain = lanes::fma::<{ cfg!(target_arch = "aarch64") }>(*chain, scale, shift);
        }
    }
    black_box(chains.iter().sum::<f32>());
    2 * steps * LANES
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn dot_products_avx512(steps: usize) -> usize {
    use std::arch::x86_64::{
        _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_cvtss_f32, _mm512_dpbf16_ps, _mm512_set1_ps,
    };
    let [a, b] = [0.5, 0.001].map(|number| _mm512_set1_ps(black_box(number)));
    let (a, b) = (_mm512_cvtne2ps_pbh(a, a), _mm512_cvtne2ps_pbh(b, b));
    let mut chains = [_mm512_set1_ps(0.0); CHAINS];
    for _ in 0..steps {
        for chain in &mut chains {
            *chain = _mm512_dpbf16_ps(*chain, a, b);
        }
    }
    black_box(_mm512_cvtss_f32(chains.into_iter().fold(_mm512_set1_ps(0.0), |a, b| _mm512_add_ps(a, b))));
    4 * steps * CHAINS * WIDTH_AVX512
}

/// How a stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stores {
    /// Through the caches: what is overwritten is read first.
    Plain,
    /// Past the caches (x86-64 alone; plain elsewhere).
    NonTemporal,
}

/// Three arrays, each far larger than a share of the last cache.
pub struct Streams {
    arrays: [Buffer; 3],
}

/// Floats of one task of a stream: 256 KiB, a multiple of every vector.
const GRAIN: usize = 1 << 16;

impl Streams {
    /// Arrays of about `bytes` each, every page touched.
    pub fn new(bytes: usize) -> Streams {
        let len = (bytes / 4).max(1).next_multiple_of(GRAIN);
        let arrays = std::array::from_fn(|k| {
            let mut array = Buffer::zeros(len);
            array.floats_mut().fill(k as f32);
            array
        });
        Streams { arrays }
    }

    fn len(&self) -> usize {
        self.arrays[0].len()
    }

    /// Bytes/s of reading alone.
    pub fn read(&self, pool: &Pool, isa: Isa, windows: usize) -> Rate {
        let per_array = self.len() / GRAIN;
        rate(windows, (3 * self.len() * 4) as f64, || {
            seconds(pool, 3 * per_array, &|task| {
                let from = task % per_array * GRAIN;
                sum(isa, &self.arrays[task / per_array].floats()[from..from + GRAIN]);
            })
        })
    }

    /// Bytes/s of a = b + 3 c, counted as two reads and a write whatever the stores do beside.
    pub fn triad(&mut self, pool: &Pool, isa: Isa, stores: Stores, windows: usize) -> Rate {
        let len = self.len();
        let [a, b, c] = &mut self.arrays;
        let a = SharedMut::new(a.floats_mut());
        rate(windows, (3 * len * 4) as f64, || {
            seconds(pool, len / GRAIN, &|task| {
                let from = task * GRAIN;
                let [b, c] = [&*b, &*c].map(|array| &array.floats()[from..from + GRAIN]);
                // SAFETY: tasks write disjoint parts.
                let a = unsafe { a.part(from, GRAIN) };
                match stores {
                    Stores::Plain => triad(isa, a, b, c),
                    Stores::NonTemporal => triad_past_caches(isa, a, b, c),
                }
            })
        })
    }
}

lanes::per_isa! {
    /// x  (N)  read
    fn sum(x: &[f32]) = sum_body
}

#[inline(always)]
fn sum_body<const FMA: bool>(x: &[f32]) {
    // Four vectors of partial sums: one would wait for itself.
    const WIDTH: usize = 4 * lanes::LANES;
    let mut sums = [0.0_f32; WIDTH];
    for x in x.as_chunks::<WIDTH>().0 {
        for lane in 0..WIDTH {
            sums[lane] += x[lane];
        }
    }
    black_box(sums);
}

lanes::per_isa! {
    /// a  =  (N)
    /// b     (N)  read
    /// c     (N)  read
    fn triad(a: &mut [f32], b: &[f32], c: &[f32]) = triad_body
}

#[inline(always)]
fn triad_body<const FMA: bool>(a: &mut [f32], b: &[f32], c: &[f32]) {
    for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
        *a = lanes::fma::<FMA>(*c, 3.0, *b);
    }
}

/// As `triad`, on slices that begin at a cache line and end at one.
fn triad_past_caches(isa: Isa, a: &mut [f32], b: &[f32], c: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Portable && isa.is_available() {
        assert!(a.len() == b.len() && a.len() == c.len() && a.len().is_multiple_of(16), "{}", a.len());
        assert!(a.as_ptr().addr().is_multiple_of(64), "streams begin at cache lines");
        // SAFETY: AVX2 and FMA are there, lengths and alignment were asserted.
        return unsafe { triad_streamed(a, b, c) };
    }
    triad(isa, a, b, c);
}

/// # Safety
/// Equal lengths, whole cache lines, `a` aligned to one.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn triad_streamed(a: &mut [f32], b: &[f32], c: &[f32]) {
    use std::arch::x86_64::{_mm_sfence, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_stream_ps};
    let three = _mm256_set1_ps(3.0);
    for i in (0..a.len()).step_by(16) {
        for half in [i, i + 8] {
            // SAFETY: in bounds and aligned by the caller's promise. The fence below orders what the stores,
            // which the memory model does not know, have written before anything that follows.
            unsafe {
                let sum = _mm256_fmadd_ps(
                    _mm256_loadu_ps(c.as_ptr().add(half)),
                    three,
                    _mm256_loadu_ps(b.as_ptr().add(half)),
                );
                _mm256_stream_ps(a.as_mut_ptr().add(half), sum);
            }
        }
    }
    _mm_sfence();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::isas;

    const BRIEF: Effort = Effort { windows: 3, window_seconds: 1e-4 };

    #[test]
    fn every_limit_is_a_number_and_the_best_is_not_below_the_median() {
        let pool = Pool::new(2);
        let mut streams = Streams::new(1);
        for isa in isas() {
            let mut rates = vec![float32(&pool, isa, BRIEF), streams.read(&pool, isa, 3)];
            rates.extend([Stores::Plain, Stores::NonTemporal].map(|s| streams.triad(&pool, isa, s, 3)));
            rates.extend(bfloat16(&pool, BRIEF));
            for rate in rates {
                assert!(rate.best.is_finite() && rate.best >= rate.median && rate.median > 0.0, "{rate:?}");
            }
        }
        assert_eq!(bfloat16(&pool, BRIEF).is_some(), has_bf16());
    }

    #[test]
    fn both_kinds_of_stores_write_the_triad() {
        for isa in isas() {
            for stores in [Stores::Plain, Stores::NonTemporal] {
                let mut streams = Streams::new(3 * GRAIN * 4);
                streams.triad(&Pool::new(2), isa, stores, 1);
                assert!(streams.arrays[0].floats().iter().all(|x| *x == 7.0), "{isa:?} {stores:?}");
            }
        }
    }
}
