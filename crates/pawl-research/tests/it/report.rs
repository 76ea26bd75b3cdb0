//! The report: what it claims, what it must not claim, and that it survives the text of others.

use crate::report_lab::{self, Story};
use pawl_ledger::{Ledger, LedgerError};
use pawl_record::{Climb, Decision, Factor, Ladder, LawPoint, Rung, RungWorth, Worth};
use pawl_research::plots::{Scale, escape};
use pawl_research::report::{self, Headline, Outcome, Report, ReportError};
use std::fs;

fn report_of(story: &Story) -> (tempfile::TempDir, Report) {
    let lab = tempfile::tempdir().unwrap();
    story.write(lab.path());
    let ledger = Ledger::open(lab.path()).unwrap();
    let report = report::gather(lab.path(), &ledger).unwrap();
    (lab, report)
}

#[test]
fn every_proposal_is_told_with_its_outcome() {
    let story = report_lab::full();
    let (_lab, report) = report_of(&story);
    let tally = report.tally;
    assert_eq!(tally.proposals as usize, story.proposals.len());
    let sum = tally.kept
        + tally.slower
        + tally.retracted
        + tally.undecided
        + tally.rejected
        + tally.failed
        + tally.skipped
        + tally.open;
    assert_eq!(sum, tally.proposals);
    let failed = story.verdicts.iter().filter(|v| matches!(v.decision, Decision::Failed(_))).count();
    assert!(failed > 0);
    assert_eq!(tally.failed as usize, failed);
    assert_eq!(tally.open, 1);
    let (html, markdown) = (report::html(&report), report::markdown(&report));
    for trial in &report.trials {
        let names = trial.change.split(':').next().unwrap();
        assert!(html.contains(names) && markdown.contains(&names.replace('_', "\\_")), "{}", trial.change);
    }
}

#[test]
fn a_measured_champion_is_reported_by_its_fresh_seeds_alone() {
    let story = report_lab::full();
    let (_lab, report) = report_of(&story);
    let Headline::Measured(measured) = report.headline else { panic!("{:?}", report.headline) };
    let sealed = story.measured.as_ref().unwrap().sealed.as_ref().unwrap();
    assert!(measured.sealed && measured.is_proven() && !measured.stale);
    assert_eq!((measured.mean, measured.half_width, measured.seeds), (sealed.mean, sealed.half_width, 5));
    let told: f64 = report.champions.iter().filter_map(|champion| champion.gain).map(|gain| gain.mean).sum();
    assert!(told > measured.mean, "winners are flattered when they win");
    assert!(report::html(&report).contains(&format!("+{:.4} ± {:.4}", measured.mean, measured.half_width)));
}

#[test]
fn an_interval_that_includes_zero_is_not_called_proven() {
    let mut story = report_lab::full();
    let sealed = story.measured.as_mut().unwrap().sealed.as_mut().unwrap();
    sealed.half_width = sealed.mean + 0.001;
    let (_lab, report) = report_of(&story);
    for text in [report::html(&report), report::markdown(&report)] {
        assert!(
            text.contains("not borne out on fresh seeds") && text.contains("not proof of an improvement")
        );
    }
    assert!(!report::html(&report).contains("tile tiles-first proven"));
}

#[test]
fn a_campaign_is_reported_at_every_moment_of_its_life() {
    let full = report_lab::full();
    let (_lab, report) = report_of(&full.until_start());
    assert_eq!((report.headline, report.champions.len(), report.trials.len()), (Headline::NothingKept, 0, 0));
    for text in [report::html(&report), report::markdown(&report)] {
        assert!(
            !text.contains("NaN") && !text.contains("inf") && !text.contains(">-0") && !text.contains(" -0 "),
            "{text}"
        );
    }
    let (_lab, report) = report_of(&full.until_verdict(0));
    assert_eq!(report.headline, Headline::NothingKept);
    let (_lab, report) = report_of(&full.until_verdict(30));
    assert!(matches!(report.headline, Headline::Unmeasured { gain } if gain > 0.0), "{:?}", report.headline);
    for text in [report::html(&report), report::markdown(&report)] {
        let numbers = text.replace("loss became NaN", "");
        assert!(text.contains("fresh seeds have not spoken"));
        assert!(!numbers.contains("NaN") && !numbers.contains("inf"));
    }
}

#[test]
fn a_measurement_of_an_earlier_champion_is_called_so() {
    let mut story = report_lab::full();
    story.measured.as_mut().unwrap().generation = 1;
    let (_lab, report) = report_of(&story);
    assert!(matches!(report.headline, Headline::Measured(measured) if measured.stale));
    assert!(report::markdown(&report).contains("A later champion exists"));
}

#[test]
fn the_cost_adds_up_over_everything_that_was_run() {
    let story = report_lab::full();
    let (_lab, report) = report_of(&story);
    let verdicts: f64 = story.verdicts.iter().map(|verdict| verdict.flops).sum();
    let expected = story.noise.as_ref().unwrap().flops + verdicts + story.measured.as_ref().unwrap().flops;
    assert!((report.cost.flops / expected - 1.0).abs() < 1e-12);
    assert_eq!(report.cost.runs, report.cost.rows.iter().map(|row| row.runs).sum::<u64>());
    assert!(report.cost.rows.iter().any(|row| row.what == "changes failed" && row.flops > 0.0));
    let last = report.trials.iter().map(|trial| trial.flops_so_far).fold(0.0, f64::max);
    assert!((last - (expected - story.measured.as_ref().unwrap().flops)).abs() < 1.0);
}

#[test]
fn levels_go_down_by_the_paired_gains() {
    let (_lab, report) = report_of(&report_lab::full());
    for pair in report.champions.windows(2) {
        let step = pair[0].level_bpb - pair[1].level_bpb;
        assert!((step - pair[1].gain.unwrap().mean).abs() < 1e-12);
    }
    let kept: Vec<u64> =
        report.trials.iter().filter(|t| t.outcome == Outcome::Kept).map(|t| t.number).collect();
    let won: Vec<u64> = report.champions.iter().filter_map(|champion| champion.proposal).collect();
    assert_eq!(kept, won);
}

#[test]
fn the_settings_that_differ_are_those_the_champion_gained() {
    let (_lab, report) = report_of(&report_lab::full());
    let names: Vec<&str> = report.settings.iter().map(|change| change.name.as_str()).collect();
    assert!(names.contains(&"qk_norm") && !names.contains(&"depth"), "{names:?}");
}

#[test]
fn text_of_recipes_and_researchers_cannot_become_markup() {
    let mut story = report_lab::full();
    let evil = "<script>alert(1)</script><img src=x onerror='y'>\"&\u{202e}\u{1b}[2J | **b** `c`";
    for proposal in &mut story.proposals {
        proposal.hypothesis = evil.into();
        if let Some(change) = proposal.changes.first_mut() {
            change.setting = evil.into();
        }
    }
    for verdict in &mut story.verdicts {
        if let Decision::Failed(reason) | Decision::Skipped(reason) = &mut verdict.decision {
            *reason = evil.into();
        }
    }
    story.manifest.recipe.name = evil.into();
    story.manifest.data.name = evil.into();
    let (_lab, report) = report_of(&story);
    let html = report::html(&report);
    assert!(
        !html.contains("<script")
            && !html.contains("<img")
            && !html.contains('\u{1b}')
            && !html.contains('\u{202e}')
    );
    let markdown = report::markdown(&report);
    assert!(!markdown.contains("<script") && !markdown.contains(" **b**"), "{markdown}");
    let cells = |line: &str| line.replace("\\|", "").matches('|').count();
    let lines: Vec<&str> = markdown.lines().collect();
    for pair in lines.windows(2).filter(|pair| pair.iter().all(|line| line.starts_with('|'))) {
        assert_eq!(cells(pair[0]), cells(pair[1]), "a cell broke its row: {}", pair[1]);
    }
    assert_eq!(escape("a<b>&\"'\u{0}"), "a&lt;b&gt;&amp;&quot;&#39;\u{fffd}");
}

#[test]
fn the_page_needs_nothing_but_itself() {
    let (_lab, report) = report_of(&report_lab::full());
    let html = report::html(&report);
    for foreign in ["<script", "<link", "@import", "url(", "http:", "https:", "src=", "href="] {
        assert!(!html.contains(foreign), "{foreign}");
    }
    check_balanced(&html);
}

/// Every element that is opened is closed, in order.
fn check_balanced(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').unwrap();
        let tag = &rest[..end];
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "near {}", &rest[..rest.len().min(80)]);
        } else if !tag.ends_with('/') && !matches!(name, "!DOCTYPE" | "meta") {
            open.push(name);
        }
        rest = &rest[end..];
    }
    assert_eq!(open, [""; 0]);
}

#[test]
fn the_same_records_give_the_same_bytes_on_disk() {
    let story = report_lab::full();
    let (lab, report) = report_of(&story);
    let files = report::write(lab.path(), &report).unwrap();
    let first = (fs::read(&files.markdown).unwrap(), fs::read(&files.html).unwrap());
    let (other, again) = report_of(&story);
    let files = report::write(other.path(), &again).unwrap();
    assert_eq!(first, (fs::read(&files.markdown).unwrap(), fs::read(&files.html).unwrap()));
    assert_eq!(String::from_utf8(first.1).unwrap(), report::html(&report));
}

#[test]
fn a_lab_without_a_campaign_is_an_error_with_a_hint() {
    let lab = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(lab.path()).unwrap();
    let error = report::gather(lab.path(), &ledger).unwrap_err();
    assert!(matches!(error, ReportError::Ledger(LedgerError::NoCampaign { .. })));
    assert!(error.hint().is_some());
}

#[test]
fn ticks_are_round_and_inside() {
    for (low, high, most, expected) in [
        (0.0, 1.0, 5, vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (2.17, 2.43, 6, vec![2.2, 2.25, 2.3, 2.35, 2.4]),
        (-0.03, 0.05, 4, vec![-0.02, 0.0, 0.02, 0.04]),
        (0.0, 42.0, 5, vec![0.0, 10.0, 20.0, 30.0, 40.0]),
    ] {
        let (ticks, decimals) = Scale { low, high }.ticks(most);
        let close =
            ticks.len() == expected.len() && ticks.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(close, "{ticks:?} for {expected:?}");
        let labels: Vec<String> = ticks.iter().map(|tick| format!("{tick:.decimals$}")).collect();
        assert!(labels.windows(2).all(|pair| pair[0] != pair[1]), "{labels:?}");
    }
}

/// Writes a report to look at: `PAWL_REPORT_DIR=/tmp/r cargo test -p pawl-research -- --ignored looked_at`.
#[test]
#[ignore = "for eyes"]
fn reports_to_be_looked_at() {
    let folder = std::path::PathBuf::from(std::env::var_os("PAWL_REPORT_DIR").unwrap());
    let full = report_lab::full();
    let stories = [("full", full.clone()), ("early", full.until_verdict(9)), ("empty", full.until_start())];
    for (name, story) in stories {
        let (_lab, report) = report_of(&story);
        let place = folder.join(name);
        fs::create_dir_all(&place).unwrap();
        report::write(&place, &report).unwrap();
    }
}

/// The story on a ladder of two rungs: every keep climbed but the last, which did not hold.
fn climbed() -> Story {
    let mut story = report_lab::full();
    let first = story.manifest.rungs.first();
    let second = Rung { depth: first.depth + 1, flops: 4.0 * first.flops, ..first };
    story.manifest.rungs = Ladder::new(vec![first, second]).unwrap();
    let factor = |value: f64| Factor { value, low: 0.7 * value, high: Some(1.4 * value) };
    let worth = Worth {
        points: vec![
            LawPoint { depth: 4, flops: first.flops, runs: vec!["a".into()], bpb: vec![2.4] },
            LawPoint { depth: 5, flops: second.flops, runs: vec!["b".into()], bpb: vec![2.2] },
        ],
        exponent: 0.0628,
        rungs: vec![
            RungWorth { rung: 0, gain_bpb: 0.1, compute: factor(2.93) },
            RungWorth { rung: 1, gain_bpb: 0.08, compute: factor(2.51) },
        ],
        trend: Some(factor(0.86)),
    };
    story.measured.as_mut().unwrap().worth = Some(worth.clone());
    let promoted = story.verdicts.iter_mut().filter(|verdict| verdict.promoted);
    for verdict in promoted {
        let climb = Climb {
            rung: 1,
            champion_fingerprint: "aa".into(),
            fingerprint: Some("bb".into()),
            pairs: verdict.pairs.clone(),
            evidence: verdict.evidence,
            decision: Decision::Keep,
        };
        verdict.climbs = vec![climb];
        verdict.worth = Some(worth.clone());
    }
    let last = story.verdicts.iter_mut().rev().find(|verdict| verdict.promoted).unwrap();
    last.promoted = false;
    last.worth = None;
    last.climbs[0].decision = Decision::Reject("mean below -0.55 pair sds after 1".into());
    story.promotions.pop();
    let champion = story.promotions.last().unwrap().generation;
    story.measured.as_mut().unwrap().generation = champion;
    story
}

#[test]
fn a_keep_that_stays_below_and_the_worth_of_the_others_are_told() {
    let (_lab, report) = report_of(&climbed());
    assert_eq!((report.tally.stayed, report.tally.slower), (1, 1));
    let stayed = report.trials.iter().find(|trial| trial.outcome == Outcome::Stayed).unwrap();
    assert_eq!(stayed.reason.as_deref(), Some("mean below -0.55 pair sds after 1"));
    assert!(report.cost.rows.iter().any(|row| row.what == "changes kept that stayed below"));
    let (html, markdown) = (report::html(&report), report::markdown(&report));
    for text in [&html, &markdown] {
        for said in
            ["×2.51 (1.76 to 3.51)", "they had to be better at depth 5 with 2 TFLOP a run too", "mean below"]
        {
            assert!(text.contains(said), "{said} in {text}");
        }
    }
    assert!(markdown.contains("## Better on the first rung alone (1)"), "{markdown}");
    assert!(html.contains("worth 2.5 times the compute (1.8 to 3.5)"), "{html}");
    let said = "the start would need 2.93 times (95 % interval 2.05 to 4.10) at depth 4 and 2.51 times";
    assert!(markdown.contains(said), "{markdown}");
    check_balanced(&html);
    let cells = |line: &str| line.matches('|').count();
    let lines: Vec<&str> = markdown.lines().collect();
    for pair in lines.windows(2).filter(|pair| pair.iter().all(|line| line.starts_with('|'))) {
        assert_eq!(cells(pair[0]), cells(pair[1]), "{}", pair[1]);
    }
    let (_lab, one) = report_of(&report_lab::full());
    assert!(report::markdown(&one).contains("Not shown: that the gain holds at other sizes"));
    assert!(!report::markdown(&one).contains("the compute"), "one rung was not priced");
}
