//! Matrices that do not change, in the order in which products read them.
//!
//! All of a program lie in one piece of memory: it gets huge pages, which a single matrix is too small for, and
//! what is fetched ahead of the end of one is the beginning of the next. It refuses to multiply.

use crate::buffer::Buffer;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Columns of a panel: two vectors of AVX-512.
pub(super) const PANEL: usize = 32;
/// Elements of which each matrix starts on a multiple: a cache line of the narrowest.
const ALIGN: usize = 64;

/// How the constant matrices of generation are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bfloat16, half the bytes.
    Bf16,
    /// Whole numbers up to 127 times one scale for each output: a quarter of the bytes.
    Int8,
}

impl Weights {
    /// Of an element.
    fn bytes(self) -> usize {
        match self {
            Weights::F32 => size_of::<f32>(),
            Weights::Bf16 => size_of::<u16>(),
            Weights::Int8 => size_of::<i8>(),
        }
    }
}

/// Matrices (K, N), each cut into panels (K, 32) of neighbouring columns, zeros beyond N.
pub struct Matrices {
    weights: Weights,
    shapes: Vec<Shape>,
    data: Buffer,
    /// Of the columns of all matrices, used by [`Weights::Int8`] alone.
    scales: Vec<f32>,
}

#[derive(Clone, Copy)]
struct Shape {
    k: usize,
    n: usize,
    /// First element.
    start: usize,
    /// First scale.
    scales: usize,
}

impl Shape {
    fn len(self) -> usize {
        self.k * self.n.next_multiple_of(PANEL)
    }
}

/// One of [`Matrices`].
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) data: Data<'a>,
}

/// Elements of one matrix, panel by panel.
#[derive(Clone, Copy)]
pub(super) enum Data<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u16]),
    /// With the scale of each column.
    Int8(&'a [i8], &'a [f32]),
}

impl Matrices {
    /// Zeros of these shapes (K, N).
    pub fn zeros(shapes: &[(usize, usize)], weights: Weights) -> Matrices {
        let (mut start, mut scales) = (0, 0);
        let place = |(k, n): &(usize, usize)| {
            assert!(*k > 0 && *n > 0, "a matrix of {k} x {n}");
            let shape = Shape { k: *k, n: *n, start, scales };
            (start, scales) = ((start + shape.len()).next_multiple_of(ALIGN), scales + n);
            shape
        };
        let shapes: Vec<Shape> = shapes.iter().map(place).collect();
        let data = Buffer::zeros((start * weights.bytes()).div_ceil(size_of::<f32>()));
        Matrices { weights, shapes, data, scales: vec![0.0; scales] }
    }

    /// Stores w (K, N), or (N, K) when `transposed`, row-major, as the matrix `idx`.
    pub fn set(&mut self, idx: usize, w: &[f32], transposed: bool) {
        let shape = self.shapes[idx];
        let Shape { k, n, .. } = shape;
        assert!(w.len() == k * n, "{} weights of {k} x {n}", w.len());
        let at = |p: usize, j: usize| if transposed { w[j * k + p] } else { w[p * n + j] };
        match self.weights {
            Weights::F32 => fill(self.part_mut(shape), shape, at),
            Weights::Bf16 => fill(self.part_mut(shape), shape, |p, j| to_bf16(at(p, j))),
            Weights::Int8 => {
                let largest = |j: usize| (0..k).fold(0.0_f32, |top, p| top.max(at(p, j).abs()));
                let scales: Vec<f32> = (0..n).map(|j| largest(j) / 127.0).collect();
                let whole = |p, j| if scales[j] > 0.0 { (at(p, j) / scales[j]).round() as i8 } else { 0 };
                fill(self.part_mut(shape), shape, whole);
                self.scales[shape.scales..][..n].copy_from_slice(&scales);
            }
        }
    }

    /// The matrix `idx`.
    pub fn get(&self, idx: usize) -> Panels<'_> {
        let shape = self.shapes[idx];
        let data = match self.weights {
            Weights::F32 => Data::F32(self.part(shape)),
            Weights::Bf16 => Data::Bf16(self.part(shape)),
            Weights::Int8 => Data::Int8(self.part(shape), &self.scales[shape.scales..][..shape.n]),
        };
        Panels { k: shape.k, n: shape.n, data }
    }

    /// Bytes that one pass over all of them reads.
    pub fn bytes(&self) -> usize {
        self.shapes.iter().map(|shape| shape.len() * self.weights.bytes()).sum()
    }

    fn part<E: Element>(&self, shape: Shape) -> &[E] {
        assert!(size_of::<E>() == self.weights.bytes(), "elements of {:?}", self.weights);
        // SAFETY: the buffer was made for the elements of all shapes, and any bits are an element.
        unsafe {
            let all = self.data.floats().as_ptr().cast::<E>();
            std::slice::from_raw_parts(all.add(shape.start), shape.len())
        }
    }

    fn part_mut<E: Element>(&mut self, shape: Shape) -> &mut [E] {
        assert!(size_of::<E>() == self.weights.bytes(), "elements of {:?}", self.weights);
        // SAFETY: as for `part`, borrowed uniquely.
        unsafe {
            let all = self.data.floats_mut().as_mut_ptr().cast::<E>();
            std::slice::from_raw_parts_mut(all.add(shape.start), shape.len())
        }
    }
}

impl Panels<'_> {
    /// K and N.
    pub fn dims(&self) -> (usize, usize) {
        (self.k, self.n)
    }
}

/// Elements (p, j) of the matrix where the panels have them; beyond N they stay zeros.
fn fill<E: Element>(to: &mut [E], shape: Shape, at: impl Fn(usize, usize) -> E) {
    for (panel, to) in to.chunks_exact_mut(shape.k * PANEL).enumerate() {
        let first = panel * PANEL;
        let width = PANEL.min(shape.n - first);
        for (p, to) in to.chunks_exact_mut(PANEL).enumerate() {
            to[..width].iter_mut().enumerate().for_each(|(lane, to)| *to = at(p, first + lane));
        }
    }
}

/// Rounds to nearest, ties to even; NaN stays NaN.
pub(super) fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// An element of a stored matrix.
pub(super) trait Element: Copy {
    fn widen(self) -> f32;

    /// Sixteen elements from `from` on. Needs AVX-512.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load(from: *const Self) -> __m512;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: the caller promises sixteen elements.
        unsafe { _mm512_loadu_ps(from) }
    }
}

impl Element for u16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn load(from: *const u16) -> __m512 {
        // SAFETY: as above.
        let half = unsafe { _mm256_loadu_si256(from.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
    }
}

impl Element for i8 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn load(from: *const i8) -> __m512 {
        // SAFETY: as above.
        let quarter = unsafe { _mm_loadu_si128(from.cast()) };
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(quarter))
    }
}
