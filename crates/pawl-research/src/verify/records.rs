//! The records of a campaign against each other and against what its seed and its rules give.

use super::{Asked, Check, mean, same};
use crate::books::was_tested;
use crate::campaign::MIN_STEPS;
use crate::duel::pair_seed;
use crate::evidence::{NoiseScale, t_half_width};
use crate::inbox;
use crate::measure::{final_seed, noise_init_seed};
use crate::options::campaign_id;
use crate::store::Store;
use crate::tools;
use crate::upkeep::CAMPAIGN;
use crate::world::SettingKind;
use pawl_ledger::{campaign_folder, line, run_folder};
use pawl_record::{
    Decision, EndReason, Measured, Proposal, RecipeRef, RunManifest, RunResult, RunStatus, Verdict, read_json,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Everything that the verdicts, taken one by one, do not show.
pub(super) fn look_through(check: &mut Check<'_>) {
    campaign(check);
    noise(check);
    numbers(check);
    for proposal in &check.records.proposals {
        let verdict = check.records.verdict(proposal.number);
        self::proposal(check, proposal, verdict);
    }
    for verdict in &check.records.verdicts {
        self::verdict(check, verdict);
    }
    drafts(check);
    champions(check);
    final_measurement(check);
    totals(check);
    unclaimed_runs(check);
}

/// What was asked, and the texts it was asked of.
fn campaign(check: &mut Check<'_>) {
    let records = check.records;
    let follows = campaign_id(&records.manifest);
    if follows != records.manifest.id {
        check.differs("campaign", format!("its id does not follow from what it was asked, {follows} does"));
    }
    let mut recipes: Vec<&RecipeRef> = vec![&records.manifest.recipe];
    recipes.extend(records.proposals.iter().filter_map(|proposal| proposal.recipe.as_ref()));
    recipes.extend(records.promotions.iter().map(|promotion| &promotion.recipe));
    for recipe in recipes {
        let text = fs::read(campaign_folder(check.lab).join(&recipe.file)).unwrap_or_default();
        if blake3::hash(&text).to_hex().as_str() != recipe.hash {
            check.differs("campaign", format!("{} is another text than the one that was tried", recipe.file));
        }
    }
}

/// A/A pairs: as many as asked, each on its seed, and what is said of them.
fn noise(check: &mut Check<'_>) {
    let records = check.records;
    let Some(noise) = &records.noise else { return };
    let (asked, there) = (records.manifest.judge.noise_pairs, noise.pairs.len());
    if asked != there as u64 {
        check.differs("noise", format!("{there} A/A pairs, {asked} were asked"));
    }
    for pair in &noise.pairs {
        if pair.init_seed != noise_init_seed(pair.seed) {
            check.differs("noise", format!("initial seed {} is not the one of its pair", pair.init_seed));
        }
    }
    let differences: Vec<f64> = noise.pairs.iter().map(|pair| pair.difference).collect();
    if differences.len() >= 2 {
        let upper = NoiseScale::of_differences(&differences).sd_upper(0.95);
        check.compare("noise", "upper limit of the sd", Some(noise.pair_sd_upper), Some(upper));
    }
    let scores: Vec<f64> = noise.pairs.iter().flat_map(|pair| pair.bpb).collect();
    if !scores.is_empty() {
        check.compare("noise", "mean score", Some(noise.mean_bpb), Some(mean(&scores)));
    }
}

/// Every number from 1 on has a proposal, and every proposal before the last round a verdict.
fn numbers(check: &mut Check<'_>) {
    let records = check.records;
    let numbers: BTreeSet<u64> = records.proposals.iter().map(|proposal| proposal.number).collect();
    let last = numbers.last().copied().unwrap_or(0);
    for missing in (1..=last).filter(|number| !numbers.contains(number)) {
        check.differs(&format!("proposal {missing}"), "it is missing");
    }
    for verdict in records.verdicts.iter().filter(|verdict| !numbers.contains(&verdict.proposal)) {
        check.differs(&format!("verdict {}", verdict.proposal), "its proposal is missing");
    }
    let Some(end) = &records.end else { return };
    for number in numbers.into_iter().filter(|number| records.verdict(*number).is_none()) {
        // A round that was interrupted has no more proposals than workers.
        let later =
            records.verdicts.iter().filter(|it| it.proposal > number && was_tested(it)).count() as u64;
        if end.reason != EndReason::Interrupted || later >= end.workers {
            check.differs(&format!("verdict {number}"), "it is missing");
        }
    }
}

/// What came from outside is a draft on file, each once, with the words it came with.
fn drafts(check: &mut Check<'_>) {
    let records = check.records;
    let mut last = 0;
    for proposal in records.proposals.iter().filter(|proposal| proposal.researcher == inbox::NAME) {
        let place = format!("proposal {}", proposal.number);
        let Some(number) = inbox::number_in(proposal) else {
            check.differs(&place, "it names no draft, as one from outside does");
            continue;
        };
        if number <= last {
            check.differs(&place, format!("its draft {number} was taken before, or out of order"));
        }
        last = number;
        match inbox::draft_of(&Store::new(check.lab), proposal) {
            None => check.differs(&place, format!("its draft {number} is not on file")),
            Some(filed) => {
                let said = filed.arguments["hypothesis"].as_str().unwrap_or_default();
                if tools::hypothesis(said) != proposal.hypothesis {
                    check.differs(&place, format!("its draft {number} says something else"));
                }
            }
        }
    }
}

/// A proposal is its champion with its changes, and the verdict is on that program.
fn proposal(check: &mut Check<'_>, proposal: &Proposal, verdict: Option<&Verdict>) {
    let records = check.records;
    let place = format!("proposal {}", proposal.number);
    let Some(champion) = records.promotions.iter().find(|it| it.generation == proposal.generation) else {
        check.differs(&place, format!("champion {} is not on file", proposal.generation));
        return;
    };
    if proposal.recipe.is_none() {
        let mut settings = champion.settings.clone();
        settings.extend(proposal.changes.iter().map(|change| (change.setting.clone(), change.to.clone())));
        if settings != proposal.settings {
            check.differs(&place, "its settings are not its champion's with its changes");
        }
    }
    let recipe = proposal.recipe.as_ref().unwrap_or(&champion.recipe);
    let path = campaign_folder(check.lab).join(&recipe.file);
    let compiled = check.compile(&path, records.manifest.rungs.first().depth, &proposal.settings);
    let Some(verdict) = verdict else { return };
    match (&compiled, &verdict.fingerprint) {
        (Ok(compiled), Some(fingerprint)) if compiled.fingerprint != *fingerprint => {
            check.differs(&place, "it is another program than the one its verdict is on");
        }
        (Err(why), Some(_)) => check.differs(&place, format!("it does not compile: {why}")),
        (Ok(_) | Err(_), _) => {}
    }
    let Ok(compiled) = compiled else { return };
    let is_dial =
        |name: &str| compiled.settings.iter().any(|spec| spec.name == name && spec.kind == SettingKind::Dial);
    if was_tested(verdict) {
        for change in proposal.changes.iter().filter(|change| is_dial(&change.setting)) {
            check
                .differs(&place, format!("it turns the dial {}, which belongs to the trial", change.setting));
        }
        let before = |other: &&Verdict| {
            other.proposal < proposal.number && was_tested(other) && other.fingerprint == verdict.fingerprint
        };
        // What stood on a withdrawn keep, and a bundle, may be what was tried before.
        let own = proposal.researcher == CAMPAIGN;
        if let Some(other) = records.verdicts.iter().find(before).filter(|_| !own) {
            check.differs(&place, format!("the same program as #{} was tried again", other.proposal));
        }
    } else {
        let known = |other: &Verdict| {
            other.proposal != proposal.number && other.fingerprint.as_ref() == Some(&compiled.fingerprint)
        };
        let steps = records.manifest.rungs.first().flops / compiled.flops_per_step;
        let stands_against = compiled.fingerprint == champion.fingerprint
            || records.verdicts.iter().any(known)
            || steps < MIN_STEPS
            || proposal.changes.iter().any(|change| is_dial(&change.setting));
        if !stands_against {
            check.differs(&place, "it was skipped, and nothing stood against trying it");
        }
    }
}

/// What a verdict says of its pairs.
fn verdict(check: &mut Check<'_>, verdict: &Verdict) {
    let place = format!("verdict {}", verdict.proposal);
    if let Decision::Failed(reason) = &verdict.decision
        && reason.starts_with("diverged")
        && verdict.pairs.iter().all(|pair| pair.challenger_bpb.is_some())
    {
        check.differs(&place, "it is called diverged, and all its runs have scores");
    }
    let mut ratios: Vec<f64> = verdict.pairs.iter().map(|pair| pair.seconds_ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2).copied();
    check.compare(&place, "ratio of seconds of the pairs", verdict.seconds_ratio, median);
    for pair in &verdict.pairs {
        if pair.champion_run == pair.challenger_run {
            check.differs(&place, format!("run {} is compared with itself", pair.champion_run));
        }
    }
}

/// Champions follow each other, each with the recipe and the settings that were tried.
fn champions(check: &mut Check<'_>) {
    let records = check.records;
    for (generation, promotion) in (0..).zip(&records.promotions) {
        let place = format!("champion {}", promotion.generation);
        if promotion.generation != generation {
            check.differs(&place, format!("champion {generation} is missing"));
            return;
        }
        // What a pruned or a restored champion follows from is looked at with the keeps.
        if promotion.origin.is_some() {
            continue;
        }
        let (recipe, settings) = match promotion.proposal {
            None => (&records.manifest.recipe, &records.manifest.settings),
            Some(number) => {
                let Some(proposal) = records.proposals.iter().find(|it| it.number == number) else {
                    continue;
                };
                let before = &records.promotions[generation as usize - 1].recipe;
                (proposal.recipe.as_ref().unwrap_or(before), &proposal.settings)
            }
        };
        if promotion.recipe != *recipe || promotion.settings != *settings {
            check.differs(&place, "its recipe or its settings are not those that were tried");
        }
        let path = campaign_folder(check.lab).join(&promotion.recipe.file);
        match check.compile(&path, records.manifest.rungs.first().depth, &promotion.settings) {
            Ok(compiled) if compiled.fingerprint == promotion.fingerprint => {
                let (said, follows) = (Some(promotion.flops_per_step), Some(compiled.flops_per_step));
                check.compare(&place, "price of a step", said, follows);
            }
            Ok(_) => check.differs(&place, "it compiles to another program than it names"),
            Err(why) => check.differs(&place, format!("it does not compile: {why}")),
        }
        let is_own = match (promotion.fresh_runs.is_empty(), &records.noise) {
            (false, _) => promotion.fresh_runs.contains(&promotion.run),
            (true, Some(noise)) => noise.pairs.first().is_none_or(|pair| pair.runs[0] == promotion.run),
            (true, None) => true,
        };
        if promotion.origin.is_none() && !is_own {
            check.differs(&place, format!("run {} is none of its own", promotion.run));
        }
    }
}

/// Fresh seeds in their order, both arms on the program they name, both splits, each kept effect.
fn final_measurement(check: &mut Check<'_>) {
    let records = check.records;
    let Some(measured) = &records.final_measurement else { return };
    let place = "final measurement";
    for (idx, seed) in (0..).zip(&measured.seeds) {
        if *seed != final_seed(records.manifest.seed, measured.generation, idx) {
            check.differs(place, format!("seed {seed} is not fresh seed {}", idx + 1));
        }
    }
    let last = measured.generation;
    if !records.promotions.iter().any(|it| it.generation == last) {
        check.differs(place, format!("champion {last}, which it measures, is not on file"));
        return;
    }
    let program = |generation: u64| {
        let champion = records.promotions.iter().find(|it| it.generation == generation);
        champion.map(|champion| champion.fingerprint.as_str())
    };
    let mut arms = Vec::new();
    for (generation, runs) in [(0, &measured.start_runs), (last, &measured.champion_runs)] {
        let mut scores = Vec::new();
        for (id, seed) in runs.iter().zip(&measured.seeds) {
            let asked = Asked { fingerprint: program(generation), ..check.asked(*seed) };
            let search = check.score(place, id, &asked);
            let sealed = check.run(id).and_then(|run| run.result.sealed_bpb);
            scores.push((search, sealed));
        }
        arms.push(scores);
    }
    let pairs = |of: fn(&(Option<f64>, Option<f64>)) -> Option<f64>| -> Vec<(f64, f64)> {
        arms[0].iter().zip(&arms[1]).filter_map(|(a, b)| Some((of(a)?, of(b)?))).collect()
    };
    compare_measured(check, place, "search split", &measured.search, &pairs(|it| it.0));
    match &measured.sealed {
        Some(sealed) => compare_measured(check, place, "sealed split", sealed, &pairs(|it| it.1)),
        None if pairs(|it| it.1).len() >= 2 => check.differs(place, "the sealed split is left out"),
        None => {}
    }
    if let Some(sealed) = &measured.sealed
        && measured.search.mean > measured.search.half_width
        && sealed.mean + sealed.half_width < measured.search.mean / 2.0
    {
        check.differs(
            place,
            format!(
                "the gain of {:.4} on the search split is {:.4} on the sealed one: it was learnt by heart",
                measured.search.mean, sealed.mean
            ),
        );
    }
    let line = line(&records.promotions, last);
    let is_plain = line.iter().skip(1).all(|generation| {
        records.promotions.iter().any(|it| it.generation == *generation && it.origin.is_none())
    });
    // The champion before a champion that no proposal made was measured and stands in no record.
    let kept = if is_plain { &measured.kept[..] } else { &[] };
    let mut before: Vec<Option<f64>> = arms[0].iter().map(|it| it.0).collect();
    for (generation, kept) in line.into_iter().skip(1).zip(kept) {
        let mut after = Vec::new();
        for (id, seed) in kept.runs.iter().zip(&measured.seeds) {
            let asked = Asked { fingerprint: program(generation), ..check.asked(*seed) };
            after.push(check.score(place, id, &asked));
        }
        let both: Vec<(f64, f64)> =
            before.iter().zip(&after).filter_map(|(a, b)| Some(((*a)?, (*b)?))).collect();
        compare_measured(check, place, &format!("effect of #{}", kept.proposal), &kept.search, &both);
        before = after;
    }
    check.measured_above(place, measured);
    let start: Vec<Option<f64>> = arms[0].iter().map(|it| it.0).collect();
    check.final_worth(place, measured, &start);
}

fn compare_measured(check: &mut Check<'_>, place: &str, what: &str, said: &Measured, pairs: &[(f64, f64)]) {
    let differences: Vec<f64> = pairs.iter().map(|(a, b)| a - b).collect();
    let fits = said.differences.len() == differences.len()
        && said.differences.iter().zip(&differences).all(|(a, b)| (a - b).abs() < 1e-9)
        && said.start_bpb.iter().zip(pairs).all(|(a, b)| same(*a, b.0))
        && said.champion_bpb.iter().zip(pairs).all(|(a, b)| same(*a, b.1));
    if !fits {
        check.differs(place, format!("{what}: its scores are not those of its runs"));
    }
    if differences.len() >= 2 {
        let (mean, half_width) = (mean(&differences), t_half_width(&differences));
        check.compare(place, &format!("mean on the {what}"), Some(said.mean), Some(mean));
        check.compare(place, &format!("half-width on the {what}"), Some(said.half_width), Some(half_width));
    }
}

/// Totals may be older than the verdicts, of a campaign that was killed; they cannot count more than there are.
fn totals(check: &mut Check<'_>) {
    let records = check.records;
    let Some(end) = &records.end else { return };
    let on_file = |word: &str| records.verdicts.iter().filter(|it| it.decision.word() == word).count() as u64;
    let counts = [
        ("proposals", end.proposals, records.proposals.len() as u64),
        ("kept", end.kept, on_file("keep")),
        ("rejected", end.rejected, on_file("reject")),
        ("undecided", end.undecided, on_file("undecided")),
        ("skipped", end.skipped, on_file("skipped")),
        ("failed", end.failed, on_file("failed")),
    ];
    for (what, said, there) in counts {
        if said > there {
            check.differs("end", format!("{said} {what} are counted, {there} are on file"));
        }
    }
}

/// Runs that were made for this campaign, by their seed, data and rung, of a challenger that no record names: a
/// trial whose verdict was taken away.
fn unclaimed_runs(check: &mut Check<'_>) {
    let records = check.records;
    // A round that was interrupted has runs and no verdict yet.
    if records.proposals.iter().any(|proposal| records.verdict(proposal.number).is_none()) {
        return;
    }
    let limit = records.manifest.judge.max_pairs + crate::duel::MAX_VOID as u64;
    let mut generation_of = BTreeMap::new();
    for champion in &records.promotions {
        for idx in 0..=limit {
            let seed = pair_seed(records.manifest.seed, champion.generation, idx);
            generation_of.insert(seed, champion.generation);
        }
    }
    // A resumed campaign with fewer workers may leave runs of pairs that it came to need no more.
    let tried = records.verdicts.iter().map(|it| (it.generation, it.fingerprint.as_deref()));
    let tried = tried.chain(records.prunings.iter().map(|it| (it.generation, it.fingerprint.as_deref())));
    // What did not hold on the seeds of the champion that it would have been.
    let faded = records.verdicts.iter().filter(|it| it.faded());
    let tried = tried.chain(faded.map(|it| (it.generation + 1, it.fingerprint.as_deref())));
    let diverged = records.prunings.iter().filter(|it| !it.fresh_runs.is_empty());
    let tried = tried.chain(diverged.map(|it| (it.generation + 1, it.fingerprint.as_deref())));
    let named: BTreeSet<(u64, &str)> = tried.filter_map(|(generation, it)| Some((generation, it?))).collect();
    let known: BTreeSet<&str> = records.promotions.iter().map(|it| it.fingerprint.as_str()).collect();
    let mut unclaimed: Vec<RunManifest> = Vec::new();
    let mut void: BTreeSet<u64> = BTreeSet::new();
    for id in folders(check) {
        let folder = run_folder(check.lab, &id);
        let (Ok(manifest), Ok(result)) = (
            read_json::<RunManifest>(&folder.join("run.json")),
            read_json::<RunResult>(&folder.join("result.json")),
        ) else {
            continue;
        };
        if known.contains(manifest.fingerprint.as_str()) {
            // On a seed on which the champion diverges nobody is judged.
            if result.status == RunStatus::Diverged {
                void.insert(manifest.seed);
            }
            continue;
        }
        let asked = super::budget_is(&manifest, records.manifest.rungs.first().flops)
            && manifest.data == records.manifest.data
            && manifest.depth == records.manifest.rungs.first().depth
            && manifest.precision == records.manifest.rungs.first().precision;
        let generation = generation_of.get(&manifest.seed);
        if asked && generation.is_some_and(|it| !named.contains(&(*it, manifest.fingerprint.as_str()))) {
            unclaimed.push(manifest);
        }
    }
    for manifest in unclaimed.into_iter().filter(|manifest| !void.contains(&manifest.seed)) {
        let generation = generation_of[&manifest.seed];
        check.differs(
            &format!("run {}", manifest.id),
            format!("a challenger of champion {generation} on one of its seeds, and no verdict names it"),
        );
    }
}

fn folders(check: &Check<'_>) -> Vec<String> {
    let Ok(entries) = fs::read_dir(check.lab.join("runs")) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}
