//! Attention against its definition: shapes, windows, groups, extremes.

use super::*;
use crate::kernels::gemm::bf16;
use crate::kernels::testing::{check_close, choices, isas, numbers, same_bits};

/// Outputs and gradients of unit-sized inputs; worst seen 7.3e-7 of 1 + |x|.
const TOLERANCE: f32 = 3e-6;

struct Case {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
    dims: AttentionDims,
    mask: Mask,
    scale: f32,
}

/// out, lse, dq, dk, dv
type Results = [Vec<f32>; 5];

impl Case {
    fn new(num_seqs: usize, seq_len: usize, heads: (usize, usize), head_dim: usize, mask: Mask) -> Case {
        let (num_heads, num_kv_heads) = heads;
        let (rows, scale) = (num_seqs * seq_len, 3.0 / (head_dim as f32).sqrt());
        let dims = AttentionDims { num_seqs, seq_len, num_heads, num_kv_heads, head_dim };
        let q_len = rows * num_heads * head_dim;
        let kv_len = rows * num_kv_heads * head_dim;
        Case {
            q: numbers(q_len, 1),
            k: numbers(kv_len, 2),
            v: numbers(kv_len, 3),
            dout: numbers(q_len, 4),
            dims,
            mask,
            scale,
        }
    }

    /// The definition, in f64, score by score.
    fn reference(&self) -> Results {
        let AttentionDims { num_seqs, seq_len, num_heads, num_kv_heads, head_dim } = self.dims;
        let rows = num_seqs * seq_len;
        let (q_len, kv_len) = (rows * num_heads * head_dim, rows * num_kv_heads * head_dim);
        let (mut out, mut lse) = (vec![0.0_f64; q_len], vec![0.0_f64; rows * num_heads]);
        let (mut dq, mut dk, mut dv) = (vec![0.0_f64; q_len], vec![0.0_f64; kv_len], vec![0.0_f64; kv_len]);
        for (b, h, i) in
            (0..num_seqs).flat_map(|b| (0..num_heads).flat_map(move |h| (0..seq_len).map(move |i| (b, h, i))))
        {
            let q_at = ((b * seq_len + i) * num_heads + h) * head_dim;
            let kv_at =
                |j: usize| ((b * seq_len + j) * num_kv_heads + h / (num_heads / num_kv_heads)) * head_dim;
            let dot = |x: &[f32], x_at: usize, y: &[f32], y_at: usize| -> f64 {
                (0..head_dim).map(|d| f64::from(x[x_at + d]) * f64::from(y[y_at + d])).sum()
            };
            let seen: Vec<usize> = (0..seq_len)
                .filter(|&j| match self.mask {
                    Mask::Full => true,
                    Mask::Causal { window } => j <= i && i - j <= window,
                })
                .collect();
            let score = |j: usize| f64::from(self.scale) * dot(&self.q, q_at, &self.k, kv_at(j));
            let peak = seen.iter().map(|&j| score(j)).fold(f64::MIN, f64::max);
            let total: f64 = seen.iter().map(|&j| (score(j) - peak).exp()).sum();
            lse[(b * num_heads + h) * seq_len + i] = peak + total.ln();
            let weight = |j: usize| (score(j) - peak).exp() / total;
            let dweight = |j: usize| dot(&self.dout, q_at, &self.v, kv_at(j));
            let delta: f64 = seen.iter().map(|&j| weight(j) * dweight(j)).sum();
            for &j in &seen {
                let (p, at) = (weight(j), kv_at(j));
                let ds = p * (dweight(j) - delta) * f64::from(self.scale);
                for d in 0..head_dim {
                    out[q_at + d] += p * f64::from(self.v[at + d]);
                    dv[at + d] += p * f64::from(self.dout[q_at + d]);
                    dq[q_at + d] += ds * f64::from(self.k[at + d]);
                    dk[at + d] += ds * f64::from(self.q[q_at + d]);
                }
            }
        }
        [out, lse, dq, dk, dv].map(|values| values.into_iter().map(|x| x as f32).collect())
    }

    fn run(&self, pool: &Pool, isa: Isa, precision: Precision) -> Results {
        let nan = |len: usize| vec![f32::NAN; len];
        let (q_len, kv_len) = (self.q.len(), self.k.len());
        let (dims, mask, scale) = (self.dims, self.mask, self.scale);
        let (mut out, mut lse) = (nan(q_len), nan(q_len / dims.head_dim));
        let (q, k, v, dout) = (&self.q, &self.k, &self.v, &self.dout);
        let mut scratch = nan(attention_forward_scratch_len(pool.num_threads(), dims));
        let even = dims.head_dim.is_multiple_of(2);
        let halves_of = |len: usize| if even { vec![0.0; len / 2] } else { Vec::new() };
        let mut halves = [q_len, q_len, kv_len, kv_len].map(halves_of);
        let [out_halves, dq_halves, dk_halves, dv_halves] = &mut halves;
        attention_forward(
            pool,
            isa,
            precision,
            &mut scratch,
            &mut out,
            &mut lse,
            out_halves,
            q,
            k,
            v,
            dims,
            mask,
            scale,
        );
        let (mut dq, mut dk, mut dv) = (nan(q_len), nan(kv_len), nan(kv_len));
        let mut scratch = nan(attention_backward_scratch_len(pool.num_threads(), dims));
        attention_backward(
            pool,
            isa,
            precision,
            &mut scratch,
            &mut dq,
            &mut dk,
            &mut dv,
            [dq_halves, dk_halves, dv_halves],
            dout,
            &out,
            &lse,
            q,
            k,
            v,
            dims,
            mask,
            scale,
        );
        for (halves, floats) in halves.iter().zip([&out, &dq, &dk, &dv]).filter(|_| even) {
            let got = halves.iter().flat_map(|x| [x.to_bits() << 16, x.to_bits() & !0xffff]);
            let want = floats.iter().map(|x| bf16::round(*x).to_bits());
            assert!(got.eq(want), "{isa:?} {dims:?}: halves");
        }
        [out, lse, dq, dk, dv]
    }

    fn check(&self) {
        let want = self.reference();
        for isa in isas() {
            let what = format!("{isa:?} {:?} {:?}", self.dims, self.mask);
            let got = same_bits(&what, |pool| self.run(pool, isa, Precision::F32).concat());
            let mut rest = &got[..];
            for (name, want) in ["out", "lse", "dq", "dk", "dv"].iter().zip(&want) {
                let (head, tail) = rest.split_at(want.len());
                check_close(head, want, TOLERANCE, &format!("{name} {what}"));
                rest = tail;
            }
        }
    }
}

#[test]
fn causal_attention_agrees_with_the_definition() {
    for (seq_len, heads, head_dim) in [
        (1, (1, 1), 1),
        (7, (2, 1), 16),
        (33, (4, 2), 48),
        (130, (2, 2), 64),
        (291, (3, 1), 20),
        (96, (1, 1), 128),
        (601, (1, 1), 16),
    ] {
        Case::new(2, seq_len, heads, head_dim, Mask::Causal { window: seq_len }).check();
    }
}

#[test]
fn windows_hide_what_is_far() {
    for (seq_len, window) in [(50, 0), (50, 1), (200, 31), (420, 100), (420, 300), (64, usize::MAX)] {
        Case::new(1, seq_len, (2, 1), 32, Mask::Causal { window }).check();
    }
}

#[test]
fn full_attention_sees_everything() {
    for seq_len in [1, 20, 250] {
        Case::new(1, seq_len, (2, 2), 24, Mask::Full).check();
    }
}

#[test]
fn scores_of_any_size_do_not_overflow() {
    let mut case = Case::new(1, 40, (1, 1), 16, Mask::Causal { window: 40 });
    case.scale = -300.0;
    let [out, lse, dq, dk, dv] = case.run(&Pool::new(1), Isa::detect(), Precision::F32);
    assert!([&out, &lse, &dq, &dk, &dv].iter().all(|values| values.iter().all(|x| x.is_finite())));
    check_close(&out, &case.reference()[0], TOLERANCE, "out");
}

#[test]
fn a_nan_reaches_the_output() {
    let mut case = Case::new(1, 5, (1, 1), 16, Mask::Causal { window: 5 });
    case.k[2 * 16] = f32::NAN;
    let [out, ..] = case.run(&Pool::new(1), Isa::detect(), Precision::F32);
    assert!(out[16].is_finite() && out[2 * 16].is_nan() && out[4 * 16].is_nan());
}

/// Relative error, in the L2 norm, of results in bfloat16.
const BF16_BOUND: f64 = 2e-2;

#[test]
fn bfloat16_stays_near_the_definition() {
    for (seq_len, heads, head_dim, mask) in [
        (7, (1, 1), 1, Mask::Full),
        (33, (4, 2), 48, Mask::Causal { window: 33 }),
        (131, (2, 2), 17, Mask::Full),
        (291, (3, 1), 20, Mask::Causal { window: 291 }),
        (601, (2, 1), 64, Mask::Causal { window: 601 }),
        (420, (1, 1), 32, Mask::Causal { window: 101 }),
    ] {
        let mut case = Case::new(2, seq_len, heads, head_dim, mask);
        case.scale = 1.0 / (head_dim as f32).sqrt();
        let want = case.reference();
        for isa in isas() {
            let what = format!("{isa:?} {:?} {mask:?}", case.dims);
            let got = same_bits(&what, |pool| case.run(pool, isa, Precision::Bf16).concat());
            let mut rest = &got[..];
            for (name, want) in ["out", "lse", "dq", "dk", "dv"].iter().zip(&want) {
                let (head, tail) = rest.split_at(want.len());
                let error = relative_error(head, want);
                assert!(error <= BF16_BOUND, "{name} {what} is off by {error:e}");
                rest = tail;
            }
        }
    }
}

/// |got - want| / |want|, both of every element together.
fn relative_error(got: &[f32], want: &[f32]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    norm(&mut got.iter().zip(want).map(|(got, want)| got - want)) / norm(&mut want.iter().copied()).max(1e-30)
}

#[test]
fn attention_of_random_shapes_agrees_with_the_definition() {
    for seed in 0..60 {
        let mut below = choices(seed);
        let (head_dim, num_kv_heads) = (1 + below(80), 1 + below(3));
        let heads = (num_kv_heads * (1 + below(4)), num_kv_heads);
        let seq_len = if below(4) == 0 { 1 + below(300) } else { 1 + below(70) };
        let mask = match below(4) {
            0 => Mask::Full,
            1 => Mask::Causal { window: usize::MAX },
            _ => Mask::Causal { window: below(seq_len + 2) },
        };
        let mut case = Case::new(1 + below(3), seq_len, heads, head_dim, mask);
        case.check();
        // What is exactly zero for a query of one key has no relative error: the gradients of queries and keys
        // are left to the shapes above.
        case.scale = 1.0 / (head_dim as f32).sqrt();
        let want = case.reference();
        for isa in isas() {
            let what = format!("{isa:?} {:?} {mask:?}", case.dims);
            let run = |pool: &Pool| case.run(pool, isa, Precision::Bf16);
            same_bits(&what, |pool| run(pool).concat());
            let got = run(&Pool::new(1));
            for k in [0, 1, 4] {
                let error = relative_error(&got[k], &want[k]);
                assert!(error <= BF16_BOUND, "result {k}, {what}, is off by {error:e}");
            }
        }
    }
}
