//! A lesson: what a trained model is taught next. Its file defines `loss(logits, targets, ...)`, which gets the
//! numbers that the host gives for each target by name, and may define `lr_multiplier(t)`; both stand for those of
//! the recipe. `max_grad_norm`, a number, bounds the norm of all gradients of an update together; 0 bounds nothing. Model
//! and optimizer stay as they are.

use crate::context::Declaration;
use crate::error::{RecipeError, Refusal, refuse};
use crate::load::Source;
use crate::values::number;
use starlark::environment::FrozenModule;
use starlark::values::OwnedFrozenValue;

/// A loss on other signals than text, with the batch it is computed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lesson {
    /// The file of the objective.
    pub source: Source,
    /// Names of the numbers (B, T) that the host gives; each is an argument of `loss`.
    pub signals: Vec<String>,
    /// Rows of one update.
    pub num_rows: usize,
    /// Tokens of a row, at most the recipe's `seq_len`.
    pub row_len: usize,
    /// Whether the recipe drops out while it learns.
    pub dropout: bool,
}

impl Lesson {
    /// The batch of the lesson in place of the recipe's.
    pub(crate) fn shape(&self, declaration: &mut Declaration) -> Result<(), Refusal> {
        if self.row_len == 0 || self.row_len > declaration.seq_len {
            return refuse(format!(
                "rows of {} tokens: the recipe has {} positions",
                self.row_len, declaration.seq_len
            ));
        }
        if self.num_rows == 0 || self.num_rows > MAX_ROWS {
            return refuse(format!("{} rows of one update; from 1 to {MAX_ROWS}", self.num_rows));
        }
        declaration.row_len = self.row_len;
        declaration.tokens_per_step = self.num_rows * self.row_len;
        declaration.micro_batch = None;
        Ok(())
    }
}

/// More rows than anybody has memory for.
const MAX_ROWS: usize = 1 << 20;

/// The functions of a lesson's file.
pub(crate) struct Objective {
    pub(crate) loss: OwnedFrozenValue,
    pub(crate) lr_multiplier: Option<OwnedFrozenValue>,
    pub(crate) max_grad_norm: Option<f64>,
    pub(crate) signals: Vec<String>,
    pub(crate) dropout: bool,
    /// Settings that the recipe itself declares; those after them are the objective's.
    pub(crate) num_recipe_settings: usize,
}

impl Objective {
    pub(crate) fn of(
        lesson: &Lesson,
        module: &FrozenModule,
        num_recipe_settings: usize,
    ) -> Result<Objective, RecipeError> {
        let file = &lesson.source.name;
        let function = |name: &str| -> Result<Option<OwnedFrozenValue>, RecipeError> {
            let Ok(value) = module.get(name) else { return Ok(None) };
            match value.value().get_type() {
                "function" => Ok(Some(value)),
                other => Err(RecipeError::new(file, format!("{name} is a {other}, not a function"))),
            }
        };
        let Some(loss) = function("loss")? else {
            let arguments =
                ["logits", "targets"].into_iter().chain(lesson.signals.iter().map(String::as_str));
            let arguments = arguments.collect::<Vec<_>>().join(", ");
            return Err(RecipeError::new(file, "the lesson has no loss")
                .hint(format!("def loss({arguments}): ... returns a scalar")));
        };
        let max_grad_norm = match module.get("max_grad_norm") {
            Ok(value) => {
                let bound = number(value.value(), "max_grad_norm")
                    .map_err(|refusal| RecipeError::refused(file, refusal))?;
                (bound > 0.0).then_some(bound)
            }
            Err(_) => None,
        };
        Ok(Objective {
            loss,
            lr_multiplier: function("lr_multiplier")?,
            max_grad_norm,
            signals: lesson.signals.clone(),
            dropout: lesson.dropout,
            num_recipe_settings,
        })
    }
}
