//! Which elementwise operations are evaluated inside the step that uses them, and the tile programs that
//! come of it.

use super::Loc;
use super::epilogue::{self, Epilogue};
use super::halves::Stored;
use super::symmetry::symmetric_values;
use crate::kernels::map::{MapInstr, MapProgram, Operand, Pattern};
use pawl_graph::{Binary, DType, Graph, Instr, Op, Unary, ValueId};
use std::collections::BTreeMap;

/// Instructions of the longest program that may still be inlined.
const MAX_INLINE: usize = 24;
/// Instructions that may be repeated in several consumers rather than stored.
const MAX_REPEAT: usize = 3;
/// What is so many times shorter than the result stays in the caches: a bias, a value a row.
const SMALL: usize = 16;

/// What the planner knows of a value's uses.
pub(super) struct Fusion<'a> {
    graph: &'a Graph,
    /// Instructions that read each value, moves of shape alone seen through.
    pub(super) consumers: Vec<Vec<usize>>,
    /// Values that are never stored.
    pub(super) inline: Vec<bool>,
    /// Instructions of the tree that evaluates each elementwise value from what is stored.
    pub(super) size: Vec<usize>,
    /// Additions that are done by a product, by instruction. The product is inlined in them.
    pub(super) epilogues: BTreeMap<usize, Epilogue>,
    /// Values whose matrices are symmetric.
    pub(super) symmetric: Vec<bool>,
}

/// Follows moves that leave every element where it is.
pub(super) fn root(graph: &Graph, mut value: ValueId) -> ValueId {
    loop {
        let instr = graph.producer(value);
        match instr.op {
            Op::Reshape { .. } | Op::Detach => value = instr.inputs[0],
            _ => return value,
        }
    }
}

pub(super) fn is_elementwise(graph: &Graph, instr_idx: usize) -> bool {
    let instr = &graph.instrs[instr_idx];
    match instr.op {
        Op::Unary(unary) => unary != Unary::ToFloat,
        Op::Binary(_) => graph.dtype(instr.outputs[0]) == DType::F32,
        _ => false,
    }
}

/// Functions cheap enough to be evaluated again in a second consumer.
fn is_cheap(graph: &Graph, instr: &Instr) -> bool {
    match instr.op {
        Op::Unary(Unary::Neg | Unary::Relu | Unary::Abs) => true,
        // One division takes about as long as it takes memory to deliver what it saves.
        Op::Binary(Binary::Div) => matches!(graph.producer(root(graph, instr.inputs[1])).op, Op::Const(_)),
        Op::Binary(binary) => binary != Binary::Pow,
        _ => false,
    }
}

impl<'a> Fusion<'a> {
    /// Decides for the needed instructions of `graph`; `keep` are values that must be stored.
    pub(super) fn decide(
        graph: &'a Graph,
        needed: &[bool],
        keep: &[ValueId],
        outside: &[bool],
    ) -> Fusion<'a> {
        let mut consumers: Vec<Vec<usize>> = vec![Vec::new(); graph.values.len()];
        for (idx, instr) in graph.instrs.iter().enumerate() {
            if !needed[idx] || matches!(instr.op, Op::Reshape { .. } | Op::Detach) {
                continue;
            }
            for input in &instr.inputs {
                let source = root(graph, *input).idx();
                if consumers[source].last() != Some(&idx) {
                    consumers[source].push(idx);
                }
            }
        }
        let num = graph.values.len();
        let mut fusion = Fusion {
            graph,
            consumers,
            inline: vec![false; num],
            size: vec![0; num],
            epilogues: BTreeMap::new(),
            symmetric: symmetric_values(graph),
        };
        let is_kept = |value: usize| keep.iter().any(|v| root(graph, *v).idx() == value);
        // Stored operands that a tree reads, by value.
        let mut leaves = vec![0usize; graph.values.len()];
        let mut cheap = vec![false; graph.values.len()];
        for (idx, instr) in graph.instrs.iter().enumerate() {
            if !needed[idx] || !is_elementwise(graph, idx) {
                continue;
            }
            let out = instr.outputs[0].idx();
            let len = graph.values[out].len();
            if !outside[idx]
                && let Some(epilogue) = fusion.epilogue(idx, |product| outside[product], is_kept)
            {
                fusion.inline[graph.instrs[epilogue.product].outputs[0].idx()] = true;
                fusion.epilogues.insert(idx, epilogue);
                continue;
            }
            (fusion.size[out], leaves[out], cheap[out]) = (1, 0, is_cheap(graph, instr));
            for input in &instr.inputs {
                let source = root(graph, *input).idx();
                if fusion.inline[source] {
                    fusion.size[out] += fusion.size[source];
                    leaves[out] += leaves[source];
                    cheap[out] &= cheap[source];
                } else if graph.values[source].len() > len / SMALL {
                    leaves[out] += 1;
                }
            }
            let repeatable = cheap[out] && fusion.size[out] <= MAX_REPEAT && leaves[out] <= 1;
            let few = fusion.consumers[out].len() == 1 || repeatable;
            fusion.inline[out] = few
                && !is_kept(out)
                && fusion.size[out] <= MAX_INLINE
                && !outside[idx]
                && fusion.consumers[out].iter().all(|c| !outside[*c] && fusion.reads_in_order(*c, out));
        }
        fusion
    }

    /// What makes instruction `idx` an addition that a product does.
    fn epilogue(
        &self,
        idx: usize,
        is_outside: impl Fn(usize) -> bool,
        is_kept: impl Fn(usize) -> bool,
    ) -> Option<Epilogue> {
        let may_run = |product: usize| {
            let out = self.graph.instrs[product].outputs[0].idx();
            self.consumers[out] == [idx] && !self.symmetric[out] && !is_kept(out) && !is_outside(product)
        };
        let is_stored = |value: ValueId| {
            let transparent = self.is_transparent(self.graph.values[value.idx()].instr);
            !transparent && self.graph.dtype(value) == DType::F32
        };
        epilogue::find(self.graph, idx, may_run, is_stored)
    }

    /// The instructions with a kernel that read a value: moves of shape, broadcasts and values evaluated in
    /// their consumer are seen through.
    pub(super) fn readers(&self, value: ValueId) -> Vec<usize> {
        let mut readers = Vec::new();
        for idx in &self.consumers[value.idx()] {
            let instr = &self.graph.instrs[*idx];
            let out = instr.outputs[0];
            if matches!(instr.op, Op::Expand { .. }) || self.inline[out.idx()] {
                readers.extend(self.readers(out));
            } else {
                readers.push(*idx);
            }
        }
        readers.sort_unstable();
        readers.dedup();
        readers
    }

    /// Whether an instruction has no kernel of its own: it is evaluated by whatever reads it.
    pub(super) fn is_transparent(&self, idx: usize) -> bool {
        let instr = &self.graph.instrs[idx];
        match instr.op {
            Op::Const(_) | Op::Expand { .. } | Op::Reshape { .. } | Op::Detach => true,
            _ => self.inline[instr.outputs[0].idx()],
        }
    }

    /// Whether instruction `consumer` reads element i of the value for its own element i.
    fn reads_in_order(&self, consumer: usize, value: usize) -> bool {
        let len = self.graph.values[value].len();
        let instr = &self.graph.instrs[consumer];
        if is_elementwise(self.graph, consumer) {
            return self.graph.values[instr.outputs[0].idx()].len() == len;
        }
        matches!(instr.op, Op::Reduce { .. })
    }
}

/// How element i of a value of shape `out` finds its operand of shape `from`.
pub(super) fn broadcast_pattern(out: &[usize], from: &[usize]) -> Pattern {
    let lead = out.len() - from.len();
    let mut axes: Vec<(usize, usize)> = Vec::new();
    let mut stride = 1;
    for axis in (0..out.len()).rev() {
        let extent = if axis < lead { 1 } else { from[axis - lead] };
        let step = if extent == 1 { 0 } else { stride };
        stride *= extent;
        if out[axis] == 1 {
            continue;
        }
        match axes.last_mut() {
            // Innermost first while building: merge an axis that continues the one inside it.
            Some((inner, inner_step)) if step == *inner_step * *inner && (step != 0 || *inner_step == 0) => {
                *inner *= out[axis];
            }
            _ => axes.push((out[axis], step)),
        }
    }
    match axes.as_slice() {
        [] | [(_, 0)] => Pattern::Scalar,
        [(_, 1)] => Pattern::Full,
        [(n, 1), (_, 0)] => Pattern::Last { n: *n },
        [(n, 0), (_, 1)] => Pattern::Row { n: *n },
        _ => Pattern::Strided(axes.into_iter().rev().collect()),
    }
}

/// Writes the program of one stored value.
pub(super) struct Writer<'a> {
    pub(super) graph: &'a Graph,
    pub(super) inline: &'a [bool],
    pub(super) program: MapProgram,
    pub(super) reads: Vec<Loc>,
    seen: Vec<(ValueId, Operand)>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(graph: &'a Graph, inline: &'a [bool]) -> Writer<'a> {
        Writer { graph, inline, program: MapProgram::default(), reads: Vec::new(), seen: Vec::new() }
    }

    fn len(&self, value: ValueId) -> usize {
        self.graph.values[value.idx()].len()
    }

    /// The operand that yields `value` element by element, in the order of the value itself.
    pub(super) fn operand(&mut self, value: ValueId, place: &dyn Fn(ValueId) -> Loc) -> Operand {
        let value = root(self.graph, value);
        let instr = self.graph.producer(value);
        match &instr.op {
            Op::Const(number) => Operand::Const(*number),
            Op::Expand { .. } if self.graph.values[instr.inputs[0].idx()].len() == self.len(value) => {
                self.operand(instr.inputs[0], place)
            }
            Op::Expand { shape } => {
                let source = instr.inputs[0];
                let pattern = broadcast_pattern(shape, self.graph.shape(source));
                self.broadcast(source, pattern, place)
            }
            Op::Unary(_) | Op::Binary(_) if self.inline[value.idx()] => {
                if let Some((_, operand)) = self.seen.iter().find(|(v, _)| *v == value) {
                    return *operand;
                }
                let operand = self.compute(value, place);
                self.seen.push((value, operand));
                operand
            }
            _ => self.stored(value, Pattern::Full, place),
        }
    }

    /// Stores what an operand holds.
    pub(super) fn store(&mut self, operand: Operand, stored: Stored) {
        if stored != Stored::Halves {
            self.program.outputs.push(operand);
        }
        if stored != Stored::Floats {
            self.program.halves.push(operand);
        }
    }

    /// Appends the instruction of an elementwise value whatever `inline` says of it.
    pub(super) fn compute(&mut self, value: ValueId, place: &dyn Fn(ValueId) -> Loc) -> Operand {
        let instr = self.graph.producer(value);
        let len = self.graph.values[value.idx()].len();
        let operands: Vec<Operand> = instr
            .inputs
            .iter()
            .map(|input| {
                if self.graph.values[input.idx()].len() == len {
                    self.operand(*input, place)
                } else {
                    let pattern = broadcast_pattern(self.graph.shape(value), self.graph.shape(*input));
                    self.broadcast(*input, pattern, place)
                }
            })
            .collect();
        let instr = match instr.op {
            Op::Unary(unary) => MapInstr::Unary(unary, operands[0]),
            Op::Binary(binary) => MapInstr::Binary(binary, operands[0], operands[1]),
            _ => unreachable!("only elementwise values are computed in a program"),
        };
        self.program.instrs.push(instr);
        Operand::Temp(self.program.instrs.len() - 1)
    }

    fn broadcast(&mut self, source: ValueId, pattern: Pattern, place: &dyn Fn(ValueId) -> Loc) -> Operand {
        let source = root(self.graph, source);
        let instr = self.graph.producer(source);
        match &instr.op {
            Op::Const(number) => Operand::Const(*number),
            Op::Expand { .. } if self.graph.values[instr.inputs[0].idx()].len() == 1 => {
                self.broadcast(instr.inputs[0], Pattern::Scalar, place)
            }
            Op::Expand { .. } if self.len(instr.inputs[0]) == self.len(source) => {
                self.broadcast(instr.inputs[0], pattern, place)
            }
            _ => self.stored(source, pattern, place),
        }
    }

    fn stored(&mut self, value: ValueId, pattern: Pattern, place: &dyn Fn(ValueId) -> Loc) -> Operand {
        let pattern = if self.graph.values[value.idx()].len() == 1 { Pattern::Scalar } else { pattern };
        let loc = place(value);
        let known =
            (0..self.reads.len()).find(|k| self.reads[*k] == loc && self.program.patterns[*k] == pattern);
        Operand::Input(known.unwrap_or_else(|| {
            self.reads.push(loc);
            self.program.patterns.push(pattern);
            self.reads.len() - 1
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasts_are_recognised() {
        assert_eq!(broadcast_pattern(&[2, 3, 4], &[4]), Pattern::Last { n: 4 });
        assert_eq!(broadcast_pattern(&[2, 3, 4], &[2, 3, 1]), Pattern::Row { n: 4 });
        assert_eq!(broadcast_pattern(&[2, 3, 4], &[3, 4]), Pattern::Last { n: 12 });
        assert_eq!(broadcast_pattern(&[2, 3, 4], &[]), Pattern::Scalar);
        assert_eq!(broadcast_pattern(&[2, 3, 4], &[2, 3, 4]), Pattern::Full);
        assert_eq!(broadcast_pattern(&[2, 3, 4], &[2, 1, 4]), Pattern::Strided(vec![(2, 4), (3, 0), (4, 1)]));
        assert_eq!(broadcast_pattern(&[2, 3, 4], &[3, 1]), Pattern::Strided(vec![(2, 0), (3, 1), (4, 0)]));
    }
}
