//! Values at positions become nodes, constants and states.

use super::demand::{At, Case, Demand, View, as_i64};
use super::{NotIncremental, Source, State};
use crate::causality::{Flow, Role};
use crate::graph::{Graph, InputKind, Instr, ValueId};
use crate::op::{DType, Mask, Op};
use std::collections::BTreeMap;

/// Elements from which a constant matrix is worth a step, and a layout, of its own.
const MIN_LINEAR: usize = 4096;

/// Where an operand comes from before slots exist.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum From {
    Node(usize),
    Source(Source),
    Scalar(f32),
}

/// One position of a value, or all keys.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Operand {
    pub(super) from: From,
    pub(super) shape: Vec<usize>,
    pub(super) dtype: DType,
}

impl Operand {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn reshaped(&self, shape: Vec<usize>) -> Operand {
        Operand { shape, ..self.clone() }
    }
}

/// What a node does with its inputs. The fields are those of [`super::Step`].
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Token,
    Op(Op),
    Linear { weight: usize, transposed: bool, rows: usize, k: usize, n: usize },
    Rope { ahead: Option<i64>, positions: usize, base: f32, inverse: bool },
    Attention { state: usize, window: usize, scale: f32 },
    Scan { state: usize },
    Softmax { window: usize },
    Pick { ranges: Vec<(i64, i64)> },
    Remember { state: usize, at: Option<i64> },
}

pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) inputs: Vec<Operand>,
    pub(super) shape: Vec<usize>,
    /// What the recipe asked for, to name it in a refusal.
    pub(super) instr: Instr,
}

pub(super) struct Lowered {
    pub(super) graph: Graph,
    pub(super) constants: Vec<ValueId>,
    pub(super) nodes: Vec<Node>,
    pub(super) states: Vec<State>,
    pub(super) logits: Operand,
    pub(super) positions: usize,
}

pub(super) fn lower(
    graph: &Graph,
    flows: &[Flow],
    demand: &Demand,
    logits: ValueId,
) -> Result<Lowered, NotIncremental> {
    let mut lowering = Lowering {
        extended: graph.clone(),
        constants: Vec::new(),
        nodes: Vec::new(),
        states: Vec::new(),
        places: BTreeMap::new(),
        positions: View { graph, flows, instr: graph.producer(logits) }.extent(logits)?,
    };
    for instr in &graph.instrs {
        let Some(out) = instr.outputs.first().filter(|v| !demand.asked[v.idx()].is_empty()) else { continue };
        let view = View { graph, flows, instr };
        let asked = &demand.asked[out.idx()];
        if view.moves_time() {
            for at in asked.iter().filter(|at| **at != At::Keys) {
                let operand = lowering.moved(view, *at)?;
                lowering.places.insert((*out, *at), operand);
            }
        } else {
            for at in &demand.computed[out.idx()] {
                let operand = lowering.compute(view, *at)?;
                lowering.places.insert((*out, *at), operand);
            }
        }
        for at in asked {
            lowering.remember(view, *at, demand.computed[out.idx()].first())?;
        }
    }
    let logits = lowering.places[&(logits, At::Offset(0))].clone();
    lowering.check_constants(graph)?;
    let Lowering { extended, constants, nodes, states, positions, .. } = lowering;
    Ok(Lowered { graph: extended, constants, nodes, states, logits, positions })
}

struct Lowering {
    extended: Graph,
    constants: Vec<ValueId>,
    nodes: Vec<Node>,
    states: Vec<State>,
    places: BTreeMap<(ValueId, At), Operand>,
    positions: usize,
}

/// Extents of one position of a value: sequences and positions are 1.
fn step_shape(view: View<'_>, value: ValueId) -> Vec<usize> {
    let roles = &view.flows[value.idx()].roles;
    let extents = view.graph.shape(value).iter().zip(roles);
    extents.map(|(n, role)| if matches!(role, Role::Plain | Role::Key) { *n } else { 1 }).collect()
}

impl Lowering {
    fn node(&mut self, view: View<'_>, kind: Kind, inputs: Vec<Operand>, shape: Vec<usize>) -> Operand {
        let dtype = view.graph.dtype(view.instr.outputs[0]);
        let from = From::Node(self.nodes.len());
        self.nodes.push(Node { kind, inputs, shape: shape.clone(), instr: view.instr.clone() });
        Operand { from, shape, dtype }
    }

    fn state(&mut self, state: State) -> usize {
        self.states.push(state);
        self.states.len() - 1
    }

    /// The operand in memory: a number is written out.
    fn stored(&mut self, view: View<'_>, operand: Operand) -> Operand {
        match operand.from {
            From::Scalar(_) => {
                let shape = operand.shape.clone();
                let number = operand.reshaped(vec![]);
                self.node(view, Kind::Op(Op::Expand { shape: shape.clone() }), vec![number], shape)
            }
            From::Node(_) | From::Source(_) => operand,
        }
    }

    fn constant_idx(&mut self, value: ValueId) -> usize {
        let known = self.constants.iter().position(|v| *v == value);
        known.unwrap_or_else(|| {
            self.constants.push(value);
            self.constants.len() - 1
        })
    }

    /// A value that depends on no token, read at one position; `roles` says what its consumer's axes mean.
    fn constant(
        &mut self,
        view: View<'_>,
        value: ValueId,
        roles: &[Role],
        ahead: i64,
    ) -> Result<Operand, NotIncremental> {
        let shape = view.graph.shape(value).to_vec();
        let dtype = view.graph.dtype(value);
        let producer = view.graph.producer(value);
        if let Op::Const(number) = producer.op {
            return Ok(Operand { from: From::Scalar(number), shape, dtype });
        }
        let is = |axis: &usize, role: Role| shape[*axis] > 1 && roles[*axis] == role;
        let batch = (0..shape.len()).find(|axis| is(axis, Role::Batch));
        let time = (0..shape.len()).find(|axis| is(axis, Role::Time) || is(axis, Role::Rows));
        let mut step = shape.clone();
        batch.iter().chain(&time).for_each(|axis| step[*axis] = 1);
        if batch.is_none() && time.is_none() {
            let from = From::Source(Source::Constant(self.constant_idx(value)));
            return Ok(Operand { from, shape, dtype });
        }
        if let Op::Expand { .. } = producer.op {
            let source = producer.inputs[0];
            let lead = shape.len() - view.graph.shape(source).len();
            let inner = self.constant(view, source, &roles[lead..], ahead)?;
            let expanded = self.node(view, Kind::Op(Op::Expand { shape: step.clone() }), vec![inner], step);
            return Ok(Operand { dtype, ..expanded });
        }
        let mut cut = value;
        let add = |graph: &mut Graph, op: Op, x: ValueId| {
            graph.add(op, &[x]).map_err(|error| view.refuse(error.because))
        };
        if let Some(axis) = batch {
            cut = add(&mut self.extended, Op::Slice { axis, start: 0, len: 1 }, cut)?;
        }
        let Some(time) = time else {
            let from = From::Source(Source::Constant(self.constant_idx(cut)));
            return Ok(Operand { from, shape: step, dtype });
        };
        let perm = std::iter::once(time).chain((0..shape.len()).filter(|axis| *axis != time)).collect();
        cut = add(&mut self.extended, Op::Transpose { perm }, cut)?;
        let from = From::Source(Source::ConstantAt { constant: self.constant_idx(cut), ahead });
        Ok(Operand { from, shape: step, dtype })
    }

    /// What the axes of the constant operand k mean to the instruction.
    #[allow(clippy::wildcard_enum_match_arm)] // no other operation aligns a constant with positions
    fn constant_roles(view: View<'_>, k: usize) -> Vec<Role> {
        let out = &view.out_flow().roles;
        let shape = view.graph.shape(view.instr.inputs[k]);
        let rank = shape.len();
        match &view.instr.op {
            Op::Binary(_) | Op::Expand { .. } | Op::Concat { .. } | Op::Scan { .. } => {
                out[out.len() - rank..].to_vec()
            }
            Op::Attention { .. } => vec![Role::Batch, Role::Time, Role::Plain, Role::Plain],
            Op::Matmul { .. } => {
                let lead = if rank == 2 { &[] } else { &out[..rank - 2] };
                lead.iter().copied().chain([Role::Plain, Role::Plain]).collect()
            }
            _ => vec![Role::Plain; rank],
        }
    }

    fn operands(&mut self, view: View<'_>, at: At) -> Result<Vec<Operand>, NotIncremental> {
        let ahead = if let At::Offset(d) = at { d } else { 0 };
        let mut operands = Vec::with_capacity(view.instr.inputs.len());
        for (k, value) in view.instr.inputs.iter().enumerate() {
            operands.push(if view.flow(k).depends {
                self.places[&(*value, view.operand_at(k, at)?)].clone()
            } else {
                self.constant(view, *value, &Self::constant_roles(view, k), ahead)?
            });
        }
        Ok(operands)
    }

    /// The output of an instruction at one place.
    fn compute(&mut self, view: View<'_>, at: At) -> Result<Operand, NotIncremental> {
        let out = view.instr.outputs[0];
        let shape = step_shape(view, out);
        let mut inputs = self.operands(view, at)?;
        let time = |axis: usize| view.out_flow().roles.get(axis) == Some(&Role::Time);
        let kind = match &view.instr.op {
            Op::Input(_) => Kind::Token,
            Op::Reshape { .. } | Op::Detach => return Ok(inputs[0].reshaped(shape)),
            Op::Expand { .. } if inputs[0].len() == shape.iter().product::<usize>() => {
                return Ok(inputs[0].reshaped(shape));
            }
            Op::Expand { .. } => Kind::Op(Op::Expand { shape: shape.clone() }),
            Op::Transpose { perm } => {
                let from = &inputs[0].shape;
                if perm.iter().filter(|axis| from[**axis] > 1).is_sorted() {
                    return Ok(inputs[0].reshaped(shape));
                }
                Kind::Op(view.instr.op.clone())
            }
            Op::Slice { axis, .. } if view.flow(0).roles[*axis] == Role::Batch => {
                return Ok(inputs[0].reshaped(shape));
            }
            Op::Matmul { ta, tb } => match self.linear(view, &inputs, *ta, *tb) {
                Some(kind) => return Ok(self.node(view, kind, inputs[..1].to_vec(), shape)),
                None => self.small_product(view, &mut inputs, *ta, *tb)?,
            },
            Op::Rope { base, inverse } if time(1) => {
                let ahead = if let At::Offset(d) = at { Some(d) } else { None };
                Kind::Rope { ahead, positions: self.positions, base: *base, inverse: *inverse }
            }
            Op::Scan { .. } if time(1) => {
                Kind::Scan { state: self.state(State::Scan { len: shape.iter().product() }) }
            }
            Op::Softmax { mask: Mask::Causal { window } } if time(shape.len() - 2) => {
                Kind::Softmax { window: *window }
            }
            Op::Attention { mask, scale } => self.attention(view, *mask, *scale)?,
            Op::Const(_)
            | Op::Iota { .. }
            | Op::CrossEntropy
            | Op::Dropout { .. }
            | Op::RmsNormBackward
            | Op::SoftmaxBackward
            | Op::EmbeddingBackward { .. }
            | Op::AttentionBackward { .. }
            | Op::CrossEntropyBackward => {
                return Err(view.refuse("it has no place in a model that generates"));
            }
            Op::Unary(_)
            | Op::Binary(_)
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Concat { .. }
            | Op::Reduce { .. }
            | Op::RmsNorm { .. }
            | Op::Softmax { .. }
            | Op::Rope { .. }
            | Op::Embedding
            | Op::Scan { .. }
            | Op::TopK { .. } => Kind::Op(view.instr.op.clone()),
        };
        let is_op = matches!(kind, Kind::Op(_));
        let inputs = inputs.into_iter().map(|x| if is_op { x } else { self.stored(view, x) }).collect();
        Ok(self.node(view, kind, inputs, shape))
    }

    fn attention(&mut self, view: View<'_>, mask: Mask, scale: f32) -> Result<Kind, NotIncremental> {
        let Mask::Causal { window } = mask else {
            return Err(view.refuse("its keys are the same for every position"));
        };
        let k = view.graph.shape(view.instr.inputs[1]);
        let state = self.state(State::Attention { positions: self.positions, heads: k[2], head_dim: k[3] });
        Ok(Kind::Attention { state, window, scale })
    }

    /// Rows times a constant matrix that is worth a step of its own.
    fn linear(&mut self, view: View<'_>, inputs: &[Operand], ta: bool, tb: bool) -> Option<Kind> {
        let [x, From::Source(Source::Constant(weight))] = [&inputs[0], &inputs[1]].map(|o| &o.from) else {
            return None;
        };
        let shape = &inputs[1].shape;
        let is_matrix = shape.len() == 2 && inputs[1].len() >= MIN_LINEAR;
        if ta || !is_matrix || !view.flow(0).depends || matches!(x, From::Scalar(_)) {
            return None;
        }
        let (k, n) = if tb { (shape[1], shape[0]) } else { (shape[0], shape[1]) };
        Some(Kind::Linear { weight: *weight, transposed: tb, rows: inputs[0].len() / k, k, n })
    }

    /// Any other product. A constant matrix is turned once for all, so that rows of many lanes may be multiplied
    /// together: a few rows against a transposed matrix are summed in another order than many.
    fn small_product(
        &mut self,
        view: View<'_>,
        inputs: &mut [Operand],
        ta: bool,
        tb: bool,
    ) -> Result<Kind, NotIncremental> {
        if let (true, [k, n], From::Source(Source::Constant(weight))) =
            (tb, inputs[1].shape.as_slice(), &inputs[1].from)
        {
            let (shape, matrix) = (vec![*n, *k], self.constants[*weight]);
            let turned = self.extended.add(Op::Transpose { perm: vec![1, 0] }, &[matrix]);
            let turned = turned.map_err(|error| view.refuse(error.because))?;
            let from = From::Source(Source::Constant(self.constant_idx(turned)));
            inputs[1] = Operand { from, shape, dtype: inputs[1].dtype };
            return Ok(Kind::Op(Op::Matmul { ta, tb: false }));
        }
        Ok(Kind::Op(view.instr.op.clone()))
    }

    /// The output of a move along time: another value's position, or the one of several that holds p.
    fn moved(&mut self, view: View<'_>, at: At) -> Result<Operand, NotIncremental> {
        let out = view.instr.outputs[0];
        let shape = step_shape(view, out);
        let dtype = view.graph.dtype(out);
        let last = as_i64(self.positions);
        let mut cases = view.cases(at)?;
        cases.retain(|case| case.from < last && case.to > 0);
        let mut operands = Vec::new();
        for case in &cases {
            let operand = self.case_operand(view, case)?;
            operands.push(operand.reshaped(shape.clone()));
        }
        match (cases.as_slice(), operands.as_slice()) {
            ([], _) if dtype == DType::F32 => Ok(Operand { from: From::Scalar(0.0), shape, dtype }),
            ([], _) => Err(view.refuse("it is always zero")),
            ([case], [operand]) if case.to >= last && (case.from <= 0 || zero_before(case, operand)) => {
                Ok(operand.clone())
            }
            _ => {
                let ranges = cases.iter().map(|case| (case.from, case.to)).collect();
                let inputs = operands.into_iter().map(|x| self.stored(view, x)).collect();
                Ok(self.node(view, Kind::Pick { ranges }, inputs, shape))
            }
        }
    }

    fn case_operand(&mut self, view: View<'_>, case: &Case) -> Result<Operand, NotIncremental> {
        let value = view.instr.inputs[case.input];
        if view.flow(case.input).depends {
            return Ok(self.places[&(value, view.settle(case.input, case.at)?)].clone());
        }
        let roles = &view.out_flow().roles;
        let axis = view.out_flow().axis_of(Role::Time).unwrap_or(0);
        match case.at {
            At::Offset(ahead) => self.constant(view, value, roles, ahead),
            At::Fixed(_) if view.graph.shape(value)[axis] == 1 => self.constant(view, value, roles, 0),
            At::Fixed(_) | At::Keys => Err(view.refuse("it takes one position of a constant")),
        }
    }

    /// Stores the value for the positions that read it later; `home` is where it is computed.
    fn remember(&mut self, view: View<'_>, at: At, home: Option<&At>) -> Result<(), NotIncremental> {
        let out = view.instr.outputs[0];
        if self.places.contains_key(&(out, at)) {
            return Ok(());
        }
        let base = match (at, home) {
            (At::Fixed(i), Some(_)) => view.latch_home(i),
            (_, Some(At::Offset(d))) => *d,
            (_, Some(At::Fixed(_) | At::Keys) | None) => 0,
        };
        let operand = self.places[&(out, At::Offset(base))].clone();
        let now = self.stored(view, operand);
        let (len, shape, dtype) = (now.len(), now.shape.clone(), now.dtype);
        let (source, shape) = match at {
            At::Offset(d) => {
                let lag = usize::try_from(base - d).expect("what lies ahead of its home is computed");
                (Source::Recent { state: self.ring(view, out, now, lag), lag }, shape)
            }
            At::Fixed(i) => {
                let state = self.state(State::Latch { len });
                let taken = Some(as_i64(i) - base);
                self.node(view, Kind::Remember { state, at: taken }, vec![now], vec![]);
                (Source::State(state), shape)
            }
            At::Keys => {
                let axis = view.out_flow().axis_of(Role::Time);
                let axis = axis.ok_or_else(|| view.refuse("its keys have no axis"))?;
                let mut keys = shape;
                let (outer, inner) = (keys[..axis].iter().product(), keys[axis + 1..].iter().product());
                keys[axis] = self.positions;
                let state = self.state(State::Keys { outer, positions: self.positions, inner });
                self.node(view, Kind::Remember { state, at: None }, vec![now], vec![]);
                (Source::State(state), keys)
            }
        };
        self.places.insert((out, at), Operand { from: From::Source(source), shape, dtype });
        Ok(())
    }

    /// The ring of a value, made when it is first read back, and long enough for `lag`.
    fn ring(&mut self, view: View<'_>, out: ValueId, now: Operand, lag: usize) -> usize {
        let known = self.places.range((out, At::Offset(i64::MIN))..=(out, At::Offset(i64::MAX)));
        let mut rings = known.filter_map(|(_, operand)| match operand.from {
            From::Source(Source::Recent { state, lag }) if lag > 0 => Some(state),
            From::Node(_) | From::Source(_) | From::Scalar(_) => None,
        });
        if let Some(state) = rings.next() {
            if let State::Ring { lag: longest, .. } = &mut self.states[state] {
                *longest = lag.max(*longest);
            }
            return state;
        }
        let state = self.state(State::Ring { len: now.len(), lag });
        self.node(view, Kind::Remember { state, at: None }, vec![now], vec![]);
        state
    }

    /// Constants are made of parameters alone.
    fn check_constants(&self, graph: &Graph) -> Result<(), NotIncremental> {
        let needed = self.extended.needed(&self.constants);
        for instr in graph.instrs.iter().zip(needed).filter(|(_, needed)| *needed).map(|(instr, _)| instr) {
            if let Op::Input(idx) = instr.op
                && graph.inputs[idx].kind != InputKind::Param
            {
                return Err(NotIncremental::new(instr, "a constant reads what is not a parameter"));
            }
        }
        Ok(())
    }
}

/// Whether what lies before the first element that a case gives already reads as zeros: a ring's past does.
fn zero_before(case: &Case, operand: &Operand) -> bool {
    match (&operand.from, case.at) {
        (From::Source(Source::Recent { lag, .. }), At::Offset(d)) => as_i64(*lag) == -d && case.from == -d,
        _ => false,
    }
}
