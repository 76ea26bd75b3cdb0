//! Which tile multiplies, by instruction set and precision.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::bf16::{self, Rounded};
use super::tile::{self, Portable, Tile};
#[cfg(target_arch = "x86_64")]
use crate::kernels::has_bf16;
use crate::kernels::{Isa, Precision};

/// Work that is compiled for every kind of tile.
pub(super) trait WithTile {
    type Result;
    fn run<T: Tile>(self) -> Self::Result;
}

/// Chooses the tile of an instruction set and a precision.
pub(super) fn with_tile<W: WithTile>(isa: Isa, precision: Precision, work: W) -> W::Result {
    match (isa, precision) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Precision::F32) => work.run::<tile::Avx512>(),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Precision::Bf16) if amx::is_available() => work.run::<amx::Amx<2>>(),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Precision::Bf16) if has_bf16() => work.run::<bf16::Avx512Bf16>(),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Precision::Bf16) => work.run::<Rounded<tile::Avx512>>(),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, Precision::F32) => work.run::<tile::Avx2>(),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, Precision::Bf16) => work.run::<Rounded<tile::Avx2>>(),
        #[cfg(not(target_arch = "x86_64"))]
        (Isa::Avx512 | Isa::Avx2, _) => unreachable!("asserted to be available"),
        (Isa::Portable, Precision::F32) => work.run::<Portable>(),
        (Isa::Portable, Precision::Bf16) => work.run::<Rounded<Portable>>(),
    }
}
