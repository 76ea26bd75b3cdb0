//! The report as Markdown, and the sentences that both renderings share.

use super::html::conditions;
use super::words::{bpb, count, duration, e_value, gain, gain_with_interval, percent, plain, si, utc, value};
use super::{Headline, Outcome, Report, TrialRow};
use pawl_record::{Factor, Ladder, PartRuling, Rung, SettingValue, Worth};
use std::fmt::Write;

/// The text.
pub fn markdown(report: &Report) -> String {
    let mut out = String::new();
    let asked = &report.asked;
    let _ = write!(
        out,
        "# {}\n\n{}\n\ncampaign {}, {}\n",
        escape(&title(report)),
        escape(&lead(report)),
        asked.campaign,
        utc(asked.created_unix_s)
    );
    kept(&mut out, report);
    parts(&mut out, report);
    out.push_str("\n## How far it can be trusted\n\n");
    for sentence in trust(report) {
        let _ = writeln!(out, "- {}", escape(&sentence));
    }
    measured(&mut out, report);
    without_score(&mut out, report);
    settings(&mut out, report);
    cost(&mut out, report);
    out.push_str("\n## Conditions\n\n| | |\n|---|---|\n");
    for (name, text) in conditions(report) {
        let _ = writeln!(out, "| {name} | {} |", escape(&text));
    }
    for problem in &report.problems {
        let _ = writeln!(out, "\nnot readable: {}", escape(&problem.to_string()));
    }
    out
}

/// What happened, in one line.
pub(super) fn title(report: &Report) -> String {
    let recipe = plain(&report.asked.recipe);
    match report.headline {
        Headline::NothingKept if report.bound.tests == 0 => format!("{recipe}: nothing tried yet"),
        Headline::NothingKept => format!("{recipe}: no improvement kept"),
        Headline::Unmeasured { .. } => {
            format!("{recipe}: {} kept, not yet measured again", count(report.tally.kept, "change"))
        }
        Headline::Measured(measured) if measured.is_proven() => {
            format!("{recipe}: {} → {} bits per byte", bpb(measured.start_bpb), bpb(measured.champion_bpb))
        }
        Headline::Measured(_) => format!("{recipe}: kept changes not borne out on fresh seeds"),
    }
}

/// What is proven, in a few sentences.
pub(super) fn lead(report: &Report) -> String {
    let data = plain(&report.asked.data.name);
    match report.headline {
        Headline::NothingKept if report.bound.tests == 0 => {
            format!("The campaign has begun on {data}; no proposal has been measured.")
        }
        Headline::NothingKept => format!(
            "Of {} none was shown to be better than the start on {data}. Nothing was changed.",
            count(report.tally.proposals, "proposal")
        ),
        Headline::Unmeasured { gain: sum } => format!(
            "{} of {} won against the champion of their time, together worth {} bits per byte as measured then. \
             That sum is too high on average, because only winners enter it; fresh seeds have not spoken yet.",
            count(report.tally.kept, "change"),
            report.tally.proposals,
            gain(sum)
        ),
        Headline::Measured(measured) => {
            let text =
                if measured.sealed { "a sealed text that no decision has seen" } else { "the search split" };
            let mut out = format!(
                "At equal training compute the champion needs {} bits per byte of {data} where the start needs {}: \
                 a gain of {} (95 % interval), {} fewer bits. Measured on {} and {text}.",
                bpb(measured.champion_bpb),
                bpb(measured.start_bpb),
                gain_with_interval(measured.mean, measured.half_width),
                percent(measured.mean / measured.start_bpb),
                count(measured.seeds, "fresh seed"),
            );
            if let Some(worth) = &report.worth {
                let _ = write!(
                    out,
                    " To score as the champion does, the start would need {} the compute.",
                    worth_line(worth, &report.asked.rungs)
                );
            }
            if !measured.is_proven() {
                out.push_str(" The interval includes zero: this is not proof of an improvement.");
            }
            if measured.stale {
                let _ = write!(
                    out,
                    " A later champion exists that is not yet measured (this is generation {}).",
                    measured.generation
                );
            }
            out
        }
    }
}

/// Why the result may be believed, and how far.
pub(super) fn trust(report: &Report) -> Vec<String> {
    let bound = &report.bound;
    let mut out = vec![format!(
        "Every proposal met the champion of its time on the same seeds and data order at equal FLOPs. Pairs were added \
         until an e-process decided; its evidence may be looked at after every pair without harm. An online \
         false-discovery rule (e-LOND) shares the error over the whole campaign: at most {} of the keeps are expected to be \
         false, where false means a gain of at most {} bits per byte. {} so far, {}.",
        percent(bound.alpha),
        bound.min_effect_bpb,
        count(bound.tests, "test"),
        count(bound.keeps, "keep")
    )];
    if let Some(margin) = bound.closest_margin {
        out.push(format!(
            "The weakest keep had {} times the evidence it needed.",
            super::words::significant(margin, 2)
        ));
    }
    if bound.knobs.settings + bound.knobs.with_a_text > 0 {
        out.push(format!("Nothing won against an untuned champion by being tuned: {}.", bound.knobs.words()));
    }
    if let Some(noise) = &report.noise {
        let ratio = noise.unpaired_sd / noise.pair_sd;
        let pairing = if ratio.is_finite() && ratio > 1.0 {
            format!("; without pairing it would be {} times as large", super::words::significant(ratio, 2))
        } else {
            String::new()
        };
        out.push(format!(
            "The noise was measured, not assumed: {} of one recipe, initialised twice, differ with a standard deviation of \
             {} bits per byte{pairing}. The tests account for not knowing it better.",
            count(noise.pairs.len() as u64, "pair"),
            bpb(noise.pair_sd),
        ));
    }
    if bound.remeasured > 0 {
        out.push(format!(
            "{} measured again on fresh seeds: for {} the 95 % interval lies above zero.",
            count(bound.remeasured, "kept change"),
            if bound.confirmed == bound.remeasured {
                "all of them".to_string()
            } else {
                bound.confirmed.to_string()
            }
        ));
    }
    if let Headline::Measured(measured) = report.headline {
        let ratio = measured.seconds_ratio;
        if ratio.is_finite() && ratio > 0.0 {
            out.push(format!(
                "At equal FLOPs the champion trains in {ratio:.2} times the seconds of the start."
            ));
        }
    }
    if let Some(worth) = &report.worth {
        out.push(format!(
            "Compute is counted by a power law without a floor, L = b C^-{}, through {} of the start at {}: no statement about \
             budgets far beyond these.",
            super::words::significant(worth.exponent, 2),
            count(worth.points.iter().map(|point| point.runs.len() as u64).sum(), "run"),
            listed(worth.points.iter().map(|point| si(point.flops, "FLOP")))
        ));
    }
    out.push(not_shown(report));
    out
}

fn not_shown(report: &Report) -> String {
    let rungs = report.asked.rungs.all();
    let at = |rung: &Rung| format!("depth {} with {} a run", rung.depth, si(rung.flops, "FLOP"));
    match rungs {
        [only] => format!(
            "Not shown: that the gain holds at other sizes, budgets or data. All of it was measured at {}.",
            at(only)
        ),
        [first, above @ ..] => format!(
            "Changes were tried at {}; to become champion they had to be better at {} too, on other seeds. Not shown: that \
             the gain holds beyond that, or on other data.",
            at(first),
            listed(above.iter().map(at))
        ),
        [] => unreachable!("a ladder has a rung"),
    }
}

/// `a, b and c`.
fn listed(items: impl Iterator<Item = String>) -> String {
    let mut items: Vec<String> = items.collect();
    let last = items.pop().unwrap_or_default();
    if items.is_empty() { last } else { format!("{} and {last}", items.join(", ")) }
}

/// Factors of compute with their intervals, rung by rung.
pub(super) fn worth_line(worth: &Worth, ladder: &Ladder) -> String {
    let depth = |rung: u64| ladder.all().get(rung as usize).map_or(0, |rung| rung.depth);
    listed(worth.rungs.iter().map(|it| {
        let interval = match it.compute.high {
            Some(high) => {
                format!("95 % interval {} to {}", Factor::words(it.compute.low, 2), Factor::words(high, 2))
            }
            None => format!("95 % interval {} upwards", Factor::words(it.compute.low, 2)),
        };
        format!("{} times ({interval}) at depth {}", Factor::words(it.compute.value, 2), depth(it.rung))
    }))
}

/// The gains on the rungs above the first, or a dash.
pub(super) fn above_of(trial: &TrialRow) -> String {
    let gains = trial.climbs.iter().filter_map(|climb| climb.gain);
    let gains: Vec<String> = gains.map(|gain| gain_with_interval(gain.mean, gain.half_width)).collect();
    if gains.is_empty() { "–".into() } else { gains.join(", ") }
}

/// What a change is worth in compute on the last rung it climbed, or a dash.
pub(super) fn worth_of(trial: &TrialRow) -> String {
    let last = trial.worth.as_ref().and_then(|worth| worth.rungs.last());
    last.map_or("–".into(), |it| match it.compute.high {
        Some(high) => format!(
            "×{} ({} to {})",
            Factor::words(it.compute.value, 2),
            Factor::words(it.compute.low, 2),
            Factor::words(high, 2)
        ),
        None => {
            format!("×{} ({} upwards)", Factor::words(it.compute.value, 2), Factor::words(it.compute.low, 2))
        }
    })
}

/// How time and money are counted.
pub(super) fn cost_note(report: &Report) -> String {
    let cost = &report.cost;
    let workers = match cost.workers {
        Some(workers) if workers > 1 => format!(", {workers} trials side by side"),
        _ => String::new(),
    };
    format!(
        "{} of wall clock{workers}. Core time is training time, one core a run. Runs that several changes share are counted \
         once. Money paid to services: ${:.2}.",
        duration(cost.elapsed_s),
        cost.money_usd
    )
}

/// Mean gain with its interval, or a dash.
pub(super) fn gain_of(trial: &TrialRow) -> String {
    trial.evidence.map_or("–".into(), |evidence| gain_with_interval(evidence.mean, evidence.half_width))
}

/// E-value and, in brackets, the one a keep needed.
pub(super) fn e_of(trial: &TrialRow) -> String {
    trial.evidence.map_or("–".into(), |evidence| {
        format!("{} ({})", e_value(evidence.e_value), e_value(evidence.threshold))
    })
}

/// What stands in the place of an empty list of keeps.
pub(super) fn nothing(report: &Report) -> &'static str {
    if report.end.is_some() { "Nothing." } else { "Nothing yet." }
}

fn kept(out: &mut String, report: &Report) {
    out.push_str("\n## What was kept\n\n");
    let kept: Vec<&TrialRow> = report.trials.iter().filter(|trial| trial.outcome == Outcome::Kept).collect();
    if kept.is_empty() {
        let _ = writeln!(out, "{}", nothing(report));
        return;
    }
    out.push_str("| # | change | gain when it won | on the rungs above | compute | measured again | pairs | e (needed) | why it was tried |\n|--:|---|--:|--:|--:|--:|--:|--:|---|\n");
    for trial in kept {
        let again =
            trial.remeasured.map_or("–".into(), |gain| gain_with_interval(gain.mean, gain.half_width));
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {again} | {} | {} | {} |",
            trial.number,
            escape(&trial.change),
            gain_of(trial),
            above_of(trial),
            worth_of(trial),
            trial.pairs,
            e_of(trial),
            escape(&trial.hypothesis)
        );
    }
    out.push_str("\nGains in bits per byte with 95 % intervals; *compute*: how many times the FLOPs the champion before it would need for the same score on the last of the rungs above; *measured again*: the champion against itself without the change, on fresh seeds.\n");
}

/// Heading, cells and a closing sentence of the table of parts.
pub(super) const PARTS: (&str, [&str; 5], &str) = (
    "What each part is worth",
    ["kept by", "part", "its own effect", "pairs", "so"],
    "The champion of its time against itself without this part, on the same seeds. A part leaves when it is shown to be \
     worth less than one standard deviation of a pair and looks worth nothing.",
);

/// The rows of the table of parts.
pub(super) fn part_rows(report: &Report) -> Vec<[String; 5]> {
    let rows = report.parts.iter().map(|it| {
        let (from, to) = (value(&it.change.to), value(&it.change.from));
        let so = match &it.ruling {
            PartRuling::Leaves => "leaves".to_string(),
            PartRuling::Stays(why) => format!("stays: {}", plain(why)),
        };
        [
            format!("#{}", it.proposal),
            format!("{}: {from} → {to}", plain(&it.change.setting)),
            it.evidence.map_or("–".into(), |e| gain_with_interval(-e.mean, e.half_width)),
            it.pairs.len().to_string(),
            so,
        ]
    });
    rows.collect()
}

fn parts(out: &mut String, report: &Report) {
    let rows = part_rows(report);
    if rows.is_empty() {
        return;
    }
    let (heading, cells, foot) = PARTS;
    let _ = write!(out, "\n## {heading}\n\n| {} |\n|--:|---|--:|--:|---|\n", cells.join(" | "));
    for row in rows {
        let _ = writeln!(out, "| {} |", row.map(|cell| escape(&cell)).join(" | "));
    }
    let _ = writeln!(out, "\n{foot}");
}

fn measured(out: &mut String, report: &Report) {
    for outcome in [
        Outcome::Slower,
        Outcome::Stayed,
        Outcome::Faded,
        Outcome::Retracted,
        Outcome::Undecided,
        Outcome::Rejected,
    ] {
        let rows: Vec<&TrialRow> = report.trials.iter().filter(|trial| trial.outcome == outcome).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = write!(
            out,
            "\n## {} ({})\n\n{}\n\n| # | change | gain | pairs | e (needed) | why it ended |\n|--:|---|--:|--:|--:|---|\n",
            heading(outcome),
            rows.len(),
            sentence(outcome.meaning())
        );
        for trial in rows {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} |",
                trial.number,
                escape(&trial.change),
                gain_of(trial),
                trial.pairs,
                e_of(trial),
                escape(trial.reason.as_deref().unwrap_or(""))
            );
        }
    }
}

fn without_score(out: &mut String, report: &Report) {
    for outcome in [Outcome::Failed, Outcome::Skipped, Outcome::Open] {
        let rows: Vec<&TrialRow> = report.trials.iter().filter(|trial| trial.outcome == outcome).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = write!(
            out,
            "\n## {} ({})\n\n| # | change | why | FLOPs |\n|--:|---|---|--:|\n",
            heading(outcome),
            rows.len()
        );
        for trial in rows {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} |",
                trial.number,
                escape(&trial.change),
                escape(trial.reason.as_deref().unwrap_or("no verdict yet")),
                if trial.flops > 0.0 { si(trial.flops, "") } else { "0".into() }
            );
        }
    }
}

fn heading(outcome: Outcome) -> String {
    match outcome {
        Outcome::Slower => "Better but slower".into(),
        Outcome::Stayed => "Better on the first rung alone".into(),
        Outcome::Faded => "Better in their duels, not on every fresh seed".into(),
        Outcome::Kept
        | Outcome::Retracted
        | Outcome::Undecided
        | Outcome::Rejected
        | Outcome::Failed
        | Outcome::Skipped
        | Outcome::Open => sentence(outcome.word()),
    }
}

/// With a capital first letter.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

fn settings(out: &mut String, report: &Report) {
    if report.settings.is_empty() {
        return;
    }
    out.push_str("\n## The champion against the start\n\n| setting | start | champion |\n|---|---|---|\n");
    for change in &report.settings {
        let side = |side: &Option<SettingValue>| side.as_ref().map_or("–".into(), |v| escape(&value(v)));
        let _ = writeln!(out, "| {} | {} | {} |", escape(&change.name), side(&change.a), side(&change.b));
    }
}

fn cost(out: &mut String, report: &Report) {
    let cost = &report.cost;
    out.push_str("\n## What it cost\n\n| spent on | runs | FLOPs | core time |\n|---|--:|--:|--:|\n");
    for row in &cost.rows {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} |",
            row.what,
            row.runs,
            si(row.flops, ""),
            duration(row.core_seconds)
        );
    }
    let _ = writeln!(
        out,
        "| **all** | {} | {} | {} |\n\n{}",
        cost.runs,
        si(cost.flops, ""),
        duration(cost.core_seconds),
        cost_note(report)
    );
}

/// Text of others in one line that Markdown takes literally.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in plain(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}
