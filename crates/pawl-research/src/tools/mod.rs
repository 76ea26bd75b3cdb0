//! What a language model may do in a lab: look, compile, propose. The same functions serve the conversations of a
//! campaign and any other way in.
//!
//! Every tool is a function of [`Context`] and its arguments. None promotes, spends, chooses a seed or a budget,
//! reads the sealed split, or opens a file by a name it was given: what is read is named by records.

mod arguments;
mod novelty;
mod propose;
mod read;
mod words;

pub(crate) use propose::hypothesis;
pub use propose::{Objection, Submission};
pub use words::quoted;

use crate::researcher::Context;
use serde_json::{Value, json};

/// The tools there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// What was tried, in a line each.
    ListExperiments,
    /// All of one proposal: verdict, pairs, curves.
    ReadExperiment,
    /// The text of a recipe of the campaign.
    ReadRecipe,
    /// A file of the standard library.
    ReadLibrary,
    /// What a recipe may say.
    RecipeReference,
    /// What was learnt, by category and by setting.
    Effects,
    /// Compiles a change without proposing it.
    CheckRecipe,
    /// Submits a proposal.
    Propose,
    /// What is left to spend.
    BudgetLeft,
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// What was asked for.
    Text(String),
    /// The call was wrong; what to do about it.
    Refused(String),
    /// A proposal, with what speaks against it.
    Submitted(Box<Submission>),
}

impl Tool {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Tool; 9] = [
        Tool::ListExperiments,
        Tool::ReadExperiment,
        Tool::ReadRecipe,
        Tool::ReadLibrary,
        Tool::RecipeReference,
        Tool::Effects,
        Tool::CheckRecipe,
        Tool::Propose,
        Tool::BudgetLeft,
    ];

    /// The name it is called by.
    pub fn name(self) -> &'static str {
        match self {
            Tool::ListExperiments => "list_experiments",
            Tool::ReadExperiment => "read_experiment",
            Tool::ReadRecipe => "read_recipe",
            Tool::ReadLibrary => "read_library",
            Tool::RecipeReference => "recipe_reference",
            Tool::Effects => "effects",
            Tool::CheckRecipe => "check_recipe",
            Tool::Propose => "propose",
            Tool::BudgetLeft => "budget_left",
        }
    }

    /// The tool of that name.
    pub fn named(name: &str) -> Option<Tool> {
        Tool::ALL.into_iter().find(|tool| tool.name() == name)
    }

    /// What it is for, as a model is told.
    pub fn description(self) -> &'static str {
        match self {
            Tool::ListExperiments => {
                "What was tried in this campaign, newest last: number, category, change, verdict, gain in bits per byte (positive is better) with its 95 % half-width, hypothesis."
            }
            Tool::ReadExperiment => {
                "Everything about one proposal: change, hypothesis, prediction, verdict and its reason, each pair of runs, training-loss curves of champion and challenger, sizes of weights, gradients and updates by group of parameters, scale of activations, share of time, speed, score by domain."
            }
            Tool::ReadRecipe => {
                "The text of a recipe of this campaign: 'champion', 'start', or the number of a proposal."
            }
            Tool::ReadLibrary => {
                "A file of the standard library, such as std/layers.star, or a shipped recipe, such as nano.star."
            }
            Tool::RecipeReference => {
                "Every operation and library function a recipe may use, with its parameters."
            }
            Tool::Effects => {
                "What was learnt so far: counts and best gains by category and by setting, and what failed to compile and why."
            }
            Tool::CheckRecipe => {
                "Compiles a change without proposing it. Costs nothing. Gives the compiler's message, or parameters, FLOPs, the steps the budget allows, settings, and earlier experiments that are nearly the same."
            }
            Tool::Propose => {
                "Submits one change to be tried against the champion on paired seeds. Give recipe (whole text) or edits (of the champion's text) for a change of the text, settings for values of knobs and choices, or both."
            }
            Tool::BudgetLeft => "What is left of the campaign's budget, and what a trial takes.",
        }
    }

    /// JSON schema of its arguments.
    pub fn schema(self) -> Value {
        match self {
            Tool::ListExperiments => object(
                json!({
                    "verdict": {"type": "string", "enum": ["keep", "reject", "undecided", "skipped", "failed"]},
                    "category": {"type": "string"},
                    "last": {"type": "integer", "description": "how many of the newest, 40 unless told"}
                }),
                &[],
            ),
            Tool::ReadExperiment => object(json!({"number": {"type": "integer"}}), &["number"]),
            Tool::ReadRecipe => object(
                json!({"which": {"type": "string", "description": "champion, start, or a proposal's number"}}),
                &["which"],
            ),
            Tool::ReadLibrary => object(json!({"file": {"type": "string"}}), &["file"]),
            Tool::RecipeReference | Tool::Effects | Tool::BudgetLeft => object(json!({}), &[]),
            Tool::CheckRecipe => object(change_schema(), &[]),
            Tool::Propose => {
                let mut properties = change_schema();
                properties["category"] = json!({"type": "string", "enum": propose::text_categories(),
                    "description": "kind of change of the text; not needed when only settings change"});
                properties["hypothesis"] =
                    json!({"type": "string", "description": "one sentence: why it should help"});
                properties["gain_bpb"] = json!({"type": "number", "description": "expected gain, bits per byte, positive is better"});
                properties["probability"] =
                    json!({"type": "number", "description": "that it is kept, 0 to 1; it is scored"});
                object(properties, &["hypothesis", "gain_bpb", "probability"])
            }
        }
    }
}

fn object(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn change_schema() -> Value {
    json!({
        "recipe": {"type": "string", "description": "whole text of the new recipe"},
        "edits": {
            "type": "array",
            "description": "edits of the champion's text, in order; each find occurs exactly once",
            "items": object(json!({"find": {"type": "string"}, "replace": {"type": "string"}}), &["find", "replace"])
        },
        "settings": {"type": "object", "description": "new values of knobs and choices by name"}
    })
}

/// What a call comes to in a folder that has no campaign: some tools need none. `None` for the others.
pub fn call_anywhere(name: &str, arguments: &Value) -> Option<Outcome> {
    let text = match Tool::named(name)? {
        Tool::ReadLibrary => arguments::object(arguments).and_then(|arguments| read::library(&arguments)),
        Tool::RecipeReference => Ok(pawl_recipe::reference().to_string()),
        Tool::ListExperiments
        | Tool::ReadExperiment
        | Tool::ReadRecipe
        | Tool::Effects
        | Tool::CheckRecipe
        | Tool::Propose
        | Tool::BudgetLeft => return None,
    };
    Some(text.map_or_else(Outcome::Refused, Outcome::Text))
}

/// Calls a tool by name. Arguments may be the object itself or its JSON text.
pub fn call(context: &Context<'_>, name: &str, arguments: &Value) -> Outcome {
    let Some(tool) = Tool::named(name) else {
        let names: Vec<&str> = Tool::ALL.iter().map(|tool| tool.name()).collect();
        return Outcome::Refused(format!(
            "there is no tool {}; the tools are {}",
            words::line(name, 60),
            names.join(", ")
        ));
    };
    let arguments = match arguments::object(arguments) {
        Ok(arguments) => arguments,
        Err(why) => return Outcome::Refused(why),
    };
    let text = match tool {
        Tool::ListExperiments => read::list_experiments(context, &arguments),
        Tool::ReadExperiment => read::experiment(context, &arguments),
        Tool::ReadRecipe => read::recipe(context, &arguments),
        Tool::ReadLibrary => read::library(&arguments),
        Tool::RecipeReference => Ok(pawl_recipe::reference().to_string()),
        Tool::Effects => Ok(read::effects(context)),
        Tool::BudgetLeft => Ok(read::budget_left(context)),
        Tool::CheckRecipe => propose::check(context, &arguments),
        Tool::Propose => {
            return match propose::propose(context, &arguments) {
                Ok(submission) => Outcome::Submitted(Box::new(submission)),
                Err(why) => Outcome::Refused(why),
            };
        }
    };
    text.map_or_else(Outcome::Refused, Outcome::Text)
}

pub(crate) use read::{by_category, compile_failures, curve, experiment_line, recipe_text};
pub(crate) use words::line;
