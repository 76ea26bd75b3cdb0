//! The Llama family as files describe it, and `recipes/llama.star` as we do: sizes, and which tensor is which.
//!
//! The one difference in arithmetic is the direction in which rotary positions turn: ours turns (x1, x2) as
//! theirs turns (x2, x1). Dot products see no order, so the halves of each head of queries and keys change
//! places on the way in and out, and nothing else does.

use pawl_record::{SettingValue, Settings};

/// Name of the recipe.
pub const LLAMA: &str = "llama";

/// Sizes of a model of the family.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaShape {
    /// Blocks.
    pub depth: usize,
    /// C.
    pub width: usize,
    /// H.
    pub num_heads: usize,
    /// K.
    pub num_kv_heads: usize,
    /// D.
    pub head_dim: usize,
    /// F.
    pub hidden: usize,
    /// V.
    pub vocab_size: usize,
    /// T.
    pub seq_len: usize,
    /// Of the frequencies of rotary positions.
    pub rope_base: f64,
    /// Of the norms.
    pub norm_eps: f64,
    /// Whether the head is the embedding table.
    pub tied_head: bool,
}

/// How the rows of a matrix of queries or keys are arranged within a head of D.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadOrder {
    /// First halves, then second halves, as Hugging Face has them.
    Halves,
    /// Pairs side by side, as GGUF files of this family have them.
    Pairs,
}

/// A tensor of the recipe and what files call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTensor {
    /// In the recipe.
    pub ours: String,
    /// In safetensors of Hugging Face.
    pub hugging_face: String,
    /// In GGUF.
    pub gguf: String,
    /// Rows, columns; one column number for a vector.
    pub shape: Vec<usize>,
    /// Heads whose rows are arranged differently in files.
    pub rotated_heads: Option<usize>,
}

impl LlamaShape {
    /// What a recipe of these sizes is set to, `depth` aside.
    pub fn settings(&self) -> Settings {
        let int = |n: usize| SettingValue::Int(n as i64);
        Settings::from_iter(
            [
                ("width", int(self.width)),
                ("num_heads", int(self.num_heads)),
                ("num_kv_heads", int(self.num_kv_heads)),
                ("head_dim", int(self.head_dim)),
                ("hidden", int(self.hidden)),
                ("vocab_size", int(self.vocab_size)),
                ("seq_len", int(self.seq_len)),
                ("tokens_per_step", int(self.seq_len)),
                ("rope_base", SettingValue::Float(self.rope_base)),
                ("norm_eps", SettingValue::Float(self.norm_eps)),
                ("tied_head", SettingValue::Bool(self.tied_head)),
            ]
            .map(|(name, value)| (name.to_string(), value)),
        )
    }

    /// The sizes that a run of the recipe was set to; `None` if these are not its settings.
    pub fn of(settings: &Settings) -> Option<LlamaShape> {
        let int = |name: &str| match settings.get(name)? {
            SettingValue::Int(n) => usize::try_from(*n).ok(),
            SettingValue::Bool(_) | SettingValue::Float(_) | SettingValue::Text(_) => None,
        };
        Some(LlamaShape {
            depth: int("depth")?,
            width: int("width")?,
            num_heads: int("num_heads")?,
            num_kv_heads: int("num_kv_heads")?,
            head_dim: int("head_dim")?,
            hidden: int("hidden")?,
            vocab_size: int("vocab_size")?,
            seq_len: int("seq_len")?,
            rope_base: settings.get("rope_base")?.as_f64()?,
            norm_eps: settings.get("norm_eps")?.as_f64()?,
            tied_head: settings.get("tied_head")? == &SettingValue::Bool(true),
        })
    }

    /// Why these sizes are none, if they are not.
    pub fn check(&self) -> Result<(), String> {
        let sizes = [
            ("layers", self.depth, 1 << 12),
            ("width", self.width, 1 << 20),
            ("heads", self.num_heads, 1 << 16),
            ("key/value heads", self.num_kv_heads, 1 << 16),
            ("head width", self.head_dim, 1 << 16),
            ("hidden width", self.hidden, 1 << 22),
            ("tokens", self.vocab_size, 1 << 21),
            ("positions", self.seq_len, 1 << 20),
        ];
        if let Some((what, number, most)) = sizes.iter().find(|(_, n, most)| !(1..=*most).contains(n)) {
            return Err(format!("{number} {what} is not between 1 and {most}"));
        }
        if !self.num_heads.is_multiple_of(self.num_kv_heads) || !self.head_dim.is_multiple_of(2) {
            let Self { num_heads, num_kv_heads, head_dim, .. } = self;
            return Err(format!(
                "{num_heads} heads of {head_dim} do not share {num_kv_heads} key/value heads"
            ));
        }
        let fine = |x: f64| x.is_finite() && x > 0.0;
        if fine(self.rope_base) && fine(self.norm_eps) {
            Ok(())
        } else {
            Err("a rope base or norm epsilon of 0".into())
        }
    }

    /// Every tensor.
    pub fn tensors(&self) -> Vec<NamedTensor> {
        let (c, f, h, k, d) = (self.width, self.hidden, self.num_heads, self.num_kv_heads, self.head_dim);
        let named =
            |ours: &str, hugging_face: &str, gguf: &str, shape: &[usize], rotated_heads| NamedTensor {
                ours: ours.to_string(),
                hugging_face: hugging_face.to_string(),
                gguf: gguf.to_string(),
                shape: shape.to_vec(),
                rotated_heads,
            };
        let table = [self.vocab_size, c];
        let mut all = vec![
            named("embed.weight", "model.embed_tokens.weight", "token_embd.weight", &table, None),
            named("last_norm.scale", "model.norm.weight", "output_norm.weight", &[c], None),
        ];
        if !self.tied_head {
            all.push(named("head.weight", "lm_head.weight", "output.weight", &table, None));
        }
        for i in 0..self.depth {
            let rows: [(&str, &str, &str, &[usize], Option<usize>); 9] = [
                ("attn_norm.scale", "input_layernorm", "attn_norm", &[c], None),
                ("attn.q.weight", "self_attn.q_proj", "attn_q", &[h * d, c], Some(h)),
                ("attn.k.weight", "self_attn.k_proj", "attn_k", &[k * d, c], Some(k)),
                ("attn.v.weight", "self_attn.v_proj", "attn_v", &[k * d, c], None),
                ("attn.out.weight", "self_attn.o_proj", "attn_output", &[c, h * d], None),
                ("mlp_norm.scale", "post_attention_layernorm", "ffn_norm", &[c], None),
                ("mlp.gate.weight", "mlp.gate_proj", "ffn_gate", &[f, c], None),
                ("mlp.up.weight", "mlp.up_proj", "ffn_up", &[f, c], None),
                ("mlp.down.weight", "mlp.down_proj", "ffn_down", &[c, f], None),
            ];
            for (ours, theirs, gguf, shape, rotated) in rows {
                all.push(named(
                    &format!("blocks.{i}.{ours}"),
                    &format!("model.layers.{i}.{theirs}.weight"),
                    &format!("blk.{i}.{gguf}.weight"),
                    shape,
                    rotated,
                ));
            }
        }
        all
    }
}

/// Rows (H * D, C) of queries or keys, from the order of a file to ours.
pub fn rows_from(order: HeadOrder, rows: &[f32], num_heads: usize, head_dim: usize) -> Vec<f32> {
    rearranged(order, rows, num_heads, head_dim, |ours, theirs| (ours, theirs))
}

/// Rows (H * D, C) of queries or keys, from our order to that of a file.
pub fn rows_to(order: HeadOrder, rows: &[f32], num_heads: usize, head_dim: usize) -> Vec<f32> {
    rearranged(order, rows, num_heads, head_dim, |ours, theirs| (theirs, ours))
}

/// `pick` says, of a row's places in our order and in theirs, (to, from).
fn rearranged(
    order: HeadOrder,
    rows: &[f32],
    num_heads: usize,
    head_dim: usize,
    pick: impl Fn(usize, usize) -> (usize, usize),
) -> Vec<f32> {
    let width = rows.len() / (num_heads * head_dim);
    let half_dim = head_dim / 2;
    let mut out = vec![0.0; rows.len()];
    for head in 0..num_heads {
        for ours in 0..head_dim {
            let (half, place) = (1 - ours / half_dim, ours % half_dim);
            let theirs = match order {
                HeadOrder::Halves => half * half_dim + place,
                HeadOrder::Pairs => 2 * place + half,
            };
            let (to, from) = pick(head * head_dim + ours, head * head_dim + theirs);
            out[to * width..(to + 1) * width].copy_from_slice(&rows[from * width..(from + 1) * width]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_and_pairs_change_places_and_come_back() {
        let rows: Vec<f32> = (0..16).map(|n| n as f32).collect(); // two heads of four rows of two
        let halves = rows_from(HeadOrder::Halves, &rows, 2, 4);
        assert_eq!(halves[..8], [4.0, 5.0, 6.0, 7.0, 0.0, 1.0, 2.0, 3.0]);
        let pairs = rows_from(HeadOrder::Pairs, &rows, 2, 4);
        assert_eq!(pairs[..8], [2.0, 3.0, 6.0, 7.0, 0.0, 1.0, 4.0, 5.0]);
        assert_eq!(rows_to(HeadOrder::Halves, &halves, 2, 4), rows);
        assert_eq!(rows_to(HeadOrder::Pairs, &pairs, 2, 4), rows);
    }

    #[test]
    fn a_shape_survives_its_settings() {
        let shape = LlamaShape {
            depth: 30,
            width: 576,
            num_heads: 9,
            num_kv_heads: 3,
            head_dim: 64,
            hidden: 1536,
            vocab_size: 49152,
            seq_len: 2048,
            rope_base: 1e5,
            norm_eps: 1e-5,
            tied_head: true,
        };
        shape.check().unwrap();
        let mut settings = shape.settings();
        settings.insert("depth".into(), SettingValue::Int(30));
        assert_eq!(LlamaShape::of(&settings), Some(shape.clone()));
        assert!(LlamaShape { num_kv_heads: 2, ..shape.clone() }.check().is_err());
        assert!(LlamaShape { width: 0, ..shape }.check().is_err());
    }
}
