//! Elementary functions over slices, as branch-free code that the compiler turns into vectors.
//!
//! An element's bits depend on its operands and the instruction set alone, so a slice may be cut anywhere.
//! Worst relative errors over the range of each function are beside the tests. It refuses integers.

use super::lanes::{fma, larger, per_isa};
use pawl_graph::{Binary, Unary};
use std::f32::consts::LOG2_E;

per_isa! {
    /// out = (n)   op of each element
    /// x     (n)   read
    pub fn unary(op: Unary, out: &mut [f32], x: &[f32]) = unary_body
}

per_isa! {
    /// out = (n)   a op b, element by element
    /// a, b  (n)   read
    pub fn binary(op: Binary, out: &mut [f32], a: &[f32], b: &[f32]) = binary_body
}

per_isa! {
    /// out = (n)   a op the number b
    /// a     (n)   read
    pub fn binary_right(op: Binary, out: &mut [f32], a: &[f32], b: f32) = binary_right_body
}

per_isa! {
    /// out = (n)   the number a op b
    /// b     (n)   read
    pub fn binary_left(op: Binary, out: &mut [f32], a: f32, b: &[f32]) = binary_left_body
}

#[inline(always)]
fn unary_body<const FMA: bool>(op: Unary, out: &mut [f32], x: &[f32]) {
    assert_eq!(out.len(), x.len(), "lengths of {op:?}");
    match op {
        Unary::Neg => each(out, x, |x| -x),
        Unary::Exp => each(out, x, exp::<FMA>),
        Unary::Log => each(out, x, log::<FMA>),
        Unary::Sqrt => each(out, x, f32::sqrt),
        Unary::Rsqrt => each(out, x, |x| 1.0 / x.sqrt()),
        Unary::Reciprocal => each(out, x, |x| 1.0 / x),
        Unary::Tanh => each(out, x, tanh::<FMA>),
        Unary::Sigmoid => each(out, x, sigmoid::<FMA>),
        // Not `max`: a NaN must stay one.
        Unary::Relu => each(out, x, |x| if x <= 0.0 { 0.0 } else { x }),
        Unary::Erf => each(out, x, erf::<FMA>),
        Unary::Abs => each(out, x, f32::abs),
        Unary::Sin => periodic::<FMA>(out, x, 0.0, f64::sin),
        Unary::Cos => periodic::<FMA>(out, x, 1.0, f64::cos),
        Unary::Floor => each(out, x, f32::floor),
        Unary::ToFloat => unreachable!("reads integers"),
    }
}

#[inline(always)]
fn each(out: &mut [f32], x: &[f32], f: impl Fn(f32) -> f32) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = f(*x);
    }
}

#[inline(always)]
fn binary_body<const FMA: bool>(op: Binary, out: &mut [f32], a: &[f32], b: &[f32]) {
    assert!(out.len() == a.len() && out.len() == b.len(), "lengths of {op:?}");
    choose(op, Pairs { out, a: |i| a[i], b: |i| b[i] });
}

#[inline(always)]
pub(super) fn binary_right_body<const FMA: bool>(op: Binary, out: &mut [f32], a: &[f32], b: f32) {
    assert_eq!(out.len(), a.len(), "lengths of {op:?}");
    choose(op, Pairs { out, a: |i| a[i], b: |_| b });
}

#[inline(always)]
pub(super) fn binary_left_body<const FMA: bool>(op: Binary, out: &mut [f32], a: f32, b: &[f32]) {
    assert_eq!(out.len(), b.len(), "lengths of {op:?}");
    choose(op, Pairs { out, a: |_| a, b: |i| b[i] });
}

/// Operands of a binary operation by position.
struct Pairs<'a, A, B> {
    out: &'a mut [f32],
    a: A,
    b: B,
}

impl<A: Fn(usize) -> f32, B: Fn(usize) -> f32> Pairs<'_, A, B> {
    #[inline(always)]
    fn each(self, f: impl Fn(f32, f32) -> f32) {
        for i in 0..self.out.len() {
            self.out[i] = f((self.a)(i), (self.b)(i));
        }
    }
}

#[inline(always)]
fn choose<A: Fn(usize) -> f32, B: Fn(usize) -> f32>(op: Binary, pairs: Pairs<'_, A, B>) {
    match op {
        Binary::Add => pairs.each(|a, b| a + b),
        Binary::Sub => pairs.each(|a, b| a - b),
        Binary::Mul => pairs.each(|a, b| a * b),
        Binary::Div => pairs.each(|a, b| a / b),
        // A NaN on either side stays one, so that a run that diverged is seen to.
        Binary::Max => pairs.each(|a, b| if a.is_nan() { a } else { larger(a, b) }),
        Binary::Min => pairs.each(|a, b| if a.is_nan() { a } else { -larger(-a, -b) }),
        Binary::Pow => pairs.each(pow),
        Binary::Ge => pairs.each(|a, b| f32::from(u8::from(a >= b))),
        Binary::Eq => pairs.each(|a, b| f32::from(u8::from(a == b))),
        Binary::Rem => unreachable!("integers only"),
    }
}

/// 1.5 * 2^23: adding it leaves the nearest whole number in the low bits.
const ROUND: f32 = 12_582_912.0;

/// log2(e), to turn a base of e into the base of 2 that [`exp2`] wants.
pub(crate) const TO_BASE_2: f32 = LOG2_E;

/// e^x for |x| <= ln(2) / 2 (Cephes expf).
#[inline(always)]
fn exp_near_zero<const FMA: bool>(x: f32) -> f32 {
    let mut y = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        y = fma::<FMA>(y, x, c);
    }
    fma::<FMA>(y, x * x, x) + 1.0
}

/// 2^x for -127 <= x <= 127.5, exactly 0 below and infinite above. For softmax, whose arguments are at
/// most a rounding above 0.
#[inline(always)]
pub(crate) fn exp2<const FMA: bool>(x: f32) -> f32 {
    /// With the bias of exponents, so that the low bits are those of a power of two.
    const ROUND_BIASED: f32 = ROUND + 127.0;
    let x = if x < -127.0 { -127.0 } else { x };
    let x = if x > 128.0 { 128.0 } else { x };
    let whole = x + ROUND_BIASED;
    let power = f32::from_bits(whole.to_bits() << 23);
    let x = x - (whole - ROUND_BIASED);
    // Smallest worst relative error on -0.5 .. 0.5 with a value of 1 at 0: 2e-9 before rounding.
    let mut y = 1.535_335_3e-4;
    for c in [1.339_887_5e-3, 9.618_437e-3, 5.550_332_4e-2, 2.402_264_8e-1, 6.931_472e-1, 1.0] {
        y = fma::<FMA>(y, x, c);
    }
    y * power
}

/// e^x
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let whole = fma::<FMA>(x, LOG2_E, ROUND);
    let n = whole - ROUND;
    // ln(2) in two parts, the first short enough that its multiples are exact.
    let rest = fma::<FMA>(n, 2.121_944_4e-4, fma::<FMA>(n, -0.693_359_4, x));
    // 2^n in two halves, so that neither overflows and small results lose bits only once.
    let n = (whole.to_bits() << 9) as i32 >> 9;
    let half = n >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    exp_near_zero::<FMA>(rest) * power(half) * power(n - half)
}

/// Natural logarithm (Cephes logf).
#[inline(always)]
pub(crate) fn log<const FMA: bool>(x: f32) -> f32 {
    let is_small = x < f32::MIN_POSITIVE;
    let scaled = if is_small { x * 8_388_608.0 } else { x };
    // Mantissa in sqrt(1/2) .. sqrt(2): bits are counted from those of sqrt(1/2).
    let bits = scaled.to_bits().wrapping_sub(0x3f35_04f3);
    let exponent = (bits as i32 >> 23) as f32 - if is_small { 23.0 } else { 0.0 };
    let f = f32::from_bits((bits & 0x007f_ffff).wrapping_add(0x3f35_04f3)) - 1.0;
    let mut y = 7.037_683_6e-2;
    for c in [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ] {
        y = fma::<FMA>(y, f, c);
    }
    let square = f * f;
    let y = fma::<FMA>(exponent, -2.121_944_4e-4, y * f * square);
    let y = fma::<FMA>(square, -0.5, y);
    let y = fma::<FMA>(exponent, 0.693_359_4, f + y);
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    let y = if x == f32::INFINITY { x } else { y };
    if x >= 0.0 { y } else { f32::NAN }
}

/// Hyperbolic tangent (Cephes tanhf).
#[inline(always)]
fn tanh<const FMA: bool>(x: f32) -> f32 {
    let size = x.abs();
    let square = x * x;
    let mut y = -5.704_988_7e-3;
    for c in [2.063_908_8e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        y = fma::<FMA>(y, square, c);
    }
    let near = fma::<FMA>(y * square, x, x);
    let far = 1.0 - 2.0 / (exp::<FMA>(2.0 * size) + 1.0);
    if size < 0.625 { near } else { far.copysign(x) }
}

/// 1 / (1 + e^-x), by the exponential that does not overflow.
#[inline(always)]
fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    let e = exp::<FMA>(-x.abs());
    let numerator = if x < 0.0 { e } else { 1.0 };
    numerator / (1.0 + e)
}

/// Gauss error function: x + x P(x^2) near 0, 1 - exp(-|x| Q(|x|)) farther out; both polynomials fitted
/// to errors of 4e-10 and 7e-10 in exact arithmetic.
#[inline(always)]
fn erf<const FMA: bool>(x: f32) -> f32 {
    let size = x.abs();
    let square = x * x;
    let mut y = 8.370_1e-5;
    for c in [-8.142_704e-4, 5.201_032_3e-3, -2.685_939_8e-2, 1.128_369_6e-1, -3.761_263_4e-1, 1.283_791_7e-1]
    {
        y = fma::<FMA>(y, square, c);
    }
    let near = fma::<FMA>(y, x, x);
    // From 4 on the result rounds to 1.
    let t = if size > 4.0 { 4.0 } else { size };
    let mut y = 1.130_364_7e-5;
    for c in [-3.235_276e-4, 3.645_400_5e-3, -2.376_828_1e-2, 1.062_440_93e-1, 6.351_47e-1, 1.286_495_6e-1] {
        y = fma::<FMA>(y, t, c);
    }
    let far = 1.0 - exp::<FMA>(-fma::<FMA>(y, t, t));
    if size < 0.921_875 { near } else { far.copysign(x) }
}

/// Beyond this a quarter turn is subtracted too inexactly, and each element takes the slow way.
const MAX_ANGLE: f32 = 1e6;

/// sin(x + turns * pi / 2), in float64: `exact` is the same function of any argument.
#[inline(always)]
fn periodic<const FMA: bool>(out: &mut [f32], x: &[f32], turns: f64, exact: impl Fn(f64) -> f64) {
    each(out, x, |x| sin_turned(f64::from(x), turns));
    for (out, x) in out.iter_mut().zip(x) {
        if x.abs() > MAX_ANGLE {
            *out = exact(f64::from(*x)) as f32;
        }
    }
}

/// sin(x + turns * pi / 2) (polynomials of FreeBSD's k_sinf and k_cosf).
#[inline(always)]
fn sin_turned(x: f64, turns: f64) -> f32 {
    // 1.5 * 2^52 rounds to a whole number of quarter turns; pi / 2 is in two parts.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let whole = x * std::f64::consts::FRAC_2_PI + ROUND;
    let n = whole - ROUND;
    let rest = (x - n * 1.570_796_326_734_125_6) - n * 6.077_100_506_506_192e-11;
    let square = rest * rest;
    let sin = rest
        + rest
            * square
            * (-0.166_666_666_416_265_24
                + square
                    * (8.333_329_385_889_463e-3
                        + square * (-1.983_933_483_609_663_2e-4 + square * 2.718_311_493_989_822e-6)));
    let cos = 1.0
        + square
            * (-0.499_999_997_251_031
                + square
                    * (4.166_662_332_373_906e-2
                        + square * (-1.388_676_377_460_993e-3 + square * 2.439_044_879_627_741_4e-5)));
    let quarter = (n + turns + ROUND).to_bits();
    let value = if quarter & 1 == 0 { sin } else { cos };
    let value = if quarter & 2 == 0 { value } else { -value };
    value as f32
}

/// a to the power b for a >= 0, in float64; NaN for a < 0.
#[inline(always)]
fn pow(a: f32, b: f32) -> f32 {
    let (x, y) = (f64::from(a), f64::from(b));
    // a = 2^exponent * m with m in sqrt(1/2) .. sqrt(2); log(m) by the series of the inverse tanh.
    let bits = x.to_bits().wrapping_sub(0x3fe6_a09e_667f_3bcd);
    let exponent = f64::from((bits >> 32) as i32 >> 20);
    let m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff).wrapping_add(0x3fe6_a09e_667f_3bcd));
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let mut series = 1.0 / 15.0;
    for c in [1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0] {
        series = series * square + c;
    }
    let log2 = exponent + 2.0 * std::f64::consts::LOG2_E * s * series;
    let log2 = if a == 0.0 { f64::NEG_INFINITY } else { log2 };
    let log2 = if a == f32::INFINITY { f64::INFINITY } else { log2 };
    let log2 = if a >= 0.0 { log2 } else { f64::NAN };
    // Powers of 0 and powers that are 0 would be 0 * infinity.
    let t = if b == 0.0 || a == 1.0 { 0.0 } else { y * log2 };
    let t = if t < -1000.0 { -1000.0 } else { t };
    let t = if t > 1000.0 { 1000.0 } else { t };
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let whole = t + ROUND;
    let rest = (t - (whole - ROUND)) * std::f64::consts::LN_2;
    let mut e = 1.0 / 40320.0;
    for c in [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        e = e * rest + c;
    }
    (e * f64::from_bits(whole.to_bits().wrapping_add(1023) << 52)) as f32
}

#[cfg(test)]
mod tests;
