//! Writes the program over rows of a group of values.

use super::Loc;
use super::fuse::{broadcast_pattern, root};
use super::group::Group;
use super::halves::{Halves, Stored};
use crate::kernels::map::Pattern;
use crate::kernels::row_program::{RowInput, RowInstr, RowOperand, RowProgram, RowRope};
use pawl_graph::{Binary, Graph, Op, ValueId};
use std::collections::BTreeMap;

/// Where each value lies; asked only for what does.
type Places<'a> = &'a dyn Fn(ValueId) -> Loc;

pub(super) struct RowWriter<'a> {
    graph: &'a Graph,
    /// Values that are computed in the program.
    inline: &'a [bool],
    place: Places<'a>,
    /// Of rotations.
    tables: &'a BTreeMap<ValueId, usize>,
    /// Elements of a wide value.
    wide_len: usize,
    program: RowProgram,
    reads: Vec<Loc>,
    seen: Vec<(ValueId, RowOperand)>,
}

impl RowProgram {
    /// Stores what a register holds.
    pub(super) fn store(&mut self, register: usize, stored: Stored) {
        if stored != Stored::Halves {
            self.outputs.push(register);
        }
        if stored != Stored::Floats {
            self.halves.push(register);
        }
    }
}

impl<'a> RowWriter<'a> {
    /// The program of a group over rows of `c`, and what it reads.
    pub(super) fn write(
        graph: &'a Graph,
        inline: &'a [bool],
        group: &Group,
        c: usize,
        place: Places<'a>,
        halves: &Halves,
        tables: &'a BTreeMap<ValueId, usize>,
    ) -> (RowProgram, Vec<Loc>) {
        let mut writer = RowWriter {
            graph,
            inline,
            place,
            tables,
            wide_len: group.form.len(),
            program: RowProgram { c, ..RowProgram::default() },
            reads: Vec::new(),
            seen: Vec::new(),
        };
        for value in &group.values {
            let operand = writer.operand(*value);
            if group.stored.contains(value) {
                let RowOperand::Register(k) = operand else { unreachable!("the group computes it") };
                writer.program.store(k, halves.of(*value));
            }
        }
        (writer.program, writer.reads)
    }

    fn len(&self, value: ValueId) -> usize {
        self.graph.values[value.idx()].len()
    }

    fn is_wide(&self, value: ValueId) -> bool {
        self.len(value) == self.wide_len
    }

    /// The operand that yields `value` in the order of the value itself.
    fn operand(&mut self, value: ValueId) -> RowOperand {
        let value = root(self.graph, value);
        if let Some((_, operand)) = self.seen.iter().find(|(v, _)| *v == value) {
            return *operand;
        }
        let instr = self.graph.producer(value);
        match &instr.op {
            Op::Const(number) => RowOperand::Const(*number),
            Op::Expand { .. } if self.len(instr.inputs[0]) == self.len(value) => {
                self.operand(instr.inputs[0])
            }
            Op::Expand { shape } => {
                let pattern = broadcast_pattern(shape, self.graph.shape(instr.inputs[0]));
                self.broadcast(instr.inputs[0], pattern, self.is_wide(value))
            }
            _ if self.inline[value.idx()] => self.compute(value),
            _ => self.stored(value, Pattern::Full, self.is_wide(value)),
        }
    }

    /// Appends the instruction of a value.
    fn compute(&mut self, value: ValueId) -> RowOperand {
        let graph = self.graph;
        let instr = graph.producer(value);
        let made = match instr.op {
            Op::Unary(op) => RowInstr::Unary(op, self.operand(instr.inputs[0])),
            Op::Binary(op) => RowInstr::Binary(op, self.side(value, 0), self.side(value, 1)),
            Op::Reduce { kind, .. } => RowInstr::Reduce(kind, self.in_memory(instr.inputs[0])),
            Op::RmsNorm { eps } => RowInstr::RmsNorm(eps, self.in_memory(instr.inputs[0])),
            Op::RmsNormBackward => {
                let [dy, x, rstd] = [0, 1, 2].map(|k| self.in_memory(instr.inputs[k]));
                RowInstr::RmsNormBackward(dy, x, rstd)
            }
            Op::Rope { inverse, .. } => {
                let (table, heads) = (self.tables[&value], graph.shape(value)[2]);
                RowInstr::Rope(RowRope { table, heads, inverse }, self.in_memory(instr.inputs[0]))
            }
            _ => unreachable!("{} is no part of a program over rows", instr.op.name()),
        };
        let first = self.program.registers.len();
        self.program.instrs.push((first, made));
        for (k, out) in instr.outputs.iter().enumerate() {
            self.program.registers.push(self.is_wide(*out));
            self.seen.push((*out, RowOperand::Register(first + k)));
        }
        RowOperand::Register(first + graph.values[value.idx()].output_idx)
    }

    /// Operand k of an elementwise operation of two.
    fn side(&mut self, value: ValueId, k: usize) -> RowOperand {
        let input = self.graph.producer(value).inputs[k];
        if self.len(input) == self.len(value) {
            return self.operand(input);
        }
        let pattern = broadcast_pattern(self.graph.shape(value), self.graph.shape(input));
        self.broadcast(input, pattern, self.is_wide(value))
    }

    fn broadcast(&mut self, source: ValueId, pattern: Pattern, wide: bool) -> RowOperand {
        let source = root(self.graph, source);
        let instr = self.graph.producer(source);
        match &instr.op {
            Op::Const(number) => RowOperand::Const(*number),
            Op::Expand { .. } if self.len(instr.inputs[0]) == 1 => {
                self.broadcast(instr.inputs[0], Pattern::Scalar, wide)
            }
            Op::Expand { .. } if self.len(instr.inputs[0]) == self.len(source) => {
                self.broadcast(instr.inputs[0], pattern, wide)
            }
            // A number for each row, which the planner has checked to be what the pattern says.
            _ if self.inline[source.idx()] => self.operand(source),
            _ => self.stored(source, pattern, wide),
        }
    }

    fn stored(&mut self, value: ValueId, pattern: Pattern, wide: bool) -> RowOperand {
        let pattern = if self.len(value) == 1 { Pattern::Scalar } else { pattern };
        let (loc, input) = ((self.place)(value), RowInput { pattern, wide });
        let known = (0..self.reads.len()).find(|k| self.reads[*k] == loc && self.program.inputs[*k] == input);
        RowOperand::Input(known.unwrap_or_else(|| {
            self.reads.push(loc);
            self.program.inputs.push(input);
            self.reads.len() - 1
        }))
    }

    /// The same as an operand of as many numbers as the value: numbers and broadcasts are written out.
    fn in_memory(&mut self, value: ValueId) -> RowOperand {
        let (operand, wide) = (self.operand(value), self.is_wide(value));
        let is_whole = match operand {
            RowOperand::Const(_) => false,
            RowOperand::Register(k) => self.program.registers[k] == wide,
            RowOperand::Input(k) => self.program.inputs[k].pattern == Pattern::Full,
        };
        if is_whole {
            return operand;
        }
        let out = self.program.registers.len();
        self.program.registers.push(wide);
        self.program.instrs.push((out, RowInstr::Binary(Binary::Mul, operand, RowOperand::Const(1.0))));
        RowOperand::Register(out)
    }
}
