//! Reading files of every kind, and what is said about those that cannot be read.

use crate::{add_domains, babble, quiet};
use flate2::write::GzEncoder;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use parquet::file::writer::SerializedFileWriter;
use pawl_data::{AddOptions, DataError, Dataset, add, list, sealed_validation, search_validation};
use pawl_record::{DataSource, SplitRule};
use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn texts() -> Vec<String> {
    (0..60).map(|seed| babble(seed, 100)).collect()
}

fn json_lines(texts: &[String]) -> Vec<u8> {
    texts
        .iter()
        .flat_map(|text| format!("{}\n", serde_json::json!({"id": 1, "text": text})).into_bytes())
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn write_parquet(path: &Path, column: &str, texts: &[String]) {
    let schema = format!("message m {{ required int32 id; optional binary {column} (UTF8); }}");
    let schema = Arc::new(parquet::schema::parser::parse_message_type(&schema).unwrap());
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_compression(parquet::basic::Compression::SNAPPY)
        .build();
    let mut writer =
        SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
    for texts in texts.chunks(25) {
        let mut group = writer.next_row_group().unwrap();
        let mut ids = group.next_column().unwrap().unwrap();
        ids.typed::<Int32Type>().write_batch(&vec![7; texts.len() + 1], None, None).unwrap();
        ids.close().unwrap();
        let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(text.as_str())).collect();
        let mut levels = vec![1; texts.len()];
        levels.insert(3.min(levels.len()), 0); // one null in each row group
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// A lab with one file; the result of adding it.
fn add_file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, Result<Dataset, DataError>) {
    let lab = tempfile::tempdir().unwrap();
    let path = lab.path().join(name);
    fs::write(&path, bytes).unwrap();
    let result = add_path(lab.path(), &path);
    (lab, result)
}

fn add_path(lab: &Path, path: &Path) -> Result<Dataset, DataError> {
    add(&lab.join("data/set"), &[path.display().to_string()], AddOptions::default(), &quiet)
}

#[test]
fn the_same_documents_give_the_same_set_from_every_kind_of_file() {
    let texts = texts();
    let lines = json_lines(&texts);
    let (_lab, plain) = add_file("a.jsonl", &lines);
    let expected = plain.unwrap().manifest().hash.clone();
    let compressed = zstd::encode_all(&*lines, 3).unwrap();
    let two_members = [gzip(&lines[..1000]), gzip(&lines[1000..])].concat();
    for (name, bytes) in
        [("a.jsonl.gz", gzip(&lines)), ("a.NDJSON.zst", compressed), ("b.json.gz", two_members)]
    {
        let (_lab, result) = add_file(name, &bytes);
        assert_eq!(result.unwrap().manifest().hash, expected, "{name}");
    }
    let lab = tempfile::tempdir().unwrap();
    write_parquet(&lab.path().join("a.parquet"), "text", &texts);
    let dataset = add_path(lab.path(), &lab.path().join("a.parquet")).unwrap();
    assert_eq!(dataset.manifest().hash, expected, "parquet");
    let folder = lab.path().join("texts");
    fs::create_dir_all(folder.join("deep")).unwrap();
    for (idx, text) in texts.iter().enumerate() {
        let name = format!("{}{idx:03}.txt", if idx < 30 { "a" } else { "deep/" });
        fs::write(folder.join(name), text).unwrap();
    }
    fs::write(folder.join(".hidden"), "not looked at").unwrap();
    let pattern = format!("{}/**/*.txt", folder.display());
    for (name, argument) in [("folder", folder.display().to_string()), ("pattern", pattern)] {
        let dataset =
            add(&lab.path().join("data").join(name), &[argument], AddOptions::default(), &quiet).unwrap();
        assert_eq!(dataset.manifest().hash, expected, "{name}");
    }
}

/// Adds a file and checks that the error is of the right kind, names the file and says `part`.
fn check_error(name: &str, bytes: &[u8], part: &str, is_expected: fn(&DataError) -> bool) {
    let (lab, result) = add_file(name, bytes);
    let error = result.unwrap_err();
    assert!(is_expected(&error), "{name}: {error:?}");
    let message = error.to_string();
    assert!(message.contains(name) && message.contains(part), "{message}");
    assert!(error.hint().is_some(), "{message}");
    assert!(!lab.path().join("data/set").exists(), "{name} left a data set behind");
    assert!(!lab.path().join("data/.set.tmp").exists(), "{name} left a part of one behind");
}

#[test]
fn every_bad_file_is_named_with_the_place_and_what_to_do() {
    let lines = json_lines(&texts());
    let noise: Vec<u8> =
        lines.iter().enumerate().map(|(n, b)| b.wrapping_mul(31) ^ ((n * n) >> 3) as u8 | 1).collect();
    let gz = gzip(&noise);
    let zst = zstd::encode_all(&*noise, 3).unwrap();
    check_error("empty.txt", b"", "no text", |e| matches!(e, DataError::Empty { .. }));
    check_error("blank.txt", b" \n\n", "no text", |e| matches!(e, DataError::Empty { .. }));
    check_error("blank.jsonl", b"\n{\"text\":\"\"}\n", "no text", |e| matches!(e, DataError::Empty { .. }));
    check_error("empty.parquet", b"", "no text", |e| matches!(e, DataError::Empty { .. }));
    check_error("image.png", b"\x89PNG\r\n\0\0", "byte 6", |e| {
        matches!(e, DataError::Binary { byte: 6, .. })
    });
    check_error("latin.txt", b"a\nb\ncaf\xe9\n", "line 3", |e| {
        matches!(e, DataError::NotUtf8 { line: 3, .. })
    });
    check_error("cut.txt.gz", &gz[..gz.len() / 2], "truncated", |e| matches!(e, DataError::Damaged { .. }));
    check_error("cut.txt.zst", &zst[..zst.len() / 2], "truncated", |e| {
        matches!(e, DataError::Damaged { .. })
    });
    check_error("not.gz", b"plain text", "truncated", |e| matches!(e, DataError::Damaged { .. }));
    let bad_line = [&lines[..], b"{\"text\": \"never ends\n"].concat();
    check_error("bad.jsonl", &bad_line, "line 61", |e| matches!(e, DataError::Json { line: 61, .. }));
    let array = b"[\"text\"]\n";
    check_error("array.jsonl", array, "line 1", |e| matches!(e, DataError::Json { line: 1, .. }));
    let other = b"\n{\"content\": \"x\", \"id\": 3}\n";
    check_error("field.jsonl", other, "content, id", |e| matches!(e, DataError::NoTextField { line: 2, .. }));
    let number = b"{\"text\": 3}\n";
    check_error("number.jsonl", number, "line 1", |e| matches!(e, DataError::NoTextField { .. }));
    check_error("not.parquet", b"PAR1 no, it is not", "row 0", |e| {
        matches!(e, DataError::Parquet { row: 0, .. })
    });
}

#[test]
fn text_too_short_to_hold_any_out_is_refused() {
    for text in ["a", "ab", "12345"] {
        let (_lab, result) = add_file("tiny.txt", text.as_bytes());
        assert!(matches!(result, Err(DataError::TooSmall { bytes }) if bytes == text.len() as u64), "{text}");
    }
}

#[test]
fn a_parquet_file_without_text_or_cut_short_is_named() {
    let lab = tempfile::tempdir().unwrap();
    let path = lab.path().join("a.parquet");
    write_parquet(&path, "content", &texts());
    let error = add_path(lab.path(), &path).unwrap_err();
    assert!(matches!(&error, DataError::NoTextColumn { found, .. } if found == "id, content"), "{error:?}");
    write_parquet(&path, "text", &texts());
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    let error = add_path(lab.path(), &path).unwrap_err();
    assert!(matches!(error, DataError::Parquet { .. }), "{error:?}");
}

#[test]
fn paths_names_and_shares_that_make_no_sense_are_refused() {
    let lab = tempfile::tempdir().unwrap();
    let path = lab.path().join("a.jsonl");
    fs::write(&path, json_lines(&texts())).unwrap();
    let given = vec![path.display().to_string()];
    let try_add = |name: &str, paths: &[String], options| {
        add(&lab.path().join("data").join(name), paths, options, &quiet)
    };
    let options = AddOptions::default();
    let missing = vec![lab.path().join("no*.txt").display().to_string()];
    assert!(matches!(try_add("x", &missing, options), Err(DataError::NoMatch { .. })));
    assert!(matches!(try_add("x", &["a[".to_owned()], options), Err(DataError::BadPattern { .. })));
    assert!(matches!(try_add("x", &[], options), Err(DataError::TooSmall { bytes: 0 })));
    for name in ["crates", "a b", "..", ".x"] {
        assert!(matches!(try_add(name, &given, options), Err(DataError::BadName { .. })), "{name}");
    }
    for (held_out, sealed) in
        [(0.0, None), (0.9, None), (f64::NAN, None), (0.1, Some(0.1)), (0.1, Some(-0.1))]
    {
        let options = AddOptions { held_out: Some(held_out), sealed };
        assert!(matches!(try_add("x", &given, options), Err(DataError::BadShare { .. })), "{options:?}");
    }
    try_add("x", &given, options).unwrap();
    assert!(matches!(try_add("x", &given, options), Err(DataError::Exists { .. })));
    assert_eq!(list(&lab.path().join("data")).unwrap().len(), 1);
}

#[cfg(unix)]
#[test]
fn an_unreadable_file_is_named() {
    let lab = tempfile::tempdir().unwrap();
    let path = lab.path().join("loop.txt");
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let error = add_path(lab.path(), &path).unwrap_err();
    assert!(error.to_string().contains("loop.txt"), "{error}");
}

#[test]
fn files_of_a_folder_that_are_not_text_are_left_out_and_listed() {
    let lab = tempfile::tempdir().unwrap();
    let folder = lab.path().join("mixed");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.jsonl"), json_lines(&texts())).unwrap();
    fs::write(folder.join("b.png"), b"\x89PNG\0\0").unwrap();
    fs::write(folder.join("c.txt"), b"").unwrap();
    let dataset = add_path(lab.path(), &folder).unwrap();
    let DataSource::Files { files, skipped } = &dataset.manifest().source else {
        panic!("not made of files")
    };
    assert_eq!(files.iter().map(|file| file.documents).collect::<Vec<_>>(), [60]);
    let names: Vec<PathBuf> = skipped.iter().map(|file| PathBuf::from(&file.path)).collect();
    assert_eq!(names, [folder.join("b.png"), folder.join("c.txt")]);
    fs::write(folder.join("d.jsonl"), "{").unwrap();
    let again =
        add(&lab.path().join("data/again"), &[folder.display().to_string()], AddOptions::default(), &quiet);
    assert!(matches!(again, Err(DataError::Json { .. })), "a damaged file is not left out");
}

#[test]
fn a_single_file_is_divided_by_position_to_the_byte() {
    let text = babble(3, 20_000);
    let lab = tempfile::tempdir().unwrap();
    let path = lab.path().join("one.txt");
    fs::write(&path, &text).unwrap();
    let paths = [path.display().to_string()];
    let cases = [
        (AddOptions { held_out: Some(0.1), sealed: None }, 0.1, 0.0),
        (AddOptions { held_out: Some(0.2), sealed: Some(0.05) }, 0.2, 0.05),
        (AddOptions::default(), 0.1, 0.05),
    ];
    for (idx, (options, held_out, sealed)) in cases.into_iter().enumerate() {
        let dataset = add(&lab.path().join(format!("data/{idx}")), &paths, options, &quiet).unwrap();
        let domain = &dataset.manifest().domains[0];
        assert_eq!(dataset.manifest().split, SplitRule::Position { held_out, sealed });
        let first = (text.len() as f64 * (1.0 - held_out)) as u64;
        let second = (text.len() as f64 * (1.0 - sealed)) as u64;
        let sizes = [domain.train.bytes, domain.search.bytes, domain.sealed.bytes];
        assert_eq!(sizes, [first, second - first, text.len() as u64 - second]);
        // What is held out is the end of the text, in order.
        let tokenizer = pawl_data::tokenizer(dataset.folder(), 280, &quiet).unwrap();
        let shards = pawl_data::tokens(dataset.folder(), &tokenizer, &quiet).unwrap();
        let settings = pawl_data::ValidationSettings {
            domain: "text".into(),
            batch: 1,
            seq_len: 1 << 17,
            limit_bytes: None,
        };
        let mut found = String::new();
        for read in [search_validation, sealed_validation] {
            let validation = read(&shards, &tokenizer, &settings).unwrap();
            let (mut inputs, mut targets) = (vec![0; 1 << 17], vec![0; 1 << 17]);
            if validation.num_batches() > 0 {
                validation.batch(0, &mut inputs, &mut targets);
                let tokens: Vec<u32> =
                    targets[..validation.num_targets()].iter().map(|&t| t as u32).collect();
                found += &tokenizer.decode(&tokens);
            }
        }
        assert_eq!(found, text[first as usize..]);
    }
}

#[test]
fn separators_divide_plain_text_into_documents() {
    let text = format!("{}\n<|endoftext|>\n\n<|endoftext|>", texts().join("\n<|endoftext|>\r\n"));
    let (_lab, result) = add_file("stories.txt", text.as_bytes());
    let trimmed: Vec<String> = texts().iter().map(|text| text.trim_end_matches('\n').to_owned()).collect();
    let (_other, expected) = add_file("a.jsonl", &json_lines(&trimmed));
    assert_eq!(result.unwrap().manifest().hash, expected.unwrap().manifest().hash);
}

#[test]
fn large_plain_text_is_cut_at_blank_lines_and_nothing_is_lost() {
    let paragraph = format!("{}\n\n", babble(1, 400));
    let text = paragraph.repeat(5_500_000 / paragraph.len());
    let (_lab, result) = add_file("large.txt", text.as_bytes());
    let dataset = result.unwrap();
    let DataSource::Files { files, .. } = &dataset.manifest().source else { panic!("not made of files") };
    assert_eq!(files[0].documents, 6);
    let domain = &dataset.manifest().domains[0];
    assert_eq!(domain.train.bytes + domain.search.bytes + domain.sealed.bytes, text.len() as u64);
}

#[test]
fn equal_documents_are_never_on_both_sides() {
    let mut texts = texts();
    texts.extend(texts.clone());
    let lab = tempfile::tempdir().unwrap();
    let dataset = add_domains(lab.path(), "twice", &[("text", &texts)]);
    let domain = &dataset.manifest().domains[0];
    for size in [domain.train, domain.search, domain.sealed] {
        assert!(size.documents > 0 && size.documents % 2 == 0, "{domain:?}");
    }
}

#[test]
fn progress_ends_at_the_size_of_the_input() {
    let lab = tempfile::tempdir().unwrap();
    let path = lab.path().join("a.jsonl");
    fs::write(&path, json_lines(&texts())).unwrap();
    let seen = RefCell::new(Vec::new());
    let watch = |progress: pawl_data::Progress| seen.borrow_mut().push(progress);
    add(&lab.path().join("data/x"), &[path.display().to_string()], AddOptions::default(), &watch).unwrap();
    let read: Vec<(u64, u64)> = seen
        .borrow()
        .iter()
        .filter(|progress| progress.stage == pawl_data::Stage::Read)
        .map(|progress| (progress.done, progress.total))
        .collect();
    let size = fs::metadata(&path).unwrap().len();
    assert_eq!(read.last(), Some(&(size, size)));
    assert!(read.is_sorted());
}
