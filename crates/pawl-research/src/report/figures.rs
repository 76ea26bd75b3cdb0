//! The figures of the report, drawn from its rows.

use super::words::{bpb, gain_with_interval, plain};
use super::{ChampionRow, Curve, Headline, Outcome, Report, TrialRow};
use crate::plots::{Anchor, Plot, Scale, Shape, interval_axis, interval_cell};

/// What runs along the horizontal axis of the progress figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Along {
    /// Proposals, in order.
    Trials,
    /// Training compute of the campaign.
    Flops,
}

/// The mark of an outcome: no two share a shape.
pub(super) fn shape(outcome: Outcome) -> Shape {
    match outcome {
        Outcome::Kept => Shape::Circle,
        Outcome::Slower => Shape::Square,
        Outcome::Stayed => Shape::Stair,
        Outcome::Faded => Shape::Star,
        Outcome::Retracted => Shape::Plus,
        Outcome::Undecided => Shape::Diamond,
        Outcome::Rejected => Shape::Cross,
        Outcome::Failed => Shape::Triangle,
        Outcome::Skipped => Shape::Dash,
        Outcome::Open => Shape::Ring,
    }
}

/// Level of a trial: that of the champion it met, less its mean gain. `None` without a score.
fn level(trial: &TrialRow, champions: &[ChampionRow]) -> Option<f64> {
    let evidence = trial.evidence?;
    let champion = champions.iter().find(|champion| champion.generation == trial.generation)?;
    Some(champion.level_bpb - evidence.mean)
}

/// The champion's level as a staircase with the interval of each step, every trial as a mark, and the
/// gain on fresh seeds at the right end. `None` before there is a champion.
pub(super) fn progress(report: &Report, along: Along) -> Option<String> {
    let start = report.champions.first()?;
    let unit = flops_unit(report.cost.flops);
    let x_of_trial = |trial: &TrialRow| match along {
        Along::Trials => trial.number as f64,
        Along::Flops => trial.flops_so_far / unit.0,
    };
    let x_of_champion = |champion: &ChampionRow| match along {
        Along::Trials => champion.proposal.unwrap_or(0) as f64,
        Along::Flops => champion.flops_so_far / unit.0,
    };
    let last_x = report.trials.iter().map(x_of_trial).fold(x_of_champion(start) + 1.0, f64::max);
    // The last marks and the final measurement need room at the right.
    let x = Scale { low: 0.0, high: last_x * 1.06 };
    let y = progress_scale(report);
    let (name, what) = match along {
        Along::Trials => ("proposals".to_string(), "proposals"),
        Along::Flops => (format!("training compute of the campaign, {}", unit.1), "compute"),
    };
    let mut plot =
        Plot::new(&format!("val_bpb of the champion and of every trial against {what}"), x, y, 300.0);
    plot.y_axis(6);
    plot.x_axis(10, &name, along == Along::Trials);
    // Past the last proposal, so that a champion that has just won has a line.
    staircase(&mut plot, report, &x_of_champion, last_x * 1.03);
    for trial in &report.trials {
        trial_mark(&mut plot, trial, x_of_trial(trial), level(trial, &report.champions), y);
    }
    promotion_labels(&mut plot, report, along, &x_of_champion);
    final_mark(&mut plot, report, start, x.high);
    Some(plot.finish())
}

/// The range that shows the champion's way well: hopeless trials are marked at its upper edge.
fn progress_scale(report: &Report) -> Scale {
    let champions = report.champions.iter().flat_map(|champion| {
        let half = champion.gain.map_or(0.0, |gain| gain.half_width);
        let half = if half.is_finite() { half } else { 0.0 };
        [champion.level_bpb - half, champion.level_bpb + half]
    });
    let noise = report.noise.as_ref().map_or(0.01, |noise| 4.0 * noise.pair_sd);
    let start = report.champions.first().map(|champion| champion.level_bpb);
    let around_start = start.into_iter().flat_map(|level| [level - noise, level + noise]);
    let again = start.zip(match report.headline {
        Headline::Measured(measured) => Some(measured),
        Headline::NothingKept | Headline::Unmeasured { .. } => None,
    });
    let again = again.into_iter().flat_map(|(level, measured)| {
        let level = level - measured.mean;
        [level - measured.half_width, level + measured.half_width].into_iter().filter(|end| end.is_finite())
    });
    let narrow = Scale::around(champions.chain(around_start).chain(again), 0.0);
    let room = 0.5 * (narrow.high - narrow.low);
    let trials = report.trials.iter().filter_map(|trial| level(trial, &report.champions));
    let near = trials.filter(|level| (narrow.low - room..narrow.high + room).contains(level));
    let range = Scale::around(near.chain([narrow.low, narrow.high]), 0.0);
    let height = range.high - range.low;
    // Room above for trials without a place, below for labels.
    Scale { low: range.low - 0.12 * height, high: range.high + 0.12 * height }
}

fn staircase(plot: &mut Plot, report: &Report, x_of: &dyn Fn(&ChampionRow) -> f64, last_x: f64) {
    let champions = &report.champions;
    let end_of = |idx: usize| champions.get(idx + 1).map_or(last_x, x_of);
    for (idx, champion) in champions.iter().enumerate() {
        if let Some(gain) = champion.gain.filter(|gain| gain.half_width.is_finite()) {
            let (low, high) = (champion.level_bpb - gain.half_width, champion.level_bpb + gain.half_width);
            plot.band("interval", (x_of(champion), low), (end_of(idx), high));
        }
    }
    for (idx, champion) in champions.iter().enumerate() {
        let level = champion.level_bpb;
        if let Some(next) = champions.get(idx + 1) {
            plot.line("champion riser", (x_of(next), level), (x_of(next), next.level_bpb));
        }
        plot.line("champion", (x_of(champion), level), (end_of(idx), level));
    }
}

fn trial_mark(plot: &mut Plot, trial: &TrialRow, x: f64, level: Option<f64>, y: Scale) {
    let text = trial_text(trial);
    let style = trial.outcome.word();
    let lane = y.high - 0.04 * (y.high - y.low);
    match level {
        Some(level) if level < lane => {
            let radius = if trial.outcome == Outcome::Kept { 5.0 } else { 3.5 };
            plot.mark(style, shape(trial.outcome), radius, (x, level), &text);
        }
        Some(_) => {
            plot.mark(style, shape(trial.outcome), 3.5, (x, lane), &text);
            plot.text(&format!("beyond {style}"), (x, lane), (0.0, -6.0), Anchor::Middle, "↑");
        }
        None => plot.mark(style, shape(trial.outcome), 3.5, (x, lane), &text),
    }
}

fn trial_text(trial: &TrialRow) -> String {
    let mut text = format!("#{} {}: {}", trial.number, plain(&trial.change), trial.outcome.word());
    if let Some(evidence) = trial.evidence {
        text.push_str(&format!(", gain {}", gain_with_interval(evidence.mean, evidence.half_width)));
    }
    if let Some(reason) = &trial.reason {
        text.push_str(&format!(" ({})", plain(reason)));
    }
    text
}

/// The kept changes below their steps: by name where the ground left of the step is free (the staircase
/// has come from above), else by number.
fn promotion_labels(plot: &mut Plot, report: &Report, along: Along, x_of: &dyn Fn(&ChampionRow) -> f64) {
    const LINE: f64 = 15.0;
    /// Width of a letter, percent of a page that is wide enough to show names.
    const LETTER: f64 = 0.62;
    const MOST: usize = 40;
    let place = |trial: &TrialRow| {
        let level = level(trial, &report.champions)?;
        Some((plot.across(trial.number as f64), plot.down(level)))
    };
    let places: Vec<(f64, f64)> = report.trials.iter().filter_map(place).collect();
    let mut lowest = 0.0;
    for champion in report.champions.iter().skip(1) {
        let at = (x_of(champion), champion.level_bpb);
        let own = plot.down(at.1);
        let number = format!("#{}", champion.proposal.unwrap_or(0));
        let change = plain(&champion.change);
        let cut: String = change.chars().take(MOST).collect();
        let dots = if change.chars().count() > MOST { "…" } else { "" };
        let name = format!("{number} {cut}{dots}");
        let y = (own + 19.0).max(lowest + LINE);
        let (right, width) = (plot.across(at.0), LETTER * name.chars().count() as f64);
        let is_free = !places
            .iter()
            .any(|(x, down)| (right - width..right).contains(x) && (y - 16.0..y + 8.0).contains(down));
        let fits = right > width && y < own + 4.0 * LINE && is_free;
        let below = (2.0, 19.0);
        if along == Along::Trials && fits {
            lowest = y;
            plot.text("label long", at, (2.0, y - own), Anchor::End, &name);
            plot.text("label short", at, below, Anchor::End, &number);
        } else {
            plot.text("label", at, below, Anchor::End, &number);
        }
    }
}

/// The fresh-seed gain of the champion, laid off from the level of the start.
fn final_mark(plot: &mut Plot, report: &Report, start: &ChampionRow, x: f64) {
    let Headline::Measured(measured) = report.headline else { return };
    let level = start.level_bpb - measured.mean;
    let which = if measured.sealed { "sealed split" } else { "search split" };
    let text = format!(
        "measured again on {} fresh seeds, {which}: gain {}, {} to {} bits per byte",
        measured.seeds,
        gain_with_interval(measured.mean, measured.half_width),
        bpb(measured.start_bpb),
        bpb(measured.champion_bpb)
    );
    plot.line("final", (x, level - measured.half_width), (x, level + measured.half_width));
    plot.mark("final", Shape::SolidDiamond, 6.0, (x, level), &text);
}

/// Training loss against compute: each seed thin, their mean thick.
pub(super) fn learning(report: &Report) -> Option<String> {
    let arms = [("start", &report.start_curves), ("winner", &report.champion_curves)];
    let points = || arms.iter().flat_map(|(_, curves)| curves.iter()).flat_map(|curve| &curve.points);
    let longest = points().map(|(flops, _)| *flops).fold(0.0, f64::max);
    if longest <= 0.0 {
        return None;
    }
    let unit = flops_unit(longest);
    // The first drop from the uniform guess would flatten all that follows.
    let shown = points().filter(|(flops, _)| *flops > 0.06 * longest).map(|(_, loss)| *loss);
    let tight = Scale::around(shown, 0.05);
    // Room below for the name of the lower curve.
    let y = Scale { low: tight.low - 0.1 * (tight.high - tight.low), high: tight.high };
    let x = Scale { low: 0.0, high: longest / unit.0 };
    let mut plot = Plot::new("training loss of the start and the champion against compute", x, y, 240.0);
    plot.y_axis(5);
    plot.x_axis(8, &format!("training compute of a run, {}", unit.1), false);
    let mut ends = Vec::new();
    for (style, curves) in arms {
        let scaled = |curve: &Curve| -> Vec<(f64, f64)> {
            curve.points.iter().map(|(flops, loss)| (flops / unit.0, *loss)).collect()
        };
        for curve in curves {
            plot.path(&format!("seed {style}"), &scaled(curve));
        }
        if let Some(mean) = mean_curve(curves) {
            plot.path(&format!("mean {style}"), &scaled(&mean));
            ends.extend(mean.points.last().map(|(_, loss)| (style, *loss)));
        }
    }
    let name = |style: &str| if style == "winner" { "champion" } else { "start" };
    let lower = ends.iter().map(|(_, loss)| *loss).fold(f64::INFINITY, f64::min);
    for (style, loss) in ends {
        let below = loss == lower;
        let shift = (-6.0, if below { 22.0 } else { -14.0 });
        plot.text(
            &format!("end {style}"),
            (x.high, loss),
            shift,
            Anchor::End,
            &format!("{} {loss:.3}", name(style)),
        );
    }
    Some(plot.finish())
}

/// The mean over seeds, where all have points at the same compute.
fn mean_curve(curves: &[Curve]) -> Option<Curve> {
    let first = curves.first()?;
    let same = |curve: &Curve| {
        curve.points.len() == first.points.len()
            && curve.points.iter().zip(&first.points).all(|(a, b)| a.0 == b.0)
    };
    if !curves.iter().all(same) {
        return None;
    }
    let mean_at =
        |idx: usize| curves.iter().map(|curve| curve.points[idx].1).sum::<f64>() / curves.len() as f64;
    let points = first.points.iter().enumerate().map(|(idx, (flops, _))| (*flops, mean_at(idx))).collect();
    Some(Curve { run: String::new(), points })
}

/// A unit in which this many FLOPs is a small number.
fn flops_unit(flops: f64) -> (f64, &'static str) {
    let units = [(1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")];
    units.into_iter().find(|(unit, _)| flops >= *unit).unwrap_or((1.0, "FLOP"))
}

/// The scale that all rows of the forest share: the kept and undecided effects fit, hopeless ones may leave it.
pub(super) fn forest_scale(report: &Report) -> Scale {
    let band = report.noise.as_ref().map_or(0.0, |noise| noise.pair_sd);
    let mut ends = vec![-3.0 * band, 3.0 * band];
    for trial in &report.trials {
        let Some(evidence) = trial.evidence else { continue };
        let half = if evidence.half_width.is_finite() { evidence.half_width } else { 0.0 };
        match trial.outcome {
            Outcome::Kept | Outcome::Slower | Outcome::Stayed | Outcome::Faded => {
                ends.extend([evidence.mean - half, evidence.mean + half]);
            }
            Outcome::Retracted
            | Outcome::Undecided
            | Outcome::Rejected
            | Outcome::Failed
            | Outcome::Skipped
            | Outcome::Open => {
                // A far worse trial must not flatten the others.
                ends.push(evidence.mean.max(-12.0 * band));
            }
        }
        ends.extend(
            trial
                .remeasured
                .into_iter()
                .flat_map(|gain| [gain.mean - gain.half_width, gain.mean + gain.half_width]),
        );
    }
    Scale::around(ends, 0.06)
}

/// The cell of one trial in the forest; empty without a score.
pub(super) fn forest_cell(report: &Report, scale: Scale, trial: &TrialRow) -> String {
    let Some(evidence) = trial.evidence else { return String::new() };
    let band = report.noise.as_ref().map_or(0.0, |noise| noise.pair_sd);
    let half = if evidence.half_width.is_finite() { evidence.half_width } else { 1e9 };
    let mut intervals = vec![(shape(trial.outcome), evidence.mean, half)];
    intervals.extend(trial.remeasured.map(|gain| (Shape::SolidDiamond, gain.mean, gain.half_width)));
    interval_cell(scale, band, trial.outcome.word(), &intervals, &trial_text(trial))
}

/// The axis of the forest.
pub(super) fn forest_axis(scale: Scale) -> String {
    interval_axis(scale)
}
