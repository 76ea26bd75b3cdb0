//! What a program costs before it runs: floating-point operations and bytes, by operation.
//!
//! A multiply-add counts two, every other arithmetic step or function of one element one, moving data
//! none. Masked products count only what the mask leaves. Recomputation is the engine's own affair and
//! is not counted: the price of a recipe does not depend on who runs it.

use crate::graph::{Graph, Instr, ValueId};
use crate::op::{DType, Mask, Op};

/// Price of a program or a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes read and written if nothing were fused.
    pub bytes: f64,
}

/// Number of (query, key) pairs of one head that a mask leaves, T positions each.
pub fn visible_pairs(mask: Mask, t: usize) -> f64 {
    match mask {
        Mask::Full => (t * t) as f64,
        Mask::Causal { window } => {
            let w = window.min(t.saturating_sub(1));
            // The first w queries see 1..=w keys, the rest w + 1.
            (w * (w + 1) / 2 + (t - w) * (w + 1)) as f64
        }
    }
}

impl Graph {
    /// Price of everything that `outputs` need.
    pub fn cost(&self, outputs: &[ValueId]) -> Cost {
        let needed = self.needed(outputs);
        let mut total = Cost::default();
        for (instr, needed) in self.instrs.iter().zip(needed) {
            if needed {
                total.flops += self.instr_flops(instr);
                total.bytes += self.instr_bytes(instr);
            }
        }
        total
    }

    /// Floating-point operations of one instruction.
    pub fn instr_flops(&self, instr: &Instr) -> f64 {
        let len = |v: ValueId| self.values[v.idx()].len() as f64;
        let out = instr.outputs[0];
        match &instr.op {
            Op::Input(_)
            | Op::Const(_)
            | Op::Iota { .. }
            | Op::Expand { .. }
            | Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Concat { .. }
            | Op::Embedding
            | Op::Detach => 0.0,
            Op::Unary(_) | Op::Binary(_) => match self.dtype(out) {
                DType::F32 => len(out),
                DType::I32 => 0.0,
            },
            Op::Reduce { .. } | Op::EmbeddingBackward { .. } => len(instr.inputs[0]),
            Op::Matmul { ta, .. } => {
                let a = self.shape(instr.inputs[0]);
                let k = if *ta { a[a.len() - 2] } else { a[a.len() - 1] };
                2.0 * len(out) * k as f64
            }
            // Square, sum, scale; and per element of the gradient two products and two sums.
            Op::RmsNorm { .. } => 3.0 * len(out),
            Op::RmsNormBackward => 5.0 * len(out),
            // Maximum, difference, exponential, sum, quotient.
            Op::Softmax { .. } => 5.0 * len(out),
            Op::SoftmaxBackward => 4.0 * len(out),
            Op::Rope { .. } => 3.0 * len(out),
            // Scores and mixture forward; four products backward, the scores again being free.
            Op::Attention { mask, .. } => 4.0 * self.attention_products(*mask, out),
            Op::AttentionBackward { mask, .. } => 8.0 * self.attention_products(*mask, out),
            Op::CrossEntropy => 4.0 * len(instr.inputs[0]),
            Op::CrossEntropyBackward => 3.0 * len(out),
            Op::Scan { .. } => 2.0 * len(out),
            Op::TopK { k } => *k as f64 * len(out),
            Op::Dropout { .. } => len(out),
        }
    }

    /// B * H * D * visible pairs, for q of shape (B, T, H, D).
    fn attention_products(&self, mask: Mask, q: ValueId) -> f64 {
        let shape = self.shape(q);
        (shape[0] * shape[2] * shape[3]) as f64 * visible_pairs(mask, shape[1])
    }

    fn instr_bytes(&self, instr: &Instr) -> f64 {
        if matches!(instr.op, Op::Input(_) | Op::Reshape { .. }) {
            return 0.0;
        }
        let values = instr.inputs.iter().chain(&instr.outputs);
        4.0 * values.map(|v| self.values[v.idx()].len() as f64).sum::<f64>()
    }
}
