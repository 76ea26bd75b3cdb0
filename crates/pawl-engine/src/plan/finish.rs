//! The last of a plan: results put into the caller's buffers, and every block given its place in the arena.

use super::build::Builder;
use super::{Adds, Kernel, Loc, Output, Plan, Products, Step};
use super::{memory, tail};
use crate::kernels::map::{Operand, Pattern};

impl Builder<'_> {
    /// Copies a value to where it goes.
    pub(super) fn output(&mut self, output: &Output) {
        let from = self.place(output.value);
        let to = Loc::Buffer { buffer: output.buffer, offset: 0 };
        let len = self.len(output.value);
        let kernel = if output.accumulate {
            Kernel::Accumulate { len, adds: Adds::ToRounds }
        } else {
            Kernel::Copy { axes: vec![(len, 1, 1)] }
        };
        self.push(kernel, vec![from], vec![to]);
    }

    pub(super) fn finish(mut self, inputs: &[usize], outputs: &[Output]) -> Plan {
        let mut buffer_lens: Vec<(usize, usize)> =
            self.graph.inputs.iter().zip(inputs).map(|(i, buffer)| (*buffer, self.len(i.value))).collect();
        buffer_lens.extend(outputs.iter().map(|o| (o.buffer, self.len(o.value))));
        let first_output = self.steps.len() - outputs.len();
        for idx in (first_output..self.steps.len()).rev() {
            self.write_directly(idx);
        }
        tail::join(&mut self.steps, &mut self.lens, self.target.num_threads);
        let arena_len = memory::assign(&mut self.steps, &self.lens);
        Plan {
            precision: self.target.precision,
            once: self.packing.once,
            steps: self.steps,
            arena_len,
            kept_len: self.packing.len,
            tables: self.tables,
            buffer_lens,
        }
    }

    /// Drops a final copy of a whole block into a buffer by letting the block be that buffer, where no step
    /// still needs what the buffer held.
    fn write_directly(&mut self, copy: usize) {
        let (from, to) = (self.steps[copy].reads[0], self.steps[copy].writes[0]);
        let (Loc::Arena { base, offset: 0 }, Loc::Buffer { buffer, .. }) = (from, to) else { return };
        let len = match &self.steps[copy].kernel {
            Kernel::Copy { axes } => axes[0].0,
            Kernel::Accumulate { len, .. } => *len,
            _ => return,
        };
        if self.lens[base] != len {
            return;
        }
        let accumulates = matches!(self.steps[copy].kernel, Kernel::Accumulate { .. });
        let in_block = |loc: &Loc| matches!(loc, Loc::Arena { base: b, .. } if *b == base);
        let in_buffer = |loc: &Loc| matches!(loc, Loc::Buffer { buffer: b, .. } if *b == buffer);
        let others = |idx: &usize| *idx != copy;
        let writers: Vec<usize> =
            (0..self.steps.len()).filter(|i| self.steps[*i].writes.iter().any(in_block)).collect();
        let uses_buffer: Vec<usize> = (0..self.steps.len())
            .filter(others)
            .filter(|i| self.steps[*i].reads.iter().chain(&self.steps[*i].writes).any(in_buffer))
            .collect();
        let Some(first) = writers.first().copied() else { return };
        let clear = uses_buffer
            .iter()
            .all(|i| *i < first || (*i == first && reads_own_element(&self.steps[*i], in_buffer)));
        if !clear {
            return;
        }
        if accumulates {
            let read_later =
                (0..self.steps.len()).filter(others).any(|i| self.steps[i].reads.iter().any(in_block));
            let step = &mut self.steps[first];
            let place = step.writes.iter().position(in_block).expect("it writes the block");
            if writers.len() != 1 || read_later || !adds_to_rounds(&mut step.kernel, place) {
                return;
            }
        }
        for step in &mut self.steps {
            for loc in step.reads.iter_mut().chain(&mut step.writes) {
                if let Loc::Arena { base: b, offset } = *loc
                    && b == base
                {
                    *loc = Loc::Buffer { buffer, offset };
                }
            }
        }
        self.steps.remove(copy);
    }
}

/// Lets a kernel add its result number `place` to what earlier rounds left there, if it can.
fn adds_to_rounds(kernel: &mut Kernel, place: usize) -> bool {
    match kernel {
        Kernel::Gemm(Products { batch: 1, addend: None, adds, .. })
        | Kernel::EmbeddingBackward { adds, .. } => *adds = Adds::ToRounds,
        Kernel::Loop(rows) => {
            let buffer = rows.read_strides.len() + place;
            let is_write = |loc: &Loc| matches!(loc, Loc::Buffer { buffer: b, .. } if *b == buffer);
            let mut writers = rows.body.steps.iter_mut().filter(|step| step.writes.iter().any(is_write));
            let (Some(Step { kernel, .. }), None) = (writers.next(), writers.next()) else { return false };
            match kernel {
                Kernel::Gemm(Products { adds, .. }) | Kernel::Accumulate { adds, .. }
                    if *adds == Adds::ToRounds =>
                {
                    *adds = Adds::ToAllRounds;
                }
                _ => return false,
            }
        }
        _ => return false,
    }
    true
}

/// Whether a step that also writes the buffer reads each of its elements only for that same element.
fn reads_own_element(step: &Step, in_buffer: impl Fn(&Loc) -> bool) -> bool {
    match &step.kernel {
        Kernel::Map { program, .. } => {
            // The result is stored after the tile has been read, unless it is an input itself.
            let whole = |k: usize| program.patterns[k] == Pattern::Full;
            let simple = program.outputs.iter().all(|o| matches!(o, Operand::Temp(_)));
            simple
                && (0..step.reads.len())
                    .all(|k| !in_buffer(&step.reads[k]) || (whole(k) && starts(&step.reads[k])))
        }
        _ => false,
    }
}

fn starts(loc: &Loc) -> bool {
    matches!(loc, Loc::Buffer { offset: 0, .. })
}
