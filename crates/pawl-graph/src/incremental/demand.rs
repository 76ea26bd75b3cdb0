//! At which positions each value is read, from the logits back.

// Matches here pick out operations that move, join or remember positions; any other reads its operands where it
// is computed, and has its answer in the exhaustive match of `lower.rs`.
#![allow(clippy::wildcard_enum_match_arm)]

use super::NotIncremental;
use crate::causality::{Flow, Role};
use crate::graph::{Graph, InputKind, Instr, ValueId};
use crate::op::{Mask, Op};
use std::collections::BTreeSet;

/// Which element along the time axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum At {
    /// p + offset, for the position p at hand.
    Offset(i64),
    /// One element whatever p is.
    Fixed(usize),
    /// All of them, as keys.
    Keys,
}

/// What is asked of each value, and at which offset it is computed when it is.
pub(super) struct Demand {
    pub(super) asked: Vec<BTreeSet<At>>,
    /// Of values whose instruction computes: the places computed, the canonical one first.
    pub(super) computed: Vec<Vec<At>>,
}

/// Where an element of a move along time comes from: input, its place, and the positions p at which it does.
pub(super) struct Case {
    pub(super) input: usize,
    pub(super) at: At,
    pub(super) from: i64,
    pub(super) to: i64,
}

/// Everything that the questions about one instruction need.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) graph: &'a Graph,
    pub(super) flows: &'a [Flow],
    pub(super) instr: &'a Instr,
}

pub(super) fn trace(graph: &Graph, flows: &[Flow], logits: ValueId) -> Result<Demand, NotIncremental> {
    let num = graph.values.len();
    let mut demand = Demand { asked: vec![BTreeSet::new(); num], computed: vec![Vec::new(); num] };
    demand.asked[logits.idx()].insert(At::Offset(0));
    for instr in graph.instrs.iter().rev() {
        let view = View { graph, flows, instr };
        if instr.outputs[1..].iter().any(|v| !demand.asked[v.idx()].is_empty()) {
            return Err(view.refuse("its second result is read"));
        }
        let Some(out) = instr.outputs.first().filter(|v| !demand.asked[v.idx()].is_empty()) else { continue };
        let asked = &mut demand.asked[out.idx()];
        if asked.contains(&At::Keys) {
            view.check_keys(*out)?;
            asked.insert(At::Offset(0));
        }
        let asked = asked.clone();
        if view.moves_time() {
            for at in asked.iter().filter(|at| **at != At::Keys) {
                for case in view.cases(*at)? {
                    demand.ask(view, case.input, case.at)?;
                }
            }
            continue;
        }
        let computed = view.computed(*out, &asked)?;
        for at in &computed {
            for k in 0..instr.inputs.len() {
                if view.flow(k).depends {
                    let place = view.operand_at(k, *at)?;
                    demand.ask(view, k, place)?;
                }
            }
        }
        demand.computed[out.idx()] = computed;
    }
    Ok(demand)
}

impl Demand {
    fn ask(&mut self, view: View<'_>, k: usize, at: At) -> Result<(), NotIncremental> {
        if view.flow(k).depends {
            self.asked[view.instr.inputs[k].idx()].insert(view.settle(k, at)?);
        }
        Ok(())
    }
}

impl View<'_> {
    pub(super) fn refuse(&self, because: impl Into<String>) -> NotIncremental {
        NotIncremental::new(self.instr, because)
    }

    pub(super) fn flow(&self, k: usize) -> &Flow {
        &self.flows[self.instr.inputs[k].idx()]
    }

    pub(super) fn out_flow(&self) -> &Flow {
        &self.flows[self.instr.outputs[0].idx()]
    }

    /// Positions of a value that depends on tokens.
    pub(super) fn extent(&self, value: ValueId) -> Result<usize, NotIncremental> {
        let (flow, shape) = (&self.flows[value.idx()], self.graph.shape(value));
        let lead = flow.axis_of(Role::Batch).map_or(1, |axis| shape[axis]);
        match (flow.axis_of(Role::Time), flow.axis_of(Role::Rows)) {
            (Some(axis), _) => Ok(shape[axis]),
            (None, Some(axis)) => Ok(shape[axis] / self.batch().max(lead)),
            (None, None) => Err(self.refuse("a value has lost its axis of positions")),
        }
    }

    fn batch(&self) -> usize {
        let tokens = self.graph.inputs.iter().find(|i| i.kind == InputKind::Tokens);
        tokens.map_or(1, |i| self.graph.shape(i.value)[0])
    }

    fn positions(&self) -> usize {
        let tokens = self.graph.inputs.iter().find(|i| i.kind == InputKind::Tokens);
        tokens.map_or(1, |i| self.graph.shape(i.value)[1])
    }

    /// The same place in the words of operand k: a single position is the same one for every p.
    pub(super) fn settle(&self, k: usize, at: At) -> Result<At, NotIncremental> {
        if self.extent(self.instr.inputs[k])? > 1 {
            return Ok(at);
        }
        match at {
            At::Offset(_) | At::Fixed(0) => Ok(At::Fixed(0)),
            At::Fixed(_) | At::Keys => Err(self.refuse("a single position is read as if it were many")),
        }
    }

    /// Keys are stored as they come, so position p must be known at p and there must be one for every p.
    fn check_keys(&self, out: ValueId) -> Result<(), NotIncremental> {
        if self.out_flow().ahead > 0 || self.extent(out)? != self.positions() {
            return Err(self.refuse("its keys are shifted along time"));
        }
        Ok(())
    }

    /// Whether the instruction only takes positions from elsewhere.
    pub(super) fn moves_time(&self) -> bool {
        let flow = self.out_flow();
        let along = |axis: usize| matches!(flow.roles[axis], Role::Time | Role::Rows);
        match self.instr.op {
            Op::Slice { axis, .. } | Op::Pad { axis, .. } | Op::Concat { axis } => along(axis),
            _ => false,
        }
    }

    /// Where the element `at` of a move comes from.
    pub(super) fn cases(&self, at: At) -> Result<Vec<Case>, NotIncremental> {
        let extent = |k: usize| as_i64(self.graph.shape(self.instr.inputs[k])[self.move_axis()]);
        // (input, element of the output where it begins, first element that it gives)
        let parts: Vec<(usize, i64, i64)> = match &self.instr.op {
            Op::Slice { start, .. } => vec![(0, -as_i64(*start), 0)],
            Op::Pad { before, .. } => vec![(0, as_i64(*before), 0)],
            _ => {
                let mut start = 0;
                let place = |k: usize| {
                    let at = start;
                    start += extent(k);
                    (k, at, 0)
                };
                (0..self.instr.inputs.len()).map(place).collect()
            }
        };
        if self.out_flow().axis_of(Role::Rows).is_some() {
            return Err(self.refuse("it moves positions after sequences and positions were merged"));
        }
        let mut cases = Vec::new();
        for (input, begin, _) in parts {
            let end = begin + extent(input);
            match at {
                At::Offset(d) => {
                    cases.push(Case { input, at: At::Offset(d - begin), from: begin - d, to: end - d });
                }
                At::Fixed(i) if (begin..end).contains(&as_i64(i)) => {
                    let element = usize::try_from(as_i64(i) - begin).expect("inside the part");
                    cases.push(Case { input, at: At::Fixed(element), from: i64::MIN, to: i64::MAX });
                }
                At::Fixed(_) => {}
                At::Keys => return Err(self.refuse("keys are moved")),
            }
        }
        Ok(cases)
    }

    fn move_axis(&self) -> usize {
        match self.instr.op {
            Op::Slice { axis, .. } | Op::Pad { axis, .. } | Op::Concat { axis } => axis,
            _ => 0,
        }
    }

    /// Whether a state of the sequence, or the position itself, enters.
    fn is_bound(&self) -> bool {
        let time = |axis: usize| self.out_flow().roles.get(axis) == Some(&Role::Time);
        let table = self.out_flow().axis_of(Role::Key).is_some()
            || (0..self.instr.inputs.len())
                .any(|k| self.flow(k).depends && self.flow(k).axis_of(Role::Key).is_some());
        match self.instr.op {
            Op::Attention { .. } => true,
            Op::Scan { .. } => time(1),
            Op::Softmax { mask: Mask::Causal { .. } } => true,
            _ => table,
        }
    }

    /// Where a value is computed so that everything asked of it can be had.
    fn computed(&self, out: ValueId, asked: &BTreeSet<At>) -> Result<Vec<At>, NotIncremental> {
        if let Op::Input(idx) = self.instr.op
            && self.graph.inputs[idx].kind != InputKind::Tokens
        {
            return Err(self.refuse("it is not a token"));
        }
        if self.extent(out)? == 1 {
            if self.is_bound() {
                return Err(self.refuse("its state would be that of one fixed position"));
            }
            return Ok(vec![At::Fixed(0)]);
        }
        let offset = |at: &At| if let At::Offset(d) = at { Some(*d) } else { None };
        let farthest = asked.iter().filter_map(offset).max().unwrap_or(0);
        // A value that looks ahead is complete only later; any other is computed for the position at hand.
        let ahead = self.out_flow().ahead;
        let home = if ahead <= 0 { 0 } else { farthest };
        let fixed = |at: &At| if let At::Fixed(i) = at { Some(self.latch_home(*i)) } else { None };
        let mut all = BTreeSet::from([home]);
        all.extend(asked.iter().filter_map(|at| offset(at).or(fixed(at))).filter(|d| *d > home));
        let all: Vec<At> = all.into_iter().map(At::Offset).collect();
        if farthest > -ahead || home > -ahead {
            return Err(self.refuse("it is read before it is known"));
        }
        let early = |at: &At| matches!(at, At::Fixed(i) if as_i64(*i) < self.latch_home(*i));
        if asked.iter().any(early) {
            return Err(self.refuse("a position is read that no token reaches"));
        }
        if self.is_bound() && all != [At::Offset(0)] {
            return Err(self.refuse("it is read at positions other than its own"));
        }
        Ok(all)
    }

    /// The offset at which element i is computed to be kept: as soon as its last token is there, since from
    /// then on it may be read.
    pub(super) fn latch_home(&self, i: usize) -> i64 {
        let ahead = self.out_flow().ahead;
        if i == 0 && ahead <= 0 { 0 } else { -ahead }
    }

    /// Where operand k, which depends on tokens, is read to compute the output at `at`.
    pub(super) fn operand_at(&self, k: usize, at: At) -> Result<At, NotIncremental> {
        let (flow, out) = (self.flow(k), self.out_flow());
        let keys = match &self.instr.op {
            Op::Binary(_) | Op::Concat { .. } => {
                let lead = out.roles.len() - flow.roles.len();
                let time = flow.axis_of(Role::Time).map(|axis| axis + lead);
                flow.axis_of(Role::Key).is_none() && time.is_some() && time == out.axis_of(Role::Key)
            }
            Op::Matmul { ta, tb } => self.is_keys_of_product(k, if k == 0 { *ta } else { *tb }),
            _ => false,
        };
        match at {
            At::Offset(0) if keys => Ok(At::Keys),
            _ if keys => Err(self.refuse("its keys are read at another position than its queries")),
            At::Keys => Err(self.refuse("it is not stored as keys")),
            At::Offset(_) | At::Fixed(_) => self.settle(k, at),
        }
    }

    /// Operand k of a product gives all its positions when they become keys, or are summed with keys.
    fn is_keys_of_product(&self, k: usize, transposed: bool) -> bool {
        let (flow, out) = (self.flow(k), self.out_flow());
        let (rank, out_rank) = (flow.roles.len(), out.roles.len());
        let (outer, inner) = if transposed { (rank - 1, rank - 2) } else { (rank - 2, rank - 1) };
        let (free, summed) = if k == 0 { (outer, inner) } else { (inner, outer) };
        let free_out = if k == 0 { out_rank - 2 } else { out_rank - 1 };
        flow.roles[summed] == Role::Time
            || (flow.roles[free] == Role::Time && out.roles[free_out] == Role::Key)
    }
}

pub(super) fn as_i64(n: usize) -> i64 {
    i64::try_from(n).expect("an extent fits 63 bits")
}
