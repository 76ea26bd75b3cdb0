//! Knobs that a language model's structure brings with it, tuned by the optimizer.
//!
//! A model that writes a recipe guesses the numbers of its idea. Where the structure is kept, or looks like a gain that
//! its pairs did not decide, the knobs that are new in its text are turned, each setting a proposal and a test of its own
//! like any other. Nothing is tried outside of the judge's sight.
//!
//! A structure is turned because it looked good, and some of what it showed was luck on its seeds. Beside the same
//! champion each setting of its text is therefore tried past the seeds that the text has seen (`upkeep::first_pair`).
//!
//! A champion is as tuned as what challenges it: before a challenger's knob is turned, the champion's have been
//! proposed as often in the same generation ([`champion_first`]).

use crate::belief::{Belief, Move, Observation};
use crate::optimizer;
use crate::random::Random;
use crate::researcher::{Context, Draft, Researcher, Scale};
use crate::world::{Checked, SettingKind, SettingSpec};
use pawl_record::{Category, Change, Decision, Proposal, RecipeRef, SettingValue, Verdict};

/// Tests of new knobs of a structure that is champion...
const OF_CHAMPION: usize = 4;
/// ...and of one that its pairs did not decide.
const OF_CHALLENGER: usize = 2;

/// Values of a knob that are considered, in steps of a factor of two.
const STEPS: [f64; 4] = [-2.0, -1.0, 1.0, 2.0];

/// A structure with knobs of its own.
struct Structure<'a> {
    proposal: &'a Proposal,
    verdict: &'a Verdict,
    /// Its text and settings compiled.
    compiled: Checked,
    /// Whether it is the present champion.
    is_champion: bool,
}

/// The next test of a knob that a language model left open, or of the champion's that has to come first.
pub(crate) fn follow_up(context: &Context<'_>) -> Option<Draft> {
    let by_model = |proposal: &&Proposal| proposal.author.is_some() && proposal.recipe.is_some();
    let mut written: Vec<&Proposal> = context.history.proposals.iter().filter(by_model).collect();
    // The newest first: what is old has had its turn.
    written.reverse();
    written.into_iter().filter_map(|proposal| structure(context, proposal)).find_map(|it| next(context, &it))
}

/// What a proposal brought, if it is worth tuning beside the present champion.
fn structure<'a>(context: &'a Context<'_>, proposal: &'a Proposal) -> Option<Structure<'a>> {
    let verdict = context.history.verdicts.get(&proposal.number)?;
    if context.champion.proposal == Some(proposal.number) {
        let compiled = context.compiled.clone();
        return Some(Structure { proposal, verdict, compiled, is_champion: true });
    }
    let here = proposal.generation == context.champion.generation;
    let gained = verdict.evidence.as_ref().is_some_and(|evidence| evidence.mean > 0.0);
    let open = match verdict.decision {
        Decision::Undecided(_) => true,
        // One pair is a screen; more were worth their price.
        Decision::Reject(_) => verdict.pairs.len() > 1,
        Decision::Keep | Decision::Skipped(_) | Decision::Failed(_) => false,
    };
    if !(here && gained && open) {
        return None;
    }
    let text = optimizer::text(context, proposal.recipe.as_ref()?)?;
    let compiled = (context.compile_text)(&text, &proposal.settings).ok()?;
    Some(Structure { proposal, verdict, compiled, is_champion: false })
}

fn next(context: &Context<'_>, structure: &Structure<'_>) -> Option<Draft> {
    let new = new_knobs(context, structure)?;
    let earlier: Vec<&Proposal> = follow_ups(context, structure, &new);
    let most = if structure.is_champion { OF_CHAMPION } else { OF_CHALLENGER };
    if new.is_empty() || earlier.len() >= most {
        return None;
    }
    let draft = turned(context, structure, &new, &earlier)?;
    if structure.is_champion {
        return Some(draft);
    }
    champion_first(context, earlier.len() + 1).or(Some(draft))
}

/// A test of the champion's knobs, while those proposed in its generation are fewer than `wanted`. Skipped ones count: a
/// champion whose knobs cannot be turned holds up no challenger.
fn champion_first(context: &Context<'_>, wanted: usize) -> Option<Draft> {
    let is_knob = |change: &Change| {
        let spec = context.compiled.settings.iter().find(|spec| spec.name == change.setting);
        spec.is_some_and(|spec| matches!(spec.kind, SettingKind::Knob { .. }))
    };
    let of_knobs = |proposal: &&Proposal| {
        proposal.generation == context.champion.generation
            && proposal.recipe.is_none()
            && !proposal.changes.is_empty()
            && proposal.changes.iter().all(is_knob)
    };
    let proposed = context.history.proposals.iter().filter(of_knobs).count();
    if proposed < wanted { optimizer::propose_knob(context) } else { None }
}

/// Knobs of a structure that the champion it was written for did not have.
fn new_knobs(context: &Context<'_>, structure: &Structure<'_>) -> Option<Vec<SettingSpec>> {
    let before = context.history.champions.get(structure.proposal.generation as usize)?;
    let known = match structure.is_champion {
        false => context.compiled.settings.clone(),
        true => {
            let text = optimizer::text(context, &before.recipe)?;
            (context.compile_text)(&text, &before.settings).ok()?.settings
        }
    };
    let is_new = |spec: &&SettingSpec| {
        matches!(spec.kind, SettingKind::Knob { low, high, .. } if low < high)
            && !known.iter().any(|other| other.name == spec.name)
    };
    Some(structure.compiled.settings.iter().filter(is_new).cloned().collect())
}

/// Proposals of the optimizer that turned one of its new knobs and left the text.
fn follow_ups<'a>(
    context: &'a Context<'_>,
    structure: &Structure<'_>,
    new: &[SettingSpec],
) -> Vec<&'a Proposal> {
    let turns_one = |proposal: &Proposal| match &proposal.changes[..] {
        [change] => new.iter().any(|spec| spec.name == change.setting),
        _ => false,
    };
    let of_text = |recipe: &Option<RecipeRef>| match structure.is_champion {
        true => recipe.is_none(),
        false => recipe.as_ref().map(|it| &it.hash) == structure.proposal.recipe.as_ref().map(|it| &it.hash),
    };
    let all = context.history.proposals.iter();
    all.filter(|proposal| {
        proposal.number != structure.proposal.number
            && proposal.generation == context.champion.generation
            && of_text(&proposal.recipe)
            && turns_one(proposal)
    })
    .collect()
}

/// The value of a new knob that is drawn best from what was seen of them, and was not tried.
fn turned(
    context: &Context<'_>,
    structure: &Structure<'_>,
    new: &[SettingSpec],
    earlier: &[&Proposal],
) -> Option<Draft> {
    let mut random = Random::new(&[context.seed, 0x7475, context.number]);
    let belief = Belief::new(seen(context, structure, new, earlier));
    let mut candidates: Vec<(&SettingSpec, SettingValue, Move)> = Vec::new();
    for spec in new {
        for to in values(spec) {
            let tried = earlier.iter().any(|it| it.changes[0].setting == spec.name && it.changes[0].to == to);
            if let Some(moved) = optimizer::moved(spec, &spec.value, &to).filter(|_| !tried) {
                candidates.push((spec, to, moved));
            }
        }
    }
    let moves: Vec<Vec<Move>> = candidates.iter().map(|(.., moved)| vec![moved.clone()]).collect();
    let drawn = belief.draw(&moves, &mut random);
    let best = (0..candidates.len()).max_by(|a, b| drawn[*a].total_cmp(&drawn[*b]))?;
    let (spec, to, moved) = &candidates[best];
    let (mean, sd) = belief.gain(std::slice::from_ref(moved));
    let own = match structure.is_champion {
        true => 0.0,
        false => structure.verdict.evidence.as_ref().map_or(0.0, |it| it.mean) / context.noise.sd(),
    };
    let change = Change { setting: spec.name.clone(), from: spec.value.clone(), to: to.clone() };
    let recipe = match structure.is_champion {
        true => None,
        false => Some(optimizer::text(context, structure.proposal.recipe.as_ref()?)?),
    };
    Some(Draft {
        recipe,
        changes: vec![change],
        category: Category::Knob,
        hypothesis: format!(
            "{} came with #{}, which guessed it; {to} instead of {}.",
            spec.name, structure.proposal.number, spec.value
        ),
        prediction: optimizer::prediction(context, own + mean, sd.hypot(1.0)),
        researcher: Researcher::Optimizer.name(),
        author: None,
    })
}

fn values(spec: &SettingSpec) -> Vec<SettingValue> {
    let (SettingKind::Knob { low, high, log }, Some(now)) = (&spec.kind, spec.value.as_f64()) else {
        return Vec::new();
    };
    let scale = Scale::new(*low, *high, *log);
    let around = STEPS.map(|steps| scale.position(now) + steps * scale.bold_step());
    let mut values: Vec<SettingValue> = Vec::new();
    for x in around.into_iter().filter(|x| (-0.01..=1.01).contains(x)) {
        let value = scale.value(x, &spec.default);
        if value != spec.value && !values.contains(&value) {
            values.push(value);
        }
    }
    values
}

/// Gains of earlier values over the structure as it was written, pair sds.
fn seen(
    context: &Context<'_>,
    structure: &Structure<'_>,
    new: &[SettingSpec],
    earlier: &[&Proposal],
) -> Vec<Observation> {
    let sd = context.noise.sd();
    let own = match structure.is_champion {
        true => 0.0,
        false => structure.verdict.evidence.as_ref().map_or(0.0, |it| it.mean),
    };
    let observation = |proposal: &&Proposal| {
        let change = &proposal.changes[0];
        let verdict = context.history.verdicts.get(&proposal.number)?;
        let evidence = verdict.evidence.as_ref()?;
        let spec = new.iter().find(|spec| spec.name == change.setting)?;
        let moves = vec![optimizer::moved(spec, &spec.value, &change.to)?];
        let variance = 2.0 / verdict.pairs.len().max(1) as f64;
        Some(Observation { moves, gain: ((evidence.mean - own) / sd).clamp(-6.0, 10.0), variance })
    };
    earlier.iter().filter_map(observation).collect()
}
