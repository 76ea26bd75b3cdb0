//! GGUF files, written: metadata, a table of tensors, their bytes, each aligned to 32.

use super::quants::f32_to_half;
use super::{ForeignError, GgufTokens};
use crate::llama::{HeadOrder, LlamaShape, rows_to};
use crate::model::Model;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// How matrices are stored; vectors stay float32, as readers expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgufType {
    /// 32 bits.
    F32,
    /// 16 bits, IEEE.
    F16,
}

const ALIGNMENT: usize = 32;

/// Writes parameters and vocabulary of a model of `recipes/llama.star`, to a temporary name first.
pub fn write_gguf(
    path: &Path,
    model: &Model,
    shape: &LlamaShape,
    tokens: &GgufTokens,
    name: &str,
    kind: GgufType,
) -> Result<(), ForeignError> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = File::create(&temporary).and_then(|file| {
        let mut out = BufWriter::new(file);
        write(&mut out, model, shape, tokens, name, kind)?;
        out.into_inner().map_err(|error| error.into_error())?.sync_all()?;
        std::fs::rename(&temporary, path)
    });
    written.map_err(|source| {
        // The first error is the one that matters.
        let _ = std::fs::remove_file(&temporary);
        ForeignError::io("write", path)(source)
    })
}

fn write(
    out: &mut impl Write,
    model: &Model,
    shape: &LlamaShape,
    tokens: &GgufTokens,
    name: &str,
    kind: GgufType,
) -> std::io::Result<()> {
    let tensors = shape.tensors();
    let values = metadata(shape, tokens, name, kind);
    let mut head = Vec::new();
    head.extend(b"GGUF");
    head.extend(3_u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((values.len() as u64).to_le_bytes());
    values.iter().for_each(|value| head.extend(value));
    let stored = |shape: &[usize]| if shape.len() == 1 { GgufType::F32 } else { kind };
    let size = |shape: &[usize]| {
        let len: usize = shape.iter().product();
        len * match stored(shape) {
            GgufType::F32 => 4,
            GgufType::F16 => 2,
        }
    };
    let mut offset = 0;
    for tensor in &tensors {
        text(&mut head, &tensor.gguf);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|n| head.extend((*n as u64).to_le_bytes()));
        head.extend((stored(&tensor.shape) as u32).to_le_bytes());
        head.extend((offset as u64).to_le_bytes());
        offset += size(&tensor.shape).next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    out.write_all(&head)?;
    for tensor in &tensors {
        let values = model.param(&tensor.ours).expect("the model is of these sizes");
        let arranged =
            tensor.rotated_heads.map(|heads| rows_to(HeadOrder::Pairs, values, heads, shape.head_dim));
        let values = arranged.as_deref().unwrap_or(values);
        let mut bytes: Vec<u8> = match stored(&tensor.shape) {
            GgufType::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            GgufType::F16 => values.iter().flat_map(|x| f32_to_half(*x).to_le_bytes()).collect(),
        };
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Each key with its value, encoded.
fn metadata(shape: &LlamaShape, tokens: &GgufTokens, name: &str, kind: GgufType) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    let mut add = |key: &str, kind: u32, value: &[u8]| {
        let mut entry = Vec::new();
        text(&mut entry, key);
        entry.extend(kind.to_le_bytes());
        entry.extend(value);
        values.push(entry);
    };
    let texts = |items: &[String]| {
        let mut list = [8_u32.to_le_bytes().to_vec(), (items.len() as u64).to_le_bytes().to_vec()].concat();
        items.iter().for_each(|item| text(&mut list, item));
        list
    };
    let encoded = |value: &str| {
        let mut bytes = Vec::new();
        text(&mut bytes, value);
        bytes
    };
    add("general.architecture", 8, &encoded("llama"));
    add("general.name", 8, &encoded(name));
    let file_type = match kind {
        GgufType::F32 => 0_u32,
        GgufType::F16 => 1,
    };
    add("general.file_type", 4, &file_type.to_le_bytes());
    for (key, number) in [
        ("block_count", shape.depth),
        ("context_length", shape.seq_len),
        ("embedding_length", shape.width),
        ("feed_forward_length", shape.hidden),
        ("attention.head_count", shape.num_heads),
        ("attention.head_count_kv", shape.num_kv_heads),
        ("attention.key_length", shape.head_dim),
        ("attention.value_length", shape.head_dim),
        ("rope.dimension_count", shape.head_dim),
        ("vocab_size", shape.vocab_size),
    ] {
        add(&format!("llama.{key}"), 4, &(number as u32).to_le_bytes());
    }
    add("llama.rope.freq_base", 6, &(shape.rope_base as f32).to_le_bytes());
    add("llama.attention.layer_norm_rms_epsilon", 6, &(shape.norm_eps as f32).to_le_bytes());
    add("tokenizer.ggml.model", 8, &encoded("gpt2"));
    add("tokenizer.ggml.pre", 8, &encoded(&tokens.splitter));
    add("tokenizer.ggml.tokens", 9, &texts(&tokens.tokens));
    add("tokenizer.ggml.merges", 9, &texts(&tokens.merges));
    // 1 is text, 3 a control token.
    let mut types =
        [5_u32.to_le_bytes().to_vec(), (tokens.special.len() as u64).to_le_bytes().to_vec()].concat();
    tokens.special.iter().for_each(|special| types.extend((if *special { 3_i32 } else { 1 }).to_le_bytes()));
    add("tokenizer.ggml.token_type", 9, &types);
    for (key, id) in [("bos", tokens.bos), ("eos", tokens.eos)] {
        if let Some(id) = id {
            add(&format!("tokenizer.ggml.{key}_token_id"), 4, &id.to_le_bytes());
        }
    }
    add("tokenizer.ggml.add_bos_token", 7, &[u8::from(tokens.adds_bos)]);
    if let Some(template) = &tokens.chat_template {
        add("tokenizer.chat_template", 8, &encoded(template));
    }
    values
}

fn text(out: &mut Vec<u8>, value: &str) {
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(value.as_bytes());
}
