//! The recipes that travel in the binary: their sizes, and that everything that can be turned turns something.

use crate::inputs::hash;
use pawl_recipe::{Overrides, Recipe, Setting, SettingKind, Source, shipped, std_only};
use pawl_record::{SettingValue, Settings};

fn shipped_at(name: &str, depth: Option<u64>, values: Settings) -> Recipe {
    let source = Source { name: name.to_string(), text: shipped(name).unwrap().to_string() };
    let overrides = Overrides { depth, values };
    Recipe::load(&source, &overrides, &std_only)
        .unwrap_or_else(|error| panic!("{error} {:?}\n{overrides:?}", error.hint))
}

fn num_params(recipe: &Recipe) -> usize {
    recipe.params().iter().map(|p| p.shape.iter().product::<usize>()).sum()
}

#[test]
fn tiny_is_small_and_leaves_much_to_turn() {
    let tiny = shipped_at("tiny.star", None, Settings::new());
    assert!((500_000..1_000_000).contains(&num_params(&tiny)), "{}", num_params(&tiny));
    let settings = tiny.settings();
    let count = |wanted: fn(&SettingKind) -> bool| settings.iter().filter(|s| wanted(&s.kind)).count();
    assert!(count(|kind| matches!(kind, SettingKind::Choice { .. })) >= 12);
    assert!(count(|kind| matches!(kind, SettingKind::Knob { .. })) >= 10);
    assert!(settings.iter().filter(|s| s.kind != SettingKind::Dial).all(|s| !s.doc.is_empty()));
}

/// Other values than the default: all options of a choice, both ends of a knob.
fn alternatives(setting: &Setting) -> Vec<SettingValue> {
    match &setting.kind {
        SettingKind::Dial => Vec::new(),
        SettingKind::Knob { low, high, .. } => vec![SettingValue::Float(*low), SettingValue::Float(*high)],
        SettingKind::Choice { options } => {
            options.iter().filter(|o| **o != setting.default).cloned().collect()
        }
    }
}

/// What must be chosen for a setting to have something to act on.
fn context_of(setting: &str) -> Settings {
    let text = |name: &str, value: &str| (name.to_string(), SettingValue::Text(value.to_string()));
    Settings::from_iter(match setting {
        "muon_variant" | "muon_lr" | "muon_momentum" => vec![text("optimizer", "muon")],
        "scalar_lr" => vec![text("residual", "x0_mix")],
        "rope_base" => vec![text("positions", "rope")],
        "warmdown_frac" => vec![text("schedule", "trapezoid")],
        "head_lr" => vec![("tied_head".to_string(), SettingValue::Bool(false))],
        _ => vec![],
    })
}

#[test]
fn every_setting_of_tiny_changes_the_program() {
    for setting in shipped_at("tiny.star", None, Settings::new()).settings() {
        let context = context_of(&setting.name);
        let before = shipped_at("tiny.star", None, context.clone()).fingerprint().unwrap();
        for value in alternatives(&setting).into_iter().filter(|value| *value != setting.default) {
            let mut values = context.clone();
            values.insert(setting.name.clone(), value.clone());
            let after = shipped_at("tiny.star", None, values).fingerprint().unwrap();
            assert_ne!(before, after, "{} = {value} does nothing", setting.name);
        }
    }
}

#[test]
fn settings_of_tiny_combine_freely_at_any_depth() {
    let settings = shipped_at("tiny.star", None, Settings::new()).settings();
    for trial in 0..60 {
        let mut values = Settings::new();
        for (k, setting) in settings.iter().enumerate() {
            let options = alternatives(setting);
            let draw = hash(trial, k as u32) as usize;
            if draw.is_multiple_of(2) && !options.is_empty() {
                values.insert(setting.name.clone(), options[draw / 2 % options.len()].clone());
            }
        }
        shipped_at("tiny.star", Some(1 + u64::from(trial) % 6), values);
    }
}

/// The table of the reference at vocabulary 32768, length 2048 and heads of 128.
#[test]
fn nano_has_the_sizes_and_batches_of_the_reference() {
    for (depth, millions, tokens_per_step) in
        [(4, 36.7, 1 << 18), (8, 125.8, 1 << 18), (12, 286.3, 1 << 19), (20, 896.5, 1 << 20)]
    {
        let nano = shipped_at("nano.star", Some(depth), Settings::new());
        let got = num_params(&nano) as f64 / 1e6;
        assert!((got - millions).abs() < 0.05 * millions / 36.7, "depth {depth}: {got}");
        assert_eq!(nano.tokens_per_step(), tokens_per_step, "depth {depth}");
    }
}

/// Learning rates and weight decay at depth 4: base values times the rules of batch and depth.
#[test]
fn nano_starts_muon_decay_where_the_reference_does() {
    for (depth, decay) in [(4, 1.890), (8, 0.520), (12, 0.280), (20, 0.100)] {
        let nano = shipped_at("nano.star", Some(depth), Settings::new());
        let table = nano.schedule_table(1000).unwrap();
        let firsts: Vec<f32> = table.iter().map(|row| row[0]).collect();
        let near = |x: f32| (f64::from(x) - decay).abs() < 0.0006;
        assert!(firsts.iter().any(|x| near(*x)), "depth {depth}: {firsts:?}");
    }
}
