//! A language model as the researcher of a real lab, behind a server on this machine: proposes an op composition
//! that is not among the choices, gets a shape error, mends it, is tried. The key it is asked with stays secret.

#[path = "../../../pawl-research/tests/it/model_server.rs"]
mod model_server;

use crate::process::{Ended, command, pawl_in};
use crate::train::lab;
use model_server::{Act, Said, Seen, Server};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const CANARY: &str = "sk-canary-5d1e8b7a90c3f2647788";

/// Embeddings of the hashed last two tokens, added to the values' input of each block. `WIDTH` is the mistake.
const COMPOSITION: &str = "\
def bigram_values(x, tokens, name):
    ids = (shift(tokens, 1) * 40503 + tokens * 30011) % 512
    return x + gather(param(name + \".bigram_embed\", (512, WIDTH), normal(embed_std)), ids)

def block(x, tokens, i):
    x = bigram_values(x, tokens, \"blocks.%d\" % i)
";

fn change(width: &str, more: Value) -> Value {
    let text = COMPOSITION.replace("WIDTH", width);
    let mut arguments = json!({"edits": [{"find": "def block(x, tokens, i):\n", "replace": text}]});
    arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    arguments
}

fn scripted(seen: &Seen) -> Act {
    let messages = seen.body["messages"].as_array().unwrap();
    let last = messages.last().unwrap().to_string();
    let proposal = |width: &str| {
        change(
            width,
            json!({"category": "architecture", "gain_bpb": 0.05, "probability": 0.3,
            "hypothesis": "Values that know the last two tokens save attention a step."}),
        )
    };
    Act::Say(match messages.iter().filter(|message| message["role"] == "assistant").count() {
        _ if !messages[0].to_string().contains("Proposal #1 ") => Said::text("That was all."),
        0 => Said {
            text: "First the ledger.".into(),
            calls: vec![("list_experiments".into(), json!({})), ("effects".into(), json!({}))],
            ..Said::default()
        },
        1 => Said::call("check_recipe", change("width + 1", json!({}))),
        2 => {
            assert!(last.contains(".star:"), "the compiler's message comes back: {last}");
            Said::call("propose", proposal("width + 1"))
        }
        _ => {
            assert!(last.contains("does not compile"), "{last}");
            Said::call("propose", proposal("width"))
        }
    })
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

/// The environments of the children of a process, by id.
fn environments(parent: u32) -> BTreeMap<u32, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // `id (name) state parent ...`; a name may hold anything but ends with the last bracket.
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        // Until it has become another program a child has the environment of its parent.
        let is_trial = std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(&b"train"[..]));
        if is_trial && after.split_whitespace().nth(1) == Some(&parent.to_string()) {
            found.extend(std::fs::read(entry.path().join("environ")).ok().map(|environ| (id, environ)));
        }
    }
    found
}

fn check_secret(what: &str, bytes: &[u8]) {
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    // The key from its first byte on in base64; other beginnings are searched for where services are simulated.
    let base64 = "c2stY2FuYXJ5LTVkMWU4YjdhOTBjM2YyNjQ3Nzg4";
    let text = String::from_utf8_lossy(bytes).to_lowercase();
    for form in [CANARY.to_string(), hex, base64.to_lowercase()] {
        assert!(!text.contains(&form), "{form} is in {what}");
    }
}

#[test]
fn a_model_composes_an_op_in_a_real_lab_and_its_key_stays_secret() {
    let lab = lab();
    let tiny = include_str!("../../../../recipes/tiny.star");
    let small = tiny.replace("\"tokens_per_step\", [4096, 1024,", "\"tokens_per_step\", [1024, 4096,");
    std::fs::write(lab.path().join("small.star"), small).unwrap();
    let server = Server::start(scripted);
    let who = "claude=claude-opus-4-5";
    let args = ["research", "--recipe", "small.star", "--data", "words", "--depth", "1", "--flops", "7e9"];
    let mut research = command(lab.path(), &args);
    research.args(["--trials", "40", "--researcher", who, "--workers", "2", "--json"]);
    research.env("ANTHROPIC_API_KEY", CANARY).env("ANTHROPIC_BASE_URL", server.messages_url());
    research.env("XDG_CONFIG_HOME", lab.path().join("config"));
    let child = research.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let waiting = std::thread::spawn(move || Ended::of(&child.wait_with_output().unwrap()));
    let mut trials = BTreeMap::new();
    while !waiting.is_finished() {
        trials.extend(environments(id));
        std::thread::sleep(Duration::from_millis(5));
    }
    let ended = waiting.join().unwrap();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    if cfg!(target_os = "linux") {
        assert!(trials.len() > 4, "{}", trials.len());
    }

    // It was tried, and whatever the judge said is on file.
    let document = ended.json();
    let campaign = &document["campaign"];
    let (proposal, verdict) = (&campaign["proposals"][0], &campaign["verdicts"][0]);
    assert_eq!(proposal["author"]["repairs"], 1, "{proposal}");
    assert_eq!((&proposal["category"], &proposal["researcher"]), (&json!("architecture"), &json!(who)));
    assert!(verdict["pairs"].as_array().is_some_and(|pairs| !pairs.is_empty()), "{verdict}");
    assert!(verdict["num_params"].as_u64() > Some(0));
    let recipe = proposal["recipe"]["file"].as_str().unwrap();
    let text = std::fs::read_to_string(lab.path().join("lab/campaign").join(recipe)).unwrap();
    assert!(text.contains("(512, width)"), "{text}");
    assert!(ended.stderr.contains("paused"), "{}", ended.stderr);

    let judged = pawl_in(lab.path(), &["researchers"]);
    assert_eq!(judged.code, 0, "{}", judged.stderr);
    for said in ["researcher", who, "architecture", "conversations_", "nowhere: ", "spent: $"] {
        assert!(judged.stdout.contains(said), "{said} in {}", judged.stdout);
    }
    let prompt = pawl_in(lab.path(), &["research", "--show-prompt"]);
    assert!(prompt.stdout.contains("Values that know the last two tokens"), "{}", prompt.stdout);
    let verified = pawl_in(lab.path(), &["verify"]);
    assert_eq!(verified.code, 0, "{}", verified.stdout);

    for (id, environment) in &trials {
        check_secret(&format!("the environment of trial {id}"), environment);
    }
    for (what, text) in [("stdout", &ended.stdout), ("stderr", &ended.stderr), ("the table", &judged.stdout)]
    {
        check_secret(what, text.as_bytes());
    }
    check_secret("the prompt", prompt.stdout.as_bytes());
    for file in files(lab.path()) {
        check_secret(&file.display().to_string(), &std::fs::read(&file).unwrap());
    }
}

#[test]
fn a_model_without_a_key_or_a_price_is_refused_before_anything_is_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = |more: &[&str], variables: &[(&str, &str)], config: Option<&str>| {
        let mut research = command(folder.path(), &["research", "--trials", "16"]);
        research.args(more).env_remove("ANTHROPIC_API_KEY").env_remove("OPENAI_API_KEY");
        research.env_remove("ANTHROPIC_BASE_URL").env_remove("OPENAI_BASE_URL");
        research.env("XDG_CONFIG_HOME", folder.path().join("config")).envs(variables.iter().copied());
        if let Some(config) = config {
            std::fs::create_dir_all(folder.path().join("config/pawl")).unwrap();
            std::fs::write(folder.path().join("config/pawl/models.toml"), config).unwrap();
        }
        let ended = Ended::of(&research.output().unwrap());
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{}", ended.stderr);
        assert!(!folder.path().join("lab/runs").exists());
        check_secret("stderr", ended.stderr.as_bytes());
        ended.stderr
    };
    let keyed = [("ANTHROPIC_API_KEY", CANARY), ("OPENAI_API_KEY", CANARY)];
    assert!(run(&["--researcher", "claude"], &[], None).contains("claude needs a key"));
    assert!(run(&["--researcher", "openai"], &keyed, None).contains("openai needs a model"));
    let unpriced = run(&["--researcher", "openai=new-model-9"], &keyed, None);
    assert!(unpriced.contains("the price of new-model-9 is not known"), "{unpriced}");
    let plain = [("ANTHROPIC_BASE_URL", "http://models.example"), keyed[0]];
    assert!(run(&["--researcher", "claude"], &plain, None).contains("plain http"));
    // A key in a project file is not looked at.
    std::fs::write(folder.path().join("models.toml"), format!("[claude]\nkey = \"{CANARY}\"\n")).unwrap();
    assert!(run(&["--researcher", "claude"], &[], None).contains("needs a key"));
    assert!(
        run(&["--researcher", "claude"], &[], Some("[claude]\nkeys = \"x\"\n"))
            .contains("unknown entry keys")
    );
}
