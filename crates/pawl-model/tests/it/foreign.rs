//! Checkpoints of the Llama family, read and written.

use pawl_model::{
    Foreign, ForeignError, GgufTokens, GgufType, LLAMA, LlamaShape, Model, Scorer, write_gguf,
    write_hugging_face,
};
use pawl_recipe::{Overrides, Recipe, Source, shipped, std_only};
use safetensors::tensor::{Dtype, TensorView};
use std::path::Path;

fn shape(tied_head: bool) -> LlamaShape {
    LlamaShape {
        depth: 2,
        width: 8,
        num_heads: 2,
        num_kv_heads: 1,
        head_dim: 4,
        hidden: 12,
        vocab_size: 11,
        seq_len: 16,
        rope_base: 100.0,
        norm_eps: 1e-5,
        tied_head,
    }
}

fn frozen(shape: &LlamaShape) -> Model {
    let source = Source { name: LLAMA.into(), text: shipped(LLAMA).unwrap().into() };
    let overrides = Overrides { depth: Some(shape.depth as u64), values: shape.settings() };
    Model::frozen(Recipe::load(&source, &overrides, &std_only).unwrap(), 1).unwrap()
}

fn logits(model: &Model, tokens: &[i32]) -> Vec<f32> {
    let mut scorer = Scorer::logits(model, 1, tokens.len()).unwrap();
    scorer.refresh(model);
    scorer.tokens_mut().copy_from_slice(tokens);
    let all = scorer.run(model);
    all[all.len() - model.recipe().vocab_size()..].to_vec()
}

/// A folder in the layout of Hugging Face whose n-th tensor by name holds 0.5 sin(0.7 i + n), norms plus 1.
fn write_waves(folder: &Path, shape: &LlamaShape) {
    let mut tensors: Vec<(String, Vec<usize>)> =
        shape.tensors().into_iter().map(|t| (t.hugging_face, t.shape)).collect();
    tensors.sort();
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .enumerate()
        .map(|(n, (name, shape))| {
            let one = if name.contains("norm") { 1.0 } else { 0.0 };
            let value = |i: usize| ((i as f64 * 0.7 + n as f64).sin() * 0.5 + one) as f32;
            (0..shape.iter().product()).flat_map(|i| value(i).to_le_bytes()).collect()
        })
        .collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape), bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    std::fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    // The text of a configuration as it is written by the model itself: only the numbers are of interest.
    write_hugging_face(&folder.join("other"), &frozen(shape), shape, 0, &[1]).unwrap();
    std::fs::rename(folder.join("other/config.json"), folder.join("config.json")).unwrap();
}

/// Logits after 3 1 4 1 5 9 by transformers 5.24 with the weights of [`write_waves`].
const TIED: [f32; 11] =
    [-1.0607, -0.57799, 0.16416, 0.83263, 1.12735, 0.91604, 0.29355, -0.4607, -1.00817, -1.10309, -0.70288];
const UNTIED: [f32; 11] =
    [-1.72393, -1.94232, -1.28886, -0.05687, 1.20064, 1.91923, 1.77633, 0.8361, -0.47944, -1.57977, -1.97099];

#[test]
fn imported_weights_give_the_logits_of_transformers() {
    for (tied, expected) in [(true, TIED), (false, UNTIED)] {
        let folder = tempfile::tempdir().unwrap();
        write_waves(folder.path(), &shape(tied));
        let foreign = Foreign::open(folder.path()).unwrap();
        assert_eq!(*foreign.shape(), shape(tied));
        let mut model = frozen(foreign.shape());
        foreign.fill(&mut model).unwrap();
        for (got, expected) in logits(&model, &[3, 1, 4, 1, 5, 9]).iter().zip(expected) {
            // Five digits are given; worst seen 1.1e-5.
            assert!((got - expected).abs() < 3e-5, "{got} for {expected}, tied {tied}");
        }
    }
}

fn tokens(vocab_size: usize) -> GgufTokens {
    GgufTokens {
        tokens: (0..vocab_size).map(|id| format!("t{id}")).collect(),
        special: (0..vocab_size).map(|id| id == 2).collect(),
        merges: vec!["a b".into()],
        splitter: "gpt-2".into(),
        bos: Some(2),
        eos: Some(2),
        adds_bos: true,
        chat_template: Some("{{ x }}".into()),
    }
}

#[test]
fn what_is_written_reads_back_the_same() {
    for tied in [true, false] {
        let (folder, shape) = (tempfile::tempdir().unwrap(), shape(tied));
        let mut model = frozen(&shape);
        model.draw(5);
        let path = folder.path().join("model.gguf");
        write_gguf(&path, &model, &shape, &tokens(11), "a name", GgufType::F32).unwrap();
        write_hugging_face(folder.path(), &model, &shape, 2, &[2]).unwrap();
        let gguf = pawl_model::Gguf::open(&path).unwrap();
        assert_eq!(gguf.tokens().unwrap(), tokens(11));
        for from in [path.as_path(), folder.path()] {
            let foreign = Foreign::open(from).unwrap();
            assert_eq!(*foreign.shape(), shape, "{}", from.display());
            let mut read = frozen(&shape);
            foreign.fill(&mut read).unwrap();
            for (name, buffer) in model.tensors() {
                assert_eq!(read.param(name).unwrap(), buffer.floats(), "{name} of {}", from.display());
            }
        }
        write_gguf(&path, &model, &shape, &tokens(11), "a name", GgufType::F16).unwrap();
        let mut read = frozen(&shape);
        Foreign::open(&path).unwrap().fill(&mut read).unwrap();
        let (exact, half) = (model.param("embed.weight").unwrap(), read.param("embed.weight").unwrap());
        assert!(exact.iter().zip(half).all(|(a, b)| (a - b).abs() <= a.abs() / 2048.0) && exact != half);
    }
}

/// The header of a file with one value, a list of `count` items of a kind whose bytes follow.
fn header_with_list(key: &str, kind: u32, count: u64, bytes: &[u8]) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.extend(1u64.to_le_bytes());
    file.extend((key.len() as u64).to_le_bytes());
    file.extend(key.as_bytes());
    file.extend([9u32.to_le_bytes(), kind.to_le_bytes()].concat());
    file.extend(count.to_le_bytes());
    file.extend(bytes);
    file
}

#[test]
fn lists_of_a_hostile_header_take_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let refused = |file: Vec<u8>| {
        std::fs::write(&path, file).unwrap();
        match Foreign::open(&path) {
            Err(ForeignError::Unfit { because, .. }) => because,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it opens"),
        }
    };
    let zeros = vec![0; 1 << 22];
    // What nothing reads is walked over, so that the refusal is of what comes after it.
    for (kind, each) in [(0, 1), (3, 2), (6, 4), (12, 8)] {
        let fine = header_with_list("numbers", kind, zeros.len() as u64 / each, &zeros);
        assert_eq!(refused(fine), "it names no architecture");
    }
    assert_eq!(refused(header_with_list("empty texts", 8, 1 << 19, &zeros)), "it names no architecture");
    for (key, kind, count) in [
        ("numbers", 0, u64::MAX),
        ("numbers", 12, u64::MAX / 4),
        ("texts", 8, u64::MAX),
        ("lists", 9, 1),
        ("kind", 77, 1),
        ("tokenizer.ggml.tokens", 8, 1 << 40),
        ("tokenizer.ggml.merges", 8, 1 << 19 | 1),
        ("tokenizer.ggml.token_type", 0, 1 << 40),
        ("tokenizer.ggml.tokens", 0, 1),
    ] {
        let because = refused(header_with_list(key, kind, count, &zeros));
        assert_ne!(because, "it names no architecture", "{key} {kind} {count}");
    }
    let types = refused(header_with_list("tokenizer.ggml.token_type", 5, 1, &300i32.to_le_bytes()));
    assert!(types.contains("a type of a token"), "{types}");
}

#[test]
fn damaged_and_foreign_files_are_refused_wherever_they_break() {
    let (folder, shape) = (tempfile::tempdir().unwrap(), shape(false));
    let path = folder.path().join("model.gguf");
    write_gguf(&path, &frozen(&shape), &shape, &tokens(11), "a name", GgufType::F32).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for cut in (0..whole.len()).step_by(23) {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let opened = Foreign::open(&path);
        assert!(matches!(opened, Err(ForeignError::Unfit { .. })), "cut at {cut}");
    }
    // Any byte of the header may lie: an error or another model, never a panic.
    let mut read = frozen(&shape);
    for at in 0..whole.len().min(4000) {
        let mut changed = whole.clone();
        changed[at] ^= 0xff;
        std::fs::write(&path, &changed).unwrap();
        if let Ok(foreign) = Foreign::open(&path)
            && *foreign.shape() == shape
        {
            let _ = foreign.fill(&mut read);
        }
    }
    write_hugging_face(folder.path(), &frozen(&shape), &shape, 2, &[2]).unwrap();
    let config = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    for (from, to) in [
        ("\"llama\"", "\"gemma\""),
        ("\"attention_bias\": false", "\"attention_bias\": true"),
        ("\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"yarn\"}"),
        ("\"num_key_value_heads\": 1", "\"num_key_value_heads\": 0"),
        ("\"hidden_size\": 8", "\"hidden_size\": 99999999999"),
    ] {
        assert!(config.contains(from), "{from}");
        std::fs::write(folder.path().join("config.json"), config.replace(from, to)).unwrap();
        assert!(Foreign::open(folder.path()).is_err(), "{to}");
    }
}
