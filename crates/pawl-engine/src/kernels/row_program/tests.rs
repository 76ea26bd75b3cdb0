//! Programs over rows against their definition, and sums against those of a reduction alone.

use super::*;
use crate::kernels::gemm::bf16;
use crate::kernels::map::{Axis, MapProgram, Operand, map_reduce, map_reduce_scratch_len};
use crate::kernels::sequence::{rope, rope_table};
use crate::kernels::testing::{check_close, choices, isas, numbers};

/// Worst seen 3e-7 of 1 + |x|.
const TOLERANCE: f32 = 2e-6;

/// Row widths around those of vectors, tiles and registers.
const SHAPES: [(usize, usize); 9] =
    [(1, 2), (5, 7), (3, 16), (40, 17), (1, 96), (300, 96), (9, 512), (7, 513), (3, 4096)];

fn run(isa: Isa, threads: usize, program: &RowProgram, rows: usize, inputs: &[&[f32]]) -> Vec<Vec<f32>> {
    run_with(isa, threads, program, rows, inputs, &[])
}

fn run_with(
    isa: Isa,
    threads: usize,
    program: &RowProgram,
    rows: usize,
    inputs: &[&[f32]],
    tables: &[RopeTable],
) -> Vec<Vec<f32>> {
    let pool = Pool::new(threads);
    let mut outputs: Vec<Vec<f32>> =
        program.outputs.iter().map(|k| vec![f32::NAN; rows * program.width(program.registers[*k])]).collect();
    outputs.extend(program.halves.iter().map(|_| vec![f32::NAN; rows * program.c / 2]));
    let targets: Vec<*mut f32> = outputs.iter_mut().map(Vec::as_mut_ptr).collect();
    let sources: Vec<*const f32> = inputs.iter().map(|x| x.as_ptr()).collect();
    let mut scratch = vec![f32::NAN; threads * program.scratch_len()];
    // SAFETY: the operands were made to measure.
    unsafe {
        row_program(&pool, isa, scratch.as_mut_ptr(), &targets, &sources, program, rows, tables);
    }
    outputs
}

#[test]
fn halves_are_what_is_stored_rounded() {
    for (isa, (rows, c)) in isas().into_iter().flat_map(|isa| SHAPES.map(|shape| (isa, shape))) {
        if c % 2 == 1 {
            continue;
        }
        let x = numbers(rows * c, 9);
        let program = RowProgram {
            c,
            instrs: vec![
                (0, RowInstr::RmsNorm(0.1, RowOperand::Input(0))),
                (2, RowInstr::Binary(Binary::Mul, RowOperand::Register(0), RowOperand::Const(1.5))),
            ],
            registers: vec![true, false, true],
            inputs: vec![full(true)],
            outputs: vec![2],
            halves: vec![0, 2],
        };
        let plain = RowProgram { outputs: vec![0, 2], halves: Vec::new(), ..program.clone() };
        let want = run(isa, 1, &plain, rows, &[&x]);
        for threads in 1..=3 {
            let got = run(isa, threads, &program, rows, &[&x]);
            assert!(got[0] == want[1], "{isa:?} {rows} x {c}");
            assert!(halves(&got[1]) == rounded(&want[0]), "{isa:?} {rows} x {c}");
            assert!(halves(&got[2]) == rounded(&want[1]), "{isa:?} {rows} x {c}");
        }
    }
}

#[test]
fn rotations_have_the_bits_of_their_kernel() {
    let (b, t, h) = (2, 37, 3);
    for (isa, d) in isas().into_iter().flat_map(|isa| [2, 6, 64, 96].map(|d| (isa, d))) {
        let x = numbers(b * t * h * d, 3);
        let (mut cos, mut sin) = (vec![0.0; t * d / 2], vec![0.0; t * d / 2]);
        rope_table(&mut cos, &mut sin, t, d, 100.0);
        for inverse in [false, true] {
            let mut want = vec![0.0; x.len()];
            rope(&Pool::new(1), isa, &mut want, &x, &cos, &sin, [b, t, h, d], inverse);
            let turned = RowRope { table: 0, heads: h, inverse };
            let program = RowProgram {
                c: d,
                instrs: vec![(0, RowInstr::Rope(turned, RowOperand::Input(0)))],
                registers: vec![true],
                inputs: vec![full(true)],
                outputs: vec![0],
                halves: Vec::new(),
            };
            let table = RopeTable { t, d, base: 100.0, cos: cos.clone(), sin: sin.clone() };
            let got = run_with(isa, 3, &program, b * t * h, &[&x], &[table]);
            assert!(bits(&got[0]) == bits(&want), "{isa:?} {d} {inverse}");
        }
    }
}

fn halves(slots: &[f32]) -> Vec<u32> {
    slots.iter().flat_map(|x| [x.to_bits() & 0xffff, x.to_bits() >> 16]).collect()
}

fn rounded(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| bf16::round(*x).to_bits() >> 16).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn full(wide: bool) -> RowInput {
    RowInput { pattern: Pattern::Full, wide }
}

#[test]
fn sums_and_peaks_have_the_bits_of_a_reduction() {
    for isa in isas() {
        for (rows, c) in SHAPES {
            for kind in [Reduction::Sum, Reduction::Max] {
                let x = numbers(rows * c, 3);
                let program = RowProgram {
                    c,
                    instrs: vec![(0, RowInstr::Reduce(kind, RowOperand::Input(0)))],
                    registers: vec![false],
                    inputs: vec![full(true)],
                    outputs: vec![0],
                    halves: Vec::new(),
                };
                let got = run(isa, 2, &program, rows, &[&x]);
                let map = MapProgram {
                    instrs: Vec::new(),
                    patterns: vec![Pattern::Full],
                    outputs: vec![Operand::Input(0)],
                    halves: Vec::new(),
                };
                let axis = Axis { outer: rows, n: c, inner: 1 };
                let (pool, mut want) = (Pool::new(1), vec![0.0; rows]);
                let mut scratch = vec![0.0; map_reduce_scratch_len(1, &map, axis)];
                let (to, scratch) = (want.as_mut_ptr(), scratch.as_mut_ptr());
                // SAFETY: the operands were made to measure.
                unsafe { map_reduce(&pool, isa, scratch, to, &[x.as_ptr()], &map, kind, axis) };
                assert!(bits(&got[0]) == bits(&want), "{isa:?} {kind:?} {rows} x {c}");
            }
        }
    }
}

/// y = x / sum(x) * scale + table - gate, and norm(y) with its gradient; `table` repeats after `period` rows.
fn program(c: usize, period: usize, gate_rows: usize) -> RowProgram {
    use RowOperand::{Const, Input, Register};
    RowProgram {
        c,
        instrs: vec![
            (0, RowInstr::Reduce(Reduction::Sum, Input(0))),
            (1, RowInstr::Binary(Binary::Div, Input(0), Register(0))),
            (2, RowInstr::Binary(Binary::Mul, Register(1), Input(1))),
            (3, RowInstr::Binary(Binary::Add, Register(2), Input(2))),
            (4, RowInstr::Binary(Binary::Sub, Register(3), Input(3))),
            (5, RowInstr::RmsNorm(0.1, Register(4))),
            (7, RowInstr::RmsNormBackward(Input(0), Register(4), Register(6))),
            (8, RowInstr::Binary(Binary::Sub, Register(0), Const(1.0))),
            (9, RowInstr::Binary(Binary::Mul, Register(8), Const(2.0))),
            (10, RowInstr::Unary(Unary::Neg, Register(9))),
        ],
        registers: vec![false, true, true, true, true, true, false, true, false, true, true],
        inputs: vec![
            full(true),
            RowInput { pattern: Pattern::Last { n: c }, wide: true },
            RowInput { pattern: Pattern::Last { n: period * c }, wide: true },
            RowInput { pattern: Pattern::Row { n: gate_rows * c }, wide: true },
        ],
        outputs: vec![5, 6, 7, 10],
        halves: Vec::new(),
    }
}

#[test]
fn a_program_follows_its_definition_for_any_number_of_threads() {
    // A gate for each row, and one for each two.
    for ((rows, c), gate_rows) in SHAPES.iter().flat_map(|shape| [(*shape, 1), (*shape, 2)]) {
        check_program(rows, c, gate_rows);
    }
}

#[test]
fn programs_of_random_widths_follow_their_definition() {
    for seed in 0..150 {
        let mut below = choices(seed);
        let c = if below(5) == 0 { 2 + below(2000) } else { 2 + below(140) };
        check_program(1 + below(1 + 9000 / c), c, 1 + below(2));
    }
}

fn check_program(rows: usize, c: usize, gate_rows: usize) {
    for isa in isas() {
        let period = rows.div_ceil(3);
        let x: Vec<f32> = numbers(rows * c, 5).iter().map(|x| x.abs() + 0.5).collect();
        let (scale, table) = (numbers(c, 6), numbers(period * c, 7));
        let gate = numbers(rows.div_ceil(gate_rows), 8);
        let program = program(c, period, gate_rows);
        let inputs: [&[f32]; 4] = [&x, &scale, &table, &gate];
        let got = run(isa, 1, &program, rows, &inputs);
        for r in 0..rows {
            let x = &x[r * c..][..c];
            let sum: f64 = x.iter().map(|x| f64::from(*x)).sum();
            let y: Vec<f64> = (0..c)
                .map(|i| {
                    let scaled = f64::from(x[i]) / sum * f64::from(scale[i]);
                    scaled + f64::from(table[r % period * c + i]) - f64::from(gate[r / gate_rows])
                })
                .collect();
            let mean = |f: &dyn Fn(usize) -> f64| (0..c).map(f).sum::<f64>() / c as f64;
            let rstd = 1.0 / (mean(&|i| y[i] * y[i]) + f64::from(0.1f32)).sqrt();
            let pull = mean(&|i| f64::from(x[i]) * y[i]) * rstd * rstd;
            let what = format!("{isa:?} {rows} x {c}, row {r}");
            let row = |f: &dyn Fn(usize) -> f64| (0..c).map(|i| f(i) as f32).collect::<Vec<f32>>();
            check_close(&got[0][r * c..][..c], &row(&|i| y[i] * rstd), TOLERANCE, &what);
            check_close(&got[1][r..=r], &[rstd as f32], TOLERANCE, &what);
            let dx = row(&|i| rstd * (f64::from(x[i]) - pull * y[i]));
            check_close(&got[2][r * c..][..c], &dx, TOLERANCE, &what);
            check_close(&got[3][r * c..][..c], &row(&|_| 2.0 - 2.0 * sum), TOLERANCE, &what);
        }
        for threads in 2..=4 {
            let again = run(isa, threads, &program, rows, &inputs);
            assert!(got.iter().zip(&again).all(|(a, b)| bits(a) == bits(b)), "{isa:?} {rows} x {c}");
        }
    }
}
