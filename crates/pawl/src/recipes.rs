//! From what a person wrote for FILE to a compiled recipe.

use crate::args::Turned;
use crate::errors::Failure;
use pawl_recipe::{
    MAX_TEXT, Overrides, Recipe, RecipeError, Setting, Source, shipped, shipped_recipes, std_only,
};
use pawl_record::{SettingValue, Settings, read_json};
use pawl_research::world::{Checked, SettingKind, SettingSpec};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A recipe's text and the name that runs and messages call it by.
#[derive(Clone, Debug)]
pub(crate) struct RecipeText {
    /// `tiny` for a shipped recipe, the file's name for a file.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// The text of `file`: a path, or the name of a shipped recipe when no such file exists.
pub(crate) fn find(file: &str) -> Result<RecipeText, Failure> {
    let path = Path::new(file);
    let shipped_name = file.strip_suffix(".star").unwrap_or(file);
    if !path.exists() {
        let is_recipe = shipped_names().contains(&shipped_name);
        return match shipped(shipped_name) {
            Some(text) if is_recipe => Ok(RecipeText { name: shipped_name.into(), text: text.into() }),
            Some(_) | None => Err(Failure::misuse(format!("there is no recipe {file}"))
                .because(format!(
                    "no file of that name, and the shipped recipes are {}",
                    shipped_names().join(", ")
                ))
                .hint("write a path, or the name of a shipped recipe")),
        };
    }
    let cannot = || Failure::new(format!("recipe {file} cannot be read"));
    let bytes = read_bounded(path).map_err(|why| cannot().caused_by(&why))?;
    if bytes.len() > MAX_TEXT {
        return Err(cannot().because(format!("it has more than {} KiB", MAX_TEXT >> 10)));
    }
    let text = String::from_utf8(bytes).map_err(|why| {
        cannot()
            .because(format!("it is not UTF-8 text, from byte {} on", why.utf8_error().valid_up_to()))
            .hint("a recipe is a text file in Starlark")
    })?;
    let name = path.file_name().map_or_else(|| file.to_string(), |name| name.to_string_lossy().into_owned());
    Ok(RecipeText { name, text })
}

/// A byte more than a recipe may have at most: the file may be endless.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn shipped_names() -> Vec<&'static str> {
    shipped_recipes().into_iter().map(|recipe| recipe.trim_end_matches(".star")).collect()
}

/// Compiles a recipe. It can load the standard library and nothing else: its text is all of it, and
/// lies whole beside each run.
pub(crate) fn compile(recipe: &RecipeText, overrides: &Overrides) -> Result<Recipe, RecipeError> {
    let name = match recipe.name.ends_with(".star") {
        true => recipe.name.clone(),
        false => format!("{}.star", recipe.name),
    };
    compile_with(&name, &recipe.text, overrides, &std_only)
}

/// Compiles a text that loads what `load` gives it.
fn compile_with(
    name: &str,
    text: &str,
    overrides: &Overrides,
    load: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Recipe, RecipeError> {
    Recipe::load(&Source { name: name.to_string(), text: text.to_string() }, overrides, load)
}

/// The recipe of a file. A run's loads what lies beside it: the library it was trained with.
pub(crate) fn check(path: &Path, depth: u64, settings: &Settings) -> Result<Checked, String> {
    let text = std::fs::read_to_string(path).map_err(|why| format!("{}: {why}", path.display()))?;
    let overrides = Overrides { depth: (depth > 0).then_some(depth), values: settings.clone() };
    let beside = path.with_file_name("loads.json");
    let recipe = if beside.exists() {
        let texts: BTreeMap<String, String> = read_json(&beside).map_err(|error| error.to_string())?;
        let load =
            |name: &str| texts.get(name).cloned().ok_or_else(|| format!("{name} is not stored with the run"));
        compile_with("recipe.star", &text, &overrides, &load)
    } else {
        compile_with("recipe.star", &text, &overrides, &std_only)
    };
    recipe.and_then(|recipe| checked(&recipe)).map_err(|error| match &error.hint {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    })
}

/// What a campaign knows of a compiled recipe.
fn checked(recipe: &Recipe) -> Result<Checked, RecipeError> {
    let summary = recipe.summary()?;
    Ok(Checked {
        fingerprint: summary.fingerprint,
        flops_per_step: summary.flops_per_step,
        num_params: summary.num_params as u64,
        settings: summary.settings.iter().map(spec).collect(),
    })
}

fn spec(setting: &Setting) -> SettingSpec {
    let kind = match &setting.kind {
        pawl_recipe::SettingKind::Dial => SettingKind::Dial,
        pawl_recipe::SettingKind::Knob { low, high, log } => {
            SettingKind::Knob { low: *low, high: *high, log: *log }
        }
        pawl_recipe::SettingKind::Choice { options } => SettingKind::Choice { options: options.clone() },
    };
    let (name, default, value) = (setting.name.clone(), setting.default.clone(), setting.value.clone());
    SettingSpec { name, kind, default, value }
}

/// Finds and compiles what the command line names.
pub(crate) fn load(file: &str, turned: &Turned) -> Result<(RecipeText, Recipe), Failure> {
    let text = find(file)?;
    let recipe = compile(&text, &turned.overrides()).map_err(|error| from_recipe(&text.name, error))?;
    Ok((text, recipe))
}

/// The error of a recipe with what would mend it.
pub(crate) fn from_recipe(name: &str, error: RecipeError) -> Failure {
    let failure = Failure::new(format!("recipe {name} cannot be built")).caused_by(&error);
    match error.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The value of the scale dial.
pub(crate) fn depth(recipe: &Recipe) -> Option<u64> {
    let settings = recipe.settings();
    let dial = settings.iter().find(|setting| setting.name == "depth")?;
    match dial.value {
        SettingValue::Int(depth) => u64::try_from(depth).ok(),
        SettingValue::Bool(_) | SettingValue::Float(_) | SettingValue::Text(_) => None,
    }
}
