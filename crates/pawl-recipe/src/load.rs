//! From the text of a recipe to functions that can be traced: parsing, `load`, evaluation of the top level.

use crate::builtins::globals;
use crate::context::{Context, Declaration};
use crate::error::{RecipeError, convert};
use crate::lesson::{Lesson, Objective};
use crate::limits::{MAX_FRAMES, MAX_HEAP, MAX_TICKS};
use crate::source::prepare;
use starlark::PrintHandler;
use starlark::environment::{FrozenModule, Module};
use starlark::eval::{Evaluator, ReturnFileLoader};
use starlark::values::{FrozenHeapName, OwnedFrozenValue};
use std::collections::{BTreeMap, HashMap};

/// A recipe's text and what to call it in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// File name.
    pub name: String,
    /// Starlark.
    pub text: String,
}

/// Gives the text of a loaded file, or says why not.
pub type Loader<'a> = dyn Fn(&str) -> Result<String, String> + 'a;

/// Files a recipe may load, in all.
const MAX_MODULES: usize = 64;

/// Nothing a recipe prints goes anywhere: a recipe has no output but its graph.
struct Silence;

impl PrintHandler for Silence {
    fn println(&self, _text: &str) -> starlark::Result<()> {
        Ok(())
    }
}

/// An evaluator under this crate's limits.
pub(crate) fn evaluator<'v, 'a>(
    module: &'a Module<'v>,
    ctx: &'a Context,
    ticks: u64,
) -> Evaluator<'v, 'a, 'static> {
    ctx.work.set(0);
    *ctx.last_place.borrow_mut() = None;
    let mut eval = Evaluator::new(module);
    eval.extra = Some(ctx);
    eval.set_print_handler(&Silence);
    let fresh = "a new evaluator has no limits yet and these are not 0";
    eval.set_max_callstack_size(MAX_FRAMES).expect(fresh);
    eval.set_max_heap_size(MAX_HEAP).expect(fresh);
    eval.set_max_tick_count(ticks).expect(fresh);
    eval
}

/// What evaluating a recipe's top level leaves behind.
pub(crate) struct Loaded {
    pub(crate) declaration: Declaration,
    /// (model, optimizer, loss or None, lr_multiplier or None)
    pub(crate) functions: OwnedFrozenValue,
    /// Of a lesson.
    pub(crate) objective: Option<Objective>,
    /// Text of the recipe and of every file it loads, by name.
    pub(crate) texts: BTreeMap<String, String>,
}

/// Evaluates the recipe and what it loads.
pub(crate) fn load(
    source: &Source,
    ctx: &Context,
    loader: &Loader<'_>,
    lesson: Option<&Lesson>,
) -> Result<Loaded, RecipeError> {
    let mut modules = Modules { ctx, loader, done: HashMap::new(), texts: BTreeMap::new(), open: Vec::new() };
    let module = modules.evaluate(&source.name, &source.text)?;
    let objective = match lesson {
        Some(lesson) => {
            let Source { name, text } = &lesson.source;
            let num_recipe_settings = ctx.settings.borrow().declared.len();
            Some(Objective::of(lesson, &modules.evaluate(name, text)?, num_recipe_settings)?)
        }
        None => None,
    };
    let texts = modules.texts;
    let declared = ctx.declaration.borrow().clone().zip(module.owned_extra_value());
    let Some((declaration, functions)) = declared else {
        return Err(RecipeError::new(&source.name, "recipe(...) is never called")
            .hint("end the file with recipe(model = model, optimizer = optimizer, seq_len = ..., tokens_per_step = ..., vocab_size = ...)"));
    };
    Ok(Loaded { declaration, functions, objective, texts })
}

struct Modules<'a> {
    ctx: &'a Context,
    loader: &'a Loader<'a>,
    done: HashMap<String, FrozenModule>,
    texts: BTreeMap<String, String>,
    /// Files being evaluated, outermost first.
    open: Vec<String>,
}

impl Modules<'_> {
    fn evaluate(&mut self, file: &str, text: &str) -> Result<FrozenModule, RecipeError> {
        self.open.push(file.to_string());
        self.texts.insert(file.to_string(), text.to_string());
        let (ast, rewritten) = prepare(file, text)?;
        self.ctx.remember(file, rewritten);
        let wanted: Vec<(String, u32)> = ast
            .loads()
            .iter()
            .map(|load| (load.module_id.to_string(), load.span.resolve_span().begin.line as u32 + 1))
            .collect();
        for (name, line) in &wanted {
            self.require(name, file, *line)?;
        }
        let map: HashMap<&str, &FrozenModule> =
            wanted.iter().map(|(name, _)| (name.as_str(), &self.done[name])).collect();
        let loads = ReturnFileLoader { modules: &map };
        let frozen = Module::with_temp_heap(|module| {
            {
                let mut eval = evaluator(&module, self.ctx, MAX_TICKS);
                eval.set_loader(&loads);
                eval.eval_module(ast, globals()).map_err(|error| convert(&error, self.ctx))?;
            }
            module
                .freeze_named(FrozenHeapName::User(Box::new(file.to_string())))
                .map_err(|error| RecipeError::new(file, format!("cannot be made immutable: {error:?}")))
        })?;
        self.open.pop();
        Ok(frozen)
    }

    /// Makes sure that a loaded file is evaluated.
    fn require(&mut self, name: &str, from: &str, line: u32) -> Result<(), RecipeError> {
        if self.done.contains_key(name) {
            return Ok(());
        }
        if self.open.iter().any(|open| open == name) {
            let round = self.open.join(" -> ");
            return Err(RecipeError::new(
                from,
                format!("load(\"{name}\") goes in a circle: {round} -> {name}"),
            )
            .at(line));
        }
        if self.texts.len() >= MAX_MODULES {
            return Err(RecipeError::new(from, format!("loads more than {MAX_MODULES} files")).at(line));
        }
        let text = (self.loader)(name).map_err(|reason| {
            RecipeError::new(from, format!("cannot load \"{name}\": {reason}"))
                .at(line)
                .hint(format!("the library has {}", crate::shipped::std_names().join(", ")))
        })?;
        let module = self.evaluate(name, &text)?;
        self.done.insert(name.to_string(), module);
        Ok(())
    }
}
