//! Proof that position t of the output sees no token after t and no other sequence.
//!
//! An abstract interpretation: each value that depends on tokens carries the meaning of each of its
//! axes and how far ahead of its own position it may look. An operation that would lose track of
//! positions is refused by name. The analysis is sound, not complete: a program that cannot be proved
//! causal is refused even if it happens to be.

use crate::graph::{Graph, InputKind, Instr, ValueId};
use crate::op::{Binary, Mask, Op, Unary};

/// An operation through which a later token or another sequence could be seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op} {because}")]
pub struct Leak {
    /// Name of the operation.
    pub op: &'static str,
    /// `file:line` in the recipe, when known.
    pub origin: String,
    /// What it would let through.
    pub because: String,
}

/// What an axis of a token-dependent value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Anything but sequences and positions.
    Plain,
    /// Sequences.
    Batch,
    /// Positions: element t may depend on tokens up to t + `ahead`.
    Time,
    /// Sequences and positions merged, B outermost.
    Rows,
    /// A second axis of positions: the keys of a score matrix.
    Key,
}

/// How a value depends on tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Flow {
    pub(crate) depends: bool,
    pub(crate) roles: Vec<Role>,
    /// The farthest token seen is t + ahead, for t along the time axis.
    pub(crate) ahead: i64,
    /// The same along the key axis: element (i, j) may also depend on tokens up to j + key_ahead.
    key_ahead: i64,
    /// Elements of keys later than their query are exactly zero.
    masked: bool,
}

impl Flow {
    fn constant(rank: usize) -> Flow {
        Flow {
            depends: false,
            roles: vec![Role::Plain; rank],
            ahead: i64::MIN / 4,
            key_ahead: i64::MIN / 4,
            masked: false,
        }
    }

    pub(crate) fn axis_of(&self, role: Role) -> Option<usize> {
        self.roles.iter().position(|r| *r == role)
    }
}

impl Graph {
    /// Proves that `logits` (B, T, V) are causal and independent across the batch, or names the operation
    /// that could leak. Leaves of kind `Targets` count as tokens of the future.
    pub fn check_causal(&self, logits: ValueId) -> Result<(), Leak> {
        self.flows(logits).map(|_| ())
    }

    /// The same proof: how each value that `logits` needs depends on tokens.
    pub(crate) fn flows(&self, logits: ValueId) -> Result<Vec<Flow>, Leak> {
        let needed = self.needed(&[logits]);
        let tokens = self.inputs.iter().find(|i| i.kind == InputKind::Tokens);
        let extents = tokens.map_or([0, 0], |i| [self.shape(i.value)[0], self.shape(i.value)[1]]);
        let mut flows: Vec<Flow> = self.values.iter().map(|v| Flow::constant(v.shape.len())).collect();
        let mut last_ahead: Option<&Instr> = None;
        for (instr, needed) in self.instrs.iter().zip(needed) {
            if !needed {
                continue;
            }
            let analysis = Analysis { graph: self, flows: &flows, instr, extents };
            let outputs = analysis.outputs()?;
            for (output, flow) in instr.outputs.iter().zip(outputs) {
                if flow.depends && flow.ahead > 0 && instr.inputs.iter().all(|v| flows[v.idx()].ahead <= 0) {
                    last_ahead = Some(instr);
                }
                flows[output.idx()] = flow;
            }
        }
        self.check_output(logits, &flows[logits.idx()], last_ahead)?;
        Ok(flows)
    }

    fn check_output(&self, logits: ValueId, flow: &Flow, looks_ahead: Option<&Instr>) -> Result<(), Leak> {
        if !flow.depends {
            return Ok(());
        }
        let producer = looks_ahead.unwrap_or(self.producer(logits));
        let leak =
            |because: String| Err(Leak { op: producer.op.name(), origin: producer.origin.clone(), because });
        if flow.roles != [Role::Batch, Role::Time, Role::Plain] {
            return leak("gives logits whose first two axes are not sequence and position".to_string());
        }
        if flow.ahead > 0 {
            return leak(format!("lets the logits at position t see the token at t+{}", flow.ahead));
        }
        Ok(())
    }
}

struct Analysis<'a> {
    graph: &'a Graph,
    flows: &'a [Flow],
    instr: &'a Instr,
    /// B and T of the tokens.
    extents: [usize; 2],
}

impl Analysis<'_> {
    fn flow(&self, k: usize) -> &Flow {
        &self.flows[self.instr.inputs[k].idx()]
    }

    fn shape(&self, k: usize) -> &[usize] {
        self.graph.shape(self.instr.inputs[k])
    }

    fn out_shape(&self, k: usize) -> &[usize] {
        self.graph.shape(self.instr.outputs[k])
    }

    fn leak(&self, because: impl Into<String>) -> Leak {
        let operand = match self.instr.inputs.first() {
            Some(value) => format!(" ({})", self.graph.describe(*value)),
            None => String::new(),
        };
        Leak {
            op: self.instr.op.name(),
            origin: self.instr.origin.clone(),
            because: format!("{}{operand}", because.into()),
        }
    }

    fn outputs(&self) -> Result<Vec<Flow>, Leak> {
        let one = |flow: Flow| Ok(vec![flow]);
        match &self.instr.op {
            Op::Input(idx) => one(self.input(&self.graph.inputs[*idx].kind)),
            Op::Const(_) | Op::Iota { .. } => one(Flow::constant(self.out_shape(0).len())),
            Op::Unary(unary) => one(self.unary(*unary)),
            Op::Binary(binary) => one(self.binary(*binary)?),
            Op::Expand { .. } => one(self.expand()),
            Op::Reshape { .. } => one(self.reshape()?),
            Op::Transpose { perm } => one(self.transpose(perm)),
            Op::Slice { axis, start, .. } => one(self.slice(*axis, *start)?),
            Op::Pad { axis, before, after } => one(self.pad(*axis, *before, *after)?),
            Op::Concat { axis } => one(self.concat(*axis)?),
            Op::Reduce { axis, .. } => one(self.reduce(*axis)?),
            Op::Matmul { ta, tb } => one(self.matmul(*ta, *tb)?),
            Op::RmsNorm { .. } => {
                self.last_axis_plain(0)?;
                Ok(vec![self.flow(0).clone(), self.flow(0).clone()])
            }
            Op::Softmax { mask } => one(self.softmax(*mask)?),
            Op::Rope { .. } | Op::TopK { .. } => {
                self.last_axis_plain(0)?;
                one(Flow { masked: false, ..self.flow(0).clone() })
            }
            Op::Embedding => one(self.embedding()?),
            Op::Attention { mask, .. } => self.attention(*mask),
            Op::CrossEntropy => {
                self.last_axis_plain(0)?;
                let mut flow = self.flow(0).clone();
                flow.roles.truncate(1);
                Ok(vec![flow.clone(), flow])
            }
            Op::Scan { reverse } => one(self.scan(*reverse)?),
            Op::Dropout { .. } | Op::Detach => one(self.flow(0).clone()),
            Op::RmsNormBackward
            | Op::SoftmaxBackward
            | Op::EmbeddingBackward { .. }
            | Op::AttentionBackward { .. }
            | Op::CrossEntropyBackward => Err(self.leak("is a gradient: it has no place in a model")),
        }
    }

    fn input(&self, kind: &InputKind) -> Flow {
        let rank = self.out_shape(0).len();
        match kind {
            InputKind::Tokens | InputKind::Targets | InputKind::Signal => Flow {
                depends: true,
                roles: vec![Role::Batch, Role::Time],
                ahead: i64::from(*kind != InputKind::Tokens),
                ..Flow::constant(rank)
            },
            InputKind::Param | InputKind::Rng | InputKind::Grad | InputKind::State | InputKind::Scalar => {
                Flow::constant(rank)
            }
        }
    }

    fn last_axis_plain(&self, k: usize) -> Result<(), Leak> {
        let flow = self.flow(k);
        match flow.roles.last() {
            Some(Role::Plain) | None => Ok(()),
            Some(_) if !flow.depends => Ok(()),
            Some(role) => Err(self.leak(mixes(*role))),
        }
    }

    fn unary(&self, unary: Unary) -> Flow {
        let keeps_zero = match unary {
            Unary::Neg | Unary::Sqrt | Unary::Tanh | Unary::Relu | Unary::Erf | Unary::Abs => true,
            Unary::Sin | Unary::Floor | Unary::ToFloat => true,
            Unary::Exp | Unary::Log | Unary::Rsqrt | Unary::Reciprocal | Unary::Sigmoid | Unary::Cos => false,
        };
        let flow = self.flow(0);
        Flow { masked: flow.masked && keeps_zero, ..flow.clone() }
    }

    fn binary(&self, binary: Binary) -> Result<Flow, Leak> {
        let rank = self.out_shape(0).len();
        let a = align(self.flow(0), rank);
        let b = align(self.flow(1), rank);
        let masked = match binary {
            Binary::Mul => a.masked || b.masked,
            Binary::Div => a.masked,
            Binary::Add | Binary::Sub => {
                (a.masked && b.masked)
                    || (a.masked && !b.depends && self.is_zero(1))
                    || (b.masked && self.is_zero(0))
            }
            Binary::Max | Binary::Min | Binary::Rem | Binary::Pow | Binary::Ge | Binary::Eq => false,
        };
        let joined = self.join(&a, &b)?;
        // A value broadcast along its own key axis would put its zeros elsewhere.
        Ok(Flow { masked: masked && joined.axis_of(Role::Key).is_some(), ..joined })
    }

    fn is_zero(&self, k: usize) -> bool {
        matches!(self.graph.producer(self.instr.inputs[k]).op, Op::Const(0.0))
    }

    /// Two values combined elementwise: their sequences and positions must lie on the same axes, except that
    /// positions on two different axes of extent (T, 1) and (1, T) make a table of queries and keys.
    fn join(&self, a: &Flow, b: &Flow) -> Result<Flow, Leak> {
        if !a.depends || !b.depends {
            return Ok(if a.depends { a.clone() } else { b.clone() });
        }
        let mut out =
            Flow { ahead: a.ahead.max(b.ahead), key_ahead: a.key_ahead.max(b.key_ahead), ..a.clone() };
        out.masked = false;
        if a.roles == b.roles {
            return Ok(out);
        }
        if a.axis_of(Role::Batch) != b.axis_of(Role::Batch) || a.axis_of(Role::Rows) != b.axis_of(Role::Rows)
        {
            return Err(self.leak("combines values whose sequences lie on different axes"));
        }
        let (Some(ta), Some(tb)) = (a.axis_of(Role::Time), b.axis_of(Role::Time)) else {
            return Err(self.leak("combines values whose positions lie on different axes"));
        };
        let (ka, kb) = (a.axis_of(Role::Key), b.axis_of(Role::Key));
        match (ka, kb) {
            (Some(key), None) | (None, Some(key)) => {
                let (table, other, other_time) = if ka.is_some() { (a, b, tb) } else { (b, a, ta) };
                out.roles = table.roles.clone();
                if other_time == key {
                    out.ahead = table.ahead;
                    out.key_ahead = table.key_ahead.max(other.ahead);
                } else if other_time != table.axis_of(Role::Time).unwrap_or(usize::MAX) {
                    return Err(self.leak("combines values whose positions lie on different axes"));
                }
                Ok(out)
            }
            (None, None) => {
                let (query, key) = if ta < tb { (a, b) } else { (b, a) };
                out.roles = query.roles.clone();
                out.roles[ta.max(tb)] = Role::Key;
                out.ahead = query.ahead;
                out.key_ahead = key.ahead;
                Ok(out)
            }
            (Some(_), Some(_)) => {
                Err(self.leak("combines tables of queries and keys that lie on different axes"))
            }
        }
    }

    fn expand(&self) -> Flow {
        align(self.flow(0), self.out_shape(0).len())
    }

    fn transpose(&self, perm: &[usize]) -> Flow {
        let flow = self.flow(0);
        Flow { roles: perm.iter().map(|k| flow.roles[*k]).collect(), ..flow.clone() }
    }

    /// Splits both shapes into the shortest runs of axes with equal products and carries roles across each.
    fn reshape(&self) -> Result<Flow, Leak> {
        let flow = self.flow(0);
        let (from, to) = (self.shape(0), self.out_shape(0));
        if !flow.depends {
            return Ok(Flow::constant(to.len()));
        }
        let mut roles = vec![Role::Plain; to.len()];
        let (mut i, mut j) = (0, 0);
        while i < from.len() || j < to.len() {
            let (i0, j0) = (i, j);
            let mut left = take(from, &mut i);
            let mut right = take(to, &mut j);
            while left != right {
                if left < right {
                    left *= take(from, &mut i);
                } else {
                    right *= take(to, &mut j);
                }
            }
            // Trailing axes of extent 1 on one side have no partner on the other.
            let (froms, tos) = (i0.min(from.len())..i.min(from.len()), j0.min(to.len())..j.min(to.len()));
            self.regroup(&flow.roles[froms.clone()], &from[froms], &mut roles[tos.clone()], &to[tos])?;
        }
        Ok(Flow { roles, ..flow.clone() })
    }

    fn regroup(
        &self,
        from: &[Role],
        from_shape: &[usize],
        to: &mut [Role],
        to_shape: &[usize],
    ) -> Result<(), Leak> {
        if from.iter().all(|r| *r == Role::Plain) {
            return Ok(());
        }
        let source: Vec<Role> = from
            .iter()
            .zip(from_shape)
            .filter(|(r, n)| **r != Role::Plain || **n != 1)
            .map(|(r, _)| *r)
            .collect();
        let target: Vec<usize> = (0..to.len()).filter(|k| to_shape[*k] != 1).collect();
        let fallback: Vec<usize> = (0..to.len()).take(1).collect();
        let single = if target.is_empty() { &fallback } else { &target };
        match (source.as_slice(), single.as_slice()) {
            // Before what follows: rows of a single sequence have one axis of more than one place too.
            ([Role::Rows], _) if to_shape == self.extents => {
                to[0] = Role::Batch;
                to[1] = Role::Time;
            }
            ([role], [axis]) => to[*axis] = *role,
            ([Role::Batch, Role::Time], [axis]) if to.len() == 1 || target.len() == 1 => {
                to[*axis] = Role::Rows
            }
            _ => return Err(self.leak("mixes positions or sequences with other axes")),
        }
        Ok(())
    }

    fn slice(&self, axis: usize, start: usize) -> Result<Flow, Leak> {
        let mut flow = self.flow(0).clone();
        let whole = self.out_shape(0)[axis] == self.shape(0)[axis];
        if flow.depends && !whole {
            let start = as_offset(start);
            match flow.roles[axis] {
                Role::Plain => {}
                Role::Batch | Role::Rows => return Err(self.leak(mixes(Role::Batch))),
                Role::Time => flow.ahead += start,
                Role::Key => flow.key_ahead += start,
            }
            flow.masked &= flow.roles[axis] == Role::Plain || start == 0;
        }
        Ok(flow)
    }

    fn pad(&self, axis: usize, before: usize, after: usize) -> Result<Flow, Leak> {
        let mut flow = self.flow(0).clone();
        if flow.depends && before + after > 0 {
            match flow.roles[axis] {
                Role::Plain => {}
                Role::Batch | Role::Rows => return Err(self.leak(mixes(Role::Batch))),
                Role::Time => flow.ahead -= as_offset(before),
                Role::Key => flow.key_ahead -= as_offset(before),
            }
            flow.masked &= flow.roles[axis] == Role::Plain || before == 0;
        }
        Ok(flow)
    }

    fn concat(&self, axis: usize) -> Result<Flow, Leak> {
        let mut out = Flow::constant(self.out_shape(0).len());
        let mut all_masked = true;
        let mut start = 0;
        for k in 0..self.instr.inputs.len() {
            let mut part = self.flow(k).clone();
            if part.depends {
                match part.roles[axis] {
                    Role::Plain => {}
                    Role::Batch | Role::Rows => return Err(self.leak(mixes(Role::Batch))),
                    Role::Time => part.ahead -= as_offset(start),
                    Role::Key => part.key_ahead -= as_offset(start),
                }
                all_masked &= part.masked && part.roles[axis] == Role::Plain;
            } else {
                all_masked = false;
            }
            if out.depends && part.depends && out.roles != part.roles {
                return Err(self.leak("joins values whose positions lie on different axes"));
            }
            out = self.join(&out, &part)?;
            start += self.shape(k)[axis];
        }
        out.masked = all_masked && out.depends;
        Ok(out)
    }

    fn reduce(&self, axis: usize) -> Result<Flow, Leak> {
        let mut flow = self.flow(0).clone();
        if !flow.depends {
            return Ok(flow);
        }
        match flow.roles[axis] {
            Role::Plain => {}
            Role::Key if flow.masked => {
                flow.ahead = flow.ahead.max(flow.key_ahead);
                flow.key_ahead = Flow::constant(0).key_ahead;
                flow.masked = false;
                flow.roles[axis] = Role::Plain;
            }
            role @ (Role::Batch | Role::Time | Role::Rows | Role::Key) => return Err(self.leak(mixes(role))),
        }
        Ok(flow)
    }

    fn softmax(&self, mask: Mask) -> Result<Flow, Leak> {
        let mut flow = self.flow(0).clone();
        if !flow.depends {
            return Ok(flow);
        }
        let rank = flow.roles.len();
        match (mask, flow.roles[rank - 1]) {
            (_, Role::Plain) => flow.masked = false,
            (Mask::Causal { .. }, Role::Key) if flow.roles[rank - 2] == Role::Time => {
                // The normaliser of a row sums the visible keys.
                flow.ahead = flow.ahead.max(flow.key_ahead);
                flow.masked = true;
            }
            (_, role) => return Err(self.leak(mixes(role))),
        }
        Ok(flow)
    }

    fn embedding(&self) -> Result<Flow, Leak> {
        if self.flow(0).depends {
            return Err(self.leak("looks up rows of a table that is itself made of tokens"));
        }
        let mut flow = self.flow(1).clone();
        flow.roles.push(Role::Plain);
        flow.masked = false;
        Ok(flow)
    }

    fn attention(&self, mask: Mask) -> Result<Vec<Flow>, Leak> {
        let heads = [Role::Batch, Role::Time, Role::Plain, Role::Plain];
        let mut out = Flow::constant(4);
        for k in 0..3 {
            let flow = self.flow(k);
            if flow.depends && flow.roles != heads {
                return Err(self.leak("needs heads whose first two axes are sequence and position"));
            }
            if k > 0 && flow.depends && mask == Mask::Full {
                return Err(self.leak("without a causal mask lets a position see later tokens"));
            }
            out = self.join(&out, flow)?;
        }
        let mut lse = out.clone();
        if lse.depends {
            lse.roles = vec![Role::Batch, Role::Plain, Role::Time];
        } else {
            lse.roles.truncate(3);
        }
        Ok(vec![out, lse])
    }

    fn scan(&self, reverse: bool) -> Result<Flow, Leak> {
        let flow = self.join(self.flow(0), self.flow(1))?;
        if flow.depends {
            match flow.roles[1] {
                Role::Plain => {}
                Role::Time if !reverse => {}
                role @ (Role::Time | Role::Batch | Role::Rows | Role::Key) => {
                    return Err(self.leak(mixes(role)));
                }
            }
        }
        Ok(Flow { masked: false, ..flow })
    }

    fn matmul(&self, ta: bool, tb: bool) -> Result<Flow, Leak> {
        let (a, b) = (self.flow(0), self.flow(1));
        let rank = self.out_shape(0).len();
        let mut out = Flow::constant(rank);
        if !a.depends && !b.depends {
            return Ok(out);
        }
        let ends = |f: &Flow, t: bool| {
            let r = f.roles.len();
            if t { (f.roles[r - 1], f.roles[r - 2]) } else { (f.roles[r - 2], f.roles[r - 1]) }
        };
        let (row, ka) = ends(a, ta);
        let (kb, col) = ends(b, tb);
        let lead_a = &a.roles[..a.roles.len() - 2];
        let lead_b = &b.roles[..b.roles.len() - 2];
        if a.depends && b.depends && lead_a != lead_b {
            return Err(self.leak("multiplies values whose sequences lie on different axes"));
        }
        self.contraction(a, ka, b, kb)?;
        out.depends = true;
        let lead = if a.depends { lead_a } else { lead_b };
        let skip = (rank - 2) - lead.len();
        out.roles[skip..rank - 2].copy_from_slice(lead);
        out.ahead = a.ahead.max(b.ahead);
        // Keys that were summed over under the mask lie at or before the query.
        for (flow, role) in [(a, ka), (b, kb)] {
            if role == Role::Key {
                out.ahead = out.ahead.max(flow.key_ahead);
            }
        }
        let (row, col) =
            (if a.depends { row } else { Role::Plain }, if b.depends { col } else { Role::Plain });
        out.roles[rank - 2] = row;
        out.roles[rank - 1] = col;
        match (row, col) {
            (Role::Time, Role::Time) => {
                out.roles[rank - 1] = Role::Key;
                out.ahead = a.ahead;
                out.key_ahead = b.ahead;
            }
            (Role::Plain, _) | (_, Role::Plain) => {
                if row == Role::Key || col == Role::Key {
                    out.key_ahead = a.key_ahead.max(b.key_ahead);
                }
            }
            (role, _) => return Err(self.leak(mixes(role))),
        }
        Ok(out)
    }

    /// The summed axis must be neither sequences nor positions, unless it is the keys of a masked table.
    fn contraction(&self, a: &Flow, ka: Role, b: &Flow, kb: Role) -> Result<(), Leak> {
        let masked_keys = |f: &Flow, role: Role| f.depends && role == Role::Key && f.masked;
        for (this, role, other, other_role) in [(a, ka, b, kb), (b, kb, a, ka)] {
            if !this.depends || role == Role::Plain {
                continue;
            }
            let allowed = match role {
                Role::Key => this.masked && (!other.depends || other_role == Role::Time),
                Role::Time => masked_keys(other, other_role),
                Role::Plain | Role::Batch | Role::Rows => false,
            };
            if !allowed {
                return Err(self.leak(mixes(role)));
            }
        }
        Ok(())
    }
}

fn mixes(role: Role) -> &'static str {
    match role {
        Role::Plain => "is fine",
        Role::Batch | Role::Rows => "mixes sequences of the batch",
        Role::Time => "mixes positions, so that an earlier one could see later tokens",
        Role::Key => "sums over keys that no causal mask has hidden",
    }
}

/// The flow with axes of extent 1 added in front, as broadcasting does.
fn align(flow: &Flow, rank: usize) -> Flow {
    let mut roles = vec![Role::Plain; rank - flow.roles.len()];
    roles.extend(&flow.roles);
    Flow { roles, ..flow.clone() }
}

fn take(shape: &[usize], at: &mut usize) -> usize {
    let Some(extent) = shape.get(*at) else { return 1 };
    *at += 1;
    *extent
}

fn as_offset(n: usize) -> i64 {
    i64::try_from(n).expect("an extent fits 63 bits")
}
