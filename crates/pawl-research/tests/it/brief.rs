//! `campaign.toml`: what is read from it, what is refused, and what `--explain` prints.

use crate::fake::{asked, new_lab};
use pawl_record::{CampaignBudget, CampaignManifest, Ladder, Precision, RecipeRef, Rung, SCHEMA, Settings};
use pawl_research::brief::{Brief, BriefError, Source, Value, is_refused};

fn brief() -> Brief {
    Brief::new("crates")
}

fn read(text: &str) -> Result<Brief, BriefError> {
    let mut brief = brief();
    brief.read(text, "campaign.toml").map(|()| brief)
}

/// The error of a file, its hint behind an arrow.
fn refused(text: &str) -> String {
    let error = read(text).unwrap_err();
    format!("{error} -> {}", error.hint.as_deref().unwrap_or_default())
}

#[test]
fn nothing_said_is_a_campaign_of_two_rungs() {
    let mut brief = brief();
    brief.settle(3).unwrap();
    let rung = |depth, flops| Rung { depth, flops, precision: Precision::F32 };
    assert_eq!(brief.ladder().unwrap(), Ladder::new(vec![rung(3, 5e11), rung(4, 2e12)]).unwrap());
    assert_eq!(brief.budget(), CampaignBudget::Minutes(60.0));
    assert_eq!(brief.judge, pawl_research::options::judge_settings());
}

#[test]
fn a_file_says_what_it_says_and_the_command_line_wins() {
    let mut brief = read(
        "seed = 7\nrecipe = 'nano.star'\nprecision = \"bf16\"\n[judge]\nalpha = 0.1\nmax_pairs = 20\n[climb]\nlevel = 0.2\n\
         [caps]\ntrials = 1e3\n[[rung]]\nflops = 1e11\n[[rung]]\n[[rung]]\ndepth = 9\n",
    )
    .unwrap();
    brief.say("", "seed", Value::Whole(8), Source::Flag("--seed")).unwrap();
    brief.say("caps", "minutes", Value::Number(5.0), Source::Flag("--minutes")).unwrap();
    brief.say_rung(0, "depth", Value::Whole(2), Source::Flag("--depth")).unwrap();
    brief.settle(3).unwrap();
    assert_eq!((brief.seed, brief.judge.alpha, brief.judge.max_pairs), (8, 0.1, 20));
    assert_eq!((brief.judge.climb_level, brief.judge.min_pairs), (0.2, 3));
    assert_eq!(brief.budget(), CampaignBudget::Minutes(5.0), "the flag is later than the file");
    let ladder = brief.ladder().unwrap();
    let rungs: Vec<(u64, f64)> = ladder.all().iter().map(|it| (it.depth, it.flops)).collect();
    assert_eq!(rungs, [(2, 1e11), (3, 4e11), (9, 1.6e12)]);
    assert_eq!(ladder.first().precision, Precision::Bf16);
}

#[test]
fn a_ladder_of_one_rung_is_one_table() {
    let mut brief = read("[[rung]]\nflops = 1e10\n").unwrap();
    brief.settle(4).unwrap();
    assert_eq!(brief.ladder().unwrap().all().len(), 1);
    brief.say_num_rungs(3);
    brief.settle(4).unwrap();
    assert_eq!(brief.ladder().unwrap().all()[2].flops, 1.6e11);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest() {
    for (text, expected) in [
        ("seed = 1\nsead = 2\n", "campaign.toml:2: there is no key `sead` -> did you mean `seed`?"),
        (
            "[judge]\n\nalhpa = 0.1\n",
            "campaign.toml:3: there is no key `alhpa` in [judge] -> did you mean `alpha`?",
        ),
        ("alpha = 0.1\n", "campaign.toml:1: there is no key `alpha` -> did you mean `alpha` of [judge]?"),
        (
            "[[rung]]\ndepth = 3\n[[rung]]\nflop = 1e9\n",
            "campaign.toml:4: there is no key `flop` in [[rung]] -> did you mean `flops`?",
        ),
        ("[cap]\nminutes = 1\n", "campaign.toml:1: there is no table [cap] -> did you mean [caps]?"),
        (
            "[caps]\nbananas_per_hour = 1\n",
            "campaign.toml:2: there is no key `bananas_per_hour` in [caps] -> `pawl research --explain` prints every \
             key there is",
        ),
    ] {
        assert_eq!(refused(text), expected);
    }
}

#[test]
fn a_wrong_value_is_named_with_its_line() {
    for (text, expected) in [
        ("seed = 'x'\n", "campaign.toml:1: `seed` must be a number"),
        ("\nseed = -1\n", "campaign.toml:2: `seed` must be 0 or more"),
        ("seed = 1.5\n", "campaign.toml:1: `seed` must be a whole number"),
        ("recipe = 3\n", "campaign.toml:1: `recipe` must be text in quotes, and is a number"),
        ("precision = 'f16'\n", "campaign.toml:1: `precision` must be one of f32, bf16"),
        ("[judge]\nalpha = 1.0\n", "campaign.toml:2: `alpha` must be between 0 and 1"),
        ("[judge]\nmin_effect_bpb = nan\n", "campaign.toml:2: `min_effect_bpb` must be a number"),
        ("[judge]\nmin_pairs = 1\n", "campaign.toml:2: `min_pairs` must be 2 or more"),
        ("[caps]\nminutes = inf\n", "campaign.toml:2: `minutes` must be a number"),
        (
            "[caps]\nminutes = true\n",
            "campaign.toml:2: `minutes` must be a number or text, and is true or false",
        ),
        ("judge = 3\n", "campaign.toml:1: `judge` is a table"),
        ("[rung]\ndepth = 3\n", "campaign.toml:1: `rung` is a list of tables"),
        ("rung = []\n", "campaign.toml:1: a ladder has at least one rung"),
        ("rung = [3]\n", "campaign.toml:1: `rung` is a list of tables"),
        ("seed = 1\nseed = 2\n", "campaign.toml:2: this is not TOML: duplicate key"),
        ("seed = 99999999999999999999\n", "campaign.toml:1: `seed` is too large"),
    ] {
        assert_eq!(read(text).unwrap_err().to_string(), expected, "{text}");
    }
    let mut both = read("[caps]\nminutes = 1\ntrials = 2\n").unwrap();
    assert!(both.settle(3).unwrap_err().contains("minutes and trials"));
    let mut crossed = read("[judge]\nmin_pairs = 9\nmax_pairs = 3\n").unwrap();
    assert!(crossed.settle(3).unwrap_err().contains("pair limit"));
    let mut down = read("[[rung]]\nflops = 2e12\n[[rung]]\nflops = 1e12\n").unwrap();
    assert!(down.settle(3).unwrap_err().contains("more FLOPs than the one before"));
}

#[test]
fn keys_addresses_and_sandboxes_are_refused_by_name_and_never_repeated() {
    let secret = "hunter2-hunter2";
    for (name, sets) in [
        ("api_key", "a key"),
        ("ANTHROPIC_API_KEY", "a key"),
        ("apikey", "a key"),
        ("base_url", "the address of a service"),
        ("openai-base-url", "the address of a service"),
        ("sandbox", "how far programs are locked in"),
        ("sandbox_level", "how far programs are locked in"),
        ("auth_token", "a token of access"),
    ] {
        assert!(is_refused(name).is_some(), "{name}");
        for text in [
            format!("seed = 1\n{name} = '{secret}'\n"),
            format!("seed = 1\nresearcher = {{ {name} = '{secret}' }}\n"),
            format!("[{name}]\nx = '{secret}'\n"),
            format!("[[rung]]\n{name} = '{secret}'\n"),
            format!("[other.deep]\n{name} = '{secret}'\n"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.what.contains(&format!("`{name}` is refused")), "{text}: {error}");
            assert!(!format!("{error:?}").contains(secret), "{error:?}");
            assert!(name == "auth_token" || error.because.as_ref().unwrap().contains(sets), "{error:?}");
        }
    }
    // A line that is not TOML may hold one too.
    let error = read(&format!("seed = 1\napi_key = {secret} {secret}\n")).unwrap_err();
    assert!(!format!("{error:?}").contains(secret), "{error:?}");
    // What a file may set is refused by no such word.
    let mut settled = brief();
    settled.settle(3).unwrap();
    for entry in settled.entries() {
        assert_eq!(is_refused(&entry.key), None, "{}", entry.key);
    }
    assert_eq!(is_refused("tokens"), None);
}

fn manifest() -> CampaignManifest {
    let lab = new_lab();
    let options = asked(lab.path(), 5, CampaignBudget::Trials(9));
    CampaignManifest {
        schema: SCHEMA,
        id: "0".into(),
        recipe: RecipeRef { name: "small".into(), hash: "0".into(), file: "recipes/small.star".into() },
        settings: Settings::new(),
        rungs: options.rungs,
        data: options.data,
        seed: 5,
        researcher: "random".into(),
        judge: options.judge,
        budget: options.budget,
        version: "0".into(),
        created_unix_s: 0,
        machine: "none".into(),
    }
}

#[test]
fn the_explanation_is_the_campaign_and_says_where_it_came_from() {
    let mut brief = brief();
    brief.read("[judge]\nalpha = 0.1\n[[rung]]\n[[rung]]\nflops = 3e12\n", "campaign.toml").unwrap();
    brief.say("", "seed", Value::Whole(3), Source::Flag("--seed")).unwrap();
    brief.settle(3).unwrap();
    let text = brief.explain();
    assert_eq!(text, include_str!("explained.toml"), "{text}");
    let mut again = self::brief();
    again.read(&text, "explained.toml").unwrap();
    again.settle(9).unwrap();
    let plain = |brief: &Brief| brief.entries().into_iter().map(|it| (it.key, it.value)).collect::<Vec<_>>();
    assert_eq!(plain(&again), plain(&brief));
}

#[test]
fn the_labs_campaign_stands_where_nobody_says_otherwise() {
    let mut brief = brief();
    brief.continue_campaign(&manifest());
    brief.read("researcher = 'optimizer'\n", "campaign.toml").unwrap();
    brief.settle(3).unwrap();
    let source = |key: &str| brief.entries().into_iter().find(|it| it.key == key).unwrap().source;
    assert_eq!((brief.seed, brief.researcher.as_str(), brief.recipe.as_str()), (5, "optimizer", "small"));
    assert_eq!(brief.ladder().unwrap(), manifest().rungs);
    assert_eq!(source("seed"), "the lab's campaign");
    assert_eq!(source("rung[0].depth"), "the lab's campaign");
    assert_eq!(source("researcher"), "campaign.toml:1");
    assert_eq!(source("caps.minutes"), "default");
    assert_eq!(source("caps.trials"), "not set");
}

#[test]
fn text_of_any_kind_survives_the_explanation() {
    let mut brief = brief();
    let name = "a \"b\" \\ c\n\u{7f}\u{1b} ä";
    brief.say("", "recipe", Value::Text(name.to_string()), Source::Flag("--recipe")).unwrap();
    brief.settle(3).unwrap();
    let mut again = self::brief();
    again.read(&brief.explain(), "x").unwrap();
    assert_eq!(again.recipe, name);
}
