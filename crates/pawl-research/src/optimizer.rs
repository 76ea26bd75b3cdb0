//! The built-in researcher: needs no key and no network, and is the measure of those that do.
//!
//! *Which* change: Thompson sampling (Thompson, 1933) over all single changes, on the additive model of
//! [`crate::belief`], which starts from what other labs saw where that was imported ([`crate::library`]). *Which number*: for a
//! knob, steps of factors of two, four and sixteen first (small steps drown in the noise), then the suggestions of
//! [`crate::tpe`]. A campaign begins with [`leap`]s of whole configurations. It turns settings, and makes the changes to the text that stand in [`crate::edits`]; the model knows
//! an edit as a choice between without and with it.

mod leap;

use crate::belief::{Belief, Move, Observation, Point};
use crate::campaign::SAME_PROGRAM;
use crate::edits::{self, Edit};
use crate::random::Random;
use crate::researcher::{Context, Draft, Researcher, Scale, is_movable};
use crate::store::Store;
use crate::tpe;
use crate::world::{SettingKind, SettingSpec};
use pawl_record::{
    Category, Change, Decision, Prediction, Proposal, RecipeRef, SettingValue, Settings, Verdict,
};
use statrs::distribution::{ContinuousCDF, Normal};

/// Gains that are nothing special, in units of what is believed.
const TYPICAL: f64 = 6.0;

/// Gains are cut to these, units: one diverging run must not drown the rest.
const WORST: f64 = -6.0;
const BEST: f64 = 10.0;

/// Variance, in units squared, by which a sum of effects misses the truth: for each further change in a
/// combination, and for each champion since.
const INTERACTION: f64 = 0.25;

/// Variance, in pair sds squared, by which a gain in another lab misses the one here, beside what is known of the
/// spread between labs: another scale, other data, another champion.
const ELSEWHERE: f64 = 1.0;

/// One setting that could be turned.
struct Candidate<'a> {
    spec: &'a SettingSpec,
    to: SettingValue,
    moves: Vec<Move>,
}

/// The next draft; `None` when every change within reach was tried.
pub(crate) fn propose(context: &Context<'_>) -> Option<Draft> {
    leap::draft(context).or_else(|| propose_step(context))
}

/// The same in single changes alone.
pub(crate) fn steps(context: &Context<'_>) -> Option<Draft> {
    propose_step(context).map(|draft| Draft { researcher: Researcher::Steps.name(), ..draft })
}

fn propose_step(context: &Context<'_>) -> Option<Draft> {
    let mut random = Random::new(&[context.seed, 0x6f70, context.number]);
    let (unit, belief) = believed(context);
    let candidates = candidates(context, &belief, &mut random);
    let drawn = drawn(&belief, &candidates, &mut random);
    let turned = drawn.into_iter().find(|(candidate, _)| is_unproposed(context, candidate));
    let least = turned.as_ref().map_or(f64::NEG_INFINITY, |(_, gain)| *gain);
    edited(context, &belief, unit, least, &mut random)
        .or_else(|| turned.map(|(candidate, _)| draft(context, &belief, unit, candidate)))
}

/// What the records say of gains, and the unit of all of it in pair sds: the beliefs a campaign starts from are of gains
/// of a few units. Where gains turn out to be many times the noise, so are those that were not tried yet.
fn believed(context: &Context<'_>) -> (f64, Belief) {
    let mut observations = observations(context);
    let mut sizes: Vec<f64> = observations.iter().map(|it| it.gain.abs()).filter(|it| *it > 0.0).collect();
    sizes.sort_by(f64::total_cmp);
    let unit = sizes.get(sizes.len() / 2).map_or(1.0, |median| (median / TYPICAL).max(1.0));
    for observation in &mut observations {
        let interaction = INTERACTION * (observation.moves.len().max(1) - 1) as f64;
        observation.gain = (observation.gain / unit).clamp(WORST, BEST);
        observation.variance = observation.variance / unit.powi(2) + interaction;
    }
    (unit, Belief::new(observations))
}

/// The next draft that turns a knob of the champion, if there is one within reach.
pub(crate) fn propose_knob(context: &Context<'_>) -> Option<Draft> {
    let mut random = Random::new(&[context.seed, 0x6b6e, context.number]);
    let (unit, belief) = believed(context);
    let mut candidates = candidates(context, &belief, &mut random);
    candidates.retain(|candidate| matches!(candidate.spec.kind, SettingKind::Knob { .. }));
    let drawn = drawn(&belief, &candidates, &mut random);
    let first = drawn.into_iter().find(|(candidate, _)| is_unproposed(context, candidate));
    first.map(|(candidate, _)| draft(context, &belief, unit, candidate))
}

/// Everything the verdicts say about gains.
fn observations(context: &Context<'_>) -> Vec<Observation> {
    let sd = context.noise.sd();
    let mut observations = imported(context);
    for (proposal, verdict) in context.history.history() {
        if context.history.is_retracted(proposal.number) || leap::is_leap(proposal) {
            continue;
        }
        let Some(moves) = moves_of(context, proposal) else { continue };
        let age = (context.champion.generation - proposal.generation) as f64;
        // What was idle or refused beside another champion may not be beside this one.
        if age > 0.0 && matches!(verdict.decision, Decision::Skipped(_)) {
            continue;
        }
        let Some((gain, pair_variance)) = seen(verdict, sd) else { continue };
        observations.push(Observation { moves, gain, variance: pair_variance + INTERACTION * age });
    }
    observations
}

/// What other labs saw, as observations that are less certain than ones made here.
fn imported(context: &Context<'_>) -> Vec<Observation> {
    let sd = context.noise.sd();
    let seen = context.history.elsewhere.iter().filter_map(|pooled| {
        let spec =
            |change: &Change| context.compiled.settings.iter().find(|spec| spec.name == change.setting);
        let moves: Option<Vec<Move>> =
            pooled.changes.iter().map(|change| moved(spec(change)?, &change.from, &change.to)).collect();
        let moves = moves.filter(|moves| !moves.is_empty())?;
        let spread = pooled.standard_error.powi(2) + pooled.tau.powi(2);
        Some(Observation { moves, gain: pooled.mean / sd, variance: spread / sd.powi(2) + ELSEWHERE })
    });
    seen.collect()
}

/// What a proposal moved; `None` where the model has no words for it.
fn moves_of(context: &Context<'_>, proposal: &Proposal) -> Option<Vec<Move>> {
    let turned = proposal.changes.iter().map(|change| {
        let spec = context.compiled.settings.iter().find(|spec| spec.name == change.setting)?;
        moved(spec, &change.from, &change.to)
    });
    let mut moves: Vec<Move> = turned.collect::<Option<_>>()?;
    if proposal.recipe.is_some() {
        moves.push(edit_move(edit_of(context, proposal)?));
    }
    (!moves.is_empty()).then_some(moves)
}

/// The entry of the edit library that made a proposal's text.
fn edit_of(context: &Context<'_>, proposal: &Proposal) -> Option<&'static Edit> {
    let before = context.history.champions.get(proposal.generation as usize)?;
    edits::recognise(&text(context, &before.recipe)?, &text(context, proposal.recipe.as_ref()?)?)
}

/// A recipe text kept with the campaign. One that cannot be read teaches nothing.
pub(crate) fn text(context: &Context<'_>, recipe: &RecipeRef) -> Option<String> {
    std::fs::read_to_string(Store::new(context.lab).path(&recipe.file)).ok()
}

fn edit_move(edit: &Edit) -> Move {
    let point = |word: &str| Point::Option(word.to_string());
    Move { setting: format!("edit {}", edit.name), from: point("without"), to: point("with") }
}

/// The edit of which the drawn gain is largest and above `least`, of those that fit the champion, compile to another
/// program and were not tried beside it.
fn edited(
    context: &Context<'_>,
    belief: &Belief,
    unit: f64,
    least: f64,
    random: &mut Random,
) -> Option<Draft> {
    let champion = text(context, &context.champion.recipe)?;
    let here = |proposal: &&Proposal| proposal.generation == context.champion.generation;
    let tried: Vec<&str> = context
        .history
        .proposals
        .iter()
        .filter(here)
        .filter_map(|proposal| edit_of(context, proposal))
        .map(|edit| edit.name.as_str())
        .collect();
    let mut drawn: Vec<(f64, &'static Edit)> = Vec::new();
    for edit in edits::library().iter().filter(|edit| !tried.contains(&edit.name.as_str())) {
        let (mean, sd) = belief.gain(&[edit_move(edit)]);
        drawn.push((mean + sd * random.normal(), edit));
    }
    drawn.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (_, edit) in drawn.into_iter().take_while(|(gain, _)| *gain > least) {
        let Some(after) = edit.apply(&champion) else { continue };
        let compiled = context.compile_draft(Some(&after), &[]);
        if compiled.is_ok_and(|(_, checked)| checked.fingerprint != context.compiled.fingerprint) {
            return Some(edit_draft(context, belief, unit, edit, after));
        }
    }
    None
}

fn edit_draft(context: &Context<'_>, belief: &Belief, unit: f64, edit: &Edit, text: String) -> Draft {
    let (mean, sd) = belief.gain(&[edit_move(edit)]);
    Draft {
        recipe: Some(text),
        changes: Vec::new(),
        category: edit.category,
        hypothesis: format!("{}: {}", edit.name, edit.why),
        prediction: prediction(context, mean * unit, sd * unit),
        researcher: Researcher::Optimizer.name(),
        author: None,
    }
}

/// Gain in pair sds and its variance, if the verdict says anything about it.
fn seen(verdict: &Verdict, sd: f64) -> Option<(f64, f64)> {
    match &verdict.decision {
        Decision::Keep | Decision::Reject(_) | Decision::Undecided(_) => {
            let evidence = verdict.evidence.as_ref()?;
            Some((evidence.mean / sd, 1.0 / verdict.pairs.len().max(1) as f64))
        }
        Decision::Failed(_) => Some((WORST, 0.25)),
        // Compiles to a known program: no gain, and nothing to learn twice. Does not compile: never again.
        Decision::Skipped(_) if verdict.fingerprint.is_some() => Some((0.0, 1e-4)),
        Decision::Skipped(_) => Some((WORST, 0.25)),
    }
}

pub(crate) fn moved(spec: &SettingSpec, from: &SettingValue, to: &SettingValue) -> Option<Move> {
    let point = |value: &SettingValue| match &spec.kind {
        SettingKind::Dial => None,
        SettingKind::Choice { .. } => Some(Point::Option(value.to_string())),
        SettingKind::Knob { low, high, log } => {
            let scale = Scale::new(*low, *high, *log);
            let length = (2.0 * scale.bold_step()).clamp(0.15, 0.5);
            Some(Point::Position { x: scale.position(value.as_f64()?), length })
        }
    };
    Some(Move { setting: spec.name.clone(), from: point(from)?, to: point(to)? })
}

/// All single changes worth a thought. Settings that this round turns already are left to it.
fn candidates<'a>(context: &Context<'a>, belief: &Belief, random: &mut Random) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    for spec in context.compiled.settings.iter().filter(|spec| is_movable(spec)) {
        let taken = |proposal: &Proposal| proposal.changes.iter().any(|change| change.setting == spec.name);
        if context.in_round.iter().any(taken) {
            continue;
        }
        let idle = idle_before(context, spec);
        if idle == Some(context.champion.generation) {
            continue;
        }
        let mut values: Vec<SettingValue> = match &spec.kind {
            SettingKind::Dial => Vec::new(),
            SettingKind::Choice { options } => options.clone(),
            SettingKind::Knob { low, high, log } => {
                knob_values(context, belief, spec, Scale::new(*low, *high, *log), random)
            }
        };
        values.retain(|value| *value != spec.value);
        if idle.is_some() && values.first().is_some_and(|value| is_idle(context, spec, value)) {
            continue;
        }
        for to in values {
            if let Some(moves) = moved(spec, &spec.value, &to) {
                candidates.push(Candidate { spec, to, moves: vec![moves] });
            }
        }
    }
    candidates
}

/// The last champion beside which turning this setting alone left the program as it was.
fn idle_before(context: &Context<'_>, spec: &SettingSpec) -> Option<u64> {
    let idle = |(proposal, verdict): &(&Proposal, &Verdict)| {
        let alone = proposal.changes.len() == 1 && proposal.changes[0].setting == spec.name;
        alone && verdict.pairs.is_empty() && verdict.decision == Decision::Skipped(SAME_PROGRAM.to_string())
    };
    context.history.history().filter(idle).map(|(proposal, _)| proposal.generation).last()
}

/// Whether turning it leaves the present champion's program as it is: once that is on file for an earlier
/// champion, it is looked up rather than proposed again.
fn is_idle(context: &Context<'_>, spec: &SettingSpec, value: &SettingValue) -> bool {
    let mut settings = context.champion.settings.clone();
    settings.insert(spec.name.clone(), value.clone());
    (context.compile)(&settings).is_ok_and(|checked| checked.fingerprint == context.compiled.fingerprint)
}

/// Steps of a factor of two: small ones drown in the noise, and a recipe may be far off.
const BOLD_STEPS: [f64; 6] = [-4.0, -2.0, -1.0, 1.0, 2.0, 4.0];

/// Values of a knob to consider: bold steps both ways, and once it was tried, what TPE suggests from the
/// gains the model believes in at the values tried.
fn knob_values(
    context: &Context<'_>,
    belief: &Belief,
    spec: &SettingSpec,
    scale: Scale,
    random: &mut Random,
) -> Vec<SettingValue> {
    let Some(now) = spec.value.as_f64() else { return Vec::new() };
    let position = scale.position(now);
    let step = scale.bold_step();
    let mut positions: Vec<f64> = BOLD_STEPS.iter().map(|steps| position + steps * step).collect();
    let mut tried: Vec<SettingValue> = Vec::new();
    for change in context.history.proposals.iter().flat_map(|proposal| &proposal.changes) {
        if change.setting == spec.name {
            for value in [&change.from, &change.to] {
                if !tried.contains(value) {
                    tried.push(value.clone());
                }
            }
        }
    }
    if tried.len() > 2 {
        let observed: Vec<(f64, f64)> = tried
            .iter()
            .filter_map(|value| {
                let moves = moved(spec, &spec.value, value)?;
                Some((scale.position(value.as_f64()?), belief.gain(&[moves]).0))
            })
            .collect();
        positions.extend((0..2).map(|_| tpe::suggest(&observed, random)));
    }
    let mut values: Vec<SettingValue> = Vec::new();
    for x in positions.into_iter().filter(|x| (-0.01..=1.01).contains(x)) {
        let value = scale.value(x, &spec.default);
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values
}

/// The candidates with one joint draw of their gains, best first.
fn drawn<'c, 'a>(
    belief: &Belief,
    candidates: &'c [Candidate<'a>],
    random: &mut Random,
) -> Vec<(&'c Candidate<'a>, f64)> {
    let moves: Vec<Vec<Move>> = candidates.iter().map(|candidate| candidate.moves.clone()).collect();
    let mut drawn: Vec<(&Candidate<'a>, f64)> = candidates.iter().zip(belief.draw(&moves, random)).collect();
    drawn.sort_by(|a, b| b.1.total_cmp(&a.1));
    drawn
}

/// Whether the champion with this change has not been proposed.
fn is_unproposed(context: &Context<'_>, candidate: &Candidate<'_>) -> bool {
    let mut settings: Settings = context.champion.settings.clone();
    settings.insert(candidate.spec.name.clone(), candidate.to.clone());
    // The same settings beside another text are another program.
    let recipe_of = |proposal: &Proposal| {
        let before = context.history.champions.get(proposal.generation as usize).map(|it| it.recipe.clone());
        proposal.recipe.clone().or(before)
    };
    let here = Some(&context.champion.recipe);
    let mut proposals = context.history.proposals.iter();
    !proposals.any(|proposal| proposal.settings == settings && recipe_of(proposal).as_ref() == here)
}

fn draft(context: &Context<'_>, belief: &Belief, unit: f64, candidate: &Candidate<'_>) -> Draft {
    let (mean, sd) = belief.gain(&candidate.moves);
    let (mean, sd) = (mean * unit, sd * unit);
    let spec = candidate.spec;
    let change = Change { setting: spec.name.clone(), from: spec.value.clone(), to: candidate.to.clone() };
    Draft {
        recipe: None,
        changes: vec![change],
        category: match spec.kind {
            SettingKind::Knob { .. } | SettingKind::Dial => Category::Knob,
            SettingKind::Choice { .. } => Category::Choice,
        },
        hypothesis: hypothesis(context, candidate, mean, sd),
        prediction: prediction(context, mean, sd),
        researcher: Researcher::Optimizer.name(),
        author: None,
    }
}

pub(crate) fn prediction(context: &Context<'_>, mean: f64, sd: f64) -> Prediction {
    prediction_of(mean * context.noise.sd(), keep_probability(mean, sd))
}

fn prediction_of(gain_bpb: f64, keep_probability: f64) -> Prediction {
    Prediction { gain_bpb, keep_probability }
}

/// Gain, in pair sds, of which the judge keeps half (simulated), and how softly it goes from none to all.
const KEPT_HALF: f64 = 1.6;
const KEPT_WIDTH: f64 = 0.5;

/// Probability that a change is kept whose gain is believed to be `mean` with that standard deviation, pair sds.
pub(crate) fn keep_probability(mean: f64, sd: f64) -> f64 {
    Normal::standard().cdf((mean - KEPT_HALF) / sd.hypot(KEPT_WIDTH))
}

fn hypothesis(context: &Context<'_>, candidate: &Candidate<'_>, mean: f64, sd: f64) -> String {
    let name = &candidate.spec.name;
    let about = |proposal: &Proposal| proposal.changes.iter().any(|change| change.setting == *name);
    let num_seen = context.history.history().filter(|(proposal, _)| about(proposal)).count();
    let basis = match num_seen {
        0 => "untried".to_string(),
        1 => "1 earlier trial of this setting".to_string(),
        n => format!("{n} earlier trials of this setting"),
    };
    format!("{name} at {} gains {mean:+.1} +- {sd:.1} pair sds by the additive model; {basis}.", candidate.to)
}
