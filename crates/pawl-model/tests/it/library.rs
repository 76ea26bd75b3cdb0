//! The engine agrees with the reference on loss and gradients of every part of the standard library, at odd sizes.

use crate::inputs::{tokens, uniform};
use crate::machine;
use pawl_engine::{Engine, reference};
use pawl_graph::InputKind;
use pawl_recipe::{Overrides, Recipe, Source, std_only};
use reference::{Leaves, Tensor, leaf};

const B: usize = 3;
const T: usize = 37;
const V: usize = 24;
/// Of the norm of a gradient; worst seen 8e-7.
const TOLERANCE: f64 = 3e-6;

const LOADS: &str = r#"
load("std/attention.star", "attention", "linear_attention", "softmax_attention")
load("std/layers.star", "backout", "causal_conv", "embedding", "gated_mlp", "gelu", "gelu_tanh", "hashed_bigrams",
     "layer_norm", "learnt_positions", "linear", "mlp", "relu_squared", "scaled_rms_norm", "silu", "smear", "softcap",
     "tied_head", "value_embedding")
load("std/moe.star", "moe")
load("std/objectives.star", "label_smoothing", "several_tokens", "z_loss")
load("std/optim.star", "sgd")
"#;

/// Loss and gradients of `loss`, an expression of x (B, T, V) before and y after `layer`, on both machines.
fn check_on_engine(layer: &str, loss: &str) {
    let text = format!(
        "{LOADS}
def trunk(tokens):
    x = embedding(tokens, \"x\", 24)
    return {layer}
def loss(tokens, targets):
    y = trunk(tokens)
    return {loss}
recipe(model = trunk, loss = loss, optimizer = lambda p: sgd(0.1), seq_len = 37, tokens_per_step = 37, vocab_size = 24)
"
    );
    let source = Source { name: "library.star".into(), text };
    let recipe =
        Recipe::load(&source, &Overrides::default(), &std_only).unwrap_or_else(|e| panic!("{layer}: {e}"));
    let mut train = recipe.train_graph(B).unwrap();
    let params: Vec<_> = train.params.iter().map(|p| p.value).collect();
    let mut outputs = train.graph.gradients(train.loss, &params);
    outputs.push(train.loss);
    let mut leaves = Leaves::new();
    for (n, param) in train.params.iter().enumerate() {
        let values = uniform(n as u32, param.shape.iter().product(), 0.05, 0.3);
        leaves.insert(leaf(&InputKind::Param, &param.name), Tensor::Real(values));
    }
    let mut targets = tokens(2, B * T, V);
    targets[7..11].fill(-1);
    leaves.insert(leaf(&InputKind::Tokens, "tokens"), Tensor::Int(tokens(1, B * T, V)));
    leaves.insert(leaf(&InputKind::Targets, "targets"), Tensor::Int(targets));
    let exact = reference::run(&train.graph, &leaves, &outputs, |x| x);
    let got = machine::run(&Engine::new(2), &train.graph, &leaves, &outputs);
    let names = train.params.iter().map(|p| p.name.as_str()).chain(["the loss"]);
    for ((name, exact), got) in names.zip(&exact).zip(&got) {
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let size = norm(&mut exact.real().iter().copied());
        let off = norm(&mut exact.real().iter().zip(got.real()).map(|(a, b)| a - b));
        assert!(
            off <= TOLERANCE * size.max(1e-6),
            "{layer}, {loss}: {name} is off by {off:.1e} of {size:.1e}"
        );
    }
}

#[test]
fn layers_on_the_engine() {
    for layer in [
        "linear(x, \"a\", 24, bias = True)",
        "learnt_positions(x, \"a\")",
        "scaled_rms_norm(x, \"a\")",
        "layer_norm(x, \"a\")",
        "gelu(x) + gelu_tanh(x) * silu(x) + relu_squared(x) + softcap(x, 0.5)",
        "mlp(x, \"a\", 41, bias = True)",
        "gated_mlp(x, \"a\", 41)",
        "causal_conv(x, \"a\", 3)",
        "smear(x, \"a\", 5)",
        "x + hashed_bigrams(tokens, \"a\", 24, 101, normal(1))",
        "x + value_embedding(x, tokens, \"a\", \"b\", 3, 8).merge_heads()",
        "backout(x, tanh(x), \"a\")",
        "tied_head(tanh(x), \"x\")",
    ] {
        check_on_engine(layer, "cross_entropy(y, targets)");
    }
}

#[test]
fn attention_and_experts_on_the_engine() {
    for layer in [
        "attention(x, \"a\", 4, 2, 6, positions = rope, qk_norm = True, window = 9, bias = True)",
        "attention(x, \"a\", 4, 2, 6, window = 9, mix = softmax_attention)",
        "attention(x, \"a\", 4, 2, 6, mix = linear_attention)",
        "moe(x, \"a\", 5, 2, 7)[0]",
    ] {
        check_on_engine(layer, "cross_entropy(y, targets)");
    }
}

#[test]
fn objectives_on_the_engine() {
    check_on_engine("x", "z_loss(y, targets, 0.01)");
    check_on_engine("x", "label_smoothing(y, targets)");
    check_on_engine("x", "several_tokens(y, targets, lambda x: tied_head(rms_norm(x), \"x\"), \"ahead\", 3)");
    check_on_engine("x", "cross_entropy(moe(y, \"a\", 5, 2, 7)[0], targets) + moe(y, \"a\", 5, 2, 7)[1]");
}
