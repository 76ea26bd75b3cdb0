//! Two runs side by side.

use crate::lab;
use pawl_ledger::{Ledger, LineTag, diff_settings, diff_text};
use pawl_record::{SettingValue, Settings};

#[test]
fn a_diff_names_settings_conditions_lines_and_results() {
    let lab = lab::new();
    lab::write_run(lab.path(), 2);
    lab::write_run(lab.path(), 4);
    let ledger = Ledger::open(lab.path()).unwrap();
    let diff = ledger.diff(&lab::id_of(2), &lab::id_of(4)).unwrap();
    assert!(!diff.same_program);
    assert_eq!(diff.settings.len(), 1);
    assert_eq!(diff.settings[0].name, "lr");
    assert_eq!(diff.settings[0].a, Some(SettingValue::Float(0.03)));
    let conditions: Vec<_> = diff.conditions.iter().map(|change| change.name.as_str()).collect();
    assert_eq!(conditions, ["init seed", "seed"]);
    assert_eq!((diff.recipe.removed, diff.recipe.added), (1, 1));
    let lines: Vec<_> =
        diff.recipe.hunks[0].lines.iter().map(|line| (line.tag.sign(), line.text.as_str())).collect();
    assert_eq!(lines, [(' ', "# head"), ('-', "lr = 2"), ('+', "lr = 4"), (' ', "# tail")]);
    let bpb = diff.results.iter().find(|result| result.name == "val_bpb").unwrap();
    assert_eq!((bpb.a, bpb.b), (lab::result(2).val_bpb, lab::result(4).val_bpb));
    assert!(diff.results.iter().any(|result| result.name == "val_bpb code"));
    assert!(diff.results.iter().all(|result| result.name != "sealed_bpb"), "absent in both");
}

#[test]
fn a_run_does_not_differ_from_itself() {
    let lab = lab::new();
    lab::write_run(lab.path(), 2);
    let ledger = Ledger::open(lab.path()).unwrap();
    let diff = ledger.diff(&lab::id_of(2), &lab::id_of(2)).unwrap();
    assert!(diff.same_program && diff.settings.is_empty() && diff.conditions.is_empty());
    assert!(diff.recipe.hunks.is_empty());
}

#[test]
fn a_setting_on_one_side_only_is_a_difference() {
    let a = Settings::from([("x".into(), SettingValue::Int(1)), ("y".into(), SettingValue::Bool(true))]);
    let b = Settings::from([("y".into(), SettingValue::Bool(true)), ("z".into(), SettingValue::Int(2))]);
    let diff = diff_settings(&a, &b);
    let sides: Vec<_> = diff.iter().map(|c| (c.name.as_str(), c.a.is_some(), c.b.is_some())).collect();
    assert_eq!(sides, [("x", true, false), ("z", false, true)]);
}

#[test]
fn far_changes_are_separate_hunks_with_line_numbers() {
    let a: String = (1..=40).map(|n| format!("line {n}\n")).collect();
    let b = a.replace("line 5\n", "line five\n").replace("line 30\n", "line 30\nline 30b\n");
    let diff = diff_text(&a, &b);
    assert_eq!((diff.added, diff.removed, diff.hunks.len()), (2, 1, 2));
    assert_eq!((diff.hunks[0].line_a, diff.hunks[1].line_a, diff.hunks[1].line_b), (2, 28, 28));
    let added = diff.hunks[1].lines.iter().find(|line| line.tag == LineTag::Added).unwrap();
    assert_eq!(added.text, "line 30b");
}
