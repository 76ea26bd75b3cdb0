//! What makes two runs the same run: everything that determines their bits and nothing else.

use pawl_model::Model;
use pawl_recipe::Recipe;
use pawl_record::{Budget, DataRef, Precision, RunManifest, SCHEMA, Settings};

/// What is asked of a run, beside its recipe and data.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// The limit.
    pub budget: Budget,
    /// Keys the order of the data.
    pub seed: u64,
    /// Keys initialisation and dropout.
    pub init_seed: u64,
    /// Score the sealed split at the end.
    pub seal: bool,
    /// Number format of the products.
    pub precision: Precision,
    /// Processor and instruction set, for the record.
    pub machine: String,
    /// Seconds since 1970, for the record.
    pub created_unix_s: u64,
}

/// Steps that a budget allows: as many whole updates as fit, at least one.
fn num_steps(budget: Budget, flops_per_step: f64, tokens_per_step: u64) -> u64 {
    match budget {
        Budget::Flops(flops) => ((flops / flops_per_step) as u64).max(1),
        Budget::Tokens(tokens) => (tokens / tokens_per_step).max(1),
        Budget::Steps(steps) => steps.max(1),
    }
}

/// The manifest of the run, its id being a hash of what determines its bits.
pub fn identify(
    recipe: &Recipe,
    fingerprint: String,
    flops_per_step: f64,
    data: DataRef,
    request: &RunRequest,
) -> RunManifest {
    let tokens_per_step = recipe.tokens_per_step() as u64;
    let num_steps = num_steps(request.budget, flops_per_step, tokens_per_step);
    let settings: Settings = recipe.settings().into_iter().map(|s| (s.name, s.value)).collect();
    let depth = settings.get("depth").and_then(pawl_record::SettingValue::as_f64).unwrap_or(0.0) as u64;
    let mut texts = blake3::Hasher::new();
    for (name, text) in recipe.texts() {
        texts.update(name.as_bytes()).update(&[0]).update(text.as_bytes()).update(&[0]);
    }
    let mut id = blake3::Hasher::new();
    let version = env!("CARGO_PKG_VERSION");
    for part in [version, &fingerprint, &data.hash] {
        id.update(part.as_bytes()).update(&[0]);
    }
    for number in [num_steps, request.seed, request.init_seed, u64::from(request.seal)] {
        id.update(&number.to_le_bytes());
    }
    if request.precision != Precision::F32 {
        id.update(request.precision.name().as_bytes());
    }
    RunManifest {
        schema: SCHEMA,
        id: id.finalize().to_hex()[..12].to_string(),
        recipe: recipe.name().to_string(),
        recipe_hash: texts.finalize().to_hex().to_string(),
        fingerprint,
        settings,
        depth,
        seed: request.seed,
        init_seed: request.init_seed,
        data,
        budget: request.budget,
        num_steps,
        tokens_per_step,
        seq_len: recipe.seq_len() as u64,
        num_params: recipe.params().iter().map(|p| p.shape.iter().product::<usize>() as u64).sum(),
        flops_per_step,
        seal: request.seal,
        precision: request.precision,
        version: version.to_string(),
        created_unix_s: request.created_unix_s,
        machine: request.machine.clone(),
    }
}

/// The model must cost what its recipe said, up to the few operations that average micro-batches.
pub(crate) fn check_price(model: &Model, manifest: &RunManifest) {
    let (built, said) = (model.flops_per_step(), manifest.flops_per_step);
    let averaging = 16.0 * model.num_micro() as f64;
    assert!(
        (built - said).abs() <= averaging + 1e-9 * said,
        "the model costs {built} FLOPs a step, its manifest says {said}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_exceeded_by_more_than_one_step() {
        assert_eq!(num_steps(Budget::Flops(1e9), 3e8, 64), 3);
        assert_eq!(num_steps(Budget::Flops(1e8), 3e8, 64), 1);
        assert_eq!(num_steps(Budget::Tokens(1000), 3e8, 64), 15);
        assert_eq!(num_steps(Budget::Steps(7), 3e8, 64), 7);
    }
}
