//! Who may depend on whom, as ARCHITECTURE.md says it, against what cargo says of the manifests.
//! Dependencies of tests and examples are free: they do not end in the product.

use super::Finding;
use serde_json::Value;

/// Each crate with the crates of ours it may link.
const LAYERS: &[(&str, &[&str])] = &[
    ("pawl-record", &[]),
    ("pawl-graph", &[]),
    ("pawl-engine", &["pawl-graph"]),
    ("pawl-recipe", &["pawl-record", "pawl-graph"]),
    ("pawl-data", &["pawl-record"]),
    ("pawl-model", &["pawl-record", "pawl-graph", "pawl-engine", "pawl-recipe"]),
    ("pawl-eval", &["pawl-record", "pawl-data", "pawl-model"]),
    ("pawl-train", &["pawl-record", "pawl-recipe", "pawl-data", "pawl-model", "pawl-eval"]),
    ("pawl-ledger", &["pawl-record"]),
    ("pawl-research", &["pawl-record", "pawl-recipe", "pawl-ledger"]),
    ("pawl-serve", &["pawl-record", "pawl-data", "pawl-model", "pawl-ledger"]),
    (
        "pawl",
        &[
            "pawl-serve",
            "pawl-record",
            "pawl-graph",
            "pawl-engine",
            "pawl-recipe",
            "pawl-data",
            "pawl-model",
            "pawl-eval",
            "pawl-train",
            "pawl-ledger",
            "pawl-research",
        ],
    ),
    ("xtask", &[]),
];

/// Crates of others that have one home, so that what they stand for has one.
const HOMES: &[(&str, &[&str])] = &[
    ("clap", &["pawl"]),
    ("indicatif", &["pawl"]),
    ("rusqlite", &["pawl-ledger"]),
    ("starlark", &["pawl-recipe"]),
    ("tokio", &["pawl-research", "pawl-serve", "pawl"]),
];

/// Compares `cargo metadata --no-deps` with the two tables.
pub(crate) fn check(metadata: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let root = metadata["workspace_root"].as_str().unwrap_or_default();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let manifest = manifest.strip_prefix(root).unwrap_or(manifest).trim_start_matches('/');
        let mut found = |what: String, fix| {
            findings.push(Finding { path: manifest.to_string(), line: 1, what, fix });
        };
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
            found(
                format!("{name} has no place in the layers"),
                "add it to LAYERS in xtask and to ARCHITECTURE.md",
            );
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            if dependency["kind"] == "dev" {
                continue;
            }
            let ours = dependency["path"].is_string();
            if ours && !allowed.contains(&on) {
                found(
                    format!("{name} must not depend on {on}"),
                    "pass what is needed in as data or as a function",
                );
            }
            if HOMES.iter().any(|(other, homes)| *other == on && !homes.contains(&name)) {
                found(
                    format!("{on} has its home elsewhere than in {name}"),
                    "see HOMES in xtask for whose it is",
                );
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check_dependency(package: &str, dependency: Value, num_findings: usize) {
        let metadata = json!({
            "workspace_root": "/r",
            "packages": [{
                "name": package,
                "manifest_path": "/r/crates/x/Cargo.toml",
                "dependencies": [dependency],
            }],
        });
        let findings = check(&metadata);
        assert_eq!(findings.len(), num_findings, "{package}: {findings:?}");
        assert!(findings.iter().all(|finding| finding.path == "crates/x/Cargo.toml"));
    }

    #[test]
    fn a_link_upwards_is_found() {
        check_dependency("pawl-research", json!({"name": "pawl-engine", "path": "/r/e", "kind": null}), 1);
        check_dependency("pawl-train", json!({"name": "pawl-ledger", "path": "/r/e", "kind": "build"}), 1);
        check_dependency("pawl-engine", json!({"name": "pawl-graph", "path": "/r/e", "kind": null}), 0);
        check_dependency("pawl-graph", json!({"name": "pawl-recipe", "path": "/r/e", "kind": "dev"}), 0);
    }

    #[test]
    fn a_foreign_crate_outside_its_home_is_found() {
        check_dependency("pawl-train", json!({"name": "clap", "kind": null}), 1);
        check_dependency("pawl", json!({"name": "clap", "kind": null}), 0);
    }

    #[test]
    fn a_crate_unknown_to_the_table_is_found() {
        check_dependency("pawl-new", json!({"name": "serde", "kind": null}), 1);
    }

    #[test]
    fn a_layer_names_only_layers_before_it() {
        for (at, (name, allowed)) in LAYERS.iter().enumerate() {
            for on in *allowed {
                assert!(LAYERS[..at].iter().any(|(before, _)| before == on), "{name} on {on}");
            }
        }
    }
}
