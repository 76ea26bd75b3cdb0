//! One conversation: from the state of the campaign to a proposal. The model looks and checks by tools; a proposal
//! that does not compile, or is not new, goes back to it with the reason, a bounded number of times.

use super::message::{Ask, Message, Part, Reply, Role, Stop};
use super::send::Failure;
use crate::researcher::{Context, Draft};
use crate::tools::{self, Objection, Outcome, Submission};

/// Bounds of a conversation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) max_tokens: u64,
    pub(super) turns: usize,
    pub(super) repairs: u64,
}

/// A proposal, and how often it was sent back before.
pub(super) struct Made {
    pub(super) draft: Draft,
    pub(super) repairs: u64,
}

/// Why there is none.
pub(super) enum Ended {
    /// The service did not answer.
    Sending(Failure),
    /// The model led nowhere, and how.
    Nowhere(String),
}

/// Calls of one answer that are carried out; the rest are told to wait.
const MAX_CALLS: usize = 16;

/// Bytes of an answer: its most tokens are far fewer.
const MAX_REPLY: usize = 300_000;

/// Times that a model which calls no tool is reminded.
const REMINDERS: usize = 2;

/// Leads a conversation; `send` brings the model's replies.
pub(super) fn hold(
    context: &Context<'_>,
    system: &str,
    opening: String,
    bounds: Bounds,
    send: &mut dyn FnMut(&Ask<'_>) -> Result<Reply, Failure>,
) -> Result<Made, Ended> {
    let mut messages = vec![Message::user(opening)];
    let mut desk = Desk { context, bounds, repairs: 0, near: None };
    let mut reminders = 0;
    for _ in 0..bounds.turns {
        let ask = Ask { system, messages: &messages, max_tokens: bounds.max_tokens };
        let reply = send(&ask).map_err(Ended::Sending)?;
        if reply.stop == Stop::Refusal {
            return Err(Ended::Nowhere("the model refused".to_string()));
        }
        let size = size(&reply);
        if size > MAX_REPLY {
            return Err(Ended::Nowhere(format!("an answer of {size} bytes")));
        }
        let mut results = Vec::new();
        for (at, part) in reply.parts.iter().enumerate() {
            if let Part::Call { id, name, arguments } = part {
                let answer = match at < MAX_CALLS {
                    true => desk.call(name, arguments)?,
                    false => Answer::Text("too many calls at once; call again".to_string(), true),
                };
                match answer {
                    Answer::Made(made) => return Ok(*made),
                    Answer::Text(text, refused) => {
                        results.push(Part::Result { id: id.clone(), name: name.clone(), text, refused });
                    }
                }
            }
        }
        messages.push(Message { role: Role::Assistant, parts: spoken(&reply) });
        if results.is_empty() {
            reminders += 1;
            if reminders > REMINDERS {
                return Err(Ended::Nowhere("the model proposes nothing".to_string()));
            }
            let cut =
                if reply.stop == Stop::Length { "Your answer was cut at its most tokens. " } else { "" };
            messages.push(Message::user(format!(
                "{cut}Nothing is proposed yet. Call `propose` with a change, a hypothesis, gain_bpb and probability."
            )));
        } else {
            messages.push(Message { role: Role::User, parts: results });
        }
    }
    Err(Ended::Nowhere(format!("no proposal in {} turns", bounds.turns)))
}

/// Parts of a reply as they are sent back: an empty message would be refused.
fn spoken(reply: &Reply) -> Vec<Part> {
    if reply.parts.iter().any(|part| matches!(part, Part::Text { .. } | Part::Call { .. })) {
        return reply.parts.clone();
    }
    reply.parts.iter().cloned().chain([Part::Text { text: "(nothing)".to_string() }]).collect()
}

fn size(reply: &Reply) -> usize {
    let part = |part: &Part| match part {
        Part::Text { text } => text.len(),
        // A thought is bounded by the provider, and must go back as it came.
        Part::Thought { .. } => 0,
        Part::Call { name, arguments, .. } => name.len() + arguments.to_string().len(),
        Part::Result { text, .. } => text.len(),
    };
    reply.parts.iter().map(part).sum()
}

/// What a call is answered with.
enum Answer {
    Made(Box<Made>),
    Text(String, bool),
}

/// Where calls arrive.
struct Desk<'a> {
    context: &'a Context<'a>,
    bounds: Bounds,
    repairs: u64,
    /// The draft that was last sent back for being nearly something known.
    near: Option<Draft>,
}

impl Desk<'_> {
    fn call(&mut self, name: &str, arguments: &serde_json::Value) -> Result<Answer, Ended> {
        match tools::call(self.context, name, arguments) {
            Outcome::Text(text) => Ok(Answer::Text(text, false)),
            Outcome::Refused(why) => Ok(Answer::Text(why, true)),
            Outcome::Submitted(submission) => self.submitted(*submission),
        }
    }

    fn submitted(&mut self, submission: Submission) -> Result<Answer, Ended> {
        let Submission { draft, objection, .. } = submission;
        let Some(objection) = objection else { return Ok(self.made(draft)) };
        let spent = self.repairs >= self.bounds.repairs;
        match &objection {
            // What cannot be mended is put on file as it is: the ledger tells what does not compile.
            Objection::DoesNotCompile(_) if spent => return Ok(self.made(draft)),
            Objection::Refused(why) if spent => return Err(Ended::Nowhere(why.clone())),
            Objection::Near(_) if spent || self.is_insisted_on(&draft) => return Ok(self.made(draft)),
            Objection::DoesNotCompile(_) | Objection::Refused(_) => {}
            Objection::Near(_) => self.near = Some(draft),
        }
        self.repairs += 1;
        let left = self.bounds.repairs - self.repairs;
        let advice = match &objection {
            Objection::DoesNotCompile(_) => "It does not compile. Mend it and propose it again",
            Objection::Refused(_) => "It is not tried. Propose something else",
            Objection::Near(_) => "Propose something that differs more, or the same again if you insist",
        };
        let text = format!("{}\n{advice}; {left} more may be sent back.", objection.message());
        Ok(Answer::Text(text, true))
    }

    fn is_insisted_on(&self, draft: &Draft) -> bool {
        self.near.as_ref().is_some_and(|near| near.recipe == draft.recipe && near.changes == draft.changes)
    }

    fn made(&self, draft: Draft) -> Answer {
        Answer::Made(Box::new(Made { draft, repairs: self.repairs }))
    }
}
