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

/// The size at which all of it is trained: seconds a trial. At this size nano's own rate for the head is so low that
/// nothing before the head matters, whatever is wrong with it: with it three of the first defects that were planted did
/// no harm. Nineteen times that rate makes some seeds break; with six times it harm is the same on every seed, and of
/// two dozen that were tried one at a time these fifteen were taken: thirteen that do harm, and two that do none at this size
/// (`unrotated_keys`, `linear_mlp`), which no judge should find.
const SMALL: &[(&str, &str)] = &[
    ("dial(\"seq_len\", 2048)", "dial(\"seq_len\", 256)"),
    ("dial(\"vocab_size\", 32768)", "dial(\"vocab_size\", 1024)"),
    ("dial(\"head_dim\", 128)", "dial(\"head_dim\", 32)"),
    ("head_dim * int((64 * depth +", "head_dim * int((32 * depth +"),
    ("dial(\"tokens_per_step\", 1 <<", "dial(\"tokens_per_step\", 1024 if True else 1 <<"),
    ("knob(\"matrix_decay\", 0.28,", "knob(\"matrix_decay\", 0.01,"),
    (
        "knob(\"unembedding_lr\", 0.008, low = 0.0004, high = 0.1,",
        "knob(\"unembedding_lr\", 0.05, low = 0.004, high = 1.0,",
    ),
];

/// Groups of defects that do not touch the same part: each group is a campaign.
pub(crate) const DEFECTS: [&[Planted]; 3] = [
    &[
        planted(
            "rising_rate",
            true,
            "the rate rises to the end, to two fifths of what it should have been, instead of warming down",
            &[(
                "lr_multiplier = nanochat_lr(warmup_steps, warmdown_frac),",
                "lr_multiplier = (lambda t: 0.4 * t.progress) if rising_rate else nanochat_lr(warmup_steps, warmdown_frac),",
            )],
        ),
        planted(
            "low_cap",
            true,
            "logits capped at 4 instead of 15",
            &[("logits.slice(-1, 0, vocab), 15)", "logits.slice(-1, 0, vocab), 4 if low_cap else 15)")],
        ),
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
            "decayed_table",
            true,
            "the input table decays, which it must not",
            &[("(0.8, 0.995), 1e-10, 0.001)", "(0.8, 0.995), 1e-10, 2.0 if decayed_table else 0.001)")],
        ),
        planted(
            "noisy_steps",
            true,
            "a quarter of the tokens a step",
            &[(
                "dial(\"tokens_per_step\", 1024 if True",
                "dial(\"tokens_per_step\", 256 if noisy_steps else 1024 if True",
            )],
        ),
    ],
    &[
        planted(
            "squeezed_values",
            false,
            "all but two channels of each head's values are multiplied by zero",
            &[(
                "    q, k = 1.2 * rms_norm(rope(q,",
                "    v = concat([v.slice(3, 0, 2), 0 * v.slice(3, 2, head)], 3) if squeezed_values else v\n    q, k = 1.2 * rms_norm(rope(q,",
            )],
        ),
        planted(
            "blunt_epsilon",
            false,
            "the epsilon of Adam for the input table is 1, far above its gradients",
            &[(
                "tokens_in = adamw(embedding_lr, (0.8, 0.995), 1e-10,",
                "tokens_in = adamw(embedding_lr, (0.8, 0.995), 1.0 if blunt_epsilon else 1e-10,",
            )],
        ),
        planted(
            "attention_alone",
            false,
            "what attention returns replaces the stream instead of being added",
            &[(
                "x += attention(rms_norm(x), tokens, i)",
                "x = attention(rms_norm(x), tokens, i) if attention_alone else x + attention(rms_norm(x), tokens, i)",
            )],
        ),
        planted(
            "linear_mlp",
            true,
            "the MLP without its nonlinearity",
            &[(
                "h = relu_squared(linear(x, name + \"c_fc\", 4 * width, uniform(-bound, bound)))",
                "h = linear(x, name + \"c_fc\", 4 * width, uniform(-bound, bound))\n    h = h if linear_mlp else relu_squared(h)",
            )],
        ),
        planted(
            "dropped_rate",
            true,
            "the rate falls to a fiftieth after three tenths of the run",
            &[(
                "lr_multiplier = nanochat_lr(warmup_steps, warmdown_frac),",
                "lr_multiplier = (lambda t: 1.0 if t.progress < 0.3 else 0.02) if dropped_rate else nanochat_lr(warmup_steps, warmdown_frac),",
            )],
        ),
    ],
    &[
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
        planted(
            "squeezed_exit",
            false,
            "all but eight channels are multiplied by zero before the head",
            &[(
                "x = rms_norm(backout(x, middle, \"backout_lambda\"))",
                "x = rms_norm(backout(x, middle, \"backout_lambda\"))\n    x = concat([x.slice(2, 0, 8), 0 * x.slice(2, 8, width)], 2) if squeezed_exit else x",
            )],
        ),
        planted(
            "slow_moments",
            false,
            "the head's moments remember a thousand steps, seven times as many as there are",
            &[(
                "head = adamw(unembedding_lr, (0.8, 0.96),",
                "head = adamw(unembedding_lr, (0.999, 0.9999) if slow_moments else (0.8, 0.96),",
            )],
        ),
        planted(
            "still_matrices",
            false,
            "the matrices of the blocks learn at a thousandth of their rate",
            &[(
                "matrices = muon(\n    matrix_lr,",
                "matrices = muon(\n    (0.001 if still_matrices else 1.0) * matrix_lr,",
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
            "other_exit_name",
            false,
            "the MLP's last matrix under another name: nothing is drawn",
            &[(
                "    return linear(h, name + \"c_proj\", width, zeros())\n\ndef model",
                "    return linear(h, name + (\"c_out\" if other_exit_name else \"c_proj\"), width, zeros())\n\ndef model",
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
