//! `pawl data`: sets are made once, listed and shown; what is not text is refused by name.

use crate::process::pawl_in;

#[test]
fn a_set_is_added_listed_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..3000).map(|n| format!("line {n} of a text\n")).collect();
    std::fs::write(folder.path().join("a.txt"), text).unwrap();
    let ask = |args: &[&str]| pawl_in(folder.path(), args);
    let added = ask(&["data", "add", "mine", "a.txt", "--held-out", "0.1", "--json"]);
    assert_eq!(added.code, 0, "{}", added.stderr);
    assert_eq!(added.json()["data"]["name"], "mine");
    let shown = ask(&["data", "show", "mine"]);
    assert!(shown.stdout.contains("held_out: the last 10.0 %"), "{}", shown.stdout);
    let list = ask(&["data", "list"]).stdout;
    assert!(list.lines().any(|line| line.starts_with("mine")), "{list}");
    assert!(list.lines().any(|line| line.starts_with("crates")), "the carried corpus needs no lab: {list}");

    let again = ask(&["data", "add", "mine", "a.txt"]);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("exists") && again.stderr.contains("hint: "), "{}", again.stderr);
}

#[test]
fn what_is_not_text_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("binary.txt", &[b'a', 0, 1, 2]);
    write("latin.txt", &[b'a', 0xe9, b'\n']);
    write("cut.gz", &[0x1f, 0x8b, 8, 0]);
    write("wrong.jsonl", b"{\"txt\": 1}\n");
    write("empty.txt", b"");
    for file in ["binary.txt", "latin.txt", "cut.gz", "wrong.jsonl", "empty.txt", "absent.txt"] {
        let ended = pawl_in(folder.path(), &["data", "add", "mine", file]);
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{file}: {}", ended.stderr);
        assert!(ended.stderr.contains(file), "{file}: {}", ended.stderr);
        assert!(!folder.path().join("lab/data/mine").exists(), "{file} left a half-made data set");
    }
    let ended = pawl_in(folder.path(), &["data", "show", "mine"]);
    assert!(ended.stderr.contains("there is no data set"), "{}", ended.stderr);
}
