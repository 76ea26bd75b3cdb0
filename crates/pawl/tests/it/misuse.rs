//! Wrong commands: one clear error on stderr, nothing on stdout, exit code 2.

use crate::process::{pawl, pawl_in};

fn check_misuse(args: &[&str], said: &str) {
    let ended = pawl(args);
    assert_eq!(ended.code, 2, "{args:?}: {}", ended.stderr);
    assert_eq!(ended.stdout, "", "{args:?}");
    assert!(ended.stderr.starts_with("error: "), "{args:?}: {}", ended.stderr);
    assert!(ended.stderr.contains(said), "{args:?}: {said:?} in {}", ended.stderr);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    check_misuse(&["fly"], "unrecognized subcommand 'fly'");
    check_misuse(&["train"], "<FILE>");
    check_misuse(&["train", "tiny", "--depth", "0"], "0 is not in 1..");
    check_misuse(&["train", "tiny", "--flops", "0"], "must be above 0");
    check_misuse(&["train", "tiny", "--flops", "-1"], "--flops");
    check_misuse(&["train", "tiny", "--flops", "nan"], "must be finite");
    check_misuse(&["train", "tiny", "--tokens", "0"], "must be above 0");
    check_misuse(&["train", "tiny", "--steps", "1.5"], "is not a whole number");
    check_misuse(&["train", "tiny", "--steps", "1", "--flops", "1e9"], "cannot be used with");
    check_misuse(&["train", "tiny", "--set", "width"], "name=value");
    check_misuse(&["train", "tiny", "--threads", "0"], "0 is not in 1..");
    check_misuse(&["research", "--minutes", "0"], "must be above 0");
    check_misuse(&["research", "--minutes", "1", "--trials", "1"], "cannot be used with");
    check_misuse(&["research", "--flops", "1e6"], "1.00 MFLOP a trial is too little");
    check_misuse(&["research", "--recipe", "nothing"], "there is no recipe nothing");
    check_misuse(&["research", "--researcher", "oracle"], "optimizer");
    check_misuse(&["bench", "nothing"], "there is no recipe nothing");
    check_misuse(&["bench", "--precision", "f16"], "f16");
    check_misuse(&["bench", "tiny", "--threads", "0"], "0 is not in 1..");
    check_misuse(&["retract", "3"], "--why");
    check_misuse(&["replicate", "3", "--seeds", "0"], "0 is not in 1..");
    check_misuse(&["effects", "export"], "<FILE>");
    check_misuse(&["sample"], "<RUN>");
    check_misuse(&["data", "add", "name"], "<PATH>");
}

#[test]
fn a_campaign_file_that_cannot_be_meant_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    for (text, said, hint) in [
        (
            "seed = 1\nalhpa = 2\n",
            "error: campaign.toml:2: there is no key `alhpa`",
            "did you mean `alpha` of [judge]?",
        ),
        ("[judge]\nalpha = 2\n", "error: campaign.toml:2: `alpha` must be between 0 and 1", ""),
        (
            "api_key = \"sk-123\"\n",
            "error: campaign.toml:1: `api_key` is refused in a campaign file",
            "remove it",
        ),
        ("[caps]\nminutes = 1\ntrials = 1\n", "minutes and trials are both given", "--explain"),
        ("researcher = \"oracle\"\n", "there is no researcher oracle", ""),
        ("seed = \n", "error: campaign.toml:1: this is not TOML", ""),
        // A file may name any researcher but one that costs money.
        ("seed = 1\nresearcher = \"claude\"\n", "campaign.toml:2 names it", "--researcher claude"),
        ("researcher = \"optimizer:0.5,openai=m:0.5\"\n", "may not spend money", "--researcher optimizer"),
    ] {
        std::fs::write(folder.path().join("campaign.toml"), text).unwrap();
        let ended = pawl_in(folder.path(), &["research"]);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{text}: {}", ended.stderr);
        assert!(ended.stderr.contains(said) && ended.stderr.contains(hint), "{text}: {}", ended.stderr);
        assert!(!ended.stderr.contains("sk-123"), "{}", ended.stderr);
    }
    let missing = pawl_in(folder.path(), &["research", "--campaign", "nowhere.toml"]);
    assert_eq!(missing.code, 2, "{}", missing.stderr);
    assert!(missing.stderr.contains("nowhere.toml cannot be read"), "{}", missing.stderr);
}

#[test]
fn no_command_at_all_shows_what_there_is() {
    let ended = pawl(&[]);
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    assert!(ended.stderr.contains("Usage: pawl"), "{}", ended.stderr);
}
