//! What the builtins of one evaluation share: the settings, the declaration, the graph being traced.

use crate::error::{Refusal, refuse};
use crate::init::Init;
use crate::settings::Registry;
use crate::source::Rewritten;
use pawl_graph::{DType, Graph, InputKind, Op, ValueId};
use pawl_record::Settings;
use starlark::any::ProvidesStaticType;
use starlark::codemap::FileSpan;
use starlark::eval::Evaluator;
use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BTreeMap, HashMap};

/// What a recipe says with `recipe(...)`, functions aside.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Declaration {
    pub(crate) seq_len: usize,
    /// Tokens of a training row: `seq_len`, or fewer in a lesson.
    pub(crate) row_len: usize,
    pub(crate) tokens_per_step: usize,
    pub(crate) vocab_size: usize,
    pub(crate) micro_batch: Option<usize>,
    pub(crate) mixture: BTreeMap<String, f64>,
    pub(crate) packing: crate::Packing,
    pub(crate) has_loss: bool,
    pub(crate) has_lr_multiplier: bool,
}

/// What a trace is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Forward pass and loss of training: dropout is on.
    Train,
    /// Logits as evaluation sees them.
    Evaluate,
    /// The optimizer.
    Update,
}

/// A trainable tensor as the recipe asked for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AskedParam {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) init: Init,
    pub(crate) value: ValueId,
}

/// A graph under construction.
pub(crate) struct Trace {
    pub(crate) id: u32,
    pub(crate) purpose: Purpose,
    pub(crate) graph: Graph,
    pub(crate) params: Vec<AskedParam>,
    pub(crate) param_index: HashMap<String, usize>,
    pub(crate) param_elements: usize,
    pub(crate) rng: Option<ValueId>,
    pub(crate) num_dropouts: u32,
    pub(crate) int_constants: HashMap<i32, ValueId>,
    pub(crate) states: Vec<(String, Vec<usize>, ValueId)>,
    /// Name of the function of each schedule.
    pub(crate) schedules: Vec<String>,
}

/// Most instructions of one traced graph. Ten times nanochat's training graph at depth 64.
pub(crate) const MAX_INSTRS: usize = 200_000;
/// Most elements of one tensor: 16 TiB of float32, far above any machine, far below overflow.
pub(crate) const MAX_ELEMENTS: usize = 1 << 42;
/// Most elements of all parameters together: 64 GiB of float32.
pub(crate) const MAX_PARAM_ELEMENTS: usize = 1 << 34;

impl Trace {
    pub(crate) fn new(id: u32, purpose: Purpose) -> Trace {
        Trace {
            id,
            purpose,
            graph: Graph::new(),
            params: Vec::new(),
            param_index: HashMap::new(),
            param_elements: 0,
            rng: None,
            num_dropouts: 0,
            int_constants: HashMap::new(),
            states: Vec::new(),
            schedules: Vec::new(),
        }
    }

    /// Appends an instruction within the limits on graph and tensor size.
    pub(crate) fn add(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId, Refusal> {
        Ok(self.add_all(op, inputs)?[0])
    }

    pub(crate) fn add_all(&mut self, op: Op, inputs: &[ValueId]) -> Result<Vec<ValueId>, Refusal> {
        if self.graph.instrs.len() >= MAX_INSTRS {
            return refuse(format!("the graph has more than {MAX_INSTRS} operations"));
        }
        check_extents(&op)?;
        let outputs = self.graph.add_all(op, inputs)?;
        for output in &outputs {
            elements(self.graph.shape(*output))?;
        }
        Ok(outputs)
    }

    /// The number as a scalar of the graph. A float that float32 cannot hold is refused.
    pub(crate) fn constant(&mut self, value: f64) -> Result<ValueId, Refusal> {
        let narrow = value as f32;
        if !narrow.is_finite() {
            return refuse(format!("the number {value:?} is not finite in float32"));
        }
        self.add(Op::Const(narrow), &[])
    }

    /// The leaf that keys dropout.
    pub(crate) fn rng(&mut self) -> ValueId {
        match self.rng {
            Some(rng) => rng,
            None => {
                let rng = self.graph.input("rng", InputKind::Rng, &[2], DType::I32);
                self.rng = Some(rng);
                rng
            }
        }
    }
}

/// Extents that an operation adds up itself must not overflow before inference sees them.
fn check_extents(op: &Op) -> Result<(), Refusal> {
    match op {
        Op::Expand { shape } | Op::Reshape { shape } => elements(shape).map(|_| ()),
        Op::Iota { n } => elements(&[*n]).map(|_| ()),
        Op::Pad { before, after, .. } => elements(&[before.saturating_add(*after).max(1)]).map(|_| ()),
        Op::Input(_)
        | Op::Const(_)
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Transpose { .. }
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::Reduce { .. }
        | Op::Matmul { .. }
        | Op::RmsNorm { .. }
        | Op::RmsNormBackward
        | Op::Softmax { .. }
        | Op::SoftmaxBackward
        | Op::Rope { .. }
        | Op::Embedding
        | Op::EmbeddingBackward { .. }
        | Op::Attention { .. }
        | Op::AttentionBackward { .. }
        | Op::CrossEntropy
        | Op::CrossEntropyBackward
        | Op::Scan { .. }
        | Op::TopK { .. }
        | Op::Dropout { .. }
        | Op::Detach => Ok(()),
    }
}

/// Number of elements, refused when it is beyond any machine.
pub(crate) fn elements(shape: &[usize]) -> Result<usize, Refusal> {
    let count = shape.iter().try_fold(1usize, |count, extent| count.checked_mul(*extent));
    match count {
        Some(0) => refuse(format!("a tensor of shape {} has no elements", show(shape))),
        Some(count) if count <= MAX_ELEMENTS => Ok(count),
        _ => refuse(format!("a tensor of shape {} is larger than any machine's memory", show(shape))),
    }
}

/// `(8, 256, 64)`
pub(crate) fn show(shape: &[usize]) -> String {
    let parts: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("({})", parts.join(", "))
}

/// Shared state of the builtins, reached through the evaluator.
#[derive(ProvidesStaticType)]
pub(crate) struct Context {
    pub(crate) recipe_file: String,
    pub(crate) settings: RefCell<Registry>,
    pub(crate) declaration: RefCell<Option<Declaration>>,
    pub(crate) trace: RefCell<Option<Trace>>,
    pub(crate) num_traces: RefCell<u32>,
    /// Items touched by guarded builtins in the evaluation in progress.
    pub(crate) work: Cell<u64>,
    /// Where the last guarded builtin was called: the interpreter does not say where a limit was met.
    pub(crate) last_place: RefCell<Option<FileSpan>>,
    sources: RefCell<HashMap<String, Rewritten>>,
}

impl Context {
    pub(crate) fn new(recipe_file: &str, depth: Option<u64>, values: Settings) -> Context {
        Context {
            recipe_file: recipe_file.to_string(),
            settings: RefCell::new(Registry::new(depth, values)),
            declaration: RefCell::new(None),
            trace: RefCell::new(None),
            num_traces: RefCell::new(0),
            work: Cell::new(0),
            last_place: RefCell::new(None),
            sources: RefCell::new(HashMap::new()),
        }
    }

    pub(crate) fn remember(&self, file: &str, source: Rewritten) {
        self.sources.borrow_mut().insert(file.to_string(), source);
    }

    /// Line and column in the text as its author wrote it, 1-based.
    pub(crate) fn position(&self, place: &FileSpan) -> (u32, u32) {
        match self.sources.borrow().get(place.filename()) {
            Some(source) => source.position(place.span.begin().get() as usize),
            None => {
                let begin = place.resolve_span().begin;
                (begin.line as u32 + 1, begin.column as u32 + 1)
            }
        }
    }

    /// The trace in progress, its origin set to the statement being run.
    pub(crate) fn tracing<'a>(
        &'a self,
        eval: &Evaluator<'_, '_, '_>,
        what: &str,
    ) -> Result<RefMut<'a, Trace>, Refusal> {
        let origin = self.origin(eval);
        let trace = self.trace.borrow_mut();
        match RefMut::filter_map(trace, Option::as_mut) {
            Ok(mut trace) => {
                trace.graph.set_origin(&origin);
                Ok(trace)
            }
            Err(_) => refuse(format!(
                "{what} makes a tensor: it belongs in model, loss or optimizer, not at the top level"
            )),
        }
    }

    /// `file:line` of the innermost call that is in the recipe, or of the innermost call.
    fn origin(&self, eval: &Evaluator<'_, '_, '_>) -> String {
        let mut deepest = None;
        for n in 0..eval.call_stack_count() {
            let Some(place) = eval.call_stack_nth_location(n) else { continue };
            if place.filename() == self.recipe_file {
                return format!("{}:{}", self.recipe_file, place.resolve_span().begin.line + 1);
            }
            if deepest.is_none() {
                deepest = Some(place);
            }
        }
        deepest.map_or_else(String::new, |place| {
            format!("{}:{}", place.filename(), place.resolve_span().begin.line + 1)
        })
    }
}

/// The context of an evaluation.
pub(crate) fn context<'a>(eval: &Evaluator<'_, 'a, '_>) -> &'a Context {
    eval.extra
        .and_then(|extra| extra.downcast_ref::<Context>())
        .expect("every evaluator of this crate is made with a context")
}
