//! `pawl bench`: every part answers, quickly where that is asked for. What it measures is not asserted.

use crate::process::pawl;

#[test]
fn every_part_is_a_table_and_the_numbers_stand_in_one_document() {
    let text = pawl(&["bench", "--quick", "--depth", "1", "--precision", "f32", "--kernels", "3"]);
    assert_eq!(text.code, 0, "{}", text.stderr);
    for heading in
        ["limits of this machine", "products ", "training steps", "where time goes", "decode ", "kernel "]
    {
        assert!(text.stdout.lines().any(|line| line.starts_with(heading)), "{heading} in {}", text.stdout);
    }
    for key in ["machine: ", "float32_peak: ", "tiny f32: "] {
        assert!(text.stdout.lines().any(|line| line.starts_with(key)), "{key} in {}", text.stdout);
    }
    let json = pawl(&["bench", "--quick", "--depth", "1", "--threads", "1", "--json"]).json();
    assert_eq!((&json["schema"], &json["threads"]), (&1.into(), &1.into()));
    let positive = |value: &serde_json::Value| value.as_f64().is_some_and(|x| x.is_finite() && x > 0.0);
    for limit in ["float32_flops_per_sec", "read_bytes_per_sec", "triad_bytes_per_sec"] {
        assert!(positive(&json["limits"]["one_thread"][limit]["best"]), "{limit} in {json}");
    }
    for step in json["steps"].as_array().unwrap() {
        assert!(positive(&step["tokens_per_sec"]) && positive(&step["mfu"]), "{step}");
        let kernels = step["kernels"].as_array().unwrap();
        for group in ["products", "attention", "elementwise", "cross-entropy", "optimizer"] {
            assert!(kernels.iter().any(|kernel| kernel["group"] == group), "{group} in {step}");
        }
        // Kernels do not take longer than the step that they make up.
        let counted: f64 = kernels.iter().map(|kernel| kernel["seconds"].as_f64().unwrap()).sum();
        assert!(counted <= 1.001 * step["step_seconds"]["median"].as_f64().unwrap(), "{step}");
    }
    assert!(
        json["products"]
            .as_array()
            .unwrap()
            .iter()
            .all(|product| positive(&product["forward_flops_per_sec"]))
    );
    check_decodes(json["decode"].as_array().unwrap(), &json["limits"]["all_threads"]);
}

/// Each format of the matrices with one and with sixteen sequences; the bandwidth follows from what is read.
fn check_decodes(decodes: &[serde_json::Value], limits: &serde_json::Value) {
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let read = |weights: &str| {
        let decodes = decodes.iter().filter(|decode| decode["weights"] == weights);
        let (sequences, bytes): (Vec<_>, Vec<_>) = decodes
            .map(|decode| (number(&decode["sequences"]), number(&decode["weight_bytes_per_step"])))
            .unzip();
        assert_eq!((sequences, bytes[0]), (vec![1.0, 16.0], bytes[1]), "{weights}");
        bytes[0]
    };
    assert_eq!((read("f32"), read("bf16")), (4.0 * read("int8"), 2.0 * read("int8")));
    let rates = ["read", "triad", "triad_non_temporal"];
    let rates = rates.map(|name| number(&limits[format!("{name}_bytes_per_sec")]["best"]));
    let bandwidth = rates.into_iter().fold(0.0, f64::max);
    for decode in decodes {
        let steps = number(&decode["tokens_per_sec"]) / number(&decode["sequences"]);
        let share = steps * number(&decode["weight_bytes_per_step"]) / bandwidth;
        assert!(share > 0.0 && (number(&decode["bandwidth_share"]) / share - 1.0).abs() < 1e-9, "{decode}");
    }
}

#[test]
fn a_part_can_be_measured_alone() {
    let json = pawl(&["bench", "--quick", "--only", "products", "--precision", "f32", "--json"]).json();
    assert_eq!(json["products"].as_array().map(Vec::len), Some(2));
    assert_eq!((&json["steps"], &json["decode"]), (&serde_json::json!([]), &serde_json::json!([])));
}

#[test]
fn the_models_of_comparisons_have_names_here_alone() {
    let known = pawl(&["bench", "small", "big", "--quick", "--only", "products"]);
    assert_eq!(known.code, 0, "{}", known.stderr);
    assert_eq!(pawl(&["check", "small"]).code, 2);
}

#[test]
fn scaling_is_measured_where_it_is_asked_for() {
    let text = pawl(&["bench", "--quick", "--only", "scaling", "--precision", "f32", "--kernels", "1"]);
    assert_eq!(text.code, 0, "{}", text.stderr);
    let lines = |start: &str| text.stdout.lines().filter(|line| line.starts_with(start)).count();
    for heading in ["cost by ", "model by size ", "side by side ", "small of 2 x 64, 2 at once f32"] {
        assert_eq!(lines(heading), 1, "{heading} in {}", text.stdout);
    }
    assert_eq!((lines("small by "), lines("two of tiny side by side f32: ")), (3, 1), "{}", text.stdout);
    let json = pawl(&["bench", "--quick", "--only", "scaling", "--precision", "f32", "--json"]).json();
    assert_eq!(json["steps"], serde_json::json!([]));
    let scaling = &json["scaling"];
    let number = |value: &serde_json::Value| value.as_f64().unwrap_or_else(|| panic!("{value}"));
    for series in scaling["series"].as_array().unwrap() {
        let points = series["points"].as_array().unwrap();
        let rate = |point: &serde_json::Value| {
            number(&point["step"]["tokens_per_sec"]) * number(&point["flops_per_token"])
        };
        let best = points.iter().map(rate).fold(0.0, f64::max);
        let worst = points.iter().map(rate).fold(best, f64::min);
        assert!((number(&series["spread"]) - (1.0 - worst / best)).abs() < 1e-9, "{series}");
        for point in points {
            let tokens = number(&point["seq_len"]) * number(&point["sequences"]);
            assert_eq!(tokens, number(&point["step"]["tokens_per_step"]), "{point}");
        }
    }
    let turned = |at: usize, key: &str| {
        let points = scaling["series"][at]["points"].as_array().unwrap();
        points.iter().map(|point| number(&point[key])).collect::<Vec<_>>()
    };
    assert_eq!((turned(0, "seq_len"), turned(0, "sequences")), (vec![32.0, 64.0], vec![4.0, 2.0]));
    assert_eq!((turned(2, "micro_batch"), turned(2, "sequences")), (vec![1.0, 2.0], vec![1.0, 2.0]));
    let params: Vec<_> =
        scaling["sizes"].as_array().unwrap().iter().map(|size| &size["step"]["num_params"]).collect();
    // Embedding and head of 1024 rows, 12 squares of the width in a block.
    assert_eq!(params, [&serde_json::json!(278_528), &serde_json::json!(1_048_576)]);
    let pair = &scaling["side_by_side"][0];
    let round = &pair["rounds"][0];
    let sum = |key: &str| number(&round[key][0]) + number(&round[key][1]);
    let ratio = sum("together_tokens_per_sec") / (sum("alone_tokens_per_sec") / 2.0);
    assert!((number(&pair["ratio"]) - ratio).abs() < 1e-9, "{pair}");
    // Not a part of a measurement that names none.
    let plain = pawl(&["bench", "--quick", "--depth", "1", "--precision", "f32", "--json"]).json();
    assert_eq!(plain["scaling"], serde_json::json!({ "series": [], "sizes": [], "side_by_side": [] }));
}

#[test]
fn a_process_beside_another_answers_each_line() {
    let folder = tempfile::tempdir().unwrap();
    let args =
        ["bench", "tiny", "--beside", "--quick", "--precision", "f32", "--depth", "1", "--threads", "1"];
    let mut child = crate::process::command(folder.path(), &args)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"\n\n").unwrap();
    let ended = crate::process::Ended::of(&child.wait_with_output().unwrap());
    let speeds: Vec<f64> = ended.stdout.lines().map(|line| line.parse().unwrap()).collect();
    assert!(ended.code == 0 && speeds.len() == 2 && speeds.iter().all(|speed| *speed > 0.0), "{ended:?}");
}
