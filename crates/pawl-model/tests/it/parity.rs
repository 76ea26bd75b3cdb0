//! nano.star computes what nanochat computes, on golden numbers of our own: a small configuration, in float64,
//! from a separate implementation in numpy with automatic differentiation.

#[path = "../../examples/parity/check.rs"]
mod check;

use check::Report;
use pawl_engine::reference;
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/nano.json")).unwrap()
}

fn check_file(file: &Value) -> Report {
    let mut machine = |graph: &_, leaves: &_, outputs: &[_]| reference::run(graph, leaves, outputs, |x| x);
    check::run(file, &mut machine).unwrap()
}

fn misses(report: &Report) -> Vec<&str> {
    report.lines.iter().filter(|line| !line.holds()).map(|line| line.name.as_str()).collect()
}

#[test]
fn nano_agrees_with_golden_numbers() {
    let report = check_file(&golden());
    assert_eq!(misses(&report), [""; 0]);
    assert_eq!(report.skipped, [""; 0]);
    assert_eq!(report.lines.len(), 23);
}

#[test]
fn a_changed_number_is_missed_and_an_absent_key_is_named() {
    let mut file = golden();
    file["loss0"] = Value::from(file["loss0"].as_f64().unwrap() + 2e-6);
    file["gradnorm"]["lm_head.weight"] = Value::from(1.0);
    file["greedy"]["continuation"][3] = Value::from(1);
    file["packing"]["rows_first_12"][5][0][1] = Value::from(1);
    for slow in ["optimizer", "trajectory", "bpb"] {
        file.as_object_mut().unwrap().remove(slow);
    }
    let report = check_file(&file);
    assert_eq!(
        misses(&report),
        ["loss", "gradient norms, 29 parameters", "24 greedy tokens", "12 packed rows"]
    );
    assert_eq!(report.skipped, ["bpb (absent)", "trajectory (absent)", "optimizer (absent)"]);
    assert!(!report.holds());
}
