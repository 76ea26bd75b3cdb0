//! Row kernels against their definitions.

use super::*;
use crate::kernels::testing::{check_close, choices, isas, numbers, same_bits};

/// Rows of unit numbers; worst seen 1.2e-7 of 1 + |x|.
const TOLERANCE: f32 = 4e-7;

/// Rows of a few numbers may all be small, and then a norm multiplies errors by up to 1 / sqrt(eps) = 32.
const NARROW_TOLERANCE: f32 = 6e-6;

const SHAPES: [(usize, usize); 6] = [(1, 1), (1, 40), (5, 3), (17, 16), (50, 100), (7, 3000)];

#[test]
fn rmsnorm_agrees_with_the_definition() {
    for (n, c) in SHAPES {
        check_rmsnorm(n, c, TOLERANCE);
    }
}

fn check_rmsnorm(n: usize, c: usize, tolerance: f32) {
    let (x, dy) = (numbers(n * c, 1), numbers(n * c, 2));
    let (mut y, mut rstd, mut dx) = (vec![], vec![], vec![]);
    for r in 0..n {
        let row = r * c..(r + 1) * c;
        let (x, dy) = (&x[row.clone()], &dy[row]);
        let square: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
        let s = 1.0 / (square / c as f64 + 1e-3).sqrt();
        let pull = x.iter().zip(dy).map(|(x, dy)| f64::from(*x) * f64::from(*dy)).sum::<f64>() / c as f64;
        y.extend(x.iter().map(|x| (f64::from(*x) * s) as f32));
        rstd.push(s as f32);
        dx.extend(
            x.iter().zip(dy).map(|(x, dy)| (s * (f64::from(*dy) - f64::from(*x) * s * s * pull)) as f32),
        );
    }
    let want = [y, rstd, dx].concat();
    for isa in isas() {
        let what = format!("{isa:?} {n} rows of {c}");
        let got = same_bits(&what, |pool| {
            let (mut y, mut rstd, mut dx) = (vec![9.0; n * c], vec![9.0; n], vec![9.0; n * c]);
            rmsnorm_forward(pool, isa, &mut y, &mut rstd, &x, c, 1e-3);
            rmsnorm_backward(pool, isa, &mut dx, &dy, &x, &rstd, c);
            [y, rstd, dx].concat()
        });
        check_close(&got, &want, tolerance, &what);
    }
}

#[test]
fn softmax_agrees_with_the_definition() {
    let masks =
        [Mask::Full, Mask::Causal { window: 4000 }, Mask::Causal { window: 3 }, Mask::Causal { window: 0 }];
    for (n, c) in [(1, 1), (1, 40), (10, 5), (32, 16), (100, 50), (3, 3000), (99, 33)] {
        for mask in masks {
            if mask == Mask::Full || n % c == 0 {
                check_softmax(n, c, mask);
            }
        }
    }
}

#[test]
fn rows_of_random_widths_agree_with_the_definition() {
    for seed in 0..100 {
        let mut below = choices(seed);
        let c = if below(5) == 0 { 1 + below(1500) } else { 1 + below(100) };
        let n = 1 + below(1 + 6000 / c);
        check_rmsnorm(n, c, NARROW_TOLERANCE);
        check_softmax(n, c, Mask::Full);
        let c = c.min(70);
        check_softmax(c * (1 + n % 2), c, Mask::Causal { window: below(c + 2) });
    }
}

fn check_softmax(n: usize, c: usize, mask: Mask) {
    let (x, dy) = (numbers(n * c, 1), numbers(n * c, 2));
    let (mut y, mut dx) = (vec![], vec![]);
    for r in 0..n {
        let sees = |j: usize| match mask {
            Mask::Full => true,
            Mask::Causal { window } => j <= r % c && r % c - j <= window,
        };
        let e = |j: usize| if sees(j) { f64::from(x[r * c + j] * 8.0).exp() } else { 0.0 };
        let total: f64 = (0..c).map(e).sum();
        let pull: f64 = (0..c).map(|j| e(j) / total * f64::from(dy[r * c + j])).sum();
        y.extend((0..c).map(|j| (e(j) / total) as f32));
        dx.extend((0..c).map(|j| (e(j) / total * (f64::from(dy[r * c + j]) - pull)) as f32));
    }
    let x: Vec<f32> = x.iter().map(|x| x * 8.0).collect();
    let want = [y, dx].concat();
    for isa in isas() {
        let what = format!("{isa:?} {n} rows of {c} {mask:?}");
        let got = same_bits(&what, |pool| {
            let (mut y, mut dx) = (vec![9.0; n * c], vec![9.0; n * c]);
            softmax_forward(pool, isa, &mut y, &x, c, mask);
            softmax_backward(pool, isa, &mut dx, &dy, &y, c);
            [y, dx].concat()
        });
        check_close(&got, &want, TOLERANCE, &what);
        assert!(want.iter().zip(&got).all(|(want, got)| *want != 0.0 || *got == 0.0), "{what}");
    }
}

#[test]
fn the_largest_are_marked_and_ties_go_to_the_first() {
    let x = [3.0, 1.0, 3.0, 2.0, -1.0, 5.0, 5.0, 5.0, -2.0, -2.0, -2.0, -2.0];
    let mut y = [9.0; 12];
    top_k(&Pool::new(2), &mut y, &x, 4, 2);
    assert_eq!(y, [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    top_k(&Pool::new(1), &mut y, &x, 4, 0);
    assert_eq!(y, [0.0; 12]);
    top_k(&Pool::new(1), &mut y, &[f32::NEG_INFINITY; 12], 3, 3);
    assert_eq!(y, [1.0; 12]);
}
