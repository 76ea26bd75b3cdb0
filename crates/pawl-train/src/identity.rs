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

/// The manifest of the run, its id being a hash of what determines its bits.
pub fn identify(
    recipe: &Recipe,
    fingerprint: String,
    flops_per_step: f64,
    data: DataRef,
    request: &RunRequest,
) -> RunManifest {
    let tokens_per_step = recipe.tokens_per_step() as u64;
    let num_steps = request.budget.num_steps(flops_per_step, tokens_per_step);
    let settings: Settings = recipe.settings().into_iter().map(|s| (s.name, s.value)).collect();
    let depth = settings.get("depth").and_then(pawl_record::SettingValue::as_f64).unwrap_or(0.0) as u64;
    let mut texts = blake3::Hasher::new();
    for (name, text) in recipe.texts() {
        texts.update(name.as_bytes()).update(&[0]).update(text.as_bytes()).update(&[0]);
    }
    let mut manifest = RunManifest {
        schema: SCHEMA,
        id: String::new(),
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
        version: env!("CARGO_PKG_VERSION").to_string(),
        created_unix_s: request.created_unix_s,
        machine: request.machine.clone(),
    };
    manifest.id = manifest.content_id();
    manifest
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
