//! Folders in the layout of Hugging Face: `config.json` and safetensors, one file or several with an index.

use super::ForeignError;
use super::quants::Format;
use crate::llama::{HeadOrder, LlamaShape, rows_to};
use crate::model::Model;
use pawl_record::{read_json, write_json};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An opened folder.
pub struct HuggingFace {
    folder: PathBuf,
    /// Bytes of each file of tensors, by name.
    files: BTreeMap<String, Vec<u8>>,
    shape: LlamaShape,
}

const TENSORS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl HuggingFace {
    /// Reads `config.json` and all tensor files.
    pub fn open(folder: &Path) -> Result<HuggingFace, ForeignError> {
        let path = folder.join("config.json");
        let config: Value = read_json(&path)?;
        let shape = shape(&config).map_err(ForeignError::unfit(&path))?;
        let index = folder.join(INDEX);
        let mut names = vec![TENSORS.to_string()];
        if index.exists() {
            let index: Value = read_json(&index)?;
            let listed = index["weight_map"].as_object().into_iter().flatten();
            names = listed.filter_map(|(_, file)| file.as_str().map(str::to_string)).collect();
        }
        let mut files = BTreeMap::new();
        for name in names {
            // A name, not a path: an index may not reach outside its folder.
            if Path::new(&name).components().count() != 1 || files.contains_key(&name) {
                continue;
            }
            let path = folder.join(&name);
            files.insert(name, std::fs::read(&path).map_err(ForeignError::io("read", &path))?);
        }
        Ok(HuggingFace { folder: folder.to_path_buf(), files, shape })
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn shape(&self) -> &LlamaShape {
        &self.shape
    }

    pub(super) fn hash(&self) -> String {
        let mut all = blake3::Hasher::new();
        for (name, bytes) in &self.files {
            all.update(name.as_bytes()).update(blake3::hash(bytes).as_bytes());
        }
        all.finalize().to_hex().to_string()
    }

    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ForeignError> {
        self.with(name, shape, |format, bytes| format.decode(bytes))
    }

    /// Whether it has a tensor of `shape`.
    pub(super) fn check(&self, name: &str, shape: &[usize]) -> Result<(), ForeignError> {
        self.with(name, shape, |_, _| ())
    }

    fn with<T>(
        &self,
        name: &str,
        shape: &[usize],
        read: impl FnOnce(Format, &[u8]) -> T,
    ) -> Result<T, ForeignError> {
        for (file, bytes) in &self.files {
            let path = self.folder.join(file);
            let unfit = ForeignError::unfit(&path);
            let tensors = SafeTensors::deserialize(bytes).map_err(|error| unfit(error.to_string()))?;
            let Ok(view) = tensors.tensor(name) else { continue };
            if view.shape() != shape {
                return Err(unfit(format!("{name} has extents {:?}, not {shape:?}", view.shape())));
            }
            let known = [(Dtype::F32, Format::F32), (Dtype::F16, Format::F16), (Dtype::BF16, Format::Bf16)];
            let Some((_, format)) = known.iter().find(|(dtype, _)| *dtype == view.dtype()) else {
                return Err(unfit(format!("{name} is stored as {:?}, which is not read", view.dtype())));
            };
            return Ok(read(*format, view.data()));
        }
        Err(ForeignError::unfit(&self.folder)(format!("it has no tensor {name}")))
    }
}

fn shape(config: &Value) -> Result<LlamaShape, String> {
    if config["model_type"] != "llama" {
        return Err(format!("its model_type is {}, not llama", config["model_type"]));
    }
    if config["hidden_act"].as_str().is_some_and(|act| act != "silu") {
        return Err(format!("its activation is {}, not silu", config["hidden_act"]));
    }
    if config["attention_bias"] == true || config["mlp_bias"] == true {
        return Err("it has biases".to_string());
    }
    let parameters = &config["rope_parameters"];
    let scaling =
        [&config["rope_scaling"]["rope_type"], &config["rope_scaling"]["type"], &parameters["rope_type"]];
    if let Some(kind) = scaling.iter().find_map(|kind| kind.as_str().filter(|kind| *kind != "default")) {
        return Err(format!("its rotary positions are scaled ({kind})"));
    }
    let optional = |key: &str| config[key].as_u64().map(|n| n as usize);
    let whole = |key: &str| optional(key).ok_or_else(|| format!("it has no {key}"));
    let (width, num_heads) = (whole("hidden_size")?, whole("num_attention_heads")?);
    let shape = LlamaShape {
        depth: whole("num_hidden_layers")?,
        width,
        num_heads,
        num_kv_heads: optional("num_key_value_heads").unwrap_or(num_heads),
        head_dim: match optional("head_dim") {
            Some(dim) => dim,
            None => width.checked_div(num_heads).ok_or("it has no heads")?,
        },
        hidden: whole("intermediate_size")?,
        vocab_size: whole("vocab_size")?,
        seq_len: whole("max_position_embeddings")?,
        rope_base: config["rope_theta"].as_f64().or(parameters["rope_theta"].as_f64()).unwrap_or(10000.0),
        norm_eps: config["rms_norm_eps"].as_f64().unwrap_or(1e-6),
        tied_head: config["tie_word_embeddings"] == true,
    };
    shape.check()?;
    Ok(shape)
}

/// Writes `model.safetensors` and `config.json` of a model of `recipes/llama.star`; `generation_config.json` says
/// which tokens begin and end a text.
pub fn write_hugging_face(
    folder: &Path,
    model: &Model,
    shape: &LlamaShape,
    bos: u32,
    ends: &[u32],
) -> Result<(), ForeignError> {
    std::fs::create_dir_all(folder).map_err(ForeignError::io("create", folder))?;
    let mut views = Vec::new();
    for tensor in shape.tensors() {
        let values = model.param(&tensor.ours).expect("the model is of these sizes");
        let arranged =
            tensor.rotated_heads.map(|heads| rows_to(HeadOrder::Halves, values, heads, shape.head_dim));
        let values = arranged.as_deref().unwrap_or(values);
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        views.push((tensor.hugging_face, tensor.shape, bytes));
    }
    let views = views.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name, view.expect("four bytes an element"))
    });
    // Readers ask whose tensors these are before they touch them.
    let origin = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
    let path = folder.join(TENSORS);
    let bytes = safetensors::serialize(views, Some(origin))
        .map_err(|error| ForeignError::unfit(&path)(error.to_string()))?;
    pawl_record::write_atomic(&path, &bytes)?;
    write_json(&folder.join("config.json"), &config(shape, bos, ends))?;
    let generation = json!({ "bos_token_id": bos, "eos_token_id": ends });
    Ok(write_json(&folder.join("generation_config.json"), &generation)?)
}

fn config(shape: &LlamaShape, bos: u32, ends: &[u32]) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": false,
        "mlp_bias": false,
        "num_hidden_layers": shape.depth,
        "hidden_size": shape.width,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.hidden,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.seq_len,
        "rope_theta": shape.rope_base,
        "rope_scaling": null,
        "rms_norm_eps": shape.norm_eps,
        "tie_word_embeddings": shape.tied_head,
        "bos_token_id": bos,
        "eos_token_id": ends.first(),
        "torch_dtype": "float32",
        "use_cache": true,
    })
}
