//! Shape inference: one exhaustive match that accepts an operation or says, with parameter paths and
//! shapes, why not.

use crate::graph::{Graph, ShapeError, ValueId};
use crate::op::{Binary, DType, Mask, Op, Unary};

/// Elements of the largest tensor a recipe may ask for.
const MAX_ELEMENTS: usize = 1 << 36;

type Outputs = Result<Vec<(Vec<usize>, DType)>, ShapeError>;

/// Shapes and types of the outputs of `op` applied to `inputs`.
pub(crate) fn infer(graph: &Graph, op: &Op, inputs: &[ValueId]) -> Outputs {
    let ctx = Context { graph, op, inputs };
    ctx.check_arity()?;
    let outputs = outputs_of(&ctx, op)?;
    for (shape, _) in &outputs {
        ctx.check_size(shape)?;
    }
    Ok(outputs)
}

fn outputs_of(ctx: &Context<'_>, op: &Op) -> Outputs {
    match op {
        Op::Input(_) => Err(ctx.error("inputs are declared, not computed")),
        Op::Const(_) => one(vec![], DType::F32),
        Op::Iota { n } => one(vec![*n], DType::I32),
        Op::Unary(Unary::ToFloat) => {
            ctx.expect(0, DType::I32).and_then(|()| one(ctx.shape(0).to_vec(), DType::F32))
        }
        Op::Unary(_) | Op::Detach => ctx.float_like_first(),
        Op::Binary(binary) => ctx.binary(*binary),
        Op::Expand { shape } => ctx.expand(shape),
        Op::Reshape { shape } => ctx.reshape(shape),
        Op::Transpose { perm } => ctx.transpose(perm),
        Op::Slice { axis, start, len } => ctx.slice(*axis, *start, *len),
        Op::Pad { axis, before, after } => ctx.pad(*axis, *before, *after),
        Op::Concat { axis } => ctx.concat(*axis),
        Op::Reduce { axis, .. } => ctx.reduce(*axis),
        Op::Matmul { ta, tb } => ctx.matmul(*ta, *tb),
        Op::RmsNorm { .. } => ctx.rms_norm(),
        Op::RmsNormBackward => ctx.same_as_second(),
        Op::Softmax { mask } => ctx.softmax(*mask),
        Op::SoftmaxBackward => ctx.same_as_second(),
        Op::Rope { .. } => ctx.rope(),
        Op::Embedding => ctx.embedding(),
        Op::EmbeddingBackward { rows } => ctx.embedding_backward(*rows),
        Op::Attention { .. } => ctx.attention(),
        Op::AttentionBackward { .. } => ctx.attention_backward(),
        Op::CrossEntropy => ctx.cross_entropy(),
        Op::CrossEntropyBackward => one(ctx.shape(0).to_vec(), DType::F32),
        Op::Scan { .. } => ctx.scan(),
        Op::TopK { k } => ctx.top_k(*k),
        Op::Dropout { rate, .. } => ctx.dropout(*rate),
    }
}

fn one(shape: Vec<usize>, dtype: DType) -> Outputs {
    Ok(vec![(shape, dtype)])
}

/// `(8, 256, 64)`; a scalar is `()`.
pub(crate) fn show(shape: &[usize]) -> String {
    let parts: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("({})", parts.join(", "))
}

/// The NumPy broadcast of two shapes.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let extent = |s: &[usize], k: usize| if k + s.len() < rank { 1 } else { s[k + s.len() - rank] };
    (0..rank)
        .map(|k| match (extent(a, k), extent(b, k)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

struct Context<'a> {
    graph: &'a Graph,
    op: &'a Op,
    inputs: &'a [ValueId],
}

impl Context<'_> {
    fn shape(&self, k: usize) -> &[usize] {
        self.graph.shape(self.inputs[k])
    }

    /// `blocks.0.attn.q (64, 64)`
    fn operand(&self, k: usize) -> String {
        format!("{} {}", self.graph.describe(self.inputs[k]), show(self.shape(k)))
    }

    fn error(&self, because: impl Into<String>) -> ShapeError {
        ShapeError::new(format!("{}: {}", self.op.name(), because.into()))
    }

    /// No empty tensor, and none whose size could overflow the arithmetic on it.
    fn check_size(&self, shape: &[usize]) -> Result<(), ShapeError> {
        let elements = shape.iter().try_fold(1usize, |n, extent| n.checked_mul(*extent));
        match elements {
            Some(0) => Err(self.error(format!("the result {} would be empty", show(shape)))),
            Some(n) if n <= MAX_ELEMENTS => Ok(()),
            _ => Err(self.error(format!("the result {} has more than 2^36 elements", show(shape)))),
        }
    }

    fn check_arity(&self) -> Result<(), ShapeError> {
        let arity = match self.op {
            Op::Input(_) | Op::Const(_) | Op::Iota { .. } => 0,
            Op::Unary(_)
            | Op::Expand { .. }
            | Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Reduce { .. }
            | Op::RmsNorm { .. }
            | Op::Softmax { .. }
            | Op::Rope { .. }
            | Op::TopK { .. }
            | Op::Detach => 1,
            Op::Binary(_)
            | Op::Matmul { .. }
            | Op::SoftmaxBackward
            | Op::Embedding
            | Op::EmbeddingBackward { .. }
            | Op::CrossEntropy
            | Op::Scan { .. }
            | Op::Dropout { .. } => 2,
            Op::RmsNormBackward | Op::Attention { .. } => 3,
            Op::CrossEntropyBackward => 4,
            Op::AttentionBackward { .. } => 6,
            Op::Concat { .. } => self.inputs.len().max(1),
        };
        if self.inputs.len() == arity {
            return Ok(());
        }
        Err(self.error(format!("takes {arity} operands, got {}", self.inputs.len())))
    }

    fn expect(&self, k: usize, dtype: DType) -> Result<(), ShapeError> {
        if self.graph.dtype(self.inputs[k]) == dtype {
            return Ok(());
        }
        let (needs, hint) = match dtype {
            DType::F32 => ("a float tensor", "to_float(x) turns integers into floats"),
            DType::I32 => ("an integer tensor", "token ids and arithmetic on them are integers"),
        };
        Err(self.error(format!("needs {needs}, got {}", self.operand(k))).hint(hint))
    }

    fn expect_rank(&self, k: usize, rank: usize, what: &str) -> Result<(), ShapeError> {
        if self.shape(k).len() == rank {
            return Ok(());
        }
        Err(self.error(format!("needs {what}, got {}", self.operand(k))))
    }

    fn axis(&self, axis: usize) -> Result<usize, ShapeError> {
        match self.shape(0).get(axis) {
            Some(extent) => Ok(*extent),
            None => Err(self.error(format!("axis {axis} does not exist in {}", self.operand(0)))),
        }
    }

    fn float_like_first(&self) -> Outputs {
        self.expect(0, DType::F32)?;
        one(self.shape(0).to_vec(), DType::F32)
    }

    fn same_as_second(&self) -> Outputs {
        if self.shape(0) != self.shape(1) {
            return Err(self.error(format!(
                "{} and {} must have one shape",
                self.operand(0),
                self.operand(1)
            )));
        }
        one(self.shape(1).to_vec(), DType::F32)
    }

    fn binary(&self, binary: Binary) -> Outputs {
        let dtype = self.graph.dtype(self.inputs[0]);
        if dtype != self.graph.dtype(self.inputs[1]) {
            return Err(self
                .error(format!("mixes integers and floats: {} and {}", self.operand(0), self.operand(1)))
                .hint("to_float(x) turns integers into floats"));
        }
        let integers_allowed = match binary {
            Binary::Add | Binary::Sub | Binary::Mul | Binary::Max | Binary::Min | Binary::Rem => true,
            Binary::Div | Binary::Pow | Binary::Ge | Binary::Eq => false,
        };
        if dtype == DType::I32 && !integers_allowed {
            self.expect(0, DType::F32)?;
        }
        if dtype == DType::F32 && binary == Binary::Rem {
            self.expect(0, DType::I32)?;
        }
        match broadcast(self.shape(0), self.shape(1)) {
            Some(shape) => one(shape, dtype),
            None => Err(self
                .error(format!("{} and {} do not broadcast", self.operand(0), self.operand(1)))
                .hint("shapes are matched from the last axis; two extents must be equal or one of them 1")),
        }
    }

    fn expand(&self, shape: &[usize]) -> Outputs {
        if broadcast(self.shape(0), shape).as_deref() != Some(shape) {
            return Err(self.error(format!("{} cannot become {}", self.operand(0), show(shape))));
        }
        one(shape.to_vec(), self.graph.dtype(self.inputs[0]))
    }

    fn reshape(&self, shape: &[usize]) -> Outputs {
        let count = |s: &[usize]| s.iter().try_fold(1usize, |n, extent| n.checked_mul(*extent));
        let (Some(from), Some(to)) = (count(self.shape(0)), count(shape)) else {
            return Err(self.error(format!("{} is too large", show(shape))));
        };
        if from != to {
            return Err(self.error(format!(
                "{} has {from} elements, {} has {to}",
                self.operand(0),
                show(shape)
            )));
        }
        one(shape.to_vec(), self.graph.dtype(self.inputs[0]))
    }

    fn transpose(&self, perm: &[usize]) -> Outputs {
        let mut sorted = perm.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..self.shape(0).len()) {
            return Err(self.error(format!("{perm:?} is not an order of the axes of {}", self.operand(0))));
        }
        one(perm.iter().map(|k| self.shape(0)[*k]).collect(), self.graph.dtype(self.inputs[0]))
    }

    fn slice(&self, axis: usize, start: usize, len: usize) -> Outputs {
        let extent = self.axis(axis)?;
        if len == 0 || start.checked_add(len).is_none_or(|end| end > extent) {
            return Err(self.error(format!(
                "elements {start} to {} of axis {axis} do not exist in {}",
                start.saturating_add(len),
                self.operand(0)
            )));
        }
        let mut shape = self.shape(0).to_vec();
        shape[axis] = len;
        one(shape, self.graph.dtype(self.inputs[0]))
    }

    fn pad(&self, axis: usize, before: usize, after: usize) -> Outputs {
        let extent = self.axis(axis)?;
        let mut shape = self.shape(0).to_vec();
        shape[axis] = extent.saturating_add(before).saturating_add(after);
        one(shape, self.graph.dtype(self.inputs[0]))
    }

    fn concat(&self, axis: usize) -> Outputs {
        if self.inputs.is_empty() {
            return Err(self.error("needs at least one tensor"));
        }
        self.axis(axis)?;
        let dtype = self.graph.dtype(self.inputs[0]);
        let mut shape = self.shape(0).to_vec();
        for k in 1..self.inputs.len() {
            self.expect(k, dtype)?;
            let other = self.shape(k);
            let fits =
                other.len() == shape.len() && (0..shape.len()).all(|a| a == axis || other[a] == shape[a]);
            if !fits {
                return Err(self.error(format!(
                    "{} and {} differ outside axis {axis}",
                    self.operand(0),
                    self.operand(k)
                )));
            }
            shape[axis] += other[axis];
        }
        one(shape, dtype)
    }

    fn reduce(&self, axis: usize) -> Outputs {
        self.expect(0, DType::F32)?;
        self.axis(axis)?;
        let mut shape = self.shape(0).to_vec();
        shape[axis] = 1;
        one(shape, DType::F32)
    }

    fn matmul(&self, ta: bool, tb: bool) -> Outputs {
        self.expect(0, DType::F32)?;
        self.expect(1, DType::F32)?;
        let (a, b) = (self.shape(0), self.shape(1));
        if a.len() < 2 || b.len() < 2 {
            return Err(self.error(format!(
                "needs two matrices, got {} and {}",
                self.operand(0),
                self.operand(1)
            )));
        }
        let flip = |s: &[usize], t: bool| {
            if t { (s[s.len() - 1], s[s.len() - 2]) } else { (s[s.len() - 2], s[s.len() - 1]) }
        };
        let ((m, k), (k2, n)) = (flip(a, ta), flip(b, tb));
        let lead = &a[..a.len() - 2];
        let shared = b.len() == 2 && !(ta && a.len() > 2);
        if !shared && lead != &b[..b.len() - 2] {
            return Err(self.error(format!(
                "{} and {} differ in their leading axes",
                self.operand(0),
                self.operand(1)
            )));
        }
        if k != k2 {
            return Err(self.error(format!(
                "{} has {k} columns to multiply, {} wants {k2}",
                self.operand(0),
                self.operand(1)
            )));
        }
        let mut shape = lead.to_vec();
        shape.extend([m, n]);
        one(shape, DType::F32)
    }

    fn rms_norm(&self) -> Outputs {
        self.expect(0, DType::F32)?;
        let mut row = self.shape(0).to_vec();
        match row.last_mut() {
            Some(last) => *last = 1,
            None => return Err(self.error("needs at least one axis, got a scalar")),
        }
        Ok(vec![(self.shape(0).to_vec(), DType::F32), (row, DType::F32)])
    }

    fn softmax(&self, mask: Mask) -> Outputs {
        self.expect(0, DType::F32)?;
        let shape = self.shape(0);
        let square = shape.len() >= 2 && shape[shape.len() - 1] == shape[shape.len() - 2];
        match mask {
            Mask::Causal { .. } if !square => {
                Err(self.error(format!("a causal mask needs scores (.., T, T), got {}", self.operand(0))))
            }
            Mask::Full if shape.is_empty() => Err(self.error("needs at least one axis, got a scalar")),
            Mask::Full | Mask::Causal { .. } => one(shape.to_vec(), DType::F32),
        }
    }

    fn rope(&self) -> Outputs {
        self.expect(0, DType::F32)?;
        self.expect_rank(0, 4, "heads (B, T, H, D)")?;
        if !self.shape(0)[3].is_multiple_of(2) {
            return Err(self
                .error(format!("rotates pairs, but the head width of {} is odd", self.operand(0)))
                .hint("choose an even head_dim"));
        }
        one(self.shape(0).to_vec(), DType::F32)
    }

    fn embedding(&self) -> Outputs {
        self.expect(0, DType::F32)?;
        self.expect(1, DType::I32)?;
        self.expect_rank(0, 2, "a table (V, C)")?;
        let mut shape = self.shape(1).to_vec();
        shape.push(self.shape(0)[1]);
        one(shape, DType::F32)
    }

    fn embedding_backward(&self, rows: usize) -> Outputs {
        let width = *self.shape(0).last().expect("the output of an embedding has a last axis");
        one(vec![rows, width], DType::F32)
    }

    fn attention(&self) -> Outputs {
        for (k, what) in ["query (B, T, H, D)", "key (B, T, K, D)", "value (B, T, K, D)"].iter().enumerate() {
            self.expect(k, DType::F32)?;
            self.expect_rank(k, 4, what)?;
        }
        let (q, k, v) = (self.shape(0), self.shape(1), self.shape(2));
        if k != v {
            return Err(self.error(format!(
                "key {} and value {} must have one shape",
                self.operand(1),
                self.operand(2)
            )));
        }
        if q[0] != k[0] || q[1] != k[1] || q[3] != k[3] {
            return Err(self.error(format!(
                "query {} and key {} disagree",
                self.operand(0),
                self.operand(1)
            )));
        }
        if k[2] == 0 || q[2] % k[2] != 0 {
            let divisors: Vec<String> = (1..=q[2]).filter(|d| q[2] % d == 0).map(|d| d.to_string()).collect();
            return Err(self
                .error(format!(
                    "query {} and key {} disagree on head count; {} is not a multiple of {}",
                    self.operand(0),
                    self.operand(1),
                    q[2],
                    k[2]
                ))
                .hint(format!("choose num_kv_heads from {}", divisors.join(", "))));
        }
        Ok(vec![(q.to_vec(), DType::F32), (vec![q[0], q[2], q[1]], DType::F32)])
    }

    fn attention_backward(&self) -> Outputs {
        Ok((3..6).map(|k| (self.shape(k).to_vec(), DType::F32)).collect())
    }

    fn cross_entropy(&self) -> Outputs {
        self.expect(0, DType::F32)?;
        self.expect(1, DType::I32)?;
        self.expect_rank(0, 2, "logits (N, V)")?;
        if self.shape(1) != &self.shape(0)[..1] {
            return Err(self.error(format!(
                "logits {} and targets {} disagree",
                self.operand(0),
                self.operand(1)
            )));
        }
        let rows = self.shape(1).to_vec();
        Ok(vec![(rows.clone(), DType::F32), (rows, DType::F32)])
    }

    fn scan(&self) -> Outputs {
        self.expect(0, DType::F32)?;
        self.expect(1, DType::F32)?;
        self.expect_rank(0, 3, "decay (B, T, C)")?;
        self.same_as_second()
    }

    fn top_k(&self, k: usize) -> Outputs {
        self.expect(0, DType::F32)?;
        match self.shape(0).last() {
            Some(extent) if k >= 1 && k <= *extent => one(self.shape(0).to_vec(), DType::F32),
            _ => Err(self.error(format!("cannot choose {k} of {}", self.operand(0)))),
        }
    }

    fn dropout(&self, rate: f32) -> Outputs {
        self.expect(0, DType::F32)?;
        self.expect(1, DType::I32)?;
        if !(0.0..1.0).contains(&rate) {
            return Err(self.error(format!("rate {rate} is not in [0, 1)")));
        }
        one(self.shape(0).to_vec(), DType::F32)
    }
}
