//! The functions a recipe builds a graph with. Elementwise functions also take numbers: the same formula
//! serves a tensor in a model and a number in a schedule.

use crate::context::{AskedParam, MAX_PARAM_ELEMENTS, Purpose, Trace, context, elements, show};
use crate::error::{Refusal, raise, raise_with, refuse, refuse_with};
use crate::init::{Init, InitValue};
use crate::operators::{elementwise, place};
use crate::shaping;
use crate::values::{
    Operand, Tensor, count, describe, in_trace, items, number, operand, shape as shape_arg, with_trace,
};
use pawl_graph::{Binary, DType, InputKind, Mask, Op, Unary, ValueId};
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;
use starlark::values::none::NoneOr;

type Refused<T> = Result<T, Refusal>;

/// Epsilon of RMS norm: that of float32, as `torch.nn.functional.rms_norm` takes by default.
const RMS_EPS: f64 = 1.1920929e-07;

fn apply<'v>(unary: Unary, x: Value<'v>, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<Value<'v>> {
    match operand(x) {
        Some(Operand::Tensor(tensor)) => {
            let out = with_trace(eval, unary.name(), |t| {
                let x = in_trace(t, tensor)?;
                t.add(Op::Unary(unary), &[x])
            })?;
            Ok(eval.heap().alloc(out))
        }
        Some(Operand::Number(number)) => Ok(eval.heap().alloc(on_number(unary, number)?)),
        None => raise(format!("{} needs a tensor or a number, got {}", unary.name(), describe(x))),
    }
}

/// The function on a number, in float64. A result that is not finite is refused at once.
pub(crate) fn on_number(unary: Unary, x: f64) -> Refused<f64> {
    let y = match unary {
        Unary::Neg => -x,
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Reciprocal => 1.0 / x,
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Relu => x.max(0.0),
        Unary::Erf => return refuse("erf works on tensors only"),
        Unary::Abs => x.abs(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Floor => x.floor(),
        Unary::ToFloat => x,
    };
    if y.is_finite() { Ok(y) } else { refuse(format!("{}({x:?}) is not a finite number", unary.name())) }
}

fn either<'v>(
    binary: Binary,
    a: Value<'v>,
    b: Value<'v>,
    eval: &mut Evaluator<'v, '_, '_>,
) -> starlark::Result<Value<'v>> {
    let (Some(Operand::Number(x)), Some(Operand::Number(y))) = (operand(a), operand(b)) else {
        return elementwise(binary, a, b, eval);
    };
    let z = match binary {
        Binary::Max => x.max(y),
        Binary::Min => x.min(y),
        Binary::Pow => x.powf(y),
        Binary::Ge => f64::from(u8::from(x >= y)),
        Binary::Eq => f64::from(u8::from(x == y)),
        Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Rem => {
            return raise("this operation has an operator");
        }
    };
    if !z.is_finite() {
        return raise(format!("{}({x:?}, {y:?}) is not a finite number", binary.name()));
    }
    Ok(eval.heap().alloc(z))
}

fn tensor<'v>(value: Value<'v>, what: &str) -> Refused<&'v Tensor> {
    match Tensor::from_value(value) {
        Some(tensor) => Ok(tensor),
        None => refuse(format!("{what} needs a tensor, got {}", describe(value))),
    }
}

/// One operation on tensors, all of them given.
fn simple<'v>(
    what: &str,
    op: Op,
    inputs: &[Value<'v>],
    eval: &mut Evaluator<'v, '_, '_>,
) -> starlark::Result<Tensor> {
    with_trace(eval, what, |t| {
        let ids: Vec<ValueId> =
            inputs.iter().map(|value| in_trace(t, tensor(*value, what)?)).collect::<Refused<_>>()?;
        t.add(op, &ids)
    })
}

/// The mask of `causal` and `window`: without causality there is no window.
fn mask(causal: bool, window: Option<Value<'_>>, time: usize) -> Refused<Mask> {
    match (causal, window) {
        (true, None) => Ok(Mask::Causal { window: time }),
        (true, Some(window)) => {
            let window = crate::values::whole(window, "window")?;
            match usize::try_from(window) {
                // A window as long as the sequence hides nothing: one spelling, one fingerprint.
                Ok(window) => Ok(Mask::Causal { window: window.min(time) }),
                Err(_) => refuse(format!("window {window} cannot be negative")),
            }
        }
        (false, None) => Ok(Mask::Full),
        (false, Some(_)) => refuse("a window needs causal = True"),
    }
}

fn single(value: f64, what: &str) -> Refused<f32> {
    if (value as f32).is_finite() {
        Ok(value as f32)
    } else {
        refuse(format!("{what} {value:?} is not finite"))
    }
}

fn add_param(t: &mut Trace, name: &str, shape: Vec<usize>, init: Init) -> Refused<ValueId> {
    if t.purpose == Purpose::Update {
        return refuse_with(
            "param(...) in an optimizer",
            "optimizers keep tensors with s.state(name, shape)",
        );
    }
    if let Some(idx) = t.param_index.get(name) {
        let known = &t.params[*idx];
        if known.shape == shape && known.init == init {
            return Ok(known.value);
        }
        let what = if known.shape == shape {
            "another init".to_string()
        } else {
            format!("shape {}", show(&known.shape))
        };
        return refuse_with(
            format!("parameter `{name}` {} was asked for before with {what}", show(&shape)),
            "give each tensor its own name; the same name means the same tensor",
        );
    }
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > 200 || !name.chars().all(fine) {
        return refuse(format!("`{name}` is not a parameter name: letters, digits and . _ - only"));
    }
    let size = elements(&shape)?;
    if let Init::Values(values) = &init
        && values.len() != size
    {
        return refuse(format!(
            "parameter `{name}` {} has {size} elements, values(...) {}",
            show(&shape),
            values.len()
        ));
    }
    t.param_elements = t.param_elements.saturating_add(size);
    if t.param_elements > MAX_PARAM_ELEMENTS {
        return refuse(format!(
            "the parameters up to `{name}` take more than {} GiB",
            (MAX_PARAM_ELEMENTS * 4) >> 30
        ));
    }
    let value = t.graph.input(name, InputKind::Param, &shape, DType::F32);
    t.param_index.insert(name.to_string(), t.params.len());
    t.params.push(AskedParam { name: name.to_string(), shape, init, value });
    Ok(value)
}

/// Cross-entropy of each target by `logits` (R, V) and the targets, both as rows: 0 where the target is -1.
fn row_losses(t: &mut Trace, logits: ValueId, targets: ValueId) -> Refused<(ValueId, ValueId)> {
    let shape = t.graph.shape(logits).to_vec();
    let Some((vocab, lead)) = shape.split_last() else {
        return refuse("cross_entropy: logits need a last axis of V, got a scalar");
    };
    if t.graph.shape(targets) != lead {
        return refuse(format!(
            "cross_entropy: logits {} {} and targets {} disagree",
            t.graph.describe(logits),
            show(&shape),
            show(t.graph.shape(targets))
        ));
    }
    let rows: usize = lead.iter().product();
    let flat_logits = shaping::reshape(t, logits, vec![rows, *vocab])?;
    let flat_targets = shaping::reshape(t, targets, vec![rows])?;
    let losses = t.add(Op::CrossEntropy, &[flat_logits, flat_targets])?;
    Ok((losses, flat_targets))
}

/// Mean over targets >= 0 of the cross-entropy of `logits` (.., V).
pub(crate) fn mean_cross_entropy(t: &mut Trace, logits: ValueId, targets: ValueId) -> Refused<ValueId> {
    let (losses, flat_targets) = row_losses(t, logits, targets)?;
    // Targets of -1 have loss 0; the mean counts the others, at least one.
    let as_float = shaping::to_float(t, flat_targets)?;
    let zero = t.constant(0.0)?;
    let counted = t.add(Op::Binary(Binary::Ge), &[as_float, zero])?;
    let total = shaping::reduce(t, losses, &[0], false, shaping::Fold::Sum)?;
    let number = shaping::reduce(t, counted, &[0], false, shaping::Fold::Sum)?;
    let one = t.constant(1.0)?;
    let number = t.add(Op::Binary(Binary::Max), &[number, one])?;
    t.add(Op::Binary(Binary::Div), &[total, number])
}

macro_rules! elementwise_functions {
    ($($name:ident => $unary:expr;)*) => {
        #[starlark_module]
        pub(crate) fn elementwise_functions(builder: &mut GlobalsBuilder) {
            $(
                fn $name<'v>(
                    #[starlark(require = pos)] x: Value<'v>,
                    eval: &mut Evaluator<'v, '_, '_>,
                ) -> starlark::Result<Value<'v>> {
                    apply($unary, x, eval)
                }
            )*
        }
    };
}

elementwise_functions! {
    exp => Unary::Exp;
    log => Unary::Log;
    sqrt => Unary::Sqrt;
    rsqrt => Unary::Rsqrt;
    reciprocal => Unary::Reciprocal;
    tanh => Unary::Tanh;
    sigmoid => Unary::Sigmoid;
    relu => Unary::Relu;
    erf => Unary::Erf;
    sin => Unary::Sin;
    cos => Unary::Cos;
    floor => Unary::Floor;
    to_float => Unary::ToFloat;
}

#[starlark_module]
pub(crate) fn functions(builder: &mut GlobalsBuilder) {
    const pi: f64 = std::f64::consts::PI;

    fn abs<'v>(
        #[starlark(require = pos)] x: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        match x.unpack_i32() {
            Some(int) => Ok(eval.heap().alloc(i64::from(int).abs())),
            None => apply(Unary::Abs, x, eval),
        }
    }

    fn maximum<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        either(Binary::Max, a, b, eval)
    }

    fn minimum<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        either(Binary::Min, a, b, eval)
    }

    fn pow<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        either(Binary::Pow, a, b, eval)
    }

    fn ge<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        either(Binary::Ge, a, b, eval)
    }

    fn eq<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        either(Binary::Eq, a, b, eval)
    }

    fn round<'v>(
        #[starlark(require = pos)] x: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let rounded = number(x, "round")?.round_ties_even();
        if rounded.abs() > 9e15 {
            return raise(format!("round({rounded:?}) is too large for a whole number"));
        }
        Ok(eval.heap().alloc(rounded as i64))
    }

    fn param<'v>(
        #[starlark(require = pos)] name: &str,
        shape: Value<'v>,
        init: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let shape = shape_arg(shape, "param")?;
        let Some(init) = InitValue::from_value(init) else {
            return raise_with(
                format!("parameter `{name}`: init is {}", describe(init)),
                "init is zeros(), ones(), constant(x), normal(std), uniform(bound) or values([...])",
            );
        };
        with_trace(eval, "param", |t| add_param(t, name, shape, init.0.clone()))
    }

    fn matmul<'v>(
        #[starlark(require = pos)] a: Value<'v>,
        #[starlark(require = pos)] b: Value<'v>,
        #[starlark(default = false)] ta: bool,
        #[starlark(default = false)] tb: bool,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        simple("matmul", Op::Matmul { ta, tb }, &[a, b], eval)
    }

    fn gather<'v>(
        #[starlark(require = pos)] table: Value<'v>,
        #[starlark(require = pos)] ids: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        simple("gather", Op::Embedding, &[table, ids], eval)
    }

    fn rms_norm<'v>(
        #[starlark(require = pos)] x: Value<'v>,
        eps: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let eps = eps.map_or(Ok(RMS_EPS), |eps| number(eps, "eps"))?;
        if eps < 0.0 {
            return raise(format!("rms_norm: eps {eps:?} cannot be negative"));
        }
        simple("rms_norm", Op::RmsNorm { eps: single(eps, "eps")? }, &[x], eval)
    }

    fn softmax<'v>(
        #[starlark(require = pos)] x: Value<'v>,
        #[starlark(default = false)] causal: bool,
        #[starlark(default = NoneOr::None)] window: NoneOr<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let time = tensor(x, "softmax")?.shape.last().copied().unwrap_or(1);
        let mask = mask(causal, window.into_option(), time)?;
        simple("softmax", Op::Softmax { mask }, &[x], eval)
    }

    fn rope<'v>(
        #[starlark(require = pos)] x: Value<'v>,
        base: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let base = base.map_or(Ok(10000.0), |base| number(base, "base"))?;
        if base <= 0.0 {
            return raise(format!("rope: base {base:?} must be positive"));
        }
        simple("rope", Op::Rope { base: single(base, "base")?, inverse: false }, &[x], eval)
    }

    fn attend<'v>(
        #[starlark(require = pos)] q: Value<'v>,
        #[starlark(require = pos)] k: Value<'v>,
        #[starlark(require = pos)] v: Value<'v>,
        #[starlark(default = true)] causal: bool,
        #[starlark(default = NoneOr::None)] window: NoneOr<Value<'v>>,
        #[starlark(default = NoneOr::None)] scale: NoneOr<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let shape = &tensor(q, "attend")?.shape;
        let mask = mask(causal, window.into_option(), shape.get(1).copied().unwrap_or(1))?;
        let head_dim = shape.last().copied().unwrap_or(1) as f64;
        let scale = scale.into_option().map_or(Ok(1.0 / head_dim.sqrt()), |scale| number(scale, "scale"))?;
        simple("attend", Op::Attention { mask, scale: single(scale, "scale")? }, &[q, k, v], eval)
    }

    fn concat<'v>(
        #[starlark(require = pos)] tensors: Value<'v>,
        axis: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let Some(list) = items(tensors).filter(|list| !list.is_empty()) else {
            return raise("concat needs a list of tensors");
        };
        let along = crate::values::axis(axis, tensor(list[0], "concat")?.shape.len(), "concat")?;
        simple("concat", Op::Concat { axis: along }, list, eval)
    }

    fn pad<'v>(
        #[starlark(require = pos)] x: Value<'v>,
        #[starlark(require = pos)] axis: Value<'v>,
        #[starlark(require = pos)] before: Value<'v>,
        #[starlark(require = pos)] after: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let along = crate::values::axis(axis, tensor(x, "pad")?.shape.len(), "pad")?;
        let zeros = |value, what: &str| -> Refused<usize> {
            match usize::try_from(crate::values::whole(value, what)?) {
                Ok(zeros) => Ok(zeros),
                Err(_) => refuse(format!("{what} cannot be negative; x.slice(...) removes elements")),
            }
        };
        let op = Op::Pad { axis: along, before: zeros(before, "pad")?, after: zeros(after, "pad")? };
        simple("pad", op, &[x], eval)
    }

    fn shift<'v>(
        #[starlark(require = pos)] x: Value<'v>,
        #[starlark(require = pos)] n: Value<'v>,
        axis: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let this = tensor(x, "shift")?;
        let rank = this.shape.len();
        let along = match axis {
            Some(value) => crate::values::axis(value, rank, "shift")?,
            None if rank > 1 => 1,
            None => return raise(format!("shift: {this} has no axis 1")),
        };
        let by = crate::values::whole(n, "shift")?;
        with_trace(eval, "shift", |t| shaping::shift(t, in_trace(t, this)?, by, along))
    }

    fn scan<'v>(
        #[starlark(require = pos)] decay: Value<'v>,
        #[starlark(require = pos)] x: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        simple("scan", Op::Scan { reverse: false }, &[decay, x], eval)
    }

    fn top_k<'v>(
        #[starlark(require = pos)] x: Value<'v>,
        #[starlark(require = pos)] k: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        simple("top_k", Op::TopK { k: count(k, "top_k")? }, &[x], eval)
    }

    fn dropout<'v>(
        #[starlark(require = pos)] x: Value<'v>,
        #[starlark(require = pos)] rate: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let this = tensor(x, "dropout")?;
        let rate = number(rate, "dropout")?;
        if !(0.0..1.0).contains(&rate) {
            return raise(format!("dropout: rate {rate:?} is not in [0, 1)"));
        }
        with_trace(eval, "dropout", |t| {
            let x = in_trace(t, this)?;
            if rate == 0.0 || t.purpose != Purpose::Train {
                return Ok(x);
            }
            let rng = t.rng();
            let stream = t.num_dropouts;
            t.num_dropouts += 1;
            t.add(Op::Dropout { rate: rate as f32, stream }, &[x, rng])
        })
    }

    fn detach<'v>(
        #[starlark(require = pos)] x: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        simple("detach", Op::Detach, &[x], eval)
    }

    fn iota<'v>(
        #[starlark(require = pos)] n: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        simple("iota", Op::Iota { n: count(n, "iota")? }, &[], eval)
    }

    fn full<'v>(
        #[starlark(require = pos)] shape: Value<'v>,
        #[starlark(require = pos)] value: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let to = shape_arg(shape, "full")?;
        let value = number(value, "full")?;
        with_trace(eval, "full", |t| {
            let scalar = place(t, Operand::Number(value), DType::F32)?;
            shaping::expand(t, scalar, to)
        })
    }

    fn cross_entropy<'v>(
        #[starlark(require = pos)] logits: Value<'v>,
        #[starlark(require = pos)] targets: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let (logits, targets) = (tensor(logits, "cross_entropy")?, tensor(targets, "cross_entropy")?);
        with_trace(eval, "cross_entropy", |t| {
            mean_cross_entropy(t, in_trace(t, logits)?, in_trace(t, targets)?)
        })
    }

    fn token_losses<'v>(
        #[starlark(require = pos)] logits: Value<'v>,
        #[starlark(require = pos)] targets: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Tensor> {
        let (logits, targets) = (tensor(logits, "token_losses")?, tensor(targets, "token_losses")?);
        with_trace(eval, "token_losses", |t| {
            let (losses, _) = row_losses(t, in_trace(t, logits)?, in_trace(t, targets)?)?;
            shaping::reshape(t, losses, targets.shape.clone())
        })
    }

    fn is_training<'v>(eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<bool> {
        Ok(context(eval).tracing(eval, "is_training")?.purpose == Purpose::Train)
    }

    fn vocab_size<'v>(eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<i32> {
        declared(eval, "vocab_size()", |declaration| declaration.vocab_size)
    }

    fn seq_len<'v>(eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<i32> {
        declared(eval, "seq_len()", |declaration| declaration.seq_len)
    }
}

fn declared(
    eval: &Evaluator<'_, '_, '_>,
    what: &str,
    read: impl Fn(&crate::context::Declaration) -> usize,
) -> starlark::Result<i32> {
    match context(eval).declaration.borrow().as_ref() {
        Some(declaration) => Ok(read(declaration) as i32),
        None => raise_with(
            format!("{what} is known only after recipe(...)"),
            "call it inside model, or name the number at the top and use the name",
        ),
    }
}
