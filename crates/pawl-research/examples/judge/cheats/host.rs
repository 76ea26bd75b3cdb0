//! What a trial or a campaign must not be fooled by: the score, the budget and the gates are the host's.

use super::bench::{told, words};
use super::{Bench, Case, Catcher, Outcome};
use serde_json::Value;
use std::fs;

/// A small model with room for other logits, another loss, more work.
const BASE: &str = r#"
load("std/attention.star", "attention")
load("std/layers.star", "embedding", "layer_norm", "linear")
load("std/optim.star", "adamw")
#TOP
depth = dial("depth", 1)
def model(tokens):
    x = embedding(tokens, "embed", 32)
    for i in range(depth):
        x = x + attention(layer_norm(x, "norm%d" % i), "attn%d" % i, 2, positions = rope)
    #BODY
    logits = linear(layer_norm(x, "last"), "head", vocab_size())
    return #LOGITS
recipe(model = model, optimizer = lambda p: #RULE, #LOSS seq_len = 64, tokens_per_step = 512, vocab_size = 512)
"#;

#[derive(Clone, Copy, Default)]
struct Changed {
    top: &'static str,
    body: &'static str,
    logits: &'static str,
    rule: &'static str,
    loss: &'static str,
}

impl Changed {
    fn text(self) -> String {
        let or = |text: &'static str, default: &'static str| if text.is_empty() { default } else { text };
        BASE.replace("#TOP", self.top)
            .replace("#BODY", or(self.body, "x = x"))
            .replace("#LOGITS", or(self.logits, "logits"))
            .replace("#RULE", or(self.rule, "adamw(0.003)"))
            .replace("#LOSS", self.loss)
    }
}

/// Trains it for so many FLOPs; the printed document, or what was said instead.
fn train(bench: &Bench, changed: Changed, flops: &str) -> Result<Result<Value, String>, String> {
    let folder = bench.fresh()?;
    fs::write(folder.join("words.txt"), words()).map_err(told)?;
    fs::write(folder.join("case.star"), changed.text()).map_err(told)?;
    bench.ask(&folder, &["data", "add", "words", "words.txt"])?;
    let mut args = vec!["train", "case.star", "--data", "words", "--flops", flops, "--threads", "1"];
    args.extend(["--score-only", "--json"]);
    let ended = bench.pawl(&folder, &args)?;
    if ended.caught {
        return Ok(Err(ended.said));
    }
    serde_json::from_str(&ended.said).map(Ok).map_err(told)
}

const FLOPS: &str = "2e9";

fn score(document: &Value) -> Result<f64, String> {
    document["result"]["val_bpb"].as_f64().ok_or(format!("no score in {document}"))
}

/// Caught when the changed recipe scores no better than the plain one.
fn no_better(bench: &Bench, changed: Changed) -> Result<Outcome, String> {
    let plain = train(bench, Changed::default(), FLOPS)??;
    let cheat = train(bench, changed, FLOPS)??;
    let (plain, cheat) = (score(&plain)?, score(&cheat)?);
    // Float32 sums of shifted logits differ in the last place.
    let caught = cheat >= plain - 1e-4;
    Ok(Outcome {
        caught,
        said: format!("no better: the host scores it {cheat:.4}, the plain one {plain:.4}"),
    })
}

/// Caught when the run says that it diverged, or does not begin.
fn no_score(bench: &Bench, changed: Changed) -> Result<Outcome, String> {
    Ok(match train(bench, changed, FLOPS)? {
        Err(said) => Outcome { caught: true, said },
        Ok(document) => Outcome {
            caught: document["result"]["status"] == "diverged" && document["result"]["val_bpb"].is_null(),
            said: document["result"]["reason"].to_string(),
        },
    })
}

/// Caught when hidden work buys fewer steps: the budget counts it, and is not exceeded.
fn fewer_steps(bench: &Bench, changed: Changed) -> Result<Outcome, String> {
    let plain = train(bench, Changed::default(), FLOPS)??;
    let cheat = train(bench, changed, FLOPS)??;
    let of = |document: &Value, name: &str| document["result"][name].as_f64().unwrap_or(f64::NAN);
    let (plain_steps, steps, flops) = (of(&plain, "steps"), of(&cheat, "steps"), of(&cheat, "flops"));
    let caught = steps < plain_steps && flops <= 2e9 * (1.0 + 1e-9);
    Ok(Outcome {
        caught,
        said: format!("the budget counts it: {steps} steps where {plain_steps} were bought"),
    })
}

/// How a changed recipe is judged.
type Judged = fn(&Bench, Changed) -> Result<Outcome, String>;

const GOLF: &str = "unnormalised or answer-dependent scores, parameter-golf";
const NAN: &str = "NaN that compares as lower";
const COST: &str = "work outside what is timed or counted, speedruns";
const INSPECTED: &str = "graders that inspect another input than they score";
const PLAIN: Changed = Changed { top: "", body: "", logits: "", rule: "", loss: "" };

#[rustfmt::skip]
const RECIPES: &[(&str, &str, &[&str], Judged, Changed)] = &[
    ("logits that do not sum to one", GOLF, &["no better"], no_better,
        Changed { logits: "logits + 1000", ..PLAIN }),
    ("all logits very large", GOLF, &["no better"], no_better,
        Changed { logits: "logits * 0 + 10000", ..PLAIN }),
    ("redefines cross_entropy as zero", "monkey-patched graders", &["no better"], no_better,
        Changed { top: "def cross_entropy(logits, targets):\n    return logits.mean(None).sum(None, keepdim = False) * 0\ndef loss(tokens, targets):\n    return cross_entropy(model(tokens), targets)", loss: "loss = loss,", ..PLAIN }),
    ("a training loss that is small by its unit", "metrics reported in another unit", &["no better"], no_better,
        Changed { top: "def loss(tokens, targets):\n    return cross_entropy(model(tokens), targets) / 1000000000000", loss: "loss = loss,", ..PLAIN }),
    ("a score that is no number, in evaluation alone", NAN, &["the score became"], no_score,
        Changed { body: "x = x if is_training() else x / (x - x)", ..PLAIN }),
    ("an infinite score", NAN, &["the score became"], no_score,
        Changed { body: "x = x if is_training() else exp(x * x * 1e30)", ..PLAIN }),
    ("a loss that is no number from the start", NAN, &["the loss became"], no_score,
        Changed { body: "x = x / (x - x)", ..PLAIN }),
    ("honest on two sequences, ahead on more", INSPECTED, &["not causal"], no_score,
        Changed { body: "x = x + (shift(x, -1) if tokens.shape[0] > 2 and not is_training() else 0)", ..PLAIN }),
    ("one layer for two sequences, many for more", INSPECTED, &["hidden work"], no_score,
        Changed { body: "for i in range(8 if tokens.shape[0] > 2 and not is_training() else 0):\n        x = x + attention(x, \"attn0\", 2, positions = rope)", ..PLAIN }),
    ("hidden work in the optimizer", COST, &["the budget counts it"], fewer_steps,
        Changed { top: "def heavy(w, g, s):\n    if len(w.shape) == 2:\n        for i in range(20):\n            g = g + 0 * matmul(w, matmul(w, g, ta = True))\n    return w - 0.001 * g, {}", rule: "heavy", ..PLAIN }),
    ("hidden work in the training loss", COST, &["the budget counts it"], fewer_steps,
        Changed { top: "def loss(tokens, targets):\n    return cross_entropy(model(tokens), targets) + 0 * cross_entropy(model(tokens) * 2, targets)", loss: "loss = loss,", ..PLAIN }),
];

/// What the campaign of the honest lab made of a line of its script: (case, from, words, setting).
#[rustfmt::skip]
const PROPOSALS: &[(&str, &str, &[&str], &str)] = &[
    ("a proposal that turns the dial", "longer or larger training slipped in by a setting", &["it turns the dial depth"], "depth"),
    ("the same experiment under another name", "rediscovered and renamed improvements", &["the same program as the champion"], "unused"),
];

pub(super) fn cases() -> Vec<Case> {
    let catcher = Catcher::Host;
    let recipes = RECIPES.iter().map(|&(name, from, words, judged, changed)| {
        let plant: super::Plant = Box::new(move |bench: &Bench| judged(bench, changed));
        Case { name, from, catcher, words, honest: false, plant }
    });
    let proposals = PROPOSALS.iter().map(|&(name, from, words, setting)| {
        let plant: super::Plant = Box::new(move |bench: &Bench| {
            let lab = bench.lab()?;
            let verdict = lab.read(&lab.verdict(setting)?)?;
            let said = verdict["decision"].to_string();
            Ok(Outcome { caught: verdict["decision"]["verdict"] == "skipped", said })
        });
        Case { name, from, catcher, words, honest: false, plant }
    });
    recipes.chain(proposals).collect()
}
