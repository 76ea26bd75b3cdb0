//! Recipes in, graphs or one clear error out.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod graphs;
#[path = "../../../pawl-model/examples/parity/inputs.rs"]
mod inputs;
mod lessons;
mod limits;
mod shipped_recipes;
mod std_library;

use pawl_recipe::{Overrides, Recipe, RecipeError, Source, std_only};

/// A small GPT with AdamW in one file.
pub const GPT: &str = r#"
depth = dial("depth", 2)
width = 16 * depth
act = choice("act", ["relu", "square"])
lr = knob("lr", 0.01, low = 1e-4, high = 1.0, scale = "log", doc = "step size")

def linear(x, name, out, std = 0.02):
    w = param(name, (x.shape[-1], out), normal(std))
    return matmul(x, w)

def block(x, name):
    h = rms_norm(x)
    q, k, v = [linear(h, name + n, width).heads(2) for n in ("q", "k", "v")]
    x += linear(attend(rope(q), rope(k), v).merge_heads(), name + "o", width, std = 0.0)
    h = relu(linear(rms_norm(x), name + "up", 4 * width))
    if act == "square":
        h = h.square()
    return x + linear(h, name + "down", width)

def model(tokens):
    x = gather(param("wte", (vocab_size(), width), normal(0.8)), tokens)
    for i in range(depth):
        x = block(x, "blocks.%d." % i)
    return 15 * tanh(linear(rms_norm(x), "head", vocab_size()) / 15)

def adamw(beta1, beta2, decay):
    def update(w, g, s):
        m = beta1 * s.state("m", w.shape) + (1 - beta1) * g
        v = beta2 * s.state("v", w.shape) + (1 - beta2) * g.square()
        c1 = s.schedule(lambda t: 1 - pow(beta1, t.step + 1))
        c2 = s.schedule(lambda t: 1 - pow(beta2, t.step + 1))
        step = (m / c1) / (sqrt(v / c2) + 1e-8)
        return w - lr * s.lr_multiplier * (step + decay * w), {"m": m, "v": v}
    return update

def optimizer(p):
    return adamw(0.9, 0.95, 0.1 if p.ndim == 2 else 0.0)

recipe(model = model, optimizer = optimizer, lr_multiplier = lambda t: 1 - t.progress,
       seq_len = 32, tokens_per_step = 256, vocab_size = 64)
"#;

/// Loads a text as `test.star`.
pub fn load(text: &str) -> Result<Recipe, RecipeError> {
    load_with(text, &Overrides::default())
}

/// Loads a text with other settings.
pub fn load_with(text: &str, overrides: &Overrides) -> Result<Recipe, RecipeError> {
    Recipe::load(&Source { name: "test.star".into(), text: text.into() }, overrides, &std_only)
}
