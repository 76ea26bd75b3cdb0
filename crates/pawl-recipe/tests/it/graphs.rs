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
fn a_summary_counts_prices_and_identifies() {
    let recipe = load(GPT).unwrap();
    let summary = recipe.summary().unwrap();
    // wte and head 64 * 32 each; a block has four matrices of 32 * 32 and two of 32 * 128.
    assert_eq!(summary.num_params, 2 * 2048 + 2 * (4 * 1024 + 2 * 4096));
    // Products cost 6 FLOPs a token and matrix element; attention, norms and activations come on top.
    let products = 6.0 * (2048 + 2 * (4 * 1024 + 2 * 4096)) as f64;
    assert!(summary.flops_per_token > products && summary.flops_per_token < 1.5 * products, "{summary:?}");
    assert!(summary.flops_per_step > 256.0 * summary.flops_per_token);
    // Weights, gradients and two moments are 4 numbers a parameter; logits of 8 * 32 tokens are there at least once.
    let floor = 16 * summary.num_params as u64 + 4 * 256 * 64;
    assert!(summary.memory_bytes > floor && summary.memory_bytes < 100 * floor, "{}", summary.memory_bytes);
    assert_eq!(summary.params[0].init, "normal(0.8)");
    assert_eq!(summary.fingerprint.len(), 64);
}

/// Fingerprint of the small GPT with some of its text replaced.
fn fingerprint(changes: &[(&str, &str)]) -> String {
    let mut text = GPT.to_string();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    load(&text).unwrap_or_else(|error| panic!("{error}")).summary().unwrap().fingerprint
}

#[test]
fn what_changes_nothing_keeps_the_fingerprint() {
    let base = fingerprint(&[]);
    for changes in [
        vec![("h = rms", "hidden = rms"), ("(h, name + n", "(hidden, name + n")],
        vec![("step size", "how far a step goes")],
        vec![("c1 = ", "unused = m * v\n        c1 = ")],
        vec![("        m = beta1", "        v0 = s.state(\"v\", w.shape)\n        m = beta1")],
        vec![("lr = knob(\"lr\", 0.01,", "lr = 1.0 * knob(\"lr\", 0.01,")],
        vec![("15 * tanh", "tanh"), ("/ 15)", "/ 15) * 15")],
        vec![("lambda t: 1 - t.progress", "lambda t: (t.num_steps - t.step) / t.num_steps")],
    ] {
        assert_eq!(fingerprint(&changes), base, "{changes:?}");
    }
}

#[test]
fn what_changes_a_run_changes_the_fingerprint() {
    let base = fingerprint(&[]);
    for change in [
        ("0.01,", "0.011,"),
        ("normal(0.8)", "normal(0.7)"),
        ("\"wte\"", "\"embed\""),
        ("1 - t.progress", "1 - 0.5 * t.progress"),
        ("1 - t.progress", "1 if t.step < 3000 else 0"),
        ("0.95, 0.1", "0.96, 0.1"),
        ("tokens_per_step = 256", "tokens_per_step = 512"),
        ("vocab_size = 64", "vocab_size = 64, packing = \"crop\""),
        ("vocab_size = 64", "vocab_size = 64, mixture = {\"code\": 1.0}"),
        ("rope(k)", "k"),
        ("\"relu\", \"square\"", "\"square\", \"relu\""),
    ] {
        assert_ne!(fingerprint(&[change]), base, "{change:?}");
    }
}

#[test]
fn models_that_see_the_future_are_refused_by_the_name_of_the_operation() {
    for (from, to, word, line) in [
        ("x = block(x,", "x = x + x.mean(1)\n        x = block(x,", "sum", 23),
        ("x = block(x,", "x = x + shift(x, -1)\n        x = block(x,", "slice", 23),
        ("rope(k), v)", "rope(k), v, causal = False)", "attention", 14),
        ("x = block(x,", "x = x + x.mean(0)\n        x = block(x,", "sum", 23),
    ] {
        let error = load(&GPT.replace(from, to)).err().unwrap_or_else(|| panic!("{to} loads"));
        assert_eq!(error.line, Some(line), "{error}");
        assert!(error.message.contains("causal") && error.message.contains(word), "{error}");
    }
    for honest in ["x + shift(x, 1)", "x + x.mean(2)", "x + scan(sigmoid(x), x)"] {
        let to = format!("x = {honest}\n        x = block(x,");
        load(&GPT.replace("x = block(x,", &to)).unwrap_or_else(|error| panic!("{honest}: {error}"));
    }
}

#[test]
fn a_loss_whose_logits_hold_the_answers_is_refused() {
    let with_loss = |body: &str| {
        let text = GPT.replace("def adamw", &format!("def loss(tokens, targets):\n    {body}\n\ndef adamw"));
        load(&text.replace("optimizer = optimizer,", "optimizer = optimizer, loss = loss,"))
    };
    with_loss("return cross_entropy(model(tokens), targets) + 1e-3 * model(tokens).square().mean()").unwrap();
    let error = with_loss("return cross_entropy(model(targets), targets)").err().unwrap();
    assert_eq!(error.line, Some(27));
    assert!(error.message.contains("computed from the targets"), "{error}");
    let error = with_loss("return model(tokens).mean(2)").err().unwrap();
    assert!(error.message.contains("not a scalar"), "{error}");
}

#[test]
fn an_error_inside_the_library_names_both_lines() {
    let text = "load(\"std/layers.star\", \"linear\")\ndef model(tokens):\n    return linear(tokens, \"x\", 4)\n\
        recipe(model = model, optimizer = lambda p: None, seq_len = 4, tokens_per_step = 8, vocab_size = 4)\n";
    let error = load(text).err().unwrap();
    assert_eq!((error.file.as_str(), error.line), ("test.star", Some(3)));
    assert!(error.message.contains("(in std/layers.star:"), "{error}");
}

#[test]
fn loads_that_go_in_a_circle_are_named() {
    let source = Source { name: "a.star".into(), text: "load(\"b.star\", \"x\")\n".into() };
    let circle = |name: &str| {
        Ok(if name == "b.star" { "\nload(\"c.star\", \"x\")\n" } else { "load(\"b.star\", \"x\")\n" }
            .to_string())
    };
    let error = Recipe::load(&source, &Overrides::default(), &circle).err().unwrap();
    assert_eq!((error.file.as_str(), error.line), ("c.star", Some(1)));
    assert!(error.message.contains("a.star -> b.star -> c.star -> b.star"), "{error}");
}

#[test]
fn operators_and_formats_mean_what_starlark_says() {
    let text = r#"
a = [1]
b = a
b += [2]
d = {"k": 1}
d["k"] += 2
n = -(1 + 2) * 2
x = (2
     + 3)
x *= (4 +
      1)
s = f"{n}-{x}" + " {}".format(a) + "%s" % ("a".replace("a", "b"),)
j = ("-" + ",").join(["p", "q"])
t = -n if not (n in [1, 2]) else 0
low = [-i for i in range(3)][-1]
u = struct(update = lambda v: v + 1).update(1)
m = {}
m.update({"z": 1})
check = [a, d, n, x, s, j, t, low, u, m, 7 // 2, 7 % 4, 1 << 4, 6 & 3, 6 | 1, 6 ^ 2, 2 != 3, abs(-2), 3 in a]
fail(check)
"#;
    let error = load(text).err().unwrap();
    assert_eq!(
        error.message,
        "[[1, 2], {\"k\": 3}, -6, 25, \"-6-25 [1, 2]b\", \"p-,q\", 6, -2, 2, {\"z\": 1}, 3, 3, 16, 2, 7, 4, True, 2, False]"
    );
    assert_eq!(error.line, Some(20));
}
