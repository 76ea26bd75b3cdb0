//! Defects planted in `recipes/nano.star` and no-ops beside them, as edits of its text: a choice each, whose
//! first option is how the campaign starts and whose second is what is proposed.
//!
//! An edit whose text is not found exactly once fails loudly: the recipe has changed and the defect must follow.

/// A planted change.
pub(crate) struct Planted {
    /// Name of the choice.
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Whether a paper tells of it; no-ops stand in none.
    pub(crate) in_paper: bool,
    /// (text of nano, text with the choice in it).
    edits: &'static [(&'static str, &'static str)],
}

const fn planted(
    name: &'static str,
    in_paper: bool,
    what: &'static str,
    edits: &'static [(&'static str, &'static str)],
) -> Planted {
    Planted { name, what, in_paper, edits }
}

/// The size at which all of it is trained: seconds a trial.
const SMALL: &[(&str, &str)] = &[
    ("dial(\"seq_len\", 2048)", "dial(\"seq_len\", 256)"),
    ("dial(\"vocab_size\", 32768)", "dial(\"vocab_size\", 1024)"),
    ("dial(\"head_dim\", 128)", "dial(\"head_dim\", 32)"),
    ("head_dim * int((64 * depth +", "head_dim * int((32 * depth +"),
    ("dial(\"tokens_per_step\", 1 <<", "dial(\"tokens_per_step\", 1024 if True else 1 <<"),
    ("knob(\"matrix_decay\", 0.28,", "knob(\"matrix_decay\", 0.01,"),
];

/// Groups of defects that do not touch the same part: each group is a campaign.
pub(crate) const DEFECTS: [&[Planted]; 3] = [
    &[
        planted(
            "flat_attention",
            false,
            "queries a twentieth of their size: attention cannot choose",
            &[(
                "q, k = 1.2 * rms_norm(rope(q, base = 100000)),",
                "q, k = (0.06 if flat_attention else 1.2) * rms_norm(rope(q, base = 100000)),",
            )],
        ),
        planted(
            "rising_rate",
            true,
            "the rate rises to the end instead of warming down",
            &[(
                "lr_multiplier = nanochat_lr(warmup_steps, warmdown_frac),",
                "lr_multiplier = (lambda t: t.progress) if rising_rate else nanochat_lr(warmup_steps, warmdown_frac),",
            )],
        ),
        planted(
            "tied_values",
            false,
            "value embeddings read the input table, by its name",
            &[
                (
                    "\"value_embeds.%d\" % i,",
                    "\"transformer.wte\" if tied_values else \"value_embeds.%d\" % i,",
                ),
                ("            init = init,", "            init = normal(0.8) if tied_values else init,"),
            ],
        ),
        planted(
            "low_cap",
            true,
            "logits capped at 1.5 instead of 15",
            &[("logits.slice(-1, 0, vocab), 15)", "logits.slice(-1, 0, vocab), 1.5 if low_cap else 15)")],
        ),
        planted(
            "decayed_table",
            true,
            "the input table decays, which it must not",
            &[("(0.8, 0.995), 1e-10, 0.001)", "(0.8, 0.995), 1e-10, 2.0 if decayed_table else 0.001)")],
        ),
    ],
    &[
        planted(
            "unrotated_keys",
            false,
            "queries are rotated and keys are not",
            &[(
                "1.2 * rms_norm(rope(k, base = 100000))",
                "1.2 * rms_norm(k if unrotated_keys else rope(k, base = 100000))",
            )],
        ),
        planted(
            "head_among_scalars",
            false,
            "the head learns at the rate of the residual scalars",
            &[(
                "\"lm_head.weight\": head,",
                "\"lm_head.weight\": keep_scalars if head_among_scalars else head,",
            )],
        ),
        planted(
            "dead_layer",
            false,
            "the first block's MLP is multiplied by zero",
            &[(
                "x += feed_forward(rms_norm(x), i)",
                "x += feed_forward(rms_norm(x), i) * 0.0 if dead_layer and i == 0 else feed_forward(rms_norm(x), i)",
            )],
        ),
        planted(
            "no_last_norm",
            true,
            "no norm before the head",
            &[(
                "x = rms_norm(backout(x, middle, \"backout_lambda\"))",
                "x = backout(x, middle, \"backout_lambda\")\n    x = x if no_last_norm else rms_norm(x)",
            )],
        ),
        planted(
            "blunt_epsilon",
            false,
            "the epsilon of Adam for value embeddings is 1, far above their gradients",
            &[(
                "values_in = adamw(0.5 * embedding_lr, (0.8, 0.995), 1e-10, 0.01)",
                "values_in = adamw(0.5 * embedding_lr, (0.8, 0.995), 1.0 if blunt_epsilon else 1e-10, 0.01)",
            )],
        ),
    ],
    &[
        planted(
            "short_sight",
            true,
            "every layer sees four positions back",
            &[("window = window(i))", "window = 4 if short_sight else window(i))")],
        ),
        planted(
            "faint_mlp",
            false,
            "what the MLPs add is divided by fifty",
            &[(
                "    return linear(h, name + \"c_proj\", width, zeros())\n\ndef model",
                "    y = linear(h, name + \"c_proj\", width, zeros())\n    return y / 50 if faint_mlp else y\n\ndef model",
            )],
        ),
        planted(
            "loud_exits",
            true,
            "attention does not start as nothing: its last matrix is drawn, eight times as large as others",
            &[(
                "merge_heads(), name + \"c_proj\", width, zeros())",
                "merge_heads(), name + \"c_proj\", width, uniform(-8 * init_bound(width), 8 * init_bound(width)) if loud_exits else zeros())",
            )],
        ),
        planted(
            "one_domain",
            false,
            "the mixture leaves code out",
            &[(
                "    vocab_size = vocab,",
                "    vocab_size = vocab,\n    mixture = {\"prose\": 1.0} if one_domain else {},",
            )],
        ),
    ],
];

/// Changes that change no distribution of results, a group for each group of defects.
pub(crate) const NULLS: [&[Planted]; 3] = [
    &[
        planted(
            "other_mlp_name",
            false,
            "the MLP's first matrix under another name: other initial values",
            &[("name + \"c_fc\"", "name + (\"c_up\" if other_mlp_name else \"c_fc\")")],
        ),
        planted(
            "doubled_and_halved",
            false,
            "what enters the head times two, divided by two",
            &[(
                "logits = linear(x, \"lm_head\"",
                "logits = linear(x * 2 / 2 if doubled_and_halved else x, \"lm_head\"",
            )],
        ),
        planted(
            "minus_minus",
            false,
            "attention subtracted with its sign turned",
            &[(
                "x += attention(rms_norm(x), tokens, i)",
                "x = x - (0 - attention(rms_norm(x), tokens, i)) if minus_minus else x + attention(rms_norm(x), tokens, i)",
            )],
        ),
        planted(
            "split_sum",
            false,
            "the MLP's matrix in two halves under two names, summed",
            &[(
                "    return linear(h, name + \"c_proj\", width, zeros())\n\ndef model",
                "    if split_sum:\n        return linear(h.slice(-1, 0, 2 * width), name + \"c_proj_a\", width, zeros()) + linear(h.slice(-1, 2 * width, 4 * width), name + \"c_proj_b\", width, zeros())\n    return linear(h, name + \"c_proj\", width, zeros())\n\ndef model",
            )],
        ),
        planted(
            "unused",
            false,
            "a choice that nothing reads",
            &[("gate_init = uniform(0.0, 0.02)", "gate_init = uniform(0.0, 0.02)")],
        ),
    ],
    &[
        planted(
            "other_key_name",
            false,
            "the matrix of keys under another name",
            &[("name + \"c_k\"", "name + (\"c_key\" if other_key_name else \"c_k\")")],
        ),
        planted(
            "shifted_logits",
            false,
            "a constant added to all logits, which softmax takes back",
            &[(
                "return softcap(logits.slice(-1, 0, vocab), 15)",
                "capped = softcap(logits.slice(-1, 0, vocab), 15)\n    return capped + 3 if shifted_logits else capped",
            )],
        ),
        planted(
            "both_signs",
            false,
            "queries and keys both negated",
            &[(
                "return linear(attend(q, k, v, window",
                "q, k = (-q, -k) if both_signs else (q, k)\n    return linear(attend(q, k, v, window",
            )],
        ),
        planted(
            "other_value_tables",
            false,
            "value embeddings under another name",
            &[(
                "\"value_embeds.%d\" % i,",
                "(\"value_embeds.t%d\" if other_value_tables else \"value_embeds.%d\") % i,",
            )],
        ),
        planted(
            "normed_twice",
            false,
            "the embedding normed a second time",
            &[(
                "x = smear(x, \"smear\"",
                "x = rms_norm(x) if normed_twice else x\n    x = smear(x, \"smear\"",
            )],
        ),
    ],
    &[
        planted(
            "other_query_name",
            false,
            "the matrix of queries under another name",
            &[("name + \"c_q\"", "name + (\"c_query\" if other_query_name else \"c_q\")")],
        ),
        planted(
            "product_of_relu",
            false,
            "relu(x) relu(x) instead of its square",
            &[(
                "h = relu_squared(linear(x, name + \"c_fc\", 4 * width, uniform(-bound, bound)))",
                "h = linear(x, name + \"c_fc\", 4 * width, uniform(-bound, bound))\n    h = relu(h) * relu(h) if product_of_relu else relu_squared(h)",
            )],
        ),
        planted(
            "heads_exchanged",
            false,
            "the two heads in the other order",
            &[(
                "q, k = 1.2 * rms_norm",
                "swap = lambda z: concat([z.slice(2, 1, 2), z.slice(2, 0, 1)], 2)\n    q, k, v = (swap(q), swap(k), swap(v)) if heads_exchanged else (q, k, v)\n    q, k = 1.2 * rms_norm",
            )],
        ),
        planted(
            "sum_turned",
            false,
            "the two terms of the residual mix in the other order",
            &[(
                "x = keep.slice(0, i, i + 1) * x + again.slice(0, i, i + 1) * start",
                "x = again.slice(0, i, i + 1) * start + keep.slice(0, i, i + 1) * x if sum_turned else keep.slice(0, i, i + 1) * x + again.slice(0, i, i + 1) * start",
            )],
        ),
    ],
];

/// The recipe of a group: nano, small, with the group's defects in force and everything else as a choice.
pub(crate) fn recipe(group: usize) -> Result<String, String> {
    let mut text = include_str!("../../../../../recipes/nano.star").to_string();
    for (from, to) in SMALL {
        text = edited(&text, "the size", from, to)?;
    }
    for one in DEFECTS[group].iter().chain(NULLS[group]) {
        for (from, to) in one.edits {
            text = edited(&text, one.name, from, to)?;
        }
    }
    let mut choices = String::new();
    for one in DEFECTS[group] {
        choices += &format!("{0} = choice(\"{0}\", [True, False], doc = \"{1}\")\n", one.name, one.what);
    }
    for one in NULLS[group] {
        choices += &format!("{0} = choice(\"{0}\", [False, True], doc = \"{1}\")\n", one.name, one.what);
    }
    let first = "depth = dial(\"depth\", 4)";
    edited(&text, "the choices", first, &format!("{choices}\n{first}"))
}

fn edited(text: &str, name: &str, from: &str, to: &str) -> Result<String, String> {
    match text.matches(from).count() {
        1 => Ok(text.replacen(from, to, 1)),
        n => Err(format!("recipes/nano.star has `{from}` {n} times, not once: {name} cannot be planted")),
    }
}
