//! From what a person wrote for --researcher to researchers: models, keys, addresses and prices, from the environment
//! and the user's own configuration folder. Nothing of it is read from a lab, a recipe or the working folder.

use crate::args::Research;
use crate::errors::Failure;
use pawl_research::brief::Brief;
use pawl_research::models::spend::{Caps, Prices};
use pawl_research::models::{Asked, Limits, Model, Replay, Secret, Service, is_loopback};
use pawl_research::researcher::Researcher as Who;
use pawl_research::team::{self, Member};
use std::path::PathBuf;
use std::sync::Arc;

/// The model of `claude` that is given none.
const CLAUDE: &str = "claude-opus-4-7";

/// What models may cost that have a price, unless asked otherwise, US dollars.
const MAX_USD: f64 = 5.0;

/// Researchers and their shares.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Team(pub(crate) Vec<(Researcher, Option<f64>)>);

impl Team {
    /// Whether one of them is a language model that a service answers for.
    pub(crate) fn asks_a_service(&self) -> bool {
        self.0.iter().any(|(researcher, _)| match researcher {
            Researcher::Claude(_) | Researcher::Openai(_) => true,
            Researcher::Optimizer
            | Researcher::Steps
            | Researcher::Random
            | Researcher::OneAtATime
            | Researcher::Tpe
            | Researcher::Mcp
            | Researcher::Replay(_) => false,
        })
    }
}

/// Researchers this version has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Researcher {
    /// Built in: a bandit over choices, a model of the numbers; no key, no network
    Optimizer,
    /// The same in single changes alone
    Steps,
    /// Any one change with equal probability: what every researcher has to beat
    Random,
    /// Every single change in turn
    OneAtATime,
    /// Whole configurations by the tree-structured Parzen estimator
    Tpe,
    /// The Messages API, with this model
    Claude(Option<String>),
    /// Chat completions, with this model
    Openai(Option<String>),
    /// Whoever files drafts by `pawl mcp`
    Mcp,
    /// Recorded conversations: a file or a folder
    Replay(PathBuf),
}

/// `claude=MODEL:0.7,optimizer:0.3`. What follows the last colon is a share if it is a number, and otherwise belongs to
/// the name, as in `openai=qwen3:8b`.
pub(crate) fn team(text: &str) -> Result<Team, String> {
    let one = |part: &str| {
        let (name, share) = match part.rsplit_once(':') {
            Some((name, share)) if share.parse::<f64>().is_ok() => (name, Some(positive(share)?)),
            Some(_) | None => (part, None),
        };
        let model =
            |prefix: &str| name.strip_prefix(prefix).map(str::to_string).filter(|model| !model.is_empty());
        let researcher = match name {
            "optimizer" => Researcher::Optimizer,
            "steps" => Researcher::Steps,
            "random" => Researcher::Random,
            "one_at_a_time" => Researcher::OneAtATime,
            "tpe" => Researcher::Tpe,
            "mcp" => Researcher::Mcp,
            "claude" => Researcher::Claude(None),
            "openai" => Researcher::Openai(None),
            _ => match (model("claude="), model("openai="), model("replay:")) {
                (Some(model), _, _) => Researcher::Claude(Some(model)),
                (_, Some(model), _) => Researcher::Openai(Some(model)),
                (_, _, Some(path)) => Researcher::Replay(path.into()),
                (None, None, None) => {
                    return Err(format!(
                        "{name} is none of optimizer, steps, random, one_at_a_time, tpe, claude, claude=MODEL, openai, openai=MODEL, mcp, replay:PATH"
                    ));
                }
            },
        };
        Ok((researcher, share))
    };
    text.split(',').map(|part| one(part.trim())).collect::<Result<Vec<_>, String>>().map(Team)
}

/// A share.
fn positive(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| *share > 0.0 && share.is_finite());
    share.ok_or_else(|| format!("{text} is no share: a number above 0"))
}

/// The researchers that were asked for.
pub(crate) fn researcher(team: &Team, args: &Research, brief: &Brief) -> Result<Who, Failure> {
    let asked = Caps { usd: args.max_usd, tokens: args.max_tokens, hours: args.max_hours };
    let most = Caps { usd: brief.usd, tokens: brief.tokens, hours: brief.hours };
    let mut members = Vec::new();
    for (researcher, share) in &team.0 {
        members.push(Member { researcher: one(researcher, (asked, most))?, share: *share });
    }
    match &members[..] {
        // A share of one researcher is all there is.
        [only] => Ok(only.researcher.clone()),
        _ => team::Team::new(members).map(|team| Who::Team(Arc::new(team))).map_err(|why| {
            Failure::misuse("these researchers cannot share a campaign")
                .because(why)
                .hint("write them as claude:0.7,optimizer:0.3, or all without a share")
        }),
    }
}

fn one(researcher: &Researcher, caps: (Caps, Caps)) -> Result<Who, Failure> {
    match researcher {
        Researcher::Optimizer => Ok(Who::Optimizer),
        Researcher::Steps => Ok(Who::Steps),
        Researcher::Random => Ok(Who::Random),
        Researcher::OneAtATime => Ok(Who::OneAtATime),
        Researcher::Tpe => Ok(Who::Tpe),
        Researcher::Mcp => Ok(Who::Inbox),
        Researcher::Claude(model) => claude(model.as_deref(), caps),
        Researcher::Openai(model) => openai(model.as_deref(), caps),
        Researcher::Replay(path) => {
            let replay = Replay::new("replay".to_string(), path).map_err(|why| {
                Failure::misuse(format!("{} holds no conversations", path.display())).caused_by(&why)
            })?;
            Ok(Who::Replay(Arc::new(replay)))
        }
    }
}

fn claude(named: Option<&str>, caps: (Caps, Caps)) -> Result<Who, Failure> {
    let own = own_service("claude")?;
    let base_url = variable("ANTHROPIC_BASE_URL").or(own.base_url);
    let model = named.map(str::to_string).or(own.model).unwrap_or_else(|| CLAUDE.to_string());
    let key = variable("ANTHROPIC_API_KEY").or(own.key).and_then(|key| Secret::new(&key));
    let asked = Asked {
        name: name("claude", named),
        service: Service::Messages,
        model,
        base_url: base_url.unwrap_or_else(|| "https://api.anthropic.com".to_string()),
        key,
        prices: prices()?,
        caps: caps.0,
        limits: Limits::default(),
    };
    made(asked, caps.1, "ANTHROPIC_API_KEY")
}

fn openai(named: Option<&str>, caps: (Caps, Caps)) -> Result<Who, Failure> {
    let own = own_service("openai")?;
    let base_url = variable("OPENAI_BASE_URL").or(own.base_url);
    let model = named.map(str::to_string).or(own.model).ok_or_else(|| {
        Failure::misuse("openai needs a model")
            .hint("write --researcher openai=MODEL, as the server names it")
    })?;
    let key = variable("OPENAI_API_KEY").or(own.key).and_then(|key| Secret::new(&key));
    let asked = Asked {
        name: name("openai", named),
        service: Service::Chat,
        model,
        base_url: base_url.unwrap_or_else(|| "https://api.openai.com/v1".to_string()),
        key,
        prices: prices()?,
        caps: caps.0,
        limits: Limits::default(),
    };
    made(asked, caps.1, "OPENAI_API_KEY")
}

/// Two models of one service in a campaign have two names.
fn name(service: &str, model: Option<&str>) -> String {
    model.map_or_else(|| service.to_string(), |model| format!("{service}={model}"))
}

/// `most` is what a campaign file says: it can lower a cap, and raise none.
fn made(mut asked: Asked, most: Caps, variable: &str) -> Result<Who, Failure> {
    let name = asked.name.clone();
    if asked.key.is_none() && !is_loopback(&asked.base_url) {
        return Err(Failure::misuse(format!("{name} needs a key"))
            .because(format!("{variable} is not set, and {} has none", place("models.toml")))
            .hint(format!("set {variable}, or ask --researcher optimizer, which needs none")));
    }
    // A server on this machine costs nothing, unless its model has a price.
    if asked.caps.usd.is_none() && (!is_loopback(&asked.base_url) || asked.prices.of(&asked.model).is_some())
    {
        asked.caps.usd = Some(MAX_USD);
    }
    asked.caps = asked.caps.within(&most);
    let model = Model::new(asked).map_err(|why| {
        Failure::misuse(format!("{name} cannot be asked")).because(why).hint(format!(
            "addresses and models stand in {}, prices in {}",
            place("models.toml"),
            place("prices.toml")
        ))
    })?;
    Ok(Who::Model(Arc::new(model)))
}

/// One service in the user's `models.toml`.
#[derive(Default)]
struct OwnService {
    key: Option<String>,
    base_url: Option<String>,
    model: Option<String>,
}

fn own_service(name: &str) -> Result<OwnService, Failure> {
    let Some(text) = own("models.toml")? else { return Ok(OwnService::default()) };
    let unreadable = |why: &str| {
        Failure::misuse(format!("{} cannot be used", place("models.toml")))
            .because(why)
            .hint("it has sections [claude] and [openai] with key, base_url and model, all strings")
    };
    // The error of the parser would quote the line, and the line may hold a key.
    let table: toml::Table = text.parse().map_err(|_| unreadable("it is not TOML"))?;
    let Some(section) = table.get(name) else { return Ok(OwnService::default()) };
    let section = section.as_table().ok_or_else(|| unreadable("a section is not a table"))?;
    let word = |key: &str| match section.get(key) {
        None => Ok(None),
        Some(value) => value
            .as_str()
            .map(|text| Some(text.to_string()))
            .ok_or_else(|| unreadable("a value is no string")),
    };
    if let Some(unknown) = section.keys().find(|key| !["key", "base_url", "model"].contains(&key.as_str())) {
        return Err(unreadable(&format!("[{name}] has the unknown entry {unknown}")));
    }
    Ok(OwnService { key: word("key")?, base_url: word("base_url")?, model: word("model")? })
}

fn prices() -> Result<Prices, Failure> {
    Prices::read(own("prices.toml")?.as_deref()).map_err(|why| {
        Failure::misuse(format!("{} cannot be used", place("prices.toml"))).because(why).hint(
            "each line is a [[model]] with prefix, input, output, cache_write and cache_read, US dollars a million tokens",
        )
    })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_string()).filter(|value| !value.is_empty())
}

/// The user's configuration folder for pawl, if there is a place for one.
fn folder() -> Option<PathBuf> {
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    config
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".config")))
        .map(|path| path.join("pawl"))
}

fn place(file: &str) -> String {
    folder().map_or_else(|| file.to_string(), |folder| folder.join(file).display().to_string())
}

/// A file of that folder; `None` when it is not there.
fn own(file: &str) -> Result<Option<String>, Failure> {
    let Some(path) = folder().map(|folder| folder.join(file)) else { return Ok(None) };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(Failure::new(format!("{} cannot be read", path.display())).caused_by(&why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn researchers_are_named_with_models_and_shares() {
        let named = |text: &str| team(text).map(|team| team.0);
        assert_eq!(named("optimizer"), Ok(vec![(Researcher::Optimizer, None)]));
        assert_eq!(named("mcp:2"), Ok(vec![(Researcher::Mcp, Some(2.0))]));
        let two =
            vec![(Researcher::Claude(Some("m-1".into())), Some(0.7)), (Researcher::Optimizer, Some(0.3))];
        assert_eq!(named("claude=m-1:0.7, optimizer:0.3"), Ok(two));
        assert_eq!(named("openai=qwen3:8b"), Ok(vec![(Researcher::Openai(Some("qwen3:8b".into())), None)]));
        assert_eq!(named("replay:a/b.jsonl"), Ok(vec![(Researcher::Replay("a/b.jsonl".into()), None)]));
        for wrong in ["", "oracle", "claude:0", "claude=", "claude:-1", "optimizer,", "random:nan"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }
}
