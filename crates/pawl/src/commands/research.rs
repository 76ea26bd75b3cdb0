//! `pawl research`: a campaign, told as it goes. Who proposes and what is kept is decided elsewhere;
//! this file brings the parts together and prints.

use crate::args::{BUILTIN_DATA, Research, setting};
use crate::brief;
use crate::campaign;
use crate::commands::report;
use crate::compiling::Compiling;
use crate::errors::Failure;
use crate::interrupt::interrupt;
use crate::lab::from_ledger;
use crate::live::{Live, Work};
use crate::machine::{cores, describe, peak_flops};
use crate::output::{Answer, count, flops, narrate};
use crate::prepare;
use crate::recipes::{RecipeText, check, compile, from_recipe};
use pawl_ledger::read_campaign;
use pawl_recipe::Overrides;
use pawl_record::{CampaignBudget, Rung, SettingValue, Settings};
use pawl_research::brief::Brief;
use pawl_research::campaign::{CampaignError, CampaignEvent, MIN_STEPS, existing};
use pawl_research::child::ChildWorld;
use pawl_research::options::CampaignOptions;
use pawl_research::researcher::Researcher;
use pawl_research::{prompt, view};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

pub(crate) fn run(args: Research) -> Result<Answer, Failure> {
    let start = Instant::now();
    if args.show_prompt {
        return show_prompt(&args);
    }
    let stop = interrupt()?;
    let lab = args.place.lab.clone();
    let existing = existing(&lab)?;
    let asked = brief::asked(&args, existing.as_ref())?;
    if args.explain {
        return Ok(asked.explained());
    }
    let options = options(&args, &asked.brief, &asked.recipe)?;
    let compiling = Compiling::new()?;
    let world = ChildWorld {
        executable: compiling.executable(),
        lab: lab.clone(),
        data: asked.brief.data.clone(),
        check: &|path, depth, settings| compiling.check(path, depth, settings),
        interrupted: &|| stop.load(Ordering::Relaxed),
        start,
    };
    let limit_s = match options.budget {
        CampaignBudget::Minutes(minutes) => Some(60.0 * minutes),
        CampaignBudget::Trials(_) => None,
    };
    let live = Live::new(args.place.json, limit_s);
    pawl_research::campaign::run(&options, &world, &mut |event| tell(&live, &event))
        .map_err(from_campaign)?;
    drop(live);
    let records = read_campaign(&lab).map_err(from_ledger)?;
    let records = records.expect("a campaign that ran has left its files");
    let (_, files) = report::write(&lab)?;
    let mut block = campaign::block(&records);
    block
        .line("report", files.html.display())
        .line("next", "pawl sample champion | pawl show champion | pawl report");
    Ok(Answer::new(format!("\n{}", block.text()), json!({ "campaign": records, "report": files.html })))
}

/// What a language model would be told about the campaign of the lab as it stands.
fn show_prompt(args: &Research) -> Result<Answer, Failure> {
    let world = ChildWorld {
        executable: std::path::PathBuf::new(),
        lab: args.place.lab.clone(),
        data: BUILTIN_DATA.to_string(),
        check: &check,
        interrupted: &|| false,
        start: Instant::now(),
    };
    let lab = view::Lab::open(&args.place.lab, &world, cores()).map_err(from_campaign)?;
    let lab = lab.ok_or_else(|| {
        Failure::new(format!("{} has no campaign that a prompt could tell of", args.place.lab.display()))
            .hint("start one, with --researcher optimizer for instance: the prompt tells of its noise and champion")
    })?;
    let round = lab.show(prompt::round).map_err(from_campaign)?;
    let system = prompt::system();
    let text = format!("{system}\n---\n\n{round}");
    Ok(Answer::new(text, json!({ "system": system, "round": round })))
}

/// The campaign as it is asked of the library, its data made ready.
fn options(args: &Research, brief: &Brief, recipe: &RecipeText) -> Result<CampaignOptions, Failure> {
    let researcher = match &args.script {
        Some(path) => Researcher::Script(script(path)?.into()),
        None => brief::researcher(brief, args)?,
    };
    let rungs = brief.ladder().map_err(Failure::misuse)?;
    for rung in rungs.all() {
        affordable(recipe, *rung)?;
    }
    let first = Overrides { depth: Some(rungs.first().depth), ..Overrides::default() };
    let compiled = compile(recipe, &first).map_err(|error| from_recipe(&recipe.name, error))?;
    let prepared = prepare::prepare(&args.place.lab, &brief.data, compiled.vocab_size(), args.place.json)?;
    let peak = flops(peak_flops(cores()));
    narrate(&format!("machine   {} cores  {}  {peak}/s float32", cores(), describe()));
    narrate(&format!("corpus    {}", prepare::describe(&args.place.lab, &prepared)?));
    Ok(CampaignOptions {
        lab: args.place.lab.clone(),
        recipe_name: recipe.name.clone(),
        recipe_text: recipe.text.clone(),
        settings: Settings::new(),
        rungs,
        data: prepared.reference,
        seed: brief.seed,
        researcher,
        judge: brief.judge,
        budget: brief.budget(),
        workers: args.workers.map_or_else(cores, |workers| workers as usize),
        final_seeds: brief.final_seeds,
        version: env!("CARGO_PKG_VERSION").to_string(),
        machine: describe(),
    })
}

/// The lines of a script.
fn script(path: &Path) -> Result<Vec<(String, SettingValue)>, Failure> {
    let cannot = || Failure::misuse(format!("script {} cannot be read", path.display()));
    let text = std::fs::read_to_string(path).map_err(|why| cannot().caused_by(&why))?;
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        lines.push(setting(line).map_err(|why| cannot().because(format!("line {}: {why}", at + 1)))?);
    }
    Ok(lines)
}

/// A trial of a handful of steps says nothing about a recipe; better said before the first one.
fn affordable(recipe: &RecipeText, rung: Rung) -> Result<(), Failure> {
    let overrides = Overrides { depth: Some(rung.depth), ..Overrides::default() };
    let summary = compile(recipe, &overrides).and_then(|recipe| recipe.summary());
    let step = summary.map_err(|error| from_recipe(&recipe.name, error))?.flops_per_step;
    if rung.flops >= MIN_STEPS * step {
        return Ok(());
    }
    Err(Failure::misuse(format!("{} a trial is too little", flops(rung.flops)))
        .because(format!("one step of {} at depth {} takes {}", recipe.name, rung.depth, flops(step)))
        .hint(format!(
            "give at least {MIN_STEPS} steps: --flops {:.0e} or more on the first rung, `flops` of [[rung]] above it",
            (1.0 + MIN_STEPS) * step
        )))
}

fn tell(live: &Live, event: &CampaignEvent<'_>) {
    match event {
        CampaignEvent::Started { manifest, start, num_proposals, champion } => {
            live.narrate(&format!(
                "start     {}  {} params   trial: {}",
                manifest.recipe.name,
                count(start.num_params as f64),
                campaign::rungs(&manifest.rungs),
            ));
            if *num_proposals > 0 {
                let score =
                    champion.map_or_else(String::new, |it| format!(", champion {:.4} val_bpb", it.mean_bpb));
                let known = format!("{num_proposals} proposals on file{score}");
                live.narrate(&format!("goes on   {known}\n\n{}", campaign::heading()));
            }
        }
        CampaignEvent::Trials { purpose, num_trials, workers, trial_s, elapsed_s, num_runs: _ } => live
            .begin(Work {
                purpose: (*purpose).to_string(),
                num_trials: *num_trials,
                workers: *workers,
                trial_s: *trial_s,
                elapsed_s: *elapsed_s,
                began: Instant::now(),
            }),
        CampaignEvent::Noise(noise) => {
            live.narrate(&format!("noise     {}\n\n{}", campaign::noise(noise), campaign::heading()));
        }
        CampaignEvent::Verdict { proposal, verdict } => live.narrate(&campaign::row(proposal, verdict)),
        CampaignEvent::Said(what) => live.narrate(&format!("          {what}")),
        CampaignEvent::Paused(reason) => live.narrate(&format!("paused    {reason}")),
        CampaignEvent::Pruned(pruning) => live.narrate(&campaign::part_row(pruning)),
        // What is worth a line of its own is in the line of the verdict or in the block at the end.
        CampaignEvent::Proposed(_)
        | CampaignEvent::Pair { .. }
        | CampaignEvent::Promotion(_)
        | CampaignEvent::Final(_)
        | CampaignEvent::Ended(_) => {}
    }
}

pub(crate) fn from_campaign(error: CampaignError) -> Failure {
    let hint = match &error {
        CampaignError::Locked { .. } => {
            Some("each lab has one campaign at a time: another one is made with --lab")
        }
        CampaignError::OtherCampaign { .. } => {
            Some("start another lab with --lab, or say what the campaign was asked")
        }
        CampaignError::Library(_) => Some("`pawl effects revoke SOURCE` removes what was imported"),
        CampaignError::File(_)
        | CampaignError::Io { .. }
        | CampaignError::Options(_)
        | CampaignError::Recipe(_)
        | CampaignError::Trial { .. }
        | CampaignError::Interrupted => None,
    };
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
