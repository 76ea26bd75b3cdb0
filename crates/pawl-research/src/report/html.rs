//! The report as one HTML page: style and drawings inline, no script, nothing fetched.

use super::figures::{Along, forest_axis, forest_cell, forest_scale, learning, progress, shape};
use super::words::{
    bpb, count, duration, gain, gain_with_interval, percent, plain, si, significant, utc, value,
};
use super::{Headline, Outcome, Report, TrialRow, markdown};
use crate::plots::{Scale, Shape, escape, swatch};
use pawl_ledger::LineTag;
use pawl_record::{CampaignBudget, EndReason, Factor, JudgeSettings, Rung, SettingValue};
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");

/// The page.
pub fn html(report: &Report) -> String {
    let mut out = String::new();
    let title = format!("pawl: {} on {}", plain(&report.asked.recipe), plain(&report.asked.data.name));
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        escape(&title)
    );
    header(&mut out, report);
    tiles(&mut out, report);
    progress_section(&mut out, report);
    kept_section(&mut out, report);
    bound_section(&mut out, report);
    // One printed page for a director ends here.
    out.push_str("<div class=\"appendix\">\n");
    parts_section(&mut out, report);
    forest_section(&mut out, report);
    without_score_section(&mut out, report);
    curves_section(&mut out, report);
    champion_section(&mut out, report);
    cost_section(&mut out, report);
    conditions_section(&mut out, report);
    out.push_str("</div>\n");
    problems_section(&mut out, report);
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn header(out: &mut String, report: &Report) {
    let asked = &report.asked;
    let state = match &report.end {
        None => "still running, or stopped without a word",
        Some(end) => match end.reason {
            EndReason::Budget => "finished",
            EndReason::Exhausted => "finished: nothing left to propose",
            EndReason::Paused => "paused: no researcher answers or may be paid",
            EndReason::Interrupted => "interrupted: the same command continues it",
        },
    };
    let _ = write!(
        out,
        "<header>\n<p class=\"eyebrow\">pawl · campaign {} · {} · {}</p>\n<h1>{}</h1>\n<p class=\"lead\">{}</p>\n</header>\n",
        escape(&asked.campaign),
        utc(asked.created_unix_s),
        state,
        escape(&markdown::title(report)),
        escape(&markdown::lead(report)),
    );
}

fn tiles(out: &mut String, report: &Report) {
    let Report { tally, bound, cost, .. } = report;
    out.push_str("<section class=\"tiles\">\n");
    let mut tile = |style: &str, name: &str, number: &str, unit: &str, note: &str| {
        let _ = writeln!(
            out,
            "<div class=\"tile {style}\"><p class=\"what\">{}</p><p class=\"number\">{}\
             <span class=\"unit\"> {}</span></p><p class=\"note\">{}</p></div>",
            escape(name),
            escape(number),
            escape(unit),
            escape(note)
        );
    };
    let (number, unit, note, style) = gain_tile(report);
    tile(&format!("tiles-first {style}"), "gain", &number, unit, &note);
    let rest = [
        ("retracted", tally.retracted),
        ("undecided", tally.undecided),
        ("rejected", tally.rejected),
        ("failed", tally.failed),
        ("skipped", tally.skipped),
    ];
    let rest: Vec<String> =
        rest.iter().filter(|(_, n)| *n > 0).map(|(word, n)| format!("{n} {word}")).collect();
    let of = format!("of {}", tally.proposals);
    tile("", "changes kept", &tally.kept.to_string(), &of, &rest.join(", "));
    let share = format!("expected share, over {}", count(bound.tests, "test"));
    tile("", "false keeps", &format!("≤ {}", percent(bound.alpha)), "", &share);
    let spent = format!("{}, {}, ${:.2}", count(cost.runs, "run"), si(cost.flops, "FLOP"), cost.money_usd);
    tile("tiles-last", "cost", &duration(cost.core_seconds), "of core time", &spent);
    out.push_str("</section>\n");
}

fn gain_tile(report: &Report) -> (String, &'static str, String, &'static str) {
    match report.headline {
        Headline::NothingKept => ("0".into(), "bits per byte", "nothing was kept".into(), ""),
        Headline::Unmeasured { gain: sum } => (
            gain(sum),
            "bits per byte",
            "as measured when each change won: too high on average, not yet measured again".into(),
            "doubt",
        ),
        Headline::Measured(measured) => (
            gain_with_interval(measured.mean, measured.half_width),
            "bits per byte",
            format!(
                "95 % interval, {}, {}{}",
                count(measured.seeds, "fresh seed"),
                if measured.sealed { "sealed text" } else { "search text" },
                if measured.is_proven() { "" } else { ": includes zero" }
            ) + &compute_note(report),
            if measured.is_proven() { "proven" } else { "doubt" },
        ),
    }
}

/// `; worth 2.9 times the compute` on the last rung that was measured.
fn compute_note(report: &Report) -> String {
    let last = report.worth.as_ref().and_then(|worth| worth.rungs.last());
    last.map_or_else(String::new, |it| {
        let words = |value| Factor::words(value, 1);
        let high =
            it.compute.high.map_or_else(|| "upwards".to_string(), |high| format!("to {}", words(high)));
        format!("; worth {} times the compute ({} {high})", words(it.compute.value), words(it.compute.low))
    })
}

fn legend(out: &mut String, report: &Report) {
    out.push_str("<p class=\"legend\">");
    for outcome in Outcome::ALL {
        if report.trials.iter().any(|trial| trial.outcome == outcome) {
            let _ = write!(
                out,
                "<span title=\"{}\">{}{}</span> ",
                escape(outcome.meaning()),
                swatch(outcome.word(), shape(outcome)),
                outcome.word()
            );
        }
    }
    if matches!(report.headline, Headline::Measured(_)) {
        let _ = write!(out, "<span>{}measured again</span>", swatch("final", Shape::SolidDiamond));
    }
    out.push_str("</p>\n");
}

fn progress_section(out: &mut String, report: &Report) {
    let (Some(trials), Some(flops)) = (progress(report, Along::Trials), progress(report, Along::Flops))
    else {
        return;
    };
    out.push_str("<section>\n<h2>Progress of the champion</h2>\n");
    legend(out, report);
    let diamond = match report.headline {
        Headline::Measured(_) => "; the diamond is what fresh seeds say",
        Headline::NothingKept | Headline::Unmeasured { .. } => "",
    };
    let _ = write!(
        out,
        "<figure><p class=\"y-name\">val_bpb, bits per byte: lower is better</p>{trials}<figcaption>Each mark is a \
         proposal, at the level of the champion it met less its mean gain; marks at the upper edge have no score, \
         or with an arrow one far above. The line is the champion, its shade the 95 % interval of the last step. \
         Steps are measured as they win, which flatters them{diamond}.</figcaption></figure>\n\
         <figure class=\"second\"><p class=\"y-name\">The same against compute</p>{flops}</figure>\n</section>\n"
    );
}

fn kept_section(out: &mut String, report: &Report) {
    let kept: Vec<&TrialRow> = report.trials.iter().filter(|trial| trial.outcome == Outcome::Kept).collect();
    out.push_str("<section>\n<h2>What was kept</h2>\n");
    if kept.is_empty() {
        let _ = writeln!(out, "<p>{}</p>\n</section>", markdown::nothing(report));
        return;
    }
    out.push_str(
        "<table class=\"kept\">\n<thead><tr><th class=\"n\">#</th><th>change</th><th class=\"n\">gain when it won</th>\
         <th class=\"n\">on the rungs above</th><th class=\"n wide\">compute</th>\
         <th class=\"n\">measured again</th><th class=\"n wide\">pairs</th><th class=\"n wide\">e (needed)</th>\
         <th class=\"n wide\">time</th></tr></thead>\n<tbody>\n",
    );
    for trial in kept {
        let again =
            trial.remeasured.map_or("–".into(), |gain| gain_with_interval(gain.mean, gain.half_width));
        let again = unbroken(&again);
        let _ = writeln!(
            out,
            "<tr><td class=\"n\">{}</td><td>{}<p class=\"why\">{}</p></td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n wide\">{}</td><td class=\"n strong\">{again}</td>\
             <td class=\"n wide\">{}</td><td class=\"n wide\">{}</td><td class=\"n wide\">{}</td></tr>",
            trial.number,
            escape(&plain(&trial.change)),
            escape(&plain(&trial.hypothesis)),
            unbroken(&markdown::gain_of(trial)),
            unbroken(&markdown::above_of(trial)),
            markdown::worth_of(trial),
            trial.pairs,
            markdown::e_of(trial),
            trial.seconds_ratio.map_or("–".into(), |ratio| format!("×{ratio:.2}")),
        );
    }
    out.push_str(
        "</tbody>\n</table>\n<p class=\"foot\">Gains in bits per byte with 95 % intervals. <em>Compute</em>: how many times the FLOPs the \
         champion before it would need for the same score on the last of the rungs above. <em>Measured again</em>: the final \
         champion against the same champion without this change, on fresh seeds. <em>Time</em>: training seconds over \
         the previous champion's at equal FLOPs.</p>\n</section>\n",
    );
}

/// A line may end before the sign of an interval, not after it.
fn unbroken(gain: &str) -> String {
    gain.replace("± ", "±&nbsp;")
}

fn bound_section(out: &mut String, report: &Report) {
    out.push_str("<section>\n<h2>How far it can be trusted</h2>\n<ul class=\"trust\">\n");
    for sentence in markdown::trust(report) {
        let _ = writeln!(out, "<li>{}</li>", escape(&sentence));
    }
    out.push_str("</ul>\n</section>\n");
}

/// Order in the forest: as the outcomes are listed, best first.
fn forest_rows(report: &Report) -> Vec<&TrialRow> {
    let mut rows: Vec<&TrialRow> = report.trials.iter().filter(|trial| trial.evidence.is_some()).collect();
    let mean = |trial: &TrialRow| trial.evidence.map_or(f64::NEG_INFINITY, |evidence| evidence.mean);
    rows.sort_by(|a, b| {
        a.outcome.cmp(&b.outcome).then(mean(b).total_cmp(&mean(a))).then(a.number.cmp(&b.number))
    });
    rows
}

fn forest_section(out: &mut String, report: &Report) {
    let rows = forest_rows(report);
    if rows.is_empty() {
        return;
    }
    let scale = forest_scale(report);
    let _ = write!(
        out,
        "<section>\n<h2>Every change that was measured</h2>\n\
         <table class=\"effects\">\n<thead><tr><th class=\"n\">#</th><th class=\"change\">change</th><th class=\"plot-cell\">gain, bits per byte{}</th>\
         <th class=\"n gain\">gain</th><th class=\"n wide\">pairs</th><th class=\"n wide\">e (needed)</th></tr></thead>\n",
        forest_axis(scale)
    );
    for outcome in Outcome::ALL {
        let group: Vec<&&TrialRow> = rows.iter().filter(|trial| trial.outcome == outcome).collect();
        if group.is_empty() {
            continue;
        }
        let _ = write!(
            out,
            "<tbody>\n<tr class=\"group\"><th colspan=\"6\">{}{} <span class=\"count\">{}</span> <span class=\"why\">{}</span></th></tr>\n",
            swatch(outcome.word(), shape(outcome)),
            outcome.word(),
            group.len(),
            escape(outcome.meaning())
        );
        for trial in group {
            forest_row(out, report, scale, trial);
        }
        out.push_str("</tbody>\n");
    }
    out.push_str(
        "</table>\n<p class=\"foot\">Right of the line is better. Bars are 95 % confidence sequences, valid at every look; \
         diamonds with bars below are fresh seeds. The shade is one standard deviation of a pair without any change. \
         <em>e</em> is the evidence for a worthwhile gain, in brackets what a keep needed.</p>\n</section>\n",
    );
}

fn forest_row(out: &mut String, report: &Report, scale: Scale, trial: &TrialRow) {
    let _ = writeln!(
        out,
        "<tr><td class=\"n\">{}</td><td class=\"change\" title=\"{}\">{}</td><td class=\"plot-cell\">{}</td><td class=\"n gain\">{}</td>\
         <td class=\"n wide\">{}</td><td class=\"n wide\">{}</td></tr>",
        trial.number,
        escape(&plain(&trial.hypothesis)),
        escape(&plain(&trial.change)),
        forest_cell(report, scale, trial),
        markdown::gain_of(trial),
        trial.pairs,
        markdown::e_of(trial)
    );
}

fn parts_section(out: &mut String, report: &Report) {
    let rows = markdown::part_rows(report);
    if rows.is_empty() {
        return;
    }
    let (heading, cells, foot) = markdown::PARTS;
    let head = cells.map(|cell| format!("<th>{cell}</th>")).concat();
    let _ = writeln!(out, "<section>\n<h2>{heading}</h2>\n<table>\n<thead><tr>{head}</tr></thead>\n<tbody>");
    for row in rows {
        let cells = row.map(|cell| format!("<td>{}</td>", escape(&cell))).concat();
        let _ = writeln!(out, "<tr>{cells}</tr>");
    }
    let _ = writeln!(out, "</tbody>\n</table>\n<p class=\"foot\">{foot}</p>\n</section>");
}

fn without_score_section(out: &mut String, report: &Report) {
    let rows: Vec<&TrialRow> = report.trials.iter().filter(|trial| trial.evidence.is_none()).collect();
    if rows.is_empty() {
        return;
    }
    out.push_str(
        "<section>\n<h2>Failed, skipped and open</h2>\n<table>\n<thead><tr><th class=\"n\">#</th><th></th>\
         <th>change</th><th>why</th><th class=\"n wide\">FLOPs</th></tr></thead>\n<tbody>\n",
    );
    for outcome in Outcome::ALL {
        for trial in rows.iter().filter(|trial| trial.outcome == outcome) {
            let _ = writeln!(
                out,
                "<tr><td class=\"n\">{}</td><td class=\"state\">{}{}</td><td>{}</td><td>{}</td><td class=\"n wide\">{}</td></tr>",
                trial.number,
                swatch(outcome.word(), shape(outcome)),
                outcome.word(),
                escape(&plain(&trial.change)),
                escape(&plain(trial.reason.as_deref().unwrap_or("no verdict yet"))),
                if trial.flops > 0.0 { si(trial.flops, "") } else { "0".into() }
            );
        }
    }
    out.push_str("</tbody>\n</table>\n</section>\n");
}

fn curves_section(out: &mut String, report: &Report) {
    let Some(drawing) = learning(report) else { return };
    let mut note = String::from("Each thin line is a seed, the thick ones are their means.");
    if report.settings.iter().any(|change| change.name == "vocab_size") {
        note.push_str(" The vocabularies differ, so losses per token cannot be compared; bits per byte can.");
    }
    let arms = if report.champion_curves.is_empty() { "start" } else { "start and champion" };
    let _ = write!(
        out,
        "<section>\n<h2>Learning curves, {arms}</h2>\n<figure>\
         <p class=\"y-name\">training loss, nats per token</p>{drawing}<figcaption>{note}</figcaption></figure>\n</section>\n"
    );
}

fn champion_section(out: &mut String, report: &Report) {
    if report.settings.is_empty() && report.recipe.hunks.is_empty() {
        return;
    }
    out.push_str("<section>\n<h2>The champion against the start</h2>\n");
    if !report.settings.is_empty() {
        out.push_str("<table class=\"settings\">\n<thead><tr><th>setting</th><th>start</th><th>champion</th></tr></thead>\n<tbody>\n");
        for change in &report.settings {
            let side =
                |side: &Option<SettingValue>| side.as_ref().map_or("–".into(), |v| escape(&value(v)));
            let _ = writeln!(
                out,
                "<tr><td><code>{}</code></td><td>{}</td><td class=\"strong\">{}</td></tr>",
                escape(&plain(&change.name)),
                side(&change.a),
                side(&change.b)
            );
        }
        out.push_str("</tbody>\n</table>\n");
    }
    if !report.recipe.hunks.is_empty() {
        out.push_str("<pre class=\"diff\">");
        for hunk in &report.recipe.hunks {
            let _ = writeln!(out, "<span class=\"place\">@ {} → {}</span>", hunk.line_a, hunk.line_b);
            for line in &hunk.lines {
                let style = match line.tag {
                    LineTag::Same => "same",
                    LineTag::Removed => "removed",
                    LineTag::Added => "added",
                };
                let _ = writeln!(
                    out,
                    "<span class=\"{style}\">{} {}</span>",
                    line.tag.sign(),
                    escape(&line.text)
                );
            }
        }
        out.push_str("</pre>\n");
    }
    out.push_str("</section>\n");
}

fn cost_section(out: &mut String, report: &Report) {
    let cost = &report.cost;
    out.push_str(
        "<section>\n<h2>What it cost</h2>\n<table class=\"cost\">\n<thead><tr><th>spent on</th><th class=\"n\">runs</th>\
         <th class=\"n\">FLOPs</th><th class=\"n\">core time</th></tr></thead>\n<tbody>\n",
    );
    for row in &cost.rows {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            escape(&row.what),
            row.runs,
            si(row.flops, ""),
            duration(row.core_seconds)
        );
    }
    let _ = write!(
        out,
        "<tr class=\"total\"><td>all</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n</tbody>\n</table>\n<p class=\"foot\">{}</p>\n</section>\n",
        cost.runs,
        si(cost.flops, ""),
        duration(cost.core_seconds),
        escape(&markdown::cost_note(report))
    );
}

fn conditions_section(out: &mut String, report: &Report) {
    out.push_str("<section>\n<h2>Conditions</h2>\n<dl>\n");
    for (name, text) in conditions(report) {
        let _ = writeln!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(&plain(&text)));
    }
    out.push_str("</dl>\n</section>\n");
}

/// What was asked, by name, for both renderings.
pub(super) fn conditions(report: &Report) -> Vec<(&'static str, String)> {
    let asked = &report.asked;
    let budget = match asked.budget {
        CampaignBudget::Minutes(minutes) => format!("{} minutes", significant(minutes, 4)),
        CampaignBudget::Trials(trials) => format!("{trials} training runs"),
    };
    let at = |rung: &Rung| format!("depth {}, {}", rung.depth, si(rung.flops, "FLOP"));
    let mut rows = vec![
        ("starting recipe", asked.recipe.clone()),
        ("data", format!("{} ({})", asked.data.name, asked.data.hash.chars().take(12).collect::<String>())),
        ("a trial", at(&asked.rungs.first())),
        ("researcher", asked.researcher.clone()),
        ("budget", budget),
        ("seed", asked.seed.to_string()),
        (
            "judge",
            format!(
                "{} to {} pairs, keeps gains above {} bits per byte",
                asked.judge.min_pairs, asked.judge.max_pairs, asked.judge.min_effect_bpb
            ),
        ),
    ];
    let above: Vec<String> = asked.rungs.all()[1..].iter().map(at).collect();
    if !above.is_empty() {
        let JudgeSettings { climb_level, climb_min_pairs, climb_max_pairs, .. } = asked.judge;
        let how =
            format!("{climb_min_pairs} to {climb_max_pairs} pairs at a level of {}", percent(climb_level));
        rows.push(("a keep must hold at", format!("{} ({how})", above.join("; "))));
    }
    if let Some(noise) = &report.noise {
        rows.push((
            "noise",
            format!(
                "sd of a pair {} bits per byte, at most {} (95 %), from {}; unpaired {}",
                bpb(noise.pair_sd),
                bpb(noise.pair_sd_upper),
                count(noise.pairs.len() as u64, "A/A pair"),
                bpb(noise.unpaired_sd)
            ),
        ));
    }
    if let Some(judgement) = &report.judgement {
        rows.push((
            "predictions",
            format!(
                "{} of {} expected to be kept, {} were; Brier score {:.3} (always saying the observed share: {:.3})",
                percent(judgement.predicted),
                judgement.tried,
                percent(judgement.observed),
                judgement.brier,
                judgement.brier_of_constant
            ),
        ));
    }
    rows.push(("machine", asked.machine.clone()));
    rows.push(("pawl", asked.version.clone()));
    rows
}

fn problems_section(out: &mut String, report: &Report) {
    if report.problems.is_empty() {
        return;
    }
    out.push_str("<section>\n<h2>Files that could not be read</h2>\n<ul>\n");
    for problem in &report.problems {
        let _ = writeln!(out, "<li>{}</li>", escape(&problem.to_string()));
    }
    out.push_str("</ul>\n</section>\n");
}
