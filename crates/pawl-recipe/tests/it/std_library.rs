//! Every layer, objective, optimizer and schedule of the standard library against numbers that a separate
//! float64 implementation (numpy, written from the formulas alone) gave for the same inputs. Inputs are made
//! of integers: parameter n of a case is stream n with mean 0.1 and standard deviation 0.5.

use crate::inputs::{tokens, uniform};
use crate::load;
use pawl_engine::reference::{Leaves, Tensor, leaf, run};
use pawl_graph::{Graph, InputKind, ValueId};
use pawl_recipe::{ParamDecl, Recipe};

const B: usize = 2;
const T: usize = 6;
const C: usize = 8;
/// Expected numbers have nine digits, and the constants of a graph are float32; worst difference seen 9.5e-8 of the
/// value, from the 1/12 of a mean.
const TOLERANCE: f64 = 2e-7;

/// A recipe whose logits are `body` of x (B, T, C), one row of a table for each token.
fn recipe(loads: &str, body: &str) -> Recipe {
    let text = format!(
        "{loads}\n\
         load(\"std/optim.star\", \"sgd\")\n\
         def model(tokens):\n    x = gather(param(\"x\", (8, 8), normal(1)), tokens)\n{body}\n\
         recipe(model = model, optimizer = lambda p: sgd(0.1), seq_len = 6, tokens_per_step = 12, vocab_size = 8)\n"
    );
    load(&text).unwrap_or_else(|error| panic!("{error} {:?}\n{text}", error.hint))
}

fn leaves(params: &[ParamDecl], stream: u32) -> Leaves {
    let mut leaves = Leaves::new();
    for (n, param) in params.iter().enumerate() {
        let values = uniform(stream + n as u32, param.shape.iter().product(), 0.1, 0.5);
        leaves.insert(leaf(&InputKind::Param, &param.name), Tensor::Real(values));
    }
    leaves.insert(leaf(&InputKind::Tokens, "tokens"), Tensor::Int(tokens(1000, B * T, C)));
    leaves
}

fn value(graph: &Graph, leaves: &Leaves, output: ValueId) -> Vec<f64> {
    run(graph, leaves, &[output], |x| x).remove(0).real().to_vec()
}

fn check_close(what: &str, got: f64, expected: f64) {
    assert!(
        (got - expected).abs() <= TOLERANCE * expected.abs().max(1e-3),
        "{what}: got {got:.10}, expected {expected:.10}"
    );
}

/// Elements (0, 0, 0), (0, 4, 3), (1, 5, 7) of the output and the sum of its squares.
fn check_layer(file: &str, names: &str, body: &str, expected: [f64; 3], sum_of_squares: f64) {
    let recipe = recipe(&format!("load(\"std/{file}.star\", {names})"), &format!("    return {body}"));
    let graph = recipe.logits_graph(B, T).unwrap();
    let y = value(&graph.graph, &leaves(&graph.params, 0), graph.logits);
    for (at, expected) in [0, 4 * C + 3, B * T * C - 1].into_iter().zip(expected) {
        check_close(&format!("{body} at {at}"), y[at], expected);
    }
    check_close(body, y.iter().map(|y| y * y).sum(), sum_of_squares);
}

#[test]
fn linear_maps_tables_and_norms() {
    let check = |names, body, expected, squares| check_layer("layers", names, body, expected, squares);
    check(
        "\"linear\"",
        "linear(x, \"a\", 8, bias = True)",
        [1.36246145, 1.55606729, 0.0236737232],
        78.4577369,
    );
    check(
        "\"learnt_positions\"",
        "learnt_positions(x, \"a\")",
        [0.911672384, 0.570665359, -0.677225456],
        43.3931556,
    );
    check(
        "\"scaled_rms_norm\"",
        "scaled_rms_norm(x, \"a\")",
        [0.507149006, -0.411936825, 0.226965168],
        33.212997,
    );
    check("\"layer_norm\"", "layer_norm(x, \"a\")", [0.843710091, -0.250590828, 0.148627004], 65.362362);
}

#[test]
fn activations() {
    let check = |names, body, expected, squares| check_layer("layers", names, body, expected, squares);
    check("\"gelu\"", "gelu(x)", [0.275614267, 0.193485064, -0.14954628], 7.30562158);
    check("\"gelu_tanh\"", "gelu_tanh(x)", [0.275605493, 0.193482186, -0.149559685], 7.30488911);
    check("\"silu\"", "silu(x)", [0.251095646, 0.179497861, -0.179928775], 6.48661436);
    check("\"relu_squared\"", "relu_squared(x)", [0.173583537, 0.0967311335, 0.0], 4.74402336);
    check("\"softcap\"", "softcap(x, 0.5)", [0.341113207, 0.276270822, -0.3661951], 11.1110363);
}

#[test]
fn feed_forward_layers() {
    let check = |names, body, expected, squares| check_layer("layers", names, body, expected, squares);
    check("\"mlp\"", "mlp(x, \"a\", 12, bias = True)", [0.865992791, 1.2593862, 1.45251555], 147.177719);
    check(
        "\"gated_mlp\"",
        "gated_mlp(x, \"a\", 12)",
        [-0.0239498976, -0.290478915, 0.0240162144],
        20.0387966,
    );
}

#[test]
fn what_mixes_the_recent_past() {
    let check = |names, body, expected, squares| check_layer("layers", names, body, expected, squares);
    check("\"causal_conv\"", "causal_conv(x, \"a\", 3)", [0.206249789, -0.444517075, 0.47590327], 11.7103835);
    check("\"smear\"", "smear(x, \"a\", 5)", [0.416633576, 0.532365468, -0.510994196], 23.8089657);
    check(
        "\"hashed_bigrams\"",
        "x + hashed_bigrams(tokens, \"a\", 8, 11)",
        [1.08313635, 0.539931208, -1.16566321],
        50.2910322,
    );
}

#[test]
fn value_embeddings_and_residual_parts() {
    let check = |names, body, expected, squares| check_layer("layers", names, body, expected, squares);
    check(
        "\"value_embedding\"",
        "value_embedding(x, tokens, \"a\", \"b\", 2, 4, channels = 3).merge_heads()",
        [-0.547202655, -0.705234146, 0.155833874],
        90.2191056,
    );
    check("\"backout\"", "backout(x, tanh(x), \"a\")", [0.221543427, 0.161830717, -0.251235037], 7.34710878);
}

#[test]
fn attention_and_its_variants() {
    let check = |names, body, expected, squares| check_layer("attention", names, body, expected, squares);
    check(
        "\"attention\"",
        "attention(x, \"a\", 4, 2, 4, positions = lambda t: rope(t, 1000), qk_norm = True, window = 2, extra_value = tanh(x).heads(2), bias = True)",
        [0.302259528, 0.341906412, -0.892502562],
        601.104763,
    );
    check(
        "\"attention\", \"softmax_attention\"",
        "attention(x, \"a\", 4, 2, 4, window = 3, mix = softmax_attention)",
        [-1.38969638, -0.304293639, -0.682723045],
        88.9946737,
    );
    check(
        "\"attention\", \"linear_attention\"",
        "attention(x, \"a\", 4, 2, 4, mix = lambda q, k, v, window: linear_attention(q, k, v, window, 0.875))",
        [-1.38969619, 0.0709178427, 0.156558147],
        64.6341185,
    );
}

#[test]
fn tied_head_reads_the_table_of_its_name() {
    let recipe = recipe(
        "load(\"std/layers.star\", \"embedding\", \"tied_head\")",
        "    return tied_head(tanh(embedding(tokens, \"t\", 8, normal(1))), \"t\", normal(1)) + 0 * x",
    );
    let graph = recipe.logits_graph(B, T).unwrap();
    let mut leaves = leaves(&graph.params, 0);
    let table = leaves[&leaf(&InputKind::Param, "x")].clone();
    leaves.insert(leaf(&InputKind::Param, "t.weight"), table);
    let y = value(&graph.graph, &leaves, graph.logits);
    check_close("tied head", y.iter().map(|y| y * y).sum(), 55.282204);
    check_close("tied head at 0", y[0], 0.0897408473);
}

/// The scalar training loss of `loss`; targets 2 and 11 are ignored.
fn check_loss(load_line: &str, loss: &str, expected: f64) {
    let text = format!(
        "{load_line}
load(\"std/optim.star\", \"sgd\")
def trunk(tokens):
    return gather(param(\"x\", (8, 8), normal(1)), tokens)
def head(x):
    return matmul(tanh(x), param(\"h\", (8, 8), normal(1)), tb = True)
def loss(tokens, targets):
    x = trunk(tokens)
    return {loss}
recipe(model = trunk, loss = loss, optimizer = lambda p: sgd(0.1), seq_len = 6, tokens_per_step = 12, vocab_size = 8)
"
    );
    let recipe = load(&text).unwrap_or_else(|error| panic!("{error} {:?}\n{text}", error.hint));
    let graph = recipe.train_graph(B).unwrap();
    let mut leaves = leaves(&graph.params, 0);
    let mut targets = tokens(1001, B * T, C);
    (targets[2], targets[11]) = (-1, -1);
    leaves.insert(leaf(&InputKind::Targets, "targets"), Tensor::Int(targets));
    check_close(loss, value(&graph.graph, &leaves, graph.loss)[0], expected);
}

#[test]
fn objectives() {
    let load_line = "load(\"std/objectives.star\", \"label_smoothing\", \"several_tokens\", \"z_loss\")";
    check_loss(load_line, "z_loss(x, targets, 0.01)", 2.288528419);
    check_loss(load_line, "label_smoothing(x, targets, 0.2)", 2.227870427);
    check_loss(load_line, "several_tokens(x, targets, head, \"ahead\", 3, 0.3)", 3.468933908);
}

#[test]
fn mixture_of_experts_and_its_balance_loss() {
    let mixed = "moe(x, \"a\", 4, 2, 6)";
    let sum_of_squares = format!("({mixed}[0] + {mixed}[1]).square().sum()");
    check_loss("load(\"std/moe.star\", \"moe\")", &sum_of_squares, 138.689885);
    let first = format!("({mixed}[0] + {mixed}[1]).slice(0, 0, 1).slice(1, 0, 1).slice(2, 0, 1)");
    check_loss("load(\"std/moe.star\", \"moe\")", &first, 1.29880852);
}

/// Elements 0, 5 and 23 and the sum of squares of a parameter after three steps with lr multipliers 1, 0.7, 0.4;
/// the gradient of step t is stream 5000 + t with standard deviation 0.01.
fn check_optimizer(rule: &str, shape: [usize; 2], expected: [f64; 3], sum_of_squares: f64) {
    let (name, [rows, cols]) = (rule.split('(').next().unwrap(), shape);
    let text = format!(
        "load(\"std/optim.star\", \"{name}\")
def model(tokens):
    return full((tokens.shape[0], tokens.shape[1], 8), 0.0) + param(\"w\", ({rows}, {cols}), normal(1)).sum()
rule = {rule}
recipe(model = model, optimizer = lambda p: rule, lr_multiplier = lambda t: [1.0, 0.7, 0.4][t.step],
       seq_len = 6, tokens_per_step = 12, vocab_size = 8)
"
    );
    let recipe = load(&text).unwrap_or_else(|error| panic!("{error} {:?}\n{text}", error.hint));
    let w = after_three_steps(&recipe);
    // Schedules and constants are float32, which moves a step of 0.02 by a few 1e-9.
    let check = |what: &str, got: f64, expected: f64| {
        let near = (got - expected).abs() <= 1e-7 * expected.abs().max(1.0);
        assert!(near, "{rule} {shape:?}, {what}: got {got:.10}, expected {expected:.10}");
    };
    for (at, expected) in [0, 5, 23].into_iter().zip(expected) {
        check("element", w[at], expected);
    }
    check("sum of squares", w.iter().map(|w| w * w).sum(), sum_of_squares);
}

fn after_three_steps(recipe: &Recipe) -> Vec<f64> {
    let (update, table) = (recipe.update_graph(), recipe.schedule_table(3).unwrap());
    let mut leaves = Leaves::new();
    leaves.insert(leaf(&InputKind::Param, "w"), Tensor::Real(uniform(1, 24, 0.1, 0.5)));
    for state in &update.states {
        let zeros = vec![0.0; state.shape.iter().product()];
        leaves.insert(leaf(&InputKind::State, &state.name), Tensor::Real(zeros));
    }
    for step in 0..3 {
        let grad = uniform(5000 + step as u32, 24, 0.0, 0.01);
        leaves.insert(leaf(&InputKind::Grad, "w"), Tensor::Real(grad));
        for (schedule, row) in update.schedules.iter().zip(&table) {
            let now = vec![f64::from(row[step])];
            leaves.insert(leaf(&InputKind::Scalar, &schedule.scalar), Tensor::Real(now));
        }
        let outputs: Vec<ValueId> =
            update.states.iter().map(|s| s.value).chain([update.updates[0].1]).collect();
        let mut new = run(&update.graph, &leaves, &outputs, |x| x);
        leaves.insert(leaf(&InputKind::Param, "w"), new.pop().unwrap());
        for (state, new) in update.states.iter().zip(new) {
            leaves.insert(leaf(&InputKind::State, &state.name), new);
        }
    }
    leaves[&leaf(&InputKind::Param, "w")].real().to_vec()
}

#[test]
fn optimizers_of_any_shape() {
    let check = |rule, expected, squares| check_optimizer(rule, [6, 4], expected, squares);
    check(
        "sgd(0.5, nesterov = True, weight_decay = 0.1)",
        [0.461105228, 0.641972154, -0.626684717],
        5.8693194,
    );
    check(
        "adamw(0.02, (0.9, 0.99), weight_decay = 0.5)",
        [0.525557361, 0.725699803, -0.660607865],
        6.95322663,
    );
    check(
        "adamw(0.02, (0.9, 0.99), weight_decay = 0.5, cautious = True)",
        [0.536159815, 0.740585409, -0.663246561],
        7.07308853,
    );
    check("lion(0.02, (0.9, 0.99), 0.5)", [0.526435729, 0.727427115, -0.686317673], 7.03264476);
}

#[test]
fn muon_and_its_parts_on_tall_and_wide_matrices() {
    let check = check_optimizer;
    check("muon(0.02, 0.9, 0.5, 0.9)", [6, 4], [0.504121611, 0.693538406, -0.678260394], 6.90689942);
    check("muon(0.02, 0.9, 0.5, 0.9)", [4, 6], [0.498948204, 0.694112761, -0.685184966], 6.9790824);
    check(
        "muon(0.02, 0.9, 0.5, 0.9, equalize_rows = True)",
        [6, 4],
        [0.510597454, 0.693704581, -0.678601996],
        6.91013066,
    );
    check(
        "muon(0.02, 0.9, 0.5, 0.9, equalize_rows = True)",
        [4, 6],
        [0.499392322, 0.696816903, -0.686389246],
        6.98069002,
    );
    check(
        "muon(0.02, 0.9, 0.5, 0.9, restore_norm = True)",
        [6, 4],
        [0.503403, 0.693163172, -0.678372747],
        6.90738354,
    );
    check(
        "muon(0.02, 0.9, 0.5, 0.9, restore_norm = True)",
        [4, 6],
        [0.498899277, 0.694112713, -0.68519674],
        6.98155155,
    );
    check(
        "muon(0.02, 0.9, 0.5, 0.9, normalize_neurons = True)",
        [6, 4],
        [0.50829928, 0.693754293, -0.679057245],
        6.90441213,
    );
    check(
        "muon(0.02, 0.9, 0.5, 0.9, normalize_neurons = True)",
        [4, 6],
        [0.502315019, 0.694544462, -0.684955786],
        6.9700975,
    );
    check(
        "muon(0.02, 0.9, 0.5, 0.9, cautious = True)",
        [6, 4],
        [0.516950566, 0.711517376, -0.681578113],
        7.08384665,
    );
    check(
        "muon(0.02, 0.9, 0.5, 0.9, cautious = True)",
        [4, 6],
        [0.509365592, 0.708787235, -0.687911889],
        7.1100802,
    );
    check(
        "muon(0.02, 0.9, 0.5, 0.9, equalize_rows = True, restore_norm = True, normalize_neurons = True, cautious = True)",
        [6, 4],
        [0.520863542, 0.706972683, -0.682569352],
        7.06637334,
    );
    check(
        "muon(0.02, 0.9, 0.5, 0.9, equalize_rows = True, restore_norm = True, normalize_neurons = True, cautious = True)",
        [4, 6],
        [0.514715867, 0.712607856, -0.689479802],
        7.09099825,
    );
}

/// Values at steps 0, 3, 10, 50, 80 and 99 of a run of 100.
fn check_schedule(function: &str, expected: [f64; 6]) {
    let name = function.split('(').next().unwrap();
    let text = format!(
        "load(\"std/schedule.star\", \"{name}\")
load(\"std/optim.star\", \"sgd\")
def model(tokens):
    return gather(param(\"x\", (8, 8), normal(1)), tokens)
recipe(model = model, optimizer = lambda p: sgd(0.1), lr_multiplier = {function},
       seq_len = 6, tokens_per_step = 12, vocab_size = 8)
"
    );
    let recipe = load(&text).unwrap_or_else(|error| panic!("{error} {:?}\n{text}", error.hint));
    let row = &recipe.schedule_table(100).unwrap()[0];
    for (step, expected) in [0, 3, 10, 50, 80, 99].into_iter().zip(expected) {
        let got = f64::from(row[step]);
        assert!((got - expected).abs() <= 1e-7, "{function} at step {step}: got {got}, expected {expected}");
    }
}

#[test]
fn schedules() {
    check_schedule("constant_schedule(0.5)", [0.5; 6]);
    check_schedule("warmup_hold_warmdown(0.1, 0.5, 0.2)", [0.1, 0.4, 1.0, 1.0, 0.52, 0.216]);
    check_schedule("warmup_cosine(0.1, 0.1)", [0.1, 0.4, 1.0, 0.62814168, 0.20528, 0.100274128]);
    check_schedule("warmup_linear(0.1)", [0.1, 0.4, 1.0, 0.555555556, 0.222222222, 0.011111111]);
    check_schedule("cosine_decay(0.3)", [0.3, 0.299334295, 0.292658477, 0.15, 0.028647451, 7.4015945e-5]);
    check_schedule("ramp(0.85, 0.95, 0.3)", [0.85, 0.86, 0.883333333, 0.95, 0.95, 0.95]);
    check_schedule("nanochat_lr(20)", [0.05, 0.2, 0.55, 0.780769231, 0.342307692, 0.064615385]);
    check_schedule("nanochat_momentum(30)", [0.85, 0.862, 0.89, 0.953846154, 0.921538462, 0.901076923]);
}
