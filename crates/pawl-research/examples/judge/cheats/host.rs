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

pub(super) fn cases() -> Vec<Case> {
    let d = Changed::default;
    let case = |name, from, words, plant: super::Plant| Case {
        name,
        from,
        catcher: Catcher::Host,
        words,
        honest: false,
        plant,
    };
    let no_better = |changed| -> super::Plant { Box::new(move |bench: &Bench| no_better(bench, changed)) };
    let no_score = |changed| -> super::Plant { Box::new(move |bench: &Bench| no_score(bench, changed)) };
    let fewer_steps =
        |changed| -> super::Plant { Box::new(move |bench: &Bench| fewer_steps(bench, changed)) };
    let golf = "unnormalised or answer-dependent scores, parameter-golf";
    let nan = "NaN that compares as lower";
    vec![
        case(
            "logits that do not sum to one",
            golf,
            &["no better"],
            no_better(Changed { logits: "logits + 1000", ..d() }),
        ),
        case(
            "all logits very large",
            golf,
            &["no better"],
            no_better(Changed { logits: "logits * 0 + 10000", ..d() }),
        ),
        case(
            "redefines cross_entropy as zero",
            "monkey-patched graders",
            &["no better"],
            no_better(Changed {
                top: "def cross_entropy(logits, targets):\n    return logits.mean(None).sum(None, keepdim = False) * 0\ndef loss(tokens, targets):\n    return cross_entropy(model(tokens), targets)",
                loss: "loss = loss,",
                ..d()
            }),
        ),
        case(
            "a training loss that is small by its unit",
            "metrics reported in another unit",
            &["no better"],
            no_better(Changed {
                top: "def loss(tokens, targets):\n    return cross_entropy(model(tokens), targets) / 1000000000000",
                loss: "loss = loss,",
                ..d()
            }),
        ),
        case(
            "a score that is no number, in evaluation alone",
            nan,
            &["the score became"],
            no_score(Changed { body: "x = x if is_training() else x / (x - x)", ..d() }),
        ),
        case(
            "an infinite score",
            nan,
            &["the score became"],
            no_score(Changed { body: "x = x if is_training() else exp(x * x * 1e30)", ..d() }),
        ),
        case(
            "a loss that is no number from the start",
            nan,
            &["the loss became"],
            no_score(Changed { body: "x = x / (x - x)", ..d() }),
        ),
        case(
            "honest on two sequences, ahead on more",
            "graders that inspect another input than they score",
            &["not causal"],
            no_score(Changed {
                body: "x = x + (shift(x, -1) if tokens.shape[0] > 2 and not is_training() else 0)",
                ..d()
            }),
        ),
        case(
            "one layer for two sequences, many for more",
            "graders that inspect another input than they score",
            &["hidden work"],
            no_score(Changed {
                body: "for i in range(8 if tokens.shape[0] > 2 and not is_training() else 0):\n        x = x + attention(x, \"attn0\", 2, positions = rope)",
                ..d()
            }),
        ),
        case(
            "hidden work in the optimizer",
            "work outside what is timed or counted, speedruns",
            &["the budget counts it"],
            fewer_steps(Changed {
                top: "def heavy(w, g, s):\n    if len(w.shape) == 2:\n        for i in range(20):\n            g = g + 0 * matmul(w, matmul(w, g, ta = True))\n    return w - 0.001 * g, {}",
                rule: "heavy",
                ..d()
            }),
        ),
        case(
            "hidden work in the training loss",
            "work outside what is timed or counted, speedruns",
            &["the budget counts it"],
            fewer_steps(Changed {
                top: "def loss(tokens, targets):\n    return cross_entropy(model(tokens), targets) + 0 * cross_entropy(model(tokens) * 2, targets)",
                loss: "loss = loss,",
                ..d()
            }),
        ),
        case(
            "a proposal that turns the dial",
            "longer or larger training slipped in by a setting",
            &["it turns the dial depth"],
            Box::new(|bench: &Bench| {
                let lab = bench.lab()?;
                let verdict = lab.read("campaign/verdicts/0005.json")?;
                let said = verdict["decision"].to_string();
                Ok(Outcome { caught: verdict["decision"]["verdict"] == "skipped", said })
            }),
        ),
        case(
            "the same experiment under another name",
            "rediscovered and renamed improvements",
            &["the same program as the champion"],
            Box::new(|bench: &Bench| {
                let lab = bench.lab()?;
                let verdict = lab.read("campaign/verdicts/0002.json")?;
                let said = verdict["decision"].to_string();
                Ok(Outcome { caught: verdict["decision"]["verdict"] == "skipped", said })
            }),
        ),
    ]
}
