//! The identity of a program: a hash of what it computes, not of how it was written down.
//!
//! Every value is hashed from its operation and the hashes of its operands, so order of independent
//! lines, names of variables and dead code do not matter; constants are folded first and the operands
//! of commutative operations sorted. Parameter names do matter: they key the initial values.

use crate::graph::{Graph, InputKind, Instr, ValueId};
use crate::op::{Binary, Op, Unary};

/// 32 bytes that are equal for equal programs.
pub type Digest = [u8; 32];

impl Graph {
    /// Hash of what `outputs` compute, in order.
    pub fn fingerprint(&self, outputs: &[ValueId]) -> Digest {
        let needed = self.needed(outputs);
        let mut digests: Vec<Digest> = vec![[0; 32]; self.values.len()];
        let mut constants: Vec<Option<f32>> = vec![None; self.values.len()];
        for (instr, needed) in self.instrs.iter().zip(needed) {
            if !needed {
                continue;
            }
            if let Some(kept) = self.passes_through(instr, &constants) {
                constants[instr.outputs[0].idx()] = constants[kept.idx()];
                digests[instr.outputs[0].idx()] = digests[kept.idx()];
                continue;
            }
            let folded = self.fold(instr, &constants);
            for (output_idx, output) in instr.outputs.iter().enumerate() {
                constants[output.idx()] = folded;
                digests[output.idx()] = match folded {
                    Some(number) => hash_constant(number, self.shape(*output)),
                    None => self.hash_instr(instr, output_idx, &digests),
                };
            }
        }
        let mut hasher = blake3::Hasher::new();
        for output in outputs {
            hasher.update(&digests[output.idx()]);
        }
        *hasher.finalize().as_bytes()
    }

    /// The one number that every element of the output equals, if it is known.
    fn fold(&self, instr: &Instr, constants: &[Option<f32>]) -> Option<f32> {
        let of = |k: usize| constants[instr.inputs[k].idx()];
        match &instr.op {
            Op::Const(number) => Some(*number),
            Op::Unary(unary) => fold_unary(*unary, of(0)?),
            Op::Binary(binary) => fold_binary(*binary, of(0)?, of(1)?),
            Op::Expand { .. } | Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. } | Op::Detach => {
                of(0)
            }
            Op::Input(_)
            | Op::Iota { .. }
            | Op::Pad { .. }
            | Op::Concat { .. }
            | Op::Reduce { .. }
            | Op::Matmul { .. }
            | Op::RmsNorm { .. }
            | Op::RmsNormBackward
            | Op::Softmax { .. }
            | Op::SoftmaxBackward
            | Op::Rope { .. }
            | Op::Embedding
            | Op::EmbeddingBackward { .. }
            | Op::Attention { .. }
            | Op::AttentionBackward { .. }
            | Op::CrossEntropy
            | Op::CrossEntropyBackward
            | Op::Scan { .. }
            | Op::TopK { .. }
            | Op::Dropout { .. } => None,
        }
    }

    /// The operand that the instruction returns unchanged: x * 1, x / 1, x + 0, x - 0, and moves that move nothing.
    fn passes_through(&self, instr: &Instr, constants: &[Option<f32>]) -> Option<ValueId> {
        let first = matches!(
            (&instr.op, self.fixed_operand(instr, constants)),
            (
                Op::Expand { .. }
                    | Op::Reshape { .. }
                    | Op::Slice { .. }
                    | Op::Pad { .. }
                    | Op::Concat { .. },
                _
            ) | (Op::Binary(Binary::Mul | Binary::Div), [_, Some(1.0)])
                | (Op::Binary(Binary::Add | Binary::Sub), [_, Some(0.0)])
                | (Op::Dropout { rate: 0.0, .. }, _)
        );
        let second = matches!(
            (&instr.op, self.fixed_operand(instr, constants)),
            (Op::Binary(Binary::Mul), [Some(1.0), _]) | (Op::Binary(Binary::Add), [Some(0.0), _])
        );
        let kept = match (first, second) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => return None,
        };
        let kept = instr.inputs[kept];
        (self.shape(kept) == self.shape(instr.outputs[0])).then_some(kept)
    }

    /// The numbers that the first two operands are known to equal.
    fn fixed_operand(&self, instr: &Instr, constants: &[Option<f32>]) -> [Option<f32>; 2] {
        [0, 1].map(|k| instr.inputs.get(k).and_then(|v| constants[v.idx()]))
    }

    fn hash_instr(&self, instr: &Instr, output_idx: usize, digests: &[Digest]) -> Digest {
        let mut hasher = blake3::Hasher::new();
        if let Op::Input(idx) = &instr.op {
            let input = &self.inputs[*idx];
            hasher.update(format!("{:?}", input.kind).as_bytes());
            // A model has one stream of tokens and of targets, whatever they are called.
            if !matches!(input.kind, InputKind::Tokens | InputKind::Targets | InputKind::Rng) {
                hasher.update(input.name.as_bytes());
            }
        } else {
            hasher.update(format!("{:?}", instr.op).as_bytes());
        }
        hasher.update(&[output_idx as u8]);
        for extent in self.shape(instr.outputs[output_idx]) {
            hasher.update(&(*extent as u64).to_le_bytes());
        }
        let mut operands: Vec<Digest> = instr.inputs.iter().map(|v| digests[v.idx()]).collect();
        if let Op::Binary(binary) = instr.op
            && binary.is_commutative()
        {
            operands.sort_unstable();
        }
        for operand in operands {
            hasher.update(&operand);
        }
        *hasher.finalize().as_bytes()
    }
}

fn hash_constant(number: f32, shape: &[usize]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    // -0 and 0 are the same number to a recipe.
    hasher.update(b"constant").update(&(number + 0.0).to_le_bytes());
    for extent in shape {
        hasher.update(&(*extent as u64).to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

fn fold_unary(unary: Unary, x: f32) -> Option<f32> {
    match unary {
        Unary::Neg => Some(-x),
        Unary::Exp => Some(x.exp()),
        Unary::Log => Some(x.ln()),
        Unary::Sqrt => Some(x.sqrt()),
        Unary::Rsqrt => Some(1.0 / x.sqrt()),
        Unary::Reciprocal => Some(1.0 / x),
        Unary::Tanh => Some(x.tanh()),
        Unary::Relu => Some(x.max(0.0)),
        Unary::Abs => Some(x.abs()),
        Unary::Floor => Some(x.floor()),
        Unary::Sigmoid | Unary::Erf | Unary::Sin | Unary::Cos | Unary::ToFloat => None,
    }
}

fn fold_binary(binary: Binary, a: f32, b: f32) -> Option<f32> {
    match binary {
        Binary::Add => Some(a + b),
        Binary::Sub => Some(a - b),
        Binary::Mul => Some(a * b),
        Binary::Div => Some(a / b),
        Binary::Max => Some(a.max(b)),
        Binary::Min => Some(a.min(b)),
        Binary::Pow => Some(a.powf(b)),
        Binary::Ge => Some(f32::from(a >= b)),
        Binary::Eq => Some(f32::from(a == b)),
        Binary::Rem => None,
    }
}
