//! The graphs a recipe gives, with what their leaves and outputs stand for.

use crate::init::Init;
use pawl_graph::{Graph, ValueId};

/// A trainable tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamDecl {
    /// Path such as `blocks.0.attn.q`.
    pub name: String,
    /// Extents.
    pub shape: Vec<usize>,
    /// How it starts.
    pub init: Init,
    /// Its leaf in the graph it came with.
    pub value: ValueId,
}

/// Forward pass and loss of one micro-batch.
#[derive(Clone, Debug)]
pub struct TrainGraph {
    /// The program.
    pub graph: Graph,
    /// Token ids (B, T), I32.
    pub tokens: ValueId,
    /// Next-token ids (B, T), I32, -1 where there is none.
    pub targets: ValueId,
    /// Key of dropout (2), I32, when the recipe drops out.
    pub rng: Option<ValueId>,
    /// The scalar that is made small.
    pub loss: ValueId,
    /// Every trainable tensor, in the order in which the recipe asked.
    pub params: Vec<ParamDecl>,
}

/// Cross-entropy as the host measures it.
#[derive(Clone, Debug)]
pub struct LossGraph {
    /// The program.
    pub graph: Graph,
    /// Token ids (B, T), I32.
    pub tokens: ValueId,
    /// Next-token ids (B, T), I32, -1 where there is none.
    pub targets: ValueId,
    /// (B, T, V).
    pub logits: ValueId,
    /// Loss of each token in nats (B * T), 0 where the target is -1.
    pub losses: ValueId,
    /// The tensors it reads.
    pub params: Vec<ParamDecl>,
}

/// Logits alone.
#[derive(Clone, Debug)]
pub struct LogitsGraph {
    /// The program.
    pub graph: Graph,
    /// Token ids (B, T), I32.
    pub tokens: ValueId,
    /// (B, T, V).
    pub logits: ValueId,
    /// The tensors it reads.
    pub params: Vec<ParamDecl>,
}

/// Optimizer state of one parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct StateDecl {
    /// `param#state`.
    pub name: String,
    /// Extents; zeros at the start.
    pub shape: Vec<usize>,
    /// Its leaf.
    pub input: ValueId,
    /// Its next value.
    pub value: ValueId,
}

/// One optimizer update of all parameters. Leaves: `Param` and `Grad` by parameter name, `State` by
/// `param#state`, `Scalar` by schedule name.
#[derive(Clone, Debug)]
pub struct UpdateGraph {
    /// The program.
    pub graph: Graph,
    /// New value of each parameter, in the order of the training graph.
    pub updates: Vec<(String, ValueId)>,
    /// States and their new values.
    pub states: Vec<StateDecl>,
    /// What drives each scalar, in the order of the rows of [`crate::Recipe::schedule_table`].
    pub schedules: Vec<ScheduleDecl>,
}

/// A number that follows the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleDecl {
    /// Its leaf of kind `Scalar`: `s0`, `s1`, ...
    pub scalar: String,
    /// Name of the recipe's function; `lr_multiplier` for the one given to `recipe(...)`.
    pub function: String,
}
