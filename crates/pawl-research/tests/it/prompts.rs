//! Everything a language model is told, word for word, for a lab that never changes: `snapshots/` holds it, and a
//! change of a prompt, of a tool or of what fills their places shows there. The reference of the recipe language, which has
//! tests of its own and grows with the library, is left out.

use crate::fake::new_lab;
use crate::model_server::{Act, Server, error};
use crate::models::{model, quick};
use crate::recipe_world::{self, RecipeWorld};
use pawl_record::{GroupVitals, LayerScale, LearningPoint, Promotion, RunResult, RunStatus, SCHEMA, Vitals};
use pawl_research::campaign;
use pawl_research::models::Service;
use pawl_research::models::spend::Caps;
use pawl_research::options::CampaignOptions;
use pawl_research::prompt;
use pawl_research::researcher::Researcher;
use pawl_research::view::Lab;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// A campaign by the plainest rule, with a champion of which the run is on file.
fn worked() -> (tempfile::TempDir, RecipeWorld) {
    let (lab, world) = (new_lab(), RecipeWorld::new("shift", 0.05));
    let options = recipe_world::asked(lab.path(), Researcher::OneAtATime, 30);
    let report = campaign::run(&options, &world, &mut |_| {}).unwrap();
    run_of(lab.path(), report.champions.last().unwrap());
    (lab, world)
}

fn run_of(lab: &Path, champion: &Promotion) {
    let series = |first: f64| (0..8).map(|idx| Some(first * (1.0 + f64::from(idx)))).collect::<Vec<_>>();
    let group = |name: &str, num_params| GroupVitals {
        name: name.to_string(),
        num_params,
        weight_rms: series(0.02),
        gradient_rms: series(0.001),
        update_rms: series(0.0004),
    };
    let layer = |name: &str, rms| LayerScale { name: name.to_string(), rms: Some(rms) };
    let result = RunResult {
        schema: SCHEMA,
        id: champion.run.clone(),
        status: RunStatus::Finished,
        reason: None,
        val_bpb: Some(champion.mean_bpb),
        val_bpb_by_domain: [("code".to_string(), 2.9), ("prose".to_string(), 3.1)].into(),
        sealed_bpb: None,
        steps: 160,
        tokens: 20_480,
        flops: 1e10,
        train_seconds: 1.0,
        total_seconds: 1.5,
        tokens_per_sec: 20_480.4,
        mfu: 0.5,
        peak_memory_bytes: 50_000_000,
        checkpoint_hash: None,
        curve: [40, 80, 120, 160].map(|step| LearningPoint { step, loss: 8.0 - 0.01 * step as f64 }).to_vec(),
        vitals: Some(Vitals {
            steps: vec![1, 23, 46, 69, 91, 114, 137, 160],
            groups: vec![group("blocks.*.attn.q.weight", 1024), group("embed", 8192)],
            layers: vec![layer("into blocks.0", 0.0283), layer("out of blocks.0", 0.61)],
            time: [("products".to_string(), 0.7), ("optimizer".to_string(), 0.3)].into(),
        }),
    };
    let folder = lab.join("runs").join(&champion.run);
    std::fs::create_dir_all(&folder).unwrap();
    pawl_record::write_json(&folder.join("result.json"), &result).unwrap();
}

fn told(text: &str) -> String {
    text.replace(pawl_recipe::reference(), "[the reference]")
}

#[test]
fn the_system_prompt_is_as_it_was_read() {
    assert!(prompt::system().contains(pawl_recipe::reference()));
    insta::assert_snapshot!("system", told(&prompt::system()));
}

#[test]
fn the_round_is_as_it_was_read() {
    let (lab, world) = worked();
    let seen = Lab::open(lab.path(), &world, 2).unwrap().unwrap();
    insta::assert_snapshot!("round", seen.show(prompt::round).unwrap());
}

/// What each kind of service is sent first, all of it.
fn first_request(service: Service, answers: impl Fn(&Value) -> Act + Send + 'static) -> Vec<String> {
    let (lab, world) = worked();
    let server = Server::start(move |seen| answers(&seen.body));
    let model = model(service, &server, Caps::default(), quick());
    let asked = recipe_world::asked(lab.path(), Researcher::Model(Arc::new(model)), 60);
    // The same lab goes on under another researcher; the campaign's own record of it is not what is looked at.
    let manifest = lab.path().join("campaign/campaign.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"one_at_a_time\"", &format!("{:?}", asked.researcher.name())))
        .unwrap();
    let options = CampaignOptions { workers: 1, ..asked };
    campaign::run(&options, &world, &mut |_| {}).unwrap();
    let shown = |body: &Value| told(&serde_json::to_string_pretty(body).unwrap().replace("\\n", "\n"));
    let reference = serde_json::to_string(pawl_recipe::reference()).unwrap();
    let reference = reference.trim_matches('"').replace("\\n", "\n");
    server.seen().iter().map(|seen| shown(&seen.body).replace(&reference, "[the reference]")).collect()
}

fn silent() -> Act {
    error(401, "authentication_error")
}

#[test]
fn the_messages_api_is_asked_as_it_was_read() {
    let requests = first_request(Service::Messages, |_| silent());
    insta::assert_snapshot!("messages_request", requests[0]);
}

#[test]
fn chat_completions_are_asked_as_it_was_read() {
    let requests = first_request(Service::Chat, |_| silent());
    insta::assert_snapshot!("chat_request", requests[0]);
}

#[test]
fn a_server_without_tools_is_told_of_them_in_words() {
    let requests = first_request(Service::Chat, |body| match body["tools"].is_array() {
        true => error(400, "this model does not support tools"),
        false => silent(),
    });
    insta::assert_snapshot!("chat_request_in_words", requests[1]);
}
