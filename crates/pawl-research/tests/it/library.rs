//! The effect library: derived, pooled, exported, imported, revoked, and read by the optimizer.

use crate::fake::{Choice, Fake, asked, new_lab};
use pawl_ledger::Ledger;
use pawl_record::{
    CampaignBudget, Category, Change, DataRef, Effect, EffectContext, EffectSource, Precision, SCHEMA,
    SettingValue,
};
use pawl_research::campaign;
use pawl_research::library::{self, LibraryError, estimate, pool, posterior};
use pawl_research::options::CampaignOptions;
use pawl_research::researcher::Researcher;
use pawl_research::retract::retract;
use pawl_research::store::Store;
use std::path::Path;

fn effect(setting: &str, mean: f64, standard_error: f64) -> Effect {
    let value = |text: &str| SettingValue::Text(text.into());
    Effect {
        proposal: 1,
        changes: vec![Change { setting: setting.into(), from: value("o0"), to: value("o1") }],
        category: Category::Choice,
        context: EffectContext {
            recipe: "fake".into(),
            depth: 4,
            flops: 1e12,
            precision: Precision::F32,
            data: DataRef { name: "crates".into(), hash: "0".into() },
            optimizer: None,
            tokens_per_param: Some(20.0),
        },
        decision: "undecided".into(),
        pairs: 4,
        fresh: false,
        mean,
        standard_error,
        posterior_mean: mean,
        half_width: 0.1,
    }
}

fn source(id: &str, effects: Vec<Effect>) -> EffectSource {
    EffectSource { schema: SCHEMA, source: id.into(), gathered_unix_s: 5, pair_sd: 0.02, effects }
}

#[test]
fn an_estimate_leans_on_the_campaigns_noise_where_pairs_are_few() {
    let one = estimate(&[0.03], 0.02).unwrap();
    assert!((one.mean - 0.03).abs() < 1e-12 && (one.standard_error - 0.02).abs() < 1e-12);
    // (2 sd^2 + scatter) / (2 + 3) with scatter 0 over 4 pairs.
    let quiet = estimate(&[0.03; 4], 0.02).unwrap();
    assert!((quiet.standard_error - (2.0 * 0.0004 / 5.0f64 / 4.0).sqrt()).abs() < 1e-12, "{quiet:?}");
    assert_eq!(estimate(&[], 0.02), None);
    let (mean, variance) = posterior(0.04, 0.01, 0.1);
    assert!((mean - 0.02).abs() < 1e-12 && (variance - 0.005).abs() < 1e-12);
}

#[test]
fn labs_are_pooled_by_dersimonian_and_laird() {
    // By hand: y = 0.1, 0.3, v = 0.01, 0.01: mean 0.2, Q = 2, rest = 200 - 100 = 100, tau^2 = (2 - 1) / 100.
    let sources = [
        source("aaaaaaaaaaaa", vec![effect("s", 0.1, 0.1)]),
        source("bbbbbbbbbbbb", vec![effect("s", 0.3, 0.1)]),
    ];
    let pooled = pool(&sources);
    assert_eq!((pooled.len(), pooled[0].labs, pooled[0].trials, pooled[0].pairs), (1, 2, 2, 8));
    assert!((pooled[0].mean - 0.2).abs() < 1e-12, "{pooled:?}");
    assert!((pooled[0].tau - 0.1).abs() < 1e-12, "{pooled:?}");
    assert!((pooled[0].standard_error - 0.1).abs() < 1e-12, "{pooled:?}");
    // Labs that agree have no spread, and precision counts: weights 100 and 400.
    let sources = [
        source("aaaaaaaaaaaa", vec![effect("s", 0.10, 0.1)]),
        source("bbbbbbbbbbbb", vec![effect("s", 0.15, 0.05)]),
    ];
    let pooled = pool(&sources);
    assert!(pooled[0].tau == 0.0 && (pooled[0].mean - 0.14).abs() < 1e-12, "{pooled:?}");
    // Two trials of one lab are one lab.
    let sources = [source("aaaaaaaaaaaa", vec![effect("s", 0.1, 0.1), effect("s", 0.3, 0.1)])];
    let pooled = pool(&sources);
    assert!(
        pooled[0].tau == 0.0 && (pooled[0].standard_error - 0.1 / 2f64.sqrt()).abs() < 1e-12,
        "{pooled:?}"
    );
}

fn world(seed: u64) -> Fake {
    let choice =
        |name: &str, gains: &[f64]| Choice { name: name.into(), gains: gains.to_vec(), silent: false };
    let mut choices: Vec<Choice> = (0..12).map(|i| choice(&format!("idle{i:02}"), &[0.0, 0.0])).collect();
    choices.push(choice("good", &[0.0, 0.12]));
    choices.push(choice("bad", &[0.0, -0.12]));
    Fake::new(seed, choices, Vec::new())
}

fn run(lab: &Path, seed: u64, trials: u64) {
    // In steps: effects of single changes are what travels.
    let asked = asked(lab, seed, CampaignBudget::Trials(trials));
    let options = CampaignOptions { researcher: Researcher::Steps, ..asked };
    campaign::run(&options, &world(seed), &mut |_| {}).unwrap();
}

/// Number of the proposal that first turned a setting.
fn first_of(lab: &Path, setting: &str) -> u64 {
    let proposals = Store::new(lab).proposals().unwrap();
    proposals.iter().find(|it| it.changes[0].setting == setting).map_or(u64::MAX, |it| it.number)
}

#[test]
fn effects_travel_between_labs_guide_the_optimizer_and_are_revoked() {
    let (here, there, file) = (new_lab(), new_lab(), new_lab());
    run(here.path(), 1, 120);
    let file = file.path().join("effects.json");
    let ledger = Ledger::open(here.path()).unwrap();
    let exported = library::export(here.path(), &ledger, &file).unwrap();
    let own = &exported.sources[0];
    let of = |setting: &str| own.effects.iter().find(|it| it.changes[0].setting == setting).unwrap();
    assert!((of("good").mean - 0.12).abs() < 0.04, "{:?}", of("good"));
    assert!(of("good").fresh && of("good").posterior_mean < of("good").mean && of("bad").mean < 0.0);
    // Back home there is nothing to learn from it.
    assert_eq!(library::import(here.path(), &file).unwrap(), []);

    let taken = library::import(there.path(), &file).unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!(library::import(there.path(), &file).unwrap(), [], "twice is once");
    run(there.path(), 2, 60);
    let cold = new_lab();
    run(cold.path(), 2, 60);
    let (warm, cold) = (first_of(there.path(), "good"), first_of(cold.path(), "good"));
    println!("the gain was proposed as #{warm} with effects from elsewhere, as #{cold} without");
    assert!(warm <= 2 && warm < cold);
    assert!(first_of(there.path(), "bad") > 2);

    // What is passed on keeps its source; what is revoked is gone.
    let ledger = Ledger::open(there.path()).unwrap();
    assert_eq!(library::export(there.path(), &ledger, &file).unwrap().sources.len(), 2);
    let gone = library::revoke(there.path(), &own.source).unwrap();
    assert_eq!(gone.effects, own.effects);
    assert!(library::imported(there.path()).unwrap().is_empty());
    let again = library::revoke(there.path(), &own.source);
    assert!(matches!(again, Err(LibraryError::NoSuchSource { .. })), "{again:?}");
    assert_eq!(library::export(there.path(), &ledger, &file).unwrap().sources.len(), 1);
}

#[test]
fn a_retracted_keep_has_no_effect() {
    let lab = new_lab();
    run(lab.path(), 1, 120);
    let kept = Store::new(lab.path()).champions().unwrap()[1].proposal.unwrap();
    let has = || {
        let own = library::own(lab.path(), &Ledger::open(lab.path()).unwrap()).unwrap().unwrap();
        own.effects.iter().any(|it| it.proposal == kept)
    };
    assert!(has());
    retract(lab.path(), &kept.to_string(), "wrong", 0).unwrap();
    assert!(!has());
}

#[test]
fn a_file_that_no_lab_wrote_is_refused() {
    let (lab, other) = (new_lab(), new_lab());
    let file = other.path().join("effects.json");
    let refused = |sources: Vec<EffectSource>| {
        let document = pawl_record::EffectFile { schema: SCHEMA, sources };
        pawl_record::write_json(&file, &document).unwrap();
        library::import(lab.path(), &file)
    };
    assert!(matches!(refused(vec![source("../../x/yz.", vec![])]), Err(LibraryError::Wrong { .. })));
    let broken = effect("s", 0.1, 0.0);
    assert!(matches!(refused(vec![source("aaaaaaaaaaaa", vec![broken])]), Err(LibraryError::Wrong { .. })));
    assert!(library::imported(lab.path()).unwrap().is_empty());
    assert!(refused(vec![source("aaaaaaaaaaaa", vec![effect("s", 0.1, 0.1)])]).is_ok());
}
