//! GGUF files, read: key-value metadata, then a table of tensors, then their bytes (format of ggml, version 2 and 3).

use super::ForeignError;
use super::quants::Format;
use crate::llama::LlamaShape;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An opened file, all of it in memory.
pub struct Gguf {
    path: PathBuf,
    bytes: Vec<u8>,
    values: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Entry>,
    shape: LlamaShape,
}

/// The vocabulary of a file, as it states it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufTokens {
    /// Text of each token.
    pub tokens: Vec<String>,
    /// Whether text never gives a token: control tokens, and those a user defined.
    pub special: Vec<bool>,
    /// `left right` of each merge.
    pub merges: Vec<String>,
    /// Name of the splitter.
    pub splitter: String,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends it.
    pub eos: Option<u32>,
    /// Whether a prompt is given the BOS.
    pub adds_bos: bool,
    /// Jinja text.
    pub chat_template: Option<String>,
}

struct Entry {
    /// Innermost first, as the file has it.
    extents: Vec<usize>,
    format: Format,
    start: usize,
    num_bytes: usize,
}

/// A metadata value.
enum Value {
    Whole(i128),
    Real(f64),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    /// Whole numbers below 256.
    Bytes(Vec<u8>),
    /// What nothing here reads.
    Other,
}

/// Tensors, and values beside them: what is kept of each takes more memory than its bytes in the file.
const MAX_ENTRIES: u64 = 1 << 18;
/// Items of the lists that are kept.
const MAX_TOKENS: u64 = 1 << 22;
/// Bytes of a text: of a name, a token, a chat template.
const MAX_TEXT: u64 = 1 << 20;

const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";

impl Gguf {
    /// Reads the file and checks that all of it is there.
    pub fn open(path: &Path) -> Result<Gguf, ForeignError> {
        let bytes = std::fs::read(path).map_err(ForeignError::io("read", path))?;
        let unfit = ForeignError::unfit(path);
        let mut cursor = Cursor { bytes: &bytes, at: 0 };
        let (values, tensors) = header(&mut cursor).map_err(&unfit)?;
        let shape = shape(&values, &tensors).map_err(&unfit)?;
        Ok(Gguf { path: path.to_path_buf(), bytes, values, tensors, shape })
    }

    pub(super) fn shape(&self) -> &LlamaShape {
        &self.shape
    }

    pub(super) fn hash(&self) -> String {
        blake3::hash(&self.bytes).to_hex().to_string()
    }

    /// The vocabulary; refused when it is not byte-level BPE.
    pub fn tokens(&self) -> Result<GgufTokens, ForeignError> {
        let unfit = ForeignError::unfit(&self.path);
        let text = |key: &str| match self.values.get(key) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let id = |key: &str| match self.values.get(key) {
            Some(Value::Whole(id)) => u32::try_from(*id).ok(),
            _ => None,
        };
        let texts = |key: &str| match self.values.get(key) {
            Some(Value::Texts(texts)) => Ok(texts.clone()),
            _ => Err(unfit(format!("it has no {key}"))),
        };
        let model = text("tokenizer.ggml.model").unwrap_or_default();
        if model != "gpt2" {
            return Err(unfit(format!("its tokenizer is {model:?}, not byte-level BPE (gpt2)")));
        }
        let tokens = texts(TOKENS)?;
        let special = match self.values.get(TOKEN_TYPES) {
            Some(Value::Bytes(types)) => types.iter().map(|kind| *kind != 1 && *kind != 6).collect(),
            _ => vec![false; tokens.len()],
        };
        Ok(GgufTokens {
            special,
            merges: texts(MERGES)?,
            splitter: text("tokenizer.ggml.pre").unwrap_or_else(|| "gpt-2".to_string()),
            bos: id("tokenizer.ggml.bos_token_id"),
            eos: id("tokenizer.ggml.eos_token_id"),
            adds_bos: matches!(self.values.get("tokenizer.ggml.add_bos_token"), Some(Value::Flag(true))),
            chat_template: text("tokenizer.chat_template"),
            tokens,
        })
    }

    /// A tensor of `shape`, outermost first, as float32.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ForeignError> {
        let entry = self.entry(name, shape)?;
        Ok(entry.format.decode(&self.bytes[entry.start..entry.start + entry.num_bytes]))
    }

    /// Whether it has a tensor of `shape`.
    pub(super) fn check(&self, name: &str, shape: &[usize]) -> Result<(), ForeignError> {
        self.entry(name, shape).map(|_| ())
    }

    fn entry(&self, name: &str, shape: &[usize]) -> Result<&Entry, ForeignError> {
        let unfit = ForeignError::unfit(&self.path);
        let entry = self.tensors.get(name).ok_or_else(|| unfit(format!("it has no tensor {name}")))?;
        match entry.extents.iter().rev().eq(shape) {
            true => Ok(entry),
            false => Err(unfit(format!("{name} has extents {:?}, not {shape:?}", entry.extents))),
        }
    }
}

type Header = (BTreeMap<String, Value>, BTreeMap<String, Entry>);

fn header(cursor: &mut Cursor<'_>) -> Result<Header, String> {
    if cursor.take(4)? != b"GGUF" {
        return Err("it is not a GGUF file".to_string());
    }
    let version = cursor.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("GGUF version {version} is unknown"));
    }
    let (num_tensors, num_values) = (cursor.count(MAX_ENTRIES)?, cursor.count(MAX_ENTRIES)?);
    let mut values = BTreeMap::new();
    for _ in 0..num_values {
        let key = cursor.text()?;
        let kind = cursor.u32()?;
        let value = if kind == LIST { cursor.list(&key)? } else { cursor.value(kind)? };
        values.insert(key, value);
    }
    let mut found = Vec::new();
    for _ in 0..num_tensors {
        let name = cursor.text()?;
        let rank = cursor.u32()? as usize;
        if rank == 0 || rank > 4 {
            return Err(format!("tensor {name} has {rank} axes"));
        }
        let extents: Vec<usize> =
            (0..rank).map(|_| cursor.u64().map(|n| n as usize)).collect::<Result<_, _>>()?;
        let number = cursor.u32()?;
        let offset = cursor.u64()? as usize;
        let format = Format::from_ggml(number)
            .ok_or_else(|| format!("tensor {name} is stored in a format ({number}) that is not read"))?;
        found.push((name, extents, format, offset));
    }
    let alignment = match values.get("general.alignment") {
        Some(Value::Whole(n)) if (1..=1 << 20).contains(n) => *n as usize,
        _ => 32,
    };
    let data = cursor.at.next_multiple_of(alignment);
    let mut tensors = BTreeMap::new();
    for (name, extents, format, offset) in found {
        let len = extents.iter().try_fold(1_usize, |len, n| len.checked_mul(*n));
        let num_bytes = len
            .filter(|_| extents[0] > 0)
            .and_then(|len| format.bytes(len))
            .ok_or_else(|| format!("tensor {name} of {extents:?} is no whole number of blocks"))?;
        let start = data
            .checked_add(offset)
            .filter(|start| start.checked_add(num_bytes).is_some_and(|end| end <= cursor.bytes.len()));
        let start = start.ok_or_else(|| format!("it ends before tensor {name} does"))?;
        tensors.insert(name, Entry { extents, format, start, num_bytes });
    }
    Ok((values, tensors))
}

fn shape(values: &BTreeMap<String, Value>, tensors: &BTreeMap<String, Entry>) -> Result<LlamaShape, String> {
    match values.get("general.architecture") {
        Some(Value::Text(name)) if name == "llama" => {}
        Some(Value::Text(name)) => return Err(format!("its architecture is {name}, not llama")),
        _ => return Err("it names no architecture".to_string()),
    }
    let whole = |key: &str| match values.get(&format!("llama.{key}")) {
        Some(Value::Whole(n)) => usize::try_from(*n).map_err(|_| format!("its {key} is {n}")),
        _ => Err(format!("it has no llama.{key}")),
    };
    let real = |key: &str| match values.get(&format!("llama.{key}")) {
        Some(Value::Real(x)) => Some(*x),
        _ => None,
    };
    if let Some(Value::Text(kind)) = values.get("llama.rope.scaling.type")
        && kind != "none"
    {
        return Err(format!("its rotary positions are scaled ({kind})"));
    }
    if tensors.contains_key("rope_freqs.weight") {
        return Err("its rotary positions are scaled".to_string());
    }
    if let Some(bias) = tensors.keys().find(|name| name.ends_with(".bias")) {
        return Err(format!("it has a bias, {bias}"));
    }
    let (width, num_heads) = (whole("embedding_length")?, whole("attention.head_count")?);
    let head_dim = whole("attention.key_length")
        .or_else(|_| width.checked_div(num_heads).ok_or_else(|| "it has no heads".to_string()))?;
    if whole("rope.dimension_count").is_ok_and(|dim| dim != head_dim) {
        return Err("rotary positions turn a part of each head".to_string());
    }
    let table = tensors.get("token_embd.weight").ok_or("it has no tensor token_embd.weight")?;
    let shape = LlamaShape {
        depth: whole("block_count")?,
        width,
        num_heads,
        num_kv_heads: whole("attention.head_count_kv").unwrap_or(num_heads),
        head_dim,
        hidden: whole("feed_forward_length")?,
        vocab_size: table.extents.get(1).copied().unwrap_or(0),
        seq_len: whole("context_length")?,
        rope_base: real("rope.freq_base").unwrap_or(10000.0),
        norm_eps: short(real("attention.layer_norm_rms_epsilon").ok_or("it has no norm epsilon")?),
        tied_head: !tensors.contains_key("output.weight"),
    };
    shape.check()?;
    Ok(shape)
}

/// The shortest decimal of a float32: 1e-5, not 9.999999747378752e-6.
fn short(x: f64) -> f64 {
    (x as f32).to_string().parse().unwrap_or(x)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, num: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(num).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or("it ends within its header")?;
        let part = &self.bytes[self.at..end];
        self.at = end;
        Ok(part)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were taken"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.number()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.number()?))
    }

    fn count(&mut self, most: u64) -> Result<u64, String> {
        let count = self.u64()?;
        if count <= most { Ok(count) } else { Err(format!("{count} of something in its header")) }
    }

    fn text(&mut self) -> Result<String, String> {
        let len = self.count(MAX_TEXT)? as usize;
        Ok(String::from_utf8_lossy(self.take(len)?).into_owned())
    }

    fn value(&mut self, kind: u32) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Whole(u8::from_le_bytes(self.number()?).into()),
            1 => Value::Whole(i8::from_le_bytes(self.number()?).into()),
            2 => Value::Whole(u16::from_le_bytes(self.number()?).into()),
            3 => Value::Whole(i16::from_le_bytes(self.number()?).into()),
            4 => Value::Whole(self.u32()?.into()),
            5 => Value::Whole(i32::from_le_bytes(self.number()?).into()),
            6 => Value::Real(f32::from_le_bytes(self.number()?).into()),
            7 => Value::Flag(self.take(1)?[0] != 0),
            8 => Value::Text(self.text()?),
            10 => Value::Whole(self.u64()?.into()),
            11 => Value::Whole(i64::from_le_bytes(self.number()?).into()),
            12 => Value::Real(f64::from_le_bytes(self.number()?)),
            _ => return Err(format!("a value of kind {kind} in its header")),
        })
    }

    /// A list: kept where something here reads it, and otherwise only walked over.
    fn list(&mut self, key: &str) -> Result<Value, String> {
        let kind = self.u32()?;
        let count = self.u64()?;
        match (key, kind) {
            (TOKENS | MERGES, TEXT) if count <= MAX_TOKENS => {
                (0..count).map(|_| self.text()).collect::<Result<_, _>>().map(Value::Texts)
            }
            (TOKEN_TYPES, _) if count <= MAX_TOKENS => {
                let small = |value: Value| match value {
                    Value::Whole(whole) => u8::try_from(whole).ok(),
                    Value::Real(_)
                    | Value::Flag(_)
                    | Value::Text(_)
                    | Value::Texts(_)
                    | Value::Bytes(_)
                    | Value::Other => None,
                };
                let mut types = Vec::new();
                for _ in 0..count {
                    let of = self.value(kind)?;
                    types.push(small(of).ok_or_else(|| format!("a type of a token in {key} is none"))?);
                }
                Ok(Value::Bytes(types))
            }
            (TOKENS | MERGES | TOKEN_TYPES, _) => Err(format!("{key} has {count} items of kind {kind}")),
            (_, TEXT) => {
                for _ in 0..count {
                    let len = self.count(MAX_TEXT)? as usize;
                    self.take(len)?;
                }
                Ok(Value::Other)
            }
            (_, LIST) => Err("a list of lists in its header".to_string()),
            _ => {
                let each = match kind {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    10..=12 => 8,
                    _ => return Err(format!("a list of kind {kind} in its header")),
                };
                let num = usize::try_from(count).ok().and_then(|count| count.checked_mul(each));
                self.take(num.ok_or("it ends within its header")?)?;
                Ok(Value::Other)
            }
        }
    }
}

/// Kinds of values that are not numbers.
const TEXT: u32 = 8;
const LIST: u32 = 9;
