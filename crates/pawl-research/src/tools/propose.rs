//! A change, from the arguments of a call to a draft that compiles and is new, or to what speaks against it.

use super::arguments::{Arguments, number, settings, text};
use super::novelty;
use super::read::recipe_text;
use super::words::line;
use crate::campaign::MIN_STEPS;
use crate::researcher::{Context, Draft};
use crate::world::{Checked, SettingKind};
use pawl_record::{Category, Change, Prediction, SettingValue, Settings};
use serde_json::{Value, json};

/// A draft, complete but for who wrote it, and what speaks against trying it.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// What was proposed.
    pub draft: Draft,
    /// The reason to send it back, if there is one.
    pub objection: Option<Objection>,
    /// What the compiler says of it, as the model is told.
    pub summary: String,
    /// Of its program, where there is one.
    pub fingerprint: Option<String>,
}

/// Why a draft is sent back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// The compiler's message.
    DoesNotCompile(String),
    /// The program was tried, or is the champion, or cannot be afforded: trying it is refused.
    Refused(String),
    /// It is nearly something that was tried: it may be insisted on.
    Near(String),
}

impl Objection {
    /// In words.
    pub fn message(&self) -> &str {
        match self {
            Objection::DoesNotCompile(message) | Objection::Refused(message) | Objection::Near(message) => {
                message
            }
        }
    }
}

/// Characters of a hypothesis that are kept.
const MAX_HYPOTHESIS: usize = 400;

/// A hypothesis as it is kept.
pub(crate) fn hypothesis(text: &str) -> String {
    line(text, MAX_HYPOTHESIS)
}

/// The categories a change of the text may have.
pub(super) fn text_categories() -> Vec<&'static str> {
    Category::ALL.into_iter().filter(|category| category.is_text()).map(Category::word).collect()
}

/// A change as it was asked for.
struct Asked {
    recipe: Option<String>,
    settings: Settings,
}

fn asked(context: &Context<'_>, arguments: &Arguments) -> Result<Asked, String> {
    let whole = text(arguments, "recipe")?.filter(|text| !text.trim().is_empty());
    let edits = match arguments.get("edits") {
        None | Some(Value::Null) => &Vec::new(),
        Some(Value::Array(edits)) => edits,
        Some(_) => return Err("edits must be a list of {find, replace}".to_string()),
    };
    let recipe = match (whole, edits.is_empty()) {
        (Some(_), false) => return Err("give recipe or edits, not both".to_string()),
        (Some(text), true) => Some(text.to_string()),
        (None, true) => None,
        (None, false) => Some(edited(recipe_text(context, &context.champion.recipe)?, edits)?),
    };
    if recipe.as_ref().is_some_and(|text| text.len() > pawl_recipe::MAX_TEXT) {
        return Err(format!("a recipe has at most {} KiB", pawl_recipe::MAX_TEXT >> 10));
    }
    let settings = settings(arguments)?;
    if recipe.is_none() && settings.is_empty() {
        return Err("give recipe, edits or settings: nothing is changed".to_string());
    }
    Ok(Asked { recipe, settings })
}

fn edited(mut text: String, edits: &[Value]) -> Result<String, String> {
    for (at, edit) in edits.iter().enumerate() {
        let (Some(find), Some(replace)) = (edit["find"].as_str(), edit["replace"].as_str()) else {
            return Err(format!("edit {}: find and replace must be strings", at + 1));
        };
        match (find.is_empty(), text.matches(find).count()) {
            (true, _) => return Err(format!("edit {}: find is empty", at + 1)),
            (false, 1) => text = text.replacen(find, replace, 1),
            (false, 0) => {
                return Err(format!(
                    "edit {}: find does not occur in the text; read_recipe shows it",
                    at + 1
                ));
            }
            (false, n) => return Err(format!("edit {}: find occurs {n} times; make it longer", at + 1)),
        }
    }
    Ok(text)
}

/// The settings turned, each from what it is under the new text.
fn changes(context: &Context<'_>, asked: &Asked) -> Vec<Change> {
    let under = match &asked.recipe {
        None => Some(context.compiled.clone()),
        Some(_) => context.compile_draft(asked.recipe.as_deref(), &[]).ok().map(|(_, checked)| checked),
    };
    let value_of = |name: &str| {
        let known = under.as_ref().unwrap_or(context.compiled);
        known.settings.iter().find(|spec| spec.name == name).map(|spec| spec.value.clone())
    };
    let change = |(name, to): (&String, &SettingValue)| Change {
        setting: name.clone(),
        from: value_of(name).unwrap_or_else(|| to.clone()),
        to: to.clone(),
    };
    asked.settings.iter().map(change).filter(|change| !same(&change.from, &change.to)).collect()
}

fn same(a: &SettingValue, b: &SettingValue) -> bool {
    a == b || a.as_f64().is_some_and(|x| b.as_f64() == Some(x))
}

/// `check_recipe`: the compiler's message is the error.
pub(super) fn check(context: &Context<'_>, arguments: &Arguments) -> Result<String, String> {
    let asked = asked(context, arguments)?;
    refuse_dials(context, &asked.settings)?;
    let (settings, checked) = compiled(context, &asked)?;
    let objection = objection(context, &asked, &settings, &checked);
    let mut summary = summary(context, &checked);
    if let Some(objection) = objection {
        summary["note"] = json!(objection.message());
    }
    Ok(summary.to_string())
}

fn compiled(context: &Context<'_>, asked: &Asked) -> Result<(Settings, Checked), String> {
    let (settings, checked) =
        context.compile_draft(asked.recipe.as_deref(), &all_changes(&asked.settings))?;
    // A compiler that is kinder to names than records are would compile another program than is tried.
    let is_known = |name: &&String| checked.settings.iter().any(|spec| spec.name == **name);
    match asked.settings.keys().find(|name| !is_known(name)) {
        Some(name) => Err(format!("there is no setting named {name:?}")),
        None => Ok((settings, checked)),
    }
}

fn all_changes(settings: &Settings) -> Vec<Change> {
    let change = |(name, to): (&String, &SettingValue)| Change {
        setting: name.clone(),
        from: to.clone(),
        to: to.clone(),
    };
    settings.iter().map(change).collect()
}

/// The scale belongs to the trial.
fn refuse_dials(context: &Context<'_>, settings: &Settings) -> Result<(), String> {
    let dial = |name: &&String| {
        let of = |spec: &&crate::world::SettingSpec| spec.name == **name;
        context.compiled.settings.iter().find(of).is_some_and(|spec| spec.kind == SettingKind::Dial)
    };
    match settings.keys().find(dial) {
        Some(name) => Err(format!("{name} is the scale of a trial, which belongs to the campaign")),
        None => Ok(()),
    }
}

/// `propose`.
pub(super) fn propose(context: &Context<'_>, arguments: &Arguments) -> Result<Submission, String> {
    let asked = asked(context, arguments)?;
    refuse_dials(context, &asked.settings)?;
    let hypothesis = text(arguments, "hypothesis")?.map(hypothesis).unwrap_or_default();
    if hypothesis.is_empty() {
        return Err("hypothesis: say in one sentence why it should help".to_string());
    }
    let gain_bpb =
        number(arguments, "gain_bpb")?.ok_or("gain_bpb: say how many bits per byte it should gain")?;
    let keep_probability =
        number(arguments, "probability")?.ok_or("probability: say how likely it is to be kept, 0 to 1")?;
    if !(0.0..=1.0).contains(&keep_probability) || gain_bpb.abs() > 20.0 {
        return Err("probability lies between 0 and 1, gain_bpb between -20 and 20".to_string());
    }
    let changes = changes(context, &asked);
    let category = category(context, &asked, &changes, text(arguments, "category")?)?;
    let (objection, summary, fingerprint) = match compiled(context, &asked) {
        Err(message) => (Some(Objection::DoesNotCompile(message)), String::new(), None),
        Ok((settings, checked)) => {
            let summary = summary(context, &checked).to_string();
            (objection(context, &asked, &settings, &checked), summary, Some(checked.fingerprint))
        }
    };
    let draft = Draft {
        recipe: asked.recipe,
        changes,
        category,
        hypothesis,
        prediction: Prediction { gain_bpb, keep_probability },
        researcher: String::new(),
        author: None,
    };
    Ok(Submission { draft, objection, summary, fingerprint })
}

fn category(
    context: &Context<'_>,
    asked: &Asked,
    changes: &[Change],
    named: Option<&str>,
) -> Result<Category, String> {
    if asked.recipe.is_some() {
        let found = Category::ALL.into_iter().filter(|category| category.is_text());
        let mut found = found.filter(|category| named == Some(category.word()));
        return found.next().ok_or_else(|| format!("category is one of {}", text_categories().join(", ")));
    }
    let [change] = changes else { return Ok(Category::Combined) };
    let spec = context.compiled.settings.iter().find(|spec| spec.name == change.setting);
    Ok(match spec.map(|spec| &spec.kind) {
        Some(SettingKind::Choice { .. }) => Category::Choice,
        Some(SettingKind::Knob { .. } | SettingKind::Dial) | None => Category::Knob,
    })
}

fn objection(
    context: &Context<'_>,
    asked: &Asked,
    settings: &Settings,
    checked: &Checked,
) -> Option<Objection> {
    if let Some(known) = novelty::known(context, &checked.fingerprint) {
        return Some(Objection::Refused(known));
    }
    let steps = context.manifest.rungs.first().flops / checked.flops_per_step;
    if steps < MIN_STEPS {
        let message =
            format!("the budget of a trial allows {} steps of it, fewer than {MIN_STEPS}", steps.floor());
        return Some(Objection::Refused(message));
    }
    novelty::near(context, asked.recipe.as_deref(), settings, checked).map(Objection::Near)
}

fn summary(context: &Context<'_>, checked: &Checked) -> Value {
    json!({
        "compiles": true,
        "num_params": checked.num_params,
        "flops_per_step": checked.flops_per_step,
        "steps_in_a_trial": (context.manifest.rungs.first().flops / checked.flops_per_step).floor(),
        "champion_steps_in_a_trial": (context.manifest.rungs.first().flops / context.compiled.flops_per_step).floor(),
        "champion_num_params": context.compiled.num_params,
        "fingerprint": checked.fingerprint.get(..12),
        "settings": checked.settings.iter().map(|spec| (spec.name.clone(), json!(spec.value))).collect::<serde_json::Map<_, _>>(),
    })
}
