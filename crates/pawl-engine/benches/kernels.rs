//! Speed of the kernels in GFLOP/s and in percent of what the registers do at the same moment: the
//! machine may be shared, so only the ratio is worth remembering. Run with `cargo bench -p pawl-engine`,
//! with a part of a name to choose.
#![allow(missing_docs, unsafe_code, clippy::print_stdout)] // a bench prints; it has no users

use pawl_engine::Buffer;
use pawl_engine::kernels::attention::{
    AttentionDims, attention_backward, attention_backward_scratch_len, attention_forward,
};
use pawl_engine::kernels::gemm::{Dims, Store, Strided, gemm, gemm_scratch_len};
use pawl_engine::kernels::{Isa, Precision, cross_entropy, dropout, embedding, math, rows, sequence};
use pawl_engine::pool::Pool;
use pawl_graph::{Binary, Mask, Unary};
use std::hint::black_box;
use std::time::Instant;

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let isa = Isa::detect();
    println!("{isa:?}");
    for num_threads in [1, 2] {
        let pool = Pool::new(num_threads);
        bench_gemm(&pool, isa, Precision::F32, &filter);
        bench_gemm(&pool, isa, Precision::Bf16, &filter);
        bench_attention(&pool, isa, Precision::F32, &filter);
        bench_attention(&pool, isa, Precision::Bf16, &filter);
        bench_rows(&pool, isa, &filter);
    }
    bench_math(isa, &filter);
}

/// Best seconds of a call among a few, and the peak seen meanwhile.
fn best(num_calls: usize, pool: &Pool, flops: f64, mut call: impl FnMut()) -> (f64, f64) {
    call();
    let (mut seconds, mut peak) = (f64::INFINITY, 0.0_f64);
    let begun = Instant::now();
    // Longer than a time slice of the scheduler, so that a neighbour is not always there.
    for round in 0.. {
        if round >= num_calls && begun.elapsed().as_secs_f64() > 0.3 {
            break;
        }
        peak = peak.max(register_peak(pool));
        let start = Instant::now();
        call();
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    (flops / seconds / 1e9, peak)
}

fn bench_gemm(pool: &Pool, isa: Isa, precision: Precision, filter: &str) {
    let mut total = [0.0_f64; 2];
    for (rows, k, out) in [
        (8192, 256, 256),
        (8192, 256, 1024),
        (8192, 1024, 256),
        (4096, 512, 512),
        (4096, 512, 2048),
        (4096, 2048, 512),
        (2048, 768, 768),
        (2048, 256, 4096),
        (2048, 128, 512),
        (2048, 64, 64),
        (64, 64, 64),
        (128, 128, 128),
        (1, 512, 512),
        (8, 512, 512),
    ] {
        let weight = vec![0.5_f32; out * k];
        let (x, y) = (vec![0.25_f32; rows * k], vec![0.125_f32; rows * out]);
        let weights = Strided { data: &weight, row: k, col: 1 };
        let (xs, ys) = (Strided { data: &x, row: k, col: 1 }, Strided { data: &y, row: out, col: 1 });
        let flip = |s: Strided<'static>| Strided { data: s.data, row: s.col, col: s.row };
        // SAFETY: the views die before the vectors they come from; only the signature of `flip` needs this.
        let leak = |s: Strided<'_>| unsafe { std::mem::transmute::<Strided<'_>, Strided<'static>>(s) };
        let cases = [
            ("y = x w^T", xs, flip(leak(weights)), Dims { m: rows, n: out, k }),
            ("dx = dy w", ys, weights, Dims { m: rows, n: k, k: out }),
            ("dw = dy^T x", flip(leak(ys)), xs, Dims { m: out, n: k, k: rows }),
        ];
        for (name, a, b, dims) in cases {
            let label = format!("{precision:?} gemm {name:12} {rows:5} rows {k:4} -> {out:4}");
            if !label.contains(filter) {
                continue;
            }
            let mut c = vec![0.0; dims.m * dims.n];
            let mut scratch = vec![0.0; gemm_scratch_len(pool.num_threads(), dims)];
            let flops = 2.0 * (dims.m * dims.n * dims.k) as f64;
            let repeat = (2e7 / flops).ceil().max(1.0);
            let (gflops, peak) = best(9, pool, flops * repeat, || {
                for _ in 0..repeat as usize {
                    gemm(pool, isa, precision, &mut scratch, &mut c, dims.n, a, b, dims, Store::Set);
                }
                black_box(&mut c);
            });
            if flops > 1e8 {
                total[0] += flops / gflops;
                total[1] += flops / peak;
            }
            report(&label, pool, gflops, peak);
        }
    }
    if total[0] > 0.0 {
        println!(
            "{} threads {precision:?}: large products {:.1} % of the float32 peak",
            pool.num_threads(),
            100.0 * total[1] / total[0]
        );
    }
}

fn bench_attention(pool: &Pool, isa: Isa, precision: Precision, filter: &str) {
    for (num_seqs, seq_len, num_heads, num_kv_heads, head_dim) in [
        (32, 64, 4, 4, 16),
        (16, 256, 3, 3, 32),
        (16, 256, 4, 4, 64),
        (8, 512, 8, 8, 64),
        (4, 1024, 6, 2, 128),
        (2, 2048, 4, 4, 32),
    ] {
        let dims = AttentionDims { num_seqs, seq_len, num_heads, num_kv_heads, head_dim };
        let (q_len, kv_len) =
            (num_seqs * seq_len * num_heads * head_dim, num_seqs * seq_len * num_kv_heads * head_dim);
        let scratch_len = attention_backward_scratch_len(pool.num_threads(), dims);
        // One arena, as a program has it: where rows lie apart, huge pages matter.
        let mut arena = Buffer::zeros(4 * q_len + 4 * kv_len + q_len / head_dim + scratch_len);
        let mut rest = arena.floats_mut();
        let mut take = |len: usize| rest.split_off_mut(..len).expect("the arena is the sum of its parts");
        let [q, dout, out, dq] = [q_len; 4].map(&mut take);
        let [k, v, dk, dv] = [kv_len; 4].map(&mut take);
        let (lse, scratch) = (take(q_len / head_dim), take(scratch_len));
        for operand in [&mut *q, &mut *k, &mut *v, &mut *dout] {
            for (i, x) in operand.iter_mut().enumerate() {
                *x = (i * 7919 % 1000) as f32 / 500.0 - 1.0;
            }
        }
        let (mask, scale) = (Mask::Causal { window: seq_len }, 1.0 / (head_dim as f32).sqrt());
        // The visible half of two products forward, of five backward.
        let flops = 2.0 * (num_seqs * num_heads * seq_len * (seq_len + 1) / 2 * head_dim) as f64;
        let label = format!(
            "{precision:?} {num_seqs:3} x {seq_len:4}, {num_heads} heads of {num_kv_heads}, width {head_dim:3}"
        );
        if !format!("attention {label}").contains(filter) {
            continue;
        }
        let (gflops, peak) = best(9, pool, 2.0 * flops, || {
            let halves = &mut [];
            attention_forward(pool, isa, precision, scratch, out, lse, halves, q, k, v, dims, mask, scale);
        });
        report(&format!("attention forward  {label}"), pool, gflops, peak);
        let (gflops, peak) = best(9, pool, 5.0 * flops, || {
            attention_backward(
                pool,
                isa,
                precision,
                scratch,
                dq,
                dk,
                dv,
                [&mut [], &mut [], &mut []],
                dout,
                out,
                lse,
                q,
                k,
                v,
                dims,
                mask,
                scale,
            );
        });
        report(&format!("attention backward {label}"), pool, gflops, peak);
    }
}

/// Kernels bound by memory, in bytes read and written.
fn bench_rows(pool: &Pool, isa: Isa, filter: &str) {
    let (n, c, v) = (4096, 256, 4096);
    let noise = |len: usize| (0..len).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect::<Vec<_>>();
    let (x, dy, mut y, mut rstd) = (noise(n * c), noise(n * c), noise(n * c), vec![0.5; n]);
    let (cos, sin, table) = (noise(256 * 32), noise(256 * 32), noise(v * c));
    let (logits, mut dlogits) = (noise(256 * v), noise(256 * v));
    let (mut loss, mut lse, mut dtable) = (vec![0.0; 256], vec![8.0; 256], vec![0.0; v * c]);
    let ids: Vec<i32> = (0..n).map(|i| (i * 7919 % v) as i32).collect();
    let time = |name: &str, num_floats: usize, call: &mut dyn FnMut()| {
        if !format!("by rows {name}").contains(filter) {
            return;
        }
        let mut seconds = f64::INFINITY;
        for _ in 0..30 {
            let start = Instant::now();
            call();
            seconds = seconds.min(start.elapsed().as_secs_f64());
        }
        let gigabytes = 4.0 * num_floats as f64 / seconds / 1e9;
        println!(
            "{} threads  by rows {name:24} {:8.1} us {gigabytes:6.1} GB/s",
            pool.num_threads(),
            seconds * 1e6
        );
    };
    let (nc, logit) = (n * c, 256 * v);
    time("rmsnorm forward", 2 * nc, &mut || rows::rmsnorm_forward(pool, isa, &mut y, &mut rstd, &x, c, 1e-6));
    time("rmsnorm backward", 3 * nc, &mut || rows::rmsnorm_backward(pool, isa, &mut y, &dy, &x, &rstd, c));
    time("softmax forward", 2 * nc, &mut || rows::softmax_forward(pool, isa, &mut y, &x, c, Mask::Full));
    time("softmax backward", 3 * nc, &mut || rows::softmax_backward(pool, isa, &mut y, &dy, &x, c));
    time("top_k 2 of 8", 2 * nc, &mut || rows::top_k(pool, &mut y, &x, 8, 2));
    let shape = [16, 256, 4, 64];
    time("rope", 2 * nc, &mut || sequence::rope(pool, isa, &mut y, &x, &cos, &sin, shape, false));
    time("scan", 3 * nc, &mut || sequence::scan(pool, isa, &mut y, &x, &dy, [16, 256, 256], false));
    time("dropout", 2 * nc, &mut || dropout::dropout(pool, isa, &mut y, &x, [1, 2], 0.1, 0));
    time("embedding forward", 2 * nc, &mut || embedding::embedding_forward(pool, &mut y, &table, &ids, c));
    time("embedding backward", 2 * nc, &mut || {
        embedding::embedding_backward(pool, isa, &mut dtable, &dy, &ids, c)
    });
    time("cross entropy forward", logit, &mut || {
        cross_entropy::cross_entropy_forward(pool, isa, &mut loss, &mut lse, &logits, &ids[..256], v);
    });
    time("cross entropy backward", 2 * logit, &mut || {
        let (ids, dloss) = (&ids[..256], &rstd[..256]);
        cross_entropy::cross_entropy_backward(pool, isa, &mut dlogits, &logits, ids, &lse, dloss, v);
    });
}

fn bench_math(isa: Isa, filter: &str) {
    let x: Vec<f32> = (0..512).map(|i| i as f32 * 0.01 + 0.01).collect();
    let mut y = vec![0.0; 512];
    let mut time = |name: &str, call: &mut dyn FnMut(&mut [f32], &[f32])| {
        let mut seconds = f64::INFINITY;
        for _ in 0..20 {
            let start = Instant::now();
            for _ in 0..200 {
                call(&mut y, black_box(&x));
            }
            seconds = seconds.min(start.elapsed().as_secs_f64());
        }
        if format!("math {name}").contains(filter) {
            println!("math {name:12} {:6.3} ns an element", seconds * 1e9 / (200.0 * 512.0));
        }
    };
    for op in [
        Unary::Neg,
        Unary::Exp,
        Unary::Log,
        Unary::Sqrt,
        Unary::Rsqrt,
        Unary::Reciprocal,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Relu,
        Unary::Erf,
        Unary::Sin,
        Unary::Floor,
    ] {
        time(op.name(), &mut |y, x| math::unary(isa, op, y, x));
    }
    for op in [Binary::Add, Binary::Mul, Binary::Div, Binary::Max, Binary::Pow, Binary::Ge] {
        time(op.name(), &mut |y, x| math::binary(isa, op, y, x, x));
    }
    time("mul number", &mut |y, x| math::binary_right(isa, Binary::Mul, y, x, 0.5));
}

fn report(label: &str, pool: &Pool, gflops: f64, peak: f64) {
    let percent = 100.0 * gflops / peak;
    println!("{} threads  {label:50} {gflops:7.1} GFLOP/s {percent:5.1} %", pool.num_threads());
}

/// GFLOP/s of multiply-adds that never leave the registers, on all threads.
fn register_peak(pool: &Pool) -> f64 {
    let start = Instant::now();
    let num = 2 * pool.num_threads();
    pool.run(num, &|_, _| {
        black_box(multiply_adds(100_000));
    });
    (num * 100_000 * MULTIPLY_ADDS * 2) as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// Multiply-adds of one step of the loop below.
const MULTIPLY_ADDS: usize = 12 * 16;

fn multiply_adds(steps: usize) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if Isa::Avx512.is_available() {
        // SAFETY: available.
        return unsafe { multiply_adds_avx512(steps) };
    }
    let mut sum = [0.0_f32; MULTIPLY_ADDS];
    for _ in 0..steps {
        for lane in &mut sum {
            *lane = *lane * 0.999 + 0.001;
        }
    }
    sum.iter().sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,fma")]
fn multiply_adds_avx512(steps: usize) -> f32 {
    use std::arch::x86_64::{_mm512_add_ps, _mm512_cvtss_f32, _mm512_fmadd_ps, _mm512_set1_ps};
    let (x, y) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
    let mut sum = [_mm512_set1_ps(0.0); 12];
    for _ in 0..steps {
        for lanes in &mut sum {
            *lanes = _mm512_fmadd_ps(*lanes, x, y);
        }
    }
    _mm512_cvtss_f32(sum.into_iter().fold(x, |a, b| _mm512_add_ps(a, b)))
}
