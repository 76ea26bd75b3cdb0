//! Our e-processes and intervals beside what others' programs say of the same numbers. Golden numbers, made once:
//! confseq 0.0.11 (Howard, Waudby-Smith and Ramdas; PyPI), `uniform_boundaries.h`: `OneSidedNormalMixture`,
//! `TwoSidedNormalMixture`, with `v_opt = (1 / 9) / best_rho(1, 0.05)` so that their rho is our `1 / tau^2`;
//! savvi 0.3.1 (Lindon; PyPI), `linear_regression.log_bf(t2, nu, 1 / 9, z2)`, the two-sided mixture of a t-test.

use pawl_research::evidence::{
    Known, NoiseScale, Scores, Stats, by_mixture, by_own_runs, by_scatter, half_width,
};

/// A scale as good as known, 1: as theirs have it.
const KNOWN: NoiseScale = NoiseScale { dof: 1e7, sum_squares: 1e7 };

/// No floor beside the scatter.
const NOTHING: NoiseScale = NoiseScale { dof: 1.0, sum_squares: 1e-24 };

fn check_same(found: f64, golden: f64) {
    assert!((found / golden - 1.0).abs() < 1e-4, "{found}, {golden} elsewhere");
}

#[test]
fn the_mixture_of_a_known_variance_is_the_one_of_confseq() {
    for (v, sds, golden_log) in [
        (1.0, 3.0, 3.589_638_918_25),
        (4.0, 3.0, 3.264_523_126_57),
        (12.0, 3.0, 2.804_775_529_85),
        (1.0, -0.5, -1.492_519_292_27),
        (4.0, -0.5, -2.158_856_039_51),
        (12.0, -0.5, -2.701_964_062_58),
    ] {
        // Their sum of v terms lies at `sds` of its standard deviations.
        let stats = Stats::of(1.0, v, sds / f64::sqrt(v), 1.0);
        check_same(by_mixture(&KNOWN, &stats, 0.0, 3.0), f64::exp(golden_log));
    }
}

#[test]
fn the_interval_of_a_known_variance_is_the_one_of_confseq() {
    for (k, golden) in [(1.0, 3.035_722_436_46), (4.0, 1.570_757_405_35), (12.0, 0.947_880_414_365)] {
        check_same(half_width(&KNOWN, &Stats::of(k, k, 0.3, k)), golden);
    }
}

#[test]
fn both_directions_of_the_t_test_average_to_the_two_sided_one_of_savvi() {
    let up = [1.4, 0.2, 2.3, 1.1, 0.7];
    let both = [1.0, -1.0].map(|sign| {
        let differences: Vec<f64> = up.iter().map(|d| sign * d).collect();
        by_scatter(&NOTHING, &Stats::of_pairs(&differences, 0.0))
    });
    check_same(0.5 * (both[0] + both[1]), 3.175_306_114_189_982);
}

#[test]
fn a_mean_worth_more_than_its_pairs_is_weighed_as_savvi_weighs_a_coefficient() {
    let fresh = [0.3, -0.4, 0.9, 0.2];
    let known = |sign: f64| Known {
        scale: NOTHING,
        fresh: fresh.iter().map(|x| sign * x).collect(),
        spare: vec![sign * 0.1, sign * 0.7],
    };
    let both = [1.0, -1.0].map(|sign| {
        let pairs: Vec<Scores> = fresh
            .iter()
            .zip([-1.0, -0.3, -1.9, -0.4])
            .map(|(x, y)| Scores { champion: sign * x, challenger: sign * y })
            .collect();
        by_own_runs(&NOTHING, &Stats::of_arms(&known(sign), &pairs, 0.0))
    });
    check_same(0.5 * (both[0] + both[1]), 1.343_876_967_559_093_4);
}
