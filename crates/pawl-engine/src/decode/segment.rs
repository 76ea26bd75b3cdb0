//! Stateless programs between the other steps of a position, for several lanes at a time: what a kernel costs beside
//! its arithmetic is paid once for all of them. A lane's bits are those of a program for it alone.

use super::desk::Desk;
use super::memory::{Active, Memory};
use crate::engine::{Engine, Hands};
use crate::exec;
use crate::kernels::Precision;
use crate::plan::{Output, Plan};
use pawl_graph::{Graph, Instr, Op, Source, ValueId};

/// Lanes of one program: at the widths of small models they fill the tiles in which kernels work.
const LANES: [usize; 4] = [8, 4, 2, 1];

/// Elements from which on a reduction may be cut into parts, how many depends on the lanes beside it.
const REDUCED_WHOLE: usize = 8192;

/// A segment compiled for some numbers of lanes.
pub(super) struct Segment {
    /// For each of the last of [`LANES`]: for one lane alone if its program takes no more.
    plans: Vec<Plan>,
    inputs: Vec<Operand<Source>>,
    outputs: Vec<Operand<usize>>,
}

/// Where an operand lies, and the elements that a lane has of it.
struct Operand<P> {
    place: P,
    len: usize,
}

impl Segment {
    /// For at most `max_lanes` lanes.
    pub(super) fn new(
        graph: &Graph,
        inputs: &[Source],
        outputs: &[(ValueId, usize)],
        max_lanes: usize,
        engine: &Engine,
    ) -> Segment {
        let own: Vec<bool> = inputs.iter().map(|source| !matches!(source, Source::Constant(_))).collect();
        let values: Vec<ValueId> = outputs.iter().map(|(value, _)| *value).collect();
        let len = |value: ValueId| graph.values[value.idx()].len();
        let whole =
            |instr: &Instr| !matches!(instr.op, Op::Reduce { .. }) || len(instr.inputs[0]) < REDUCED_WHOLE;
        let stackable = graph.instrs.iter().all(whole);
        let mut plans = Vec::new();
        for lanes in LANES {
            if lanes == 1 {
                plans.push(compile(graph, &values, engine));
            } else if let Some(stacked) =
                (stackable && lanes <= max_lanes).then(|| graph.stacked(&values, lanes, &own)).flatten()
            {
                plans.push(compile(&stacked.graph, &stacked.outputs, engine));
            }
        }
        let read = |(source, input): (&Source, &pawl_graph::Input)| Operand {
            place: source.clone(),
            len: len(input.value),
        };
        Segment {
            plans,
            inputs: inputs.iter().zip(&graph.inputs).map(read).collect(),
            outputs: outputs.iter().map(|(value, slot)| Operand { place: *slot, len: len(*value) }).collect(),
        }
    }

    /// Floats that its programs work in.
    pub(super) fn arena_len(&self) -> usize {
        self.plans.iter().map(|plan| plan.arena_len).max().unwrap_or(0)
    }

    /// Floats of operands that do not lie side by side.
    pub(super) fn staging_len(&self) -> usize {
        let lens =
            self.inputs.iter().map(|input| input.len).chain(self.outputs.iter().map(|output| output.len));
        LANES[0] * lens.sum::<usize>()
    }

    /// Buffers of its programs.
    pub(super) fn num_operands(&self) -> usize {
        self.inputs.len() + self.outputs.len()
    }

    /// Elements that a lane reads and writes.
    pub(super) fn work(&self) -> usize {
        self.staging_len() / LANES[0]
    }

    /// Programs that `num` lanes take.
    pub(super) fn num_pieces(&self, num: usize) -> usize {
        let mut left = num;
        let sizes = &LANES[LANES.len() - self.plans.len()..];
        sizes.iter().map(|size| std::mem::replace(&mut left, num % size) / size).sum()
    }

    /// First lane, number of lanes and program of a piece.
    fn piece(&self, num: usize, piece: usize) -> (usize, usize, &Plan) {
        let sizes = &LANES[LANES.len() - self.plans.len()..];
        let (mut first, mut before) = (0, 0);
        for (size, plan) in sizes.iter().zip(&self.plans) {
            let pieces = (num - first) / size;
            if piece < before + pieces {
                return (first + (piece - before) * size, *size, plan);
            }
            (first, before) = (first + pieces * size, before + pieces);
        }
        unreachable!("piece {piece} of {num} lanes")
    }

    /// Runs one piece.
    ///
    /// # Safety
    /// Nothing else uses what the lanes of the piece have in slots that the segment reads or writes.
    pub(super) unsafe fn run(
        &self,
        hands: Hands<'_>,
        memory: &Memory,
        lanes: &[Active],
        piece: usize,
        desk: &mut Desk,
    ) {
        let (first, num, plan) = self.piece(lanes.len(), piece);
        let lanes = &lanes[first..first + num];
        let Desk { arena, staging, pointers, .. } = desk;
        let mut staging = staging.floats_mut();
        let mut stage = |len: usize| {
            let (own, rest) = std::mem::take(&mut staging).split_at_mut(len * num);
            staging = rest;
            own.as_mut_ptr()
        };
        pointers.clear();
        for Operand { place, len } in &self.inputs {
            let at = memory.at(place, &lanes[0]);
            let side_by_side =
                |(k, lane): (usize, &Active)| memory.at(place, lane) == at.wrapping_add(k * len);
            if matches!(place, Source::Constant(_)) || lanes.iter().enumerate().all(side_by_side) {
                pointers.push(at.cast_mut());
                continue;
            }
            let to = stage(*len);
            for (k, lane) in lanes.iter().enumerate() {
                // SAFETY: operands are as long as their values; the stage holds them for all lanes.
                unsafe { std::ptr::copy_nonoverlapping(memory.at(place, lane), to.add(k * len), *len) };
            }
            pointers.push(to);
        }
        let side_by_side = lanes.windows(2).all(|pair| pair[0].is_before(&pair[1]));
        for Operand { place, len } in &self.outputs {
            pointers.push(if side_by_side { memory.slot(*place, &lanes[0]) } else { stage(*len) });
        }
        let arena = arena.floats_mut().as_mut_ptr();
        let planned = exec::Memory { arena, kept: std::ptr::null_mut(), buffers: pointers };
        exec::run_round(hands, plan, planned, 0);
        if !side_by_side {
            for (Operand { place, len }, from) in self.outputs.iter().zip(&pointers[self.inputs.len()..]) {
                for (k, lane) in lanes.iter().enumerate() {
                    // SAFETY: as above, the other way.
                    unsafe {
                        std::ptr::copy_nonoverlapping(from.add(k * len), memory.slot(*place, lane), *len)
                    };
                }
            }
        }
    }
}

/// Operands in the order of the graph's inputs, then `outputs`.
fn compile(graph: &Graph, outputs: &[ValueId], engine: &Engine) -> Plan {
    let num_inputs = graph.inputs.len();
    let inputs: Vec<usize> = (0..num_inputs).collect();
    let output =
        |(k, value): (usize, &ValueId)| Output { value: *value, buffer: num_inputs + k, accumulate: false };
    let outputs: Vec<Output> = outputs.iter().enumerate().map(output).collect();
    let plan = Plan::compile(graph, &inputs, &outputs, engine.target(Precision::F32, false));
    assert!(plan.kept_len == 0 && plan.once.is_empty(), "a segment packs nothing");
    plan
}
