//! `pawl show ID`: all that is known of one run, or of one proposal and what became of it.

use crate::args::Show;
use crate::campaign;
use crate::errors::Failure;
use crate::lab::{from_ledger, ledger};
use crate::output::{Align, Answer, Block, Table, count, duration, flops};
use pawl_ledger::{RunRecord, Shown, Standing, Trial};
use pawl_record::{Author, Budget, Event, Evidence, LessonTask, PairRecord, Precision, Verdict};
use pawl_train::RunDir;
use serde_json::json;

pub(crate) fn run(args: Show) -> Result<Answer, Failure> {
    let ledger = ledger(&args.place.lab)?;
    match ledger.show(&args.id).map_err(from_ledger)? {
        Shown::Run(run) => {
            let events = ledger.events(&run.manifest.id).map_err(from_ledger)?;
            let lesson = RunDir::lesson(&args.place.lab, &run.manifest.id)?;
            let mut text = format!("{}{}", evaluations(&events), run_block(&run));
            if let Some(lesson) = &lesson {
                text.push_str(&format!("parent: {}\ntaught: {}\n", lesson.parent, taught(&lesson.task)));
            }
            let mut json = json!({ "kind": "run", "run": run.manifest, "result": run.result });
            if let Some(lesson) = lesson {
                json["lesson"] = json!(lesson);
            }
            Ok(Answer::new(text, json))
        }
        Shown::Trial(trial) => {
            let pairs = trial.verdict.as_ref().map_or(String::new(), |verdict| {
                let above = verdict.climbs.iter().map(|climb| pairs(&climb.pairs));
                std::iter::once(pairs(&verdict.pairs)).chain(above).collect()
            });
            let text = format!("{pairs}{}", trial_block(&trial));
            let json = json!({
                "kind": "trial",
                "proposal": trial.proposal,
                "verdict": trial.verdict,
                "standing": trial.standing,
                "prunings": trial.prunings,
                "replications": trial.replications,
            });
            Ok(Answer::new(text, json))
        }
    }
}

/// What a lesson was about, in words.
fn taught(task: &LessonTask) -> String {
    match task {
        LessonTask::Sft { data, .. } => format!("sft on {data}"),
        LessonTask::Rl(task) => {
            let control = task.control.map_or(String::new(), |control| format!(", control {control:?}"));
            format!("rl in {} at difficulty {}{}", task.env, task.difficulty, control.to_lowercase())
        }
    }
}

/// The learning curve on the search split.
fn evaluations(events: &[Event]) -> String {
    let mut table =
        Table::new(&[("step", Align::Right), ("val_bpb", Align::Right), ("by domain", Align::Left)]);
    let mut any = false;
    for event in events {
        match event {
            Event::Eval { step, val_bpb, by_domain } => {
                let domains = by_domain.iter().map(|(name, bpb)| format!("{name} {bpb:.4}"));
                let domains = domains.collect::<Vec<_>>().join("  ");
                table.row(vec![step.to_string(), format!("{val_bpb:.4}"), domains]);
                any = true;
            }
            Event::Started { .. } | Event::Step { .. } | Event::Checkpoint { .. } => {}
        }
    }
    if any { table.text() + "\n" } else { String::new() }
}

/// A run in lines, as `pawl train` ends too.
pub(crate) fn run_block(run: &RunRecord) -> String {
    let (manifest, result) = (&run.manifest, run.result.as_ref());
    let settings = manifest.settings.iter().map(|(name, value)| format!("{name}={value}"));
    let mut block = Block::default();
    block
        .line("run", &manifest.id)
        .line("state", run.state().word())
        .maybe("reason", result.and_then(|result| result.reason.as_ref()))
        .line("recipe", &manifest.recipe)
        .line("fingerprint", &manifest.fingerprint)
        .line("settings", settings.collect::<Vec<_>>().join(" "))
        .line("depth", manifest.depth)
        .line("num_params", count(manifest.num_params as f64))
        .line("seed", manifest.seed);
    if manifest.init_seed != manifest.seed {
        block.line("init_seed", manifest.init_seed);
    }
    if manifest.precision != Precision::F32 {
        block.line("precision", manifest.precision.name());
    }
    block
        .line("data", &manifest.data.name)
        .line("budget", budget(manifest.budget))
        .line("num_steps", manifest.num_steps)
        .line("tokens_per_step", manifest.tokens_per_step)
        .line("seq_len", manifest.seq_len)
        .line("machine", &manifest.machine);
    if let Some(result) = result {
        block.maybe("val_bpb", result.val_bpb.map(|bpb| format!("{bpb:.4}")));
        for (domain, bpb) in &result.val_bpb_by_domain {
            block.line(&format!("val_bpb {domain}"), format!("{bpb:.4}"));
        }
        block
            .maybe("sealed_bpb", result.sealed_bpb.map(|bpb| format!("{bpb:.4}")))
            .line("steps", result.steps)
            .line("tokens", count(result.tokens as f64))
            .line("flops", flops(result.flops))
            .line("train_time", duration(result.train_seconds))
            .line("tokens_per_sec", count(result.tokens_per_sec))
            .line("mfu", format!("{:.1} %", 100.0 * result.mfu))
            .line("peak_memory", crate::output::bytes(result.peak_memory_bytes))
            .maybe("checkpoint", result.checkpoint_hash.as_ref());
    }
    block.text().to_string()
}

fn budget(budget: Budget) -> String {
    match budget {
        Budget::Flops(number) => flops(number),
        Budget::Tokens(number) => format!("{} tokens", count(number as f64)),
        Budget::Steps(number) => format!("{number} steps"),
    }
}

fn pairs(pairs: &[PairRecord]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("seed", Align::Right),
        ("champion", Align::Left),
        ("bpb", Align::Right),
        ("challenger", Align::Left),
        ("bpb", Align::Right),
        ("gain", Align::Right),
        ("time", Align::Right),
    ]);
    let diverged = || "diverged".to_string();
    for pair in pairs {
        table.row(vec![
            pair.seed.to_string(),
            pair.champion_run.clone(),
            format!("{:.4}", pair.champion_bpb),
            pair.challenger_run.clone(),
            pair.challenger_bpb.map_or_else(diverged, |bpb| format!("{bpb:.4}")),
            pair.difference.map_or_else(String::new, |gain| format!("{gain:+.4}")),
            format!("{:.2}x", pair.seconds_ratio),
        ]);
    }
    table.text() + "\n"
}

fn trial_block(trial: &Trial) -> String {
    let proposal = &trial.proposal;
    let mut block = Block::default();
    block.line("proposal", proposal.number).line("against_champion", proposal.generation);
    for change in &proposal.changes {
        block.line("change", format!("{} {} -> {}", change.setting, change.from, change.to));
    }
    block
        .maybe("recipe", proposal.recipe.as_ref().map(|recipe| &recipe.file))
        .line("hypothesis", &proposal.hypothesis)
        .line("researcher", &proposal.researcher)
        .maybe("model", proposal.author.as_ref().map(author))
        .line("predicted_gain", format!("{:+.4} bits per byte", proposal.prediction.gain_bpb))
        .line("predicted_keep", format!("{:.0} %", 100.0 * proposal.prediction.keep_probability));
    match &trial.verdict {
        None => block.line("verdict", "being tried"),
        Some(verdict) => verdict_lines(&mut block, verdict),
    };
    for pruning in &trial.prunings {
        block.line("part", campaign::part_line(pruning));
    }
    for replication in &trial.replications {
        block.line("replicated", campaign::replicated(replication));
    }
    block.maybe("since", trial.standing.as_ref().and_then(Standing::words));
    block.text().to_string()
}

fn author(author: &Author) -> String {
    let tokens = count((author.input_tokens + author.output_tokens) as f64);
    let sent_back = match author.repairs {
        0 => String::new(),
        repairs => format!(", sent back {repairs} times"),
    };
    format!("{}, {tokens} tokens, ${:.4}{sent_back}, {}", author.model, author.cost_usd, author.conversation)
}

fn verdict_lines<'a>(block: &'a mut Block, verdict: &Verdict) -> &'a mut Block {
    block.maybe("num_params", verdict.num_params.map(|number| count(number as f64)));
    block.maybe("fingerprint", verdict.fingerprint.as_ref());
    if let Some(evidence) = &verdict.evidence {
        block
            .line("gain", format!("{:+.4} +- {:.4} bits per byte", evidence.mean, evidence.half_width))
            .line("e_value", format!("{:.3}, a keep needed {:.1}", evidence.e_value, evidence.threshold))
            .line("pair_sd", format!("{:.4}", evidence.sd));
    }
    block.maybe("time", verdict.seconds_ratio.map(|ratio| format!("{ratio:.2}x the champion's")));
    if let Some(equal) = &verdict.equal_time {
        block.line("gain_at_equal_time", format!("{:+.4} bits per byte", equal.mean));
    }
    for climb in &verdict.climbs {
        let held = if climb.held() { "held" } else { climb.decision.word() };
        let test = climb.evidence.as_ref().map_or_else(String::new, |it| {
            let Evidence { mean, half_width, e_value, threshold, .. } = it;
            format!(", gain {mean:+.4} +- {half_width:.4}, e {e_value:.1} where {threshold:.1} was needed")
        });
        let why = climb.decision.reason().map_or_else(String::new, |why| format!(": {why}"));
        let pairs = climb.pairs.len();
        block.line(
            &format!("climb_to_rung_{}", climb.rung + 1),
            format!("{held} after {pairs} pairs{test}{why}"),
        );
    }
    if let Some(worth) = &verdict.worth {
        let on = worth.rungs.iter().map(|it| {
            let high = it.compute.high.map_or_else(|| "no limit".to_string(), |high| format!("{high:.2}"));
            format!(
                "{:.2}x compute [{:.2}, {high}] on rung {}",
                it.compute.value,
                it.compute.low,
                it.rung + 1
            )
        });
        block.line("worth", on.collect::<Vec<_>>().join(", "));
    }
    block
        .line(
            "cost",
            format!("{} runs, {}, {}", verdict.runs, flops(verdict.flops), duration(verdict.run_seconds)),
        )
        .line("verdict", verdict.decision.word())
        .maybe("reason", verdict.decision.reason())
        .line("promoted", if verdict.promoted { "yes" } else { "no" })
}
