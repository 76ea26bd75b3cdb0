//! Researchers that are there to be beaten: each is one plain rule over the whole space of settings, judged as
//! everybody else is.
//!
//! *Random*: any single change. *One at a time*: every single change in turn, in a drawn order, never twice from the
//! same value. *TPE*: whole configurations by the tree-structured Parzen estimator, every setting by itself, as
//! optimizers of hyper-parameters run it. *Script*: what a file says. None writes recipes; none remembers anything but the records.

use crate::books::Books;
use crate::random::Random;
use crate::researcher::{Context, Draft, Scale, is_movable};
use crate::tpe;
use crate::world::{SettingKind, SettingSpec};
use pawl_record::{Category, Change, Decision, Prediction, SettingValue, Settings};

/// One setting, uniformly; another option or a value from its whole range, uniformly.
pub(crate) fn random(context: &Context<'_>) -> Option<Draft> {
    let mut random = Random::new(&[context.seed, 0x7a6e, context.number]);
    let movable = movable(context);
    if movable.is_empty() {
        return None;
    }
    let spec = movable[random.below(movable.len())];
    let to = match &spec.kind {
        SettingKind::Dial => return None,
        SettingKind::Knob { .. } => drawn(spec, &mut random),
        SettingKind::Choice { options } => {
            let others: Vec<&SettingValue> = options.iter().filter(|option| **option != spec.value).collect();
            others[random.below(others.len())].clone()
        }
    };
    Some(draft("random", vec![change(spec, to)], "Drawn at random.".to_string()))
}

/// The first change, in an order drawn once a campaign, that was not proposed from the present value.
pub(crate) fn one_at_a_time(context: &Context<'_>) -> Option<Draft> {
    let mut specs = movable(context);
    let mut random = Random::new(&[context.seed, 0x6f61]);
    for last in (1..specs.len()).rev() {
        specs.swap(last, random.below(last + 1));
    }
    let proposed = |change: &Change| {
        let mut earlier = context.history.proposals.iter().flat_map(|proposal| &proposal.changes);
        earlier.any(|other| other == change)
    };
    let mut changes = specs.iter().flat_map(|spec| neighbours(spec).into_iter().map(|to| change(spec, to)));
    let next = changes.find(|change| change.to != change.from && !proposed(change))?;
    Some(draft("one_at_a_time", vec![next], "The next change in turn.".to_string()))
}

/// The name of a script in records.
pub(crate) const SCRIPT: &str = "script";

/// The line after those that were proposed, whatever became of them.
pub(crate) fn scripted(lines: &[(String, SettingValue)], context: &Context<'_>) -> Option<Draft> {
    let proposed = context.history.proposals.iter().filter(|proposal| proposal.researcher == SCRIPT);
    let (setting, to) = lines.get(proposed.count())?;
    // A setting that the recipe has not is refused by the compiler, by its name.
    let known = context.compiled.settings.iter().find(|spec| spec.name == *setting);
    let from = known.map_or_else(|| to.clone(), |spec| spec.value.clone());
    let category = match known.map(|spec| &spec.kind) {
        Some(SettingKind::Knob { .. }) => Category::Knob,
        Some(SettingKind::Dial | SettingKind::Choice { .. }) | None => Category::Choice,
    };
    Some(Draft {
        changes: vec![Change { setting: setting.clone(), from, to: to.clone() }],
        category,
        hypothesis: "The script says so.".to_string(),
        prediction: Prediction { gain_bpb: 0.0, keep_probability: 0.5 },
        recipe: None,
        researcher: SCRIPT.to_string(),
        author: None,
    })
}

/// The options of a choice; for a knob one bold step both ways.
fn neighbours(spec: &SettingSpec) -> Vec<SettingValue> {
    match &spec.kind {
        SettingKind::Dial => Vec::new(),
        SettingKind::Choice { options } => options.clone(),
        SettingKind::Knob { low, high, log } => {
            let scale = Scale::new(*low, *high, *log);
            let Some(now) = spec.value.as_f64() else { return Vec::new() };
            let around = [-1.0, 1.0].map(|steps| scale.position(now) + steps * scale.bold_step());
            let inside = around.into_iter().filter(|x| (-0.01..=1.01).contains(x));
            inside.map(|x| scale.value(x, &spec.default)).collect()
        }
    }
}

/// Configurations drawn at random before TPE has anything to go by.
const NUM_STARTS: usize = 10;

/// The configuration that TPE suggests, every setting by itself from what was scored so far.
pub(crate) fn tpe_alone(context: &Context<'_>) -> Option<Draft> {
    let mut random = Random::new(&[context.seed, 0x7470, context.number]);
    let scored = scored(context.history);
    let mut changes: Vec<Change> = Vec::new();
    for spec in movable(context) {
        let to = if scored.len() < NUM_STARTS {
            drawn(spec, &mut random)
        } else {
            suggested(spec, &scored, &mut random)
        };
        if to != spec.value {
            changes.push(change(spec, to));
        }
    }
    if changes.is_empty() {
        return None;
    }
    let hypothesis = format!("What TPE suggests after {} trials.", scored.len());
    Some(draft("tpe", changes, hypothesis))
}

/// Every configuration with its gain over the starting recipe, bits per byte. What gave no score counts as worst.
fn scored(books: &Books) -> Vec<(Settings, f64)> {
    let start = Settings::new();
    let mut scored = vec![(books.champions.first().map_or(start, |first| first.settings.clone()), 0.0)];
    let before = |generation: u64| -> f64 {
        let promoted = &books.champions[..=generation as usize];
        promoted.iter().filter_map(|champion| champion.gain.as_ref()).map(|gain| gain.mean).sum()
    };
    for (proposal, verdict) in books.history() {
        let gain = match (&verdict.decision, &verdict.evidence) {
            (Decision::Skipped(_), _) => continue,
            (_, Some(evidence)) => before(proposal.generation) + evidence.mean,
            (_, None) => f64::NEG_INFINITY,
        };
        scored.push((proposal.settings.clone(), gain));
    }
    scored
}

/// Uniform over the whole range, or over all options, the present one included.
pub(crate) fn drawn(spec: &SettingSpec, random: &mut Random) -> SettingValue {
    match &spec.kind {
        SettingKind::Dial => spec.value.clone(),
        SettingKind::Choice { options } => options[random.below(options.len())].clone(),
        SettingKind::Knob { low, high, log } => {
            Scale::new(*low, *high, *log).value(random.uniform(), &spec.default)
        }
    }
}

fn suggested(spec: &SettingSpec, scored: &[(Settings, f64)], random: &mut Random) -> SettingValue {
    let value = |settings: &Settings| settings.get(&spec.name).unwrap_or(&spec.default).clone();
    match &spec.kind {
        SettingKind::Dial => spec.value.clone(),
        SettingKind::Choice { options } => {
            let place = |settings| options.iter().position(|option| *option == value(settings));
            let observed: Vec<(usize, f64)> =
                scored.iter().filter_map(|(settings, gain)| Some((place(settings)?, *gain))).collect();
            options[tpe::suggest_option(options.len(), &observed, random)].clone()
        }
        SettingKind::Knob { low, high, log } => {
            let scale = Scale::new(*low, *high, *log);
            let position = |settings| value(settings).as_f64().map(|value| scale.position(value));
            let observed: Vec<(f64, f64)> =
                scored.iter().filter_map(|(settings, gain)| Some((position(settings)?, *gain))).collect();
            scale.value(tpe::suggest(&observed, random), &spec.default)
        }
    }
}

pub(crate) fn movable<'a>(context: &Context<'a>) -> Vec<&'a SettingSpec> {
    context.compiled.settings.iter().filter(|spec| is_movable(spec)).collect()
}

fn change(spec: &SettingSpec, to: SettingValue) -> Change {
    Change { setting: spec.name.clone(), from: spec.value.clone(), to }
}

/// A draft of which nothing better is known than that few are kept.
fn draft(researcher: &str, mut changes: Vec<Change>, hypothesis: String) -> Draft {
    changes.sort_by(|a, b| a.setting.cmp(&b.setting));
    let category = match &changes[..] {
        [Change { to: SettingValue::Float(_), .. }] => Category::Knob,
        [_] => Category::Choice,
        _ => Category::Combined,
    };
    Draft {
        recipe: None,
        changes,
        category,
        hypothesis,
        prediction: Prediction { gain_bpb: 0.0, keep_probability: 0.05 },
        researcher: researcher.to_string(),
        author: None,
    }
}
