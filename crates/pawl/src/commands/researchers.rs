//! `pawl researchers`: how well each predicts, and what asking language models cost.

use crate::args::Researchers;
use crate::errors::Failure;
use crate::output::{Align, Answer, Table, count};
use pawl_research::campaign::existing;
use pawl_research::judgement::{Conversations, Group, Judgement, judgement};
use serde_json::json;
use std::fmt::Write as _;

pub(crate) fn run(args: Researchers) -> Result<Answer, Failure> {
    let lab = &args.place.lab;
    if existing(lab)?.is_none() {
        return Err(
            Failure::new(format!("{} has no campaign", lab.display())).hint("pawl research starts one")
        );
    }
    let judgement = judgement(lab)?;
    Ok(Answer::new(text(&judgement), json!({ "researchers": judgement })))
}

fn text(judgement: &Judgement) -> String {
    let mut table = Table::new(&[
        ("by", Align::Left),
        ("name", Align::Left),
        ("proposals", Align::Right),
        ("tested", Align::Right),
        ("kept", Align::Right),
        ("gain", Align::Right),
        ("brier", Align::Right),
        ("base", Align::Right),
        ("hopeful by", Align::Right),
        ("cost $", Align::Right),
    ]);
    let blank = || "-".to_string();
    for group in &judgement.groups {
        table.row(vec![
            group.by.to_string(),
            group.name.clone(),
            group.proposals.to_string(),
            group.tested.to_string(),
            group.kept.to_string(),
            format!("{:.4}", group.promoted_gain),
            group.brier.map_or_else(blank, |brier| format!("{brier:.3}")),
            group.base.map_or_else(blank, |base| format!("{base:.3}")),
            group.gain_bias.map_or_else(blank, |bias| format!("{bias:+.4}")),
            format!("{:.2}", group.cost_usd),
        ]);
    }
    let mut text = table.text();
    for group in judgement.groups.iter().filter(|group| group.by == "researcher") {
        text.push_str(&calibration(group));
    }
    for asked in &judgement.conversations {
        text.push_str(&conversations(asked));
    }
    let spent = &judgement.spent;
    writeln!(
        text,
        "spent: ${:.4}, {} tokens, {} requests; what may have been charged without an answer included",
        spent.usd,
        count(spent.tokens as f64),
        spent.requests
    )
    .expect("a string takes every write");
    text
}

fn calibration(group: &Group) -> String {
    let bands = group.calibration.iter().map(|band| {
        format!("said {:.0} % kept {:.0} % of {}", 100.0 * band.said, 100.0 * band.kept, band.tested)
    });
    let bands: Vec<String> = bands.collect();
    if bands.is_empty() {
        String::new()
    } else {
        format!("calibration_{}: {}\n", group.name, bands.join("; "))
    }
}

fn conversations(asked: &Conversations) -> String {
    let models: Vec<String> = asked.models.iter().map(|(model, n)| format!("{model} in {n}")).collect();
    let nowhere: Vec<String> = asked.nowhere.iter().map(|(why, n)| format!("{n} x {why}")).collect();
    let mut line = format!(
        "conversations_{}: {}, {} with a proposal; {} requests, {} of them failed; {} tokens sent, {} answered; ${:.4}",
        asked.researcher,
        asked.conversations,
        asked.proposed,
        asked.requests,
        asked.failed_requests,
        count(asked.input_tokens as f64),
        count(asked.output_tokens as f64),
        asked.cost_usd,
    );
    if !models.is_empty() {
        line.push_str(&format!("; answered by {}", models.join(", ")));
    }
    if !nowhere.is_empty() {
        line.push_str(&format!("; nowhere: {}", nowhere.join(", ")));
    }
    line + "\n"
}
