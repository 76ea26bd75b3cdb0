//! Nodes become steps: stateless ones between two others are gathered into one program, which the engine
//! fuses as it does any other.

use super::lower::{From, Kind, Lowered, Node, Operand};
use super::{Incremental, NotIncremental, Source, Step};
use crate::graph::{Graph, InputKind, ValueId};
use crate::op::Op;
use std::collections::BTreeMap;

enum Unit {
    Segment(Vec<usize>),
    Special(usize),
}

pub(super) fn assemble(lowered: Lowered) -> Result<Incremental, NotIncremental> {
    let (units, unit_of) = gather(&lowered);
    // A value gets a slot when anything but its own segment reads it.
    let mut slots = vec![1];
    let mut slot_of: Vec<Option<usize>> = vec![None; lowered.nodes.len()];
    let mut export = |node: usize| {
        slot_of[node].get_or_insert_with(|| {
            if let Kind::Token = lowered.nodes[node].kind {
                return 0;
            }
            slots.push(lowered.nodes[node].shape.iter().product());
            slots.len() - 1
        });
    };
    for (idx, node) in lowered.nodes.iter().enumerate() {
        for input in &node.inputs {
            if let From::Node(from) = input.from
                && unit_of[from] != unit_of[idx]
            {
                export(from);
            }
        }
        if !matches!(node.kind, Kind::Op(_) | Kind::Remember { .. }) {
            export(idx);
        }
    }
    if let From::Node(from) = lowered.logits.from {
        export(from);
    }
    let assembly = Assembly { nodes: &lowered.nodes, slot_of: &slot_of };
    let mut steps = Vec::new();
    for unit in &units {
        match unit {
            Unit::Segment(nodes) => steps.push(assembly.segment(nodes)?),
            Unit::Special(node) => steps.extend(assembly.special(&lowered.nodes[*node])),
        }
    }
    let logits = assembly.source(&lowered.logits);
    let vocab = lowered.logits.shape.iter().product();
    let Lowered { graph, constants, states, positions, .. } = lowered;
    Ok(Incremental { graph, constants, steps, slots, states, logits, vocab, positions })
}

/// The order of work. A stateless node waits until another kind of node needs one of those that wait.
fn gather(lowered: &Lowered) -> (Vec<Unit>, Vec<usize>) {
    let mut units = Vec::new();
    let mut unit_of = vec![usize::MAX; lowered.nodes.len()];
    let mut waiting: Vec<usize> = Vec::new();
    let flush = |waiting: &mut Vec<usize>, units: &mut Vec<Unit>, unit_of: &mut Vec<usize>| {
        if !waiting.is_empty() {
            waiting.iter().for_each(|node| unit_of[*node] = units.len());
            units.push(Unit::Segment(std::mem::take(waiting)));
        }
    };
    for (idx, node) in lowered.nodes.iter().enumerate() {
        if let Kind::Op(_) = node.kind {
            waiting.push(idx);
            continue;
        }
        let waits = |input: &Operand| matches!(input.from, From::Node(from) if waiting.contains(&from));
        if node.inputs.iter().any(waits) {
            flush(&mut waiting, &mut units, &mut unit_of);
        }
        unit_of[idx] = units.len();
        units.push(Unit::Special(idx));
    }
    flush(&mut waiting, &mut units, &mut unit_of);
    (units, unit_of)
}

struct Assembly<'a> {
    nodes: &'a [Node],
    slot_of: &'a [Option<usize>],
}

impl Assembly<'_> {
    fn source(&self, operand: &Operand) -> Source {
        match &operand.from {
            From::Node(node) => Source::Slot(self.slot_of[*node].expect("what others read has a slot")),
            From::Source(source) => source.clone(),
            From::Scalar(number) => unreachable!("the number {number} was written out"),
        }
    }

    fn segment(&self, members: &[usize]) -> Result<Step, NotIncremental> {
        let mut segment =
            Segment { assembly: self, graph: Graph::new(), inputs: Vec::new(), values: BTreeMap::new() };
        for idx in members {
            segment.add(*idx)?;
        }
        let values = &segment.values;
        let outputs = members.iter().filter_map(|idx| self.slot_of[*idx].map(|slot| (values[idx], slot)));
        let outputs = outputs.collect();
        Ok(Step::Segment { outputs, graph: segment.graph, inputs: segment.inputs })
    }

    fn special(&self, node: &Node) -> Option<Step> {
        let x = |k: usize| self.source(&node.inputs[k]);
        let dims = |k: usize| {
            let shape = &node.inputs[k].shape;
            (shape[shape.len() - 2], shape[shape.len() - 1])
        };
        let out = || {
            let idx = self.nodes.iter().position(|n| std::ptr::eq(n, node)).expect("a node of this list");
            self.slot_of[idx].expect("what is no segment has a slot")
        };
        let len = node.shape.iter().product();
        Some(match &node.kind {
            Kind::Token | Kind::Op(_) => return None,
            Kind::Linear { weight, transposed, rows, k, n } => Step::Linear {
                x: x(0),
                weight: *weight,
                transposed: *transposed,
                rows: *rows,
                k: *k,
                n: *n,
                out: out(),
            },
            Kind::Rope { ahead, positions, base, inverse } => Step::Rope {
                x: x(0),
                ahead: *ahead,
                positions: *positions,
                heads: dims(0).0,
                head_dim: dims(0).1,
                base: *base,
                inverse: *inverse,
                out: out(),
            },
            Kind::Attention { state, window, scale } => Step::Attention {
                q: x(0),
                k: x(1),
                v: x(2),
                state: *state,
                heads: dims(0).0,
                kv_heads: dims(1).0,
                head_dim: dims(0).1,
                window: *window,
                scale: *scale,
                out: out(),
            },
            Kind::Scan { state } => Step::Scan { a: x(0), x: x(1), state: *state, len, out: out() },
            Kind::Softmax { window } => {
                let positions = dims(0).1;
                Step::Softmax { x: x(0), rows: len / positions, positions, window: *window, out: out() }
            }
            Kind::Pick { ranges } => {
                let cases = ranges.iter().enumerate().map(|(k, (from, to))| (*from, *to, x(k))).collect();
                Step::Pick { cases, len, out: out() }
            }
            Kind::Remember { state, at } => Step::Remember { x: x(0), state: *state, at: *at },
        })
    }
}

/// A graph in the making.
struct Segment<'a> {
    assembly: &'a Assembly<'a>,
    graph: Graph,
    inputs: Vec<Source>,
    values: BTreeMap<usize, ValueId>,
}

impl Segment<'_> {
    fn add(&mut self, idx: usize) -> Result<(), NotIncremental> {
        let node = &self.assembly.nodes[idx];
        let Kind::Op(op) = &node.kind else { unreachable!("segments hold operations") };
        self.graph.set_origin(&node.instr.origin);
        let misfit = |error: crate::graph::ShapeError| NotIncremental::new(&node.instr, error.because);
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for operand in &node.inputs {
            let value = self.read(operand);
            let fits = self.graph.shape(value) == operand.shape;
            let shape = operand.shape.clone();
            let number = matches!(operand.from, From::Scalar(_));
            let shaped = if number { Op::Expand { shape } } else { Op::Reshape { shape } };
            inputs.push(if fits { value } else { self.graph.add(shaped, &[value]).map_err(misfit)? });
        }
        let value = self.graph.add(op.clone(), &inputs).map_err(misfit)?;
        if self.graph.shape(value) != node.shape {
            return Err(NotIncremental::new(&node.instr, "its shape depends on the positions"));
        }
        self.values.insert(idx, value);
        Ok(())
    }

    fn read(&mut self, operand: &Operand) -> ValueId {
        match &operand.from {
            From::Scalar(number) => return self.graph.constant(*number),
            From::Node(node) => {
                if let Some(value) = self.values.get(node) {
                    return *value;
                }
            }
            From::Source(_) => {}
        }
        let source = self.assembly.source(operand);
        if let Some(known) = self.inputs.iter().position(|input| *input == source) {
            return self.graph.inputs[known].value;
        }
        self.inputs.push(source);
        let name = format!("operand {}", self.inputs.len());
        self.graph.input(&name, InputKind::Param, &operand.shape, operand.dtype)
    }
}
