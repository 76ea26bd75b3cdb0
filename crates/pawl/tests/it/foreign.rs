//! A run leaves in the formats of others and comes back the same; and it answers tasks.

use crate::process::{Ended, pawl_in};
use crate::train::lab;
use std::path::Path;

fn ask(folder: &Path, args: &[&str]) -> Ended {
    let ended = pawl_in(folder, args);
    assert_eq!(ended.code, 0, "{args:?}: {}", ended.stderr);
    ended
}

fn sampled(folder: &Path, run: &str) -> serde_json::Value {
    let args = ["sample", run, "--prompt", "7 times", "--tokens", "30", "--temperature", "0", "--json"];
    ask(folder, &args).json()["tokens"].clone()
}

/// An import is taught as any other run is, twice, and keeps the tokenizer that it came with.
fn taught(folder: &Path, imported: &str) {
    let sft = |run: &str, steps: &str| {
        let mut args =
            vec!["sft", run, "--data", "env:sum", "--count", "60", "--steps", steps, "--rows", "2"];
        args.extend(["--threads", "1", "--json"]);
        ask(folder, &args).json()
    };
    let lesson = sft(imported, "3");
    let id = lesson["run"]["id"].as_str().unwrap();
    assert_eq!(lesson["lesson"]["parent"], imported);
    assert!(lesson["outcome"]["held_out_loss"].as_f64().is_some_and(f64::is_finite), "{lesson}");
    let file = |run: &str| std::fs::read(folder.join("lab/runs").join(run).join("tokenizer.json")).unwrap();
    assert_eq!(file(id), file(imported));
    let again = sft(id, "1");
    assert_eq!(again["lesson"]["parent"], id);
    let mut rl =
        vec!["rl", id, "--env", "sum", "--steps", "0", "--eval-problems", "4", "--threads", "1", "--json"];
    rl.extend(["--eval-samples", "2", "--max-tokens", "6"]);
    assert_eq!(ask(folder, &rl).json()["score"]["problems"], 4);
    assert_eq!(sampled(folder, id).as_array().unwrap().len(), 30);
}

#[test]
fn a_checkpoint_that_does_not_fit_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let config = serde_json::json!({"model_type": "llama", "hidden_size": 1 << 20, "num_attention_heads": 1 << 14,
        "num_hidden_layers": 4000, "intermediate_size": 1 << 20, "vocab_size": 1 << 21,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true});
    std::fs::create_dir(path.join("hf")).unwrap();
    std::fs::write(path.join("hf/config.json"), config.to_string()).unwrap();
    // A file of tensors with none in it, which is eight bytes of length and two of JSON.
    std::fs::write(path.join("hf/model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
    let refused = pawl_in(path, &["import", "hf"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("it has no tensor model.embed_tokens.weight"), "{}", refused.stderr);
    assert!(!path.join("lab").exists());
}

#[test]
fn an_exported_run_is_imported_as_it_was() {
    let lab = lab();
    let folder = lab.path();
    let sizes = ["vocab_size=300", "seq_len=64", "tokens_per_step=256", "width=32", "head_dim=8"];
    let mut args = vec!["train", "llama", "--depth", "2", "--steps", "20", "--data", "words", "--json"];
    sizes.iter().for_each(|size| args.extend(["--set", size]));
    let run = ask(folder, &args).json()["run"]["id"].as_str().unwrap().to_string();
    let expected = sampled(folder, &run);
    assert_eq!(expected.as_array().unwrap().len(), 30);
    for (format, path) in [("hf", "out"), ("gguf", "out.gguf")] {
        ask(folder, &["export", &run, path, "--format", format]);
        let imported =
            ask(folder, &["import", path, "--json"]).json()["run"]["id"].as_str().unwrap().to_string();
        assert_ne!(imported, run);
        // Prompts of another splitter may give other tokens; this one has no long number in it.
        assert_eq!(sampled(folder, &imported), expected, "{format}");
        assert_eq!(ask(folder, &["import", path, "--json"]).json()["run"]["id"], imported.as_str(), "again");
        taught(folder, &imported);
    }
    let tiny = [
        "train",
        "tiny",
        "--depth",
        "1",
        "--steps",
        "2",
        "--data",
        "words",
        "--json",
        "--set",
        "seq_len=128",
    ];
    let tiny = ask(folder, &tiny).json()["run"]["id"].as_str().unwrap().to_string();
    let refused = pawl_in(folder, &["export", &tiny, "no"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("hint: pawl train llama"), "{}", refused.stderr);
    let missing = pawl_in(folder, &["import", "nothing.gguf"]);
    assert!(missing.code == 1 && missing.stderr.contains("nothing.gguf"), "{}", missing.stderr);
    let wrong = pawl_in(folder, &["import", "words.txt"]);
    assert!(wrong.code == 1 && wrong.stderr.contains("not a GGUF file"), "{}", wrong.stderr);

    std::fs::create_dir(folder.join("core")).unwrap();
    let item = "{\"query\":\"7 times 3 is\",\"choices\":[\"21\",\"cat\"],\"gold\":0}\n";
    std::fs::write(folder.join("core/copa.jsonl"), item.repeat(4)).unwrap();
    let eval = ["eval", &run, "--tasks", "copa", "--data-dir", ".", "--json"];
    let score = ask(folder, &eval).json();
    assert_eq!(score["tasks"][0]["score"]["items"], 4);
    assert_eq!(score["core"]["tasks"], 1);
    assert_eq!(pawl_in(folder, &["eval", &run, "--tasks", "what", "--data-dir", "."]).code, 2);
    let missing = pawl_in(folder, &["eval", &run, "--tasks", "blimp", "--data-dir", "."]);
    assert!(missing.code == 1 && missing.stderr.contains("blimp"), "{}", missing.stderr);
}
