//! Training steps as such: their precision, and their bits at any number of threads.

use pawl_model::{Model, Precision, Scorer};
use pawl_recipe::{Lesson, Overrides, Recipe, Source, shipped, std_only};
use pawl_record::{SettingValue, Settings};

const RECIPES: [&str; 2] = ["tiny", "nano"];

/// A shipped recipe cut down to two blocks and a few micro-batches.
fn small(name: &str) -> Recipe {
    cut(name, shipped(name).unwrap().to_string())
}

/// The same in micro-batches of one sequence: several in each of the lanes that a step is cut into.
fn small_in_many_parts(name: &str) -> Recipe {
    let text = shipped(name).unwrap();
    let parts = text.replace("\nrecipe(", "\nrecipe(micro_batch = 1, ");
    assert!(parts != text, "{name}");
    cut(name, parts)
}

fn cut(name: &str, text: String) -> Recipe {
    let smaller = [("seq_len", 128), ("tokens_per_step", 2048), ("vocab_size", 512)];
    let settings = if name == "nano" { &smaller[..] } else { &smaller[..2] };
    let values: Settings = settings.iter().map(|(k, v)| (k.to_string(), SettingValue::Int(*v))).collect();
    let overrides = Overrides { depth: Some(2), values };
    Recipe::load(&Source { name: format!("{name}.star"), text }, &overrides, &std_only).unwrap()
}

fn step(model: &mut Model, step: u64) -> f32 {
    let vocab = model.recipe().vocab_size() as i32;
    let scalars = vec![1e-3; model.recipe().schedule_table(10).unwrap().len()];
    let fill = |micro: usize, inputs: &mut [i32], targets: &mut [i32]| {
        for (i, (x, y)) in inputs.iter_mut().zip(targets).enumerate() {
            let n = (i + 4001 * micro) as i32;
            (*x, *y) = (n.wrapping_mul(7919).rem_euclid(vocab), (n + 1).wrapping_mul(7919).rem_euclid(vocab));
        }
        Ok::<(), ()>(())
    };
    model.step(step, &scalars, fill).unwrap()
}

/// Relative distance of two vectors, by their Euclidean norms.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let apart: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(a - b))).sum();
    let size: f64 = a.iter().map(|a| square(f64::from(*a))).sum();
    (apart / size).sqrt()
}

#[test]
fn gradients_in_bfloat16_are_near_those_in_float32() {
    for name in RECIPES {
        let names: Vec<String> = small(name).params().iter().map(|p| p.name.clone()).collect();
        let grads = |precision| {
            let mut model = Model::with_precision(small(name), 2, 3, precision).unwrap();
            // Past the first steps, in which matrices that start as zeros have gradients of zero.
            for n in 0..3 {
                step(&mut model, n);
            }
            let loss = step(&mut model, 3);
            (loss, names.iter().flat_map(|name| model.grad(name).unwrap().to_vec()).collect::<Vec<f32>>())
        };
        let (exact, rounded) = (grads(Precision::F32), grads(Precision::Bf16));
        assert!((exact.0 - rounded.0).abs() < 0.01, "{}: {} and {}", name, exact.0, rounded.0);
        let error = distance(&exact.1, &rounded.1);
        println!("{}: {error:.4}", name);
        assert!(error > 1e-4, "{}: {error} is float32", name);
        assert!(error < 0.02, "{}: {error}", name);
    }
}

#[test]
fn a_step_has_the_same_bits_at_any_number_of_threads() {
    for name in RECIPES {
        for (recipe, num_micro) in [(small as fn(&str) -> Recipe, 2), (small_in_many_parts, 16)] {
            for precision in [Precision::F32, Precision::Bf16] {
                let hash = |num_threads| {
                    let mut model = Model::with_precision(recipe(name), num_threads, 3, precision).unwrap();
                    assert!(model.num_micro() >= num_micro, "{name}: {}", model.num_micro());
                    let mut hash = blake3::Hasher::new();
                    for n in 0..3 {
                        hash.update(&step(&mut model, n).to_le_bytes());
                    }
                    for (_, tensor) in model.tensors() {
                        hash.update(tensor.bytes());
                    }
                    hash.finalize()
                };
                let one = hash(1);
                for num_threads in [2, 3, 4] {
                    assert_eq!(hash(num_threads), one, "{name} {num_micro} {precision:?} {num_threads}");
                }
            }
        }
    }
}

/// One update of a table whose gradients are bounded to 0.5 and get `weight` on every target; its loss, its norm and
/// the gradients.
fn bounded_step(weight: f32, num_threads: usize) -> (f32, f64, Vec<f32>) {
    let text = r#"
load("std/optim.star", "sgd")
def model(tokens):
    return gather(param("table", (3, 3), zeros()) + param("bias", (3, 3), zeros()), tokens) * 1e20
recipe(model = model, optimizer = lambda p: sgd(0.1), seq_len = 4, tokens_per_step = 8, vocab_size = 3)
"#;
    let objective = "max_grad_norm = 0.5
def loss(logits, targets, share):
    return (token_losses(logits, targets) * share).sum()
";
    let lesson = Lesson {
        source: Source { name: "objective.star".into(), text: objective.into() },
        signals: vec!["share".into()],
        num_rows: 1,
        row_len: 2,
        dropout: false,
    };
    let source = Source { name: "test.star".into(), text: text.into() };
    let overrides = Overrides { depth: None, values: Settings::default() };
    let recipe = Recipe::load_lesson(&source, &overrides, &std_only, Some(&lesson)).unwrap();
    let mut model = Model::new(recipe, num_threads, 3).unwrap();
    model.signal_mut("share").unwrap().fill(weight);
    let loss = step(&mut model, 0);
    let grads = ["bias", "table"].iter().flat_map(|name| model.grad(name).unwrap().to_vec()).collect();
    (loss, model.grad_norm().unwrap(), grads)
}

#[test]
fn a_norm_that_is_not_finite_is_a_loss_that_is_no_number() {
    for num_threads in [1, 2] {
        let (loss, norm, grads) = bounded_step(1e-5, num_threads);
        let left = grads.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!(loss > 0.0 && norm > 1e14 && (left - 0.5).abs() < 1e-6, "{loss} {norm} {left}");
        let (loss, norm, grads) = bounded_step(1e25, num_threads);
        assert!(loss.is_nan() && norm.is_infinite(), "{loss} {norm}");
        assert!(grads.iter().any(|g| g.is_infinite()), "{grads:?}");
    }
}

#[test]
fn a_scorer_that_has_run_scores_the_parameters_it_was_given_last() {
    let mut model = Model::new(small("tiny"), 2, 3).unwrap();
    let losses = |scorer: &mut Scorer, model: &Model| {
        scorer.refresh(model);
        let vocab = model.recipe().vocab_size() as i32;
        (0..).zip(scorer.tokens_mut()).for_each(|(i, x): (i32, _)| *x = i * 31 % vocab);
        (0..).zip(scorer.targets_mut()).for_each(|(i, y): (i32, _)| *y = (i + 1) * 31 % vocab);
        scorer.run(model).to_vec()
    };
    let mut kept = Scorer::losses(&model, 2, 128).unwrap();
    let before = losses(&mut kept, &model);
    assert!(kept.run(&model) == before, "a second run on the same parameters");
    step(&mut model, 0);
    let mut fresh = Scorer::losses(&model, 2, 128).unwrap();
    let after = losses(&mut kept, &model);
    assert!(after != before && after == losses(&mut fresh, &model));
}

#[test]
fn looking_inside_finds_the_stream_and_changes_no_bit() {
    for name in RECIPES {
        let (mut plain, mut watched) =
            (Model::new(small(name), 2, 3).unwrap(), Model::new(small(name), 2, 3).unwrap());
        let tokens: Vec<i32> = (0..256).map(|i| i * 7 % 500).collect();
        for n in 0..2 {
            watched.start_timing();
            assert_eq!(step(&mut plain, n).to_bits(), step(&mut watched, n).to_bits());
            let parts = watched.end_timing();
            assert!(parts["products"] > 0.0 && parts["optimizer"] > 0.0, "{parts:?}");
            assert!(watched.end_timing().is_empty(), "it is over");
            let scales = watched.layer_scales(&tokens, 128).unwrap();
            let names: Vec<&str> = scales.iter().map(|(name, _)| name.as_str()).collect();
            let family = if name == "nano" { "transformer.h" } else { "blocks" };
            let expected = ["into F.0", "into F.1", "out of F.1"].map(|it| it.replace('F', family));
            assert_eq!(names, expected, "{name}");
            assert!(scales.iter().all(|(_, rms)| rms.is_finite() && *rms > 0.0), "{scales:?}");
        }
        let bits = |model: &Model| -> Vec<u32> {
            model.tensors().iter().flat_map(|(_, it)| it.floats()).map(|x| x.to_bits()).collect()
        };
        assert_eq!(bits(&plain), bits(&watched), "{name}");
    }
}

#[test]
fn scales_of_layers_are_those_of_what_is_drawn() {
    // Embedding and positions are independent, and blocks that begin as the identity leave the stream as it is.
    let (embed, position) = (0.3f64, 0.04f64);
    let text = shipped("tiny").unwrap().to_string();
    let values = [
        ("embed_std", SettingValue::Float(embed)),
        ("init_std", SettingValue::Float(position)),
        ("zero_init_out", SettingValue::Bool(true)),
    ];
    let values: Settings = values.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    let overrides = Overrides { depth: Some(3), values };
    let recipe = Recipe::load(&Source { name: "tiny.star".into(), text }, &overrides, &std_only).unwrap();
    let model = Model::new(recipe, 1, 5).unwrap();
    let tokens: Vec<i32> = (0..256).map(|i| i * 7 % 2000).collect();
    let scales = model.layer_scales(&tokens, 256).unwrap();
    assert_eq!(scales.len(), 4);
    for (name, rms) in &scales {
        assert!((rms / embed.hypot(position) - 1.0).abs() < 0.02, "{name}: {rms}");
        assert_eq!(rms, &scales[0].1, "{name}");
    }
}
