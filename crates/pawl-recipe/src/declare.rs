//! `recipe(...)`: what a recipe is made of.

use crate::context::{Declaration, context, elements};
use crate::error::{Refusal, raise, refuse, refuse_with};
use crate::values::{count, describe, number};
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;
use starlark::values::dict::DictRef;
use starlark::values::none::{NoneOr, NoneType};
use starlark::values::tuple::AllocTuple;
use std::collections::BTreeMap;

/// How documents become rows of `seq_len` + 1 tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Packing {
    /// Best fit; what is cut off a document is used later.
    #[default]
    BestFit,
    /// Best fit; what is cut off a document is dropped.
    Crop,
}

impl Packing {
    /// The word in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Packing::BestFit => "best_fit",
            Packing::Crop => "crop",
        }
    }
}

/// Longest sequence: positions beyond a million are a slip of the keyboard.
const MAX_SEQ_LEN: usize = 1 << 20;
/// Largest vocabulary that a token of 32 bits and a table in memory allow.
const MAX_VOCAB: usize = 1 << 24;
const MAX_TOKENS_PER_STEP: usize = 1 << 34;

fn bounded(value: Value<'_>, what: &str, limit: usize) -> Result<usize, Refusal> {
    let count = count(value, what)?;
    if count > limit {
        return refuse(format!("{what} {count} is larger than {limit}"));
    }
    Ok(count)
}

fn mixture_of(value: Option<Value<'_>>) -> Result<BTreeMap<String, f64>, Refusal> {
    let mut mixture = BTreeMap::new();
    let Some(value) = value else { return Ok(mixture) };
    let Some(dict) = DictRef::from_value(value) else {
        return refuse(format!("mixture needs a dict such as {{\"code\": 0.7}}, got {}", describe(value)));
    };
    for (domain, weight) in dict.iter() {
        let Some(domain) = domain.unpack_str() else {
            return refuse(format!("mixture: a domain is named by a string, got {}", describe(domain)));
        };
        let weight = number(weight, "a weight of mixture")?;
        if !(weight.is_finite() && weight >= 0.0) {
            return refuse(format!("mixture: the weight of {domain} is {weight:?}"));
        }
        mixture.insert(domain.to_string(), weight);
    }
    if !mixture.is_empty() && mixture.values().sum::<f64>() <= 0.0 {
        return refuse("mixture: at least one weight must be above 0");
    }
    Ok(mixture)
}

fn packing_of(word: &str) -> Result<Packing, Refusal> {
    match word {
        "best_fit" => Ok(Packing::BestFit),
        "crop" => Ok(Packing::Crop),
        other => {
            refuse_with(format!("packing \"{other}\" is unknown"), "packing is \"best_fit\" or \"crop\"")
        }
    }
}

fn function_of(value: Value<'_>, what: &str) -> Result<(), Refusal> {
    if value.get_type() == "function" {
        return Ok(());
    }
    refuse_with(
        format!("{what} must be a function, got {}", describe(value)),
        format!("pass the name of a def: {what} = {what}"),
    )
}

fn check_batch(seq_len: usize, tokens_per_step: usize, micro_batch: Option<usize>) -> Result<(), Refusal> {
    if !tokens_per_step.is_multiple_of(seq_len) {
        return refuse_with(
            format!("tokens_per_step {tokens_per_step} is not a multiple of seq_len {seq_len}"),
            format!("use {}", (tokens_per_step / seq_len).max(1) * seq_len),
        );
    }
    let sequences = tokens_per_step / seq_len;
    match micro_batch {
        Some(micro_batch) if !sequences.is_multiple_of(micro_batch) => refuse_with(
            format!("micro_batch {micro_batch} does not divide the {sequences} sequences of a step"),
            "micro_batch counts sequences that run at once; a step is a whole number of them",
        ),
        _ => Ok(()),
    }
}

#[starlark_module]
pub(crate) fn declaration(builder: &mut GlobalsBuilder) {
    fn recipe<'v>(
        #[starlark(require = named)] model: Value<'v>,
        #[starlark(require = named)] optimizer: Value<'v>,
        #[starlark(require = named, default = NoneOr::None)] loss: NoneOr<Value<'v>>,
        #[starlark(require = named, default = NoneOr::None)] lr_multiplier: NoneOr<Value<'v>>,
        #[starlark(require = named)] seq_len: Value<'v>,
        #[starlark(require = named)] tokens_per_step: Value<'v>,
        #[starlark(require = named)] vocab_size: Value<'v>,
        #[starlark(require = named, default = NoneOr::None)] micro_batch: NoneOr<Value<'v>>,
        #[starlark(require = named, default = NoneOr::None)] mixture: NoneOr<Value<'v>>,
        #[starlark(require = named, default = "best_fit")] packing: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let ctx = context(eval);
        let (loss, lr_multiplier) = (loss.into_option(), lr_multiplier.into_option());
        let place = eval.call_stack_nth_location(0);
        if ctx.trace.borrow().is_some() || place.is_some_and(|place| place.filename() != ctx.recipe_file) {
            return raise("recipe(...) belongs at the top level of the recipe itself");
        }
        if ctx.declaration.borrow().is_some() {
            return raise("recipe(...) is called twice; a file holds one recipe");
        }
        function_of(model, "model")?;
        function_of(optimizer, "optimizer")?;
        loss.map_or(Ok(()), |loss| function_of(loss, "loss"))?;
        lr_multiplier.map_or(Ok(()), |function| function_of(function, "lr_multiplier"))?;
        let seq_len = bounded(seq_len, "seq_len", MAX_SEQ_LEN)?;
        let tokens_per_step = bounded(tokens_per_step, "tokens_per_step", MAX_TOKENS_PER_STEP)?;
        let micro_batch = micro_batch.into_option().map(|value| count(value, "micro_batch")).transpose()?;
        check_batch(seq_len, tokens_per_step, micro_batch)?;
        let vocab_size = bounded(vocab_size, "vocab_size", MAX_VOCAB)?;
        elements(&[micro_batch.unwrap_or(1), seq_len, vocab_size])?;
        *ctx.declaration.borrow_mut() = Some(Declaration {
            seq_len,
            row_len: seq_len,
            tokens_per_step,
            vocab_size,
            micro_batch,
            mixture: mixture_of(mixture.into_option())?,
            packing: packing_of(packing)?,
            has_loss: loss.is_some(),
            has_lr_multiplier: lr_multiplier.is_some(),
        });
        let none = Value::new_none();
        let functions = [model, optimizer, loss.unwrap_or(none), lr_multiplier.unwrap_or(none)];
        eval.module().set_extra_value(eval.heap().alloc(AllocTuple(functions)));
        Ok(NoneType)
    }
}
