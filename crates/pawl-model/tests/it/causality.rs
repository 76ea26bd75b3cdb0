//! What leaks is refused by the name of the operation; what does not is accepted, and no logit at or
//! before t moves by a bit when a later token does.

use pawl_model::{Model, Scorer};
use pawl_recipe::{Overrides, Recipe, RecipeError, Source, shipped, std_only};

const T: usize = 8;
const VOCAB: i32 = 16;

/// A model of width 8 whose hidden state x (B, T, 8) is changed by `body`.
fn recipe_with(body: &str) -> String {
    let lines: String = body.lines().map(|line| format!("    {}\n", line.trim())).collect();
    format!(
        r#"
load("std/optim.star", "adamw")
def weight(name):
    return param(name, (8, 8), normal(0.5))
def model(tokens):
    B, T = tokens.shape
    x = gather(param("embed", (16, 8), normal(0.5)), tokens)
{lines}    return matmul(x, param("head", (16, 8), normal(0.5)), tb = True)
recipe(model = model, optimizer = lambda p: adamw(0.001), seq_len = 8, tokens_per_step = 16, vocab_size = 16)
"#
    )
}

fn load(text: String) -> Result<Recipe, RecipeError> {
    Recipe::load(&Source { name: "case.star".to_string(), text }, &Overrides::default(), &std_only)
}

/// (what it is, the operation that must be named, code)
const LEAKS: &[(&str, &str, &str)] = &[
    ("mean over time", "sum", "x = x + x.mean(1)"),
    ("maximum over time", "max", "x = x + x.max(1)"),
    ("mean over the batch", "sum", "x = x + x.mean(0)"),
    ("sum of everything, folded into one axis", "reshape", "x = x + x.sum(None)"),
    ("the next token", "slice", "x = x + shift(x, -1)"),
    ("the last position for all", "slice", "x = x + x.slice(1, T - 1, T)"),
    ("two ahead, one back", "slice", "x = x + shift(shift(x, 1), -2)"),
    (
        "attention without a mask",
        "attention",
        "h = x.heads(2)\nx = x + attend(h, h, h, causal = False).merge_heads()",
    ),
    ("softmax over time", "softmax", "x = x + softmax(x.transpose(0, 2, 1)).transpose(0, 2, 1)"),
    ("scores without a mask", "softmax", "s = matmul(x, x, tb = True)\nx = x + matmul(softmax(s), x)"),
    ("raw scores times values", "matmul", "x = x + matmul(matmul(x, x, tb = True), x)"),
    (
        "mask on the wrong side",
        "softmax",
        "s = matmul(x, x, tb = True).transpose(0, 2, 1)\nx = x + matmul(softmax(s, causal = True), x)",
    ),
    (
        "a learnt mix of positions",
        "matmul",
        "x = x + matmul(x.transpose(0, 2, 1), param('mix', (T, T), normal(1.0))).transpose(0, 2, 1)",
    ),
    ("time folded into channels", "reshape", "x = x + x.reshape(B, T // 2, 16).reshape(B, T, 8)"),
    ("reshape across sequences", "reshape", "x = x + x.reshape(T, B, 8).reshape(B, T, 8)"),
    ("time and channels exchanged", "matmul", "x = x + x.transpose(0, 2, 1)"),
    ("sequences rolled", "slice", "x = x + concat([x.slice(0, 1, B), x.slice(0, 0, 1)], 0)"),
    (
        "halves of time exchanged",
        "slice",
        "x = x + concat([x.slice(1, T // 2, T), x.slice(1, 0, T // 2)], 1)",
    ),
    (
        "experts choose tokens",
        "top_k",
        "g = x.transpose(0, 2, 1)\nx = x + (g * top_k(g, 2)).transpose(0, 2, 1)",
    ),
    ("norm over time", "rms_norm", "x = x + rms_norm(x.transpose(0, 2, 1)).transpose(0, 2, 1)"),
    (
        "keys shifted from the future",
        "",
        "k = shift(x, -1).heads(2)\nx = x + attend(x.heads(2), k, k).merge_heads()",
    ),
    (
        "tokens hashed with the next",
        "",
        "x = x + gather(param('pair', (31, 8), normal(1.0)), (tokens * 7 + shift(tokens, -1)) % 31)",
    ),
];

/// Honest look-alikes of the above.
const HONEST: &[(&str, &str)] = &[
    ("mean over channels", "x = x + x.mean(2)"),
    ("running sum", "x = x + scan(full((B, T, 8), 1.0), x)"),
    ("decaying memory", "x = x + scan(sigmoid(matmul(x, weight('decay'))), x)"),
    ("the previous token", "x = x + shift(x, 1)"),
    ("the first position for all", "x = x + x.slice(1, 0, 1)"),
    ("two back, one ahead", "x = x + shift(shift(x, 2), -1)"),
    ("causal attention", "h = x.heads(2)\nx = x + attend(h, h, h).merge_heads()"),
    ("windowed attention", "h = x.heads(2)\nx = x + attend(h, h, h, window = 2).merge_heads()"),
    ("softmax over channels", "x = x + softmax(x)"),
    ("attention by hand", "s = matmul(x, x, tb = True) * 0.3\nx = x + matmul(softmax(s, causal = True), x)"),
    (
        "attention by hand, keys shifted back",
        "k = shift(x, 1)\ns = matmul(x, k, tb = True)\nx = x + matmul(softmax(s, causal = True, window = 3), k)",
    ),
    ("a learnt mix of channels", "x = x + matmul(x, weight('mix'))"),
    ("channels folded and unfolded", "x = x + x.reshape(B, T, 2, 4).transpose(0, 1, 3, 2).reshape(B, T, 8)"),
    ("rows and back", "x = x + matmul(x.reshape(B * T, 8), weight('rows')).reshape(B, T, 8)"),
    ("time moved and moved back", "x = x + relu(x.transpose(0, 2, 1)).transpose(0, 2, 1)"),
    ("gates by a bias of positions", "x = x * param('position', (T, 8), normal(1.0))"),
    (
        "tokens hashed with the previous",
        "x = x + gather(param('pair', (31, 8), normal(1.0)), (tokens * 7 + shift(tokens, 1)) % 31)",
    ),
    (
        "a masked table summed",
        "s = softmax(matmul(x, x, tb = True), causal = True)\nx = x + (s * 2.0).sum(2)",
    ),
    ("tokens choose experts", "g = matmul(x, weight('gate'))\nx = x + g * top_k(g, 2)"),
    (
        "biases between positions",
        "f = x.mean(2)\ns = matmul(x, x, tb = True) + (f - f.transpose(0, 2, 1))\nx = x + matmul(softmax(s, causal = True), x)",
    ),
    ("rotation", "h = rope(x.heads(2))\nx = x + attend(h, h, x.heads(2)).merge_heads()"),
];

#[test]
fn what_leaks_is_refused_by_the_name_of_the_operation() {
    for (what, op, body) in LEAKS {
        let error = load(recipe_with(body)).err().unwrap_or_else(|| panic!("{what} was accepted"));
        let text = error.to_string();
        assert!(text.contains(op), "{what}: {text}");
        let names = ["mixes", "later", "t+", "position", "sequence", "causal mask"];
        assert!(names.iter().any(|n| text.contains(n)), "{what} was refused for another reason: {text}");
    }
}

/// Logits (2, T, V) of a text, parameters drawn from seed 3.
fn check_later_tokens_change_nothing(name: &str, recipe: Recipe) {
    let (t, vocab) = (recipe.seq_len(), recipe.vocab_size());
    let v = vocab as i32;
    let model = Model::new(recipe, 2, 3).unwrap();
    let mut scorer = Scorer::logits(&model, 2, t).unwrap();
    scorer.refresh(&model);
    let mut logits = |change: Option<(usize, i32)>| {
        for (i, slot) in scorer.tokens_mut().iter_mut().enumerate() {
            *slot = (i as i32 * 37 + 11) % v;
            if let Some((at, by)) = change
                && i >= at
            {
                *slot = (*slot + by + i as i32 % 3).rem_euclid(v);
            }
        }
        scorer.run(&model).iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
    };
    let before = logits(None);
    for at in [1, 2, t / 2, t - 1, t, t + 1, 2 * t - 1] {
        for by in [1, v / 2] {
            let after = logits(Some((at, by)));
            assert!(
                before[..at * vocab] == after[..at * vocab],
                "{name}: a logit before position {at} moved"
            );
            assert!(before != after, "{name}: nothing moved, which proves nothing");
        }
    }
}

#[test]
fn honest_look_alikes_pass_and_later_tokens_move_no_bit() {
    for (what, body) in HONEST {
        let recipe = load(recipe_with(body)).unwrap_or_else(|e| panic!("{what} was refused: {e}"));
        assert_eq!((recipe.seq_len(), recipe.vocab_size() as i32), (T, VOCAB));
        check_later_tokens_change_nothing(what, recipe);
    }
}

#[test]
fn in_shipped_recipes_later_tokens_move_no_bit() {
    for name in ["tiny", "nano"] {
        let text = shipped(name).unwrap().to_string();
        let mut overrides = Overrides { depth: Some(2), ..Overrides::default() };
        overrides.values.insert("seq_len".into(), pawl_record::SettingValue::Int(128));
        let recipe = Recipe::load(&Source { name: name.to_string(), text }, &overrides, &std_only).unwrap();
        check_later_tokens_change_nothing(name, recipe);
    }
}

#[test]
fn a_model_that_asks_for_targets_is_refused() {
    let text = recipe_with("x = x").replace("def model(tokens):", "def model(tokens, targets):");
    let error = load(text).err().expect("two parameters are refused").to_string();
    assert!(error.contains("model"), "{error}");
}
