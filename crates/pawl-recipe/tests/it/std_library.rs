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
/// Expected numbers have nine digits; worst difference seen 6e-9 of the value.
const TOLERANCE: f64 = 3e-8;

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
    check("\"linear\"", "linear(x, \"a\", 8, bias = True)", [1.36246145, 1.55606729, 0.0236737232], 78.4577369);
}
