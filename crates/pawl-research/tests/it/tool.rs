//! The tools, called as a model or another program calls them.

use crate::model_server::{Act, Server};
use crate::models::{model, quick};
use crate::recipe_world::{self, RecipeWorld};
use pawl_record::{Category, SettingValue};
use pawl_research::campaign;
use pawl_research::models::spend::Caps;
use pawl_research::models::{Limits, Service};
use pawl_research::options::CampaignOptions;
use pawl_research::prompt;
use pawl_research::researcher::Researcher;
use pawl_research::tools::{self, Objection, Outcome, Submission, Tool};
use pawl_research::view::Lab;
use serde_json::{Value, json};
use std::sync::Arc;
use tempfile::TempDir;

/// A lab in which the optimizer has worked for a while.
fn worked() -> (TempDir, RecipeWorld) {
    let lab = crate::fake::new_lab();
    let world = RecipeWorld::new("nothing helps", 0.1);
    let options = recipe_world::asked(lab.path(), Researcher::Optimizer, 60);
    campaign::run(&options, &world, &mut |_| {}).unwrap();
    (lab, world)
}

fn call(lab: &TempDir, world: &RecipeWorld, name: &str, arguments: Value) -> Outcome {
    let lab = Lab::open(lab.path(), world, 2).unwrap().unwrap();
    lab.show(|context| tools::call(context, name, &arguments)).unwrap()
}

fn text(outcome: Outcome) -> String {
    match outcome {
        Outcome::Text(text) => text,
        other @ (Outcome::Refused(_) | Outcome::Submitted(_)) => panic!("{other:?}"),
    }
}

fn refused(outcome: Outcome) -> String {
    match outcome {
        Outcome::Refused(why) => why,
        other @ (Outcome::Text(_) | Outcome::Submitted(_)) => panic!("{other:?}"),
    }
}

fn submitted(outcome: Outcome) -> Submission {
    match outcome {
        Outcome::Submitted(submission) => *submission,
        other @ (Outcome::Text(_) | Outcome::Refused(_)) => panic!("{other:?}"),
    }
}

#[test]
fn there_are_at_most_fifteen_and_each_has_a_schema() {
    assert!(Tool::ALL.len() <= 15);
    for tool in Tool::ALL {
        assert_eq!(Tool::named(tool.name()), Some(tool));
        assert_eq!(tool.schema()["type"], "object", "{tool:?}");
        assert!(tool.description().len() > 30, "{tool:?}");
    }
}

#[test]
fn what_was_tried_can_be_looked_at() {
    let (lab, world) = worked();
    let list: Value = serde_json::from_str(&text(call(&lab, &world, "list_experiments", json!({})))).unwrap();
    let experiments = list["experiments"].as_array().unwrap();
    assert!(experiments.len() >= 4, "{list}");
    assert!(experiments.iter().all(|e| e["verdict"].is_string() && e["category"].is_string()));
    let some: Value =
        serde_json::from_str(&text(call(&lab, &world, "list_experiments", json!({"last": "2"})))).unwrap();
    assert_eq!(some["experiments"].as_array().unwrap().len(), 2);
    assert_eq!(some["earlier_left_out"], experiments.len() - 2);
    let one: Value =
        serde_json::from_str(&text(call(&lab, &world, "read_experiment", json!({"number": "#1"})))).unwrap();
    assert_eq!((&one["number"], one["pairs"].is_array()), (&json!(1), true));
    assert!(
        refused(call(&lab, &world, "read_experiment", json!({"number": 999}))).contains("no experiment #999")
    );
    let effects: Value = serde_json::from_str(&text(call(&lab, &world, "effects", json!({})))).unwrap();
    assert!(effects["by_category"]["knob"]["counts"].is_object(), "{effects}");
    let left: Value = serde_json::from_str(&text(call(&lab, &world, "budget_left", json!(null)))).unwrap();
    assert!(left["training_runs"].is_u64(), "{left}");
    assert!(
        text(call(&lab, &world, "read_library", json!({"file": "std/layers.star"}))).contains("def linear(")
    );
    assert!(text(call(&lab, &world, "recipe_reference", json!({}))).contains("attend(q, k, v"));
    assert!(text(call(&lab, &world, "read_recipe", json!({"which": 1}))).contains("A small GPT"));
}

#[test]
fn a_check_compiles_and_costs_nothing() {
    let (lab, world) = worked();
    let edits = |find: &str, replace: &str| json!({"edits": [{"find": find, "replace": replace}]});
    let fine = text(call(&lab, &world, "check_recipe", edits("width = 32", "width = 48")));
    let fine: Value = serde_json::from_str(&fine).unwrap();
    assert!(fine["num_params"].as_u64() > fine["champion_num_params"].as_u64(), "{fine}");
    let wrong = refused(call(
        &lab,
        &world,
        "check_recipe",
        edits("linear(rms_norm(x), \"head\"", "linear(tokens, \"head\""),
    ));
    assert!(wrong.contains(".star:"), "{wrong}");
    let twice = refused(call(&lab, &world, "check_recipe", edits("rms_norm(x)", "x")));
    assert!(twice.contains("occurs 3 times"), "{twice}");
    let never = refused(call(&lab, &world, "check_recipe", edits("no such line", "x")));
    assert!(never.contains("does not occur"), "{never}");
    let nothing = refused(call(&lab, &world, "check_recipe", json!({})));
    assert!(nothing.contains("nothing is changed"), "{nothing}");
    let cut = refused(call(&lab, &world, "check_recipe", json!("{\"recipe\": \"abc")));
    assert!(cut.contains("may have been cut off"), "{cut}");
    let same = text(call(&lab, &world, "check_recipe", edits("width = 32", "width = 32 # wide enough")));
    assert!(same.contains("same program as the champion"), "{same}");
}

#[test]
fn a_proposal_is_complete_or_refused_and_what_speaks_against_it_is_said() {
    let (lab, world) = worked();
    let propose = |more: Value| {
        let mut arguments = json!({"hypothesis": "a\nb", "gain_bpb": 0.02, "probability": 0.25});
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        call(&lab, &world, "propose", arguments)
    };
    let knob = submitted(propose(json!({"settings": {"lr": 0.00021}})));
    assert_eq!((knob.draft.category, knob.draft.hypothesis.as_str()), (Category::Knob, "a b"));
    assert_eq!(knob.draft.changes[0].to, SettingValue::Float(0.00021));
    assert_eq!(knob.objection, None);
    let edits = json!([{"find": "128 if wide else 64", "replace": "96"}]);
    assert!(refused(propose(json!({"edits": edits}))).contains("category is one of architecture"));
    let change = submitted(propose(json!({"edits": edits, "category": "architecture"})));
    assert!(change.draft.recipe.unwrap().contains("\"mlp\", 96)") && change.objection.is_none());
    let broken = json!([{"find": "linear(rms_norm(x), \"head\"", "replace": "linear(tokens, \"head\""}]);
    let broken = submitted(propose(json!({"edits": broken, "category": "architecture"})));
    assert!(matches!(broken.objection, Some(Objection::DoesNotCompile(_))), "{broken:?}");
    let same = submitted(propose(json!({"settings": {"lr": 0.01}})));
    assert!(matches!(same.objection, Some(Objection::Refused(_))), "{same:?}");
    let near = submitted(propose(json!({"settings": {"lr": 0.0103}})));
    assert!(matches!(near.objection, Some(Objection::Near(_))), "{near:?}");
    assert!(refused(propose(json!({"settings": {"depth": 8}}))).contains("belongs to the campaign"));
    assert!(
        refused(propose(json!({"settings": {"lr": 0.02}, "probability": 1.5}))).contains("between 0 and 1")
    );
    assert!(refused(propose(json!({"settings": {"lr": [1]}}))).contains("cannot be a list"));
    let large = json!({"recipe": "#".repeat(10 << 20), "category": "data"});
    assert!(refused(propose(large)).contains("at most"));
}

#[test]
fn every_place_of_the_prompts_is_filled() {
    let (lab, world) = worked();
    let seen = Lab::open(lab.path(), &world, 2).unwrap().unwrap();
    let told = seen.show(prompt::round).unwrap();
    for part in [
        "Data: \"crates\".",
        "def block(x, tokens, i):",
        "\"name\":\"lr\"",
        "\"verdict\":\"",
        "training runs are left",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!told.contains("{{") && !prompt::system().contains("{{"), "{told}");
}

#[test]
fn circling_one_idea_is_spoken_of() {
    let server = Server::start(|seen| {
        let number = seen.number;
        Act::Say(crate::model_server::Said::call(
            "propose",
            json!({"settings": {"lr": 0.0002 * 2f64.powi(number as i32)}, "hypothesis": "again", "gain_bpb": 0.0, "probability": 0.1}),
        ))
    });
    let lab = crate::fake::new_lab();
    let world = RecipeWorld::new("nothing helps", 0.1);
    let limits = Limits { conversations: 1, ..quick() };
    let researcher = Researcher::Model(Arc::new(model(Service::Messages, &server, Caps::default(), limits)));
    let options = CampaignOptions { workers: 1, ..recipe_world::asked(lab.path(), researcher, 60) };
    campaign::run(&options, &world, &mut |_| {}).unwrap();
    let state = |at: usize| server.seen()[at].body["messages"][0].to_string();
    assert!(!state(3).contains("another category") && state(4).contains("Make this one of another category"));
}
