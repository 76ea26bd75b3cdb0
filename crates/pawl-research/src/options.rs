//! What a campaign may be asked, and the one place where its defaults live.

use pawl_record::JudgeSettings;

/// The judge's defaults: tuned by simulation (see the tests) for campaigns of 20 to 200 proposals in which
/// useful changes are 1 to 5 pair standard deviations large.
pub fn judge_settings() -> JudgeSettings {
    JudgeSettings {
        alpha: 0.05,
        min_effect_bpb: 0.001,
        noise_pairs: 6,
        min_pairs: 3,
        max_pairs: 12,
        target_effect_sds: 1.5,
        target_power: 0.9,
        mixture_sds: 2.0,
    }
}
