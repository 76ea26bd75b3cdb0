//! How a campaign reads on a terminal: a line a proposal, and at the end what became of it all.
//! A negative change is a better score, as everywhere a person reads bits per byte.

use crate::output::{Block, count, duration, flops};
use pawl_ledger::CampaignRecords;
use pawl_record::{
    CampaignBudget, Decision, EndReason, Factor, Ladder, Measured, Noise, PartRuling, Proposal, Pruning,
    Replication, Rung, Verdict, Worth,
};

/// Width of the column that says what was changed.
const CHANGE: usize = 38;

/// `noise` of the heading.
pub(crate) fn noise(noise: &Noise) -> String {
    format!(
        "{} A/A pairs: sd of a pair {:.4} bits per byte ({:.4} unpaired), {} a run",
        noise.pairs.len(),
        noise.pair_sd,
        noise.unpaired_sd,
        duration(noise.run_seconds),
    )
}

/// `depth 3, 500 GFLOP; a keep must hold at depth 4, 2.00 TFLOP`.
pub(crate) fn rungs(ladder: &Ladder) -> String {
    let at = |rung: &Rung| format!("depth {}, {}", rung.depth, flops(rung.flops));
    let above: Vec<String> = ladder.all()[1..].iter().map(at).collect();
    match above.is_empty() {
        true => at(&ladder.first()),
        false => format!("{}   climbs to: {}", at(&ladder.first()), above.join("; ")),
    }
}

/// The line above the verdicts.
pub(crate) fn heading() -> String {
    format!("{:>4}  {:<CHANGE$}  pairs  {:<19}  {:>7}  verdict", "#", "change", "change in val_bpb", "e")
}

/// The line of a proposal that was decided.
pub(crate) fn row(proposal: &Proposal, verdict: &Verdict) -> String {
    let (effect, e_value) = match &verdict.evidence {
        Some(evidence) => {
            (format!("{:+.4} +- {:.4}", -evidence.mean, evidence.half_width), e_value(evidence.e_value))
        }
        None => (String::new(), String::new()),
    };
    let line = format!(
        "{:>4}  {:<CHANGE$}  {:>5}  {effect:<19}  {e_value:>7}  {}",
        proposal.number,
        cut(&changes(proposal), CHANGE),
        verdict.pairs.len(),
        outcome(verdict),
    );
    line.trim_end().to_string()
}

/// The line of a part of the champion that was left out and tried: what it is worth, as a change in val_bpb.
pub(crate) fn part_row(pruning: &Pruning) -> String {
    let effect = pruning
        .evidence
        .as_ref()
        .map_or_else(String::new, |evidence| format!("{:+.4} +- {:.4}", evidence.mean, evidence.half_width));
    let name = format!("part of #{}: {}", pruning.proposal, pruning.change.setting);
    let line = format!(
        "{:>4}  {:<CHANGE$}  {:>5}  {effect:<19}  {:>7}  {}",
        "",
        cut(&name, CHANGE),
        pruning.pairs.len(),
        "",
        part(&pruning.ruling),
    );
    line.trim_end().to_string()
}

/// What became of a part, in words.
pub(crate) fn part(ruling: &PartRuling) -> String {
    match ruling {
        PartRuling::Leaves => "leaves the champion".to_string(),
        PartRuling::Stays(why) => format!("stays: {why}"),
    }
}

/// What a proposal turns, in words.
pub(crate) fn changes(proposal: &Proposal) -> String {
    let turned =
        proposal.changes.iter().map(|change| format!("{}: {} -> {}", change.setting, change.from, change.to));
    let turned = turned.collect::<Vec<_>>().join(", ");
    match (turned.is_empty(), &proposal.recipe) {
        (false, _) => turned,
        (true, Some(_)) => format!("recipe: {}", proposal.hypothesis),
        (true, None) => proposal.hypothesis.clone(),
    }
}

fn outcome(verdict: &Verdict) -> String {
    match (&verdict.decision, verdict.stayed_below()) {
        (Decision::Keep, _) if verdict.promoted => format!("keep{}", climbed(verdict)),
        (Decision::Keep, Some(climb)) => {
            format!("keep, but not on rung {}: {}", climb.rung + 1, climb.decision.word())
        }
        (Decision::Keep, None) if verdict.faded() => "keep, but not on every fresh seed".to_string(),
        (Decision::Keep, None) => "keep, but slower than it gains".to_string(),
        (Decision::Reject(_) | Decision::Undecided(_), _) => verdict.decision.word().to_string(),
        (Decision::Skipped(reason) | Decision::Failed(reason), _) => {
            format!("{}: {reason}", verdict.decision.word())
        }
    }
}

/// What a keep came to on the rungs above the first.
fn climbed(verdict: &Verdict) -> String {
    let gains = verdict.climbs.iter().filter_map(|climb| Some((climb.rung + 1, climb.evidence?.mean)));
    let gains = gains.map(|(rung, mean)| format!(", holds on rung {rung}: {:+.4}", -mean));
    let last = verdict.worth.as_ref().and_then(|worth| worth.rungs.last());
    let worth = last
        .map_or_else(String::new, |it| format!(", worth {}x compute", Factor::words(it.compute.value, 1)));
    gains.collect::<String>() + &worth
}

/// `2.9x compute [2.1, 4.0] at depth 3, 2.5x [1.7, 3.9] at depth 4`.
pub(crate) fn worth(worth: &Worth, ladder: &Ladder) -> String {
    let depth = |rung: u64| ladder.all().get(rung as usize).map_or(0, |rung| rung.depth);
    let factor = |it: &Factor| match it.high {
        Some(high) => format!("[{}, {}]", Factor::words(it.low, 1), Factor::words(high, 1)),
        None => format!("[{}, no limit]", Factor::words(it.low, 1)),
    };
    let on = worth.rungs.iter().enumerate().map(|(at, it)| {
        let compute = if at == 0 { " compute" } else { "" };
        format!(
            "{}x{compute} {} at depth {}",
            Factor::words(it.compute.value, 1),
            factor(&it.compute),
            depth(it.rung)
        )
    });
    on.collect::<Vec<_>>().join(", ")
}

fn e_value(e: f64) -> String {
    match e {
        e if e >= 1e5 => format!("{e:.0e}"),
        e if e >= 100.0 => format!("{e:.0}"),
        e if e >= 0.05 => format!("{e:.1}"),
        e => format!("{e:.0e}"),
    }
}

/// At most `width` characters, with a sign that some are missing.
fn cut(text: &str, width: usize) -> String {
    match text.chars().count() <= width {
        true => text.to_string(),
        false => text.chars().take(width - 2).chain("..".chars()).collect(),
    }
}

/// What a campaign has come to.
pub(crate) fn block(records: &CampaignRecords) -> Block {
    let mut block = Block::default();
    block.line("campaign", &records.manifest.id).line("champion", champion(records));
    for promotion in records.promotions.iter().filter(|promotion| promotion.proposal.is_some()) {
        let proposal = records.proposals.iter().find(|proposal| Some(proposal.number) == promotion.proposal);
        block.maybe("kept", proposal.map(|proposal| kept(records, proposal)));
    }
    for pruning in &records.prunings {
        block.line("part", part_line(pruning));
    }
    for replication in &records.replications {
        block.line("replicated", replicated(replication));
    }
    for retraction in &records.retractions {
        block.line("retracted", format!("#{}: {}", retraction.proposal, retraction.why));
    }
    if let Some(measured) = records.measured() {
        let seeds = measured.seeds.len();
        block.line("search_split", format!("{}, {seeds} fresh seeds", effect(&measured.search)));
        block.maybe(
            "sealed_split",
            measured.sealed.as_ref().map(|m| format!("{}, {seeds} fresh seeds", effect(m))),
        );
        for above in &measured.above {
            let seeds = above.seeds.len();
            let name = format!("rung_{}", above.rung + 1);
            block.line(&name, format!("{}, {seeds} fresh seeds", effect(&above.search)));
        }
        block.maybe("worth", measured.worth.as_ref().map(|it| worth(it, &records.manifest.rungs)));
        block.line("training_time", format!("{:.2}x the start's", measured.seconds_ratio));
    }
    tally(&mut block, records);
    block
}

fn champion(records: &CampaignRecords) -> String {
    match (records.promotions.first(), records.promotions.last()) {
        (Some(start), Some(last)) if last.generation > 0 => {
            format!("{:.4} -> {:.4} val_bpb, run {}", start.mean_bpb, last.mean_bpb, last.run)
        }
        (Some(start), _) => format!("the start, {:.4} val_bpb, run {}", start.mean_bpb, start.run),
        (None, _) => "none yet".to_string(),
    }
}

/// A kept change with its own effect, where it was measured again, and what has become of it since.
fn kept(records: &CampaignRecords, proposal: &Proposal) -> String {
    let again = records.measured();
    let again = again.and_then(|m| m.kept.iter().find(|kept| kept.proposal == proposal.number));
    let since = records.standing(proposal.number).and_then(|standing| standing.words());
    let since = since.map_or_else(String::new, |words| format!("; {words}"));
    match again {
        Some(again) => {
            format!("#{} {}: {}{since}", proposal.number, changes(proposal), effect(&again.search))
        }
        None => format!("#{} {}{since}", proposal.number, changes(proposal)),
    }
}

/// A part of a champion with its own effect.
pub(crate) fn part_line(pruning: &Pruning) -> String {
    let change = &pruning.change;
    let effect = pruning.evidence.as_ref().map_or_else(String::new, |evidence| {
        format!(" {:+.4} +- {:.4} bits per byte,", evidence.mean, evidence.half_width)
    });
    format!(
        "#{} {}: {} -> {},{effect} {}",
        pruning.proposal,
        change.setting,
        change.to,
        change.from,
        part(&pruning.ruling)
    )
}

/// A replication in a line.
pub(crate) fn replicated(replication: &Replication) -> String {
    let same = match replication.reproduced.iter().all(|it| it.same) {
        true => "its first pair to the last bit",
        false => "its first pair DIFFERS",
    };
    let mean = match (replication.mean, replication.half_width) {
        (Some(mean), Some(half)) => {
            format!(", {:+.4} +- {half:.4} bits per byte on {} fresh seeds", -mean, replication.pairs.len())
        }
        (Some(mean), None) => format!(", {:+.4} bits per byte on one fresh seed", -mean),
        (None, _) => String::new(),
    };
    let against = if replication.contradicts { ", contradicts it" } else { "" };
    format!("#{} {same}{mean}{against}", replication.proposal)
}

fn effect(measured: &Measured) -> String {
    format!("{:+.4} +- {:.4} bits per byte", -measured.mean, measured.half_width)
}

fn tally(block: &mut Block, records: &CampaignRecords) {
    let number =
        |word: &str| records.verdicts.iter().filter(|verdict| verdict.decision.word() == word).count();
    let taken_back =
        records.verdicts.iter().filter(|it| it.decision == Decision::Keep && !it.promoted).count();
    block.line(
        "verdicts",
        format!(
            "{} proposals: {} kept{}, {} rejected, {} undecided, {} skipped, {} failed",
            records.proposals.len(),
            number("keep"),
            if taken_back > 0 { format!(" ({taken_back} of them not promoted)") } else { String::new() },
            number("reject"),
            number("undecided"),
            number("skipped"),
            number("failed"),
        ),
    );
    block.line("knobs", records.knob_trials().words());
    block
        .line("false_keeps", format!("expected share at most {:.0} %", 100.0 * records.manifest.judge.alpha));
    if let Some(end) = &records.end {
        block
            .line(
                "cost",
                format!(
                    "{} of {} worker{}, {} runs, {}",
                    duration(end.elapsed_s),
                    end.workers,
                    if end.workers == 1 { "" } else { "s" },
                    count(end.runs as f64),
                    flops(end.flops)
                ),
            )
            .maybe("brier", end.brier.map(|score| format!("{score:.3}")))
            .line("ended", ended(end.reason, records.manifest.budget));
        if end.reason == EndReason::Budget && end.proposals == 0 {
            block.line(
                "hint",
                "nothing was tried: give more --minutes, fewer --rungs, or fewer --flops a trial",
            );
        }
    }
}

fn ended(reason: EndReason, budget: CampaignBudget) -> String {
    match (reason, budget) {
        (EndReason::Budget, CampaignBudget::Minutes(_)) => {
            "its minutes pay for no further duel, climb and final measurement".to_string()
        }
        (EndReason::Budget, CampaignBudget::Trials(_)) => "its trials are used up".to_string(),
        (EndReason::Exhausted, _) => "nothing is left to propose".to_string(),
        (EndReason::Paused, _) => {
            "no researcher answers or may be paid; the same command continues".to_string()
        }
        (EndReason::Interrupted, _) => "interrupted; the same command continues".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pawl_record::{Category, Change, Evidence, Prediction, SCHEMA, SettingValue};

    fn proposal(changes: Vec<Change>) -> Proposal {
        Proposal {
            schema: SCHEMA,
            number: 3,
            generation: 0,
            changes,
            recipe: None,
            settings: Default::default(),
            category: Category::Choice,
            hypothesis: "better".into(),
            prediction: Prediction { gain_bpb: 0.01, keep_probability: 0.2 },
            researcher: "optimizer".into(),
            author: None,
            created_unix_s: 0,
        }
    }

    fn verdict(decision: Decision, evidence: Option<Evidence>) -> Verdict {
        Verdict {
            schema: SCHEMA,
            proposal: 3,
            generation: 0,
            promoted: decision == Decision::Keep,
            decision,
            fingerprint: None,
            num_params: None,
            pairs: Vec::new(),
            evidence,
            seconds_ratio: None,
            equal_time: None,
            climbs: Vec::new(),
            fresh: None,
            worth: None,
            flops: 0.0,
            runs: 0,
            run_seconds: 0.0,
            elapsed_s: 0.0,
            created_unix_s: 0,
        }
    }

    #[test]
    fn rows_stand_under_the_heading() {
        let change = Change {
            setting: "qk_norm".into(),
            from: SettingValue::Bool(false),
            to: SettingValue::Bool(true),
        };
        let evidence = Evidence {
            mean: 0.0312,
            half_width: 0.0049,
            e_value: 812.0,
            threshold: 40.0,
            level: 0.025,
            test_index: 1,
            sd: 0.004,
        };
        let row = row(&proposal(vec![change]), &verdict(Decision::Keep, Some(evidence)));
        assert_eq!(
            row,
            "   3  qk_norm: False -> True                      0  -0.0312 +- 0.0049        812  keep"
        );
        for word in ["pairs", "verdict"] {
            assert!(heading().contains(word));
        }
        assert_eq!(heading().find("verdict"), row.find("keep"));
        assert_eq!(heading().find("change in"), row.find("-0.0312"));
    }

    #[test]
    fn a_long_change_is_cut_and_a_reason_is_told() {
        let change = |name: &str| Change {
            setting: name.repeat(12),
            from: SettingValue::Int(1),
            to: SettingValue::Int(2),
        };
        let row = row(
            &proposal(vec![change("ab"), change("cd")]),
            &verdict(Decision::Failed("diverged".into()), None),
        );
        assert!(row.contains(".. "), "{row}");
        assert!(row.ends_with("failed: diverged"), "{row}");
        assert_eq!(heading().find("verdict"), row.find("failed"));
    }
}
