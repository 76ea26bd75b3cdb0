//! Which changes of `tiny` are trained, on what budgets.

/// One change, by the settings that make it.
pub(crate) struct Arm {
    pub(crate) name: &'static str,
    pub(crate) settings: &'static [(&'static str, &'static str)],
    /// Whether it draws its initial values anew: an A/A pair.
    pub(crate) redraws: bool,
}

/// Arms that are compared with each other; the first is the champion.
pub(crate) struct Study {
    pub(crate) name: &'static str,
    pub(crate) depth: u64,
    pub(crate) flops: f64,
    pub(crate) base: &'static [(&'static str, &'static str)],
    pub(crate) arms: &'static [Arm],
}

const fn arm(name: &'static str, settings: &'static [(&'static str, &'static str)]) -> Arm {
    Arm { name, settings, redraws: false }
}

const AA: Arm = Arm { name: "aa", settings: &[], redraws: true };

const LR: &[(&str, &str)] = &[("matrix_lr", "1.1e-3"), ("embed_lr", "1.1e-3"), ("vector_lr", "1.1e-3")];

/// Nudges, then changes of structure.
const ALL: &[Arm] = &[
    arm("champion", &[]),
    AA,
    arm("lr", LR),
    arm("warmup", &[("warmup_frac", "0.12")]),
    arm("beta2", &[("beta2", "0.99")]),
    arm("decay", &[("weight_decay", "0.1")]),
    arm("rope", &[("positions", "rope")]),
    arm("rms_norm", &[("norm", "rms_norm")]),
    arm("gated", &[("gated_mlp", "True")]),
    arm("untied", &[("tied_head", "False")]),
    arm("qk_norm", &[("qk_norm", "True")]),
    arm("relu_squared", &[("activation", "relu_squared")]),
    arm("muon", &[("optimizer", "muon")]),
    arm("tokens", &[("tokens_per_step", "2048")]),
];

const FEW: &[Arm] = &[
    arm("champion", &[]),
    AA,
    arm("lr", LR),
    arm("rope", &[("positions", "rope")]),
    arm("gated", &[("gated_mlp", "True")]),
    arm("untied", &[("tied_head", "False")]),
    arm("muon", &[("optimizer", "muon")]),
];

/// `tiny` as it is shipped, and as a campaign soon leaves it: a quarter of the tokens a step, so that the same
/// budget is four times as many steps.
pub(crate) const STUDIES: &[Study] = &[
    Study { name: "small_steps", depth: 3, flops: 4e11, base: &[("tokens_per_step", "1024")], arms: ALL },
    Study { name: "shipped", depth: 3, flops: 4e11, base: &[], arms: ALL },
];

/// The same small steps on other budgets.
pub(crate) const LADDER: &[Study] = &[
    Study { name: "quarter", depth: 3, flops: 1e11, base: &[("tokens_per_step", "1024")], arms: FEW },
    Study { name: "fourfold", depth: 3, flops: 1.6e12, base: &[("tokens_per_step", "1024")], arms: FEW },
];
