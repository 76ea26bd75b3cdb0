//! What a change is worth in compute: how many times the FLOPs the champion would need to score as the challenger
//! does. Numbers in, numbers out; the records it reads were verified by whoever wrote them.
//!
//! # The law
//!
//! `L(C) = b C^-c`, a straight line in logarithms by least squares through the champion's own scores at the budgets
//! it was run at: the rungs of the ladder, or half the budget where there is one rung. A challenger that scores g
//! better at C is worth
//!
//! ```text
//! G = (1 - g / L(C))^(-1/c)
//! ```
//!
//! times the compute. *Assumed*: the rungs lie on one curve of the champion, depth included; and there is no floor
//! (`L = a + b C^-c` with a = 0), because two or three budgets cannot tell a floor from an exponent. With a floor
//! the true curve is convex in logarithms: up to the largest budget the line lies above it and G is a little too
//! large, beyond the largest budget it lies below and G is too small. A test holds the size of both.
//!
//! # The interval
//!
//! Parametric bootstrap, seeded: scores scatter about the law by seed with one standard deviation relative to the
//! score at all budgets, paired differences with one standard deviation in bits per byte on all rungs, both
//! unknown and drawn with the chi-square law of their degrees of freedom; the interval is the middle 95 % of G.
//! Where the drawn champion does not improve with compute, G has no upper end, and the interval says so.
//!
//! A gain that was measured when the change won is too large on average, and so is its worth; the final
//! measurement has fresh seeds.

use crate::random::Random;
use pawl_record::{
    CampaignManifest, Climb, Factor, Ladder, LawPoint, Measured, PairRecord, RungMeasured, RungWorth,
    Verdict, Worth,
};

/// Share of the budget at which the champion is run again where the ladder has one rung.
pub(crate) const SHORTER: f64 = 0.5;

/// Draws of the bootstrap: its own error is then a tenth of the interval's width at most.
const NUM_DRAWS: usize = 4000;

/// Paired differences on one rung, bits per byte.
#[derive(Clone, Debug, PartialEq)]
pub struct Gains {
    /// Place of the rung in the ladder.
    pub rung: u64,
    /// Its budget, FLOPs.
    pub flops: f64,
    /// By seed; positive is better.
    pub differences: Vec<f64>,
}

/// The worth of `gains`, given the champion's `points`. `None` with fewer than two budgets, without scatter to
/// learn from, or where the champion does not improve with compute. `key` seeds the bootstrap.
pub fn worth(points: Vec<LawPoint>, gains: &[Gains], key: &[u64]) -> Option<Worth> {
    let logs: Vec<Vec<f64>> = points.iter().map(|it| it.bpb.iter().map(|bpb| bpb.ln()).collect()).collect();
    let differences: Vec<&[f64]> = gains.iter().map(|it| it.differences.as_slice()).collect();
    let groups: Vec<&[f64]> = logs.iter().map(Vec::as_slice).collect();
    let (scores, effects) = (Spread::of(&groups)?, Spread::of(&differences)?);
    let line = Line::through(&points, &scores.means)?;
    if line.exponent() <= 0.0 {
        return None;
    }
    let mut random = Random::new(key);
    let mut draws: Vec<Vec<f64>> = vec![Vec::with_capacity(NUM_DRAWS); gains.len()];
    let mut trends = Vec::with_capacity(NUM_DRAWS);
    for _ in 0..NUM_DRAWS {
        let line = Line::through(&points, &scores.draw(&mut random))?;
        let factors: Vec<f64> = gains
            .iter()
            .zip(effects.draw(&mut random))
            .map(|(on, gain)| line.log_factor(on.flops, gain))
            .collect();
        factors.iter().zip(&mut draws).for_each(|(factor, draws)| draws.push(*factor));
        // Of two factors without bounds nothing is known of the ratio.
        let ratio = factors[factors.len() - 1] - factors[0];
        trends.push(if ratio.is_nan() { f64::INFINITY } else { ratio });
    }
    let points_of: Vec<f64> =
        gains.iter().zip(&effects.means).map(|(on, gain)| line.log_factor(on.flops, *gain)).collect();
    let mut rungs = Vec::new();
    for (i, on) in gains.iter().enumerate() {
        let compute = factor(points_of[i], &mut draws[i])?;
        rungs.push(RungWorth { rung: on.rung, gain_bpb: effects.means[i], compute });
    }
    let trend = match gains.len() {
        0 | 1 => None,
        last => factor(points_of[last - 1] - points_of[0], &mut trends),
    };
    Some(Worth { points, exponent: line.exponent(), rungs, trend })
}

/// The middle 95 % of `draws` about `value`, all in logarithms. `None` where the estimate itself has no bound.
fn factor(value: f64, draws: &mut [f64]) -> Option<Factor> {
    draws.sort_by(f64::total_cmp);
    let at = |share: f64| draws[(share * (draws.len() - 1) as f64).round() as usize].exp();
    let value = value.exp();
    let high = Some(at(0.975).max(value)).filter(|high| high.is_finite());
    value.is_finite().then(|| Factor { value, low: at(0.025).min(value), high })
}

/// Groups of numbers that scatter alike about means of their own.
struct Spread {
    means: Vec<f64>,
    sizes: Vec<f64>,
    dof: usize,
    sum_squares: f64,
}

impl Spread {
    /// `None` where nothing shows the scatter, or a number is none.
    fn of(groups: &[&[f64]]) -> Option<Spread> {
        if groups.is_empty() || groups.iter().any(|it| it.is_empty() || it.iter().any(|x| !x.is_finite())) {
            return None;
        }
        let sizes: Vec<f64> = groups.iter().map(|group| group.len() as f64).collect();
        let means: Vec<f64> = groups.iter().zip(&sizes).map(|(it, n)| it.iter().sum::<f64>() / n).collect();
        let squares =
            groups.iter().zip(&means).flat_map(|(it, mean)| it.iter().map(move |x| (x - mean).powi(2)));
        let sum_squares = squares.sum();
        let dof = groups.iter().map(|group| group.len() - 1).sum();
        (dof > 0).then_some(Spread { means, sizes, dof, sum_squares })
    }

    /// Means as they might be: each about what was seen, with a scatter drawn from what it might be.
    fn draw(&self, random: &mut Random) -> Vec<f64> {
        let chi_square: f64 = (0..self.dof).map(|_| random.normal().powi(2)).sum();
        let sd = (self.sum_squares / chi_square).sqrt();
        self.means.iter().zip(&self.sizes).map(|(mean, n)| mean + sd / n.sqrt() * random.normal()).collect()
    }
}

/// Logarithm of the score against logarithm of the budget.
struct Line {
    slope: f64,
    /// Its center, at which nothing depends on the slope.
    center: (f64, f64),
}

impl Line {
    /// Least squares, each budget weighted by its runs. `None` for fewer than two budgets.
    fn through(points: &[LawPoint], log_means: &[f64]) -> Option<Line> {
        let weights: Vec<f64> = points.iter().map(|it| it.bpb.len() as f64).collect();
        let x: Vec<f64> = points.iter().map(|it| it.flops.ln()).collect();
        let total: f64 = weights.iter().sum();
        let mean = |values: &[f64]| values.iter().zip(&weights).map(|(v, w)| v * w).sum::<f64>() / total;
        let center = (mean(&x), mean(log_means));
        let sums = x.iter().zip(log_means).zip(&weights).map(|((x, y), w)| {
            let (x, y) = (x - center.0, y - center.1);
            (w * x * x, w * x * y)
        });
        let (xx, xy) = sums.fold((0.0, 0.0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        (xx > 1e-9).then(|| Line { slope: xy / xx, center })
    }

    fn exponent(&self) -> f64 {
        -self.slope
    }

    /// Logarithm of the compute that a gain on a budget is worth; infinite where no compute reaches it.
    fn log_factor(&self, flops: f64, gain: f64) -> f64 {
        let score = (self.center.1 + self.slope * (flops.ln() - self.center.0)).exp();
        let left = 1.0 - gain / score;
        if self.exponent() <= 0.0 || left <= 0.0 {
            return if gain > 0.0 { f64::INFINITY } else { f64::NEG_INFINITY };
        }
        -left.ln() / self.exponent()
    }
}

/// Keeps the draws of different estimates apart.
const VERDICT: u64 = 0x77_01;
const FINAL: u64 = 0x77_02;

/// The worth of a keep that held on every rung, as measured when it won; `None` on a ladder of one rung.
pub(crate) fn of_keep(
    campaign: &CampaignManifest,
    proposal: u64,
    pairs: &[PairRecord],
    climbs: &[Climb],
) -> Option<Worth> {
    if climbs.is_empty() || !climbs.iter().all(Climb::held) {
        return None;
    }
    let all = || std::iter::once((0, pairs)).chain(climbs.iter().map(|it| (it.rung, it.pairs.as_slice())));
    let points = all().map(|(rung, pairs)| champions(&campaign.rungs, rung, pairs.iter())).collect();
    let gains: Vec<Gains> = all()
        .map(|(rung, pairs)| {
            let differences = pairs.iter().filter_map(|pair| pair.difference).collect();
            Gains { rung, flops: campaign.rungs.all()[rung as usize].flops, differences }
        })
        .collect();
    worth(points, &gains, &[campaign.seed, VERDICT, proposal])
}

/// The champion's scores in some pairs of a rung, each run once.
fn champions<'a>(ladder: &Ladder, rung: u64, pairs: impl Iterator<Item = &'a PairRecord>) -> LawPoint {
    let on = ladder.all()[rung as usize];
    let mut point = LawPoint { depth: on.depth, flops: on.flops, runs: Vec::new(), bpb: Vec::new() };
    for pair in pairs {
        if !point.runs.contains(&pair.champion_run) {
            point.runs.push(pair.champion_run.clone());
            point.bpb.push(pair.champion_bpb);
        }
    }
    point
}

/// The starting recipe on the rungs above the first: on fresh seeds where it was measured there, otherwise in the
/// pairs of those that climbed against it.
pub(crate) fn start_above<'a>(
    ladder: &Ladder,
    above: &[RungMeasured],
    verdicts: impl Iterator<Item = &'a Verdict> + Clone,
) -> Vec<LawPoint> {
    let on_rung = |rung: u64| match above.iter().find(|it| it.rung == rung) {
        Some(fresh) => {
            let on = ladder.all()[rung as usize];
            let (runs, bpb) = (fresh.start_runs.clone(), fresh.search.start_bpb.clone());
            LawPoint { depth: on.depth, flops: on.flops, runs, bpb }
        }
        None => {
            let climbs = verdicts.clone().filter(|it| it.generation == 0).flat_map(|it| &it.climbs);
            champions(ladder, rung, climbs.filter(|it| it.rung == rung).flat_map(|it| &it.pairs))
        }
    };
    (1..ladder.all().len() as u64).map(on_rung).filter(|point| !point.bpb.is_empty()).collect()
}

/// The worth of everything that was kept: `points` are the starting recipe's, `search` the gain on the first rung.
pub(crate) fn of_final(
    campaign: &CampaignManifest,
    generation: u64,
    points: Vec<LawPoint>,
    search: &Measured,
    above: &[RungMeasured],
) -> Option<Worth> {
    let on = |rung: u64, measured: &Measured| Gains {
        rung,
        flops: campaign.rungs.all()[rung as usize].flops,
        differences: measured.differences.clone(),
    };
    let mut gains = vec![on(0, search)];
    gains.extend(above.iter().map(|it| on(it.rung, &it.search)));
    worth(points, &gains, &[campaign.seed, FINAL, generation])
}
