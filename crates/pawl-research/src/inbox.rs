//! Drafts from outside: whoever speaks to `pawl mcp` files them in `campaign/inbox`, and a campaign whose researcher is
//! `mcp` takes them in order. Any number of processes may file while one campaign takes.
//!
//! A draft is kept as the call it was made by, and that call is made again of the lab as it is when it is taken: what no
//! longer compiles, or has been tried meanwhile, goes back with the reason. A proposal names its draft, so that one is
//! taken once, whenever a process is killed. Drafts choose no seeds and no budget, and all are `mcp`'s: a client only
//! says what it is called.

use crate::campaign::CampaignError;
use crate::researcher::{Answer, Context, Draft};
use crate::store::Store;
use crate::tools::{self, Objection, Outcome, Submission, line};
use pawl_record::{Author, Proposal, SCHEMA, read_json, write_json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

/// The name of the researcher in `--researcher` and in records.
pub const NAME: &str = "mcp";

/// Drafts that may wait to be taken.
pub const MAX_WAITING: usize = 32;

/// Bytes of the arguments of one call, as JSON: the longest recipe with every line escaped, and then some.
pub const MAX_ARGUMENTS: usize = 1 << 20;

/// Characters of a client's name that are kept.
const MAX_CLIENT: usize = 60;

/// Between looks at an empty inbox.
const LOOK: Duration = Duration::from_millis(200);

/// `inbox/NNNN.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filed {
    /// Version of this document.
    pub schema: u32,
    /// Which draft.
    pub number: u64,
    /// What the client calls itself.
    pub client: String,
    /// The champion it was made for.
    pub generation: u64,
    /// Whether it is to be tried although it is nearly something known.
    pub insisted: bool,
    /// Of the program, when it was filed.
    pub fingerprint: String,
    /// The arguments of `propose`.
    pub arguments: Value,
    /// Seconds since 1970.
    pub created_unix_s: u64,
}

/// `inbox/NNNN.returned.json`: a draft that is not tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Returned {
    /// Version of this document.
    pub schema: u32,
    /// Which draft.
    pub number: u64,
    /// Why not.
    pub why: String,
    /// Seconds since 1970.
    pub created_unix_s: u64,
}

/// What has become of a draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// There is none of that number.
    Unknown,
    /// It waits behind so many.
    Waiting {
        /// Drafts before it.
        before: usize,
    },
    /// It is not tried.
    Returned(String),
    /// It is this proposal, not decided yet.
    OnTrial(u64),
    /// It is this proposal, decided.
    Judged(u64),
}

/// Whether a campaign's researcher, as its manifest names it, takes drafts from here.
pub fn is_asked(researcher: &str) -> bool {
    researcher.split(',').any(|member| member.split(':').next() == Some(NAME))
}

/// Files a draft, or says why it would not be tried; nothing is written then.
pub fn file(context: &Context<'_>, client: &str, arguments: &Value, insist: bool) -> Result<Filed, String> {
    let size = arguments.to_string().len();
    if size > MAX_ARGUMENTS {
        return Err(format!("the arguments have {size} bytes, more than {MAX_ARGUMENTS}"));
    }
    let submission = match tools::call(context, tools::Tool::Propose.name(), arguments) {
        Outcome::Submitted(submission) => *submission,
        Outcome::Refused(why) => return Err(why),
        Outcome::Text(other) => return Err(other),
    };
    if let Some(objection) = &submission.objection {
        match objection {
            Objection::DoesNotCompile(why) => {
                return Err(format!(
                    "{why}\nIt does not compile, so it is not filed. Mend it and propose it again."
                ));
            }
            Objection::Refused(why) => return Err(format!("{why}\nPropose something else.")),
            Objection::Near(_) if insist => {}
            Objection::Near(why) => {
                return Err(format!(
                    "{why}\nPropose something that differs more, or the same with insist: true."
                ));
            }
        }
    }
    let fingerprint = submission.fingerprint.ok_or("it has no fingerprint")?;
    let draft = Filed {
        schema: SCHEMA,
        number: 0,
        client: named(client),
        generation: context.champion.generation,
        insisted: insist,
        fingerprint,
        arguments: arguments.clone(),
        created_unix_s: context.unix_s,
    };
    file_with_lock(context, draft).map_err(|error| error.to_string())?
}

fn named(client: &str) -> String {
    let name = line(client, MAX_CLIENT);
    if name.is_empty() { "without a name".to_string() } else { name }
}

/// Numbers and counts are settled while no other process files.
fn file_with_lock(context: &Context<'_>, draft: Filed) -> Result<Result<Filed, String>, CampaignError> {
    let store = Store::new(context.lab);
    let folder = store.path("inbox");
    let io = |source| CampaignError::Io { path: folder.clone(), source };
    fs::create_dir_all(&folder).map_err(io)?;
    let lock = File::options().create(true).append(true).open(folder.join("lock")).map_err(io)?;
    lock.lock().map_err(io)?;
    let waiting = waiting(context)?;
    if waiting.len() >= MAX_WAITING {
        return Ok(Err(format!("{MAX_WAITING} drafts wait already: wait for results before you file more")));
    }
    for number in waiting {
        // One that cannot be read is returned when it is its turn.
        let same = read(&store, number).is_ok_and(|other| other.fingerprint == draft.fingerprint);
        if same {
            return Ok(Err(format!("draft {number} is the same program, and waits")));
        }
    }
    let number = store.numbers("inbox")?.last().map_or(1, |last| last + 1);
    let draft = Filed { number, ..draft };
    write_json(&store.path(&name(number)), &draft)?;
    Ok(Ok(draft))
}

/// `inbox/0007.json`, as proposals name it.
fn name(number: u64) -> String {
    format!("inbox/{number:04}.json")
}

fn returned_name(number: u64) -> String {
    format!("inbox/{number:04}.returned.json")
}

fn read(store: &Store, number: u64) -> Result<Filed, CampaignError> {
    Ok(read_json(&store.path(&name(number)))?)
}

/// The draft behind a proposal.
pub(crate) fn draft_of(store: &Store, proposal: &Proposal) -> Option<Filed> {
    read(store, number_in(proposal)?).ok()
}

/// The number of the draft that a proposal was.
pub(crate) fn number_in(proposal: &Proposal) -> Option<u64> {
    let author = proposal.author.as_ref().filter(|_| proposal.researcher == NAME)?;
    let number = author.conversation.strip_prefix("inbox/")?.strip_suffix(".json")?;
    number.parse().ok()
}

/// Drafts that were neither taken nor returned, first to last.
pub fn waiting(context: &Context<'_>) -> Result<Vec<u64>, CampaignError> {
    let store = Store::new(context.lab);
    let last = context.history.proposals.iter().rev().find_map(number_in).unwrap_or(0);
    let mut numbers = store.numbers("inbox")?;
    // They are taken in order.
    numbers.retain(|number| *number > last && !store.path(&returned_name(*number)).exists());
    Ok(numbers)
}

/// What has become of a draft of a lab.
pub fn state(lab: &Path, number: u64) -> Result<State, CampaignError> {
    let store = Store::new(lab);
    let numbers = store.numbers("inbox")?;
    if !numbers.contains(&number) {
        return Ok(State::Unknown);
    }
    let returned = |number: u64| store.path(&returned_name(number));
    if returned(number).exists() {
        return Ok(State::Returned(read_json::<Returned>(&returned(number))?.why));
    }
    let mut last = 0;
    // Newest first: they are taken in order.
    for at in store.numbers("proposals")?.into_iter().rev() {
        let proposal = store.proposal(at)?;
        match proposal.as_ref().and_then(number_in) {
            Some(taken) if taken == number && store.verdict(at)?.is_some() => return Ok(State::Judged(at)),
            Some(taken) if taken == number => return Ok(State::OnTrial(at)),
            Some(taken) if taken < number => {
                last = taken;
                break;
            }
            Some(_) | None => {}
        }
    }
    let before = |other: &&u64| **other > last && **other < number && !returned(**other).exists();
    Ok(State::Waiting { before: numbers.iter().filter(before).count() })
}

/// The next draft, which is waited for as long as there is time to try one, and no longer than `most`: none then.
pub(crate) fn wait(context: &Context<'_>, most: Option<Duration>) -> Option<Answer> {
    let start = Instant::now();
    let mut said = false;
    loop {
        let answer = at_once(context);
        if !matches!(answer, Answer::Exhausted) || !context.in_round.is_empty() {
            return Some(answer);
        }
        if (context.interrupted)() {
            return Some(Answer::Paused("interrupted".to_string()));
        }
        if most.is_some_and(|most| start.elapsed() >= most) {
            return None;
        }
        if context.left.seconds.is_some_and(|left| start.elapsed().as_secs_f64() + round_s(context) > left) {
            return Some(Answer::Exhausted);
        }
        if !said {
            (context.say)(&format!("{NAME} is waited for: clients of pawl mcp file drafts"));
            said = true;
        }
        std::thread::sleep(LOOK);
    }
}

/// Seconds below which no campaign begins a round.
fn round_s(context: &Context<'_>) -> f64 {
    let workers = context.left.workers.max(1);
    let trials = 2 * workers + context.judge.champion_runs as usize;
    trials.div_ceil(workers) as f64 * context.left.trial_s
}

/// The next draft, if one is there.
pub(crate) fn at_once(context: &Context<'_>) -> Answer {
    match next(context) {
        Ok(Some(draft)) => Answer::Draft(Box::new(draft)),
        Ok(None) => Answer::Exhausted,
        Err(error) => Answer::Paused(error.to_string()),
    }
}

fn next(context: &Context<'_>) -> Result<Option<Draft>, CampaignError> {
    let store = Store::new(context.lab);
    for number in waiting(context)? {
        match taken(context, &store, number) {
            Ok(draft) => return Ok(Some(draft)),
            Err(why) => {
                (context.say)(&format!("{NAME}: draft {number} goes back: {}", line(&why, 200)));
                let returned = Returned { schema: SCHEMA, number, why, created_unix_s: context.unix_s };
                write_json(&store.path(&returned_name(number)), &returned)?;
            }
        }
    }
    Ok(None)
}

/// A draft made again of the lab as it is, or why it is not tried.
fn taken(context: &Context<'_>, store: &Store, number: u64) -> Result<Draft, String> {
    let filed = read(store, number).map_err(|_| "the draft cannot be read".to_string())?;
    let is_whole = filed.arguments.get("recipe").is_some_and(|text| !text.is_null());
    if is_whole && filed.generation != context.champion.generation {
        return Err("there is another champion now, whose text this one does not know: look at it, \
             and propose your idea as a change of it"
            .to_string());
    }
    let submission = match tools::call(context, tools::Tool::Propose.name(), &filed.arguments) {
        Outcome::Submitted(submission) => *submission,
        Outcome::Refused(why) => return Err(why),
        Outcome::Text(other) => return Err(other),
    };
    let Submission { mut draft, objection, .. } = submission;
    match objection {
        Some(Objection::DoesNotCompile(why) | Objection::Refused(why)) => return Err(why),
        Some(Objection::Near(why)) if !filed.insisted => return Err(why),
        Some(Objection::Near(_)) | None => {}
    }
    draft.researcher = NAME.to_string();
    draft.author = Some(Author {
        asked: NAME.to_string(),
        model: format!("client {}", named(&filed.client)),
        conversation: name(number),
        requests: 0,
        input_tokens: 0,
        output_tokens: 0,
        cost_usd: 0.0,
        repairs: 0,
    });
    Ok(draft)
}
