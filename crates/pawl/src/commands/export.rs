//! `pawl export RUN PATH`: a run of the llama recipe in the formats of others.

use crate::args::{Export, Format};
use crate::commands::train::load_model;
use crate::errors::Failure;
use crate::lab::{from_data, from_ledger, ledger};
use crate::output::{Answer, Block};
use pawl_model::{GgufType, LlamaShape, write_gguf, write_hugging_face};
use pawl_record::RunManifest;
use pawl_train::{RunDir, gguf_tokens, run_tokenizer};
use serde_json::json;

pub(crate) fn run(args: Export) -> Result<Answer, Failure> {
    let lab = &args.place.lab;
    let manifest = ledger(lab)?.run(&args.run).map_err(from_ledger)?.manifest;
    let shape = shape(&manifest)?;
    let model = load_model(lab, &manifest, None, args.place.json)?;
    let tokenizer = run_tokenizer(lab, &manifest, shape.vocab_size, &|_| {}).map_err(from_data)?;
    let tokenizer = match RunDir::lesson(lab, &manifest.id)? {
        Some(_) => tokenizer.with_chat(),
        None => tokenizer,
    };
    let name = format!("pawl {}", manifest.id);
    match args.format {
        Format::Hf => {
            let roles = tokenizer.roles();
            write_hugging_face(&args.path, &model, &shape, roles.bos, &roles.ends)?;
            tokenizer.save_folder(&args.path).map_err(from_data)?;
        }
        Format::Gguf => {
            write_gguf(&args.path, &model, &shape, &gguf_tokens(&tokenizer), &name, GgufType::F32)?
        }
        Format::GgufF16 => {
            write_gguf(&args.path, &model, &shape, &gguf_tokens(&tokenizer), &name, GgufType::F16)?;
        }
    }
    let mut block = Block::default();
    block.line("run", &manifest.id).line("written", args.path.display());
    Ok(Answer::new(block.text().to_string(), json!({ "run": manifest.id, "path": args.path })))
}

fn shape(manifest: &RunManifest) -> Result<LlamaShape, Failure> {
    let is_llama = manifest.recipe.trim_end_matches(".star") == pawl_model::LLAMA;
    LlamaShape::of(&manifest.settings).filter(|_| is_llama).ok_or_else(|| {
        Failure::misuse(format!("run {} cannot be exported", manifest.id))
            .because(format!(
                "it is a run of {}, and other programs compute nothing but the llama recipe",
                manifest.recipe
            ))
            .hint("pawl train llama")
    })
}
