//! Objectives of lessons against numbers worked out by hand, with the reference interpreter.

use crate::GPT;
use pawl_engine::reference::{Leaves, Tensor, leaf, run};
use pawl_graph::InputKind;
use pawl_recipe::{Lesson, Overrides, Recipe, RecipeError, Source, shipped, std_only};
use pawl_record::SettingValue;

const RL: [&str; 9] = [
    "reward",
    "group_mean",
    "group_std",
    "group_size",
    "old_log_prob",
    "reference_log_prob",
    "token_share",
    "completion_share",
    "limit_share",
];

/// Logits are the table of the token itself: the log-probabilities are known.
const TABLE: &str = r#"
load("std/optim.star", "sgd")
def model(tokens):
    return gather(param("table", (3, 3), values([0.0, 1.0, 2.0, 1.0, 1.0, 1.0, 3.0, 0.0, 0.0])), tokens)
recipe(model = model, optimizer = lambda p: sgd(0.1), seq_len = 4, tokens_per_step = 8, vocab_size = 3)
"#;

fn taught(
    text: &str,
    objective: &str,
    signals: &[&str],
    settings: &[(&str, SettingValue)],
) -> Result<Recipe, RecipeError> {
    let lesson = Lesson {
        source: Source { name: "objective.star".into(), text: objective.into() },
        signals: signals.iter().map(ToString::to_string).collect(),
        num_rows: 1,
        row_len: 2,
        dropout: false,
    };
    let values = settings.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    let source = Source { name: "test.star".into(), text: text.into() };
    Recipe::load_lesson(&source, &Overrides { depth: None, values }, &std_only, Some(&lesson))
}

/// The loss of tokens 0, 2 with targets 2, 0 for the numbers given.
fn loss(recipe: &Recipe, signals: &[(&str, [f64; 2])]) -> f64 {
    let graph = recipe.train_graph(1).unwrap();
    let mut leaves = Leaves::new();
    let table = vec![0.0, 1.0, 2.0, 1.0, 1.0, 1.0, 3.0, 0.0, 0.0];
    leaves.insert(leaf(&InputKind::Param, "table"), Tensor::Real(table));
    leaves.insert(leaf(&InputKind::Tokens, "tokens"), Tensor::Int(vec![0, 2]));
    leaves.insert(leaf(&InputKind::Targets, "targets"), Tensor::Int(vec![2, 0]));
    for (name, values) in signals {
        leaves.insert(leaf(&InputKind::Signal, name), Tensor::Real(values.to_vec()));
    }
    run(&graph.graph, &leaves, &[graph.loss], |x| x)[0].real()[0]
}

const OLD: [f64; 2] = [-0.7076059644443802, 0.005077043579039403];

fn check_policy_gradient(kind: &str, kl_weight: f64, expected: f64) {
    let settings =
        [("rl_loss", SettingValue::Text(kind.into())), ("rl_kl_weight", SettingValue::Float(kl_weight))];
    let recipe = taught(TABLE, shipped("std/lessons/rl.star").unwrap(), &RL, &settings).unwrap();
    let signals = [
        ("reward", [1.0, 0.0]),
        ("group_mean", [0.25, 0.5]),
        ("group_std", [0.4, 0.5]),
        ("group_size", [4.0, 2.0]),
        ("old_log_prob", OLD),
        ("reference_log_prob", [-0.5, -0.2]),
        ("token_share", [0.5, 0.5]),
        ("completion_share", [0.25, 0.75]),
        ("limit_share", [0.125, 0.0625]),
    ];
    let got = loss(&recipe, &signals);
    assert!((got - expected).abs() < 1e-6, "{kind} with {kl_weight}: {got} is not {expected}");
}

#[test]
fn each_policy_gradient_is_the_formula_of_its_paper() {
    check_policy_gradient("reinforce", 0.0, -0.09827309389662656);
    check_policy_gradient("rloo", 0.0, -0.11218001231975293);
    check_policy_gradient("grpo", 0.0, 0.11613295490649567);
    check_policy_gradient("dr_grpo", 0.0, -0.08422383068637626);
    check_policy_gradient("dapo", 0.0, -0.7473718316119489);
    check_policy_gradient("cispo", 0.0, 0.4727570873167211);
    check_policy_gradient("grpo", 0.5, 0.1186500133917259);
}

#[test]
fn fine_tuning_weighs_each_target_by_its_share() {
    let recipe = taught(TABLE, shipped("std/lessons/sft.star").unwrap(), &["share"], &[]).unwrap();
    let got = loss(&recipe, &[("share", [0.7, 0.2])]);
    assert!((got - 0.30430876639525817).abs() < 1e-9, "{got}");
}

#[test]
fn a_lesson_keeps_the_model_and_replaces_loss_batch_and_learning_rate() {
    let objective = "scale = knob(\"scale\", 0.5, low = 0.1, high = 1.0)
def lr_multiplier(t):
    return scale * (t.step + 1)
def loss(logits, targets, share):
    return (token_losses(logits, targets) * share).sum()
";
    let base = crate::load(GPT).unwrap();
    let settings = [("scale", SettingValue::Float(0.25))];
    let recipe = taught(GPT, objective, &["share"], &settings).unwrap();
    assert_eq!((recipe.seq_len(), recipe.row_len(), recipe.tokens_per_step()), (32, 2, 2));
    let names = |recipe: &Recipe| {
        recipe.params().iter().map(|p| (p.name.clone(), p.shape.clone())).collect::<Vec<_>>()
    };
    assert_eq!(names(&recipe), names(&base));
    let multiplier =
        recipe.update_graph().schedules.iter().position(|s| s.function == "lr_multiplier").unwrap();
    assert_eq!(recipe.schedule_table(3).unwrap()[multiplier], [0.25, 0.5, 0.75]);
    let own: Vec<String> = recipe.lesson_settings().into_iter().map(|s| s.name).collect();
    assert_eq!(own, ["scale"]);
    assert_ne!(recipe.fingerprint().unwrap(), base.fingerprint().unwrap());
}

#[test]
fn kept_optimizer_state_is_corrected_by_its_own_age() {
    let text = "load(\"std/optim.star\", \"adamw\")
def model(tokens):
    return gather(param(\"table\", (3, 3), normal(1)), tokens)
rule = adamw(0.1, (0.9, 0.99))
recipe(model = model, optimizer = lambda p: rule, seq_len = 4, tokens_per_step = 8, vocab_size = 3)
";
    let recipe = crate::load(text).unwrap();
    let (fresh, aged) = (recipe.schedule_table(2).unwrap(), recipe.schedule_table_from(2, 100).unwrap());
    assert!(fresh.iter().flatten().any(|x| (x - 1.0 / (1.0 - 0.9)).abs() < 1e-4), "{fresh:?}");
    assert!(
        aged.iter().flatten().any(|x| (f64::from(*x) - 1.0 / (1.0 - 0.9f64.powi(101))).abs() < 1e-6),
        "{aged:?}"
    );
}

#[test]
fn what_is_wrong_with_an_objective_is_said() {
    for (objective, said) in [
        ("x = 1", "the lesson has no loss"),
        ("loss = 3", "loss is a int, not a function"),
        ("def loss(logits, targets): return logits.sum()", "share"),
        ("def loss(logits, targets, share): return logits", "not a scalar"),
        (
            "def loss(logits, targets, share): return cross_entropy(logits * share.reshape(1, 2, 1) + to_float(targets).reshape(1, 2, 1), targets)",
            "the logits",
        ),
    ] {
        let Err(error) = taught(TABLE, objective, &["share"], &[]) else { panic!("{objective} is taken") };
        assert!(error.to_string().contains(said), "{objective}: {error}");
    }
    let lesson = Lesson {
        source: Source {
            name: "o.star".into(),
            text: "def loss(logits, targets): return logits.sum()".into(),
        },
        signals: Vec::new(),
        num_rows: 1,
        row_len: 5,
        dropout: false,
    };
    let source = Source { name: "test.star".into(), text: TABLE.into() };
    let Err(error) = Recipe::load_lesson(&source, &Overrides::default(), &std_only, Some(&lesson)) else {
        panic!("rows longer than the model")
    };
    assert!(error.to_string().contains("the recipe has 4 positions"), "{error}");
}
