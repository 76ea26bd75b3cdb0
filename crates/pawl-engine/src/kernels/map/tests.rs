//! Fused programs against their definition: every pattern, every axis.

use super::*;
use crate::kernels::gemm::bf16;
use crate::kernels::testing::{check_close, choices, isas, numbers, same_bits};

/// Sums of up to 5,000 unit numbers; worst seen 2.3e-7 of 1 + |x|.
const TOLERANCE: f32 = 1e-6;

/// Sums of random length: one in thousands of them cancels, so that its error is that of its parts, which are of
/// about the root of their number.
const RANDOM_TOLERANCE: f32 = 8e-6;

/// (x + y) * 0.5 and its relu, where y is broadcast by `pattern`.
fn program(pattern: Pattern) -> MapProgram {
    MapProgram {
        instrs: vec![
            MapInstr::Binary(Binary::Add, Operand::Input(0), Operand::Input(1)),
            MapInstr::Binary(Binary::Mul, Operand::Temp(0), Operand::Const(0.5)),
            MapInstr::Unary(Unary::Relu, Operand::Temp(1)),
        ],
        patterns: vec![Pattern::Full, pattern],
        outputs: vec![Operand::Temp(1), Operand::Temp(2)],
        halves: Vec::new(),
    }
}

/// Element of the data that a pattern puts at `i`: the definition.
fn index(pattern: &Pattern, i: usize) -> usize {
    match pattern {
        Pattern::Full => i,
        Pattern::Scalar => 0,
        Pattern::Last { n } => i % n,
        Pattern::Row { n } => i / n,
        Pattern::Strided(axes) => {
            let (mut rest, mut at) = (i, 0);
            for (extent, stride) in axes.iter().rev() {
                at += rest % extent * stride;
                rest /= extent;
            }
            at
        }
    }
}

#[test]
fn halves_are_what_is_stored_rounded() {
    for (len, isa) in [1, 2, 511, 512, 1025, 30_000]
        .into_iter()
        .flat_map(|len| isas().into_iter().map(move |isa| (len, isa)))
    {
        let (x, y) = (numbers(len, 1), numbers(len, 2));
        let halves = vec![Operand::Temp(2), Operand::Const(0.3), Operand::Input(0)];
        let program = MapProgram { outputs: vec![Operand::Temp(2)], halves, ..program(Pattern::Full) };
        let got = same_bits(&format!("{isa:?} {len}"), |pool| {
            let mut out = vec![f32::NAN; len];
            let mut halves = vec![vec![0.0_f32; len.div_ceil(2)]; 3];
            let mut scratch = vec![0.0; pool.num_threads() * program.scratch_len()];
            let mut to = vec![out.as_mut_ptr()];
            to.extend(halves.iter_mut().map(Vec::as_mut_ptr));
            let scratch = scratch.as_mut_ptr();
            // SAFETY: the operands were made to measure.
            unsafe { map(pool, isa, scratch, &to, &[x.as_ptr(), y.as_ptr()], &program, len) };
            // As numbers: bits of halves may look like NaN.
            let halves = halves.concat().into_iter().flat_map(|x| [x.to_bits() << 16, x.to_bits() & !0xffff]);
            out.into_iter().chain(halves.map(f32::from_bits)).collect()
        });
        let padded = len.next_multiple_of(2);
        let want = [got[..len].to_vec(), vec![0.3; len], x.clone()];
        for (want, got) in want.iter().zip(got[len..].chunks(padded)) {
            let want: Vec<f32> = want.iter().map(|x| bf16::round(*x)).collect();
            assert_eq!(got[..len], want, "{isa:?} {len}");
        }
    }
}

#[test]
fn every_pattern_puts_its_elements_in_place() {
    let patterns = [
        (30_000, Pattern::Full),
        (1, Pattern::Scalar),
        (1000, Pattern::Scalar),
        (3 * 700, Pattern::Last { n: 700 }),
        (256 * 100, Pattern::Last { n: 256 }),
        (7 * 11, Pattern::Last { n: 7 }),
        (256 * 100, Pattern::Row { n: 256 }),
        (700 * 40, Pattern::Row { n: 700 }),
        (5000, Pattern::Row { n: 1 }),
        (20 * 30 * 40, Pattern::Strided(vec![(20, 1), (30, 0), (40, 20)])),
        (20 * 30 * 40, Pattern::Strided(vec![(20, 0), (30, 40), (40, 1)])),
        (9 * 8 * 7 * 6, Pattern::Strided(vec![(9, 1), (8, 9), (7, 0), (6, 0)])),
    ];
    for (len, pattern) in patterns {
        check_pattern(len, pattern);
    }
}

#[test]
fn patterns_of_random_extents_put_their_elements_in_place() {
    for seed in 0..300 {
        let mut below = choices(seed);
        let mut extents: Vec<usize> = (0..1 + below(4)).map(|_| 1 + below(70)).collect();
        while extents.iter().product::<usize>() > 20_000 {
            extents.iter_mut().for_each(|n| *n = n.div_ceil(2));
        }
        let len: usize = extents.iter().product();
        let pattern = match below(4) {
            0 => Pattern::Last { n: extents[extents.len() - 1] },
            1 => Pattern::Row { n: extents[extents.len() - 1] },
            _ => {
                // Any order of the axes, some of them broadcast.
                let mut order: Vec<usize> = (0..extents.len()).collect();
                (1..order.len()).for_each(|k| order.swap(k, below(k + 1)));
                let mut axes: Vec<(usize, usize)> = extents.iter().map(|n| (*n, 0)).collect();
                let mut stride = 1;
                for axis in order {
                    if below(3) > 0 {
                        axes[axis].1 = stride;
                        stride *= extents[axis];
                    }
                }
                Pattern::Strided(axes)
            }
        };
        check_pattern(len, pattern);
    }
}

fn check_pattern(len: usize, pattern: Pattern) {
    let reach = 1 + (0..len).map(|i| index(&pattern, i)).max().unwrap_or(0);
    let (x, y) = (numbers(len, 1), numbers(reach, 2));
    let sum = |i: usize| (x[i] + y[index(&pattern, i)]) * 0.5;
    let want: Vec<f32> = (0..len).map(sum).chain((0..len).map(|i| sum(i).max(0.0))).collect();
    let program = program(pattern.clone());
    for isa in isas() {
        let got = same_bits("map", |pool| {
            let (mut half, mut relu) = (vec![9.0; len], vec![9.0; len]);
            let mut scratch = vec![f32::NAN; pool.num_threads() * program.scratch_len()];
            let (outputs, inputs) = ([half.as_mut_ptr(), relu.as_mut_ptr()], [x.as_ptr(), y.as_ptr()]);
            // SAFETY: every buffer has the length that the program needs.
            unsafe { super::map(pool, isa, scratch.as_mut_ptr(), &outputs, &inputs, &program, len) };
            [half, relu].concat()
        });
        assert!(got == want, "{isa:?} {len} of {pattern:?}");
    }
}

#[test]
fn one_axis_is_reduced_whatever_surrounds_it() {
    let axes = [
        (1, 1, 1),
        (1, 5000, 1),
        (40, 7, 1),
        (3, 700, 1),
        (1, 900, 70),
        (1, 3, 2000),
        (6, 5, 4),
        (2, 40, 600),
    ];
    for (outer, n, inner) in axes {
        check_reduce(outer, n, inner, TOLERANCE);
    }
}

#[test]
fn one_axis_of_random_extent_is_reduced() {
    for seed in 0..150 {
        let mut below = choices(seed);
        let inner = if below(2) == 0 { 1 } else { 1 + below(60) };
        let n = 1 + below(6000 / inner);
        check_reduce(1 + below(20), n, inner, RANDOM_TOLERANCE);
    }
}

fn check_reduce(outer: usize, n: usize, inner: usize, tolerance: f32) {
    let len = outer * n * inner;
    let (x, y) = (numbers(len, 1), numbers(inner, 2));
    let mut program = program(Pattern::Last { n: inner });
    program.outputs.truncate(1);
    for kind in [Reduction::Sum, Reduction::Max] {
        let value = |o: usize, a: usize, i: usize| f64::from((x[(o * n + a) * inner + i] + y[i]) * 0.5);
        let place = (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i)));
        let want: Vec<f32> = place
            .map(|(o, i)| {
                let line = (0..n).map(|a| value(o, a, i));
                (match kind {
                    Reduction::Sum => line.sum::<f64>(),
                    Reduction::Max => line.fold(f64::NEG_INFINITY, f64::max),
                }) as f32
            })
            .collect();
        let axis = Axis { outer, n, inner };
        for isa in isas() {
            let what = format!("{isa:?} {kind:?} {axis:?}");
            let got = same_bits(&what, |pool| {
                let mut out = vec![9.0; outer * inner];
                let num_scratch = map_reduce_scratch_len(pool.num_threads(), &program, axis);
                let mut scratch = vec![f32::NAN; num_scratch];
                let inputs = [x.as_ptr(), y.as_ptr()];
                let (scratch, target) = (scratch.as_mut_ptr(), out.as_mut_ptr());
                // SAFETY: every buffer has the length that the program needs.
                unsafe { map_reduce(pool, isa, scratch, target, &inputs, &program, kind, axis) };
                out
            });
            check_close(&got, &want, tolerance, &what);
        }
    }
}
