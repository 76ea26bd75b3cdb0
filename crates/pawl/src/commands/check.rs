//! `pawl check FILE`: what a recipe is, before a step is run: shapes, parameters, price, memory,
//! fingerprint, and what can be turned.

use crate::args::Check;
use crate::errors::Failure;
use crate::output::{Align, Answer, Block, Table, bytes, count, flops};
use crate::recipes::{RecipeText, from_recipe, load};
use pawl_recipe::{ParamSummary, Setting, SettingKind};
use serde_json::{Value, json};

pub(crate) fn run(args: Check) -> Result<Answer, Failure> {
    let (RecipeText { name, .. }, recipe) = load(&args.file, &args.turned)?;
    let summary = recipe.summary().map_err(|error| from_recipe(&name, error))?;
    let mut block = Block::default();
    block
        .line("recipe", &name)
        .line("fingerprint", &summary.fingerprint)
        .line("num_params", count(summary.num_params as f64))
        .line("flops_per_token", flops(summary.flops_per_token))
        .line("flops_per_step", flops(summary.flops_per_step))
        .line("memory", format!("about {}", bytes(summary.memory_bytes)))
        .line("vocab_size", summary.vocab_size)
        .line("seq_len", summary.seq_len)
        .line("tokens_per_step", summary.tokens_per_step)
        .line("micro_batch", summary.micro_batch);
    for (domain, weight) in &summary.mixture {
        block.line(&format!("mixture {domain}"), weight);
    }
    block.line("causal", "yes");
    let text =
        format!("{}\n{}\n{}", params_table(&summary.params), settings_table(&summary.settings), block.text());
    let json = json!({
        "recipe": name,
        "fingerprint": summary.fingerprint,
        "num_params": summary.num_params,
        "flops_per_token": summary.flops_per_token,
        "flops_per_step": summary.flops_per_step,
        "memory_bytes": summary.memory_bytes,
        "vocab_size": summary.vocab_size,
        "seq_len": summary.seq_len,
        "tokens_per_step": summary.tokens_per_step,
        "micro_batch": summary.micro_batch,
        "mixture": summary.mixture,
        "params": summary.params.iter().map(param_json).collect::<Vec<_>>(),
        "settings": summary.settings.iter().map(setting_json).collect::<Vec<_>>(),
    });
    Ok(Answer::new(text, json))
}

/// One line a kind of parameter: blocks that repeat are shown once, with how many there are.
fn params_table(params: &[ParamSummary]) -> String {
    let mut table = Table::new(&[
        ("parameter", Align::Left),
        ("shape", Align::Left),
        ("each", Align::Right),
        ("times", Align::Right),
        ("starts as", Align::Left),
    ]);
    let mut kinds: Vec<(String, &ParamSummary, usize)> = Vec::new();
    for param in params {
        let name = without_numbers(&param.name);
        match kinds.iter_mut().find(|(known, first, _)| *known == name && first.shape == param.shape) {
            Some((_, _, times)) => *times += 1,
            None => kinds.push((name, param, 1)),
        }
    }
    for (name, param, times) in kinds {
        let name = if times == 1 { param.name.clone() } else { name };
        let extents: Vec<String> = param.shape.iter().map(usize::to_string).collect();
        table.row(vec![
            name,
            format!("({})", extents.join(", ")),
            count(param.len as f64),
            times.to_string(),
            param.init.clone(),
        ]);
    }
    table.text()
}

/// `blocks.3.attn.q` is `blocks.*.attn.q`.
fn without_numbers(name: &str) -> String {
    let part = |part: &str| match part.parse::<u64>() {
        Ok(_) => "*".to_string(),
        Err(_) => part.to_string(),
    };
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

fn settings_table(settings: &[Setting]) -> String {
    let mut table = Table::new(&[
        ("setting", Align::Left),
        ("value", Align::Right),
        ("default", Align::Right),
        ("may be", Align::Left),
    ]);
    for setting in settings {
        let default =
            if setting.default == setting.value { String::new() } else { setting.default.to_string() };
        table.row(vec![setting.name.clone(), setting.value.to_string(), default, range(&setting.kind)]);
    }
    table.text()
}

fn range(kind: &SettingKind) -> String {
    match kind {
        SettingKind::Dial => "a whole number above 0".to_string(),
        SettingKind::Knob { low, high, log: true } => format!("{low:?} to {high:?}, by its logarithm"),
        SettingKind::Knob { low, high, log: false } => format!("{low:?} to {high:?}"),
        SettingKind::Choice { options } => {
            options.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
        }
    }
}

fn param_json(param: &ParamSummary) -> Value {
    json!({ "name": param.name, "shape": param.shape, "init": param.init })
}

fn setting_json(setting: &Setting) -> Value {
    let mut json = json!({
        "name": setting.name,
        "default": setting.default,
        "value": setting.value,
        "doc": setting.doc,
    });
    match &setting.kind {
        SettingKind::Dial => json["kind"] = "dial".into(),
        SettingKind::Knob { low, high, log } => {
            json["kind"] = "knob".into();
            json["low"] = (*low).into();
            json["high"] = (*high).into();
            json["log"] = (*log).into();
        }
        SettingKind::Choice { options } => {
            json["kind"] = "choice".into();
            json["options"] = json!(options);
        }
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_one_kind() {
        assert_eq!(without_numbers("blocks.12.attn.q"), "blocks.*.attn.q");
        assert_eq!(without_numbers("wte"), "wte");
        assert_eq!(without_numbers("h2.0"), "h2.*");
    }
}
