//! Decoding gives what the whole sequence gives, for every recipe it accepts.

use pawl_model::{DecodeError, DecodeOptions, Decoder, Model, Sampler, SamplerSettings, Scorer, Weights};
use pawl_recipe::{Overrides, Recipe, Source, shipped, std_only};
use pawl_record::SettingValue;

/// Of the largest logit of a position; worst seen 1.5e-6.
const TOLERANCE: f32 = 1e-5;

/// A model whose every parameter is away from its initial value, so that no gate is shut and no table zero.
pub(crate) fn model(recipe: Recipe, num_threads: usize) -> Model {
    let mut model = Model::new(recipe, num_threads, 3).unwrap();
    let names: Vec<String> =
        model.tensors().iter().map(|(name, _)| name.to_string()).filter(|n| !n.contains('#')).collect();
    for (n, name) in names.iter().enumerate() {
        let values = model.tensor_mut(name).unwrap().floats_mut();
        let noise = crate::inputs::uniform(n as u32, values.len(), 0.0, 0.1);
        values.iter_mut().zip(noise).for_each(|(value, noise)| *value += noise as f32);
    }
    model
}

pub(crate) fn text(model: &Model, seed: i32) -> Vec<u32> {
    let (t, v) = (model.recipe().seq_len() as i32, model.recipe().vocab_size() as i32);
    (0..t).map(|i| ((i * i * 31 + i * 37 + seed * 101 + 11) % v) as u32).collect()
}

/// Logits (T, V) by the full pass.
fn whole(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let mut scorer = Scorer::logits(model, 1, tokens.len()).unwrap();
    scorer.refresh(model);
    scorer.tokens_mut().iter_mut().zip(tokens).for_each(|(to, token)| *to = *token as i32);
    scorer.run(model).to_vec()
}

fn largest(x: &[f32]) -> usize {
    (0..x.len()).fold(0, |best, i| if x[i] > x[best] { i } else { best })
}

/// Every position, one at a time and in chunks, agrees with the full pass.
fn check_decodes(name: &str, recipe: Recipe) {
    let model = model(recipe, 1);
    let (tokens, vocab) = (text(&model, 1), model.recipe().vocab_size());
    let exact = whole(&model, &tokens);
    let options = DecodeOptions { max_tokens: 7, ..DecodeOptions::default() };
    let mut decoder = Decoder::new(&model, 2, options).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut one_by_one = Vec::new();
    for (p, token) in tokens.iter().enumerate() {
        let got = decoder.step(&[(1, *token)]).unwrap().row(0).to_vec();
        let want = &exact[p * vocab..(p + 1) * vocab];
        let size = want.iter().fold(0.0_f32, |top, x| top.max(x.abs()));
        let off = got.iter().zip(want).fold(0.0_f32, |top, (a, b)| top.max((a - b).abs()));
        assert!(off <= TOLERANCE * size, "{name}: position {p} is off by {off:.1e} of {size:.1e}");
        assert!(size > 1e-3, "{name}: logits of zero prove nothing");
        assert_eq!(largest(&got), largest(want), "{name}: another token at position {p}");
        one_by_one.push(got);
    }
    for (c, chunk) in tokens.chunks(7).enumerate() {
        let lanes: Vec<(usize, u32)> = chunk.iter().map(|token| (0, *token)).collect();
        let logits = decoder.step(&lanes).unwrap();
        for k in 0..chunk.len() {
            assert!(logits.row(k) == one_by_one[c * 7 + k], "{name}: position {} in a chunk", c * 7 + k);
        }
    }
    assert!(matches!(decoder.step(&[(0, 1)]), Err(DecodeError::Full { row: 0, .. })), "{name}");
}

fn recipe(name: &str, settings: &[(&str, SettingValue)], depth: u64) -> Recipe {
    let source = Source { name: name.to_string(), text: shipped(name).unwrap().to_string() };
    let mut overrides = Overrides { depth: Some(depth), ..Overrides::default() };
    for (key, value) in settings {
        overrides.values.insert(key.to_string(), value.clone());
    }
    Recipe::load(&source, &overrides, &std_only).unwrap_or_else(|e| panic!("{name} {settings:?}: {e}"))
}

fn word(text: &str) -> SettingValue {
    SettingValue::parse(text)
}

#[test]
fn tiny_with_each_of_its_choices() {
    let short = ("seq_len", SettingValue::Int(128));
    for (key, values) in [
        ("norm", vec!["layer_norm", "rms_norm", "plain_rms_norm"]),
        ("embedding_norm", vec!["True"]),
        ("positions", vec!["rope", "none"]),
        ("qk_norm", vec!["True"]),
        ("windowed", vec!["True"]),
        ("value_embeddings", vec!["True"]),
        ("activation", vec!["relu", "relu_squared", "silu"]),
        ("gated_mlp", vec!["True"]),
        ("short_conv", vec!["True"]),
        ("biases", vec!["False"]),
        ("parallel_blocks", vec!["True"]),
        ("residual", vec!["x0_mix", "unet", "backout"]),
        ("smear", vec!["True"]),
        ("bigrams", vec!["True"]),
        ("tied_head", vec!["False"]),
        ("softcap", vec!["15"]),
        ("head_dim", vec!["16", "64"]),
    ] {
        for value in values {
            let settings = [short.clone(), (key, word(value))];
            check_decodes(&format!("tiny {key} {value}"), recipe("tiny", &settings, 3));
        }
    }
}

#[test]
fn nano_with_windows_and_shared_heads() {
    let sizes = [("seq_len", 256), ("vocab_size", 300), ("head_dim", 32), ("tokens_per_step", 256)];
    let mut settings: Vec<_> = sizes.iter().map(|(key, n)| (*key, SettingValue::Int(*n))).collect();
    check_decodes("nano", recipe("nano", &settings, 3));
    settings.push(("num_kv_heads", SettingValue::Int(2)));
    settings.push(("width", SettingValue::Int(128)));
    check_decodes("nano with shared heads", recipe("nano", &settings, 3));
}

/// A recipe of width 24 whose hidden state x (B, T, 24) is changed by `body`.
pub(crate) fn small(body: &str) -> Recipe {
    let lines: String = body.lines().map(|line| format!("    {}\n", line.trim())).collect();
    let text = format!(
        r#"
load("std/attention.star", "attention", "linear_attention", "softmax_attention")
load("std/layers.star", "causal_conv", "embedding", "learnt_positions", "linear", "smear")
load("std/moe.star", "moe")
load("std/optim.star", "sgd")
def model(tokens):
    B, T = tokens.shape
    x = embedding(tokens, "embed", 24)
{lines}    return linear(x, "head", 40)
recipe(model = model, optimizer = lambda p: sgd(0.1), seq_len = 37, tokens_per_step = 37, vocab_size = 40)
"#
    );
    let source = Source { name: "small.star".into(), text };
    Recipe::load(&source, &Overrides::default(), &std_only).unwrap_or_else(|e| panic!("{body}: {e}"))
}

#[test]
fn whatever_can_be_written_with_what_earlier_positions_leave() {
    for body in [
        "x += attention(x, 'a', 4, 2, 6, positions = rope, qk_norm = True, window = 9, bias = True)",
        "x += attention(x, 'a', 4, 2, 6, mix = softmax_attention)",
        "x += attention(x, 'a', 4, 2, 6, window = 9, positions = rope, mix = softmax_attention)",
        "x += attention(x, 'a', 4, 2, 6, mix = linear_attention)",
        "x += attention(x, 'a', 4, 4, 6, mix = lambda q, k, v, w: linear_attention(q, k, v, w, 0.9))",
        "x += moe(x, 'a', 5, 2, 7)[0]",
        "x = causal_conv(causal_conv(x, 'a', 5), 'b', 2)\nx += attention(x, 'c', 4)",
        "x = smear(smear(x, 'a'), 'b')",
        "x += shift(relu(shift(x, 2)), -1)",
        "x += shift(relu(shift(x, -1) + 1.0), 1)",
        "x += shift(relu(shift(x, -2) + 1.0), 3) + shift(relu(shift(x, -2) + 2.0), 2)",
        "x += relu(shift(shift(x, 2) + param('b', (24,), normal(1.0)), -1)) + shift(x, 3)",
        "x += x.slice(1, 0, 1)",
        "first = relu(shift(x, 1)).slice(1, 1, 2)\nx += concat([full((B, 2, 24), 0.0), first.expand(B, T - 2, 24)], 1)",
        "x += concat([x.slice(1, 0, 1), x.slice(1, 0, T - 1)], 1)",
        "x += concat([full((B, 2, 24), 0.5), tanh(x).slice(1, 0, T - 2)], 1)",
        "x += concat([param('first', (1, 2, 24), normal(1.0)).expand(B, 2, 24), x.slice(1, 0, T - 2)], 1)",
        "x += scan(sigmoid(linear(x, 'a', 24)), x)",
        "x += scan(full((B, T, 24), 0.5), scan(full((B, T, 24), 1.0), x) * 0.1)",
        "x = x * param('position', (T, 24), normal(1.0)) + param('late', (T, 1), normal(1.0))",
        "x = matmul(x.reshape(B * T, 24), param('w', (24, 24), normal(0.3))).reshape(B, T, 24)",
        "x += relu(x.transpose(0, 2, 1)).transpose(0, 2, 1)",
        "x += x.reshape(B, T, 4, 6).transpose(0, 1, 3, 2).reshape(B, T, 24)",
        "k = shift(x, 1)\ns = matmul(x, k, tb = True)\nx += matmul(softmax(s, causal = True, window = 3), k)",
        "s = softmax(matmul(x, x, tb = True), causal = True)\nx += (s * 2.0).sum(2)",
        "s = softmax(matmul(x, x, tb = True), causal = True)\nx += s.max(2)",
        "f = x.mean(2)\ns = matmul(x, x, tb = True) + (f - f.transpose(0, 2, 1))\nx += matmul(softmax(s, causal = True), x)",
        "b = param('bias', (T, T), normal(1.0))\ns = matmul(x, x, tb = True) + b\nx += matmul(softmax(s, causal = True), x)",
        "s = softmax(matmul(x, x, tb = True), causal = True)\nx += matmul(s / (0.1 + x.square().sum(2).transpose(0, 2, 1)), x)",
        "s = softmax(matmul(x, param('m', (24, T), normal(0.3))), causal = True)\nx += matmul(s, param('n', (T, 24), normal(1.0)))",
        "x += gather(param('pair', (31, 24), normal(1.0)), (tokens * 7 + shift(tokens, 1) + shift(tokens, 3)) % 31)",
        "x += gather(param('first', (40, 24), normal(1.0)), tokens.slice(1, 0, 1))",
        "x += to_float(tokens).reshape(B, T, 1) * 0.01",
        "h = rope(x.reshape(B, T, 4, 6))\nx += attend(h, shift(h, 1), h, window = 4).merge_heads()",
        "x += x * top_k(x, 3)",
    ] {
        check_decodes(body, small(body));
    }
}

/// Everything at once: rings, latches, keys, scans, fused attention.
pub(crate) const MIXED: &str = "x = smear(causal_conv(x, 'conv'), 'smear') + x.slice(1, 0, 1)
    x += attention(x, 'a', 4, 2, 6, positions = rope, window = 9)
    x += attention(x, 'b', 4, 2, 6, mix = softmax_attention)
    x += attention(x, 'c', 4, mix = linear_attention)";

/// Logits of `tokens` in a decoder of one sequence.
pub(crate) fn alone(model: &Model, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut decoder = Decoder::new(model, 1, DecodeOptions::default()).unwrap();
    tokens.iter().map(|token| decoder.step(&[(0, *token)]).unwrap().row(0).to_vec()).collect()
}

#[test]
fn sequences_of_different_lengths_come_and_go_and_never_notice_each_other() {
    let model = model(small(MIXED), 1);
    let texts: Vec<Vec<u32>> =
        (0..5).map(|seed| text(&model, seed)[..37 - seed as usize * 5].to_vec()).collect();
    let want: Vec<_> = texts.iter().map(|text| alone(&model, text)).collect();
    for num_threads in [1, 2, 3] {
        let options = DecodeOptions { num_threads, max_tokens: 4, ..DecodeOptions::default() };
        let mut decoder = Decoder::new(&model, 3, options).unwrap();
        // Row r decodes text r, then, from the beginning, the next text that nobody has.
        let (mut reading, mut unread) = ([0, 1, 2], vec![4, 3]);
        let mut at = [0; 3];
        for call in 0..120 {
            let rows: Vec<usize> =
                (0..3).filter(|r| (call + r) % 3 != 0 && at[*r] < texts[reading[*r]].len()).collect();
            let lanes: Vec<(usize, u32)> = rows.iter().map(|r| (*r, texts[reading[*r]][at[*r]])).collect();
            let logits = decoder.step(&lanes).unwrap();
            for (k, row) in rows.iter().enumerate() {
                assert!(logits.row(k) == want[reading[*row]][at[*row]], "call {call}, sequence {row}");
                at[*row] += 1;
            }
            for row in 0..3 {
                if at[row] == texts[reading[row]].len()
                    && let Some(next) = unread.pop()
                {
                    (reading[row], at[row]) = (next, 0);
                    decoder.reset(row).unwrap();
                }
            }
        }
        assert!(unread.is_empty() && (0..3).all(|r| at[r] == texts[reading[r]].len()), "all were read");
    }
}

#[test]
fn a_prompt_read_in_chunks_gives_the_bits_of_one_token_at_a_time() {
    let model = model(small(MIXED), 1);
    let tokens = text(&model, 1);
    let want = alone(&model, &tokens);
    for max_tokens in [1, 5, 64] {
        let options = DecodeOptions { max_tokens, ..DecodeOptions::default() };
        let mut decoder = Decoder::new(&model, 2, options).unwrap();
        for len in [1, 4, 23, 37] {
            decoder.reset(1).unwrap();
            assert!(decoder.prefill(1, &tokens[..len]).unwrap() == want[len - 1], "{len} by {max_tokens}");
            assert_eq!((decoder.position(0).unwrap(), decoder.position(1).unwrap()), (0, len));
        }
    }
}

#[test]
fn what_cannot_be_taken_is_an_error_and_changes_nothing() {
    let model = model(small("x = smear(x, 'a')"), 1);
    let tokens = text(&model, 1);
    let want = alone(&model, &tokens);
    let options = DecodeOptions { max_tokens: 2, ..DecodeOptions::default() };
    let mut decoder = Decoder::new(&model, 2, options).unwrap();
    decoder.prefill(0, &tokens[..36]).unwrap();
    assert!(matches!(decoder.step(&[(0, 1), (0, 2)]), Err(DecodeError::Full { row: 0, seq_len: 37 })));
    assert!(matches!(decoder.step(&[(1, 1), (2, 2)]), Err(DecodeError::Row { row: 2, batch: 2 })));
    assert!(matches!(decoder.step(&[(1, 1); 3]), Err(DecodeError::TooMany { num: 3, max: 2 })));
    assert!(matches!(decoder.prefill(0, &[]), Err(DecodeError::Empty)));
    assert!(matches!(decoder.reset(7), Err(DecodeError::Row { .. })));
    assert_eq!(decoder.position(1).unwrap(), 0);
    assert!(decoder.step(&[(0, tokens[36])]).unwrap().row(0) == want[36]);
    assert!(matches!(Decoder::new(&model, 0, options), Err(DecodeError::Empty)));
}

#[test]
fn new_parameters_are_taken_when_asked() {
    let mut model = model(small("x = smear(x, 'a')"), 1);
    let mut decoder = Decoder::new(&model, 1, DecodeOptions::default()).unwrap();
    let before = decoder.step(&[(0, 5)]).unwrap().row(0).to_vec();
    model.tensor_mut("head.weight").unwrap().floats_mut().iter_mut().for_each(|x| *x *= -2.0);
    decoder.reset(0).unwrap();
    assert!(decoder.step(&[(0, 5)]).unwrap().row(0) == before);
    decoder.refresh(&model);
    decoder.reset(0).unwrap();
    let after = decoder.step(&[(0, 5)]).unwrap().row(0).to_vec();
    assert!(after.iter().zip(&before).all(|(after, before)| *after == -2.0 * before));
}

/// How far logits of a nano move, of the largest of a position, when its matrices are rounded: at least, or
/// nothing was rounded, and at most. Seen: 2.3e-3 in bf16, 9.2e-3 in int8.
const ROUNDED: [(Weights, f32, f32); 2] = [(Weights::Bf16, 5e-4, 5e-3), (Weights::Int8, 2e-3, 2e-2)];

#[test]
fn narrow_weights_move_logits_a_little() {
    let settings = [("seq_len", 128), ("vocab_size", 300), ("head_dim", 64), ("tokens_per_step", 128)];
    let settings: Vec<_> = settings.iter().map(|(key, n)| (*key, SettingValue::Int(*n))).collect();
    let model = Model::new(recipe("nano", &settings, 3), 1, 3).unwrap();
    let tokens = text(&model, 1);
    let want = alone(&model, &tokens);
    for (weights, least, most) in ROUNDED {
        let options = DecodeOptions { weights, ..DecodeOptions::default() };
        let mut decoder = Decoder::new(&model, 1, options).unwrap();
        let mut worst = 0.0_f32;
        for (token, want) in tokens.iter().zip(&want) {
            let logits = decoder.step(&[(0, *token)]).unwrap();
            let size = want.iter().fold(0.0_f32, |top, x| top.max(x.abs()));
            let off = logits.row(0).iter().zip(want).fold(0.0_f32, |top, (a, b)| top.max((a - b).abs()));
            worst = worst.max(off / size);
        }
        assert!((least..most).contains(&worst), "{weights:?} moves logits by {worst:.1e}");
    }
}

/// Greedy tokens after `prompt` from passes over whole windows.
fn greedy(model: &Model, mut context: Vec<u32>, num: usize) -> Vec<u32> {
    let (t, v) = (model.recipe().seq_len(), model.recipe().vocab_size());
    let mut scorer = Scorer::logits(model, 1, t).unwrap();
    scorer.refresh(model);
    let start = context.len();
    for _ in 0..num {
        let seen = &context[context.len().saturating_sub(t)..];
        scorer.tokens_mut().iter_mut().zip(seen).for_each(|(to, token)| *to = *token as i32);
        let at = seen.len() - 1;
        context.push(largest(&scorer.run(model)[at * v..(at + 1) * v]) as u32);
    }
    context.split_off(start)
}

/// A sampler's greedy tokens, beyond the window too, and whether it says that each costs a full pass.
fn check_samples(body: &str, is_full_pass: bool) {
    let model = model(small(body), 1);
    let mut sampler =
        Sampler::new(&model, SamplerSettings { temperature: 0.0, ..SamplerSettings::default() }).unwrap();
    assert_eq!(sampler.full_pass().is_some(), is_full_pass, "{body}");
    for prompt in [vec![3], vec![3, 9, 4], vec![1, 2]] {
        let want = greedy(&model, prompt.clone(), 45);
        let mut context = prompt.clone();
        for _ in 0..45 {
            context.push(sampler.next(&model, &context));
        }
        assert_eq!(context[prompt.len()..], want, "{body}");
    }
}

#[test]
fn samplers_draw_what_full_passes_draw_and_say_when_they_make_them() {
    check_samples("x += attention(x, 'a', 4, positions = rope)", false);
    let first = "h = x.slice(1, 0, 1).heads(4)\nx += attend(h, h, h).merge_heads()";
    check_samples(first, true);
    let refused = Decoder::new(&model(small(first), 1), 1, DecodeOptions::default());
    let Err(DecodeError::NotIncremental(why)) = refused else { panic!("attention over one fixed position") };
    assert!(why.op == "attention" && why.origin.starts_with("small.star:"), "{why:?}");
}
