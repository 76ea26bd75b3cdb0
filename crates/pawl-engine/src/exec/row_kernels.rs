//! Kernels whose work is rows, heads or sequences rather than elements.

use super::Operands;
use crate::engine::Hands;
use crate::kernels;
use crate::kernels::attention::AttentionDims;
use crate::kernels::sequence::RopeTable;
use crate::plan::Kernel;
use pawl_graph::Mask;

/// Runs one of them.
pub(super) fn row_kernel(hands: Hands<'_>, tables: &[RopeTable], kernel: &Kernel, o: &Operands<'_>) {
    let Hands { pool, isa, .. } = hands;
    match *kernel {
        Kernel::RmsNorm { eps, c, rows } => {
            kernels::rows::rmsnorm_forward(
                pool,
                isa,
                o.write(0, rows * c),
                o.write(1, rows),
                o.read(0, rows * c),
                c,
                eps,
            );
        }
        Kernel::RmsNormBackward { c, rows } => {
            let (dy, x, rstd) = (o.read(0, rows * c), o.read(1, rows * c), o.read(2, rows));
            kernels::rows::rmsnorm_backward(pool, isa, o.write(0, rows * c), dy, x, rstd, c);
        }
        Kernel::Softmax { mask, c, rows } => {
            kernels::rows::softmax_forward(pool, isa, o.write(0, rows * c), o.read(0, rows * c), c, mask);
        }
        Kernel::SoftmaxBackward { c, rows } => {
            let (dy, y) = (o.read(0, rows * c), o.read(1, rows * c));
            kernels::rows::softmax_backward(pool, isa, o.write(0, rows * c), dy, y, c);
        }
        Kernel::TopK { k, c, rows } => {
            kernels::rows::top_k(pool, o.write(0, rows * c), o.read(0, rows * c), c, k);
        }
        Kernel::Rope { shape, table, inverse } => {
            let len = shape.iter().product();
            let RopeTable { cos, sin, .. } = &tables[table];
            kernels::sequence::rope(pool, isa, o.write(0, len), o.read(0, len), cos, sin, shape, inverse);
        }
        Kernel::Scan { shape, reverse } => {
            let len = shape.iter().product();
            let (a, x) = (o.read(0, len), o.read(1, len));
            kernels::sequence::scan(pool, isa, o.write(0, len), a, x, shape, reverse);
        }
        Kernel::Embedding { v, c, n } => {
            kernels::embedding::embedding_forward(pool, o.write(0, n * c), o.read(0, v * c), o.ints(1, n), c);
        }
        Kernel::Attention { shape, kv, mask, scale, halves } => {
            attention_kernel(hands, o, false, [halves, false, false], shape, kv, mask, scale);
        }
        Kernel::AttentionBackward { shape, kv, mask, scale, halves } => {
            attention_kernel(hands, o, true, halves, shape, kv, mask, scale);
        }
        Kernel::CrossEntropy { n, v } => {
            let (logits, targets) = (o.read(0, n * v), o.ints(1, n));
            kernels::cross_entropy::cross_entropy_forward(
                pool,
                isa,
                o.write(0, n),
                o.write(1, n),
                logits,
                targets,
                v,
            );
        }
        Kernel::CrossEntropyBackward { n, v, halves } => {
            use kernels::cross_entropy::{cross_entropy_backward, cross_entropy_backward_in_halves};
            let (logits, targets) = (o.read(0, n * v), o.ints(1, n));
            let (lse, dloss) = (o.read(2, n), o.read(3, n));
            if halves {
                let (dlogits, scratch) = (o.write(0, n * v / 2), o.scratch());
                cross_entropy_backward_in_halves(pool, isa, scratch, dlogits, logits, targets, lse, dloss, v);
            } else {
                cross_entropy_backward(pool, isa, o.write(0, n * v), logits, targets, lse, dloss, v);
            }
        }
        Kernel::Dropout { rate, stream, len } => {
            let key = o.ints(1, 2);
            let (y, x) = (o.write(0, len), o.read(0, len));
            kernels::dropout::dropout(pool, isa, y, x, [key[0], key[1]], rate, stream);
        }
        Kernel::Map { .. }
        | Kernel::Rows { .. }
        | Kernel::MapReduce { .. }
        | Kernel::IntBinary { .. }
        | Kernel::Iota { .. }
        | Kernel::ToFloat { .. }
        | Kernel::Copy { .. }
        | Kernel::Clear { .. }
        | Kernel::Gemm(_)
        | Kernel::Mapped(_)
        | Kernel::Pack { .. }
        | Kernel::EmbeddingBackward { .. }
        | Kernel::Accumulate { .. }
        | Kernel::Loop(_) => unreachable!("handled by run_step"),
    }
}

pub(super) fn attention_dims(shape: [usize; 4], kv: usize) -> AttentionDims {
    let [num_seqs, seq_len, num_heads, head_dim] = shape;
    AttentionDims { num_seqs, seq_len, num_heads, num_kv_heads: kv, head_dim }
}

fn attention_kernel(
    hands: Hands<'_>,
    o: &Operands<'_>,
    backward: bool,
    halves: [bool; 3],
    shape: [usize; 4],
    kv: usize,
    mask: Mask,
    scale: f32,
) {
    let Hands { pool, isa, .. } = hands;
    let dims = attention_dims(shape, kv);
    let [b, t, h, d] = shape;
    let (q_len, kv_len, lse_len) = (b * t * h * d, b * t * kv * d, b * h * t);
    // What is stored in halves follows what is stored in floats.
    let mut next = if backward { 3 } else { 2 };
    let halves = std::array::from_fn(|k| -> &mut [f32] {
        if !halves[k] {
            return &mut [];
        }
        next += 1;
        o.write(next - 1, if k == 0 { q_len } else { kv_len } / 2)
    });
    if backward {
        kernels::attention::attention_backward(
            pool,
            isa,
            o.precision,
            o.scratch(),
            o.write(0, q_len),
            o.write(1, kv_len),
            o.write(2, kv_len),
            halves,
            o.read(0, q_len),
            o.read(1, q_len),
            o.read(2, lse_len),
            o.read(3, q_len),
            o.read(4, kv_len),
            o.read(5, kv_len),
            dims,
            mask,
            scale,
        );
    } else {
        let [out_halves, ..] = halves;
        kernels::attention::attention_forward(
            pool,
            isa,
            o.precision,
            o.scratch(),
            o.write(0, q_len),
            o.write(1, lse_len),
            out_halves,
            o.read(0, q_len),
            o.read(1, kv_len),
            o.read(2, kv_len),
            dims,
            mask,
            scale,
        );
    }
}
