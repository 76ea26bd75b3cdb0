//! Collects the corpus that the binary carries: source and documentation of the locked registry
//! dependencies, cleaned, in one compressed file, with a manifest.
//!
//! The set of crates is that of one fixed platform, so that the corpus does not depend on where
//! pawl is built. Never reads our own crates, and fails rather than carry less than it should.

mod cleaning;

use cleaning::{dedup, doc_comments, filter, licence};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Level 12 takes 3 s for 30 MB where 19 takes 15 s for a tenth less.
const COMPRESSION_LEVEL: i32 = 12;
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

struct Package {
    name: String,
    version: String,
    licence: String,
    folder: PathBuf,
}

struct Document {
    domain: &'static str,
    path: String,
    text: String,
}

/// What became of the documents, for the manifest: key to (documents, bytes).
type Tally = BTreeMap<String, (u64, u64)>;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../..");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cleaning");
    println!("cargo::rerun-if-changed={}", root.join("Cargo.lock").display());

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut file = zstd::Encoder::new(fs::File::create(out.join("corpus.jsonl.zst"))?, COMPRESSION_LEVEL)?;
    let mut seen = dedup::Seen::default();
    let (mut crates, mut refused) = (Vec::new(), Tally::new());
    for package in locked_packages(&root)? {
        let mut kept = Tally::new();
        for document in package_documents(&package, &mut refused)? {
            let reason = match filter::refusal(&document.text) {
                Some(refusal) => format!("{refusal:?}").to_lowercase(),
                None => match seen.judge(&document.text) {
                    dedup::Novelty::Exact => "exact duplicate".to_owned(),
                    dedup::Novelty::Near => "near duplicate".to_owned(),
                    dedup::Novelty::New => {
                        let source = format!("{}-{}/{}", package.name, package.version, document.path);
                        let line =
                            json!({"domain": document.domain, "source": source, "text": document.text});
                        writeln!(file, "{line}")?;
                        count(&mut kept, document.domain, &document.text);
                        continue;
                    }
                },
            };
            count(&mut refused, &reason, &document.text);
        }
        if !kept.is_empty() {
            let of = |domain: &str| kept.get(domain).copied().unwrap_or_default();
            crates.push(json!({
                "name": package.name, "version": package.version, "licence": package.licence,
                "documents": of("code").0 + of("prose").0, "code_bytes": of("code").1, "prose_bytes": of("prose").1,
            }));
        }
    }
    file.finish()?;
    let refused: Vec<Value> = refused
        .iter()
        .map(|(reason, (documents, bytes))| json!({"reason": reason, "documents": documents, "bytes": bytes}))
        .collect();
    fs::write(
        out.join("corpus.json"),
        serde_json::to_vec_pretty(&json!({"crates": crates, "refused": refused}))?,
    )?;
    Ok(())
}

fn count(tally: &mut Tally, key: &str, text: &str) {
    let entry = tally.entry(key.to_owned()).or_default();
    entry.0 += 1;
    entry.1 += text.len() as u64;
}

/// Registry dependencies under a permissive licence, by name, newest version first: of two versions
/// of one crate the newer is kept whole and the older gives only what differs.
fn locked_packages(root: &Path) -> Result<Vec<Package>, Box<dyn Error>> {
    let output = Command::new(env::var("CARGO")?)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            PLATFORM,
            "--manifest-path",
        ])
        .arg(root.join("Cargo.toml"))
        .output()?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("the corpus needs the sources of the locked dependencies: {reason}").into());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let text = |package: &Value, key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let mut packages: Vec<Package> = metadata["packages"]
        .as_array()
        .ok_or("cargo metadata lists no packages")?
        .iter()
        .filter(|package| text(package, "source").starts_with("registry+"))
        .map(|package| Package {
            name: text(package, "name"),
            version: text(package, "version"),
            licence: text(package, "license"),
            folder: PathBuf::from(text(package, "manifest_path")).with_file_name(""),
        })
        .filter(|package| {
            licence::is_permissive(&package.licence) && !filter::is_binding_crate(&package.name)
        })
        .collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| numbers(&b.version).cmp(&numbers(&a.version))));
    Ok(packages)
}

fn numbers(version: &str) -> Vec<u64> {
    let release = version.split(['-', '+']).next().unwrap_or(version);
    release.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// The cleaned documents of one package, in the order of their paths.
fn package_documents(package: &Package, refused: &mut Tally) -> Result<Vec<Document>, Box<dyn Error>> {
    let mut paths = Vec::new();
    walk(&package.folder, &mut paths)?;
    paths.sort();
    let mut documents = Vec::new();
    for path in paths {
        let relative =
            path.strip_prefix(&package.folder)?.to_str().ok_or("a path is not UTF-8")?.replace('\\', "/");
        let is_rust = relative.ends_with(".rs");
        if !is_rust && filter::is_boilerplate_name(&relative) {
            continue;
        }
        let Ok(text) = String::from_utf8(fs::read(&path)?) else {
            count(refused, "not utf-8", "");
            continue;
        };
        if is_rust {
            let parts = doc_comments::separate(&filter::tidy(&text));
            let code = filter::tidy(&filter::without_licence_header(&parts.code));
            documents.push(Document { domain: "code", path: relative.clone(), text: code });
            if !parts.prose.trim().is_empty() {
                documents.push(prose(relative, &parts.prose));
            }
        } else {
            documents.push(prose(relative, &text));
        }
    }
    Ok(documents)
}

fn prose(path: String, text: &str) -> Document {
    let text = filter::without_licence_sections(&filter::without_badges(&filter::tidy(text)));
    Document { domain: "prose", path, text: filter::tidy(&text) }
}

/// Rust and Markdown files below `folder`, leaving out what a dependency vendors itself.
fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !name.starts_with('.') && !["vendor", "third_party", "target"].contains(&name) {
                walk(&path, paths)?;
            }
        } else if name.ends_with(".rs") || name.ends_with(".md") {
            paths.push(path);
        }
    }
    Ok(())
}
