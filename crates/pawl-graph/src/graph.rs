//! A program as a flat list of instructions over values of static shape, and shape inference.
//!
//! Instructions are appended in dependency order, so every pass is one loop. A value that nobody
//! reads costs nothing: planners keep what the outputs need ([`Graph::needed`]).

use crate::infer::infer;
use crate::op::{DType, Op};

/// A value of a graph: an index into [`Graph::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

impl ValueId {
    /// Position in [`Graph::values`].
    pub fn idx(self) -> usize {
        self.0 as usize
    }
}

/// Shape and element type of a value, and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Extents, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: DType,
    /// Index of the instruction that makes it.
    pub instr: usize,
    /// Which of that instruction's outputs it is.
    pub output_idx: usize,
}

impl Value {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether an extent is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One step of the program.
#[derive(Clone, Debug, PartialEq)]
pub struct Instr {
    /// What to do.
    pub op: Op,
    /// To what.
    pub inputs: Vec<ValueId>,
    /// Giving what.
    pub outputs: Vec<ValueId>,
    /// Where the recipe asked for it, `file:line`; empty for what autodiff added.
    pub origin: String,
}

/// What a leaf stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum InputKind {
    /// A trainable tensor.
    Param,
    /// Token ids (B, T).
    Tokens,
    /// Next-token ids (B, T), -1 where there is none. Only a training loss may see them.
    Targets,
    /// A number for each target (B, T) that the host of a lesson gives by name, such as a reward. Only a training
    /// loss may see them.
    Signal,
    /// Two integers that key dropout: run and step.
    Rng,
    /// Gradient of the parameter of the same name.
    Grad,
    /// Optimizer state, zero at the start; named `param#state`.
    State,
    /// A number that the host sets each step, such as the learning-rate multiplier.
    Scalar,
}

/// A leaf of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Unique among inputs of its kind: a parameter path such as `blocks.0.attn.q`.
    pub name: String,
    /// What it stands for.
    pub kind: InputKind,
    /// Its value.
    pub value: ValueId,
}

/// A list of instructions, leaves first used first.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Shapes and origins of all values.
    pub values: Vec<Value>,
    /// The program.
    pub instrs: Vec<Instr>,
    /// Its leaves.
    pub inputs: Vec<Input>,
    origin: String,
}

/// Why an instruction cannot be added. `because` names parameter paths and shapes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{because}")]
pub struct ShapeError {
    /// The reason.
    pub because: String,
    /// What would mend it, when that is known.
    pub hint: Option<String>,
}

impl ShapeError {
    pub(crate) fn new(because: impl Into<String>) -> ShapeError {
        ShapeError { because: because.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> ShapeError {
        self.hint = Some(hint.into());
        self
    }
}

impl Graph {
    /// An empty program.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// Says where the instructions added from now on come from, `file:line`.
    pub fn set_origin(&mut self, origin: &str) {
        if self.origin != origin {
            self.origin = origin.to_string();
        }
    }

    /// Declares a leaf. Asserts that the name is new for its kind: callers look it up first.
    pub fn input(&mut self, name: &str, kind: InputKind, shape: &[usize], dtype: DType) -> ValueId {
        assert!(self.find_input(name, &kind).is_none(), "input {name} declared twice");
        let value = self.push(Op::Input(self.inputs.len()), Vec::new(), vec![(shape.to_vec(), dtype)])[0];
        self.inputs.push(Input { name: name.to_string(), kind, value });
        value
    }

    /// The leaf of that name and kind.
    pub fn find_input(&self, name: &str, kind: &InputKind) -> Option<ValueId> {
        self.inputs.iter().find(|i| i.kind == *kind && i.name == name).map(|i| i.value)
    }

    /// Appends an instruction and returns its outputs.
    pub fn add_all(&mut self, op: Op, inputs: &[ValueId]) -> Result<Vec<ValueId>, ShapeError> {
        let outputs = infer(self, &op, inputs)?;
        Ok(self.push(op, inputs.to_vec(), outputs))
    }

    /// Appends an instruction and returns its first output.
    pub fn add(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId, ShapeError> {
        Ok(self.add_all(op, inputs)?[0])
    }

    fn push(&mut self, op: Op, inputs: Vec<ValueId>, outputs: Vec<(Vec<usize>, DType)>) -> Vec<ValueId> {
        let instr = self.instrs.len();
        let mut ids = Vec::with_capacity(outputs.len());
        for (output_idx, (shape, dtype)) in outputs.into_iter().enumerate() {
            ids.push(ValueId(
                u32::try_from(self.values.len()).expect("recipes are limited far below 2^32 values"),
            ));
            self.values.push(Value { shape, dtype, instr, output_idx });
        }
        self.instrs.push(Instr { op, inputs, outputs: ids.clone(), origin: self.origin.clone() });
        ids
    }

    /// Shape of a value.
    pub fn shape(&self, value: ValueId) -> &[usize] {
        &self.values[value.idx()].shape
    }

    /// Element type of a value.
    pub fn dtype(&self, value: ValueId) -> DType {
        self.values[value.idx()].dtype
    }

    /// The instruction that makes a value.
    pub fn producer(&self, value: ValueId) -> &Instr {
        &self.instrs[self.values[value.idx()].instr]
    }

    /// A value in words: its parameter path, or the operation with the nearest parameter it reads.
    pub fn describe(&self, value: ValueId) -> String {
        let instr = self.producer(value);
        if let Op::Input(idx) = instr.op {
            return self.inputs[idx].name.clone();
        }
        match self.nearest_param(value) {
            Some(name) => format!("{} of {name}", instr.op.name()),
            None => instr.op.name().to_string(),
        }
    }

    /// The parameter reached from `value` by the fewest steps back, for messages.
    fn nearest_param(&self, value: ValueId) -> Option<&str> {
        let mut frontier = vec![value];
        for _ in 0..8 {
            let mut next = Vec::new();
            for id in frontier {
                let instr = self.producer(id);
                if let Op::Input(idx) = instr.op
                    && self.inputs[idx].kind == InputKind::Param
                {
                    return Some(&self.inputs[idx].name);
                }
                next.extend(instr.inputs.iter().rev().copied());
            }
            next.truncate(64);
            frontier = next;
        }
        None
    }

    /// Marks the instructions that `outputs` depend on.
    pub fn needed(&self, outputs: &[ValueId]) -> Vec<bool> {
        let mut needed = vec![false; self.instrs.len()];
        for output in outputs {
            needed[self.values[output.idx()].instr] = true;
        }
        for idx in (0..self.instrs.len()).rev() {
            if needed[idx] {
                for input in &self.instrs[idx].inputs {
                    needed[self.values[input.idx()].instr] = true;
                }
            }
        }
        needed
    }
}
