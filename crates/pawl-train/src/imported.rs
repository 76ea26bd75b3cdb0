//! A checkpoint from elsewhere becomes a run of the lab: a run directory like any other, whose one checkpoint was
//! not trained here, and whose tokenizer lies beside it.

use crate::identity::{RunRequest, identify};
use crate::pretrain::TrainError;
use crate::run_dir::RunDir;
use pawl_data::{DataError, OnProgress, Tokenizer, Vocabulary};
use pawl_model::{Foreign, GgufTokens, LLAMA, LlamaShape, Model, save_checkpoint};
use pawl_recipe::{Overrides, Recipe, Source, shipped, std_only};
use pawl_record::{CheckpointManifest, DataRef, RunManifest, SCHEMA};
use std::path::Path;

/// What stands for a data set in the manifest of an imported run.
pub const IMPORTED: &str = "imported";

/// Reads a GGUF file or a folder in the layout of Hugging Face into the lab, and returns the run's manifest. The
/// run's sequences are `seq_len` long at most. The same file is the same run.
pub fn import(
    lab: &Path,
    path: &Path,
    seq_len: usize,
    num_threads: usize,
    request: &RunRequest,
) -> Result<RunManifest, TrainError> {
    let foreign = Foreign::open(path)?;
    // Sizes are only believed, and memory only taken for them, when the tensors have them.
    foreign.check()?;
    let longest = foreign.shape().seq_len;
    let shape = LlamaShape { seq_len: longest.min(seq_len), ..foreign.shape().clone() };
    let tokenizer = tokenizer_of(&foreign, path)?;
    let refused = |because: String| TrainError::Tokenizer { path: path.to_path_buf(), because };
    if tokenizer.vocab_size() > shape.vocab_size {
        let (has, rows) = (tokenizer.vocab_size(), shape.vocab_size);
        return Err(refused(format!("it has {has} tokens for {rows} rows of the table")));
    }
    let tokenizer = tokenizer.padded(shape.vocab_size);
    let text = shipped(LLAMA).expect("the recipe is shipped").to_string();
    let source = Source { name: LLAMA.to_string(), text };
    let overrides = Overrides { depth: Some(shape.depth as u64), values: shape.settings() };
    let recipe = Recipe::load(&source, &overrides, &std_only)?;
    let summary = recipe.summary()?;
    let data = DataRef { name: IMPORTED.to_string(), hash: foreign.hash() };
    let manifest = identify(&recipe, summary.fingerprint, summary.flops_per_step, data, request);
    let mut model = Model::frozen(recipe, num_threads)?;
    foreign.fill(&mut model)?;
    let folder = RunDir::path(lab, &manifest.id);
    let is_new = !folder.exists();
    let written = write(lab, &manifest, &tokenizer, &model);
    let is_busy = matches!(written, Err(TrainError::Busy { .. }));
    if written.is_err() && is_new && !is_busy {
        // What cannot be removed either is found, and written anew, by the next import.
        let _ = std::fs::remove_dir_all(&folder);
    }
    written.map(|()| manifest)
}

fn write(lab: &Path, manifest: &RunManifest, tokenizer: &Tokenizer, model: &Model) -> Result<(), TrainError> {
    let dir = RunDir::open(lab, manifest, model.recipe(), None)?;
    tokenizer.save_folder(&RunDir::path(lab, &manifest.id))?;
    save_checkpoint(&dir.checkpoint("last"), model, untrained(manifest))?;
    Ok(())
}

fn untrained(manifest: &RunManifest) -> CheckpointManifest {
    CheckpointManifest {
        schema: SCHEMA,
        run: manifest.id.clone(),
        step: 0,
        position: 0,
        hash: String::new(),
        tensors: Vec::new(),
        best_val_bpb: None,
        train_seconds: 0.0,
        curve: Vec::new(),
        pending_loss: (0.0, 0),
        vitals: Default::default(),
    }
}

fn tokenizer_of(foreign: &Foreign, path: &Path) -> Result<Tokenizer, TrainError> {
    match foreign {
        Foreign::HuggingFace(folder) => Ok(Tokenizer::load_folder(folder.folder())?),
        Foreign::Gguf(file) => {
            let refused = |because: String| TrainError::Tokenizer { path: path.to_path_buf(), because };
            Tokenizer::from_vocabulary(vocabulary(file.tokens()?).map_err(refused)?).map_err(refused)
        }
    }
}

fn vocabulary(file: GgufTokens) -> Result<Vocabulary, String> {
    let merge = |merge: &String| match merge.split_once(' ') {
        Some((left, right)) => Ok((left.to_string(), right.to_string())),
        None => Err(format!("merge {merge:?} is no pair")),
    };
    Ok(Vocabulary {
        merges: file.merges.iter().map(merge).collect::<Result<_, _>>()?,
        tokens: file.tokens,
        special: file.special,
        splitter: file.splitter,
        bos: file.bos,
        eos: file.eos,
        adds_bos: file.adds_bos,
        chat_template: file.chat_template,
    })
}

/// The vocabulary of a tokenizer as GGUF files state it.
pub fn gguf_tokens(tokenizer: &Tokenizer) -> GgufTokens {
    let vocabulary = tokenizer.vocabulary();
    GgufTokens {
        merges: vocabulary.merges.iter().map(|(left, right)| format!("{left} {right}")).collect(),
        tokens: vocabulary.tokens,
        special: vocabulary.special,
        splitter: vocabulary.splitter,
        bos: vocabulary.bos,
        eos: vocabulary.eos,
        adds_bos: vocabulary.adds_bos,
        chat_template: vocabulary.chat_template,
    }
}

/// The tokenizer of a run: its own where one lies beside it, else that of its data set and vocabulary.
pub fn run_tokenizer(
    lab: &Path,
    manifest: &RunManifest,
    vocab_size: usize,
    progress: OnProgress<'_>,
) -> Result<Tokenizer, DataError> {
    let folder = RunDir::path(lab, &manifest.id);
    if folder.join("tokenizer.json").exists() {
        return Tokenizer::load_folder(&folder);
    }
    pawl_data::tokenizer(&lab.join("data").join(&manifest.data.name), vocab_size, progress)
}
