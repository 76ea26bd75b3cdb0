//! `pawl check`: what is said of a recipe, and of what is not one.

use crate::process::{pawl, pawl_in};

#[test]
fn shipped_recipes_are_described() {
    for name in ["tiny", "nano", "tiny.star"] {
        let text = pawl(&["check", name]);
        assert_eq!(text.code, 0, "{}", text.stderr);
        for key in ["fingerprint: ", "num_params: ", "flops_per_token: ", "memory: about "] {
            assert!(text.stdout.lines().any(|line| line.starts_with(key)), "{key} in {}", text.stdout);
        }
    }
    let json = pawl(&["check", "tiny", "--depth", "2", "--json"]).json();
    assert_eq!(json["schema"], 1);
    let depth =
        json["settings"].as_array().unwrap().iter().find(|setting| setting["name"] == "depth").unwrap();
    assert_eq!((&depth["kind"], &depth["value"]), (&"dial".into(), &2.into()));
    assert_eq!(json["micro_batch"], 2, "five hundred tokens at once where the recipe does not say");
    assert!(json["flops_per_step"].as_f64().is_some_and(|flops| flops > 1e6));
}

#[test]
fn the_fingerprint_follows_the_program_and_not_its_words() {
    let fingerprint = |args: &[&str]| pawl(args).json()["fingerprint"].as_str().unwrap().to_string();
    let tiny = fingerprint(&["check", "tiny", "--json"]);
    assert_eq!(
        tiny,
        fingerprint(&["check", "tiny", "--set", "activation=gelu", "--json"]),
        "a default said aloud"
    );
    assert_ne!(tiny, fingerprint(&["check", "tiny", "--set", "activation=silu", "--json"]));
}

#[test]
fn what_is_not_a_recipe_gets_one_error() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("empty.star", b"");
    write("binary.star", &[0xff, 0xfe, 0, 1]);
    write("syntax.star", b"x = 1 +\n");
    write("loop.star", b"def f():\n    for i in range(1000000000):\n        pass\nf()\n");
    write("bomb.star", b"x = [0] * 10000000000\n");
    write("nothing.star", b"x = 1\n");
    std::fs::create_dir(folder.path().join("folder.star")).unwrap();
    for (file, code, said) in [
        ("/dev/zero", 1, "more than 512 KiB"),
        ("/proc/self/mem", 1, "Input/output error"),
        ("empty.star", 1, "empty"),
        ("binary.star", 1, "not UTF-8"),
        ("syntax.star", 1, "syntax.star:1"),
        ("loop.star", 1, "come to an end"),
        ("bomb.star", 1, "bomb.star:1"),
        ("nothing.star", 1, "recipe(...)"),
        ("folder.star", 1, "cannot be read"),
        ("missing.star", 2, "shipped recipes are tiny, nano"),
    ] {
        let ended = pawl_in(folder.path(), &["check", file]);
        assert_eq!((ended.code, ended.stdout.as_str()), (code, ""), "{file}: {}", ended.stderr);
        assert!(
            ended.stderr.starts_with("error: ") && ended.stderr.contains(said),
            "{file}: {}",
            ended.stderr
        );
        assert!(ended.stderr.lines().count() <= 4, "{file}: {}", ended.stderr);
    }
    let ended = pawl_in(folder.path(), &["check", "tiny", "--set", "wdith=3"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("no setting `wdith`"), "{}", ended.stderr);
}
