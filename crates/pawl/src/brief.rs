//! What `pawl research` is asked: the defaults, the lab's campaign, `campaign.toml` and the flags, in this order, and
//! the explanation of the whole.

use crate::args::{BUILTIN_DATA, Research};
use crate::errors::Failure;
use crate::output::Answer;
use crate::providers;
use crate::recipes::{RecipeText, compile, depth, find, from_recipe};
use pawl_recipe::Overrides;
use pawl_record::CampaignManifest;
use pawl_research::brief::{Brief, BriefError, Source, Value};
use pawl_research::researcher::Researcher;
use serde_json::json;
use std::path::{Path, PathBuf};

/// The file that is read where it lies in the current folder.
const FILE: &str = "campaign.toml";

/// A campaign file is a page of text; more is a mistake.
const MAX_BYTES: u64 = 1 << 20;

/// What is asked, with nothing left open, and the text of its recipe.
pub(crate) struct Asked {
    pub(crate) brief: Brief,
    pub(crate) recipe: RecipeText,
    file: Option<PathBuf>,
}

impl Asked {
    /// The answer to `--explain`.
    pub(crate) fn explained(&self) -> Answer {
        let keys = self.brief.entries();
        Answer::new(self.brief.explain(), json!({ "campaign_file": self.file, "keys": keys }))
    }
}

/// Puts together what is asked.
pub(crate) fn asked(args: &Research, existing: Option<&CampaignManifest>) -> Result<Asked, Failure> {
    let mut brief = Brief::new(BUILTIN_DATA);
    if let Some(campaign) = existing {
        brief.continue_campaign(campaign);
    }
    let file = file(args);
    if let Some(file) = &file {
        let text = text(file)?;
        brief.read(&text, &file.display().to_string()).map_err(from_file)?;
    }
    flags(args, &mut brief)?;
    let recipe = recipe(args, &brief, file.as_deref(), existing)?;
    let compiled =
        compile(&recipe, &Overrides::default()).map_err(|error| from_recipe(&recipe.name, error))?;
    let depth = depth(&compiled).ok_or_else(|| {
        Failure::new(format!("recipe {} has no dial `depth`", recipe.name))
            .hint("depth = dial(\"depth\", 4) makes one: it is what the scale of a trial is")
    })?;
    brief.settle(depth).map_err(|what| {
        Failure::misuse("the campaign as it is asked cannot be run")
            .because(what)
            .hint("`pawl research --explain` prints what is asked, and where it came from")
    })?;
    Ok(Asked { brief, recipe, file })
}

/// The file that is named, or the one that is there.
fn file(args: &Research) -> Option<PathBuf> {
    args.campaign.clone().or_else(|| Path::new(FILE).is_file().then(|| PathBuf::from(FILE)))
}

fn text(file: &Path) -> Result<String, Failure> {
    let cannot = || Failure::misuse(format!("{} cannot be read", file.display()));
    let size = std::fs::metadata(file).map_err(|why| cannot().caused_by(&why))?.len();
    if size > MAX_BYTES {
        return Err(cannot().because(format!("it has {size} bytes, more than {MAX_BYTES}")));
    }
    std::fs::read_to_string(file).map_err(|why| cannot().caused_by(&why))
}

/// The flags that were given.
fn flags(args: &Research, brief: &mut Brief) -> Result<(), Failure> {
    let whole = |it: u64| Value::Whole(i64::try_from(it).unwrap_or(i64::MAX));
    let precision = args.precision.map(|it| pawl_record::Precision::from(it).name().to_string());
    let given = [
        ("", "recipe", "--recipe", args.recipe.clone().map(Value::Text)),
        ("", "data", "--data", args.data.clone().map(Value::Text)),
        ("", "seed", "--seed", args.seed.map(whole)),
        ("", "researcher", "--researcher", args.researcher.clone().map(Value::Text)),
        ("", "precision", "--precision", precision.map(Value::Text)),
        ("caps", "minutes", "--minutes", args.minutes.map(Value::Number)),
        ("caps", "trials", "--trials", args.trials.map(whole)),
    ];
    for (table, key, flag, value) in given {
        if let Some(value) = value {
            brief.say(table, key, value, Source::Flag(flag)).map_err(Failure::misuse)?;
        }
    }
    if let Some(rungs) = args.rungs {
        brief.say_num_rungs(rungs as usize);
    }
    for (key, flag, value) in
        [("depth", "--depth", args.depth.map(whole)), ("flops", "--flops", args.flops.map(Value::Number))]
    {
        if let Some(value) = value {
            brief.say_rung(0, key, value, Source::Flag(flag)).map_err(Failure::misuse)?;
        }
    }
    Ok(())
}

/// The text of the recipe: the lab's own where nobody named another, otherwise as named, from the folder of the
/// campaign file where that named it.
fn recipe(
    args: &Research,
    brief: &Brief,
    file: Option<&Path>,
    existing: Option<&CampaignManifest>,
) -> Result<RecipeText, Failure> {
    match (brief.source("", "recipe"), existing) {
        (Source::Lab, Some(campaign)) => {
            let path = args.place.lab.join("campaign").join(&campaign.recipe.file);
            let text = find(&path.display().to_string())?.text;
            Ok(RecipeText { name: campaign.recipe.name.clone(), text })
        }
        (Source::File { .. }, _) => {
            let folder = file.and_then(Path::parent).unwrap_or(Path::new(""));
            let beside = folder.join(&brief.recipe);
            find(&if beside.is_file() { beside.display().to_string() } else { brief.recipe.clone() })
        }
        (Source::Default | Source::Lab | Source::Flag(_), _) => find(&brief.recipe),
    }
}

/// Who proposes.
pub(crate) fn researcher(brief: &Brief, args: &Research) -> Result<Researcher, Failure> {
    let team = providers::team(&brief.researcher).map_err(|why| {
        let failure = Failure::misuse(format!("there is no researcher {}", brief.researcher)).because(why);
        match brief.source("", "researcher") {
            Source::File { file, line } => failure.hint(format!("{file}:{line} names it")),
            Source::Default | Source::Lab | Source::Flag(_) => failure,
        }
    })?;
    let named_by = match brief.source("", "researcher") {
        Source::File { file, line } => Some(format!("{file}:{line}")),
        Source::Lab => Some("the campaign in the lab".to_string()),
        Source::Default | Source::Flag(_) => None,
    };
    if let (true, Some(by)) = (team.asks_a_service(), named_by) {
        return Err(Failure::misuse(format!("{} is asked for by a file alone", brief.researcher))
            .because(format!("{by} names it, and a file that came with a project may not spend money"))
            .hint(format!("say so yourself: --researcher {}", brief.researcher)));
    }
    providers::researcher(&team, args, brief)
}

fn from_file(error: BriefError) -> Failure {
    let (because, hint) = (error.because.clone(), error.hint.clone());
    let mut failure = Failure::misuse(error.to_string());
    if let Some(because) = because {
        failure = failure.because(because);
    }
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
