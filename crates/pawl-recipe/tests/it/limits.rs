//! Nothing a recipe says can hang, crash or eat the machine: one clear error comes back.

use crate::{GPT, load, load_with};
use pawl_recipe::{Overrides, RecipeError};
use pawl_record::SettingValue;

/// The error of a text, with its place in front.
fn error_of(text: &str) -> String {
    show(&load(text).err().unwrap_or_else(|| panic!("loads:\n{text}")))
}

fn show(error: &RecipeError) -> String {
    match &error.hint {
        Some(hint) => format!("{error} | {hint}"),
        None => error.to_string(),
    }
}

/// The error starts so and holds every one of the words.
fn check_error(text: &str, place: &str, words: &[&str]) {
    let error = error_of(text);
    assert!(error.starts_with(&format!("{place}: ")), "expected {place}: got {error}");
    for word in words {
        assert!(error.contains(word), "expected \"{word}\" in: {error}");
    }
}

/// The small GPT with a line of it replaced.
fn gpt(from: &str, to: &str) -> String {
    assert!(GPT.contains(from), "{from}");
    GPT.replace(from, to)
}

#[test]
fn syntax_errors_name_their_line() {
    check_error("x = 1\ny = (2\n", "test.star:3", &[]);
    check_error("def f(:\n  pass\n", "test.star:1", &[]);
    check_error("", "test.star", &["empty"]);
    check_error("x = 1\n\0", "test.star:2", &["zero byte"]);
    check_error("while True:\n    pass\n", "test.star:1", &[]);
    check_error("import os\n", "test.star:1", &[]);
}

#[test]
fn endless_loops_come_to_an_end() {
    check_error("for i in range(10000000000):\n    pass\n", "test.star:1", &["come to an end"]);
    check_error(
        "def f():\n  n = 0\n  for i in range(77777):\n    for j in range(77777):\n      n += 1\nf()\n",
        "test.star:5",
        &["come to an end"],
    );
    check_error(
        "x = [1 for i in range(1000) for j in range(1000) for k in range(1000)]\n",
        "test.star:1",
        &["end"],
    );
    check_error("x = list(range(100000))\ny = [sorted(x) for i in range(100000)]\n", "test.star:2", &["end"]);
    check_error("x = list(range(100000))\ny = [i in x for i in range(100000)]\n", "test.star:2", &["end"]);
    check_error("x = max(range(100000000))\n", "test.star:1", &["end"]);
}

#[test]
fn memory_bombs_do_not_go_off() {
    check_error("x = [0] * 10000000000\n", "test.star:1", &["repeating"]);
    check_error("x = 10000000000 * [0]\n", "test.star:1", &["repeating"]);
    check_error("x = \"ab\" * 10000000000\n", "test.star:1", &["repeating"]);
    check_error("x = [0]\nx *= 10000000000\n", "test.star:2", &["repeating"]);
    check_error("x = ((\"a\" * 100000) * 100000) * 100000\n", "test.star:1", &["repeating"]);
    check_error(
        "def f():\n  s = \"aa\"\n  for i in range(100):\n    s += s\nf()\n",
        "test.star:4",
        &["more than"],
    );
    check_error(
        "def f():\n  s = [1]\n  for i in range(100):\n    s = s + s\nf()\n",
        "test.star:4",
        &["more than"],
    );
    check_error("l = [1]\nx = [l.extend(l) for i in range(100)]\n", "test.star:2", &["extend"]);
    check_error("l = [1]\ne = l.extend\n", "test.star:2", &["call it"]);
    check_error("l = [1]\ne = getattr(l, \"extend\")\n", "test.star:2", &["call it"]);
    check_error(
        "def f():\n  s = \"aa\"\n  for i in range(100):\n    s = f\"{s}{s}\"\nf()\n",
        "test.star:4",
        &["more than"],
    );
    check_error("s = \"a\" * 100000\nx = s.replace(\"a\", s)\n", "test.star:2", &["replace"]);
    check_error("s = \"a\" * 100000\nx = \",\".join([s] * 100000)\n", "test.star:2", &["join"]);
    check_error(
        "s = \"a\" * 100000\nx = (\"%s\" * 10000) % tuple([s] * 10000)\n",
        "test.star:2",
        &["more than"],
    );
    check_error("s = \"a\" * 100000\nx = (\"{0}\" * 10000).format(s)\n", "test.star:2", &["format"]);
    check_error(
        "def f():\n  x = 3\n  for i in range(100):\n    x = x * x\nf()\n",
        "test.star:4",
        &["300 digits"],
    );
    check_error("x = 1 << 100000000\n", "test.star:1", &["shifts"]);
    check_error(
        "def f():\n  t = [1]\n  for i in range(60):\n    t = [t, t]\n  return t == [1]\nf()\n",
        "test.star:5",
        &["nested"],
    );
    check_error(
        "def f():\n  t = [1]\n  for i in range(60):\n    t = [t, t]\n  return str(t)\nf()\n",
        "test.star:5",
        &["nested"],
    );
    check_error(
        "def f():\n  t = [1]\n  for i in range(60):\n    t = [t, t]\n  return \"%s\" % t\nf()\n",
        "test.star:5",
        &["nested"],
    );
    check_error("x = [list(range(100000)) for i in range(100000)]\n", "test.star:1", &[]);
    check_error(
        "def f():\n  x = []\n  for i in range(1000000):\n    x.append([i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i])\nf()\n",
        "test.star:3",
        &["memory"],
    );
}

#[test]
fn deep_nesting_is_refused_before_it_recurses() {
    check_error(
        &format!("x = {}1{}\n", "(".repeat(100_000), ")".repeat(100_000)),
        "test.star:1",
        &["brackets"],
    );
    check_error(&format!("x = {}1\n", "-".repeat(100_000)), "test.star:1", &["operations"]);
    check_error(&format!("x = 1{}\n", "+1".repeat(100_000)), "test.star:1", &["operations"]);
    check_error(&format!("x = a{}\n", ".a".repeat(100_000)), "test.star:1", &["operations"]);
    check_error(&format!("x = a{}\n", "[0]".repeat(100_000)), "test.star:1", &["operations"]);
    check_error(&format!("x = {}True\n", "not ".repeat(100_000)), "test.star:1", &["operations"]);
    check_error(&format!("x = {}1\n", "lambda a, b: ".repeat(10_000)), "test.star:1", &["lambdas"]);
    check_error(&format!("x = {}1\n", "1 if 0 else ".repeat(30_000)), "test.star:1", &["operations"]);
    let branches = "elif 0:\n  pass\n".repeat(30_000);
    check_error(&format!("if 0:\n  pass\n{branches}"), "test.star:515", &["branches"]);
    // Just within the limits: parsed, compiled and run.
    check_error(
        &format!("x = {}1{}\nfail(\"here\")\n", "(".repeat(60), ")".repeat(60)),
        "test.star:2",
        &["here"],
    );
    check_error(&format!("x = 1{}\nfail(\"here\")\n", "+1".repeat(250)), "test.star:2", &["here"]);
    check_error(
        &format!("x = {}\nfail(\"here\")\n", "[1, ".repeat(60) + &"]".repeat(60)),
        "test.star:2",
        &["here"],
    );
    check_error(&format!("x = [{}]\nfail(\"here\")\n", "-1.5, ".repeat(20_000)), "test.star:2", &["here"]);
}

#[test]
fn recursion_ends_in_an_error() {
    check_error("def f(n):\n    return f(n + 1)\nf(0)\n", "test.star:2", &[]);
    check_error("def f(n):\n    return n.join([f(n)])\nf(\"a\")\n", "test.star:2", &[]);
}

#[test]
fn fail_and_wrong_words_say_what_and_where() {
    check_error("fail(\"no such luck\")\n", "test.star:1", &["no such luck"]);
    check_error("x = undefined_name\n", "test.star:1", &["undefined_name"]);
    check_error(&gpt("relu(linear", "rellu(linear"), "test.star:15", &["rellu", "did you mean `relu`"]);
    check_error(&gpt("x.shape[-1]", "x.shap[-1]"), "test.star:8", &["shap"]);
    check_error("load(\"std/nothing.star\", \"x\")\n", "test.star:1", &["no such file", "std/layers.star"]);
    check_error("load(\"/etc/passwd\", \"x\")\n", "test.star:1", &["only the standard library"]);
    check_error("x = open(\"/etc/passwd\")\n", "test.star:1", &["open"]);
    check_error("1 + \"a\"\n", "test.star:1", &[]);
    check_error("x = [1, 2][5]\n", "test.star:1", &[]);
}

#[test]
fn a_recipe_is_declared_once() {
    check_error("x = 1\n", "test.star", &["never called"]);
    check_error(&format!("{GPT}{}", &GPT[GPT.find("recipe(").unwrap()..]), "test.star:41", &["twice"]);
    check_error(&gpt("seq_len = 32,", "seq_len = 0,"), "test.star:39", &["seq_len"]);
    check_error(&gpt("seq_len = 32,", "seq_len = 33,"), "test.star:39", &["tokens_per_step 256", "33"]);
    check_error(&gpt("seq_len = 32,", ""), "test.star:39", &["seq_len"]);
    check_error(&gpt("model = model,", "model = 3,"), "test.star:39", &["model", "int 3"]);
    check_error(
        &gpt("vocab_size = 64", "vocab_size = 64, packing = \"tight\""),
        "test.star:39",
        &["tight", "best_fit"],
    );
}

#[test]
fn shape_errors_name_the_line_and_both_shapes() {
    check_error(&gpt("    x = gather", "    y = tokens % 0\n    x = gather"), "test.star:21", &["modulo"]);
    check_error(&gpt("    x = gather", "    y = tokens / 2\n    x = gather"), "test.star:21", &["float"]);
    check_error(
        &gpt("(x.shape[-1], out)", "(x.shape[-1] + 1, out)"),
        "test.star:9",
        &["matmul", "blocks.0.q (33, 32)", "32"],
    );
    check_error(&gpt("heads(2)", "heads(3)"), "test.star:13", &["heads"]);
    check_error(&gpt("return 15 * tanh", "return 15 + \"a\" * tanh"), "test.star:24", &["string"]);
    check_error(
        &gpt("tanh(linear(rms_norm(x), \"head\", vocab_size()) / 15)", "tanh(x)"),
        "test.star",
        &["logits", "64"],
    );
    check_error(
        &gpt("vocab_size(), width), normal(0.8)", "1 << 50, width), normal(0.8)"),
        "test.star:21",
        &["larger than any machine"],
    );
    check_error(
        &gpt("vocab_size(), width), normal(0.8)", "1 << 30, width), normal(0.8)"),
        "test.star:21",
        &["GiB"],
    );
    check_error(
        &gpt("    x = gather", "    y = full((1 << 40, 1 << 40), 1.0)\n    x = gather"),
        "test.star:21",
        &["larger"],
    );
    check_error(
        &gpt("    x = gather", "    y = pad(tokens, 0, 9000000000000000, 9000000000000000)\n    x = gather"),
        "test.star:21",
        &["larger"],
    );
    check_error(
        &gpt(
            "    x = gather",
            "    y = full((1 << 20, 1), 1.0) + full((1, 1 << 20), 1.0)\n    y = y.reshape(1 << 40, 1) + full((1, 64), 0.0)\n    x = gather",
        ),
        "test.star:21",
        &["2^36"],
    );
    check_error(
        &gpt(
            "    for i in range(depth):",
            "    for i in range(300000):\n        x += 1\n    for i in range(depth):",
        ),
        "test.star:23",
        &["operations"],
    );
    check_error(&gpt("def model(tokens):", "def model(tokens, targets):"), "test.star", &["targets"]);
    check_error(
        &gpt("    for i in range(depth):", "    if x > 0:\n        pass\n    for i in range(depth):"),
        "test.star:22",
        &["ge(a, b)"],
    );
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    check_error(&gpt("/ 15)", "/ float(\"nan\"))"), "test.star:24", &["not finite"]);
    check_error(&gpt("normal(0.8)", "normal(float(\"inf\"))"), "test.star:21", &["finite"]);
    check_error(&gpt("normal(0.8)", "normal(-1)"), "test.star:21", &["negative"]);
    check_error(&gpt("\"lr\", 0.01", "\"lr\", float(\"nan\")"), "test.star:5", &["lr"]);
    check_error(&gpt("low = 1e-4", "low = 0"), "test.star:5", &["log scale"]);
    check_error(&gpt("low = 1e-4", "low = 2"), "test.star:5", &["below"]);
    let recipe = load(&gpt("1 - t.progress", "1 / (t.step - 3) if t.step != 3 else float(\"nan\")")).unwrap();
    let error = show(&recipe.schedule_table(5).unwrap_err());
    assert!(error.contains("step 3") && error.contains("NaN"), "{error}");
    check_error(&gpt("15 * tanh", "log(-1) * tanh"), "test.star:24", &["log(-1.0)"]);
}

#[test]
fn settings_are_checked_and_named() {
    let set = |name: &str, value: SettingValue| {
        let values = [(name.to_string(), value)].into();
        load_with(GPT, &Overrides { depth: None, values })
    };
    let recipe = set("act", SettingValue::Text("square".into())).unwrap();
    assert_eq!(recipe.settings()[1].value, SettingValue::Text("square".into()));
    assert_eq!(set("depth", SettingValue::Int(3)).unwrap().params().len(), 2 + 3 * 6);
    let message =
        |result: Result<_, RecipeError>| show(&result.map(|_: pawl_recipe::Recipe| ()).unwrap_err());
    assert_eq!(
        message(set("ac", SettingValue::Bool(true))),
        "test.star: this recipe has no setting `ac` | did you mean `act`? settings: depth, act, lr"
    );
    assert_eq!(
        message(set("act", SettingValue::Bool(true))),
        "test.star:4: choice `act` cannot be True | options: relu, square"
    );
    assert_eq!(
        message(set("lr", SettingValue::Float(7.0))),
        "test.star:5: knob `lr` must be between 0.0001 and 1, got 7"
    );
    let depth = |depth| load_with(GPT, &Overrides { depth: Some(depth), ..Overrides::default() });
    assert!(message(depth(0)).starts_with("test.star:2: dial `depth` must be a whole number from 1"));
    assert!(message(depth(u64::MAX)).starts_with("test.star:2: dial `depth`"));
    assert!(
        message(depth(100_000_000)).starts_with("test.star"),
        "a depth beyond any machine ends in an error"
    );
    check_error(
        &format!("lr = knob(\"lr\", 0.5, low = 0, high = 1)\n{GPT}"),
        "test.star:6",
        &["declared twice"],
    );
}

#[test]
fn tensors_do_not_travel_between_graphs() {
    let text = gpt("def model(tokens):", "kept = []\ndef model(tokens):\n    kept.append(tokens)");
    check_error(&text, "test.star:22", &[]);
    check_error(&gpt("def block", "y = iota(3)\ndef block"), "test.star:11", &["top level"]);
    let update = gpt("return w - lr", "w = w + param(\"extra\", (1,), zeros())\n        return w - lr");
    check_error(&update, "test.star:33", &["s.state"]);
}
