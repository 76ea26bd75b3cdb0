//! The CPU kernels: plain functions on slices that know shapes and nothing of graphs or plans.
//!
//! Three rules hold for all of them. Work is cut by shapes alone, so bits do not depend on the number of
//! threads. Every element goes through the same sequence of operations wherever a cut falls, so a tail
//! has no code of its own. Scratch comes from the caller: nothing here allocates.

pub mod attention;
pub mod cross_entropy;
pub mod decode;
pub mod dropout;
pub mod embedding;
pub mod gemm;
pub(crate) mod lanes;
pub mod map;
pub mod math;
pub mod row_program;
pub mod rows;
pub mod sequence;

/// Number format of the operands of products; sums are float32 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32-bit floating point throughout.
    #[default]
    F32,
    /// Operands of products rounded to bfloat16 (8 bits of mantissa), everything else 32-bit.
    Bf16,
}

/// Whether this machine multiplies bfloat16 in hardware (AVX-512-BF16, without which AMX is not used either).
pub fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    let has = false;
    has
}

/// Instruction sets the kernels are compiled for; chosen once, at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// x86-64 with AVX-512 F, BW, DQ and VL, and FMA.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// Whatever the target always has.
    Portable,
}

impl Isa {
    /// The best set of this machine.
    pub fn detect() -> Isa {
        [Isa::Avx512, Isa::Avx2].into_iter().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
    }

    /// Whether this machine has it. Every kernel asserts this before it uses one.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        let (avx512, avx2) = (
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("fma"),
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        );
        #[cfg(not(target_arch = "x86_64"))]
        let (avx512, avx2) = (false, false);
        match self {
            Isa::Avx512 => avx512,
            Isa::Avx2 => avx2,
            Isa::Portable => true,
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
