//! Elementary functions against float64, with the worst error of each.

use super::*;
use crate::kernels::Isa;
use crate::kernels::testing::{isas, numbers};

/// Relative error allowed, with the worst seen over the arguments below and all instruction sets beside.
const BOUNDS: [(Unary, f64); 7] = [
    (Unary::Exp, 2e-7),     // 8.6e-8
    (Unary::Log, 2e-7),     // 7.5e-8
    (Unary::Tanh, 2e-7),    // 1.2e-7
    (Unary::Sigmoid, 3e-7), // 1.6e-7
    (Unary::Erf, 2e-7),     // 6.6e-8
    (Unary::Sin, 1e-7),     // 6.0e-8
    (Unary::Cos, 1e-7),     // 6.0e-8
];
const POW_BOUND: f64 = 1e-7; // 6.0e-8
/// Of 2^x between -126 and 0.
const EXP2_BOUND: f64 = 2e-7; // 1.0e-7

/// Numbers of every size and sign, and neighbours of the places where code changes.
fn arguments() -> Vec<f32> {
    let mut x: Vec<f32> = (0..60_000).map(|i| (i as f32 - 30_000.0) * 0.003_7).collect();
    x.extend((0..4000).map(|i| ((i as f32 - 2000.0) * 0.02).exp2()));
    x.extend((0..4000).map(|i| -((i as f32 - 2000.0) * 0.02).exp2()));
    for edge in [0.625_f32, 0.921_875, 4.0, 0.707_106_77, 1.0, 88.7, 1e6] {
        for sign in [1.0, -1.0] {
            x.extend((-20..20).map(|i| sign * f32::from_bits((edge.to_bits() as i32 + i) as u32)));
        }
    }
    x
}

fn exact(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Erf => erf_exact(x),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Neg
        | Unary::Sqrt
        | Unary::Rsqrt
        | Unary::Reciprocal
        | Unary::Relu
        | Unary::Abs
        | Unary::Floor
        | Unary::ToFloat => panic!("{op:?} is exact by itself"),
    }
}

/// Taylor series near 0, continued fraction of the complement beyond.
fn erf_exact(x: f64) -> f64 {
    let z = x.abs();
    if z < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let fraction = (1..80).rev().fold(0.0, |fraction, n| f64::from(n) / 2.0 / (z + fraction));
    (1.0 - (-z * z).exp() / (z + fraction) / std::f64::consts::PI.sqrt()).copysign(x)
}

/// Relative error where results are normal numbers, in units of the smallest normal number below.
fn error(got: f32, want: f64) -> f64 {
    if f64::from(got) == want || (got.is_nan() && want.is_nan()) {
        return 0.0;
    }
    if (want as f32).is_infinite() {
        return if got == want as f32 { 0.0 } else { f64::INFINITY };
    }
    (f64::from(got) - want).abs() / want.abs().max(f64::from(f32::MIN_POSITIVE))
}

#[test]
fn functions_are_within_their_bounds() {
    let x = arguments();
    let mut y = vec![0.0; x.len()];
    for isa in isas() {
        for (op, bound) in BOUNDS {
            unary(isa, op, &mut y, &x);
            let errors = x.iter().zip(&y).map(|(x, y)| (error(*y, exact(op, f64::from(*x))), *x));
            let (worst, at) = errors.fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
            assert!(worst <= bound, "{isa:?} {op:?} is off by {worst:e} at {at:e}");
        }
    }
}

#[test]
fn powers_are_within_their_bound() {
    let a: Vec<f32> = arguments().into_iter().map(f32::abs).collect();
    let b: Vec<f32> = numbers(a.len(), 5).into_iter().map(|x| x * 30.0).collect();
    let mut y = vec![0.0; a.len()];
    for isa in isas() {
        binary(isa, Binary::Pow, &mut y, &a, &b);
        for i in 0..a.len() {
            let worst = error(y[i], f64::from(a[i]).powf(f64::from(b[i])));
            assert!(worst <= POW_BOUND, "{isa:?} {:e}^{} is off by {worst:e}", a[i], b[i]);
        }
    }
}

#[test]
fn powers_of_two_are_within_their_bound() {
    for i in 0..126_000 {
        let x = -i as f32 * 0.001;
        for got in [exp2::<true>(x), exp2::<false>(x)] {
            let worst = error(got, f64::from(x).exp2());
            assert!(worst <= EXP2_BOUND, "2^{x} is off by {worst:e}");
        }
    }
    assert_eq!([exp2::<true>(-200.0), exp2::<true>(f32::NEG_INFINITY)], [0.0, 0.0]);
    assert!(exp2::<true>(f32::NAN).is_nan() && exp2::<true>(400.0).is_infinite());
}

#[test]
fn infinities_and_nans_go_where_they_belong() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let x = [0.0, -0.0, inf, -inf, nan, -1.0];
    let cases = [
        (Unary::Exp, [1.0, 1.0, inf, 0.0, nan, 0.367_879_45]),
        (Unary::Log, [-inf, -inf, inf, nan, nan, nan]),
        (Unary::Sqrt, [0.0, -0.0, inf, nan, nan, nan]),
        (Unary::Rsqrt, [inf, -inf, 0.0, nan, nan, nan]),
        (Unary::Reciprocal, [inf, -inf, 0.0, -0.0, nan, -1.0]),
        (Unary::Tanh, [0.0, -0.0, 1.0, -1.0, nan, -0.761_594_2]),
        (Unary::Sigmoid, [0.5, 0.5, 1.0, 0.0, nan, 0.268_941_43]),
        (Unary::Relu, [0.0, 0.0, inf, 0.0, nan, 0.0]),
        (Unary::Erf, [0.0, -0.0, 1.0, -1.0, nan, -0.842_700_8]),
        (Unary::Abs, [0.0, 0.0, inf, inf, nan, 1.0]),
        (Unary::Neg, [-0.0, 0.0, -inf, inf, nan, 1.0]),
        (Unary::Sin, [0.0, -0.0, nan, nan, nan, -0.841_471]),
        (Unary::Cos, [1.0, 1.0, nan, nan, nan, 0.540_302_3]),
        (Unary::Floor, [0.0, -0.0, inf, -inf, nan, -1.0]),
    ];
    for isa in isas() {
        for (op, want) in cases {
            let mut got = [9.0; 6];
            unary(isa, op, &mut got, &x);
            for i in 0..x.len() {
                let same = got[i] == want[i] || (got[i].is_nan() && want[i].is_nan());
                let close = (got[i] - want[i]).abs() <= 2e-7;
                assert!(same || close, "{isa:?} {op:?} of {} is {}, not {}", x[i], got[i], want[i]);
            }
        }
        let pow = |a: f32, b: f32| {
            let mut y = [9.0];
            binary(isa, Binary::Pow, &mut y, &[a], &[b]);
            y[0]
        };
        assert_eq!([pow(0.0, 2.0), pow(0.0, 0.0), pow(0.0, -1.0), pow(inf, 0.5)], [0.0, 1.0, inf, inf]);
        assert_eq!([pow(1.0, inf), pow(3.0, 2.0), pow(inf, -1.0), pow(0.5, inf)], [1.0, 9.0, 0.0, 0.0]);
        assert!(pow(-2.0, 0.5).is_nan() && pow(nan, 1.0).is_nan() && pow(2.0, nan).is_nan());
    }
}

#[test]
fn arithmetic_of_pairs_and_numbers() {
    let (a, b) = ([1.0, 2.0, -3.0, f32::NAN, 5.0], [4.0, 2.0, -5.0, 1.0, f32::NAN]);
    let cases = [
        (Binary::Add, [5.0, 4.0, -8.0]),
        (Binary::Sub, [-3.0, 0.0, 2.0]),
        (Binary::Mul, [4.0, 4.0, 15.0]),
        (Binary::Div, [0.25, 1.0, 0.6]),
        (Binary::Max, [4.0, 2.0, -3.0]),
        (Binary::Min, [1.0, 2.0, -5.0]),
    ];
    for isa in isas() {
        for (op, want) in cases {
            let mut y = [9.0; 5];
            binary(isa, op, &mut y, &a, &b);
            assert_eq!(y[..3], want, "{isa:?} {op:?}");
            assert!(y[3].is_nan() && y[4].is_nan(), "{isa:?} {op:?} {y:?}");
        }
        let mut y = [9.0; 5];
        binary(isa, Binary::Ge, &mut y, &a, &b);
        assert_eq!(y, [0.0, 1.0, 1.0, 0.0, 0.0]);
        binary(isa, Binary::Eq, &mut y, &a, &b);
        assert_eq!(y, [0.0, 1.0, 0.0, 0.0, 0.0]);
        let mut y = [9.0; 3];
        binary_right(isa, Binary::Sub, &mut y, &a[..3], 2.0);
        assert_eq!(y, [-1.0, 0.0, -5.0]);
        binary_left(isa, Binary::Sub, &mut y, 2.0, &a[..3]);
        assert_eq!(y, [1.0, 0.0, 5.0]);
    }
}

#[test]
fn cutting_a_slice_keeps_its_bits() {
    let x: Vec<f32> = numbers(100, 1).into_iter().map(|x| x * 20.0).collect();
    for isa in [Isa::detect(), Isa::Portable] {
        for (op, _) in BOUNDS {
            let (mut whole, mut cut) = (vec![0.0; 100], vec![0.0; 100]);
            unary(isa, op, &mut whole, &x);
            for (y, x) in cut.chunks_mut(7).zip(x.chunks(7)) {
                unary(isa, op, y, x);
            }
            let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&whole), bits(&cut), "{op:?}");
        }
    }
}
