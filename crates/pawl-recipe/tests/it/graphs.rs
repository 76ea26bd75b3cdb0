//! What the graphs of a sound recipe hold.

use crate::{GPT, load};
use pawl_recipe::{Overrides, Recipe, Source, shipped, shipped_recipes, std_only};

#[test]
fn a_small_gpt_becomes_graphs() {
    let recipe = load(GPT).unwrap();
    let train = recipe.train_graph(recipe.micro_batch()).unwrap();
    assert_eq!(train.graph.shape(train.loss), &[] as &[usize]);
    let names: Vec<&str> = train.params.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names[..3], ["wte", "blocks.0.q", "blocks.0.k"]);
    assert_eq!(train.params.len(), 2 + 2 * 6);
    assert!(train.graph.instrs.iter().any(|i| i.origin == "test.star:9"), "origins name the recipe's lines");
    let losses = recipe.loss_graph(3, 16).unwrap();
    assert_eq!(losses.graph.shape(losses.losses), &[48]);
    let logits = recipe.logits_graph(1, 7).unwrap();
    assert_eq!(logits.graph.shape(logits.logits), &[1, 7, 64]);
    let update = recipe.update_graph();
    assert_eq!(update.updates.len(), 14);
    assert_eq!(update.states.len(), 28);
    assert_eq!(update.states[0].name, "wte#m");
    let table = recipe.schedule_table(10).unwrap();
    assert_eq!(table.len(), update.schedules.len());
    assert_eq!(table[0][5], 0.5);
}

#[test]
fn every_shipped_recipe_loads() {
    for name in shipped_recipes() {
        let text = shipped(name).unwrap().to_string();
        let source = Source { name: name.to_string(), text };
        if let Err(error) = Recipe::load(&source, &Overrides::default(), &std_only) {
            panic!("{error} {:?}", error.hint);
        }
    }
}

#[test]
fn print_summaries() {
    for (name, depth) in [("tiny.star", None), ("nano.star", None), ("nano.star", Some(12)), ("tiny.star", Some(12))] {
        let text = shipped(name).unwrap().to_string();
        let source = Source { name: name.to_string(), text };
        let begin = std::time::Instant::now();
        let recipe = Recipe::load(&source, &Overrides { depth, ..Overrides::default() }, &std_only).unwrap();
        let loaded = begin.elapsed();
        let summary = recipe.summary().unwrap();
        println!(
            "{name} {depth:?}: load {loaded:?} all {:?} params {} flops/token {:e} step {:e} memory {:e} instrs {} update {} schedules {:?} {}",
            begin.elapsed(), summary.num_params, summary.flops_per_token, summary.flops_per_step, summary.memory_bytes as f64,
            recipe.train_graph(recipe.micro_batch()).unwrap().graph.instrs.len(), recipe.update_graph().graph.instrs.len(),
            recipe.update_graph().schedules, summary.fingerprint
        );
    }
}
