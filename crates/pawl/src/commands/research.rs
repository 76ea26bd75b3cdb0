//! `pawl research`: a campaign, told as it goes. Who proposes and what is kept is decided elsewhere;
//! this file brings the parts together and prints.

use crate::args::{Research, Researcher, setting};
use crate::campaign;
use crate::commands::report;
use crate::errors::Failure;
use crate::interrupt::interrupt;
use crate::lab::from_ledger;
use crate::live::{Live, Work};
use crate::machine::{cores, describe, machine, peak_flops};
use crate::output::{Answer, count, flops, narrate};
use crate::prepare;
use crate::recipes::{RecipeText, compile, depth, find, from_recipe};
use pawl_ledger::read_campaign;
use pawl_recipe::Overrides;
use pawl_record::{CampaignBudget, CampaignManifest, Rung, SettingValue, Settings};
use pawl_research::campaign::{CampaignError, CampaignEvent, MIN_STEPS, existing};
use pawl_research::child::ChildWorld;
use pawl_research::compiler::{ChildCompiler, LIMIT};
use pawl_research::options::{CampaignOptions, FINAL_SEEDS, judge_settings};
use pawl_research::world::Checked;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Minutes of a campaign that is not told when to stop.
const MINUTES: f64 = 60.0;
/// FLOPs of a trial: some seconds on a core, long enough that the order of recipes is that of longer runs.
const TRIAL_FLOPS: f64 = 5e11;

pub(crate) fn run(args: Research) -> Result<Answer, Failure> {
    let start = Instant::now();
    let stop = interrupt()?;
    let lab = args.place.lab.clone();
    let existing = existing(&lab)?;
    let recipe = find(&args.recipe)?;
    let options = options(&args, &recipe, existing.as_ref())?;
    let executable =
        std::env::current_exe().map_err(|why| Failure::new("pawl cannot find itself").caused_by(&why))?;
    let most_memory = machine().memory_bytes;
    let compiler = ChildCompiler { executable: executable.clone(), most_memory, limit: LIMIT };
    // The same question is asked several times a proposal.
    let answers = Mutex::new(BTreeMap::new());
    let check = |path: &Path, depth: u64, settings: &Settings| {
        let question = format!("{} {depth} {settings:?}", path.display());
        if let Some(known) = answers.lock().expect("no thread panics").get(&question) {
            return Clone::clone(known);
        }
        let answer: Result<Checked, String> = compiler.check(path, depth, settings);
        answers.lock().expect("no thread panics").insert(question, answer.clone());
        answer
    };
    let world = ChildWorld {
        executable,
        lab: lab.clone(),
        data: args.data.clone(),
        check: &check,
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

/// What the command line and the campaign on file make of it. What the command does not say is as the
/// campaign has it, so that the same command, or a shorter one, goes on with it.
fn options(
    args: &Research,
    recipe: &RecipeText,
    existing: Option<&CampaignManifest>,
) -> Result<CampaignOptions, Failure> {
    let overrides = Overrides { depth: args.depth, ..Overrides::default() };
    let compiled = compile(recipe, &overrides).map_err(|error| from_recipe(&recipe.name, error))?;
    let depth = depth(&compiled).ok_or_else(|| {
        Failure::new(format!("recipe {} has no dial `depth`", recipe.name))
            .hint("depth = dial(\"depth\", 4) makes one: it is what the scale of a trial is")
    })?;
    let rung = existing.map(|campaign| campaign.rung);
    let rung = Rung {
        depth: args.depth.or(rung.map(|rung| rung.depth)).unwrap_or(depth),
        flops: args.flops.or(rung.map(|rung| rung.flops)).unwrap_or(TRIAL_FLOPS),
        precision: args.precision.map(Into::into).or(rung.map(|rung| rung.precision)).unwrap_or_default(),
    };
    affordable(recipe, rung)?;
    let prepared = prepare::prepare(&args.place.lab, &args.data, compiled.vocab_size(), args.place.json)?;
    let peak = flops(peak_flops(cores()));
    narrate(&format!("machine   {} cores  {}  {peak}/s float32", cores(), describe()));
    narrate(&format!("corpus    {}", prepare::describe(&args.place.lab, &prepared)?));
    Ok(CampaignOptions {
        lab: args.place.lab.clone(),
        recipe_name: recipe.name.clone(),
        recipe_text: recipe.text.clone(),
        settings: Settings::new(),
        rung,
        data: prepared.reference,
        seed: args.seed.or(existing.map(|campaign| campaign.seed)).unwrap_or(0),
        researcher: match (&args.script, args.researcher) {
            (Some(path), _) => pawl_research::researcher::Researcher::Script(script(path)?),
            (None, Researcher::Optimizer) => pawl_research::researcher::Researcher::Optimizer,
            (None, Researcher::Random) => pawl_research::researcher::Researcher::Random,
        },
        judge: judge_settings(),
        budget: match (args.trials, args.minutes) {
            (Some(trials), _) => CampaignBudget::Trials(trials),
            (None, minutes) => CampaignBudget::Minutes(minutes.unwrap_or(MINUTES)),
        },
        workers: args.workers.map_or_else(cores, |workers| workers as usize),
        final_seeds: FINAL_SEEDS,
        version: env!("CARGO_PKG_VERSION").to_string(),
        machine: describe(),
    })
}

/// The lines of a script.
fn script(path: &Path) -> Result<&'static [(String, SettingValue)], Failure> {
    let cannot = || Failure::misuse(format!("script {} cannot be read", path.display()));
    let text = std::fs::read_to_string(path).map_err(|why| cannot().caused_by(&why))?;
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        lines.push(setting(line).map_err(|why| cannot().because(format!("line {}: {why}", at + 1)))?);
    }
    Ok(lines.leak())
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
        .hint(format!("give at least {MIN_STEPS} steps: --flops {:.0e}, or more", (1.0 + MIN_STEPS) * step)))
}

fn tell(live: &Live, event: &CampaignEvent<'_>) {
    match event {
        CampaignEvent::Started { manifest, start, num_proposals, champion } => {
            live.narrate(&format!(
                "start     {}  {} params   trial: depth {}, {}",
                manifest.recipe.name,
                count(start.num_params as f64),
                manifest.rung.depth,
                flops(manifest.rung.flops),
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
        // What is worth a line of its own is in the line of the verdict or in the block at the end.
        CampaignEvent::Proposed(_)
        | CampaignEvent::Pair { .. }
        | CampaignEvent::Promotion(_)
        | CampaignEvent::Final(_)
        | CampaignEvent::Ended(_) => {}
    }
}

fn from_campaign(error: CampaignError) -> Failure {
    let hint = match &error {
        CampaignError::Locked { .. } => {
            Some("each lab has one campaign at a time: another one is made with --lab")
        }
        CampaignError::OtherCampaign { .. } => {
            Some("start another lab with --lab, or say what the campaign was asked")
        }
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
