//! The closed set of operations. Every pass over a graph (shapes, gradients, cost, causality,
//! fingerprint, kernels) is one exhaustive match over [`Op`]: an operation without one of them
//! does not compile.

/// Element type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 32-bit signed integer: tokens, targets, hashes. Arithmetic wraps.
    I32,
}

/// Elementwise function of one float.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// -x
    Neg,
    /// e^x
    Exp,
    /// natural logarithm
    Log,
    /// square root
    Sqrt,
    /// 1 / sqrt(x)
    Rsqrt,
    /// 1 / x
    Reciprocal,
    /// hyperbolic tangent
    Tanh,
    /// 1 / (1 + e^-x)
    Sigmoid,
    /// max(x, 0); gradient 0 at 0
    Relu,
    /// Gauss error function
    Erf,
    /// |x|; gradient 0 at 0
    Abs,
    /// sine
    Sin,
    /// cosine
    Cos,
    /// largest whole number not above x; gradient 0
    Floor,
    /// integer to float; the one unary function whose input is I32
    ToFloat,
}

/// Elementwise function of two values, broadcast like NumPy. `Add`, `Sub`, `Mul`, `Rem`, `Max` and
/// `Min` also work on two I32 values (wrapping; `Rem` is never negative).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a * b
    Mul,
    /// a / b
    Div,
    /// the larger; on a tie the gradient goes to a
    Max,
    /// the smaller; on a tie the gradient goes to a
    Min,
    /// a modulo b, of the sign of b, integers only
    Rem,
    /// a to the power b, a >= 0; differentiable in a only
    Pow,
    /// 1 where a >= b, else 0; gradient 0
    Ge,
    /// 1 where a == b, else 0; gradient 0
    Eq,
}

/// How a reduction combines elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// Sum.
    Sum,
    /// Largest; the gradient is shared equally by ties.
    Max,
}

/// Which keys a query may see. Positions count along the time axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// All of them: not causal.
    Full,
    /// Key j is seen by query i when 0 <= i - j <= window: window + 1 keys with itself.
    Causal {
        /// Distance to the farthest key seen; a value of T or more hides nothing of the past.
        window: usize,
    },
}

/// One operation. Inputs and outputs are listed in its documentation in order; shapes as in
/// `B` sequences, `T` time, `H` query heads, `K` key/value heads, `D` head width, `C` width, `N` rows,
/// `V` vocabulary. All floats unless stated.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A leaf: parameter, tokens, state or scalar. () -> declared shape. The index into the graph's inputs.
    Input(usize),
    /// () -> () the number.
    Const(f32),
    /// () -> (n) I32: 0, 1, ... n-1.
    Iota {
        /// Length.
        n: usize,
    },
    /// (s) -> (s)
    Unary(Unary),
    /// (s), (t) -> broadcast of s and t
    Binary(Binary),
    /// (s) -> (shape), broadcast like NumPy
    Expand {
        /// The output shape.
        shape: Vec<usize>,
    },
    /// (s) -> (shape), same number of elements, row-major
    Reshape {
        /// The output shape.
        shape: Vec<usize>,
    },
    /// (s) -> axes reordered: output axis k is input axis `perm[k]`
    Transpose {
        /// A permutation of 0..rank.
        perm: Vec<usize>,
    },
    /// (s) -> elements start..start+len of one axis
    Slice {
        /// Axis.
        axis: usize,
        /// First element kept.
        start: usize,
        /// How many.
        len: usize,
    },
    /// (s) -> zeros added before and after along one axis; also on I32
    Pad {
        /// Axis.
        axis: usize,
        /// Zeros before.
        before: usize,
        /// Zeros after.
        after: usize,
    },
    /// (s1), (s2), ... -> joined along one axis; also on I32
    Concat {
        /// Axis.
        axis: usize,
    },
    /// (s) -> one axis of length 1
    Reduce {
        /// Sum or maximum.
        kind: Reduction,
        /// Axis.
        axis: usize,
    },
    /// (.., M, K), (.., K, N) -> (.., M, N). With a second operand of rank 2, the leading axes of the
    /// first are rows; otherwise leading axes must be equal. `ta`, `tb`: the operand is stored transposed.
    Matmul {
        /// First operand is (.., K, M).
        ta: bool,
        /// Second operand is (.., N, K).
        tb: bool,
    },
    /// x (.., C) -> y (.., C) = x * rstd, rstd (.., 1) = 1 / sqrt(mean(x^2) + eps)
    RmsNorm {
        /// Added to the mean square.
        eps: f32,
    },
    /// dy (.., C), x (.., C), rstd (.., 1) -> dx (.., C)
    RmsNormBackward,
    /// (.., T) -> (.., T) softmax of the last axis; with a causal mask the last two axes are (query, key)
    /// and hidden entries are exactly 0
    Softmax {
        /// Which entries take part.
        mask: Mask,
    },
    /// dy (.., T), y (.., T) -> dx (.., T); hidden entries have y = 0 and stay 0
    SoftmaxBackward,
    /// (B, T, H, D) -> rotated: angle(t, c) = t * base^(-2c/D), pairs (c, c + D/2),
    /// y1 = x1 cos + x2 sin, y2 = x2 cos - x1 sin
    Rope {
        /// Base of the frequencies.
        base: f32,
        /// Rotate by the opposite angle: the gradient.
        inverse: bool,
    },
    /// table (V, C), ids (..) I32 -> (.., C); ids are taken modulo V
    Embedding,
    /// dy (.., C), ids (..) I32 -> dtable (V, C)
    EmbeddingBackward {
        /// V.
        rows: usize,
    },
    /// q (B, T, H, D), k (B, T, K, D), v (B, T, K, D) -> out (B, T, H, D), lse (B, H, T)
    Attention {
        /// Which keys a query sees.
        mask: Mask,
        /// Multiplies the scores.
        scale: f32,
    },
    /// dout, out (B, T, H, D), lse (B, H, T), q, k, v -> dq, dk, dv
    AttentionBackward {
        /// As forward.
        mask: Mask,
        /// As forward.
        scale: f32,
    },
    /// logits (N, V), targets (N) I32 -> loss (N) in nats, lse (N); a target of -1 has loss 0
    CrossEntropy,
    /// logits (N, V), targets (N) I32, lse (N), dloss (N) -> dlogits (N, V)
    CrossEntropyBackward,
    /// a (B, T, C), x (B, T, C) -> h (B, T, C): h_t = a_t * h_(t-1) + x_t from h_(-1) = 0;
    /// reversed: h_t = a_t * h_(t+1) + x_t from h_T = 0
    Scan {
        /// From the last position to the first.
        reverse: bool,
    },
    /// (.., E) -> (.., E): 1 for the k largest of the last axis (ties to the lowest index), else 0; gradient 0
    TopK {
        /// How many.
        k: usize,
    },
    /// x (s), rng (2) I32 -> (s): elements kept with probability 1 - rate and divided by it. The draw is a
    /// function of (rng, stream, element), so the gradient is the same operation.
    Dropout {
        /// Probability of a zero.
        rate: f32,
        /// Distinguishes the dropouts of a graph.
        stream: u32,
    },
    /// (s) -> (s), no gradient flows
    Detach,
}

impl Op {
    /// Name for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input(_) => "input",
            Op::Const(_) => "constant",
            Op::Iota { .. } => "iota",
            Op::Unary(unary) => unary.name(),
            Op::Binary(binary) => binary.name(),
            Op::Expand { .. } => "expand",
            Op::Reshape { .. } => "reshape",
            Op::Transpose { .. } => "transpose",
            Op::Slice { .. } => "slice",
            Op::Pad { .. } => "pad",
            Op::Concat { .. } => "concat",
            Op::Reduce { kind: Reduction::Sum, .. } => "sum",
            Op::Reduce { kind: Reduction::Max, .. } => "max",
            Op::Matmul { .. } => "matmul",
            Op::RmsNorm { .. } => "rms_norm",
            Op::RmsNormBackward => "rms_norm_backward",
            Op::Softmax { .. } => "softmax",
            Op::SoftmaxBackward => "softmax_backward",
            Op::Rope { .. } => "rope",
            Op::Embedding => "embedding",
            Op::EmbeddingBackward { .. } => "embedding_backward",
            Op::Attention { .. } => "attention",
            Op::AttentionBackward { .. } => "attention_backward",
            Op::CrossEntropy => "cross_entropy",
            Op::CrossEntropyBackward => "cross_entropy_backward",
            Op::Scan { .. } => "scan",
            Op::TopK { .. } => "top_k",
            Op::Dropout { .. } => "dropout",
            Op::Detach => "detach",
        }
    }
}

impl Unary {
    /// Name for messages and recipes.
    pub fn name(self) -> &'static str {
        match self {
            Unary::Neg => "neg",
            Unary::Exp => "exp",
            Unary::Log => "log",
            Unary::Sqrt => "sqrt",
            Unary::Rsqrt => "rsqrt",
            Unary::Reciprocal => "reciprocal",
            Unary::Tanh => "tanh",
            Unary::Sigmoid => "sigmoid",
            Unary::Relu => "relu",
            Unary::Erf => "erf",
            Unary::Abs => "abs",
            Unary::Sin => "sin",
            Unary::Cos => "cos",
            Unary::Floor => "floor",
            Unary::ToFloat => "to_float",
        }
    }
}

impl Binary {
    /// Name for messages and recipes.
    pub fn name(self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "div",
            Binary::Max => "max",
            Binary::Min => "min",
            Binary::Rem => "rem",
            Binary::Pow => "pow",
            Binary::Ge => "ge",
            Binary::Eq => "eq",
        }
    }

    /// Whether the two operands may be swapped.
    pub fn is_commutative(self) -> bool {
        match self {
            Binary::Add | Binary::Mul | Binary::Eq => true,
            // Max and Min are symmetric in value but not in gradient.
            Binary::Sub
            | Binary::Div
            | Binary::Max
            | Binary::Min
            | Binary::Rem
            | Binary::Pow
            | Binary::Ge => false,
        }
    }
}
