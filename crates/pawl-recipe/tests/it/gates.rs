//! What a recipe may not do with what it knows of its caller: whether it is trained, and how many sequences it sees.

use crate::{GPT, load};

/// The small GPT with lines before its blocks.
fn with(lines: &str) -> String {
    GPT.replace("    for i in range(depth):", &format!("{lines}    for i in range(depth):"))
}

#[test]
fn evaluation_does_no_work_that_training_does_not() {
    let error =
        load(&with("    for n in range(0 if is_training() else 4):\n        x = block(x, \"blocks.0.\")\n"));
    let error = error.err().expect("four blocks are more than a quarter of two").to_string();
    assert!(error.contains("hidden work") && error.contains("in training"), "{error}");
    load(&with("    x = dropout(x, 0.1)\n")).expect("less work is no cheat");
    let fixed =
        "    w = param(\"wte\", (vocab_size(), width), normal(0.8))\n    x = gather(rms_norm(w), tokens)\n";
    let recipe =
        load(&with(fixed)).expect("work on parameters is done once a pass, however many tokens there are");
    recipe.logits_graph(1, 1).expect("and for one token too");
    let error = load(&with(&fixed.replace("rms_norm(w)", "w if is_training() else rms_norm(w)")));
    let error = error.err().expect("but not in evaluation alone").to_string();
    assert!(error.contains("a pass over the parameters"), "{error}");
}

#[test]
fn what_was_proved_of_two_sequences_is_proved_of_those_that_are_run() {
    let leaks = "    if tokens.shape[0] > 2 and not is_training():\n        x = x + shift(x, -1)\n";
    let recipe = load(&with(leaks)).expect("two sequences do not show it");
    for error in [recipe.loss_graph(3, 32).err(), recipe.logits_graph(4, 32).err()] {
        let error = error.expect("more than two do").to_string();
        assert!(error.contains("not causal"), "{error}");
    }
    recipe.loss_graph(2, 32).expect("two sequences are honest");
    recipe.logits_graph(1, 32).expect("and so is one");

    let works = "    if tokens.shape[0] > 2 and not is_training():\n        x = block(block(x, \"blocks.0.\"), \"blocks.1.\")\n";
    let recipe = load(&with(works)).expect("two sequences do not show it");
    let error = recipe.loss_graph(3, 32).expect_err("twice the work").to_string();
    assert!(error.contains("hidden work"), "{error}");
}

#[test]
fn a_text_carries_no_weights() {
    let numbers = format!("table = [{}]\n{GPT}", "0.125, ".repeat(3000));
    let error = load(&numbers).err().expect("three thousand numbers").to_string();
    assert!(error.contains("numbers, more than"), "{error}");
    let strings = format!("text = \"{}\"\n{GPT}", "fn main ".repeat(3000));
    let error = load(&strings).err().expect("a string of 24 kB").to_string();
    assert!(error.contains("strings of 24"), "{error}");
    load(&format!("\"\"\"{}\"\"\"\n{GPT}", "fn main ".repeat(3000)))
        .expect("a docstring says and does nothing");
}
