//! Kernels of generation: a few new positions against matrices that are read once each, and against the keys
//! and values of the past.
//!
//! What a position gets depends neither on how many are computed together nor on the number of threads, to the
//! bit. It refuses to know what a state is for.

pub mod matrices;
pub mod past;
pub mod products;

/// Asks for the cache line at an address, which need not exist, in the second-level cache.
#[inline(always)]
fn fetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it reads nothing and every such processor has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
