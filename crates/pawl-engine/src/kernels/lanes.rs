//! One body, compiled once per instruction set.
//!
//! A kernel's body is a plain generic function over `FMA`, written so that the compiler turns its inner
//! loops into vectors. Every lane, and every tail, goes through the same operations, so the bits of an
//! element do not depend on where it lies. Sums over a row keep [`LANES`] partial sums, always in the
//! same order. The plain version has no fused multiply-add, hence other bits than the vector ones.

/// Partial results of a sum or a maximum over a row: one vector of AVX-512, two of AVX2.
pub(crate) const LANES: usize = 16;

/// a * b + c, in one rounding where the instruction set has it.
#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Sum of `a[i] * b[i]` in a fixed order.
#[inline(always)]
pub(crate) fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a_whole, a_rest) = a.as_chunks::<LANES>();
    let (b_whole, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_whole.iter().zip(b_whole) {
        for lane in 0..LANES {
            lanes[lane] = fma::<FMA>(a[lane], b[lane], lanes[lane]);
        }
    }
    for lane in 0..a_rest.len() {
        lanes[lane] = fma::<FMA>(a_rest[lane], b_rest[lane], lanes[lane]);
    }
    fold(lanes, |a, b| a + b)
}

/// The larger; `b` when either is NaN, as the vector instruction does.
#[inline(always)]
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// All lanes combined, halves first.
#[inline(always)]
pub(crate) fn fold(lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    // Every length is a constant, or the compiler works lane by lane.
    let eight: [f32; 8] = std::array::from_fn(|i| combine(lanes[i], lanes[i + 8]));
    let four: [f32; 4] = std::array::from_fn(|i| combine(eight[i], eight[i + 4]));
    let two: [f32; 2] = std::array::from_fn(|i| combine(four[i], four[i + 2]));
    combine(two[0], two[1])
}

/// Defines a function that runs `$body::<FMA>` compiled for the instruction set of its first argument.
macro_rules! per_isa {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$meta])*
        $vis fn $name(isa: $crate::kernels::Isa, $($arg: $ty),*) {
            use $crate::kernels::Isa;
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512($($arg: $ty),*) {
                $body::<true>($($arg),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) {
                $body::<true>($($arg),*);
            }
            assert!(isa.is_available(), "{isa:?} is not available on this machine");
            match isa {
                // SAFETY: asserted to be available.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: asserted to be available.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(not(target_arch = "x86_64"))]
                Isa::Avx512 | Isa::Avx2 => unreachable!("asserted to be available"),
                Isa::Portable => $body::<false>($($arg),*),
            }
        }
    };
}
pub(crate) use per_isa;
