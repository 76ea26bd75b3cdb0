//! A program in independent parts: the updates of parameters that share nothing but schedules.
//!
//! A part of little work runs on one thread while other threads run others: its tensors stay in that thread's
//! caches, and nothing waits between its kernels. A part that is a good share of the whole gets all threads.
//! Either way its bits are the same.

use crate::buffer::Buffer;
use crate::engine::{Engine, Hands};
use crate::exec::{Memory, run_round};
use crate::kernels::Precision;
use crate::plan::{Output, Plan};
use crate::pool::SharedMut;
use crate::profile::work;
use pawl_graph::{Graph, ValueId};
use std::collections::BTreeMap;

/// Floating-point operations that take as long as a byte to or from memory, about, on all machines of interest.
const FLOPS_PER_BYTE: f64 = 10.0;

/// The compiled parts and the memory they run in.
pub struct Parts {
    /// Run one after another on all threads.
    together: Vec<Plan>,
    /// Run side by side, the longest first.
    alone: Vec<Plan>,
    /// One for each thread.
    arenas: Vec<Buffer>,
    pointers: Vec<*mut f32>,
}

impl Parts {
    /// Compiles what `outputs` need; see [`Plan::compile`]. What one part writes no other part reads.
    pub fn new(
        graph: &Graph,
        inputs: &[usize],
        outputs: &[Output],
        engine: &Engine,
        precision: Precision,
    ) -> Parts {
        let target = engine.target(precision, false);
        let groups = independent(graph, inputs, outputs);
        let compile = |outputs: &[Output], num_threads| {
            let plan = Plan::compile(graph, inputs, outputs, crate::Target { num_threads, ..target });
            (cost(&plan), plan)
        };
        let mut alone: Vec<(f64, Plan)> = groups.iter().map(|outputs| compile(outputs, 1)).collect();
        let whole: f64 = alone.iter().map(|(cost, _)| cost).sum();
        let mut together = Vec::new();
        for (outputs, (cost, plan)) in groups.iter().zip(&mut alone) {
            if target.num_threads > 1 && 2.0 * *cost * target.num_threads as f64 > whole {
                together.push(compile(outputs, target.num_threads).1);
                (*cost, plan.steps) = (0.0, Vec::new());
            }
        }
        alone.retain(|(_, plan)| !plan.steps.is_empty());
        alone.sort_by(|a, b| b.0.total_cmp(&a.0));
        let alone: Vec<Plan> = alone.into_iter().map(|(_, plan)| plan).collect();
        let longest = |plans: &[Plan]| plans.iter().map(|plan| plan.arena_len).max().unwrap_or(0);
        let of_one = longest(&alone);
        let len = |worker: usize| if worker == 0 { of_one.max(longest(&together)) } else { of_one };
        let arenas = (0..target.num_threads).map(|worker| Buffer::zeros(len(worker))).collect();
        Parts { together, alone, arenas, pointers: Vec::new() }
    }

    /// Number of parts.
    pub fn num_parts(&self) -> usize {
        self.together.len() + self.alone.len()
    }

    /// Bytes of memory beside the buffers.
    pub fn memory_bytes(&self) -> usize {
        4 * self.arenas.iter().map(Buffer::len).sum::<usize>()
    }

    /// Runs every part once.
    pub fn run(&mut self, engine: &Engine, buffers: &mut [Buffer]) {
        for (buffer, len) in self.together.iter().chain(&self.alone).flat_map(|plan| &plan.buffer_lens) {
            assert_eq!(buffers[*buffer].len(), *len, "buffer {buffer} has another length than planned");
        }
        // Grows in the first run and is refilled in later ones.
        self.pointers.clear();
        self.pointers.extend(buffers.iter_mut().map(|buffer| buffer.floats_mut().as_mut_ptr()));
        let shared = Shared { buffers: &self.pointers };
        let arena = self.arenas[0].floats_mut().as_mut_ptr();
        self.together.iter().for_each(|plan| shared.run(engine.together(), plan, arena));
        let (alone, arenas) = (&self.alone, SharedMut::new(&mut self.arenas));
        engine.pool().run(alone.len(), &|part, worker| {
            // SAFETY: a worker runs one part at a time.
            let arena = unsafe { &mut arenas.part(worker, 1)[0] };
            shared.run(engine.alone(), &alone[part], arena.floats_mut().as_mut_ptr());
        });
    }
}

/// Buffers of which each part writes its own.
struct Shared<'a> {
    buffers: &'a [*mut f32],
}

// SAFETY: no part reads or writes what another one writes.
unsafe impl Sync for Shared<'_> {}

impl Shared<'_> {
    fn run(&self, hands: Hands<'_>, plan: &Plan, arena: *mut f32) {
        let memory = Memory { arena, kept: std::ptr::null_mut(), buffers: self.buffers };
        run_round(hands, plan, memory, 0);
    }
}

fn cost(plan: &Plan) -> f64 {
    let of_step = |(flops, bytes)| flops + FLOPS_PER_BYTE * bytes;
    plan.steps.iter().map(|step| of_step(work(&step.kernel))).sum()
}

/// The outputs in groups, in the order of their first: two are in one group if they share anything that is
/// computed, or any tensor, or if one overwrites what the other reads. Numbers that nothing overwrites are free
/// to all, and so is what is computed from them alone.
fn independent(graph: &Graph, inputs: &[usize], outputs: &[Output]) -> Vec<Vec<Output>> {
    let needed = graph.needed(&outputs.iter().map(|output| output.value).collect::<Vec<_>>());
    let mut buffer_of: BTreeMap<ValueId, usize> = BTreeMap::new();
    buffer_of.extend(graph.inputs.iter().zip(inputs).map(|(input, buffer)| (input.value, *buffer)));
    let written = |buffer: &usize| outputs.iter().any(|output| output.buffer == *buffer);
    let mut groups = Groups((0..graph.values.len()).collect());
    let mut free = vec![false; graph.values.len()];
    for (instr, needed) in graph.instrs.iter().zip(needed) {
        let of_numbers = instr.inputs.iter().all(|v| free[v.idx()]);
        for out in &instr.outputs {
            free[out.idx()] = match buffer_of.get(out) {
                Some(buffer) => graph.values[out.idx()].len() == 1 && !written(buffer),
                None => of_numbers,
            };
            groups.join(instr.outputs[0], *out);
        }
        for input in instr.inputs.iter().filter(|v| needed && !free[v.idx()]) {
            groups.join(instr.outputs[0], *input);
        }
    }
    for output in outputs {
        for (input, _) in buffer_of.iter().filter(|(_, buffer)| **buffer == output.buffer) {
            groups.join(output.value, *input);
        }
    }
    let mut found: Vec<(usize, Vec<Output>)> = Vec::new();
    for output in outputs {
        let group = groups.of(output.value.idx());
        match found.iter_mut().find(|(known, _)| *known == group) {
            Some((_, outputs)) => outputs.push(*output),
            None => found.push((group, vec![*output])),
        }
    }
    found.into_iter().map(|(_, outputs)| outputs).collect()
}

/// Values in groups: each points to another of its group, the first to itself.
struct Groups(Vec<usize>);

impl Groups {
    fn of(&mut self, mut value: usize) -> usize {
        while self.0[value] != value {
            self.0[value] = self.0[self.0[value]];
            value = self.0[value];
        }
        value
    }

    fn join(&mut self, a: ValueId, b: ValueId) {
        let (a, b) = (self.of(a.idx()), self.of(b.idx()));
        self.0[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pawl_graph::{Binary, DType, InputKind, Op, Reduction};

    /// w - rate * g for three parameters; the third's gradient is also scaled by the sum of the second's.
    fn updates() -> (Graph, Vec<usize>, Vec<Output>) {
        let mut graph = Graph::new();
        let rate = graph.input("rate", InputKind::Scalar, &[], DType::F32);
        let half = graph.constant(0.5);
        let rate = graph.add(Op::Binary(Binary::Mul), &[rate, half]).unwrap();
        let mut values = Vec::new();
        let mut sums = Vec::new();
        for (k, name) in ["a", "b", "c"].into_iter().enumerate() {
            let w = graph.input(name, InputKind::Param, &[8], DType::F32);
            let mut g = graph.input(name, InputKind::Grad, &[8], DType::F32);
            let sum = graph.add(Op::Reduce { kind: Reduction::Sum, axis: 0 }, &[g]).unwrap();
            sums.push(sum);
            if k == 2 {
                g = graph.add(Op::Binary(Binary::Mul), &[g, sums[1]]).unwrap();
            }
            let step = graph.add(Op::Binary(Binary::Mul), &[g, rate]).unwrap();
            values.push(graph.add(Op::Binary(Binary::Sub), &[w, step]).unwrap());
        }
        let inputs: Vec<usize> = (0..7).collect();
        let outputs = values.into_iter().zip([1, 3, 5]);
        let outputs = outputs.map(|(value, buffer)| Output { value, buffer, accumulate: false });
        (graph, inputs, outputs.collect())
    }

    #[test]
    fn outputs_that_share_only_numbers_are_independent() {
        let (graph, inputs, outputs) = updates();
        let groups = independent(&graph, &inputs, &outputs);
        let buffers: Vec<Vec<usize>> = groups.iter().map(|g| g.iter().map(|o| o.buffer).collect()).collect();
        assert_eq!(buffers, [vec![1], vec![3, 5]]);
        // A number that is overwritten is nobody's to read in passing.
        let mut outputs = outputs;
        outputs.push(Output { value: outputs[0].value, buffer: 0, accumulate: false });
        assert_eq!(independent(&graph, &inputs, &outputs).len(), 1);
    }

    #[test]
    fn parts_compute_what_one_program_computes() {
        let (graph, inputs, outputs) = updates();
        let filled = || -> Vec<Buffer> {
            let lens = [1, 8, 8, 8, 8, 8, 8];
            let mut buffers: Vec<Buffer> = lens.into_iter().map(Buffer::zeros).collect();
            for (k, buffer) in buffers.iter_mut().enumerate() {
                buffer.floats_mut().iter_mut().enumerate().for_each(|(i, x)| *x = (k * 8 + i) as f32 * 0.1);
            }
            buffers
        };
        let mut want = filled();
        let one = Engine::new(1);
        crate::Program::new(&graph, &inputs, &outputs, &one).run(&one, &mut want, 0);
        for num_threads in 1..4 {
            let engine = Engine::new(num_threads);
            let mut parts = Parts::new(&graph, &inputs, &outputs, &engine, Precision::F32);
            assert_eq!(parts.num_parts(), 2);
            let mut got = filled();
            parts.run(&engine, &mut got);
            assert!(got.iter().zip(&want).all(|(got, want)| got.floats() == want.floats()));
        }
    }
}
